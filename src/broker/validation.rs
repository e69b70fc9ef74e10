//! The validation of a client's batch, as Kafka's LogValidator does it.

use kafka_protocol::error::ResponseError;

use super::Refusal;
use super::batch::{self, Header, Records};
use super::topic_config::TopicConfig;

/// Checks that a topic accepts a client's batch. Returns the batch's header.
pub(super) fn validate(
    records: &[u8],
    config: &TopicConfig,
    now_ms: i64,
) -> Result<Header, Refusal> {
    let invalid = |text: &str| Refusal::new(ResponseError::InvalidRecord, text);
    let corrupt = |text: &str| Refusal::new(ResponseError::CorruptMessage, text);
    if records.is_empty() {
        return Err(invalid(
            "a produce request must have exactly one record batch",
        ));
    }
    let (header, whole) =
        Header::read(records).ok_or_else(|| invalid("the batch has no header"))?;
    if header.magic != 2 {
        return Err(invalid(
            "only record batches with magic version 2 are taken",
        ));
    }
    if whole > records.len() {
        return Err(invalid("the batch is shorter than it says"));
    }
    if whole < records.len() {
        return Err(invalid(
            "a produce request must have exactly one record batch",
        ));
    }
    if whole > config.message_bytes_max {
        let text = format!("the batch has {whole} bytes, max.message.bytes allows fewer");
        return Err(Refusal::new(ResponseError::MessageTooLarge, text));
    }
    if batch::checksum(records) != header.crc {
        return Err(corrupt("the batch's checksum is wrong"));
    }
    if header.codec() > 4 {
        let text = "the batch names an unknown compression";
        return Err(Refusal::new(
            ResponseError::UnsupportedCompressionType,
            text,
        ));
    }
    if header.is_control() {
        return Err(invalid("clients are not allowed to write control records"));
    }
    if header.base_offset != 0 || header.count < 1 || header.last_offset_delta != header.count - 1 {
        return Err(invalid(
            "base offset, last offset delta and count do not fit together",
        ));
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(invalid(
            "an idempotent producer's batch needs a sequence and an epoch",
        ));
    }
    validate_records(records, &header, config)?;
    if !config.log_append_time {
        validate_time(&header, config, now_ms)?;
    }
    Ok(header)
}

fn validate_records(bytes: &[u8], header: &Header, config: &TopicConfig) -> Result<(), Refusal> {
    let invalid = |text: &str| Refusal::new(ResponseError::InvalidRecord, text);
    let body = batch::body(header, bytes).ok_or_else(|| {
        let text = "the batch can't be decompressed, or inflates to too much";
        Refusal::new(ResponseError::CorruptMessage, text)
    })?;
    let mut count = 0;
    for record in Records::new(&body) {
        let record = record.map_err(|_| invalid("a record can't be read"))?;
        if record.offset_delta != count {
            return Err(invalid("the records' offset deltas are not 0, 1, 2, ..."));
        }
        if config.compact && record.key.is_none() {
            return Err(invalid(
                "a compacted topic does not take a record without a key",
            ));
        }
        count += 1;
    }
    if count != header.count {
        return Err(invalid(
            "the batch has another number of records than it says",
        ));
    }
    Ok(())
}

fn validate_time(header: &Header, config: &TopicConfig, now_ms: i64) -> Result<(), Refusal> {
    let late = now_ms.saturating_add(config.after_max_ms);
    let early = now_ms.saturating_sub(config.before_max_ms);
    // -1 is "no timestamp", which Kafka accepts.
    if header.max_timestamp == -1 || (early..=late).contains(&header.max_timestamp) {
        return Ok(());
    }
    let text = "a timestamp is further from the broker's clock than the topic allows";
    Err(Refusal::new(ResponseError::InvalidTimestamp, text))
}

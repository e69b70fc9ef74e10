//! Records that the fleet itself appends.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// One batch of these records, uncompressed.
pub(super) fn batch(records: &[Record]) -> BytesMut {
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut batch, records, &options).expect("records encode");
    batch
}

pub(super) fn text(bytes: Option<&Bytes>) -> &str {
    std::str::from_utf8(bytes.expect("the fleet writes no null here")).expect("text")
}

pub(super) fn record(
    offset: i64,
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32, // The encoder makes one batch of consecutive ones only.
        timestamp,
        key,
        value,
        headers: Default::default(),
    }
}

/// The value of a record's header.
pub(super) fn header<'a>(headers: &'a [(Bytes, Option<Bytes>)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(it, _)| it == name.as_bytes());
    found.map(|(_, value)| text(value.as_ref()))
}

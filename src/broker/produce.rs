//! Produce: judge a batch as Kafka's LogValidator and ProducerStateManager do, then append it as it
//! came. Only base offset, leader epoch and, if the topic says so, the append time are written in.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::batch::{self, Header, Records};
use super::cluster::{Cluster, Context, Right};
use super::producers::Sequence;
use super::topic_config::TopicConfig;
use super::topics::TopicRef;
use super::{NodeId, Refusal};

/// From this version on a produce request adds its partitions to its transaction (KIP-890).
const JOINS_TRANSACTION_FROM: i16 = 12;
/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// From this version on a response may name the present leader.
const LEADER_FROM: i16 = 10;

/// What became of a produce request.
#[derive(Debug)]
pub(super) struct Produced {
    pub response: ProduceResponse,
    /// The producer asked for an answer (`acks` other than 0).
    pub acknowledged: bool,
    pub failed: bool,
    /// A planned fault: the answer is lost with the connection.
    pub lost: bool,
}

struct Appended {
    base_offset: i64,
    append_time: Option<i64>,
}

impl Cluster {
    /// Appends what can be appended, partition by partition.
    pub(super) fn produce(&mut self, ctx: &Context, request: &ProduceRequest) -> Produced {
        let mut response = ProduceResponse::default();
        let mut failed = false;
        for topic in &request.topic_data {
            let name = topic_ref(ctx, topic);
            let mut partitions = Vec::with_capacity(topic.partition_data.len());
            for data in &topic.partition_data {
                let appended = self.produce_one(ctx, request, &name, data);
                failed |= appended.is_err();
                partitions.push(self.answer_one(ctx, &name, data.index, appended));
            }
            response.responses.push(
                TopicProduceResponse::default()
                    .with_name(topic.name.clone())
                    .with_topic_id(topic.topic_id)
                    .with_partition_responses(partitions),
            );
        }
        if ctx.version >= LEADER_FROM {
            let partitions = response
                .responses
                .iter()
                .flat_map(|t| &t.partition_responses);
            let leaders = partitions.map(|p| p.current_leader.leader_id.0);
            response.node_endpoints = self.produce_endpoints(leaders);
        }
        let lost = self.faults.lose_produce > 0 && !failed;
        self.faults.lose_produce -= u32::from(lost);
        if self.faults.throttle_produce > 0 {
            self.faults.throttle_produce -= 1;
            response.throttle_time_ms = self.faults.throttle_ms as i32;
        }
        Produced {
            response,
            acknowledged: request.acks != 0,
            failed,
            lost,
        }
    }

    /// The delay of the response in milliseconds, if a fault sets one.
    pub(super) fn produce_delay(&self, ctx: &Context, request: &ProduceRequest) -> Option<u32> {
        let (slow, by_ms) = self.faults.delay_produce.as_ref()?;
        let is_slow = |topic| self.name_of(&topic_ref(ctx, topic)) == Some(slow.as_str());
        request.topic_data.iter().any(is_slow).then_some(*by_ms)
    }

    fn produce_one(
        &mut self,
        ctx: &Context,
        request: &ProduceRequest,
        topic: &TopicRef,
        data: &PartitionProduceData,
    ) -> Result<Appended, Refusal> {
        let plain = |error: ResponseError| Refusal::new(error, "");
        if !(-1..=1).contains(&request.acks) {
            return Err(plain(ResponseError::InvalidRequiredAcks));
        }
        self.authorize(topic, Right::Write).map_err(plain)?;
        if let Some(error) = self.planned(ApiKey::Produce, false, topic) {
            return Err(Refusal::new(error, "a planned fault"));
        }
        self.led(ctx.node, topic, data.index, -1).map_err(plain)?;
        let (described, partition) = self.topics.partition(topic, data.index).map_err(plain)?;
        let insync = partition.replicas.iter().filter(|&&node| self.runs(node));
        if request.acks == -1 && insync.count() < described.config.insync_min {
            return Err(plain(ResponseError::NotEnoughReplicas));
        }
        let records = data.records.as_ref().map_or(&[][..], Bytes::as_ref);
        let mut header = judge(records, &described.config, ctx.now.wall.0)?;
        let topic_id = described.id;
        let stamps = described.config.log_append_time;
        match partition.log.producers.judge(&header) {
            Sequence::Next => {}
            Sequence::Duplicate(written) => {
                let (base_offset, append_time) = (written.base_offset, written.append_time);
                return Ok(Appended {
                    base_offset,
                    append_time,
                });
            }
            Sequence::Refused(error) => return Err(plain(error)),
        }
        if header.is_transactional() {
            let id = request.transactional_id.as_ref().map(|id| id.0.as_str());
            let joins = ctx.version >= JOINS_TRANSACTION_FROM;
            let place = (topic_id, data.index);
            let admitted = self.coordinator.admit(id, &header, place, joins, ctx.now);
            admitted.map_err(plain)?;
        }
        if !self.make_room(records.len(), ctx.now) {
            let text = "the development broker is full: see Settings::bytes_max";
            return Err(Refusal::new(ResponseError::KafkaStorageError, text));
        }
        let mut owned = records.to_vec();
        let append_time = stamps.then_some(ctx.now.wall.0);
        if let Some(time) = append_time {
            batch::stamp(&mut owned, &mut header, time);
        }
        let base_offset = self.append(topic, data.index, owned).map_err(plain)?;
        if let Some(error) = self.planned(ApiKey::Produce, true, topic) {
            return Err(Refusal::new(error, "a planned fault, after the append"));
        }
        Ok(Appended {
            base_offset,
            append_time,
        })
    }

    fn answer_one(
        &self,
        ctx: &Context,
        topic: &TopicRef,
        index: i32,
        appended: Result<Appended, Refusal>,
    ) -> PartitionProduceResponse {
        let answer = PartitionProduceResponse::default().with_index(index);
        let partition = self.topics.partition(topic, index).ok().map(|(_, p)| p);
        match appended {
            Ok(appended) => answer
                .with_base_offset(appended.base_offset)
                .with_log_append_time_ms(appended.append_time.unwrap_or(-1))
                .with_log_start_offset(partition.map_or(-1, |p| p.log.start)),
            Err(refusal) => {
                let mut answer = answer
                    .with_error_code(refusal.error.code())
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1);
                if ctx.version >= 8 && !refusal.message.is_empty() {
                    answer.error_message = Some(StrBytes::from(refusal.message));
                }
                let moved = refusal.error == ResponseError::NotLeaderOrFollower;
                if let (true, true, Some(p)) = (moved, ctx.version >= LEADER_FROM, partition) {
                    let leader = p.leader.map_or(-1, |node| i32::from(node.0));
                    answer.current_leader = LeaderIdAndEpoch::default()
                        .with_leader_id(leader.into())
                        .with_leader_epoch(p.epoch);
                }
                answer
            }
        }
    }

    fn produce_endpoints(
        &self,
        leaders: impl Iterator<Item = i32>,
    ) -> Vec<kafka_protocol::messages::produce_response::NodeEndpoint> {
        let mut ids: Vec<u16> = leaders.filter_map(|id| u16::try_from(id).ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        let endpoint = |id: u16| {
            let node = self.node(NodeId(id))?;
            let endpoint = kafka_protocol::messages::produce_response::NodeEndpoint::default()
                .with_node_id(i32::from(id).into())
                .with_host(StrBytes::from(node.host.clone()))
                .with_port(i32::from(node.port));
            Some(endpoint)
        };
        ids.into_iter().filter_map(endpoint).collect()
    }
}

fn topic_ref(ctx: &Context, topic: &TopicProduceData) -> TopicRef {
    if ctx.version >= TOPIC_IDS_FROM {
        TopicRef::Id(topic.topic_id)
    } else {
        TopicRef::Name(topic.name.0.to_string())
    }
}

/// Whether a client's batch is one that a topic takes; its header.
fn judge(records: &[u8], config: &TopicConfig, now_ms: i64) -> Result<Header, Refusal> {
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
    judge_records(records, &header, config)?;
    if !config.log_append_time {
        judge_time(&header, config, now_ms)?;
    }
    Ok(header)
}

fn judge_records(bytes: &[u8], header: &Header, config: &TopicConfig) -> Result<(), Refusal> {
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

fn judge_time(header: &Header, config: &TopicConfig, now_ms: i64) -> Result<(), Refusal> {
    let late = now_ms.saturating_add(config.after_max_ms);
    let early = now_ms.saturating_sub(config.before_max_ms);
    // -1 is "no timestamp", which Kafka takes.
    if header.max_timestamp == -1 || (early..=late).contains(&header.max_timestamp) {
        return Ok(());
    }
    let text = "a timestamp is further from the broker's clock than the topic allows";
    Err(Refusal::new(ResponseError::InvalidTimestamp, text))
}

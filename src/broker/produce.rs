//! Produce: a batch is validated, then appended as it came. Only its base offset, its leader epoch
//! and, if the topic says so, its append time are written into it.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::Refusal;
use super::batch::{self, Header};
use super::context::RequestContext;
use super::coordinator::{Coordinator, Member, ProducerEpoch};
use super::nodes::{Node, Nodes};
use super::planned_faults::{PlannedFaults, Right};
use super::producers::Sequence;
use super::store::Store;
use super::topics::TopicRef;
use super::validation::validate;

/// From this version on a produce request adds its partitions to its transaction (KIP-890).
const JOINS_TRANSACTION_FROM: i16 = 12;
/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// From this version on a response may name the present leader.
const LEADER_FROM: i16 = 10;

/// The result of a produce request.
#[derive(Debug)]
pub(super) struct Produced {
    pub response: ProduceResponse,
    /// The producer wants a response (`acks` other than 0).
    pub acknowledged: bool,
    pub failed: bool,
    /// A planned fault: the response is lost with the connection.
    pub lost: bool,
    /// A planned fault: the response is sent after this many milliseconds.
    pub delay_ms: Option<u32>,
}

struct Appended {
    base_offset: i64,
    append_time: Option<i64>,
}

/// Serves Produce: validates batches and appends them.
pub(super) struct ProduceApi<'a> {
    pub ctx: RequestContext,
    pub nodes: &'a Nodes,
    pub store: &'a mut Store,
    pub coordinator: &'a mut Coordinator,
    pub faults: &'a mut PlannedFaults,
}

impl ProduceApi<'_> {
    /// Appends what can be appended, partition by partition.
    pub(super) fn produce(&mut self, request: &ProduceRequest) -> Produced {
        let mut response = ProduceResponse::default();
        let mut failed = false;
        for topic in &request.topic_data {
            let name = self.topic_ref(topic);
            let mut partitions = Vec::with_capacity(topic.partition_data.len());
            for data in &topic.partition_data {
                let appended = self.append(request, &name, data);
                failed |= appended.is_err();
                partitions.push(self.answer(&name, data.index, appended));
            }
            response.responses.push(
                TopicProduceResponse::default()
                    .with_name(topic.name.clone())
                    .with_topic_id(topic.topic_id)
                    .with_partition_responses(partitions),
            );
        }
        if self.ctx.version >= LEADER_FROM {
            response.node_endpoints = self.endpoints(&response);
        }
        response.throttle_time_ms = self.faults.take_throttle_ms();
        let written = request.topic_data.iter().map(|topic| self.topic_ref(topic));
        let delay_ms = self.faults.produce_delay(written, self.store.topics());
        Produced {
            response,
            acknowledged: request.acks != 0,
            failed,
            lost: !failed && self.faults.take_lost_response(),
            delay_ms,
        }
    }

    fn topic_ref(&self, topic: &TopicProduceData) -> TopicRef {
        if self.ctx.version >= TOPIC_IDS_FROM {
            TopicRef::Id(topic.topic_id)
        } else {
            TopicRef::Name(topic.name.0.to_string())
        }
    }

    fn append(
        &mut self,
        request: &ProduceRequest,
        topic: &TopicRef,
        data: &PartitionProduceData,
    ) -> Result<Appended, Refusal> {
        let topics = self.store.topics();
        if !(-1..=1).contains(&request.acks) {
            return Err(plain(ResponseError::InvalidRequiredAcks));
        }
        let authorized = self.faults.authorize(topic, Right::Write, topics);
        authorized.map_err(plain)?;
        if let Some(error) = self
            .faults
            .next_error(ApiKey::Produce, false, topic, topics)
        {
            return Err(Refusal::new(error, "a planned fault"));
        }
        let led = topics.led(self.ctx.node, topic, data.index, -1);
        let (described, partition) = led.map_err(plain)?;
        let replicas = partition.replicas.iter();
        let insync = replicas.filter(|&&node| self.nodes.is_running(node));
        if request.acks == -1 && insync.count() < described.config.insync_min {
            return Err(plain(ResponseError::NotEnoughReplicas));
        }
        let records = data.records.as_ref().map_or(&[][..], Bytes::as_ref);
        let mut header = validate(records, &described.config, self.ctx.now.wall.0)?;
        let member = (described.id, data.index);
        let stamps = described.config.log_append_time;
        match partition.log.sequence(&header) {
            Sequence::Next => {}
            Sequence::Duplicate(written) => {
                let (base_offset, append_time) = (written.base_offset, written.append_time);
                return Ok(Appended {
                    base_offset,
                    append_time,
                });
            }
            Sequence::Rejected(error) => return Err(plain(error)),
        }
        if header.is_transactional() {
            self.check_transaction(request, &header, member)
                .map_err(plain)?;
        }
        if !self.store.make_room(records.len(), self.ctx.now) {
            let text = "the development broker is full: see Settings::bytes_max";
            return Err(Refusal::new(ResponseError::KafkaStorageError, text));
        }
        let mut owned = records.to_vec();
        let append_time = stamps.then_some(self.ctx.now.wall.0);
        if let Some(time) = append_time {
            batch::stamp(&mut owned, &mut header, time);
        }
        let appended = self.store.append(topic, data.index, owned);
        let base_offset = appended.map_err(plain)?;
        let topics = self.store.topics();
        if let Some(error) = self.faults.next_error(ApiKey::Produce, true, topic, topics) {
            return Err(Refusal::new(error, "a planned fault, after the append"));
        }
        Ok(Appended {
            base_offset,
            append_time,
        })
    }

    /// Checks that a transactional batch may be appended to a partition.
    fn check_transaction(
        &mut self,
        request: &ProduceRequest,
        header: &Header,
        partition: Member,
    ) -> Result<(), ResponseError> {
        let id = request.transactional_id.as_ref().map(|id| id.0.as_str());
        let id = id.ok_or(ResponseError::TransactionalIdAuthorizationFailed)?;
        let producer = ProducerEpoch {
            id: header.producer_id,
            epoch: header.producer_epoch,
        };
        let joined = if self.ctx.version >= JOINS_TRANSACTION_FROM {
            self.coordinator.join(id, producer, partition, self.ctx.now)
        } else {
            self.coordinator.verify(id, producer, partition)
        };
        joined.map_err(|error| match error {
            ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
            // KIP-890: the producer must abort, whatever partitions it believes to have added.
            ResponseError::InvalidTxnState => ResponseError::TransactionAbortable,
            other => other,
        })
    }

    fn answer(
        &self,
        topic: &TopicRef,
        index: i32,
        appended: Result<Appended, Refusal>,
    ) -> PartitionProduceResponse {
        let answer = PartitionProduceResponse::default().with_index(index);
        let found = self.store.topics().partition(topic, index).ok();
        let partition = found.map(|(_, partition)| partition);
        match appended {
            Ok(appended) => answer
                .with_base_offset(appended.base_offset)
                .with_log_append_time_ms(appended.append_time.unwrap_or(-1))
                .with_log_start_offset(partition.map_or(-1, |p| p.log.start())),
            Err(refusal) => {
                let mut answer = answer
                    .with_error_code(refusal.error.code())
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1);
                if self.ctx.version >= 8 && !refusal.message.is_empty() {
                    answer.error_message = Some(StrBytes::from(refusal.message));
                }
                if let Some(partition) = partition
                    && refusal.error == ResponseError::NotLeaderOrFollower
                    && self.ctx.version >= LEADER_FROM
                {
                    answer.current_leader = LeaderIdAndEpoch::default()
                        .with_leader_id(partition.leader_id().into())
                        .with_leader_epoch(partition.epoch);
                }
                answer
            }
        }
    }

    fn endpoints(&self, response: &ProduceResponse) -> Vec<NodeEndpoint> {
        let topics = response.responses.iter();
        let partitions = topics.flat_map(|t| &t.partition_responses);
        let leaders = partitions.map(|p| p.current_leader.leader_id.0);
        let endpoint = |(id, node): (i32, &Node)| {
            NodeEndpoint::default()
                .with_node_id(id.into())
                .with_host(StrBytes::from(node.host().to_owned()))
                .with_port(node.port())
        };
        self.nodes.endpoints(leaders).map(endpoint).collect()
    }
}

/// An error that its code explains.
fn plain(error: ResponseError) -> Refusal {
    Refusal::new(error, "")
}

//! ListOffsets: where the logs of partitions begin and end.

use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{self, ListOffsetsRequest, ListOffsetsResponse};

use super::context::{Context, epoch_on_wire};
use super::event::{Isolation, LinkId, TopicHandle};
use super::link::Purpose;
use super::request_tag::RequestTag;
use super::view::BrokerId;
use super::wire::{Api, ResponseBody};
use super::{Code, KafkaError};
use crate::model::{LeaderEpoch, Offset, Partition, UnixMillis};

/// Timestamps that mean an end of the log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// The place of a log that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SeekTime {
    /// The log's start.
    Earliest,
    /// The log's end.
    Latest,
    /// The first record whose timestamp is at or after this time.
    At(UnixMillis),
}

impl SeekTime {
    const fn on_wire(self) -> i64 {
        match self {
            Self::Earliest => EARLIEST,
            Self::Latest => LATEST,
            // Negative timestamps name ends of the log.
            Self::At(time) if time.0 < 0 => 0,
            Self::At(time) => time.0,
        }
    }
}

/// A question to one leader: the same place of some partitions.
pub(super) struct OffsetsQuestion<'a> {
    pub(super) node: BrokerId,
    pub(super) time: SeekTime,
    pub(super) isolation: Isolation,
    /// Sorted by topic, since the request groups partitions by topic.
    pub(super) partitions: &'a [(TopicHandle, Partition, LeaderEpoch)],
}

impl OffsetsQuestion<'_> {
    /// Sends the question, if the link to the leader is ready. Returns the link.
    pub(super) fn ask(&self, tag: RequestTag, cx: &mut Context<'_>) -> Option<LinkId> {
        let (topics, window) = (cx.topics, cx.window(Duration::ZERO));
        let link = cx.link(self.node, Purpose::Ask)?;
        let id = link.id();
        let sent = link.ask(tag, Api::ListOffsets, window, |version| {
            self.request(topics, version)
        });
        match sent {
            Ok(()) => Some(id),
            Err(error) => {
                cx.give_up(id, error);
                None
            }
        }
    }

    fn request(&self, topics: &super::topics::Topics, version: i16) -> ListOffsetsRequest {
        let mut wanted: Vec<ListOffsetsTopic> = Vec::new();
        for of_topic in self.partitions.chunk_by(|a, b| a.0 == b.0) {
            let (name, _) = topics.on_wire(of_topic[0].0);
            let partition = |&(_, partition, epoch): &(TopicHandle, Partition, LeaderEpoch)| {
                let epoch = if version >= 4 {
                    epoch_on_wire(epoch)
                } else {
                    -1
                };
                ListOffsetsPartition::default()
                    .with_partition_index(partition.0 as i32)
                    .with_current_leader_epoch(epoch)
                    .with_timestamp(self.time.on_wire())
            };
            let topic = ListOffsetsTopic::default().with_name(messages::TopicName(name));
            wanted.push(topic.with_partitions(of_topic.iter().map(partition).collect()));
        }
        let isolation = match self.isolation {
            Isolation::HighWatermark => 0,
            Isolation::Committed => 1,
        };
        ListOffsetsRequest::default()
            .with_replica_id(messages::BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(wanted)
    }
}

/// Decodes a response. The link of a malformed one is given up.
pub(super) fn decode(
    link: LinkId,
    body: ResponseBody,
    cx: &mut Context<'_>,
) -> Option<ListOffsetsResponse> {
    match body.decode::<ListOffsetsRequest>() {
        Ok(response) => {
            cx.links.throttle(link, response.throttle_time_ms, cx.now);
            Some(response)
        }
        Err(error) => {
            cx.give_up(link, error);
            None
        }
    }
}

/// The offset that a response gives for one partition.
pub(super) fn offset_of(
    found: &ListOffsetsPartitionResponse,
    cx: &mut Context<'_>,
) -> Result<Offset, KafkaError> {
    let code = Code(found.error_code);
    if code.0 != 0 {
        cx.saw(Api::ListOffsets, code);
        return Err(KafkaError::Broker(code));
    }
    let offset = u64::try_from(found.offset);
    offset
        .map(Offset)
        .map_err(|_| KafkaError::Protocol("a negative offset"))
}

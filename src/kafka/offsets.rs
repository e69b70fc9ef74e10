//! ListOffsets: where reads begin, and where partitions end.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{self, ListOffsetsRequest, ListOffsetsResponse};

use super::context::{Context, epoch_on_wire};
use super::event::{Event, Isolation, LinkId, ReadKey, TopicHandle};
use super::link::{Asked, Purpose};
use super::read::{Place, fail};
use super::reader::Reader;
use super::view::BrokerId;
use super::wire::{self, Api};
use super::{Code, KafkaError};
use crate::log::Next;
use crate::model::{LeaderEpoch, Offset, Partition};

/// Timestamps that stand for an end of the log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// One question to one leader: the same end of some partitions.
pub(super) struct Question<'a> {
    pub(super) node: BrokerId,
    pub(super) earliest: bool,
    pub(super) isolation: Isolation,
    /// Sorted by topic.
    pub(super) partitions: &'a [(TopicHandle, Partition, LeaderEpoch)],
}

impl Question<'_> {
    /// Sends it, if the link to the leader stands. Gives the link.
    pub(super) fn ask(&self, asked: Asked, cx: &mut Context<'_>) -> Option<LinkId> {
        let (topics, deadline) = (cx.topics, cx.deadline());
        let link = cx.link(self.node, Purpose::Ask)?;
        let id = link.id;
        let sent = link.ask(asked, Api::ListOffsets, deadline, |version| {
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
                    .with_timestamp(if self.earliest { EARLIEST } else { LATEST })
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

/// Reads an answer; a broken one costs the link.
pub(super) fn answer(
    link: LinkId,
    (version, body): (i16, Bytes),
    cx: &mut Context<'_>,
) -> Option<ListOffsetsResponse> {
    match wire::decode::<ListOffsetsRequest>(body, version) {
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

/// The offset an answer gives for one partition.
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

/// Asks where the reads begin that do not know it.
pub(super) fn pump(reader: &mut Reader, cx: &mut Context<'_>) {
    let mut sought = Vec::new();
    for (&key, read) in &reader.reads {
        let Place::Sought { earliest, .. } = read.place else {
            continue;
        };
        if read.flight.is_some() {
            continue;
        }
        if read.not_before > cx.now.mono {
            cx.wake.at(read.not_before);
        } else if let Some((node, epoch)) = cx.leader(key.topic, key.partition) {
            // By lane too: a request may name a partition once.
            sought.push(((node, earliest, key.lane), key, epoch));
        }
    }
    sought.sort_unstable();
    for group in sought.chunk_by(|a, b| a.0 == b.0) {
        let partitions = group
            .iter()
            .map(|&(_, key, epoch)| (key.topic, key.partition, epoch));
        let partitions: Vec<_> = partitions.collect();
        let (node, earliest, _) = group[0].0;
        let question = Question {
            node,
            earliest,
            isolation: Isolation::Committed,
            partitions: &partitions,
        };
        let reads = &mut reader.reads;
        let keys = group
            .iter()
            .map(|(_, key, _)| (*key, reads[key].generation))
            .collect();
        if let Some(link) = question.ask(Asked::Offsets(keys), cx) {
            for (_, key, _) in group {
                reads.get_mut(key).expect("it is sought").flight = Some(link);
            }
        }
    }
}

/// Offsets came for some reads.
pub(super) fn on_answer(
    reader: &mut Reader,
    link: LinkId,
    asked: &[(ReadKey, u32)],
    response: (i16, Bytes),
    cx: &mut Context<'_>,
) {
    let Some(response) = answer(link, response, cx) else {
        return on_lost(reader, asked, &KafkaError::Closed, cx);
    };
    for topic in &response.topics {
        let Some(handle) = cx.topics.find(&topic.name, uuid::Uuid::nil()) else {
            continue;
        };
        for found in &topic.partitions {
            let partition = Partition(found.partition_index as u32);
            let same =
                |(key, _): &&(ReadKey, u32)| key.topic == handle && key.partition == partition;
            let Some(&(key, generation)) = asked.iter().find(same) else {
                continue;
            };
            let outcome = offset_of(found, cx);
            let Some(read) = reader.reads.get_mut(&key) else {
                continue;
            };
            if read.generation != generation {
                continue;
            }
            let Place::Sought { earliest, wanted } = read.place else {
                continue;
            };
            read.flight = None;
            match outcome {
                Err(error) => fail(key, read, error, cx),
                Ok(offset) => {
                    // At the log's end it is the leader's own, so that an id made there before any
                    // record can be checked. At its start it is of the record to come.
                    let epoch = u32::try_from(found.leader_epoch).ok();
                    let epoch = LeaderEpoch(epoch.filter(|_| !earliest));
                    read.place = Place::At(Next { offset, epoch });
                    if let Some(wanted) = wanted {
                        let (read, log_start) = (key, offset);
                        cx.events.push_back(Event::OutOfRange {
                            read,
                            wanted,
                            log_start,
                        });
                    }
                }
            }
        }
    }
    // Whoever was left out of the answer asks again.
    on_lost(
        reader,
        asked,
        &KafkaError::Protocol("an answer without the partition"),
        cx,
    );
}

/// The question is lost, or some of it was not answered.
pub(super) fn on_lost(
    reader: &mut Reader,
    asked: &[(ReadKey, u32)],
    error: &KafkaError,
    cx: &mut Context<'_>,
) {
    for (key, generation) in asked {
        if let Some(read) = reader.reads.get_mut(key)
            && read.generation == *generation
            && matches!(read.place, Place::Sought { .. })
            && read.flight.take().is_some()
        {
            fail(*key, read, error.clone(), cx);
        }
    }
}

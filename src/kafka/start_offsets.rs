//! Where reads begin that name an end of the log instead of an offset.

use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;

use super::KafkaError;
use super::context::Context;
use super::event::{Event, Isolation, LinkId, ReadKey};
use super::offsets::{self, OffsetsQuestion};
use super::read::{ReadPlace, Seek, fail};
use super::reads::Reads;
use super::request_tag::RequestTag;
use super::wire::ResponseBody;
use crate::log::Next;
use crate::model::{LeaderEpoch, Partition};

/// Asks for the start of reads that have no offset yet.
pub(super) fn pump(reads: &mut Reads, cx: &mut Context<'_>) {
    let mut sought = Vec::new();
    for (key, read) in reads.iter() {
        let ReadPlace::Sought { seek, .. } = read.place else {
            continue;
        };
        if read.flight.is_some() {
            continue;
        }
        if read.not_before > cx.now.mono {
            cx.wake.at(read.not_before);
        } else if let Some((node, epoch)) = cx.leader(key.topic, key.partition) {
            sought.push(((node, seek.time(), key.lane), key, epoch));
        }
    }
    sought.sort_unstable();
    // A request names a partition once. Further reads of the partition go with the next request.
    sought.dedup_by_key(|(group, key, _)| (*group, key.topic, key.partition));
    for group in sought.chunk_by(|a, b| a.0 == b.0) {
        let partitions = group
            .iter()
            .map(|&(_, key, epoch)| (key.topic, key.partition, epoch));
        let partitions: Vec<_> = partitions.collect();
        let (node, time, _) = group[0].0;
        let question = OffsetsQuestion {
            node,
            time,
            isolation: Isolation::Committed,
            partitions: &partitions,
        };
        let keys = group
            .iter()
            .map(|(_, key, _)| (*key, reads.generation(*key)))
            .collect();
        if let Some(link) = question.ask(RequestTag::StartOffsets(keys), cx) {
            for (_, key, _) in group {
                reads.get_mut(*key).expect("it is sought").flight = Some(link);
            }
        }
    }
}

/// The response with the offsets of some reads.
pub(super) fn on_answer(
    reads: &mut Reads,
    link: LinkId,
    asked: &[(ReadKey, u32)],
    response: ResponseBody,
    cx: &mut Context<'_>,
) {
    let Some(response) = offsets::decode(link, response, cx) else {
        return on_lost(reads, asked, &KafkaError::Closed, cx);
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
            let Some(read) = reads.get_mut(key) else {
                continue;
            };
            if read.generation != generation {
                continue;
            }
            let ReadPlace::Sought { seek, wanted } = read.place else {
                continue;
            };
            read.flight = None;
            let next = match found_place(seek, found, cx) {
                Ok(next) => next,
                Err(error) => {
                    fail(key, read, error, cx);
                    continue;
                }
            };
            read.place = match seek {
                Seek::EndBefore(time) => ReadPlace::sought(Seek::Since { time, end: next }),
                Seek::Earliest | Seek::Latest | Seek::Since { .. } => ReadPlace::At(next),
            };
            if let Some(wanted) = wanted {
                let (read, log_start) = (key, next.offset);
                cx.events.push_back(Event::OutOfRange {
                    read,
                    wanted,
                    log_start,
                });
            }
        }
    }
    // Reads without an answer in the response are retried.
    on_lost(
        reads,
        asked,
        &KafkaError::Protocol("an answer without the partition"),
        cx,
    );
}

/// The position that a leader names.
fn found_place(
    seek: Seek,
    found: &ListOffsetsPartitionResponse,
    cx: &mut Context<'_>,
) -> Result<Next, KafkaError> {
    if let Seek::Since { end, .. } = seek
        && (found.error_code, found.offset) == (0, -1)
    {
        return Ok(end); // No record is that new.
    }
    let offset = offsets::offset_of(found, cx)?;
    // At the log's end the epoch is the leader's own, so that an event id made there before any
    // record can be checked. Elsewhere it would be that of the next record, so it is left out.
    let at_end = matches!(seek, Seek::Latest | Seek::EndBefore(_));
    let epoch = u32::try_from(found.leader_epoch).ok();
    let epoch = LeaderEpoch(epoch.filter(|_| at_end));
    Ok(Next { offset, epoch })
}

/// The request is lost, or the response lacks some reads.
pub(super) fn on_lost(
    reads: &mut Reads,
    asked: &[(ReadKey, u32)],
    error: &KafkaError,
    cx: &mut Context<'_>,
) {
    for (key, generation) in asked {
        if let Some(read) = reads.get_mut(*key)
            && read.generation == *generation
            && matches!(read.place, ReadPlace::Sought { .. })
            && read.flight.take().is_some()
        {
            fail(*key, read, error.clone(), cx);
        }
    }
}

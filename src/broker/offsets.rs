//! ListOffsets and OffsetForLeaderEpoch: where a log begins and ends, which record was the first at
//! a time, where an epoch ended.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ApiKey, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use super::Profile;
use super::context::RequestContext;
use super::planned_faults::{PlannedFaults, Right};
use super::topics::{TopicRef, Topics};

/// Negative timestamps, which name a position.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The record or position that a ListOffsets query names.
struct FoundOffset {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

const NOT_FOUND: FoundOffset = FoundOffset {
    offset: -1,
    timestamp: -1,
    epoch: -1,
};

/// ListOffsets and OffsetForLeaderEpoch. Only leaders answer them.
pub(super) struct OffsetsApi<'a> {
    pub ctx: RequestContext,
    pub profile: Profile,
    pub topics: &'a Topics,
    pub faults: &'a mut PlannedFaults,
}

impl OffsetsApi<'_> {
    pub(super) fn list_offsets(&mut self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let mut response = ListOffsetsResponse::default();
        let committed = request.isolation_level == 1;
        for topic in &request.topics {
            let name = TopicRef::Name(topic.name.0.to_string());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let planned =
                    self.faults
                        .next_error(ApiKey::ListOffsets, false, &name, self.topics);
                let denied = self
                    .faults
                    .authorize(&name, Right::Describe, self.topics)
                    .err();
                let found = match denied.or(planned) {
                    Some(error) => Err(error),
                    None => self.list_one(&name, asked, committed),
                };
                let code = found.as_ref().err().map_or(0, ResponseError::code);
                let found = found.unwrap_or(NOT_FOUND);
                let answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code)
                    .with_offset(found.offset)
                    .with_timestamp(found.timestamp);
                partitions.push(match self.ctx.version {
                    ..4 => answer,
                    _ => answer.with_leader_epoch(found.epoch),
                });
            }
            let answer = ListOffsetsTopicResponse::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(partitions));
        }
        response
    }

    fn list_one(
        &self,
        topic: &TopicRef,
        asked: &ListOffsetsPartition,
        committed: bool,
    ) -> Result<FoundOffset, ResponseError> {
        let epoch = asked.current_leader_epoch;
        let (_, partition) = self
            .topics
            .led(self.ctx.node, topic, asked.partition_index, epoch)?;
        let log = &partition.log;
        let upto = if committed {
            log.stable_end()
        } else {
            log.end()
        };
        let place = |offset: i64, epoch: i32| FoundOffset {
            offset,
            timestamp: -1,
            epoch,
        };
        let timed = |found: Option<(i64, i64)>| {
            found.map_or(NOT_FOUND, |(offset, timestamp)| FoundOffset {
                offset,
                timestamp,
                epoch: log.epoch_at(offset),
            })
        };
        match asked.timestamp {
            LATEST => Ok(place(upto, partition.epoch)),
            EARLIEST | EARLIEST_LOCAL => Ok(place(log.start(), log.epoch_at(log.start()))),
            MAX_TIMESTAMP => Ok(timed(log.newest_time(upto))),
            LATEST_TIERED => Ok(NOT_FOUND),
            time if time >= 0 => Ok(timed(log.at_time(time, upto))),
            _ => Err(ResponseError::UnsupportedVersion),
        }
    }

    /// Returns where epochs ended (KIP-320).
    pub(super) fn offsets_for_epochs(
        &self,
        request: &OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in &request.topics {
            let name = TopicRef::Name(topic.topic.0.to_string());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let ended = self.epoch_end(&name, asked);
                let code = ended.err().map_or(0, |error| error.code());
                let (epoch, end) = ended.ok().flatten().unwrap_or((-1, -1));
                let answer = EpochEndOffset::default()
                    .with_partition(asked.partition)
                    .with_error_code(code)
                    .with_leader_epoch(epoch)
                    .with_end_offset(end);
                partitions.push(answer);
            }
            let answer = OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone());
            response.topics.push(answer.with_partitions(partitions));
        }
        response
    }

    fn epoch_end(
        &self,
        topic: &TopicRef,
        asked: &OffsetForLeaderPartition,
    ) -> Result<Option<(i32, i64)>, ResponseError> {
        let epoch = asked.current_leader_epoch;
        let (_, partition) = self
            .topics
            .led(self.ctx.node, topic, asked.partition, epoch)?;
        if asked.leader_epoch < 0 {
            return Ok(None);
        }
        let ended = partition.log.epoch_end(asked.leader_epoch);
        if self.profile == Profile::Kafka43 {
            return Ok(ended);
        }
        // Redpanda's `offset_for_leader_epoch.cc` names the epoch that was asked for. Older
        // releases answer wrongly about an epoch that is yet to come: here, with the log's end.
        let end = match (self.profile, ended) {
            (Profile::Redpanda, None) => partition.log.end(),
            (_, ended) => ended.map_or(-1, |(_, end)| end),
        };
        Ok(Some((asked.leader_epoch, end)))
    }
}

//! ListOffsets and OffsetForLeaderEpoch: where a log begins, ends, and what was at a time.

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
use super::cluster::{Cluster, Context, Right};
use super::topics::TopicRef;

/// The times that mean a place (ListOffsets' negative timestamps).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Where a ListOffsets query points.
struct Found {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

const NOWHERE: Found = Found {
    offset: -1,
    timestamp: -1,
    epoch: -1,
};

impl Cluster {
    /// ListOffsets, answered by leaders only.
    pub(super) fn list_offsets(
        &mut self,
        ctx: &Context,
        request: &ListOffsetsRequest,
    ) -> ListOffsetsResponse {
        let mut response = ListOffsetsResponse::default();
        let committed = request.isolation_level == 1;
        for topic in &request.topics {
            let name = TopicRef::Name(topic.name.0.to_string());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let planned = self.planned(ApiKey::ListOffsets, false, &name);
                let denied = self.authorize(&name, Right::Describe).err();
                let found = match denied.or(planned) {
                    Some(error) => Err(error),
                    None => self.list_one(ctx, &name, asked, committed),
                };
                let code = found.as_ref().err().map_or(0, |error| error.code());
                let found = found.unwrap_or(NOWHERE);
                let answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code)
                    .with_offset(found.offset)
                    .with_timestamp(found.timestamp);
                partitions.push(match ctx.version {
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
        ctx: &Context,
        topic: &TopicRef,
        asked: &ListOffsetsPartition,
        committed: bool,
    ) -> Result<Found, ResponseError> {
        let epoch = asked.current_leader_epoch;
        let partition = self.led(ctx.node, topic, asked.partition_index, epoch)?;
        let log = &partition.log;
        let upto = if committed {
            log.stable_end()
        } else {
            log.end()
        };
        let place = |offset: i64, epoch: i32| Found {
            offset,
            timestamp: -1,
            epoch,
        };
        let timed = |found: Option<(i64, i64)>| {
            found.map_or(NOWHERE, |(offset, timestamp)| Found {
                offset,
                timestamp,
                epoch: log.epoch_at(offset),
            })
        };
        match asked.timestamp {
            LATEST => Ok(place(upto, partition.epoch)),
            EARLIEST | EARLIEST_LOCAL => Ok(place(log.start, log.epoch_at(log.start))),
            MAX_TIMESTAMP => Ok(timed(log.newest_time(upto))),
            LATEST_TIERED => Ok(NOWHERE),
            time if time >= 0 => Ok(timed(log.at_time(time, upto))),
            _ => Err(ResponseError::UnsupportedVersion),
        }
    }

    /// OffsetForLeaderEpoch (KIP-320).
    pub(super) fn offsets_for_epochs(
        &mut self,
        ctx: &Context,
        request: &OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in &request.topics {
            let name = TopicRef::Name(topic.topic.0.to_string());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let ended = self.epoch_end(ctx, &name, asked);
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
        ctx: &Context,
        topic: &TopicRef,
        asked: &OffsetForLeaderPartition,
    ) -> Result<Option<(i32, i64)>, ResponseError> {
        let epoch = asked.current_leader_epoch;
        let partition = self.led(ctx.node, topic, asked.partition, epoch)?;
        if asked.leader_epoch < 0 {
            return Ok(None);
        }
        let ended = partition.log.epoch_end(asked.leader_epoch);
        if self.settings.profile == Profile::Kafka43 {
            return Ok(ended);
        }
        // Redpanda's `offset_for_leader_epoch.cc` names the epoch that was asked for; older ones
        // are known to answer wrongly about one that is yet to come: here, with the log's end.
        let end = match (self.settings.profile, ended) {
            (Profile::Redpanda, None) => partition.log.end(),
            (_, ended) => ended.map_or(-1, |(_, end)| end),
        };
        Ok(Some((asked.leader_epoch, end)))
    }
}

//! Fetch: many partitions per request, long poll, both isolation levels.
//!
//! A request is read once into a [`Poll`]. The poll is tried at once, and again whenever the
//! cluster changed, until it has `min_bytes` or an error, or its time is up.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::context::RequestContext;
use super::fetch_session::{FetchSessions, SessionUse};
use super::log::ReadRange;
use super::nodes::{Node, Nodes};
use super::planned_faults::{PlannedFaults, Right};
use super::topics::{PartitionState, TopicRef, Topics};
use super::{NodeId, Settings};
use crate::model::{Instant, Now};

/// From this version on a follower serves consumers, too (KIP-392).
const FOLLOWERS_FROM: i16 = 11;
/// From this version on a response may name the present leader, a request the last epoch read.
const LEADER_FROM: i16 = 12;
/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// From this version on a response may give the leaders' addresses.
const ENDPOINTS_FROM: i16 = 16;
const READ_COMMITTED: i8 = 1;
/// How long a long poll waits at most.
const WAIT_MS_MAX: i32 = 10 * 60_000;

/// A Fetch that waits, or is about to be answered.
#[derive(Debug)]
pub(super) struct Poll {
    node: NodeId,
    pub version: i16,
    deadline: Instant,
    min_bytes: usize,
    max_bytes: usize,
    committed: bool,
    session: Result<SessionUse, ResponseError>,
    topics: Vec<Topic>,
}

#[derive(Debug)]
struct Topic {
    name: TopicName,
    id: Uuid,
    topic: TopicRef,
    partitions: Vec<Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    index: i32,
    epoch: i32,
    from: i64,
    last_epoch: i32,
    max_bytes: usize,
}

/// What a partition can answer now.
enum Ready {
    Read { upto: i64, size: usize },
    Diverged { epoch: i32, end: i64 },
}

impl Poll {
    /// Reads a request that names all its partitions: its session was merged into it.
    fn new(
        ctx: RequestContext,
        request: FetchRequest,
        session: Result<SessionUse, ResponseError>,
        response_max: usize,
    ) -> Self {
        let bytes = |n: i32| usize::try_from(n).unwrap_or(0);
        let wait = request.max_wait_ms.clamp(0, WAIT_MS_MAX);
        let max_bytes = bytes(request.max_bytes).min(response_max);
        let by_id = ctx.version >= TOPIC_IDS_FROM;
        let topic = |t: kafka_protocol::messages::fetch_request::FetchTopic| Topic {
            topic: if by_id {
                TopicRef::Id(t.topic_id)
            } else {
                TopicRef::Name(t.topic.0.to_string())
            },
            name: t.topic,
            id: t.topic_id,
            partitions: t.partitions.iter().map(Asked::new).collect(),
        };
        Self {
            node: ctx.node,
            version: ctx.version,
            deadline: ctx.now.mono.after(Duration::from_millis(wait as u64)),
            min_bytes: bytes(request.min_bytes).min(max_bytes),
            max_bytes,
            committed: request.isolation_level == READ_COMMITTED,
            session,
            topics: request.topics.into_iter().map(topic).collect(),
        }
    }

    /// The poll is answered at this time at the latest.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Asked {
    fn new(partition: &kafka_protocol::messages::fetch_request::FetchPartition) -> Self {
        Self {
            index: partition.partition,
            epoch: partition.current_leader_epoch,
            from: partition.fetch_offset,
            last_epoch: partition.last_fetched_epoch,
            max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
        }
    }
}

/// What is left of a response's bytes.
#[derive(Clone, Copy)]
struct Allowance {
    bytes: usize,
    /// No partition has given records yet: the next may give a batch above the limit (KIP-74).
    first: bool,
}

impl Allowance {
    fn take(&mut self, bytes: usize) {
        self.first &= bytes == 0;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Serves Fetch, with or without a fetch session.
pub(super) struct FetchApi<'a> {
    pub settings: &'a Settings,
    pub nodes: &'a Nodes,
    pub topics: &'a Topics,
    pub faults: &'a mut PlannedFaults,
    pub sessions: &'a mut FetchSessions,
}

impl FetchApi<'_> {
    /// Merges a request into its session and starts a poll, which may wait for records.
    pub(super) fn open(&mut self, ctx: RequestContext, mut request: FetchRequest) -> Poll {
        let session = if self.settings.fetch_sessions {
            self.sessions.enter(ctx.node, &mut request)
        } else if request.session_id == 0 {
            Ok(SessionUse::None)
        } else {
            Err(ResponseError::FetchSessionIdNotFound)
        };
        Poll::new(ctx, request, session, self.settings.frame_bytes_max)
    }

    /// Returns the response, unless the poll is to wait longer.
    pub(super) fn try_poll(&mut self, poll: &Poll, now: Now) -> Option<FetchResponse> {
        let session = match poll.session {
            Ok(session) => session,
            Err(error) => return Some(FetchResponse::default().with_error_code(error.code())),
        };
        let overdue = now.mono >= poll.deadline;
        let planned = self.faults.plans(ApiKey::Fetch);
        if !overdue && !planned && !self.is_worth_answering(poll) {
            return None;
        }
        let mut response = self.answer(poll);
        self.sessions.leave(session, &mut response);
        Some(response)
    }

    /// Whether there is an error to report or enough to read.
    fn is_worth_answering(&self, poll: &Poll) -> bool {
        let all = Allowance {
            bytes: poll.max_bytes,
            first: true,
        };
        let mut bytes = 0;
        let mut asked = 0;
        for topic in &poll.topics {
            for partition in &topic.partitions {
                asked += 1;
                match self.ready(poll, topic, partition, all) {
                    Ok((Ready::Read { size, .. }, _)) => bytes += size,
                    Ok((Ready::Diverged { .. }, _)) | Err(_) => return true,
                }
                if bytes >= poll.min_bytes && bytes > 0 {
                    return true;
                }
            }
        }
        asked == 0 || poll.min_bytes == 0
    }

    fn answer(&mut self, poll: &Poll) -> FetchResponse {
        let mut response = FetchResponse::default();
        let mut left = Allowance {
            bytes: poll.max_bytes,
            first: true,
        };
        for topic in &poll.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let planned =
                    self.faults
                        .next_error(ApiKey::Fetch, false, &topic.topic, self.topics);
                let ready = match planned {
                    Some(error) => Err(error),
                    None => self.ready(poll, topic, asked, left),
                };
                let data = match ready {
                    Ok((ready, partition)) => self.read(poll, asked, ready, partition, left),
                    Err(error) => self.reject(poll, topic, asked, error),
                };
                left.take(data.records.as_ref().map_or(0, bytes::Bytes::len));
                partitions.push(data);
            }
            let answer = FetchableTopicResponse::default()
                .with_topic(topic.name.clone())
                .with_topic_id(topic.id)
                .with_partitions(partitions);
            response.responses.push(answer);
        }
        if poll.version >= ENDPOINTS_FROM {
            response.node_endpoints = self.endpoints(&response);
        }
        response
    }

    fn read(
        &self,
        poll: &Poll,
        asked: &Asked,
        ready: Ready,
        partition: &PartitionState,
        left: Allowance,
    ) -> PartitionData {
        let log = &partition.log;
        let mut data = PartitionData::default()
            .with_partition_index(asked.index)
            .with_records(Some(bytes::Bytes::new()))
            .with_aborted_transactions(poll.committed.then(Vec::new))
            .with_high_watermark(log.end())
            .with_last_stable_offset(log.stable_end())
            .with_log_start_offset(log.start());
        match ready {
            Ready::Diverged { epoch, end } => {
                let diverging = EpochEndOffset::default().with_epoch(epoch);
                data.diverging_epoch = diverging.with_end_offset(end);
            }
            Ready::Read { upto, size } => {
                let mut records = Vec::with_capacity(size);
                let next = log.read(self.range(asked, upto, left), &mut records);
                data.records = Some(records.into());
                if poll.committed {
                    let aborted = log.aborted_in(asked.from, next).map(|a| {
                        AbortedTransaction::default()
                            .with_producer_id(a.producer_id.into())
                            .with_first_offset(a.first)
                    });
                    data.aborted_transactions = Some(aborted.collect());
                }
            }
        }
        data
    }

    /// Kafka 4.3 sends neither bounds nor aborted transactions with an error, not even with
    /// OFFSET_OUT_OF_RANGE (observed on a real one).
    fn reject(
        &self,
        poll: &Poll,
        topic: &Topic,
        asked: &Asked,
        error: ResponseError,
    ) -> PartitionData {
        let mut data = PartitionData::default()
            .with_partition_index(asked.index)
            .with_records(Some(bytes::Bytes::new()))
            .with_aborted_transactions(None)
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1);
        let names_leader = matches!(
            error,
            ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch
        );
        let found = self.topics.partition(&topic.topic, asked.index);
        if let Ok((_, partition)) = found
            && names_leader
            && poll.version >= LEADER_FROM
        {
            data.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(partition.leader_id().into())
                .with_leader_epoch(partition.epoch);
        }
        data
    }

    fn ready(
        &self,
        poll: &Poll,
        topic: &Topic,
        asked: &Asked,
        left: Allowance,
    ) -> Result<(Ready, &PartitionState), ResponseError> {
        let topics = self.topics;
        self.faults.authorize(&topic.topic, Right::Read, topics)?;
        let (_, partition) = topics.partition(&topic.topic, asked.index)?;
        partition.check_epoch(asked.epoch)?;
        let follows = poll.version >= FOLLOWERS_FROM
            && partition.leader.is_some()
            && partition.replicas.contains(&poll.node);
        if partition.leader != Some(poll.node) && !follows {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        let log = &partition.log;
        if asked.last_epoch >= 0 {
            // KIP-320 in the Fetch itself: does the reader's last epoch end before where it reads?
            let ended = log.epoch_end(asked.last_epoch);
            let (epoch, end) = ended.ok_or(ResponseError::OffsetOutOfRange)?;
            if epoch < asked.last_epoch || end < asked.from {
                return Ok((Ready::Diverged { epoch, end }, partition));
            }
        }
        if asked.from < log.start() || asked.from > log.end() {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let upto = if poll.committed {
            log.stable_end()
        } else {
            log.end()
        };
        let size = log.size(self.range(asked, upto, left));
        Ok((Ready::Read { upto, size }, partition))
    }

    fn range(&self, asked: &Asked, upto: i64, left: Allowance) -> ReadRange {
        ReadRange {
            from: asked.from,
            upto,
            limit: asked.max_bytes.min(left.bytes),
            first_whole: left.first,
            cut: self.settings.cut_responses,
        }
    }

    fn endpoints(&self, response: &FetchResponse) -> Vec<NodeEndpoint> {
        let partitions = response.responses.iter().flat_map(|t| &t.partitions);
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

//! Fetch: many partitions a request, long poll, both isolation levels.
//!
//! A request is read once into a [`Poll`]; the poll is tried at once and again whenever the cluster
//! changed, until it has `min_bytes`, an error, or its time is up.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::NodeId;
use super::cluster::{Cluster, Context, Right, check_epoch};
use super::log::Want;
use super::sessions::Use;
use super::topics::{PartitionState, TopicRef};
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
/// A long poll's time at most.
const WAIT_MS_MAX: i32 = 10 * 60_000;

/// A Fetch that waits or is about to be answered.
#[derive(Debug)]
pub(super) struct Poll {
    node: NodeId,
    pub version: i16,
    deadline: Instant,
    min_bytes: usize,
    max_bytes: usize,
    committed: bool,
    session: Result<Use, ResponseError>,
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

/// What one partition may be given now.
enum Ready {
    Read { upto: i64, size: usize },
    Diverged { epoch: i32, end: i64 },
}

impl Poll {
    /// Reads a request that names all its partitions, whatever its session said.
    fn new(
        ctx: &Context,
        request: FetchRequest,
        session: Result<Use, ResponseError>,
        response_max: usize,
    ) -> Self {
        let bytes = |n: i32| usize::try_from(n).unwrap_or(0);
        let wait = request.max_wait_ms.clamp(0, WAIT_MS_MAX);
        let max_bytes = bytes(request.max_bytes).min(response_max);
        let by_id = ctx.version >= TOPIC_IDS_FROM;
        let topic = |t: kafka_protocol::messages::fetch_request::FetchTopic| Topic {
            topic: match by_id {
                true => TopicRef::Id(t.topic_id),
                false => TopicRef::Name(t.topic.0.to_string()),
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

    /// When it is answered at the latest.
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

impl Cluster {
    /// Reads a request.
    pub(super) fn open_poll(&mut self, ctx: &Context, mut request: FetchRequest) -> Poll {
        let session = match self.settings.fetch_sessions {
            true => self
                .sessions
                .enter(ctx.node, &mut self.random, &mut request),
            false if request.session_id == 0 => Ok(Use::None),
            false => Err(ResponseError::FetchSessionIdNotFound),
        };
        Poll::new(ctx, request, session, self.settings.frame_bytes_max)
    }

    /// The answer, unless the poll shall go on waiting.
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
        let mut response = self.answer_poll(poll);
        self.sessions.leave(session, &mut response);
        Some(response)
    }

    /// Whether there is an error to tell or enough to read.
    fn is_worth_answering(&self, poll: &Poll) -> bool {
        let mut bytes = 0;
        let mut asked = 0;
        for topic in &poll.topics {
            for partition in &topic.partitions {
                asked += 1;
                match self.ready(poll, topic, partition, poll.max_bytes, true) {
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

    fn answer_poll(&mut self, poll: &Poll) -> FetchResponse {
        let mut response = FetchResponse::default();
        let mut left = poll.max_bytes;
        let mut first = true;
        for topic in &poll.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let planned = self.planned(ApiKey::Fetch, false, &topic.topic);
                let data = self.answer_partition(poll, topic, asked, planned, left, first);
                let given = data.records.as_ref().map_or(0, |records| records.len());
                first &= given == 0;
                left = left.saturating_sub(given);
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

    fn answer_partition(
        &self,
        poll: &Poll,
        topic: &Topic,
        asked: &Asked,
        planned: Option<ResponseError>,
        left: usize,
        first: bool,
    ) -> PartitionData {
        let data = PartitionData::default()
            .with_partition_index(asked.index)
            .with_records(Some(bytes::Bytes::new()))
            .with_aborted_transactions(poll.committed.then(Vec::new));
        let ready = match planned {
            Some(error) => Err(error),
            None => self.ready(poll, topic, asked, left, first),
        };
        let (ready, partition) = match ready {
            Ok(ready) => ready,
            Err(error) => return self.refuse_partition(poll, topic, asked, error, data),
        };
        let log = &partition.log;
        let mut data = data
            .with_high_watermark(log.end())
            .with_last_stable_offset(log.stable_end())
            .with_log_start_offset(log.start);
        match ready {
            Ready::Diverged { epoch, end } => {
                let diverging = EpochEndOffset::default().with_epoch(epoch);
                data.diverging_epoch = diverging.with_end_offset(end);
            }
            Ready::Read { upto, size } => {
                let mut records = Vec::with_capacity(size);
                let want = self.want(asked, upto, left, first);
                let next = log.read(want, &mut records);
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

    /// Kafka 4.3 tells neither bounds nor aborted transactions with an error, not even with
    /// OFFSET_OUT_OF_RANGE (looked at on a real one).
    fn refuse_partition(
        &self,
        poll: &Poll,
        topic: &Topic,
        asked: &Asked,
        error: ResponseError,
        data: PartitionData,
    ) -> PartitionData {
        let mut data = data
            .with_error_code(error.code())
            .with_aborted_transactions(None)
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1);
        let found = self.topics.partition(&topic.topic, asked.index).ok();
        let Some((_, partition)) = found else {
            return data;
        };
        match error {
            ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch
                if poll.version >= LEADER_FROM =>
            {
                let leader = partition.leader.map_or(-1, |node| i32::from(node.0));
                data.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(leader.into())
                    .with_leader_epoch(partition.epoch);
            }
            _ => {}
        }
        data
    }

    fn ready(
        &self,
        poll: &Poll,
        topic: &Topic,
        asked: &Asked,
        left: usize,
        first: bool,
    ) -> Result<(Ready, &PartitionState), ResponseError> {
        self.authorize(&topic.topic, Right::Read)?;
        let (_, partition) = self.topics.partition(&topic.topic, asked.index)?;
        check_epoch(partition, asked.epoch)?;
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
        if asked.from < log.start || asked.from > log.end() {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let upto = match poll.committed {
            true => log.stable_end(),
            false => log.end(),
        };
        let size = log.size(self.want(asked, upto, left, first));
        Ok((Ready::Read { upto, size }, partition))
    }

    fn want(&self, asked: &Asked, upto: i64, left: usize, first: bool) -> Want {
        Want {
            from: asked.from,
            upto,
            limit: asked.max_bytes.min(left),
            first_whole: first,
            cut: self.settings.cut_responses,
        }
    }

    fn endpoints(&self, response: &FetchResponse) -> Vec<NodeEndpoint> {
        let partitions = response.responses.iter().flat_map(|t| &t.partitions);
        let leaders = partitions.map(|p| p.current_leader.leader_id.0);
        let mut ids: Vec<u16> = leaders.filter_map(|id| u16::try_from(id).ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        let endpoint = |id: u16| {
            let node = self.node(NodeId(id))?;
            let endpoint = NodeEndpoint::default()
                .with_node_id(i32::from(id).into())
                .with_host(StrBytes::from(node.host.clone()))
                .with_port(i32::from(node.port));
            Some(endpoint)
        };
        ids.into_iter().filter_map(endpoint).collect()
    }
}

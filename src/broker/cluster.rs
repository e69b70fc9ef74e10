//! The cluster behind the connections: nodes, topics, transactions, planned faults. Requests are
//! answered from here; bytes and waiting are the connections' business.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

use super::sessions::Sessions;
use super::topic_config::TopicConfig;
use super::topics::{PartitionState, TopicRef, Topics};
use super::transactions::Coordinator;
use super::{NodeId, Refusal, Settings};
use crate::model::{FastRandom, Instant, Now, TopicName};

/// How often retention and compaction are looked at.
const UPKEEP_MS: u64 = 1_000;

/// A node: its address as clients shall use it, and whether it runs.
#[derive(Debug)]
pub(super) struct Node {
    pub host: String,
    pub port: u16,
    pub runs: bool,
    pub frozen: bool,
}

/// What the next requests will meet (each counted down as it is used up).
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Produce requests that are appended, unanswered, and their connection cut.
    pub lose_produce: u32,
    /// Produce requests that are answered with this throttle time.
    pub throttle_produce: u32,
    pub throttle_ms: u32,
    /// Partitions of the next requests of an API that get an error; for Produce, `after` says that
    /// the records are appended all the same.
    pub refuse: Vec<Refuse>,
    /// Rights on topics that clients lack. All clients are the same user.
    pub denied: BTreeSet<(String, Right)>,
    /// Delays responses to Produce of a topic by this many milliseconds, as slow replicas would.
    pub delay_produce: Option<(String, u32)>,
}

/// A right on a topic (Kafka's ACL operations).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// The topic's metadata, offsets and epochs. Every other right requires this one.
    Describe,
    /// Fetch.
    Read,
    /// Produce.
    Write,
    /// DescribeConfigs.
    DescribeConfigs,
}

#[derive(Debug)]
pub(super) struct Refuse {
    pub api: ApiKey,
    /// The topic. `None` means all topics.
    pub topic: Option<String>,
    pub error: ResponseError,
    pub after: bool,
    pub left: u32,
}

impl Faults {
    /// Whether an error is planned for `api`.
    pub(super) fn plans(&self, api: ApiKey) -> bool {
        self.refuse.iter().any(|r| r.api == api)
    }

    /// The error planned for the next partition of `api` in `topic`, if any.
    pub(super) fn refuse(
        &mut self,
        api: ApiKey,
        after: bool,
        topic: Option<&str>,
    ) -> Option<ResponseError> {
        let planned = self.refuse.iter_mut().find(|r| {
            let of_topic = r
                .topic
                .as_deref()
                .is_none_or(|wanted| Some(wanted) == topic);
            of_topic && r.api == api && r.after == after && r.left > 0
        })?;
        planned.left -= 1;
        let error = planned.error;
        self.refuse.retain(|r| r.left > 0);
        Some(error)
    }

    /// Whether clients lack a right on a topic.
    pub(super) fn denies(&self, topic: &str, right: Right) -> bool {
        let lacks = |right| self.denied.contains(&(topic.to_owned(), right));
        !self.denied.is_empty() && (lacks(Right::Describe) || lacks(right))
    }
}

/// Who asks, in which version, when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub node: NodeId,
    pub version: i16,
    pub now: Now,
}

/// All but the connections.
#[derive(Debug)]
pub(super) struct Cluster {
    pub settings: Settings,
    pub id: String,
    pub nodes: Vec<Node>,
    pub topics: Topics,
    pub coordinator: Coordinator,
    pub sessions: Sessions,
    pub faults: Faults,
    pub random: FastRandom,
    /// Bytes of batches over all partitions.
    pub bytes: usize,
    /// Batches appended so far.
    pub appended: u64,
    /// Set by whatever may end a long poll; the connections look and clear it.
    pub changed: bool,
    upkeep_due: Option<Instant>,
}

impl Cluster {
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        assert!(
            (1..=Settings::NODES_MAX).contains(&settings.nodes),
            "a cluster has 1 to {} nodes",
            Settings::NODES_MAX
        );
        let random = FastRandom::new(seed);
        let node = |_| Node {
            host: "127.0.0.1".to_owned(),
            port: 0,
            runs: true,
            frozen: false,
        };
        Self {
            id: settings.cluster_id.clone(),
            nodes: (0..settings.nodes).map(node).collect(),
            topics: Topics::default(),
            coordinator: Coordinator::default(),
            sessions: Sessions::default(),
            faults: Faults::default(),
            random,
            bytes: 0,
            appended: 0,
            changed: false,
            upkeep_due: None,
            settings,
        }
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0).checked_sub(1)?)
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(usize::from(id.0).checked_sub(1)?)
    }

    /// Every node that runs, in order.
    pub(super) fn running(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let numbered = self.nodes.iter().zip(1..);
        let numbered = numbered.map(|(node, id)| (NodeId(id), node));
        numbered.filter(|(_, node)| node.runs)
    }

    pub(super) fn runs(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.runs)
    }

    /// The node clients are told controls the cluster, and coordinates transactions.
    pub(super) fn controller(&self) -> Option<NodeId> {
        self.running().next().map(|(id, _)| id)
    }

    /// Creates a topic; `replication` 0 is the default, `assignment` overrides partitions and
    /// replication if it is not empty.
    pub(super) fn create(
        &mut self,
        name: &str,
        partitions: u32,
        replication: u16,
        assignment: Vec<Vec<NodeId>>,
        config: TopicConfig,
    ) -> Result<Uuid, Refusal> {
        let replicas = self.plan(name, partitions, replication, assignment)?;
        let id = topic_id(&mut self.random);
        let runs: Vec<bool> = self.nodes.iter().map(|node| node.runs).collect();
        let alive = |node: NodeId| runs[usize::from(node.0) - 1];
        self.topics.insert(name, id, config, replicas, alive);
        self.changed = true;
        Ok(id)
    }

    /// Who would hold the partitions of a new topic, or why it can't be.
    pub(super) fn plan(
        &self,
        name: &str,
        partitions: u32,
        replication: u16,
        assignment: Vec<Vec<NodeId>>,
    ) -> Result<Vec<Vec<NodeId>>, Refusal> {
        TopicName::new(name)
            .map_err(|why| Refusal::new(ResponseError::InvalidTopicException, why))?;
        if self.topics.get(name).is_some() {
            let text = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, text));
        }
        if self.topics.len() >= self.settings.topics_max {
            let text = format!("this broker holds {} topics at most", self.topics.len());
            return Err(Refusal::new(ResponseError::PolicyViolation, text));
        }
        if !assignment.is_empty() {
            self.check_assignment(&assignment)?;
            self.check_room(assignment.len())?;
            return Ok(assignment);
        }
        if partitions == 0 {
            let text = "Number of partitions must be larger than 0.";
            return Err(Refusal::new(ResponseError::InvalidPartitions, text));
        }
        self.check_room(partitions as usize)?;
        let nodes = self.settings.nodes;
        let replication = if replication == 0 {
            nodes.min(3)
        } else {
            replication
        };
        if replication > nodes {
            let text = format!(
                "Unable to replicate the partition {replication} time(s): only {nodes} broker(s)."
            );
            return Err(Refusal::new(ResponseError::InvalidReplicationFactor, text));
        }
        Ok(self.spread(0..partitions, replication))
    }

    /// Partition p on the nodes p, p + 1, ... in turn; the first is its preferred leader.
    pub(super) fn spread(
        &self,
        partitions: std::ops::Range<u32>,
        replication: u16,
    ) -> Vec<Vec<NodeId>> {
        let nodes = u32::from(self.settings.nodes);
        let on = |p: u32| {
            let node = |k: u16| NodeId(((p + u32::from(k)) % nodes) as u16 + 1);
            (0..replication).map(node).collect()
        };
        partitions.map(on).collect()
    }

    fn check_assignment(&self, assignment: &[Vec<NodeId>]) -> Result<(), Refusal> {
        let legal = |replicas: &Vec<NodeId>| {
            let known = replicas.iter().all(|&node| self.node(node).is_some());
            let mut seen = replicas.clone();
            seen.sort_unstable();
            seen.dedup();
            known && !replicas.is_empty() && seen.len() == replicas.len()
        };
        let same = assignment
            .windows(2)
            .all(|pair| pair[0].len() == pair[1].len());
        if same && assignment.iter().all(legal) {
            return Ok(());
        }
        let text = "each partition needs the same number of distinct, existing brokers";
        Err(Refusal::new(ResponseError::InvalidReplicaAssignment, text))
    }

    /// Whether `more` partitions fit.
    pub(super) fn check_room(&self, more: usize) -> Result<(), Refusal> {
        let max = self.settings.partitions_max;
        if self.topics.partitions().saturating_add(more) <= max {
            return Ok(());
        }
        let text = format!("this broker holds {max} partitions at most");
        Err(Refusal::new(ResponseError::PolicyViolation, text))
    }

    /// Adds partitions until the topic has `total`.
    pub(super) fn grow(&mut self, name: &str, total: u32) -> Result<(), Refusal> {
        let replicas = self.plan_growth(name, total)?;
        let runs: Vec<bool> = self.nodes.iter().map(|node| node.runs).collect();
        let alive = |node: NodeId| runs[usize::from(node.0) - 1];
        self.changed = true;
        self.topics.extend(name, replicas, alive)
    }

    /// Who would hold the partitions added, or why they can't be.
    pub(super) fn plan_growth(&self, name: &str, total: u32) -> Result<Vec<Vec<NodeId>>, Refusal> {
        let topic = self
            .topics
            .get(name)
            .ok_or_else(|| super::topics::no_topic(name))?;
        let has = topic.partitions.len() as u32;
        if total <= has {
            let text = format!("Topic currently has {has} partitions, which is not below {total}.");
            return Err(Refusal::new(ResponseError::InvalidPartitions, text));
        }
        self.check_room((total - has) as usize)?;
        Ok(self.spread(has..total, topic.replication))
    }

    /// Deletes a topic and its records.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        let topic = self.topics.remove(name)?;
        self.bytes -= topic.partitions.iter().map(|p| p.log.bytes).sum::<usize>();
        self.coordinator.forget_topic(topic.id);
        self.changed = true;
        Ok(())
    }

    /// Appends a judged batch to a partition that `ctx.node` leads or that needs no leader
    /// (markers). The caller has made room.
    pub(super) fn append(
        &mut self,
        topic: &TopicRef,
        index: i32,
        bytes: Vec<u8>,
    ) -> Result<i64, ResponseError> {
        let len = bytes.len();
        let number = self.appended;
        let partition = self.topics.partition_mut(topic, index)?;
        let base = partition.log.append(bytes, partition.epoch, number);
        self.appended += 1;
        self.bytes += len;
        self.changed = true;
        Ok(base)
    }

    /// The name of the topic in a request, if the topic exists.
    pub(super) fn name_of<'a>(&'a self, topic: &'a TopicRef) -> Option<&'a str> {
        match topic {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(id) => self.topics.name_of(*id),
        }
    }

    /// The error that was planned for the next partition of a topic, if any.
    pub(super) fn planned(
        &mut self,
        api: ApiKey,
        after: bool,
        topic: &TopicRef,
    ) -> Option<ResponseError> {
        if !self.faults.plans(api) {
            return None;
        }
        let name = self.name_of(topic).map(str::to_owned);
        self.faults.refuse(api, after, name.as_deref())
    }

    /// TOPIC_AUTHORIZATION_FAILED if clients lack a right on a topic.
    pub(super) fn authorize(&self, topic: &TopicRef, right: Right) -> Result<(), ResponseError> {
        let denied = self
            .name_of(topic)
            .is_some_and(|name| self.faults.denies(name, right));
        match denied {
            true => Err(ResponseError::TopicAuthorizationFailed),
            false => Ok(()),
        }
    }

    /// The partition, if `node` leads it and the epoch a client named is the present one; else the
    /// error Kafka answers (KIP-320). `epoch` -1: the client names none.
    pub(super) fn led(
        &self,
        node: NodeId,
        topic: &TopicRef,
        index: i32,
        epoch: i32,
    ) -> Result<&PartitionState, ResponseError> {
        let (_, partition) = self.topics.partition(topic, index)?;
        check_epoch(partition, epoch)?;
        if partition.leader != Some(node) {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        Ok(partition)
    }

    /// When [`Self::on_time`] has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let transaction = self.coordinator.next_deadline();
        [transaction, self.upkeep_due].into_iter().flatten().min()
    }

    /// Ends transactions that are too old, and applies retention and compaction when they are due.
    pub(super) fn on_time(&mut self, now: Now) {
        self.abort_overdue(now);
        match self.upkeep_due {
            Some(due) if now.mono >= due => {
                self.upkeep(now);
                self.upkeep_due = None;
            }
            _ => {}
        }
    }

    /// Makes sure that upkeep happens while there is anything to keep or drop.
    pub(super) fn schedule_upkeep(&mut self, now: Now) {
        if self.upkeep_due.is_none() && self.bytes > 0 {
            let period = std::time::Duration::from_millis(UPKEEP_MS);
            self.upkeep_due = Some(now.mono.after(period));
        }
    }
}

/// A topic id: a random (v4) UUID, so never one of Kafka's reserved ones.
fn topic_id(random: &mut FastRandom) -> Uuid {
    let bits = u128::from(random.next()) << 64 | u128::from(random.next());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

/// KIP-320: whether the client's idea of the leadership is old or newer than ours.
pub(super) fn check_epoch(partition: &PartitionState, epoch: i32) -> Result<(), ResponseError> {
    match epoch {
        -1 => Ok(()),
        e if e < partition.epoch => Err(ResponseError::FencedLeaderEpoch),
        e if e > partition.epoch => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

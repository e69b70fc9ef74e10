//! What is known of a cluster at one moment: immutable, shared between the shards of a process.

use std::sync::Arc;
use std::time::Duration;

use super::codes::{Denial, Doing};
use super::settings::Address;
use crate::model::{LeaderEpoch, LogIdentity, Partition, TopicName};

/// A broker's number in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub i32);

/// A cluster as its metadata shows it. The client that owns the directory makes a new view on each
/// change, and the other clients receive it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster's id, if brokers report it.
    pub cluster_id: Option<String>,
    /// The live brokers, sorted by number.
    pub brokers: Vec<BrokerView>,
    /// The watched topics, sorted by name. A topic without a response yet is absent.
    pub topics: Vec<TopicEntry>,
}

/// One live broker of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerView {
    /// The broker's `node.id`, unique in the cluster.
    pub id: BrokerId,
    /// The address that it advertises.
    pub address: Address,
    /// The broker's rack, for reads from replicas (KIP-392). `None` if the broker has none.
    pub rack: Option<String>,
}

/// A watched topic, and whether it can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicEntry {
    /// The topic's name, by which `topics` is sorted.
    pub name: TopicName,
    /// Whether it can be used.
    pub state: TopicState,
}

/// Whether a topic can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// The topic can't be used.
    Missing(MissingReason),
    /// The topic can be used.
    Present {
        /// The topic's properties that change seldom.
        view: Arc<TopicView>,
        /// The leader of each partition, dense by number. As long as `view.partitions`.
        leaders: Arc<[Leader]>,
    },
}

/// Why a topic can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingReason {
    /// The cluster has no topic of that name. A request never creates it.
    #[error("the cluster has no such topic")]
    Unknown,
    /// The broker refuses to describe it.
    #[error("the broker refuses to describe the topic: {0}")]
    Refused(super::Code),
}

impl MissingReason {
    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Unknown => "create it, or correct its name in the config",
            Self::Refused(code) => match code.denial() {
                // A missing topic is refused with the same code.
                Some(Denial::TopicRight) => {
                    "allow the gateway's user DESCRIBE on it (READ and WRITE include that), or \
                     correct its name in the config"
                }
                Some(denial) => denial.remedy(Doing::Describe),
                None => "the brokers' logs may say why",
            },
        }
    }

    /// The denial, if it is one.
    #[must_use]
    pub const fn denial(self) -> Option<Denial> {
        match self {
            Self::Unknown => None,
            Self::Refused(code) => code.denial(),
        }
    }
}

/// The properties of a topic that its users act on. Leaders are not among them, since they move
/// often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// The topic's name in the cluster.
    pub name: TopicName,
    /// The topic's id. `None` if brokers have none (Metadata below 10).
    pub id: Option<LogIdentity>,
    /// The number of partitions. They are numbered from 0 without gaps.
    pub partitions: u32,
    /// The configuration. `None` if the cluster does not let the gateway read it.
    pub config: Option<TopicConfig>,
    /// Whether the gateway may write to the topic. `None` if the broker does not report it
    /// (Metadata below 8).
    pub writable: Option<bool>,
}

/// The settings of a topic that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Whether `cleanup.policy` names `compact`, alone or with `delete`.
    pub compacted: bool,
    /// Whether `cleanup.policy` names `delete`, alone or with `compact`.
    pub deleted: bool,
    /// `retention.ms`: how long records are kept. `None`: no limit.
    pub retention: Option<Duration>,
    /// `delete.retention.ms`: how long a tombstone stays after compaction has seen it.
    pub delete_retention: Duration,
    /// `max.message.bytes`: the largest record batch, in bytes.
    pub batch_bytes_max: u32,
}

/// The leader of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// The leader. `None` while there is none.
    pub broker: Option<BrokerId>,
    /// Its epoch (Metadata ≥ 7).
    pub epoch: LeaderEpoch,
}

impl ClusterView {
    /// What is known of a topic.
    #[must_use]
    pub fn topic(&self, name: &TopicName) -> Option<&TopicState> {
        let at = self.topics.binary_search_by(|entry| entry.name.cmp(name));
        at.ok().map(|i| &self.topics[i].state)
    }

    /// The address that a broker advertises.
    #[must_use]
    pub fn address(&self, id: BrokerId) -> Option<&Address> {
        let at = self.brokers.binary_search_by_key(&id, |broker| broker.id);
        at.ok().map(|i| &self.brokers[i].address)
    }
}

impl TopicState {
    /// The present leader of `partition`, if it has one.
    #[must_use]
    pub fn leader(&self, partition: Partition) -> Option<(BrokerId, LeaderEpoch)> {
        match self {
            Self::Missing(_) => None,
            Self::Present { leaders, .. } => {
                let leader = leaders.get(partition.0 as usize)?;
                leader.broker.map(|broker| (broker, leader.epoch))
            }
        }
    }
}

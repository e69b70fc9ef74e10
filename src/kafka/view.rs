//! What is known of a cluster at one moment: immutable, shared between the shards of a process.

use std::sync::Arc;
use std::time::Duration;

use super::codes::{Denial, Doing};
use super::settings::Address;
use crate::model::{LeaderEpoch, LogIdentity, Partition, TopicName};

/// A broker's number in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub i32);

/// A cluster as its metadata shows it. The client that owns the directory makes a new one on each
/// change; the others are given it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster's id, where the broker tells it.
    pub cluster_id: Option<String>,
    /// The live brokers, by number.
    pub brokers: Vec<BrokerView>,
    /// What is known of the watched topics, by name. A topic not yet looked up is absent.
    pub topics: Vec<TopicEntry>,
}

/// One live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerView {
    /// Its number.
    pub id: BrokerId,
    /// Where it listens.
    pub address: Address,
    /// Its rack, for KIP-392.
    pub rack: Option<String>,
}

/// A watched topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicEntry {
    /// Its name.
    pub name: TopicName,
    /// Whether it is there.
    pub state: TopicState,
}

/// Whether a topic is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It can't be used.
    Missing(MissingReason),
    /// It can.
    Present {
        /// What its users need.
        view: Arc<TopicView>,
        /// Who leads each partition, dense by number. As long as `view.partitions`.
        leaders: Arc<[Leader]>,
    },
}

/// Why a topic can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingReason {
    /// The cluster has no topic of that name. It is never created by asking.
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

/// A topic's facts that its users act on. Leaders are not among them: they move without notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: TopicName,
    /// Its id; `None` where the broker has none (Metadata below 10).
    pub id: Option<LogIdentity>,
    /// How many partitions; they are numbered from 0 without holes.
    pub partitions: u32,
    /// Its configuration; `None` where the cluster does not let us read it.
    pub config: Option<TopicConfig>,
    /// Whether the gateway may write to the topic. `None` if the broker does not report it
    /// (Metadata below 8).
    pub writable: Option<bool>,
}

/// The configuration of a topic, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `cleanup.policy` names `compact`.
    pub compacted: bool,
    /// `cleanup.policy` names `delete`.
    pub deleted: bool,
    /// `retention.ms`; `None`: for ever.
    pub retention: Option<Duration>,
    /// `delete.retention.ms`: how long a tombstone stays after compaction has seen it.
    pub delete_retention: Duration,
    /// `max.message.bytes`: the largest record batch, in bytes.
    pub batch_bytes_max: u32,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// The leader; `None` while there is none.
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

    /// Where a broker listens.
    #[must_use]
    pub fn address(&self, id: BrokerId) -> Option<&Address> {
        let at = self.brokers.binary_search_by_key(&id, |broker| broker.id);
        at.ok().map(|i| &self.brokers[i].address)
    }
}

impl TopicState {
    /// Who leads `partition` now, if anybody.
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

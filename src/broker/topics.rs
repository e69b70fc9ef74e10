//! Topics by name and id, their partitions, and the leaders of these.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::log::Log;
use super::topic_config::TopicConfig;
use super::{NodeId, Refusal};

/// A partition: its log, which all replicas share, and its leadership.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub log: Log,
    pub replicas: Vec<NodeId>,
    pub leader: Option<NodeId>,
    pub epoch: i32,
}

impl PartitionState {
    /// An empty partition, led by its first running replica.
    pub(super) fn new(replicas: Vec<NodeId>, running: impl Fn(NodeId) -> bool) -> Self {
        let leader = replicas.iter().copied().find(|&node| running(node));
        let mut log = Log::default();
        log.begin_epoch(0);
        Self {
            log,
            replicas,
            leader,
            epoch: 0,
        }
    }

    /// Makes `node` the leader under the next epoch. `None` leaves the partition without a leader.
    pub(super) fn elect(&mut self, node: Option<NodeId>) {
        self.leader = node;
        self.epoch += 1;
        if node.is_some() {
            self.log.begin_epoch(self.epoch);
        }
    }

    /// The leader's id on the wire; -1 if there is none.
    pub(super) fn leader_id(&self) -> i32 {
        self.leader.map_or(-1, |node| i32::from(node.0))
    }

    /// KIP-320: rejects a client that names an older or a newer epoch than the present one. -1: the
    /// client names none.
    pub(super) fn check_epoch(&self, epoch: i32) -> Result<(), ResponseError> {
        match epoch {
            -1 => Ok(()),
            e if e < self.epoch => Err(ResponseError::FencedLeaderEpoch),
            e if e > self.epoch => Err(ResponseError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }
}

/// A topic. Its name is the key of the table.
#[derive(Debug)]
pub(super) struct Topic {
    pub id: Uuid,
    pub config: TopicConfig,
    pub replication: u16,
    pub partitions: Vec<PartitionState>,
}

/// All topics. Names and ids lead to the same ones.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: BTreeMap<Uuid, String>,
}

/// How a request names a topic: by name, or by id in newer versions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TopicRef {
    Name(String),
    Id(Uuid),
}

impl Topics {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Number of partitions over all topics.
    pub(super) fn partitions(&self) -> usize {
        self.by_name.values().map(|t| t.partitions.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        let topics = self.by_name.iter();
        topics.map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic> {
        self.by_name.values_mut()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    /// The topic of this name, or UNKNOWN_TOPIC_OR_PARTITION.
    pub(super) fn named(&self, name: &str) -> Result<&Topic, Refusal> {
        self.get(name).ok_or_else(|| no_topic(name))
    }

    /// As [`Self::named`], but the topic can be changed.
    pub(super) fn named_mut(&mut self, name: &str) -> Result<&mut Topic, Refusal> {
        self.by_name.get_mut(name).ok_or_else(|| no_topic(name))
    }

    pub(super) fn name_of_id(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// The name that a request means. `None` if no topic has the id it names.
    pub(super) fn name_of<'a>(&'a self, topic: &'a TopicRef) -> Option<&'a str> {
        match topic {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(id) => self.name_of_id(*id),
        }
    }

    /// The partition, or the error that a response carries for it.
    pub(super) fn partition(
        &self,
        topic: &TopicRef,
        index: i32,
    ) -> Result<(&Topic, &PartitionState), ResponseError> {
        let name = self.name_of(topic).ok_or(ResponseError::UnknownTopicId)?;
        let topic = self.get(name).ok_or(UNKNOWN)?;
        let index = usize::try_from(index).map_err(|_| UNKNOWN)?;
        let partition = topic.partitions.get(index).ok_or(UNKNOWN)?;
        Ok((topic, partition))
    }

    /// As [`Self::partition`], but the partition can be changed.
    pub(super) fn partition_mut(
        &mut self,
        topic: &TopicRef,
        index: i32,
    ) -> Result<&mut PartitionState, ResponseError> {
        let name = match topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(id) => {
                let name = self.names.get(id);
                name.ok_or(ResponseError::UnknownTopicId)?
            }
        };
        let topic = self.by_name.get_mut(name).ok_or(UNKNOWN)?;
        let index = usize::try_from(index).map_err(|_| UNKNOWN)?;
        topic.partitions.get_mut(index).ok_or(UNKNOWN)
    }

    /// The partition, if `node` leads it and the client named no other epoch than the present one
    /// (KIP-320); else the error that Kafka answers.
    pub(super) fn led(
        &self,
        node: NodeId,
        topic: &TopicRef,
        index: i32,
        epoch: i32,
    ) -> Result<(&Topic, &PartitionState), ResponseError> {
        let (topic, partition) = self.partition(topic, index)?;
        partition.check_epoch(epoch)?;
        if partition.leader != Some(node) {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        Ok((topic, partition))
    }

    pub(super) fn insert(&mut self, name: &str, topic: Topic) {
        self.names.insert(topic.id, name.to_owned());
        self.by_name.insert(name.to_owned(), topic);
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<Topic, Refusal> {
        let topic = self.by_name.remove(name).ok_or_else(|| no_topic(name))?;
        self.names.remove(&topic.id);
        Ok(topic)
    }
}

const UNKNOWN: ResponseError = ResponseError::UnknownTopicOrPartition;

fn no_topic(name: &str) -> Refusal {
    Refusal::new(UNKNOWN, format!("there is no topic {name}"))
}

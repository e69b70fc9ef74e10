//! Topics by name and id, their partitions, and who leads them.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::log::Log;
use super::topic_config::TopicConfig;
use super::{NodeId, Refusal};

/// A partition: its log, shared by all its replicas, and its leadership.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub log: Log,
    pub replicas: Vec<NodeId>,
    pub leader: Option<NodeId>,
    pub epoch: i32,
}

impl PartitionState {
    fn new(replicas: Vec<NodeId>, alive: impl Fn(NodeId) -> bool) -> Self {
        let leader = replicas.iter().copied().find(|&node| alive(node));
        let mut log = Log::default();
        log.begin_epoch(0);
        Self {
            log,
            replicas,
            leader,
            epoch: 0,
        }
    }

    /// Makes `node` the leader under the next epoch. `None`: nobody leads.
    pub(super) fn elect(&mut self, node: Option<NodeId>) {
        self.leader = node;
        self.epoch += 1;
        if node.is_some() {
            self.log.begin_epoch(self.epoch);
        }
    }
}

/// A topic.
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

    pub(super) fn partitions(&self) -> usize {
        self.by_name.values().map(|t| t.partitions.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name
            .iter()
            .map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Topic)> {
        self.by_name
            .iter_mut()
            .map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub(super) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// The topic, mutable; UNKNOWN_TOPIC_OR_PARTITION if there is none.
    pub(super) fn named_mut(&mut self, name: &str) -> Result<&mut Topic, Refusal> {
        self.by_name.get_mut(name).ok_or_else(|| no_topic(name))
    }

    /// The partition, or the error a response carries for it.
    pub(super) fn partition(
        &self,
        topic: &TopicRef,
        index: i32,
    ) -> Result<(&Topic, &PartitionState), ResponseError> {
        let topic = self.get(self.resolve(topic)?).ok_or(UNKNOWN)?;
        let index = usize::try_from(index).map_err(|_| UNKNOWN)?;
        let partition = topic.partitions.get(index).ok_or(UNKNOWN)?;
        Ok((topic, partition))
    }

    /// As [`Self::partition`], mutable.
    pub(super) fn partition_mut(
        &mut self,
        topic: &TopicRef,
        index: i32,
    ) -> Result<&mut PartitionState, ResponseError> {
        let name = self.resolve(topic)?.to_owned();
        let topic = self.by_name.get_mut(&name).ok_or(UNKNOWN)?;
        let index = usize::try_from(index).map_err(|_| UNKNOWN)?;
        topic.partitions.get_mut(index).ok_or(UNKNOWN)
    }

    fn resolve<'a>(&'a self, topic: &'a TopicRef) -> Result<&'a str, ResponseError> {
        match topic {
            TopicRef::Name(name) => Ok(name),
            TopicRef::Id(id) => self.name_of(*id).ok_or(ResponseError::UnknownTopicId),
        }
    }

    /// Adds a topic whose partitions have these replicas, the first alive of each leading.
    pub(super) fn insert(
        &mut self,
        name: &str,
        id: Uuid,
        config: TopicConfig,
        replicas: Vec<Vec<NodeId>>,
        alive: impl Fn(NodeId) -> bool,
    ) {
        let replication = replicas.first().map_or(1, Vec::len) as u16;
        let partition = |replicas| PartitionState::new(replicas, &alive);
        let topic = Topic {
            id,
            config,
            replication,
            partitions: replicas.into_iter().map(partition).collect(),
        };
        self.names.insert(id, name.to_owned());
        self.by_name.insert(name.to_owned(), topic);
    }

    /// Adds partitions to a topic.
    pub(super) fn extend(
        &mut self,
        name: &str,
        replicas: Vec<Vec<NodeId>>,
        alive: impl Fn(NodeId) -> bool,
    ) -> Result<(), Refusal> {
        let topic = self.named_mut(name)?;
        let partition = |replicas| PartitionState::new(replicas, &alive);
        topic.partitions.extend(replicas.into_iter().map(partition));
        Ok(())
    }

    /// Takes a topic away.
    pub(super) fn remove(&mut self, name: &str) -> Result<Topic, Refusal> {
        let topic = self.by_name.remove(name).ok_or_else(|| no_topic(name))?;
        self.names.remove(&topic.id);
        Ok(topic)
    }
}

const UNKNOWN: ResponseError = ResponseError::UnknownTopicOrPartition;

/// The refusal for a topic that is not there.
pub(super) fn no_topic(name: &str) -> Refusal {
    Refusal::new(UNKNOWN, format!("there is no topic {name}"))
}

//! Topics created, grown and deleted, within the broker's limits.

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::coordinator::Coordinator;
use super::groups::Groups;
use super::nodes::Nodes;
use super::store::Store;
use super::topic_config::TopicConfig;
use super::topics::{PartitionState, Topic};
use super::{NodeId, Refusal, Settings};
use crate::model::{FastRandom, TopicName, u16_of, u32_of};

/// What a client or a test asked CreateTopics for.
#[derive(Debug)]
pub(super) struct NewTopic {
    pub name: String,
    pub partitions: u32,
    /// Replicas of each partition; 0 asks for the default.
    pub replication: u16,
    /// The replicas of each partition. If it is not empty, it overrides the two numbers above.
    pub assignment: Vec<Vec<NodeId>>,
    pub config: TopicConfig,
}

/// Creates, grows and deletes topics.
pub(super) struct TopicAdmin<'a> {
    pub settings: &'a Settings,
    pub nodes: &'a Nodes,
    pub store: &'a mut Store,
    pub coordinator: &'a mut Coordinator,
    pub groups: &'a mut Groups,
    /// Draws the ids of new topics.
    pub random: &'a mut FastRandom,
}

impl TopicAdmin<'_> {
    /// Creates a topic with empty partitions, unless the request is invalid.
    pub(super) fn create(&mut self, topic: NewTopic) -> Result<(), Refusal> {
        let replicas = self.plan(&topic)?;
        let replication = u16_of(replicas.first().map_or(1, Vec::len));
        let partitions = self.empty_partitions(replicas);
        let id = topic_id(self.random);
        let created = Topic {
            id,
            config: topic.config,
            replication,
            partitions,
        };
        self.store.create(&topic.name, created);
        Ok(())
    }

    fn empty_partitions(&self, replicas: Vec<Vec<NodeId>>) -> Vec<PartitionState> {
        let running = |node| self.nodes.is_running(node);
        let replicas = replicas.into_iter();
        replicas
            .map(|replicas| PartitionState::new(replicas, running))
            .collect()
    }

    /// The replicas of a new topic's partitions, or why the topic can't be created.
    pub(super) fn plan(&self, topic: &NewTopic) -> Result<Vec<Vec<NodeId>>, Refusal> {
        let name = &topic.name;
        TopicName::new(name)
            .map_err(|why| Refusal::new(ResponseError::InvalidTopicException, why))?;
        let topics = self.store.topics();
        if topics.get(name).is_some() {
            let text = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, text));
        }
        if topics.len() >= self.settings.topics_max {
            let text = format!("this broker holds {} topics at most", topics.len());
            return Err(Refusal::new(ResponseError::PolicyViolation, text));
        }
        if !topic.assignment.is_empty() {
            self.nodes.check_assignment(&topic.assignment)?;
            self.check_room(topic.assignment.len())?;
            return Ok(topic.assignment.clone());
        }
        if topic.partitions == 0 {
            let text = "Number of partitions must be larger than 0.";
            return Err(Refusal::new(ResponseError::InvalidPartitions, text));
        }
        self.check_room(topic.partitions as usize)?;
        let replication = self.nodes.replication(topic.replication)?;
        Ok(self.nodes.spread(0..topic.partitions, replication))
    }

    /// Checks that `more` partitions fit.
    fn check_room(&self, more: usize) -> Result<(), Refusal> {
        let max = self.settings.partitions_max;
        if self.store.topics().partitions().saturating_add(more) <= max {
            return Ok(());
        }
        let text = format!("this broker holds {max} partitions at most");
        Err(Refusal::new(ResponseError::PolicyViolation, text))
    }

    /// Adds partitions until the topic has `total`.
    pub(super) fn grow(&mut self, name: &str, total: u32) -> Result<(), Refusal> {
        let replicas = self.plan_growth(name, total)?;
        let partitions = self.empty_partitions(replicas);
        self.store.extend(name, partitions)
    }

    /// The replicas of the added partitions, or why they can't be added.
    pub(super) fn plan_growth(&self, name: &str, total: u32) -> Result<Vec<Vec<NodeId>>, Refusal> {
        let topic = self.store.topics().named(name)?;
        let has = u32_of(topic.partitions.len());
        if total <= has {
            let text = format!("Topic currently has {has} partitions, which is not below {total}.");
            return Err(Refusal::new(ResponseError::InvalidPartitions, text));
        }
        self.check_room((total - has) as usize)?;
        Ok(self.nodes.spread(has..total, topic.replication))
    }

    /// Deletes a topic, its records, its part in transactions, and the offsets of groups.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        let id = self.store.delete(name)?;
        self.coordinator.forget_topic(id);
        self.groups.forget_topic(name);
        Ok(())
    }

    /// Deletes a topic and creates it again, empty, under another topic id.
    pub(super) fn recreate(&mut self, name: &str) -> Result<(), Refusal> {
        let topic = self.store.topics().named(name)?;
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: u32_of(topic.partitions.len()),
            replication: topic.replication,
            assignment: Vec::new(),
            config: topic.config.clone(),
        };
        self.delete(name)?;
        self.create(topic)
    }
}

/// A topic id: a random (v4) UUID, so never one of Kafka's reserved ones.
fn topic_id(random: &mut FastRandom) -> Uuid {
    let bits = u128::from(random.next()) << 64 | u128::from(random.next());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

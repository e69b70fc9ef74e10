//! The records of all topics, and the bytes that they hold together.
//!
//! Every change of a topic, a leader or a log is a method here, so that the count of bytes is right
//! and the long polls are woken.

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::topic_config::TopicConfig;
use super::topics::{PartitionState, Topic, TopicRef, Topics};
use super::{NodeId, Refusal};
use crate::model::Now;

/// The share of `bytes_max` that is freed at once when it is reached: 1/16. Less would mean another
/// search for the oldest batch at every append.
const ROOM_SHARE: usize = 16;

/// All topics with their logs.
#[derive(Debug)]
pub(super) struct Store {
    topics: Topics,
    bytes_max: usize,
    /// Bytes of batches over all partitions.
    bytes: usize,
    /// Batches appended since the start.
    appended: u64,
    changed: bool,
}

impl Store {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            topics: Topics::default(),
            bytes_max,
            bytes: 0,
            appended: 0,
            changed: false,
        }
    }

    pub(super) const fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether anything changed since the last call that can end a long poll.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Adds a topic. The first running replica of each partition leads it.
    pub(super) fn create(&mut self, name: &str, topic: Topic) {
        self.topics.insert(name, topic);
        self.changed = true;
    }

    /// Deletes a topic and its records. Returns its id.
    pub(super) fn delete(&mut self, name: &str) -> Result<Uuid, Refusal> {
        let topic = self.topics.remove(name)?;
        let logs = topic.partitions.iter().map(|p| p.log.bytes());
        self.bytes -= logs.sum::<usize>();
        self.changed = true;
        Ok(topic.id)
    }

    /// Adds partitions to a topic.
    pub(super) fn extend(
        &mut self,
        name: &str,
        partitions: Vec<PartitionState>,
    ) -> Result<(), Refusal> {
        self.topics.named_mut(name)?.partitions.extend(partitions);
        self.changed = true;
        Ok(())
    }

    /// Replaces all configuration keys of a topic.
    pub(super) fn configure(&mut self, name: &str, config: TopicConfig) -> Result<(), Refusal> {
        self.topics.named_mut(name)?.config = config;
        Ok(())
    }

    /// Appends a batch that was validated, or a marker. The caller has made room.
    pub(super) fn append(
        &mut self,
        topic: &TopicRef,
        index: i32,
        bytes: Vec<u8>,
    ) -> Result<i64, ResponseError> {
        let len = bytes.len();
        let partition = self.topics.partition_mut(topic, index)?;
        let base = partition.log.append(bytes, partition.epoch, self.appended);
        self.appended += 1;
        self.bytes += len;
        self.changed = true;
        Ok(base)
    }

    /// Moves a partition's log start. `offset_of` says where to, given the end of the log. Returns
    /// the log start.
    pub(super) fn trim(
        &mut self,
        topic: &TopicRef,
        index: i32,
        offset_of: impl FnOnce(i64) -> i64,
    ) -> Result<i64, ResponseError> {
        let log = &mut self.topics.partition_mut(topic, index)?.log;
        let offset = offset_of(log.end());
        if !(0..=log.end()).contains(&offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.bytes -= log.trim(offset);
        let start = log.start();
        self.changed = true;
        Ok(start)
    }

    /// Makes a node the leader of a partition, cleanly. The node becomes a replica if it was none.
    /// `None` removes the leader.
    pub(super) fn move_leader(
        &mut self,
        topic: &TopicRef,
        index: i32,
        node: Option<NodeId>,
    ) -> Result<(), ResponseError> {
        let partition = self.topics.partition_mut(topic, index)?;
        if let Some(node) = node.filter(|node| !partition.replicas.contains(node)) {
            partition.replicas.push(node);
        }
        partition.elect(node);
        self.changed = true;
        Ok(())
    }

    /// Elects a replica that lacks the newest `lose` records, and with them the rest of their
    /// batches: another running replica if there is one. Returns the new end of the log.
    pub(super) fn elect_uncleanly(
        &mut self,
        topic: &TopicRef,
        index: i32,
        lose: i64,
        running: impl Fn(NodeId) -> bool,
    ) -> Result<i64, ResponseError> {
        let partition = self.topics.partition_mut(topic, index)?;
        let leader = partition.leader;
        let mut replicas = partition.replicas.iter().copied();
        let next = replicas.find(|&node| Some(node) != leader && running(node));
        let before = partition.log.bytes();
        let end = partition.log.end().saturating_sub(lose);
        let end = partition.log.truncate(end);
        self.bytes -= before - partition.log.bytes();
        partition.elect(next.or(leader));
        self.changed = true;
        Ok(end)
    }

    /// Elects the first running replica of every partition with a leader that meets `condition`.
    pub(super) fn elect_where(
        &mut self,
        condition: impl Fn(Option<NodeId>) -> bool,
        running: impl Fn(NodeId) -> bool,
    ) {
        let partitions = self.topics.iter_mut().flat_map(|t| &mut t.partitions);
        for partition in partitions.filter(|p| condition(p.leader)) {
            let mut replicas = partition.replicas.iter().copied();
            let next = replicas.find(|&node| running(node));
            if next != partition.leader {
                partition.elect(next);
            }
        }
        self.changed = true;
    }

    /// Makes room for `len` bytes: compacts first, then drops the oldest batches of topics with
    /// `cleanup.policy=delete`. False if that did not free enough.
    pub(super) fn make_room(&mut self, len: usize, now: Now) -> bool {
        let max = self.bytes_max;
        if self.bytes + len <= max {
            return true;
        }
        let now_ms = now.wall.0;
        self.compact_where(now_ms, |partition, config| {
            config.compact && partition.log.has_dirty_bytes()
        });
        let goal = max.saturating_sub(len).saturating_sub(max / ROOM_SHARE);
        while self.bytes > goal {
            let freed = self.drop_oldest();
            if freed == 0 {
                break;
            }
            self.bytes -= freed;
            self.changed = true;
        }
        self.bytes + len <= max
    }

    fn drop_oldest(&mut self) -> usize {
        let deleting = self.topics.iter_mut().filter(|topic| topic.config.delete);
        let partitions = deleting.flat_map(|topic| &mut topic.partitions);
        partitions
            .filter_map(|p| Some((p.log.oldest()?, p)))
            .min_by_key(|(number, _)| *number)
            .map_or(0, |(_, p)| p.log.drop_oldest())
    }

    /// Compacts all partitions of a topic, whatever its policy is.
    pub(super) fn compact(&mut self, name: &str, now: Now) -> Result<(), Refusal> {
        let topic = self.topics.named_mut(name)?;
        for partition in &mut topic.partitions {
            self.bytes -= partition.log.compact(&topic.config, now.wall.0);
        }
        self.changed = true;
        Ok(())
    }

    /// Applies retention, and compacts the partitions that are dirty enough.
    pub(super) fn upkeep(&mut self, now: Now) {
        let now_ms = now.wall.0;
        let before = self.bytes;
        for topic in self.topics.iter_mut().filter(|topic| topic.config.delete) {
            for partition in &mut topic.partitions {
                self.bytes -= partition.log.apply_retention(&topic.config, now_ms);
            }
        }
        self.compact_where(now_ms, |partition, config| {
            config.compact && partition.log.is_dirty(config)
        });
        self.changed |= self.bytes < before;
    }

    fn compact_where(
        &mut self,
        now_ms: i64,
        condition: impl Fn(&PartitionState, &TopicConfig) -> bool,
    ) {
        for topic in self.topics.iter_mut() {
            for partition in &mut topic.partitions {
                if condition(partition, &topic.config) {
                    self.bytes -= partition.log.compact(&topic.config, now_ms);
                }
            }
        }
    }
}

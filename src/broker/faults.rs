//! Faults and administration by method: what the fleet and the tests do to a cluster. Everything
//! here takes effect at once, and clients notice it as they would at a real cluster. After a fault
//! the driver calls [`Broker::next_writable`] and [`Broker::next_cut`], as after any call.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::batch::{self, Header, Records};
use super::planned_faults::{PlannedError, Right};
use super::topic_admin::NewTopic;
use super::topic_config::TopicConfig;
use super::topics::{PartitionState, TopicRef};
use super::{Broker, DumpedRecord, NodeId, Refusal};
use crate::model::{LeaderEpoch, Offset, Partition, UnixMillis};

/// APIs that [`Broker::fail_next`] can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Produce fails and appends no record.
    Produce,
    /// Produce fails although its records were appended (as NOT_ENOUGH_REPLICAS_AFTER_APPEND says).
    ProduceAfterAppend,
    /// Fetch fails and returns no record.
    Fetch,
    /// ListOffsets fails, for example with OFFSET_NOT_AVAILABLE (KIP-207).
    ListOffsets,
}

impl Broker {
    /// Creates a topic with default replication. `configs` are Kafka's topic keys.
    ///
    /// # Errors
    /// What CreateTopics would answer.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> Result<(), Refusal> {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions,
            replication: 0,
            assignment: Vec::new(),
            config: TopicConfig::new(configs.iter().copied())?,
        };
        self.cluster.topic_admin().create(topic)?;
        self.wake_polls();
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), Refusal> {
        self.cluster.topic_admin().delete(name)?;
        self.wake_polls();
        Ok(())
    }

    /// Deletes a topic and creates it again, empty, under another topic id, with the same
    /// partitions and configuration.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn delete_and_recreate(&mut self, name: &str) -> Result<(), Refusal> {
        self.cluster.topic_admin().recreate(name)?;
        self.wake_polls();
        Ok(())
    }

    /// Adds partitions until the topic has `total`.
    ///
    /// # Errors
    /// What CreatePartitions would answer.
    pub fn add_partitions(&mut self, name: &str, total: u32) -> Result<(), Refusal> {
        self.cluster.topic_admin().grow(name, total)?;
        self.wake_polls();
        Ok(())
    }

    /// Sets (or with `None` resets) one key of a topic's configuration.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION, INVALID_CONFIG.
    pub fn configure(&mut self, name: &str, key: &str, value: Option<&str>) -> Result<(), Refusal> {
        let topic = self.cluster.store.topics().named(name)?;
        let config = topic.config.with(key, value)?;
        self.cluster.store.configure(name, config)
    }

    /// Compacts all partitions of a topic now, below the newest batch of each. The first compaction
    /// that meets a tombstone keeps it. The first compaction more than `delete.retention.ms` after
    /// that removes it.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn compact(&mut self, name: &str) -> Result<(), Refusal> {
        self.cluster.store.compact(name, self.now)?;
        self.wake_polls();
        Ok(())
    }

    /// Moves a partition's log start to `offset`, whatever the topic's policy says.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION, OFFSET_OUT_OF_RANGE.
    pub fn trim(&mut self, name: &str, at: Partition, offset: Offset) -> Result<(), Refusal> {
        let offset = i64::try_from(offset.0).unwrap_or(i64::MAX);
        let topic = TopicRef::Name(name.to_owned());
        let trimmed = self.cluster.store.trim(&topic, index(at), |_end| offset);
        trimmed.map_err(|error| refused(error, name, at))?;
        self.wake_polls();
        Ok(())
    }

    /// Makes `node` the leader of a partition (and a replica, if it was none), cleanly.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION; BROKER_NOT_AVAILABLE if `node` does not run.
    pub fn move_leader(&mut self, name: &str, at: Partition, node: NodeId) -> Result<(), Refusal> {
        if !self.cluster.nodes.is_running(node) {
            return Err(refused(ResponseError::BrokerNotAvailable, name, at));
        }
        self.lead(name, at, Some(node))
    }

    fn lead(&mut self, name: &str, at: Partition, node: Option<NodeId>) -> Result<(), Refusal> {
        let topic = TopicRef::Name(name.to_owned());
        let moved = self.cluster.store.move_leader(&topic, index(at), node);
        moved.map_err(|error| refused(error, name, at))?;
        self.wake_polls();
        Ok(())
    }

    /// Elects a replica that lacks the newest `lose` records, under the next epoch. Whole batches
    /// are lost, so maybe more records. Returns the new end of the partition.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn unclean_election(
        &mut self,
        name: &str,
        at: Partition,
        lose: u64,
    ) -> Result<Offset, Refusal> {
        let topic = TopicRef::Name(name.to_owned());
        let lose = i64::try_from(lose).unwrap_or(i64::MAX);
        let nodes = &self.cluster.nodes;
        let store = &mut self.cluster.store;
        let end = store.elect_uncleanly(&topic, index(at), lose, |node| nodes.is_running(node));
        let end = end.map_err(|error| refused(error, name, at))?;
        self.wake_polls();
        Ok(Offset(end as u64))
    }

    /// Stops a node: its connections are cut, and other replicas lead its partitions, if there are
    /// any.
    pub fn stop_node(&mut self, node: NodeId) {
        if !self.cluster.nodes.stop(node) {
            return;
        }
        self.cluster.sessions.forget_node(node);
        for id in self.connections.of_node(node) {
            self.connections.cut(id);
        }
        self.elect_where(|leader| leader == Some(node));
    }

    /// Starts a stopped node. It leads the partitions without a leader. What it led before it leads
    /// again only if [`Self::move_leader`] says so.
    pub fn start_node(&mut self, node: NodeId) {
        if self.cluster.nodes.start(node) {
            self.elect_where(|leader| leader.is_none());
        }
    }

    /// Freezes a node: it answers nothing, and its connections stay open. It keeps the partitions
    /// that it leads, as in the seconds before a real cluster notices.
    pub fn freeze_node(&mut self, node: NodeId) {
        self.cluster.nodes.freeze(node);
    }

    /// Thaws a frozen node: it answers everything that it was asked meanwhile on connections that
    /// are still open.
    pub fn thaw_node(&mut self, node: NodeId) {
        if self.cluster.nodes.thaw(node) {
            self.connections.on_thaw(node, &mut self.cluster, self.now);
            self.wake_polls();
        }
    }

    /// Cuts every connection of a node. The node keeps running.
    pub fn cut_connections(&mut self, node: NodeId) {
        for id in self.connections.of_node(node) {
            self.connections.cut(id);
        }
    }

    /// Loses the responses to the next `count` Produce requests: the records are appended, and the
    /// connection is cut instead. Requests with errors and those with `acks=0` are not counted.
    pub fn lose_next_produce_responses(&mut self, count: u32) {
        self.cluster.faults.lose_produce_responses(count);
    }

    /// Throttles the next `count` Produce requests: the records are appended and answered at once
    /// with this throttle time, during which the connection is muted (KIP-219).
    pub fn throttle_next_produces(&mut self, count: u32, throttle_ms: u32) {
        self.cluster.faults.throttle_produces(count, throttle_ms);
    }

    /// Delays responses to Produce requests that write to a topic, as slow replicas would. 0 ends
    /// the delay.
    pub fn delay_produces(&mut self, topic: &str, by_ms: u32) {
        self.cluster.faults.delay_produces(topic, by_ms);
    }

    /// Denies a right on a topic to all clients, or grants it again.
    pub fn deny(&mut self, topic: &str, right: Right, denied: bool) {
        self.cluster.faults.deny(topic, right, denied);
        self.wake_polls();
    }

    /// Removes a partition's leader. No leader is elected until [`Self::move_leader`].
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn depose_leader(&mut self, name: &str, at: Partition) -> Result<(), Refusal> {
        self.lead(name, at, None)
    }

    /// Returns `error` for the next `count` partitions that an API is asked for.
    pub fn fail_next(&mut self, api: Failing, error: ResponseError, count: u32) {
        self.plan(None, api, error, count);
    }

    /// Like [`Self::fail_next`], for the partitions of one topic.
    pub fn fail_next_of(&mut self, topic: &str, api: Failing, error: ResponseError, count: u32) {
        self.plan(Some(topic), api, error, count);
    }

    fn plan(&mut self, topic: Option<&str>, api: Failing, error: ResponseError, count: u32) {
        let (api, after) = match api {
            Failing::Produce => (ApiKey::Produce, false),
            Failing::ProduceAfterAppend => (ApiKey::Produce, true),
            Failing::Fetch => (ApiKey::Fetch, false),
            Failing::ListOffsets => (ApiKey::ListOffsets, false),
        };
        self.cluster.faults.plan(PlannedError {
            api,
            topic: topic.map(str::to_owned),
            error,
            after,
            left: count,
        });
        self.wake_polls();
    }

    /// Appends bytes as a batch without validating its records, as a broken or hostile producer at
    /// a careless broker would. The batch's length, magic and offset deltas must be sound. Returns
    /// its base offset.
    ///
    /// # Errors
    /// CORRUPT_MESSAGE if there is not exactly one batch; UNKNOWN_TOPIC_OR_PARTITION.
    pub fn plant(&mut self, name: &str, at: Partition, batch: &[u8]) -> Result<Offset, Refusal> {
        let sound = Header::read(batch).is_some_and(|(header, whole)| {
            whole == batch.len() && header.last_offset_delta >= 0 && !header.is_control()
        });
        if !sound {
            return Err(refused(ResponseError::CorruptMessage, name, at));
        }
        let topic = TopicRef::Name(name.to_owned());
        let base = self.cluster.store.append(&topic, index(at), batch.to_vec());
        let base = base.map_err(|error| refused(error, name, at))?;
        self.wake_polls();
        Ok(Offset(base as u64))
    }

    /// Exactly the records of a partition that a `read_committed` reader from the log start reads:
    /// the truth, for checkers. Batches that can't be decoded are left out.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn dump(&self, name: &str, at: Partition) -> Result<Vec<DumpedRecord>, Refusal> {
        let log = &self.partition(name, at)?.log;
        let stable = log.stable_end();
        let mut all = Vec::new();
        for stored in log.batches().take_while(|b| b.base < stable) {
            let header = stored.header();
            if header.is_control() || log.aborted().cover(&header, stored.base) {
                continue;
            }
            let Some(body) = batch::body(&header, &stored.bytes) else {
                continue;
            };
            for record in Records::new(&body).map_while(Result::ok) {
                let offset = stored.offset(&record);
                if offset < log.start() {
                    continue;
                }
                let own = Bytes::copy_from_slice;
                let headers = record
                    .headers()
                    .map(|(name, value)| (own(name), value.map(own)));
                all.push(DumpedRecord {
                    offset: Offset(offset as u64),
                    epoch: LeaderEpoch(u32::try_from(header.leader_epoch).ok()),
                    timestamp: UnixMillis(header.timestamp(record.timestamp_delta)),
                    key: record.key.map(own),
                    value: record.value.map(own),
                    headers: headers.collect(),
                });
            }
        }
        Ok(all)
    }

    /// A partition's log start, last stable offset, and end, which is its high watermark too.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn bounds(&self, name: &str, at: Partition) -> Result<[Offset; 3], Refusal> {
        let log = &self.partition(name, at)?.log;
        let offsets = [log.start(), log.stable_end(), log.end()];
        Ok(offsets.map(|offset| Offset(offset as u64)))
    }

    /// The leader of a partition, and its epoch.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn leader(
        &self,
        name: &str,
        at: Partition,
    ) -> Result<(Option<NodeId>, LeaderEpoch), Refusal> {
        let partition = self.partition(name, at)?;
        Ok((
            partition.leader,
            LeaderEpoch(u32::try_from(partition.epoch).ok()),
        ))
    }

    /// Elects the first running replica of every partition with a leader that meets `condition`.
    fn elect_where(&mut self, condition: impl Fn(Option<NodeId>) -> bool) {
        let nodes = &self.cluster.nodes;
        let running = |node| nodes.is_running(node);
        self.cluster.store.elect_where(condition, running);
        self.wake_polls();
    }

    fn partition(&self, name: &str, at: Partition) -> Result<&PartitionState, Refusal> {
        let topic = TopicRef::Name(name.to_owned());
        let found = self.cluster.store.topics().partition(&topic, index(at));
        found
            .map(|(_, partition)| partition)
            .map_err(|error| refused(error, name, at))
    }
}

/// A partition's number on the wire.
fn index(at: Partition) -> i32 {
    i32::try_from(at.0).unwrap_or(i32::MAX)
}

fn refused(error: ResponseError, name: &str, at: Partition) -> Refusal {
    Refusal::new(error, format!("{name}/{}", at.0))
}

//! Faults and administration by method: what the fleet and the tests do to a cluster. Everything
//! here takes effect at once; clients learn of it as they would of the real thing. After a drill
//! the driver looks at [`Broker::next_writable`] and [`Broker::next_cut`], as after any call.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::batch::{self, Header, Records};
use super::cluster::{Refuse, Right};
use super::topic_config::TopicConfig;
use super::topics::{PartitionState, TopicRef};
use super::{Broker, DumpedRecord, NodeId, Refusal};
use crate::model::{LeaderEpoch, Offset, Partition, UnixMillis};

/// APIs whose answers can be made to fail by [`Broker::fail_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Produce, nothing appended.
    Produce,
    /// Produce, the records appended all the same (as NOT_ENOUGH_REPLICAS_AFTER_APPEND says).
    ProduceAfterAppend,
    /// Fetch.
    Fetch,
    /// ListOffsets (OFFSET_NOT_AVAILABLE, KIP-207).
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
        let config = TopicConfig::new(configs.iter().copied())?;
        self.cluster
            .create(name, partitions, 0, Vec::new(), config)?;
        self.settle();
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), Refusal> {
        self.cluster.delete(name)?;
        self.settle();
        Ok(())
    }

    /// Deletes a topic and makes it again under another topic id, with the same partitions and
    /// configuration and no records.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn delete_and_recreate(&mut self, name: &str) -> Result<(), Refusal> {
        let topic = self.cluster.topics.named_mut(name)?;
        let (config, replication) = (topic.config.clone(), topic.replication);
        let partitions = topic.partitions.len() as u32;
        self.cluster.delete(name)?;
        let made = self
            .cluster
            .create(name, partitions, replication, Vec::new(), config);
        made?;
        self.settle();
        Ok(())
    }

    /// Adds partitions until the topic has `total`.
    ///
    /// # Errors
    /// What CreatePartitions would answer.
    pub fn add_partitions(&mut self, name: &str, total: u32) -> Result<(), Refusal> {
        self.cluster.grow(name, total)?;
        self.settle();
        Ok(())
    }

    /// Sets (or with `None` resets) one key of a topic's configuration.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION, INVALID_CONFIG.
    pub fn configure(&mut self, name: &str, key: &str, value: Option<&str>) -> Result<(), Refusal> {
        let topic = self.cluster.topics.named_mut(name)?;
        topic.config = topic.config.with(key, value)?;
        Ok(())
    }

    /// Compacts all partitions of a topic now, below each one's newest batch. Tombstones go with
    /// the first compaction after `delete.retention.ms` since the one that first saw them.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn compact(&mut self, name: &str) -> Result<(), Refusal> {
        self.cluster.compact_topic(name, self.now)?;
        self.settle();
        Ok(())
    }

    /// Moves a partition's log start to `offset`, whatever the topic's policy says.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION, OFFSET_OUT_OF_RANGE.
    pub fn trim(&mut self, name: &str, at: Partition, offset: Offset) -> Result<(), Refusal> {
        let offset = i64::try_from(offset.0).unwrap_or(i64::MAX);
        let topic = TopicRef::Name(name.to_owned());
        let trimmed = self.cluster.trim(&topic, at.0 as i32, offset);
        trimmed.map_err(|error| refused(error, name, at))?;
        self.settle();
        Ok(())
    }

    /// Makes `node` the leader of a partition (and a replica, if it was none), cleanly.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION; BROKER_NOT_AVAILABLE if `node` does not run.
    pub fn move_leader(&mut self, name: &str, at: Partition, node: NodeId) -> Result<(), Refusal> {
        if !self.cluster.runs(node) {
            return Err(refused(ResponseError::BrokerNotAvailable, name, at));
        }
        let partition = self.partition_mut(name, at)?;
        if !partition.replicas.contains(&node) {
            partition.replicas.push(node);
        }
        partition.elect(Some(node));
        self.cluster.changed = true;
        self.settle();
        Ok(())
    }

    /// An unclean election: a replica that lacks the newest `lose` records (whole batches, so maybe
    /// more) leads from now on, under the next epoch. Gives the partition's new end.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn unclean_election(
        &mut self,
        name: &str,
        at: Partition,
        lose: u64,
    ) -> Result<Offset, Refusal> {
        let runs: Vec<NodeId> = self.cluster.running().map(|(id, _)| id).collect();
        let partition = self.partition_mut(name, at)?;
        let others = partition.replicas.iter().copied();
        let mut others =
            others.filter(|node| Some(*node) != partition.leader && runs.contains(node));
        let next = others.next().or(partition.leader);
        let before = partition.log.bytes;
        let lose = i64::try_from(lose).unwrap_or(i64::MAX);
        let end = partition
            .log
            .truncate(partition.log.end().saturating_sub(lose));
        let freed = before - partition.log.bytes;
        partition.elect(next);
        self.cluster.bytes -= freed;
        self.cluster.changed = true;
        self.settle();
        Ok(Offset(end as u64))
    }

    /// A node ends: its connections are cut, other replicas lead its partitions, if there are any.
    pub fn stop_node(&mut self, node: NodeId) {
        let Some(stopped) = self.cluster.node_mut(node) else {
            return;
        };
        stopped.runs = false;
        stopped.frozen = false;
        self.cluster.sessions.forget_node(node);
        for id in self.connections.of_node(node) {
            self.connections.cut(id);
        }
        self.elect_where(|partition| partition.leader == Some(node));
    }

    /// A stopped node runs again; it leads what nobody leads, and what it led before only if moved.
    pub fn start_node(&mut self, node: NodeId) {
        if let Some(started) = self.cluster.node_mut(node) {
            started.runs = true;
            self.elect_where(|partition| partition.leader.is_none());
        }
    }

    /// A node stops answering, its connections stand. It keeps what it leads until something moves
    /// it, as in the seconds before a real cluster notices.
    pub fn freeze_node(&mut self, node: NodeId) {
        if let Some(frozen) = self.cluster.node_mut(node) {
            frozen.frozen = frozen.runs;
        }
    }

    /// A frozen node answers everything it was asked meanwhile, as far as its clients are there.
    pub fn thaw_node(&mut self, node: NodeId) {
        if let Some(thawed) = self.cluster.node_mut(node) {
            thawed.frozen = false;
            self.connections.on_thaw(node, &mut self.cluster, self.now);
            self.settle();
        }
    }

    /// Cuts every connection of a node that runs on.
    pub fn cut_connections(&mut self, node: NodeId) {
        for id in self.connections.of_node(node) {
            self.connections.cut(id);
        }
    }

    /// The next `count` produce requests are appended, but their answers are lost: the connection
    /// is cut instead. Those with errors, and with `acks=0`, are not counted.
    pub fn lose_next_produce_responses(&mut self, count: u32) {
        self.cluster.faults.lose_produce = count;
    }

    /// The next `count` produce requests are appended, answered at once with this throttle time,
    /// and their connections muted for it (KIP-219).
    pub fn throttle_next_produces(&mut self, count: u32, throttle_ms: u32) {
        self.cluster.faults.throttle_produce = count;
        self.cluster.faults.throttle_ms = throttle_ms.min(i32::MAX as u32);
    }

    /// Delays responses to Produce requests that write to a topic, as slow replicas would. 0 ends
    /// the delay.
    pub fn delay_produces(&mut self, topic: &str, by_ms: u32) {
        self.cluster.faults.delay_produce = (by_ms > 0).then(|| (topic.to_owned(), by_ms));
    }

    /// Denies a right on a topic to all clients, or grants it again.
    pub fn deny(&mut self, topic: &str, right: Right, denied: bool) {
        let entry = (topic.to_owned(), right);
        match denied {
            true => self.cluster.faults.denied.insert(entry),
            false => self.cluster.faults.denied.remove(&entry),
        };
        self.cluster.changed = true;
        self.settle();
    }

    /// Removes a partition's leader. No leader is elected until [`Self::move_leader`].
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn depose_leader(&mut self, name: &str, at: Partition) -> Result<(), Refusal> {
        self.partition_mut(name, at)?.elect(None);
        self.cluster.changed = true;
        self.settle();
        Ok(())
    }

    /// The next `count` partitions asked for through an API get `error`.
    pub fn fail_next(&mut self, api: Failing, error: ResponseError, count: u32) {
        self.plan(None, api, error, count);
    }

    /// Like [`Self::fail_next`], for the partitions of one topic.
    pub fn fail_next_of(&mut self, topic: &str, api: Failing, error: ResponseError, count: u32) {
        self.plan(Some(topic), api, error, count);
    }

    fn plan(&mut self, topic: Option<&str>, api: Failing, error: ResponseError, count: u32) {
        let topic = topic.map(str::to_owned);
        let (api, after) = match api {
            Failing::Produce => (ApiKey::Produce, false),
            Failing::ProduceAfterAppend => (ApiKey::Produce, true),
            Failing::Fetch => (ApiKey::Fetch, false),
            Failing::ListOffsets => (ApiKey::ListOffsets, false),
        };
        let left = count;
        let planned = Refuse {
            api,
            topic: topic.clone(),
            error,
            after,
            left,
        };
        self.cluster
            .faults
            .refuse
            .retain(|r| r.api != api || r.after != after || r.topic != topic);
        if count > 0 {
            self.cluster.faults.refuse.push(planned);
        }
        self.cluster.changed = true;
        self.settle();
    }

    /// Appends bytes as a batch without judging its records: what a hostile or broken producer on
    /// a broker that does not look would leave. Its length, magic and offset deltas must be sound.
    /// Gives its base offset.
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
        let base = self.cluster.append(&topic, at.0 as i32, batch.to_vec());
        let base = base.map_err(|error| refused(error, name, at))?;
        self.settle();
        Ok(Offset(base as u64))
    }

    /// The records of a partition that a `read_committed` reader from the log start would see, and
    /// no others: the truth, for checkers. Batches that can't be decoded are left out.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn dump(&self, name: &str, at: Partition) -> Result<Vec<DumpedRecord>, Refusal> {
        let log = &self.partition(name, at)?.log;
        let stable = log.stable_end();
        let mut all = Vec::new();
        for stored in log.batches.iter().take_while(|b| b.base < stable) {
            let header = stored.header();
            if header.is_control() || log.is_aborted(&header, stored.base) {
                continue;
            }
            let Some(body) = batch::body(&header, &stored.bytes) else {
                continue;
            };
            for record in Records::new(&body).map_while(Result::ok) {
                let offset = stored.base + i64::from(record.offset_delta);
                if offset < log.start {
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

    /// A partition's log start, last stable offset and end (its high watermark, too).
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub fn bounds(&self, name: &str, at: Partition) -> Result<[Offset; 3], Refusal> {
        let log = &self.partition(name, at)?.log;
        let offsets = [log.start, log.stable_end(), log.end()];
        Ok(offsets.map(|offset| Offset(offset as u64)))
    }

    /// Who leads a partition, and its epoch.
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

    /// Elects, in every partition that asks for it, its first replica that runs.
    fn elect_where(&mut self, asks: impl Fn(&PartitionState) -> bool) {
        let runs: Vec<NodeId> = self.cluster.running().map(|(id, _)| id).collect();
        for (_, topic) in self.cluster.topics.iter_mut() {
            for partition in topic.partitions.iter_mut().filter(|p| asks(p)) {
                let next = partition.replicas.iter().find(|node| runs.contains(node));
                let next = next.copied();
                if next != partition.leader {
                    partition.elect(next);
                }
            }
        }
        self.cluster.changed = true;
        self.settle();
    }

    fn partition(&self, name: &str, at: Partition) -> Result<&PartitionState, Refusal> {
        let topic = TopicRef::Name(name.to_owned());
        let found = self.cluster.topics.partition(&topic, at.0 as i32);
        found
            .map(|(_, partition)| partition)
            .map_err(|error| refused(error, name, at))
    }

    fn partition_mut(&mut self, name: &str, at: Partition) -> Result<&mut PartitionState, Refusal> {
        let topic = TopicRef::Name(name.to_owned());
        let found = self.cluster.topics.partition_mut(&topic, at.0 as i32);
        found.map_err(|error| refused(error, name, at))
    }
}

fn refused(error: ResponseError, name: &str, at: Partition) -> Refusal {
    Refusal::new(error, format!("{name}/{}", at.0))
}

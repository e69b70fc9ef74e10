//! What leaves a log: retention by time and size, room for new batches, compaction.
//!
//! Kafka works in segments and never touches the newest; here the unit is the batch, and compaction
//! leaves each partition's newest batch as it is. A compacted batch keeps its base offset and last
//! offset delta and is stored without compression. Control batches stay; records of aborted
//! transactions, null keys and overwritten ones go. A batch that can't be decoded stays whole.

use std::collections::BTreeMap;

use super::batch::{self, Header, Records};
use super::cluster::Cluster;
use super::log::{Log, Stored};
use super::topic_config::TopicConfig;
use crate::model::Now;

/// Dirty bytes below which a partition is not compacted by itself.
const DIRTY_BYTES_MIN: usize = 1 << 20;
/// The share of `bytes_max` that is freed at once when it is reached: 1/16.
const ROOM_SHARE: usize = 16;

impl Cluster {
    /// Retention and compaction of every partition that is due for it.
    pub(super) fn upkeep(&mut self, now: Now) {
        let mut freed = 0;
        for (_, topic) in self.topics.iter_mut() {
            let config = &topic.config;
            for partition in &mut topic.partitions {
                let log = &mut partition.log;
                if config.delete {
                    freed += retain(log, config, now.wall.0);
                }
                let dirty = log.bytes - log.clean_bytes;
                let share = dirty as f64 / log.bytes.max(1) as f64;
                if config.compact && dirty >= DIRTY_BYTES_MIN && share >= config.dirty_ratio_min {
                    freed += log.compact(config, now.wall.0);
                }
            }
        }
        self.bytes -= freed;
        self.changed |= freed > 0;
    }

    /// Compacts all partitions of a topic, whatever its policy says.
    pub(super) fn compact_topic(&mut self, name: &str, now: Now) -> Result<(), super::Refusal> {
        let topic = self.topics.named_mut(name)?;
        let mut freed = 0;
        for partition in &mut topic.partitions {
            freed += partition.log.compact(&topic.config, now.wall.0);
        }
        self.bytes -= freed;
        self.changed = true;
        Ok(())
    }

    /// Makes room for `len` bytes: compaction first, then the oldest batches of topics whose policy
    /// is to delete. False: there is no room.
    pub(super) fn make_room(&mut self, len: usize, now: Now) -> bool {
        let max = self.settings.bytes_max;
        if self.bytes + len <= max {
            return true;
        }
        self.compact_all(now);
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

    fn compact_all(&mut self, now: Now) {
        let mut freed = 0;
        for (_, topic) in self.topics.iter_mut() {
            let config = &topic.config;
            for partition in &mut topic.partitions {
                if config.compact && partition.log.bytes > partition.log.clean_bytes {
                    freed += partition.log.compact(config, now.wall.0);
                }
            }
        }
        self.bytes -= freed;
    }

    fn drop_oldest(&mut self) -> usize {
        let deleting = self
            .topics
            .iter_mut()
            .filter(|(_, topic)| topic.config.delete);
        let partitions = deleting.flat_map(|(_, topic)| &mut topic.partitions);
        partitions
            .filter(|p| !p.log.batches.is_empty())
            .min_by_key(|p| p.log.batches[0].number)
            .map_or(0, |p| p.log.drop_oldest())
    }
}

fn retain(log: &mut Log, config: &TopicConfig, now_ms: i64) -> usize {
    let mut freed = 0;
    while let Some(front) = log.batches.front() {
        let old = config.retention_ms >= 0
            && front.max_timestamp < now_ms.saturating_sub(config.retention_ms);
        let big = usize::try_from(config.retention_bytes)
            .is_ok_and(|max| log.bytes - front.bytes.len() >= max);
        if !old && !big {
            break;
        }
        freed += log.drop_oldest();
    }
    freed
}

impl Log {
    /// Keeps the newest record of each key below the newest batch. Gives the bytes freed.
    pub(super) fn compact(&mut self, config: &TopicConfig, now_ms: i64) -> usize {
        let before = self.bytes;
        let cleanable = self.cleanable(config, now_ms);
        let newest = self.newest_by_key(cleanable);
        let mut kept = std::collections::VecDeque::with_capacity(self.batches.len());
        for (i, stored) in std::mem::take(&mut self.batches).into_iter().enumerate() {
            if i >= cleanable {
                kept.push_back(stored);
                continue;
            }
            kept.extend(self.clean(stored, &newest, config, now_ms));
        }
        self.batches = kept;
        self.bytes = self.batches.iter().map(|b| b.bytes.len()).sum();
        let untouched = self.batches.back().map_or(0, |b| b.bytes.len());
        self.clean_bytes = self.bytes - untouched;
        before - self.bytes
    }

    /// How many batches from the front may be compacted.
    fn cleanable(&self, config: &TopicConfig, now_ms: i64) -> usize {
        let stable = self.stable_end();
        let young = now_ms.saturating_sub(config.compaction_lag_min_ms);
        let below_newest = self.batches.len().saturating_sub(1);
        let may = |b: &&Stored| {
            b.last < stable && (config.compaction_lag_min_ms == 0 || b.max_timestamp <= young)
        };
        self.batches
            .iter()
            .take(below_newest)
            .take_while(may)
            .count()
    }

    fn newest_by_key(&self, cleanable: usize) -> BTreeMap<Vec<u8>, i64> {
        let mut newest = BTreeMap::new();
        for stored in self.batches.iter().take(cleanable) {
            let header = stored.header();
            if header.is_control() || self.is_aborted(&header, stored.base) {
                continue;
            }
            let Some(body) = batch::body(&header, &stored.bytes) else {
                continue;
            };
            for record in Records::new(&body).map_while(Result::ok) {
                if let Some(key) = record.key {
                    let offset = stored.base + i64::from(record.offset_delta);
                    newest.insert(key.to_vec(), offset);
                }
            }
        }
        newest
    }

    /// Whether a batch belongs to an aborted transaction.
    pub(super) fn is_aborted(&self, header: &Header, base: i64) -> bool {
        let covers = |a: &super::log::Aborted| {
            a.producer_id == header.producer_id && a.first <= base && base < a.marker
        };
        header.is_transactional() && self.aborted.iter().any(covers)
    }

    /// What a compaction leaves of a batch.
    fn clean(
        &self,
        mut stored: Stored,
        newest: &BTreeMap<Vec<u8>, i64>,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Option<Stored> {
        let header = stored.header();
        if header.is_control() {
            return Some(stored);
        }
        if self.is_aborted(&header, stored.base) {
            return None;
        }
        let Some(body) = batch::body(&header, &stored.bytes) else {
            return Some(stored);
        };
        let Ok(records) = Records::new(&body).collect::<Result<Vec<_>, _>>() else {
            return Some(stored);
        };
        let bury = stored
            .delete_horizon
            .is_some_and(|horizon| now_ms > horizon);
        let base = stored.base;
        let keep = |record: &&batch::RawRecord<'_>| {
            let offset = base + i64::from(record.offset_delta);
            let is_newest = record
                .key
                .is_some_and(|key| newest.get(key) == Some(&offset));
            is_newest && !(bury && record.value.is_none())
        };
        let kept: Vec<_> = records.iter().filter(keep).collect();
        if kept.is_empty() {
            return None;
        }
        let tombstones = kept.iter().any(|record| record.value.is_none());
        let fewer = kept.len() < records.len();
        let less = fewer.then(|| batch::retain(&stored.bytes, kept.iter().map(|r| r.raw)));
        drop(body);
        if let Some(bytes) = less {
            stored.bytes = bytes.into();
        }
        if stored.delete_horizon.is_none() && tombstones {
            stored.delete_horizon = Some(now_ms.saturating_add(config.delete_retention_ms));
        }
        Some(stored)
    }
}

//! Compaction: of each key, only the newest record stays.
//!
//! Kafka works in segments and never touches the newest one. Here the unit is the batch, and each
//! partition's newest batch stays as it is. A compacted batch keeps its base offset and its last
//! offset delta, and is stored without compression. Control batches stay. Records of aborted
//! transactions, records without a key and overwritten records go. A batch that can't be decoded
//! stays whole.

use std::collections::{BTreeMap, VecDeque};

use super::aborted::AbortedTransactions;
use super::batch::{self, RawRecord, Records};
use super::stored::Stored;
use super::topic_config::TopicConfig;

/// One compaction of one partition.
#[derive(Debug)]
pub(super) struct Compaction<'a> {
    pub config: &'a TopicConfig,
    pub aborted: &'a AbortedTransactions,
    /// The last stable offset: what is undecided is not touched.
    pub stable_end: i64,
    pub now_ms: i64,
}

impl Compaction<'_> {
    /// Compacts the batches of a log.
    pub(super) fn run(&self, batches: VecDeque<Stored>) -> VecDeque<Stored> {
        let cleanable = self.cleanable(&batches);
        let newest = self.newest_by_key(batches.iter().take(cleanable));
        let mut kept = VecDeque::with_capacity(batches.len());
        for (i, stored) in batches.into_iter().enumerate() {
            if i < cleanable {
                kept.extend(self.clean(stored, &newest));
            } else {
                kept.push_back(stored);
            }
        }
        kept
    }

    /// How many batches from the front may be compacted.
    fn cleanable(&self, batches: &VecDeque<Stored>) -> usize {
        let lag_ms = self.config.compaction_lag_min_ms;
        let young = self.now_ms.saturating_sub(lag_ms);
        let may =
            |b: &&Stored| b.last < self.stable_end && (lag_ms == 0 || b.max_timestamp <= young);
        let below_newest = batches.len().saturating_sub(1);
        batches.iter().take(below_newest).take_while(may).count()
    }

    /// The offset of the newest record of each key.
    fn newest_by_key<'b>(
        &self,
        batches: impl Iterator<Item = &'b Stored>,
    ) -> BTreeMap<Vec<u8>, i64> {
        let mut newest = BTreeMap::new();
        for stored in batches {
            let header = stored.header();
            if header.is_control() || self.aborted.cover(&header, stored.base) {
                continue;
            }
            let Some(body) = batch::body(&header, &stored.bytes) else {
                continue;
            };
            for record in Records::new(&body).map_while(Result::ok) {
                if let Some(key) = record.key {
                    newest.insert(key.to_vec(), stored.offset(&record));
                }
            }
        }
        newest
    }

    /// What stays of a batch; `None` if nothing does.
    fn clean(&self, mut stored: Stored, newest: &BTreeMap<Vec<u8>, i64>) -> Option<Stored> {
        let header = stored.header();
        if header.is_control() {
            return Some(stored);
        }
        if self.aborted.cover(&header, stored.base) {
            return None;
        }
        let Some(body) = batch::body(&header, &stored.bytes) else {
            return Some(stored);
        };
        let Ok(records) = Records::new(&body).collect::<Result<Vec<_>, _>>() else {
            return Some(stored);
        };
        let horizon = stored.delete_horizon;
        let removes_tombstones = horizon.is_some_and(|horizon| self.now_ms > horizon);
        let keep = |record: &&RawRecord<'_>| {
            let offset = stored.offset(record);
            let newest = record.key.and_then(|key| newest.get(key));
            newest == Some(&offset) && !(removes_tombstones && record.value.is_none())
        };
        let kept: Vec<_> = records.iter().filter(keep).collect();
        if kept.is_empty() {
            return None;
        }
        let has_tombstones = kept.iter().any(|record| record.value.is_none());
        let fewer = kept.len() < records.len();
        let less = fewer.then(|| batch::retain(&stored.bytes, kept.iter().map(|r| r.raw)));
        drop(body);
        if let Some(bytes) = less {
            stored.bytes = bytes.into();
        }
        if stored.delete_horizon.is_none() && has_tombstones {
            let horizon = self.now_ms.saturating_add(self.config.delete_retention_ms);
            stored.delete_horizon = Some(horizon);
        }
        Some(stored)
    }
}

//! One partition's log: whole batches in offset order, the leader epochs that wrote them, the
//! transactions that were aborted in it. Offsets are Kafka's signed ones, never negative here.

use std::collections::VecDeque;

use super::aborted::{Aborted, AbortedTransactions};
use super::batch::{self, Header, Records};
use super::compaction::Compaction;
use super::producers::{Producers, Sequence};
use super::stored::Stored;
use super::topic_config::TopicConfig;

/// Appended bytes below which a partition is not compacted on its own.
const DIRTY_BYTES_MIN: usize = 1 << 20;

/// The log of a partition.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: VecDeque<Stored>,
    start: i64,
    end: i64,
    bytes: usize,
    /// Bytes that the last compaction left. What was appended since is dirty.
    clean_bytes: usize,
    /// Leader epochs and the offset each began at (KIP-101), the oldest first.
    epochs: Vec<(i32, i64)>,
    producers: Producers,
    aborted: AbortedTransactions,
}

/// What a reader asks a log for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadRange {
    pub from: i64,
    /// Only batches that begin below this offset are read.
    pub upto: i64,
    /// Bytes at most, but for `first_whole`.
    pub limit: usize,
    /// Read the first batch whole, however long it is (KIP-74).
    pub first_whole: bool,
    /// Fill up to the limit with the beginning of the next batch.
    pub cut: bool,
}

impl Log {
    /// The log start offset: no record below it can be read.
    pub(super) const fn start(&self) -> i64 {
        self.start
    }

    /// Bytes of all batches, which count towards the store's limit.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batches in offset order.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Stored> {
        self.batches.iter()
    }

    /// Decides what a client's batch is by its producer's sequence numbers.
    pub(super) fn sequence(&self, header: &Header) -> Sequence {
        self.producers.sequence(header)
    }

    /// The transactions that were aborted in this log.
    pub(super) const fn aborted(&self) -> &AbortedTransactions {
        &self.aborted
    }

    /// The offset after the last record. It is also the high watermark, since no follower is
    /// behind.
    pub(super) const fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: below it every transaction is decided.
    pub(super) fn stable_end(&self) -> i64 {
        self.producers.first_open().unwrap_or(self.end)
    }

    /// Appends a whole batch that was judged before. Returns its base offset.
    pub(super) fn append(&mut self, mut bytes: Vec<u8>, epoch: i32, number: u64) -> i64 {
        let base = self.end;
        batch::place(&mut bytes, base, epoch);
        let (header, whole) = Header::read(&bytes).expect("the caller read it");
        assert_eq!(whole, bytes.len(), "the caller compared them");
        self.bytes += whole;
        self.end = base + i64::from(header.last_offset_delta) + 1;
        let stored = Stored {
            base,
            last: self.end - 1,
            max_timestamp: header.max_timestamp,
            bytes: bytes.into(),
            number,
            delete_horizon: None,
        };
        self.remember(&header, &stored);
        self.batches.push_back(stored);
        base
    }

    /// Notes what a batch means for its producer and its transaction.
    fn remember(&mut self, header: &Header, stored: &Stored) {
        self.producers.on_append(header, stored.base);
        if !header.is_control() {
            return;
        }
        let first = self
            .producers
            .on_marker(header.producer_id, header.producer_epoch);
        let commits = batch::marker_commits(&stored.bytes);
        if let (Some(first), Some(false)) = (first, commits) {
            let (producer_id, marker) = (header.producer_id, stored.last);
            self.aborted.push(Aborted {
                producer_id,
                first,
                marker,
            });
        }
    }

    /// Begins a leader epoch at the end of the log.
    pub(super) fn begin_epoch(&mut self, epoch: i32) {
        self.epochs
            .retain(|&(e, start)| e < epoch && start < self.end);
        self.epochs.push((epoch, self.end));
    }

    /// KIP-101: the largest epoch not above `epoch`, and the offset where it ended. `None` if
    /// `epoch` is newer than all epochs of this log.
    pub(super) fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let (latest, _) = *self.epochs.last()?;
        if epoch == latest {
            return Some((latest, self.end));
        }
        let next = self.epochs.iter().position(|&(e, _)| e > epoch)?;
        let ended = self.epochs[next].1;
        let floor = next.checked_sub(1).map_or(epoch, |i| self.epochs[i].0);
        Some((floor, ended))
    }

    /// The epoch of the leader that appended what is at `offset`; -1 if the log can't say.
    pub(super) fn epoch_at(&self, offset: i64) -> i32 {
        let after = self.epochs.partition_point(|&(_, start)| start <= offset);
        after.checked_sub(1).map_or(-1, |i| self.epochs[i].0)
    }

    /// How many bytes [`Self::read`] would copy.
    pub(super) fn size(&self, range: ReadRange) -> usize {
        let mut taken = 0;
        self.visit(range, |_, len| taken += len);
        taken
    }

    /// Copies batches into `out`, the first being the one that holds `range.from` or the next after
    /// it. Returns one past the last offset of the whole batches.
    pub(super) fn read(&self, range: ReadRange, out: &mut Vec<u8>) -> i64 {
        let mut next = range.from;
        self.visit(range, |stored, len| {
            out.extend_from_slice(&stored.bytes[..len]);
            if len == stored.bytes.len() {
                next = stored.last + 1;
            }
        });
        next
    }

    fn visit(&self, range: ReadRange, mut each: impl FnMut(&Stored, usize)) {
        let first = self.batches.partition_point(|b| b.last < range.from);
        let mut left = range.limit;
        for (i, stored) in self.batches.range(first..).enumerate() {
            if stored.base >= range.upto {
                return;
            }
            let len = stored.bytes.len();
            let forced = i == 0 && range.first_whole;
            if len <= left || forced {
                each(stored, len);
                left = left.saturating_sub(len);
                continue;
            }
            // A reader could make nothing of a part that comes first.
            if range.cut && i > 0 && left > 0 {
                each(stored, left);
            }
            return;
        }
    }

    /// The aborted transactions with records in `from..upto`.
    pub(super) fn aborted_in(&self, from: i64, upto: i64) -> impl Iterator<Item = &Aborted> {
        let touches = move |a: &&Aborted| a.marker >= from && a.first < upto;
        self.aborted.iter().filter(touches)
    }

    /// The first record below `upto` with a time at or after `time`: (offset, time). Batches that
    /// can't be decoded count as one record with their own time.
    pub(super) fn at_time(&self, time: i64, upto: i64) -> Option<(i64, i64)> {
        for stored in &self.batches {
            if stored.base >= upto {
                return None;
            }
            if stored.max_timestamp < time || stored.last < self.start {
                continue;
            }
            if let Some(found) = self.within(stored, time) {
                return Some(found);
            }
        }
        None
    }

    fn within(&self, stored: &Stored, time: i64) -> Option<(i64, i64)> {
        let header = stored.header();
        let Some(body) = batch::body(&header, &stored.bytes) else {
            return Some((stored.base.max(self.start), stored.max_timestamp));
        };
        let records = Records::new(&body).map_while(Result::ok);
        records
            .map(|r| {
                let time = header.timestamp(r.timestamp_delta);
                (stored.offset(&r), time)
            })
            .find(|&(offset, at)| at >= time && offset >= self.start)
    }

    /// The record with the highest time below `upto` (KIP-734): (offset, time).
    pub(super) fn newest_time(&self, upto: i64) -> Option<(i64, i64)> {
        let below = self.batches.iter().filter(|b| b.base < upto);
        let newest = below.map(|b| b.max_timestamp).max()?;
        self.at_time(newest, upto)
    }

    /// Moves the log start and drops the batches below it. Returns the bytes freed.
    pub(super) fn trim(&mut self, start: i64) -> usize {
        self.start = self.start.max(start.min(self.end));
        let before = self.bytes;
        while self.batches.front().is_some_and(|b| b.last < self.start) {
            self.drop_front();
        }
        self.forget_below_start();
        before - self.bytes
    }

    /// Drops the batches that the topic's retention no longer keeps. Returns the bytes freed.
    pub(super) fn apply_retention(&mut self, config: &TopicConfig, now_ms: i64) -> usize {
        let mut freed = 0;
        while let Some(front) = self.batches.front() {
            let old = config.retention_ms >= 0
                && front.max_timestamp < now_ms.saturating_sub(config.retention_ms);
            let big = usize::try_from(config.retention_bytes)
                .is_ok_and(|max| self.bytes - front.bytes.len() >= max);
            if !old && !big {
                break;
            }
            freed += self.drop_oldest();
        }
        freed
    }

    /// Whether something was appended since the last compaction.
    pub(super) const fn has_dirty_bytes(&self) -> bool {
        self.bytes > self.clean_bytes
    }

    /// Whether enough was appended since the last compaction for another one.
    pub(super) fn is_dirty(&self, config: &TopicConfig) -> bool {
        let dirty = self.bytes - self.clean_bytes;
        let share = dirty as f64 / self.bytes.max(1) as f64;
        dirty >= DIRTY_BYTES_MIN && share >= config.dirty_ratio_min
    }

    /// Keeps the newest record of each key below the newest batch. Returns the bytes freed.
    pub(super) fn compact(&mut self, config: &TopicConfig, now_ms: i64) -> usize {
        let before = self.bytes;
        let compaction = Compaction {
            config,
            aborted: &self.aborted,
            stable_end: self.stable_end(),
            now_ms,
        };
        self.batches = compaction.run(std::mem::take(&mut self.batches));
        self.bytes = self.batches.iter().map(|b| b.bytes.len()).sum();
        let untouched = self.batches.back().map_or(0, |b| b.bytes.len());
        self.clean_bytes = self.bytes - untouched;
        before - self.bytes
    }

    /// The append number of the oldest batch; `None` if the log is empty.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.batches.front().map(|stored| stored.number)
    }

    /// Drops the oldest batch: the log starts behind it. Returns the bytes freed.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let Some(front) = self.batches.front() else {
            return 0;
        };
        let after = front.last + 1;
        self.trim(after)
    }

    fn drop_front(&mut self) {
        if let Some(gone) = self.batches.pop_front() {
            self.bytes -= gone.bytes.len();
            self.clean_bytes = self.clean_bytes.min(self.bytes);
        }
    }

    fn forget_below_start(&mut self) {
        let start = self.start;
        self.aborted.forget_below(start);
        // The epoch that holds the log start stays; its start moves along (Kafka does the same).
        let holds = self.epochs.partition_point(|&(_, s)| s <= start);
        if holds > 1 {
            self.epochs.drain(..holds - 1);
        }
        if let Some(first) = self.epochs.first_mut() {
            first.1 = first.1.max(start);
        }
    }

    /// Loses every batch with a record at or above `end`, as an unclean election does. Rebuilds
    /// producers and aborted transactions from the remaining batches. Returns the new end.
    pub(super) fn truncate(&mut self, end: i64) -> i64 {
        let end = end.max(self.start);
        while self.batches.back().is_some_and(|b| b.last >= end) {
            let gone = self.batches.pop_back().expect("checked by the loop");
            self.bytes -= gone.bytes.len();
            self.end = gone.base.max(self.start);
        }
        self.clean_bytes = self.clean_bytes.min(self.bytes);
        self.epochs.retain(|&(_, start)| start < self.end);
        self.producers = Producers::default();
        self.aborted = AbortedTransactions::default();
        let batches = std::mem::take(&mut self.batches);
        for stored in &batches {
            self.remember(&stored.header(), stored);
        }
        self.batches = batches;
        self.end
    }
}

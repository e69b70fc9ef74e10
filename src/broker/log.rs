//! One partition's log: whole batches in offset order, the leader epochs that wrote them, the
//! transactions that were aborted in it. Offsets are Kafka's signed ones, never negative here.

use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::{self, Header, Records};
use super::producers::Producers;

/// Aborted transactions remembered per partition; they go with the records they name.
const ABORTED_MAX: usize = 65_536;

/// A batch in the log.
#[derive(Debug)]
pub(super) struct Stored {
    pub base: i64,
    pub last: i64,
    pub max_timestamp: i64,
    pub bytes: Bytes,
    /// Grows with every append in the cluster: which batch is the oldest of all.
    pub number: u64,
    /// When a compaction may remove the tombstones in here; unset before the first one.
    pub delete_horizon: Option<i64>,
}

impl Stored {
    pub(super) fn header(&self) -> Header {
        let (header, _) = Header::read(&self.bytes).expect("only whole batches are stored");
        header
    }
}

/// A transaction whose records readers of committed ones must skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub producer_id: i64,
    pub first: i64,
    pub marker: i64,
}

/// The log of a partition.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) batches: VecDeque<Stored>,
    pub(super) start: i64,
    end: i64,
    pub(super) bytes: usize,
    /// Bytes a compaction left; what came after is dirty.
    pub(super) clean_bytes: usize,
    /// Leader epochs and the offset each began at (KIP-101), the oldest first.
    epochs: Vec<(i32, i64)>,
    pub(super) producers: Producers,
    pub(super) aborted: Vec<Aborted>,
}

/// How much a reader wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    /// From this offset.
    pub from: i64,
    /// Batches that begin below this one.
    pub upto: i64,
    /// Bytes at most.
    pub limit: usize,
    /// The first batch whole, however long it is (KIP-74).
    pub first_whole: bool,
    /// Fill up to the limit with a part of the next batch.
    pub cut: bool,
}

impl Log {
    /// One past the last record; also the high watermark, since no follower is ever behind.
    pub(super) const fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: below it every transaction is decided.
    pub(super) fn stable_end(&self) -> i64 {
        self.producers.first_open().unwrap_or(self.end)
    }

    /// Appends a whole batch that was judged before. Gives its base offset.
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
            if self.aborted.len() > ABORTED_MAX {
                self.aborted.remove(0);
            }
        }
    }

    /// A leader of `epoch` takes over: what it appends begins here.
    pub(super) fn begin_epoch(&mut self, epoch: i32) {
        self.epochs
            .retain(|&(e, start)| e < epoch && start < self.end);
        self.epochs.push((epoch, self.end));
    }

    /// KIP-101: the largest epoch not above `epoch`, and the offset where it ended. `None` for an
    /// epoch this log does not know yet.
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

    /// How many bytes [`Self::read`] would give.
    pub(super) fn size(&self, want: Want) -> usize {
        let mut taken = 0;
        self.visit(want, |_, len| taken += len);
        taken
    }

    /// Copies batches into `out`, the first being the one that holds `want.from` or the next after
    /// it. Gives one past the last offset of the whole batches.
    pub(super) fn read(&self, want: Want, out: &mut Vec<u8>) -> i64 {
        let mut next = want.from;
        self.visit(want, |stored, len| {
            out.extend_from_slice(&stored.bytes[..len]);
            if len == stored.bytes.len() {
                next = stored.last + 1;
            }
        });
        next
    }

    fn visit(&self, want: Want, mut each: impl FnMut(&Stored, usize)) {
        let first = self.batches.partition_point(|b| b.last < want.from);
        let mut left = want.limit;
        for (i, stored) in self.batches.range(first..).enumerate() {
            if stored.base >= want.upto {
                return;
            }
            let len = stored.bytes.len();
            let forced = i == 0 && want.first_whole;
            if len <= left || forced {
                each(stored, len);
                left = left.saturating_sub(len);
                continue;
            }
            // A part is never the first: a reader could make nothing of it.
            if want.cut && i > 0 && left > 0 {
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

    /// The first record below `upto` whose time is at or after `time`: (offset, time). Batches that
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
                let offset = stored.base + i64::from(r.offset_delta);
                (offset, header.timestamp(r.timestamp_delta))
            })
            .find(|&(offset, at)| at >= time && offset >= self.start)
    }

    /// The record with the highest time below `upto` (KIP-734): (offset, time).
    pub(super) fn newest_time(&self, upto: i64) -> Option<(i64, i64)> {
        let below = self.batches.iter().filter(|b| b.base < upto);
        let newest = below.map(|b| b.max_timestamp).max()?;
        self.at_time(newest, upto)
    }

    /// Moves the log start and drops the batches below it. Gives the bytes freed.
    pub(super) fn trim(&mut self, start: i64) -> usize {
        self.start = self.start.max(start.min(self.end));
        let before = self.bytes;
        while self.batches.front().is_some_and(|b| b.last < self.start) {
            self.drop_front();
        }
        self.forget_below_start();
        before - self.bytes
    }

    /// Drops the oldest batch; the log starts behind it. Gives the bytes freed.
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
        self.aborted.retain(|a| a.marker >= start);
        // The epoch that holds the log start stays; its start moves along (Kafka does the same).
        let holds = self.epochs.partition_point(|&(_, s)| s <= start);
        if holds > 1 {
            self.epochs.drain(..holds - 1);
        }
        if let Some(first) = self.epochs.first_mut() {
            first.1 = first.1.max(start);
        }
    }

    /// Loses every batch with a record at or above `end`: what an unclean election does. Producers
    /// and aborted transactions are read again from what is left. Gives the new end.
    pub(super) fn truncate(&mut self, end: i64) -> i64 {
        let end = end.max(self.start);
        while self.batches.back().is_some_and(|b| b.last >= end) {
            let gone = self.batches.pop_back().expect("looked at above");
            self.bytes -= gone.bytes.len();
            self.end = gone.base.max(self.start);
        }
        self.clean_bytes = self.clean_bytes.min(self.bytes);
        self.epochs.retain(|&(_, start)| start < self.end);
        self.producers = Producers::default();
        self.aborted.clear();
        let batches = std::mem::take(&mut self.batches);
        for stored in &batches {
            self.remember(&stored.header(), stored);
        }
        self.batches = batches;
        self.end
    }
}

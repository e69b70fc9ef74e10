//! The slice itself: steps in, entries out.

use std::time::Duration;

use super::entry::{Entry, Lookup};
use crate::log::Step;
use crate::model::{KeyHash, LogTag, Offset, Partition, ShardId, UnixMillis};

/// What a slice is given at its start.
#[derive(Clone, Copy, Debug)]
pub struct SliceSettings {
    /// Whose slice.
    pub me: ShardId,
    /// The first shard that owns keys.
    pub first: ShardId,
    /// How many own keys.
    pub slices: u16,
    /// Memory from which the slice counts as over; see [`Self::bytes_stop`].
    pub bytes_max: usize,
    /// The log's tag, for etags.
    pub tag: LogTag,
    /// How long tombstones stay after they were applied: the topic's `delete.retention.ms`.
    pub tombstone_keep: Duration,
}

impl SliceSettings {
    /// Memory a slice never goes over: a quarter above `bytes_max`. This is what the sum of caps
    /// must count.
    #[must_use]
    pub const fn bytes_stop(&self) -> usize {
        self.bytes_max + self.bytes_max / 4
    }
}

/// Facts to count and to judge the slice by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceStats {
    /// Keys with a live newest record.
    pub entries: usize,
    /// Keys whose newest record is a tombstone.
    pub tombstones: usize,
    /// Memory held: allocations as the allocator rounds them, table and order included.
    pub bytes: usize,
    /// Values not in memory.
    pub unheld: usize,
    /// Keys whose newest record was truncated and not yet read again.
    pub lost: usize,
    /// New keys that found no room, ever. Not zero: the slice is incomplete.
    pub keys_refused: u64,
    /// Records without a key, ever.
    pub null_keys: u64,
    /// Records whose `etag` or `content-type` header can't be used, ever; the entry goes without.
    pub headers_refused: u64,
    /// `bytes` is over `bytes_max`.
    pub over: bool,
}

/// One topic's newest records on one shard.
#[derive(Debug)]
pub struct Slice {}

impl Slice {
    /// An empty slice.
    #[must_use]
    pub fn new(settings: SliceSettings) -> Self {
        todo!()
    }

    /// Applies one step, in order. `now` dates the tombstones. Work: one lookup a record, whatever
    /// the slice's size; a truncation costs what it takes.
    pub fn apply(&mut self, step: &Step, now: UnixMillis) {
        todo!()
    }

    /// Ends the state of loss after a truncation: the home has read the partition again up to the
    /// place of the truncation. Lost keys that no record brought back are gone.
    pub fn on_reread(&mut self, partition: Partition) {
        todo!()
    }

    /// What the slice knows of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8], hash: KeyHash) -> Lookup<'_> {
        todo!()
    }

    /// The newest record of `key`, tombstones too, values held or not; not those lost.
    #[must_use]
    pub fn peek(&self, key: &[u8], hash: KeyHash) -> Option<Entry<'_>> {
        todo!()
    }

    /// Drops tombstones past their keep and entries below the log's start, a bounded number a call.
    /// True: more are due, call again next turn.
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        todo!()
    }

    /// The facts.
    #[must_use]
    pub fn stats(&self) -> SliceStats {
        todo!()
    }
}

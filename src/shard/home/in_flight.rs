//! Steps that are not yet applied everywhere, and the memory they hold. A topic whose steps hold
//! more than its limit is not read until half of that is free.

use std::collections::VecDeque;

use crate::log::{Change, Seq, Step};
use crate::model::{Partition, ShardId};

/// The steps of one topic that some shard has not applied.
#[derive(Debug)]
pub(super) struct InFlight {
    bytes_max: usize,
    /// In the order of their seq.
    steps: VecDeque<Sent>,
    bytes: usize,
    /// Of the bytes, those of each partition's records, by its number.
    bytes_of: Vec<usize>,
    /// What each shard that gets the steps has applied.
    applied: Vec<(ShardId, Seq)>,
}

/// A step that some shard has not applied.
#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: Seq,
    /// The partition of its records, if it has any.
    partition: Option<Partition>,
    bytes: usize,
}

impl InFlight {
    /// Nothing is in flight to these shards.
    pub(super) fn new(bytes_max: usize, shards: impl Iterator<Item = ShardId>) -> Self {
        Self {
            bytes_max,
            steps: VecDeque::new(),
            bytes: 0,
            bytes_of: Vec::new(),
            applied: shards.map(|shard| (shard, Seq(0))).collect(),
        }
    }

    /// Counts a step that is sent now.
    pub(super) fn push(&mut self, step: &Step) {
        let partition = match &step.change {
            Change::Records(batch) | Change::Again(batch) => Some(batch.partition()),
            _ => None,
        };
        let (seq, bytes) = (step.seq, step.bytes_held());
        self.steps.push_back(Sent {
            seq,
            partition,
            bytes,
        });
        self.bytes += bytes;
        if let Some(Partition(number)) = partition {
            let number = number as usize;
            if self.bytes_of.len() <= number {
                self.bytes_of.resize(number + 1, 0);
            }
            self.bytes_of[number] += bytes;
        }
    }

    /// A shard has applied all up to `seq`. `newest` is the last step that was sent.
    pub(super) fn on_applied(&mut self, shard: ShardId, seq: Seq, newest: Seq) {
        if let Some(entry) = self.applied.iter_mut().find(|(s, _)| *s == shard) {
            entry.1 = entry.1.max(seq);
        }
        let everywhere = self.applied.iter().map(|(_, seq)| *seq).min();
        let everywhere = everywhere.unwrap_or(newest);
        while let Some(step) = self.steps.front().copied()
            && step.seq <= everywhere
        {
            self.steps.pop_front();
            self.bytes -= step.bytes;
            if let Some(partition) = step.partition {
                self.bytes_of[partition.0 as usize] -= step.bytes;
            }
        }
    }

    /// Whether every shard has applied every step.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether nothing more may be sent until shards have caught up.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether a paused topic may be read again: half of the limit is free.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes <= self.bytes_max / 2
    }

    /// Memory that the steps hold.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of that, the memory of steps with records of `partition`.
    pub(super) fn bytes_of(&self, partition: Partition) -> usize {
        let bytes = self.bytes_of.get(partition.0 as usize);
        bytes.copied().unwrap_or_default()
    }
}

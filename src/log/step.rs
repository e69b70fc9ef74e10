//! A step: what a home sends to every shard, in order.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Batch, Block, Cut, GapReason};
use crate::model::{Offset, Partition, UnixMillis};

/// A place in the one order of a topic instance, from 1; 0 is before its first step. Numbers of
/// different topics or instances have nothing to do with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// A place of the order, with its change and its events. The home shard makes the step once, and
/// all shards share it.
#[derive(Debug)]
pub struct Step {
    /// This step's place: one more than the step before.
    pub seq: Seq,
    /// The cut once this step is applied; it moves also when the step shows no record (control
    /// batches, compacted-away offsets).
    pub cut: Cut,
    /// When the cut last equalled the log's end, as event ids carry it.
    pub time: UnixMillis,
    /// The oldest step that stays in the window: each shard drops the blocks of the steps below.
    pub oldest: Seq,
    /// The change to the state that shards build from the topic.
    pub change: Change,
    /// The events of this step, one block per encoding of the topic in the order of its route
    /// table; `None` where the step has nothing to show (or no stream uses the topic).
    pub blocks: SmallVec<[Option<Arc<Block>>; 2]>,
}

impl Step {
    /// Memory held until every shard has applied it: the records, the blocks and the cut. Blocks
    /// may stay longer, in the window.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let records = match &self.change {
            Change::Records(batch) | Change::Again(batch) => batch.bytes_held(),
            _ => 0,
        };
        let blocks = self.blocks.iter().flatten();
        let blocks: usize = blocks.map(|block| block.bytes_held()).sum();
        records + blocks + self.cut.bytes_held() + size_of::<Self>()
    }
}

/// What a step does to the state built from the topic.
#[derive(Debug)]
pub enum Change {
    /// Records of one partition, in offset order and all behind those of earlier steps: a log that
    /// was cut back is another instance, with an order of its own.
    Records(Batch),
    /// Records from below the cut, read again for slices that had no room for them. Streams and the
    /// reply index ignore them, and the cut stays.
    Again(Batch),
    /// Nothing but the cut, the time or the window changes.
    Nothing,
    /// Offsets that can't be shown. Every stream of the topic receives a `gap`; nothing else
    /// changes.
    Gap {
        /// The partition of the offsets.
        partition: Partition,
        /// The lowest of the missing offsets.
        from: Offset,
        /// The first offset after them that exists.
        to: Offset,
        /// Why the offsets can't be shown, as the `gap` event says.
        reason: GapReason,
    },
    /// The read of a partition can't pass `from`, where not even the batch's end is known. The cut
    /// stays. Streams emit no gap, since the read resumes if another leader has the batch.
    Stuck {
        /// The partition that can't be read on.
        partition: Partition,
        /// The offset at which its read is stuck.
        from: Offset,
    },
    /// Retention or DeleteRecords removed the offsets below: cached entries there are removed too.
    LogStart {
        /// The partition that lost its oldest records.
        partition: Partition,
        /// The first offset that is still there.
        offset: Offset,
    },
}

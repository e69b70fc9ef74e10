//! Whether what a client holds is in the log that this instance reads. An unclean election cuts a
//! log back, and another leader epoch writes other records there: the log has branches, and clients
//! may hold ids of a lost one. A position (an offset and the epoch of the record before it) is on
//! our branch if our own cut was at or past it in that epoch.

use std::collections::VecDeque;

use crate::log::{Cut, Next};
use crate::model::{LeaderEpoch, Partition};

/// Changes of epoch remembered per partition. A client with an older epoch costs a question to the
/// partition's leader.
const CHANGES_MAX: usize = 8;

/// Where this instance's cut was when epochs changed.
#[derive(Debug, Default)]
pub(super) struct EpochHistory {
    /// Per partition, the cut before each change of epoch, oldest first.
    changes: Vec<VecDeque<Next>>,
}

/// A change of a partition's leader epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct EpochChange {
    partition: Partition,
    /// The cut before the change.
    before: Next,
    after: LeaderEpoch,
}

/// What this instance knows of a position. The greatest of several decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// The position is on our branch, or no broker could tell.
    InLog,
    /// Only the partition's leader knows.
    Unknown,
    /// The position is of a newer epoch than what we have read beyond it, so we are on a lost
    /// branch.
    Diverged,
}

impl EpochHistory {
    /// The cut moves. Returns the changes of epochs that this brings.
    pub(super) fn on_cut(&mut self, before: &Cut, after: &Cut) -> Vec<EpochChange> {
        let change = |(partition, next): (Partition, Next)| {
            let before = before.get(partition);
            let after = next.epoch;
            (before.epoch != after).then_some(EpochChange {
                partition,
                before,
                after,
            })
        };
        let changed: Vec<EpochChange> = after.iter().filter_map(change).collect();
        for change in changed.iter().filter(|it| it.before.epoch.0.is_some()) {
            let index = change.partition.0 as usize;
            if index >= self.changes.len() {
                self.changes.resize_with(index + 1, VecDeque::new);
            }
            let changes = &mut self.changes[index];
            changes.push_back(change.before);
            if changes.len() > CHANGES_MAX {
                changes.pop_front();
            }
        }
        changed
    }

    /// The verdict on all that a client holds.
    pub(super) fn verdict(&self, ours: &Cut, held: &Cut) -> Verdict {
        let each = held.iter();
        let each = each.map(|(p, held)| self.verdict_in(p, ours.get(p), held));
        each.max().unwrap_or(Verdict::InLog)
    }

    /// The positions about which the leaders must be asked.
    pub(super) fn unknown(&self, ours: &Cut, held: &Cut) -> Vec<(Partition, Next)> {
        let unknown = |(p, held): &(Partition, Next)| {
            self.verdict_in(*p, ours.get(*p), *held) == Verdict::Unknown
        };
        held.iter().filter(unknown).collect()
    }

    fn verdict_in(&self, partition: Partition, ours: Next, held: Next) -> Verdict {
        let (Some(epoch), true) = (held.epoch.0, held.offset.0 > 0) else {
            return Verdict::InLog;
        };
        match ours.epoch.0 {
            None => Verdict::Unknown,
            // The client is ahead of us: we may be behind, or the log has been cut off there.
            Some(_) if held.offset > ours.offset => Verdict::Unknown,
            Some(ours) if epoch == ours => Verdict::InLog,
            // At our own position, the id may have been made before any record of its epoch.
            Some(newest) if epoch > newest && held.offset == ours.offset => Verdict::InLog,
            Some(newest) if epoch > newest => Verdict::Diverged,
            Some(_) => {
                let changes = self.changes.get(partition.0 as usize);
                let passed = |at: &Next| at.epoch == held.epoch && held.offset <= at.offset;
                if changes.is_some_and(|changes| changes.iter().any(passed)) {
                    Verdict::InLog
                } else {
                    Verdict::Unknown
                }
            }
        }
    }
}

impl EpochChange {
    /// Whether what a client holds may be cut off by this change. Example: at offset 100 a
    /// partition's epoch changes from 3 to 4. A client that holds records up to 120 of epoch 3 may
    /// hold 20 that the new leader never had. A client that holds records up to 90 does not, nor
    /// does a client that got the records up to 120 in epoch 4.
    pub(super) fn may_cut_off(&self, held: &Cut) -> bool {
        let held = held.get(self.partition);
        let is_ahead = held.offset > self.before.offset;
        // Without an epoch (before Kafka 0.11) no broker could tell.
        let is_older = held.epoch.0.is_some() && held.epoch.0 < self.after.0;
        is_ahead && is_older
    }

    /// Whether both changes are of one partition.
    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        self.partition == other.partition
    }

    /// Adds a later change of the partition: what either may cut off, both together may.
    pub(super) fn merge(&mut self, later: &Self) {
        if later.before.offset < self.before.offset {
            self.before = later.before;
        }
        self.after = self.after.max(later.after);
    }
}

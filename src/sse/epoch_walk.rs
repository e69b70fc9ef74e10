//! The walk over the subscribers after a partition's leader epoch has changed. Clients that are
//! ahead of this instance may then hold records that the new epoch has cut off.

use super::epochs::EpochChange;
use super::subscriber::Slot;
use crate::log::Cut;

/// Slots that one call of [`EpochWalk::next`]'s caller looks at. A slot without progress of its own
/// costs a few nanoseconds.
pub(super) const EPOCH_SLOTS_MAX: usize = 1024;

/// The changes that not all subscribers were checked against, and how far the walk has come. A
/// subscriber that the walk has not reached is checked before anything else happens to it.
#[derive(Debug, Default)]
pub(super) struct EpochWalk {
    /// At most one change per partition. Empty: the walk has reached every subscriber.
    changes: Vec<EpochChange>,
    next: Slot,
    /// Counts the walks. A subscriber remembers the last walk that it was checked in.
    number: u32,
}

impl EpochWalk {
    /// Epochs have changed: the walk starts over, with the changes that it still had.
    pub(super) fn start(&mut self, changed: Vec<EpochChange>) {
        for new in changed {
            match self.changes.iter_mut().find(|it| it.is_of_same(&new)) {
                Some(known) => known.merge(&new),
                None => self.changes.push(new),
            }
        }
        self.next = 0;
        self.number = self.number.wrapping_add(1);
    }

    /// The next slot to check. `None`: every one of `slots` is checked, which ends the walk.
    pub(super) fn next(&mut self, slots: usize) -> Option<Slot> {
        if self.next as usize >= slots {
            self.changes.clear();
        }
        if self.changes.is_empty() {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Whether a subscriber that was last checked in walk `checked_in` is yet to be checked.
    pub(super) const fn is_due(&self, checked_in: u32) -> bool {
        self.is_walking() && checked_in != self.number
    }

    /// The number of the present walk.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Whether the walk has not reached every subscriber.
    pub(super) const fn is_walking(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether a new epoch may have cut off what a client holds.
    pub(super) fn may_cut_off(&self, held: &Cut) -> bool {
        self.changes.iter().any(|change| change.may_cut_off(held))
    }
}

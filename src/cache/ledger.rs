//! What a slice counts and orders besides the table: kept equal to the slots by taking each slot
//! out before it changes and in again after.

use super::entry::{Slot, Value};
use super::order::{Order, Place};
use crate::model::UnixMillis;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) order: Order,
    pub(super) heap_bytes: usize,
    pub(super) entries: usize,
    pub(super) tombstones: usize,
    pub(super) unheld: usize,
    /// Memory that the unheld values would take.
    pub(super) unheld_bytes: usize,
    /// Values that collections leave out.
    pub(super) left_out: usize,
}

impl Ledger {
    /// Memory of all but the table itself.
    pub(super) fn bytes(&self) -> usize {
        self.order.bytes() + self.heap_bytes
    }

    /// Takes a slot in.
    pub(super) fn count(&mut self, slot: &Slot) {
        let (place, due) = ordered(slot);
        self.heap_bytes += slot.heap_bytes();
        self.order.insert(place, due);
        *self.counter(slot) += 1;
        self.unheld += usize::from(is_unheld(slot));
        self.unheld_bytes += slot.unheld_bytes();
        self.left_out += usize::from(slot.is_left_out());
    }

    /// Takes a slot out.
    pub(super) fn uncount(&mut self, slot: &Slot) {
        let (place, due) = ordered(slot);
        self.heap_bytes -= slot.heap_bytes();
        self.order.remove(place, due);
        *self.counter(slot) -= 1;
        self.unheld -= usize::from(is_unheld(slot));
        self.unheld_bytes -= slot.unheld_bytes();
        self.left_out -= usize::from(slot.is_left_out());
    }

    fn counter(&mut self, slot: &Slot) -> &mut usize {
        match slot.is_tombstone() {
            true => &mut self.tombstones,
            false => &mut self.entries,
        }
    }
}

fn ordered(slot: &Slot) -> (Place, Option<UnixMillis>) {
    let place = Place {
        hash: slot.hash,
        partition: slot.held.partition,
        offset: slot.held.offset,
    };
    let due = match slot.held.value {
        Value::Tombstone(due) => Some(due),
        Value::Held(_) | Value::Unheld(_) => None,
    };
    (place, due)
}

const fn is_unheld(slot: &Slot) -> bool {
    matches!(slot.held.value, Value::Unheld(_))
}

//! Counters and orders of a slice's slots. To keep them equal to the table, the slice removes each
//! slot before it changes and adds it again afterwards.

use super::entry::{Slot, Value};
use super::order::{Order, RecordPosition};
use crate::model::UnixMillis;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) order: Order,
    pub(super) heap_bytes: usize,
    pub(super) entries: usize,
    pub(super) tombstones: usize,
    pub(super) unheld: usize,
    /// Memory that the omitted values would take.
    pub(super) unheld_bytes: usize,
    /// Number of values that collections omit.
    pub(super) left_out: usize,
}

impl Ledger {
    /// Memory of everything but the table itself.
    pub(super) fn bytes(&self) -> usize {
        self.order.bytes() + self.heap_bytes
    }

    /// Adds a slot to the counters and orders.
    pub(super) fn count(&mut self, slot: &Slot) {
        let (place, due) = ordered(slot);
        self.heap_bytes += slot.heap_bytes();
        self.order.insert(place, due);
        *self.counter(slot) += 1;
        self.unheld += usize::from(is_unheld(slot));
        self.unheld_bytes += slot.unheld_bytes();
        self.left_out += usize::from(slot.is_left_out());
    }

    /// Removes a slot from the counters and orders.
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
        if slot.is_tombstone() {
            &mut self.tombstones
        } else {
            &mut self.entries
        }
    }
}

fn ordered(slot: &Slot) -> (RecordPosition, Option<UnixMillis>) {
    let place = RecordPosition {
        hash: slot.hash,
        partition: slot.record.partition,
        offset: slot.record.offset,
    };
    let due = match slot.record.value {
        Value::Tombstone(due) => Some(due),
        Value::Held(_) | Value::Unheld(_) => None,
    };
    (place, due)
}

const fn is_unheld(slot: &Slot) -> bool {
    matches!(slot.record.value, Value::Unheld(_))
}

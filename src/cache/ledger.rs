//! What a slice counts and orders besides the table: kept equal to the slots by taking each slot
//! out before it changes and in again after.

use super::entry::{Held, Slot, State, Value};
use super::order::{Order, Place};
use crate::model::UnixMillis;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) order: Order,
    pub(super) heap_bytes: usize,
    pub(super) entries: usize,
    pub(super) tombstones: usize,
    pub(super) unheld: usize,
    pub(super) lost: usize,
}

impl Ledger {
    /// Memory of all but the table itself.
    pub(super) fn bytes(&self) -> usize {
        self.order.bytes() + self.heap_bytes
    }

    /// Takes a slot in.
    pub(super) fn count(&mut self, slot: &Slot) {
        self.heap_bytes += slot.heap_bytes();
        if let Some((place, due)) = ordered(slot) {
            self.order.insert(place, due);
        }
        *self.counter(&slot.held) += 1;
        self.unheld += usize::from(is_unheld(&slot.held));
    }

    /// Takes a slot out.
    pub(super) fn uncount(&mut self, slot: &Slot) {
        self.heap_bytes -= slot.heap_bytes();
        if let Some((place, due)) = ordered(slot) {
            self.order.remove(place, due);
        }
        *self.counter(&slot.held) -= 1;
        self.unheld -= usize::from(is_unheld(&slot.held));
    }

    fn counter(&mut self, held: &Held) -> &mut usize {
        match (held.state, &held.value) {
            (State::Newest, Value::Tombstone(_)) => &mut self.tombstones,
            (State::Newest, Value::Held(_) | Value::Unheld(_)) => &mut self.entries,
            (State::Lost | State::Rereading, _) => &mut self.lost,
        }
    }
}

fn ordered(slot: &Slot) -> Option<(Place, Option<UnixMillis>)> {
    let held = &slot.held;
    if held.state == State::Lost {
        return None;
    }
    let place = Place {
        hash: slot.hash,
        partition: held.partition,
        offset: held.offset,
    };
    match held.value {
        // One that may yet be replaced by what is read again is not due.
        Value::Tombstone(due) if held.state == State::Newest => Some((place, Some(due))),
        Value::Tombstone(_) | Value::Held(_) | Value::Unheld(_) => Some((place, None)),
    }
}

fn is_unheld(held: &Held) -> bool {
    held.state == State::Newest && matches!(held.value, Value::Unheld(_))
}

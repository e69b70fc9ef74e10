//! When heartbeats are due. They need no timer per subscriber: the slab of subscribers is swept
//! once per interval in 64 parts, so a subscriber's slot is its phase, and the load is even.

use super::request::FeedSettings;
use super::subscriber::Slot;
use crate::model::{Instant, low_u32};

/// Parts of an interval; a slot belongs to part `slot % PARTS`.
const PARTS: u64 = 64;

/// The sweep over the slab.
#[derive(Debug)]
pub(super) struct Heartbeats {
    /// Nanoseconds between two parts: the interval divided by [`PARTS`].
    step_nanos: u64,
    part: u64,
    /// The next slot of the part, counted within the part.
    position: u64,
    /// When the part is due.
    due: Instant,
}

impl Heartbeats {
    pub(super) fn new(settings: &FeedSettings) -> Self {
        let nanos = u64::try_from(settings.heartbeat.as_nanos()).unwrap_or(u64::MAX);
        Self {
            step_nanos: (nanos / PARTS).max(1),
            // The feeds of a shard should not send their heartbeats together.
            part: settings.seed % PARTS,
            position: 0,
            due: Instant::ZERO,
        }
    }

    pub(super) fn on_subscribe(&mut self, others: usize, now: Instant) {
        if others == 0 {
            self.due = self.later(now, 1);
        }
    }

    fn later(&self, from: Instant, parts: u64) -> Instant {
        let nanos = self.step_nanos.saturating_mul(parts);
        Instant::from_nanos(from.as_nanos().saturating_add(nanos))
    }

    fn next_part(&mut self) {
        self.part = (self.part + 1) % PARTS;
        self.position = 0;
        self.due = self.later(self.due, 1);
    }

    /// The next due slot among `slots`.
    pub(super) fn next(&mut self, slots: usize, now: Instant) -> Option<Slot> {
        if self.later(self.due, PARTS) < now {
            self.due = now; // The process was suspended: one round is due, not all.
        }
        while self.due <= now {
            let slot = self.part + self.position * PARTS;
            if slot < slots as u64 {
                self.position += 1;
                return Some(low_u32(slot));
            }
            self.next_part();
        }
        None
    }

    pub(super) fn next_deadline(&self, slots: usize) -> Instant {
        if self.part < slots as u64 {
            self.due
        } else {
            self.later(self.due, PARTS - self.part)
        }
    }
}

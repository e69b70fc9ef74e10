//! The timer wheel of a shard's connections. The wheel is coarse on purpose: a connection has at
//! most a few entries, and arming costs a push. If a deadline moves later, its old entry fires
//! early. The owner keeps the true deadline and arms the wheel again if that has not come yet.

use crate::model::{Instant, index_of};

use super::io::SocketId;

/// A tick is 33.6 ms. A deadline is noticed at most a tick late, and a request may wait for 100 ms
/// past its deadline.
const TICK_SHIFT: u32 = 25;
/// The wheel reaches 17 s ahead. A later deadline fires early and is armed again.
const SLOTS: usize = 512;

/// Wake-ups of connections by time.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<SocketId>>,
    occupied: [u64; SLOTS / 64],
    /// The first tick that has not fired.
    next_tick: u64,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            occupied: [0; SLOTS / 64],
            next_tick: now.as_nanos() >> TICK_SHIFT,
        }
    }

    /// Wakes `socket` at `at` or up to a tick later; earlier if `at` is beyond the wheel's reach.
    /// Returns when. An entry that fires before that is an old one, which the owner ignores.
    pub(super) fn arm(&mut self, at: Instant, socket: SocketId) -> Instant {
        let wanted = (at.as_nanos() >> TICK_SHIFT) + 1;
        let tick = wanted.clamp(self.next_tick, self.next_tick + SLOTS as u64 - 1);
        let slot = index_of(tick) % SLOTS;
        self.slots[slot].push(socket);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        Instant::from_nanos(tick << TICK_SHIFT)
    }

    /// Moves every due entry to `due`.
    pub(super) fn expire(&mut self, now: Instant, due: &mut Vec<SocketId>) {
        let tick = now.as_nanos() >> TICK_SHIFT;
        if tick < self.next_tick {
            return;
        }
        let passed = (tick + 1 - self.next_tick).min(SLOTS as u64);
        for t in self.next_tick..self.next_tick + passed {
            let slot = index_of(t) % SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                due.append(&mut self.slots[slot]);
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.next_tick = tick + 1;
    }

    /// When [`Self::expire`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let start = index_of(self.next_tick) % SLOTS;
        let mut ahead = 0;
        while ahead < SLOTS {
            let slot = (start + ahead) % SLOTS;
            let rest = self.occupied[slot / 64] >> (slot % 64);
            if rest != 0 {
                let tick = self.next_tick + (ahead + rest.trailing_zeros() as usize) as u64;
                return Some(Instant::from_nanos(tick << TICK_SHIFT));
            }
            ahead += 64 - slot % 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn socket(slot: u32) -> SocketId {
        SocketId {
            slot,
            generation: 0,
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn an_entry_fires_once_at_its_time_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(at(0));
        wheel.arm(at(100), socket(1));
        let due_at = wheel.next_deadline().expect("armed");
        assert!(due_at >= at(100) && due_at.since(at(100)).as_nanos() <= 1 << TICK_SHIFT);
        let mut due = Vec::new();
        wheel.expire(at(99), &mut due);
        assert!(due.is_empty());
        wheel.expire(due_at, &mut due);
        assert_eq!(due, [socket(1)]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn what_is_beyond_the_reach_fires_early_and_may_be_armed_again() {
        let mut wheel = Wheel::new(at(0));
        wheel.arm(at(3_600_000), socket(2));
        let first = wheel.next_deadline().expect("armed");
        assert!(first < at(18_000));
        let mut due = Vec::new();
        wheel.expire(first, &mut due);
        assert_eq!(due, [socket(2)]);
    }

    #[test]
    fn a_long_pause_fires_everything() {
        let mut wheel = Wheel::new(at(0));
        for n in 0..1_000 {
            wheel.arm(at(u64::from(n) * 17), socket(n));
        }
        let mut due = Vec::new();
        wheel.expire(at(1_000_000), &mut due);
        assert_eq!(due.len(), 1_000);
        wheel.arm(at(1_000_050), socket(7));
        assert!(wheel.next_deadline().expect("armed") >= at(1_000_050));
    }
}

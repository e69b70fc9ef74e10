//! The entries of an index by time: when they expire, and which are dropped first for lack of
//! memory.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Bug, UnixMillis, is_planted};

/// The number of generations in the window and in the memory. Dropping the oldest one loses this
/// share at once.
pub(super) const GENERATIONS: usize = 16;

/// A time bucket of an index. It is dropped as a whole.
#[derive(Clone, Copy, Debug)]
struct Generation {
    id: u32,
    /// The time it begins; the next begins where it ends.
    from: UnixMillis,
    /// The time of its newest entry: it is dropped when that is past the window.
    newest: UnixMillis,
    entries: usize,
}

/// Counts the entries of each generation, oldest first. The index keeps the entries themselves,
/// each with the id of its generation. An entry is known while its generation is.
#[derive(Debug)]
pub(super) struct Generations {
    window: Duration,
    entries_max: usize,
    /// Ids count up without a gap.
    known: VecDeque<Generation>,
    next_id: u32,
    entries: usize,
    known_from: Option<UnixMillis>,
    cut_from: Option<UnixMillis>,
    cuts: u64,
}

impl Generations {
    pub(super) fn new(window: Duration, entries_max: usize) -> Self {
        Self {
            window,
            entries_max: entries_max.max(GENERATIONS),
            known: VecDeque::new(),
            next_id: 0,
            entries: 0,
            known_from: None,
            cut_from: None,
            cuts: 0,
        }
    }

    /// Sets how long entries are known from now on. Those dropped before are not restored.
    pub(super) const fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Known entries.
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    pub(super) const fn entries_max(&self) -> usize {
        self.entries_max
    }

    /// Entries older than this are not known. `None` if none was dropped yet.
    pub(super) const fn known_from(&self) -> Option<UnixMillis> {
        self.known_from
    }

    /// How often the oldest generation was dropped for lack of memory.
    pub(super) const fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Whether the entries of a generation are still known.
    pub(super) fn contains(&self, id: u32) -> bool {
        self.known.front().is_some_and(|oldest| id >= oldest.id)
    }

    /// Counts an entry of this time. Returns its generation: the newest begins a new one if it is
    /// full or old. `None` if the time is before the window, or the entry would be the first to be
    /// dropped for lack of memory.
    pub(super) fn add(&mut self, time: UnixMillis) -> Option<u32> {
        let index = self.place(time)?;
        if index == 0 && self.entries >= self.entries_max {
            self.on_cut(UnixMillis(time.0.saturating_add(1)));
            return None;
        }
        let generation = &mut self.known[index];
        generation.entries += 1;
        generation.newest = generation.newest.max(time);
        self.entries += 1;
        Some(generation.id)
    }

    /// An entry has left its generation, unless that has been dropped.
    pub(super) fn remove(&mut self, id: u32) {
        let Some(oldest) = self.known.front().map(|g| g.id) else {
            return;
        };
        if let Some(index) = id.checked_sub(oldest) {
            self.known[index as usize].entries -= 1;
            self.entries -= 1;
        }
    }

    /// Drops generations past the window. Returns true if there was one.
    pub(super) fn expire(&mut self, now: UnixMillis) -> bool {
        let early = is_planted(Bug::EarlyGeneration);
        let window = millis(self.window) / if early { 1_000 } else { 1 };
        let past = now.0.saturating_sub(window);
        let mut dropped = false;
        while self.known.front().is_some_and(|g| g.newest.0 <= past) {
            self.drop_oldest();
            dropped = true;
        }
        dropped
    }

    /// Drops the oldest generation if there are more entries than the memory is sufficient for.
    /// Returns true if it did.
    pub(super) fn keep_to_memory(&mut self) -> bool {
        if self.entries <= self.entries_max || self.known.len() <= 1 {
            return false;
        }
        self.cuts += 1;
        self.drop_oldest();
        if let Some(from) = self.known_from {
            self.on_cut(from);
        }
        true
    }

    /// Entries older than `from` are missing for lack of memory.
    pub(super) fn on_cut(&mut self, from: UnixMillis) {
        self.cut_from = self.cut_from.max(Some(from));
    }

    /// The time from which entries are known, if memory has shortened the window. The state ends by
    /// itself when the window has moved past that time.
    pub(super) fn cut(&self, now: UnixMillis) -> Option<UnixMillis> {
        let past = now.0.saturating_sub(millis(self.window));
        self.cut_from.filter(|from| from.0 > past)
    }

    /// The place of the generation of a time. `None` if the time is before the window.
    fn place(&mut self, time: UnixMillis) -> Option<usize> {
        if self.known_from.is_some_and(|from| time < from) {
            return None;
        }
        let newest = self.known.back().copied();
        match newest {
            Some(newest) if time < newest.from => {
                let after = self.known.partition_point(|g| g.from <= time);
                if after == 0 {
                    // Partitions are loaded side by side, so time may go back.
                    self.known[0].from = time;
                }
                Some(after.saturating_sub(1))
            }
            Some(newest) if !self.is_full(newest, time) => Some(self.known.len() - 1),
            _ => {
                let id = self.next_id;
                self.next_id += 1;
                self.known.push_back(Generation {
                    id,
                    from: time,
                    newest: time,
                    entries: 0,
                });
                Some(self.known.len() - 1)
            }
        }
    }

    fn is_full(&self, generation: Generation, time: UnixMillis) -> bool {
        let share = self.entries_max / GENERATIONS;
        let span = millis(self.window) / GENERATIONS as i64;
        generation.entries > share || time.0.saturating_sub(generation.from.0) >= span.max(1)
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.known.pop_front() else {
            return;
        };
        self.entries -= oldest.entries;
        let after = UnixMillis(oldest.newest.0.saturating_add(1));
        // Two generations share a moment if the memory has divided them instead of the time.
        let next = self.known.front().map(|next| next.from);
        let from = next.map_or(after, |next| next.min(after));
        self.known_from = self.known_from.max(Some(from));
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

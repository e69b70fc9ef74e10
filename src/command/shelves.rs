//! The rows of an index by command key: many short sorted arrays. A hash table that doubles is 7/16
//! full at worst, so a row of 48 bytes would take up to 112. An array grows by an eighth, so the
//! same row takes at most 54, and no growth makes a long turn.

use ahash::RandomState;

use crate::model::{CommandKey, in_proportion};

/// A row under a command key. A key may have several.
pub(super) trait Row: Copy {
    fn key(&self) -> CommandKey;
}

/// Rows of an average shelf of a full index. An insertion moves half of them.
const ROWS_PER_SHELF: usize = 64;
/// The free part of a shelf that has just grown.
const GROWTH: usize = 8;
/// Shelves that one call of [`Shelves::sweep`] visits: some thousand rows, a few microseconds.
const SHELVES_PER_SWEEP: usize = 16;

/// The most memory of a row of an index that is at least 1/8 full: the row, the free part of its
/// shelf, and its part of the shelf itself.
pub(super) const fn bytes_per_row<R>() -> usize {
    let with_growth = (size_of::<R>() * (GROWTH + 1)).div_ceil(GROWTH);
    with_growth + size_of::<Vec<R>>().div_ceil(ROWS_PER_SHELF / 8)
}

/// Rows by command key. A row's shelf follows from a hash of its key that clients can't predict, so
/// nobody can fill one shelf only.
#[derive(Debug)]
pub(super) struct Shelves<R> {
    hasher: RandomState,
    /// Each in the order of keys. Rows of one key stay in the order of insertion.
    shelves: Box<[Vec<R>]>,
    rows: usize,
    /// The shelf that is swept next, in turn, and the number of shelves still to sweep.
    next_shelf: usize,
    unswept: usize,
}

impl<R: Row> Shelves<R> {
    /// Shelves for about this many rows.
    pub(super) fn new(rows_max: usize, hasher: RandomState) -> Self {
        let shelves = (rows_max / ROWS_PER_SHELF).max(1);
        Self {
            hasher,
            shelves: std::iter::repeat_with(Vec::new).take(shelves).collect(),
            rows: 0,
            next_shelf: 0,
            unswept: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.rows
    }

    /// The rows of a key.
    pub(super) fn of(&self, key: CommandKey) -> &[R] {
        let shelf = &self.shelves[self.shelf(key)];
        let (from, to) = range(shelf, key);
        &shelf[from..to]
    }

    pub(super) fn of_mut(&mut self, key: CommandKey) -> &mut [R] {
        let shelf = self.shelf(key);
        let shelf = &mut self.shelves[shelf];
        let (from, to) = range(shelf, key);
        &mut shelf[from..to]
    }

    /// Adds a row behind the others of its key.
    pub(super) fn insert(&mut self, row: R) {
        let shelf = self.shelf(row.key());
        let shelf = &mut self.shelves[shelf];
        let (_, at) = range(shelf, row.key());
        if shelf.len() == shelf.capacity() {
            shelf.reserve_exact(spare(shelf.len()));
        }
        shelf.insert(at, row);
        self.rows += 1;
    }

    /// Removes the first row of a key for which `is_it` holds.
    pub(super) fn remove(&mut self, key: CommandKey, is_it: impl Fn(&R) -> bool) -> Option<R> {
        let shelf = self.shelf(key);
        let shelf = &mut self.shelves[shelf];
        let (from, to) = range(shelf, key);
        let at = from + shelf[from..to].iter().position(is_it)?;
        self.rows -= 1;
        let row = shelf.remove(at);
        shrink(shelf);
        Some(row)
    }

    /// Some rows are no longer needed: every shelf is to be swept once more.
    pub(super) fn sweep_all(&mut self) {
        self.unswept = self.shelves.len();
    }

    /// Whether a shelf is still to be swept.
    pub(super) const fn is_unswept(&self) -> bool {
        self.unswept > 0
    }

    /// Frees the rows of a few shelves that do not stay.
    pub(super) fn sweep(&mut self, mut stays: impl FnMut(&R) -> bool) {
        for _ in 0..SHELVES_PER_SWEEP.min(self.unswept) {
            self.unswept -= 1;
            let at = self.next_shelf;
            self.next_shelf = (at + 1) % self.shelves.len();
            let shelf = &mut self.shelves[at];
            let before = shelf.len();
            shelf.retain(&mut stays);
            self.rows -= before - shelf.len();
            shrink(shelf);
        }
    }

    fn shelf(&self, key: CommandKey) -> usize {
        let hash = self.hasher.hash_one(key);
        in_proportion(hash, self.shelves.len())
    }
}

/// Where the rows of a key are, or would be.
fn range<R: Row>(shelf: &[R], key: CommandKey) -> (usize, usize) {
    let order = |key: CommandKey| u128::from_be_bytes(key.0);
    let wanted = order(key);
    let from = shelf.partition_point(|row| order(row.key()) < wanted);
    let same = shelf[from..].iter().take_while(|row| row.key() == key);
    (from, from + same.count())
}

/// The room that a shelf of this length may have free.
const fn spare(len: usize) -> usize {
    let spare = len / GROWTH;
    if spare == 0 { 1 } else { spare }
}

/// Gives back what a shelf has free beyond that.
fn shrink<R>(shelf: &mut Vec<R>) {
    if shelf.capacity() > shelf.len() + spare(shelf.len()) {
        shelf.shrink_to(shelf.len() + spare(shelf.len()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Row for (u8, u16) {
        fn key(&self) -> CommandKey {
            CommandKey([self.0; 16])
        }
    }

    proptest! {
        /// Against a map of lists: rows of a key stay in their order, whatever is removed.
        #[test]
        fn shelves_are_lists_by_key(
            acts in prop::collection::vec((0..4_u8, 0..12_u8), 0..400),
            rows_max in 1..600_usize,
        ) {
            let mut shelves = Shelves::new(rows_max, RandomState::with_seeds(1, 2, 3, 4));
            let mut model: BTreeMap<u8, Vec<(u8, u16)>> = BTreeMap::new();
            for (n, (act, key)) in (0_u16..).zip(acts) {
                let list = model.entry(key).or_default();
                match act {
                    0 | 1 => {
                        shelves.insert((key, n));
                        list.push((key, n));
                    }
                    2 => {
                        let even = |row: &(u8, u16)| row.1.is_multiple_of(2);
                        let at = list.iter().position(even);
                        let removed = at.map(|at| list.remove(at));
                        let it = CommandKey([key; 16]);
                        prop_assert_eq!(shelves.remove(it, even), removed);
                    }
                    _ => {
                        let stays = |row: &(u8, u16)| !row.1.is_multiple_of(3);
                        shelves.sweep_all();
                        while shelves.is_unswept() {
                            shelves.sweep(stays);
                        }
                        model.values_mut().for_each(|list| list.retain(stays));
                    }
                }
                let rows: usize = model.values().map(Vec::len).sum();
                prop_assert_eq!(shelves.len(), rows);
                for (key, list) in &model {
                    prop_assert_eq!(shelves.of(CommandKey([*key; 16])), &list[..]);
                }
                for shelf in &shelves.shelves {
                    prop_assert!(shelf.capacity() <= shelf.len() + spare(shelf.len()));
                }
            }
        }
    }
}

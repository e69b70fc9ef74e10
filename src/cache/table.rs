//! The table of slots by hash: buckets over the slice's range of hashes, each sorted by (hash,
//! key).
//!
//! It grows by splitting *one* bucket at a time (linear hashing, by the top bits instead of the low
//! ones, so that the order of buckets is the order of hashes). Doubling a million keys at once
//! would be a turn of tens of milliseconds. During a round of splits, the buckets before `split`
//! are in `next`, two for each, and the others still in `current`. The table does not shrink.

use std::cmp::Ordering;

use super::entry::Slot;
use crate::model::{KeyHash, in_proportion, index_of};

/// Average entries per bucket at which the next bucket is split.
const LOAD_MAX: usize = 16;
/// Slots that a full bucket gains. It is small, because unused slots waste memory.
const GROW_BY: usize = 4;

/// All slots, in order of (hash, key).
#[derive(Debug)]
pub(super) struct Table {
    /// Number of equal ranges that all hashes are divided into. The position in this table's range
    /// is the low 64 bits of hash × ranges.
    ranges: u16,
    /// The table has 2^bits buckets, not counting splits of this round.
    bits: u32,
    current: Vec<Bucket>,
    next: Vec<Bucket>,
    len: usize,
    /// Memory of the buckets, including unused slots.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    slots: Vec<Slot>,
}

/// Position of a slot, valid until the table changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotIndex {
    bucket: usize,
    index: usize,
}

impl Table {
    pub(super) fn new(ranges: u16) -> Self {
        Self {
            ranges,
            bits: 0,
            current: vec![Bucket::default()],
            next: Vec::new(),
            len: 0,
            bytes: 0,
        }
    }

    /// Memory of the table itself. The caller counts what slots point to.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes + (self.current.capacity() + self.next.capacity()) * size_of::<Bucket>()
    }

    /// Most memory that the next insert may add to `bytes`.
    pub(super) fn insert_bytes(&self) -> usize {
        let round = if self.next.is_empty() && self.len >= self.load_max() {
            2 * self.current.len() * size_of::<Bucket>()
        } else {
            0
        };
        round + 3 * GROW_BY * size_of::<Slot>()
    }

    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<SlotIndex> {
        let bucket = self.bucket_of(hash);
        let slots = &self.bucket(bucket).slots;
        let index = self.position(slots, bucket, hash, key).ok()?;
        Some(SlotIndex { bucket, index })
    }

    /// Finds a slot by its hash and a condition, for orders that do not store the key.
    pub(super) fn find_by(&self, hash: KeyHash, is: impl Fn(&Slot) -> bool) -> Option<SlotIndex> {
        let bucket = self.bucket_of(hash);
        let slots = &self.bucket(bucket).slots;
        let first = self.first(slots, bucket, hash);
        let same = slots[first..].iter().take_while(|slot| slot.hash == hash);
        let index = first + same.into_iter().position(is)?;
        Some(SlotIndex { bucket, index })
    }

    pub(super) fn slot(&self, at: SlotIndex) -> &Slot {
        &self.bucket(at.bucket).slots[at.index]
    }

    pub(super) fn slot_mut(&mut self, at: SlotIndex) -> &mut Slot {
        &mut self.bucket_mut(at.bucket).slots[at.index]
    }

    /// Adds a slot for a key that is not in the table.
    pub(super) fn insert(&mut self, slot: Slot) {
        let number = self.bucket_of(slot.hash);
        let slots = &self.bucket(number).slots;
        let Err(index) = self.position(slots, number, slot.hash, &slot.key) else {
            unreachable!("the caller looked for the key and did not find it");
        };
        let slots = &mut self.bucket_mut(number).slots;
        let before = slots.capacity();
        if slots.len() == before {
            slots.reserve_exact(GROW_BY);
        }
        slots.insert(index, slot);
        self.bytes += (slots.capacity() - before) * size_of::<Slot>();
        self.len += 1;
        if self.len > self.load_max() {
            self.split_one();
        }
    }

    pub(super) fn remove(&mut self, at: SlotIndex) -> Slot {
        let slots = &mut self.bucket_mut(at.bucket).slots;
        let slot = slots.remove(at.index);
        let before = slots.capacity();
        if before - slots.len() >= 4 * GROW_BY {
            slots.shrink_to(slots.len() + GROW_BY);
        }
        let freed = (before - slots.capacity()) * size_of::<Slot>();
        self.bytes -= freed;
        self.len -= 1;
        slot
    }

    /// Slots after (hash, key), or all of them, in order.
    pub(super) fn after(&self, from: Option<(KeyHash, &[u8])>) -> impl Iterator<Item = &Slot> {
        let (bucket, index) = match from {
            None => (0, 0),
            Some((hash, key)) => {
                let bucket = self.bucket_of(hash);
                let slots = &self.bucket(bucket).slots;
                let index = slots.partition_point(|slot| (slot.hash, &*slot.key) <= (hash, key));
                (bucket, index)
            }
        };
        let first = self.bucket(bucket).slots[index..].iter();
        let rest = (bucket + 1..self.buckets()).flat_map(|n| self.bucket(n).slots.iter());
        first.chain(rest)
    }

    /// Splits the next bucket of this round. The last split ends the round.
    fn split_one(&mut self) {
        if self.next.is_empty() {
            // Reserve the whole round at once, so that no split moves existing buckets.
            self.next.reserve_exact(self.current.len() * 2);
        }
        let split = self.next.len() / 2;
        let mut low = std::mem::take(&mut self.current[split].slots);
        let middle = ((split * 2 + 1) as u64) << (64 - self.bits - 1);
        let at = low.partition_point(|slot| place(slot.hash, self.ranges) < middle);
        self.bytes -= low.capacity() * size_of::<Slot>();
        let mut high = Vec::with_capacity(low.len() - at + GROW_BY);
        high.extend(low.drain(at..));
        low.shrink_to(low.len() + GROW_BY);
        self.bytes += (low.capacity() + high.capacity()) * size_of::<Slot>();
        self.next.push(Bucket { slots: low });
        self.next.push(Bucket { slots: high });
        if self.next.len() == self.current.len() * 2 {
            self.current = std::mem::take(&mut self.next);
            self.bits += 1;
        }
    }

    /// Number of slots at which the next bucket is split.
    const fn load_max(&self) -> usize {
        LOAD_MAX * (self.current.len() + self.next.len() / 2)
    }

    /// Number of buckets, in order of hashes: those of `next`, then the unsplit ones of `current`.
    fn buckets(&self) -> usize {
        self.next.len() + self.current.len() - self.next.len() / 2
    }

    fn bucket_of(&self, hash: KeyHash) -> usize {
        let place = place(hash, self.ranges);
        let in_current = top_bits(place, self.bits);
        if in_current < self.next.len() / 2 {
            top_bits(place, self.bits + 1)
        } else {
            in_current + self.next.len() / 2
        }
    }

    /// Index of the key in its bucket, or where it would be inserted.
    fn position(
        &self,
        slots: &[Slot],
        bucket: usize,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<usize, usize> {
        let mut index = self.first(slots, bucket, hash);
        // Two keys with the same hash are possible, but rare.
        while let Some(slot) = slots.get(index).filter(|slot| slot.hash == hash) {
            match (*slot.key).cmp(key) {
                Ordering::Less => index += 1,
                Ordering::Equal => return Ok(index),
                Ordering::Greater => break,
            }
        }
        Err(index)
    }

    /// Index of the first slot with a hash not below `hash`. Hashes are distributed evenly, so a
    /// hash's position in the range predicts its index in the bucket to within about two. Those
    /// slots are neighbours in memory, whereas a binary search would touch the whole bucket.
    fn first(&self, slots: &[Slot], bucket: usize, hash: KeyHash) -> usize {
        let bits = self.bits + u32::from(bucket < self.next.len());
        let within = place(hash, self.ranges) << bits;
        let mut index = in_proportion(within, slots.len());
        while index > 0 && slots[index - 1].hash >= hash {
            index -= 1;
        }
        while slots.get(index).is_some_and(|slot| slot.hash < hash) {
            index += 1;
        }
        index
    }

    fn bucket(&self, number: usize) -> &Bucket {
        match number.checked_sub(self.next.len()) {
            None => &self.next[number],
            Some(past) => &self.current[past + self.next.len() / 2],
        }
    }

    fn bucket_mut(&mut self, number: usize) -> &mut Bucket {
        match number.checked_sub(self.next.len()) {
            None => &mut self.next[number],
            Some(past) => &mut self.current[past + self.next.len() / 2],
        }
    }
}

/// Position of a hash within its owner's range, scaled to 64 bits. It preserves the order.
const fn place(hash: KeyHash, ranges: u16) -> u64 {
    hash.0.wrapping_mul(ranges as u64)
}

const fn top_bits(place: u64, bits: u32) -> usize {
    // A shift of a `u64` by 64 overflows.
    if bits == 0 {
        0
    } else {
        index_of(place >> (64 - bits))
    }
}

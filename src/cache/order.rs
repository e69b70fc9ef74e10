//! The other orders of a slice: entries by offset within their partition, and tombstones by expiry
//! time. Both identify a slot by its hash and position, never by its index in the table, which
//! changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{KeyHash, Offset, Partition, UnixMillis, u32_of};

/// Memory of one entry in a B-tree with half-full nodes, as appending leaves them.
pub(super) const ORDER_BYTES: usize = 40;
/// Additional memory of one tombstone.
const TOMBSTONE_BYTES: usize = 64;

/// Slots by offset, and tombstones by expiry time.
#[derive(Debug, Default)]
pub(super) struct Order {
    partitions: Vec<BTreeMap<Offset, KeyHash>>,
    due: BTreeSet<(UnixMillis, KeyHash, Partition, Offset)>,
    len: usize,
}

/// Identifies a slot by values that do not change while it stores one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordPosition {
    pub(super) hash: KeyHash,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
}

impl Order {
    pub(super) fn bytes(&self) -> usize {
        self.len * ORDER_BYTES + self.due.len() * TOMBSTONE_BYTES
    }

    /// Most memory that an entry adds.
    pub(super) const fn insert_bytes_max() -> usize {
        ORDER_BYTES + TOMBSTONE_BYTES
    }

    /// Adds a slot. `due` is the expiry time of a tombstone.
    pub(super) fn insert(&mut self, place: RecordPosition, due: Option<UnixMillis>) {
        let index = place.partition.0 as usize;
        if index >= self.partitions.len() {
            self.partitions.resize_with(index + 1, BTreeMap::new);
        }
        let entries = &mut self.partitions[index];
        let before = entries.insert(place.offset, place.hash);
        debug_assert_eq!(before, None, "records of a partition come each once");
        self.len += 1;
        if let Some(due) = due {
            let row = (due, place.hash, place.partition, place.offset);
            self.due.insert(row);
        }
    }

    pub(super) fn remove(&mut self, place: RecordPosition, due: Option<UnixMillis>) {
        let removed = self.partitions[place.partition.0 as usize].remove(&place.offset);
        debug_assert_eq!(removed, Some(place.hash), "what is held is in order");
        self.len -= 1;
        if let Some(due) = due {
            let row = (due, place.hash, place.partition, place.offset);
            self.due.remove(&row);
        }
    }

    /// The tombstone that expires first, if it has expired.
    pub(super) fn first_due(&self, now: UnixMillis) -> Option<RecordPosition> {
        let &(due, hash, partition, offset) = self.due.first()?;
        (due <= now).then_some(RecordPosition {
            hash,
            partition,
            offset,
        })
    }

    /// When [`Self::first_due`] next returns a tombstone.
    pub(super) fn next_due(&self) -> Option<UnixMillis> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// The entry of `partition` with the lowest offset.
    pub(super) fn first(&self, partition: Partition) -> Option<RecordPosition> {
        let (&offset, &hash) = self.entries(partition)?.first_key_value()?;
        Some(RecordPosition {
            hash,
            partition,
            offset,
        })
    }

    /// Entries of `partition` from `from` up to but not including `below`, in order.
    pub(super) fn range(
        &self,
        partition: Partition,
        from: Offset,
        below: Offset,
    ) -> impl Iterator<Item = RecordPosition> {
        // `BTreeMap::range` panics if the start is after the end.
        let entries = self.entries(partition).filter(|_| from < below);
        entries
            .into_iter()
            .flat_map(move |entries| entries.range(from..below))
            .map(move |(&offset, &hash)| RecordPosition {
                hash,
                partition,
                offset,
            })
    }

    /// One more than the highest partition that has had an entry.
    pub(super) fn partitions(&self) -> u32 {
        u32_of(self.partitions.len())
    }

    fn entries(&self, partition: Partition) -> Option<&BTreeMap<Offset, KeyHash>> {
        self.partitions.get(partition.0 as usize)
    }
}

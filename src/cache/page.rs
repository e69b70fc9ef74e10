//! Pages: pieces of a slice for collections (by hash) and for streams (by offset), small enough for
//! a turn, with a cursor for the next.

use std::sync::Arc;

use super::entry::{Entry, Slot, Value};
use super::slice::Slice;
use crate::log::Cut;
use crate::model::{Etag, KeyHash, Offset, Partition, UnixMillis};

/// Where a page ends, whichever comes first; at least one entry is shown if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Entries shown.
    pub entries: usize,
    /// Bytes of keys and held values shown.
    pub bytes: usize,
}

/// One entry of a page, free of the slice: it may cross to another shard.
#[derive(Clone, Debug)]
pub struct Item {
    /// The key's hash.
    pub hash: KeyHash,
    /// The key.
    pub key: Box<[u8]>,
    /// The value; a tombstone only in [`Changes`].
    pub value: Value,
    /// The entry's etag.
    pub etag: Etag,
    /// The record's partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
    /// The record's time.
    pub timestamp: UnixMillis,
    /// The record's content type.
    pub content_type: Option<Arc<str>>,
    /// Whether the value may be part of a collection: it is JSON.
    pub listed: bool,
}

/// A piece of a collection.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Live entries in the order of (hash, key), values unheld among them.
    pub items: Vec<Item>,
    /// Give this to the next call; `None`: the slice is through.
    pub next: Option<(KeyHash, Box<[u8]>)>,
    /// The slice is incomplete: values or keys found no room, or an undecodable range of the log
    /// may hold more.
    pub incomplete: bool,
}

/// Where a scan by offset goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeCursor {
    /// The partition being paged.
    pub partition: Partition,
    /// The first offset not yet paged.
    pub offset: Offset,
}

/// A piece of *changes*.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Newest records within the bounds, tombstones too, by partition and offset.
    pub items: Vec<Item>,
    /// Give this to the next call with the same bounds; `None`: the slice is through.
    pub next: Option<ChangeCursor>,
    /// Keys may exist that found no room. Keys in undecodable ranges are reported separately, by
    /// [`Slice::undecodable`].
    pub incomplete: bool,
}

/// Slots a page may pass, shown or not: a run of tombstones must not become a long turn.
const VISITS_MAX: usize = 4096;

impl Slice {
    /// Live entries after `after`, in the order of (hash, key). A key that is live during a whole
    /// scan is in its pages exactly once, however the table grows meanwhile. A page may be empty
    /// and not the last.
    #[must_use]
    pub fn page(&self, after: Option<(KeyHash, &[u8])>, limits: PageLimits) -> Page {
        let mut page = Page {
            incomplete: !self.is_whole(),
            ..Page::default()
        };
        let mut room = Room::new(limits);
        let mut last: Option<&Slot> = None;
        for (visits, slot) in self.table.after(after).enumerate() {
            let shown = self.is_live(slot);
            if visits == VISITS_MAX || shown && !room.take(slot) {
                page.next = last.map(|slot| (slot.hash, slot.key.clone()));
                break;
            }
            if shown {
                page.items.push(Item::of(self.entry(slot)));
            }
            last = Some(slot);
        }
        page
    }

    /// The newest records with `since` ≤ offset < `below`, tombstones too, by partition and offset;
    /// of one key if `key` is given. A key rewritten at or above `below` is no longer in it: the
    /// steps after `below` show it. Nothing else leaves or joins while the same bounds are paged.
    #[must_use]
    pub fn changes(
        &self,
        since: &Cut,
        below: &Cut,
        after: Option<ChangeCursor>,
        key: Option<(KeyHash, &[u8])>,
        limits: PageLimits,
    ) -> Changes {
        let mut changes = Changes {
            incomplete: self.lacks_keys(),
            ..Changes::default()
        };
        let within = |partition, offset| {
            since.get(partition).offset <= offset && offset < below.get(partition).offset
        };
        if let Some((hash, key)) = key {
            let entry = self.peek(key, hash);
            let entry = entry.filter(|e| within(e.partition(), e.offset()));
            changes.items.extend(entry.map(Item::of));
            return changes;
        }
        let mut room = Room::new(limits);
        let first = after.map_or(Partition(0), |cursor| cursor.partition);
        for partition in (first.0..self.ledger.order.partitions()).map(Partition) {
            let from = since.get(partition).offset.max(self.floor(partition));
            let from = match after {
                Some(cursor) if cursor.partition == partition => from.max(cursor.offset),
                _ => from,
            };
            let below = below.get(partition).offset;
            for place in self.ledger.order.range(partition, from, below) {
                let slot = self.table.slot(self.at(place));
                if !room.take(slot) {
                    changes.next = Some(ChangeCursor {
                        partition,
                        offset: place.offset,
                    });
                    return changes;
                }
                changes.items.push(Item::of(self.entry(slot)));
            }
        }
        changes
    }

    fn is_live(&self, slot: &Slot) -> bool {
        !slot.is_tombstone() && !self.is_below_floor(slot)
    }
}

/// What is left of a page.
struct Room {
    left: PageLimits,
    empty: bool,
}

impl Room {
    const fn new(limits: PageLimits) -> Self {
        Self {
            left: limits,
            empty: true,
        }
    }

    /// Takes an entry's room; the first always has it.
    fn take(&mut self, slot: &Slot) -> bool {
        let value = match &slot.held.value {
            Value::Held(bytes) => bytes.len(),
            Value::Unheld(_) | Value::Tombstone(_) => 0,
        };
        let bytes = slot.key.len() + value;
        if !self.empty && (self.left.entries == 0 || self.left.bytes < bytes) {
            return false;
        }
        self.empty = false;
        self.left.entries = self.left.entries.saturating_sub(1);
        self.left.bytes = self.left.bytes.saturating_sub(bytes);
        true
    }
}

impl Item {
    fn of(entry: Entry<'_>) -> Self {
        Self {
            hash: entry.hash(),
            key: entry.key().into(),
            value: entry.value().clone(),
            etag: entry.etag(),
            partition: entry.partition(),
            offset: entry.offset(),
            timestamp: entry.timestamp(),
            content_type: entry.content_type().cloned(),
            listed: entry.is_listed(),
        }
    }
}

//! Pages: pieces of a slice for collections (by hash) and for streams (by offset). Each is small
//! enough for one turn and has a cursor for the next.

use std::sync::Arc;

use super::entry::{Entry, Slot, Value};
use super::slice::Slice;
use crate::log::Cut;
use crate::model::{Etag, KeyHash, Offset, Partition, UnixMillis};

/// Limits of a page. It ends at the first limit, but has at least one entry if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Most entries of the page.
    pub entries: usize,
    /// Most bytes of keys and values in the page.
    pub bytes: usize,
}

/// A copy of one entry of a page, which can be sent to another shard.
#[derive(Clone, Debug)]
pub struct Item {
    /// The hash of the entry's key.
    pub hash: KeyHash,
    /// The key of the entry.
    pub key: Box<[u8]>,
    /// The value. It is a tombstone only in [`Changes`].
    pub value: Value,
    /// The etag of the entry.
    pub etag: Etag,
    /// The partition of the record.
    pub partition: Partition,
    /// The offset of the record.
    pub offset: Offset,
    /// The timestamp of the record.
    pub timestamp: UnixMillis,
    /// The content type of the record.
    pub content_type: Option<Arc<str>>,
    /// Whether the value may be in a collection, because it is JSON.
    pub listed: bool,
}

/// One page of a collection.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Live entries in order of (hash, key), including those without a value in memory.
    pub items: Vec<Item>,
    /// Cursor for the next call. `None` at the end of the slice.
    pub next: Option<(KeyHash, Box<[u8]>)>,
    /// Whether the slice is incomplete: values or keys did not fit, or an undecodable range of the
    /// log may have more.
    pub incomplete: bool,
}

/// Cursor of a scan by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeCursor {
    /// The partition that the scan has reached.
    pub partition: Partition,
    /// The first offset that was not returned yet.
    pub offset: Offset,
}

/// One page of *changes*, by offset.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Newest records within the bounds, including tombstones, by partition and offset.
    pub items: Vec<Item>,
    /// Cursor for the next call with the same bounds. `None` at the end of the slice.
    pub next: Option<ChangeCursor>,
    /// Whether keys may exist that did not fit. Keys in undecodable ranges are reported separately,
    /// by [`Slice::undecodable`].
    pub incomplete: bool,
}

/// Most slots that a page visits, returned or not, so that a run of tombstones does not make a long
/// turn.
const VISITS_MAX: usize = 4096;

impl Slice {
    /// Live entries after `after`, in order of (hash, key). A key that is live during a whole scan
    /// is in exactly one of its pages, however the table grows meanwhile. A page may be empty
    /// without being the last.
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

    /// The newest records with `since` ≤ offset < `below`, including tombstones, by partition and
    /// offset; only those of `key` if it is given. A key that is rewritten at or above `below` is
    /// no longer included: the steps after `below` have it. Nothing else changes while the same
    /// bounds are paged.
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

/// Remaining limits of a page.
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

    /// Counts an entry. Returns false if it does not fit; the first one always fits.
    fn take(&mut self, slot: &Slot) -> bool {
        let value = match &slot.record.value {
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

//! The newest record of a key, as stored in the table and as seen by callers.

use std::sync::Arc;

use crate::model::{Etag, KeyHash, LogTag, Offset, Partition, UnixMillis};

/// A record's value, or the reason why it is not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The value's bytes, in an allocation of their own.
    Held(Arc<[u8]>),
    /// Omitted for lack of memory. The log has it at the entry's position. Its length in bytes.
    Unheld(u32),
    /// The record deletes its key. The tombstone is kept for `tombstone_keep` and removed at this
    /// time.
    Tombstone(UnixMillis),
}

/// A view of the newest record of a key in the slice.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub(super) slot: &'a Slot,
    pub(super) tag: LogTag,
    pub(super) content_type: Option<&'a Arc<str>>,
}

/// The result of a lookup of one key.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The key's newest record, with its value in memory.
    Found(Entry<'a>),
    /// The key's newest record, with its value not in memory. Fetch the record by its position.
    Unheld(Entry<'a>),
    /// The key has no record, or its newest is a tombstone.
    Absent,
    /// The slice may not have the key's newest record: it may be among the keys that did not fit,
    /// or in an undecodable range of the log.
    Unknown,
}

impl<'a> Entry<'a> {
    /// The key of the record.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        &self.slot.key
    }

    /// The hash of the record's key.
    #[must_use]
    pub const fn hash(&self) -> KeyHash {
        self.slot.hash
    }

    /// The record's value, which is cheap to clone.
    #[must_use]
    pub const fn value(&self) -> &'a Value {
        &self.slot.record.value
    }

    /// The etag header of the record, or else `tag-partition-offset`. Built on each call. For an
    /// omitted value it may be the latter although the record has an etag header: use the fetched
    /// record's.
    #[must_use]
    pub fn etag(&self) -> Etag {
        match &self.slot.record.etag {
            Some(etag) => Etag::clone(etag),
            None => Etag::from_position(
                self.tag,
                self.slot.record.partition,
                self.slot.record.offset,
            ),
        }
    }

    /// The partition of the record.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.slot.record.partition
    }

    /// The offset of the record.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.slot.record.offset
    }

    /// The timestamp of the record.
    #[must_use]
    pub const fn timestamp(&self) -> UnixMillis {
        self.slot.record.timestamp
    }

    /// Whether the value may be in the topic's collection, if it has one.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        self.slot.record.listed
    }

    /// The record's `content-type` header, if it has one that HTTP can carry.
    #[must_use]
    pub const fn content_type(&self) -> Option<&'a Arc<str>> {
        self.content_type
    }
}

/// One key in the table: 80 bytes besides the key, the value and an etag header.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: KeyHash,
    pub(super) key: Box<[u8]>,
    pub(super) record: StoredRecord,
}

/// The record that a slot stores.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) value: Value,
    pub(super) etag: Option<Box<Etag>>,
    pub(super) offset: Offset,
    pub(super) timestamp: UnixMillis,
    pub(super) partition: Partition,
    /// Number of the content type in the slice's table.
    pub(super) content_type: u16,
    /// Whether the value may be in a collection. Always true if the topic has no collection.
    pub(super) listed: bool,
}

const _: () = assert!(size_of::<Slot>() <= 80);

impl Slot {
    pub(super) fn is_tombstone(&self) -> bool {
        matches!(self.record.value, Value::Tombstone(_))
    }

    /// Whether the value is in memory and omitted from collections.
    pub(super) fn is_left_out(&self) -> bool {
        matches!(self.record.value, Value::Held(_)) && !self.record.listed
    }

    /// Memory that an omitted value would take. 0 if it is in memory.
    pub(super) fn unheld_bytes(&self) -> usize {
        match self.record.value {
            Value::Unheld(len) => value_bytes(len as usize),
            Value::Held(_) | Value::Tombstone(_) => 0,
        }
    }

    /// Memory that the slot points to.
    pub(super) fn heap_bytes(&self) -> usize {
        let value = match &self.record.value {
            Value::Held(bytes) => value_bytes(bytes.len()),
            Value::Unheld(_) | Value::Tombstone(_) => 0,
        };
        rounded(self.key.len()) + value + self.record.etag.as_ref().map_or(0, |_| ETAG_BYTES)
    }
}

/// Memory of an etag header. Those over 40 bytes, which are rare, are counted too low.
pub(super) const ETAG_BYTES: usize = rounded(size_of::<Etag>());

/// Memory of a value in an `Arc`: two counters and the bytes.
pub(super) const fn value_bytes(len: usize) -> usize {
    rounded(2 * size_of::<usize>() + len)
}

/// Bytes that an allocator with four size classes per doubling (mimalloc, jemalloc) uses for `len`.
pub(super) const fn rounded(len: usize) -> usize {
    match len {
        0 => 0,
        1..=64 => len.next_multiple_of(16),
        _ => len.next_multiple_of(1 << ((len - 1).ilog2() - 2)),
    }
}

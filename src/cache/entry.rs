//! One key's newest record, as the table holds it and as a caller sees it.

use std::sync::Arc;

use crate::model::{Etag, KeyHash, LogTag, Offset, Partition, UnixMillis};

/// A record's value, as far as the slice has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The bytes, in an allocation of their own.
    Held(Arc<[u8]>),
    /// Left out for want of room; the log has it at the entry's position. Its length in bytes.
    Unheld(u32),
    /// The record deletes its key. It stays for `tombstone_keep` and goes at this time.
    Tombstone(UnixMillis),
}

/// The newest record of a key: a view into the slice.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub(super) slot: &'a Slot,
    pub(super) tag: LogTag,
    pub(super) content_type: Option<&'a Arc<str>>,
}

/// What a lookup of one key finds.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The key's newest record, with its value.
    Found(Entry<'a>),
    /// The key's newest record, whose value is not in memory: fetch it by its position.
    Unheld(Entry<'a>),
    /// No record, or its newest is a tombstone.
    Absent,
    /// The slice's knowledge of the key may be out of date. The key, or a newer record of it, may
    /// be among the keys that found no room or in an undecodable range of the log.
    Unknown,
}

impl<'a> Entry<'a> {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        &self.slot.key
    }

    /// The key's hash.
    #[must_use]
    pub const fn hash(&self) -> KeyHash {
        self.slot.hash
    }

    /// The value; cheap to clone.
    #[must_use]
    pub const fn value(&self) -> &'a Value {
        &self.slot.held.value
    }

    /// The record's own etag, else `tag-partition-offset`. Made on call. Of an unheld value it may
    /// be the latter though the record has one: the record fetched says.
    #[must_use]
    pub fn etag(&self) -> Etag {
        match &self.slot.held.etag {
            Some(etag) => Etag::clone(etag),
            None => Etag::from_position(self.tag, self.slot.held.partition, self.slot.held.offset),
        }
    }

    /// The record's partition.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.slot.held.partition
    }

    /// The record's offset.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.slot.held.offset
    }

    /// The record's time.
    #[must_use]
    pub const fn timestamp(&self) -> UnixMillis {
        self.slot.held.timestamp
    }

    /// Whether the value may be part of the topic's collection, if it has one.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        self.slot.held.listed
    }

    /// The record's `content-type` header, if it has one that HTTP can carry.
    #[must_use]
    pub const fn content_type(&self) -> Option<&'a Arc<str>> {
        self.content_type
    }
}

/// What the table holds of a key: 80 bytes beside the key, the value and an own etag.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: KeyHash,
    pub(super) key: Box<[u8]>,
    pub(super) held: StoredRecord,
}

/// The record a slot holds.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) value: Value,
    pub(super) etag: Option<Box<Etag>>,
    pub(super) offset: Offset,
    pub(super) timestamp: UnixMillis,
    pub(super) partition: Partition,
    /// A number of the slice's content types.
    pub(super) content_type: u16,
    /// Whether the value may be part of a collection. Always true if the topic has no collection.
    pub(super) listed: bool,
}

const _: () = assert!(size_of::<Slot>() <= 80);

impl Slot {
    pub(super) fn is_tombstone(&self) -> bool {
        matches!(self.held.value, Value::Tombstone(_))
    }

    /// Whether the value is held and is left out of collections.
    pub(super) fn is_left_out(&self) -> bool {
        matches!(self.held.value, Value::Held(_)) && !self.held.listed
    }

    /// Memory that the value would take if it were held. 0 if it is held.
    pub(super) fn unheld_bytes(&self) -> usize {
        match self.held.value {
            Value::Unheld(len) => value_bytes(len as usize),
            Value::Held(_) | Value::Tombstone(_) => 0,
        }
    }

    /// Memory the slot points to.
    pub(super) fn heap_bytes(&self) -> usize {
        let value = match &self.held.value {
            Value::Held(bytes) => value_bytes(bytes.len()),
            Value::Unheld(_) | Value::Tombstone(_) => 0,
        };
        rounded(self.key.len()) + value + self.held.etag.as_ref().map_or(0, |_| ETAG_BYTES)
    }
}

/// Memory of an etag of a record's own; those over 40 bytes (rare) are counted too low.
pub(super) const ETAG_BYTES: usize = rounded(size_of::<Etag>());

/// Memory of a value: two counts and the bytes.
pub(super) const fn value_bytes(len: usize) -> usize {
    rounded(2 * size_of::<usize>() + len)
}

/// What an allocator with four size classes to a doubling (mimalloc, jemalloc) takes for `len`.
pub(super) const fn rounded(len: usize) -> usize {
    match len {
        0 => 0,
        1..=64 => len.next_multiple_of(16),
        _ => len.next_multiple_of(1 << ((len - 1).ilog2() - 2)),
    }
}

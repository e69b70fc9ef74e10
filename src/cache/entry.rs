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
    /// An unclean election took the key's newest record; what is newest now is being read again.
    Lost,
    /// The slice is incomplete and does not have the key: it may exist.
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
        &self.slot.value
    }

    /// The record's own etag, else `tag-partition-offset`. Made on call.
    #[must_use]
    pub fn etag(&self) -> Etag {
        match &self.slot.etag {
            Some(etag) => Etag::clone(etag),
            None => Etag::from_position(self.tag, self.slot.partition, self.slot.offset),
        }
    }

    /// The record's partition.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.slot.partition
    }

    /// The record's offset.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.slot.offset
    }

    /// The record's time.
    #[must_use]
    pub const fn timestamp(&self) -> UnixMillis {
        self.slot.timestamp
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
    pub(super) value: Value,
    pub(super) etag: Option<Box<Etag>>,
    pub(super) offset: Offset,
    pub(super) timestamp: UnixMillis,
    pub(super) partition: Partition,
    /// Index into the slice's content types, plus one; 0: none.
    pub(super) content_type: u16,
    /// The newest record went with a truncation; what stands here is not it (or not yet).
    pub(super) lost: bool,
}

const _: () = assert!(size_of::<Slot>() <= 80);

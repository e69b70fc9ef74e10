//! Pages: pieces of a slice for collections (by hash) and for streams (by offset), small enough for
//! a turn, with a cursor for the next.

use std::sync::Arc;

use super::entry::{Entry, Value};
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
}

/// A piece of a collection.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Live entries in the order of (hash, key), values unheld among them.
    pub items: Vec<Item>,
    /// Give this to the next call; `None`: the slice is through.
    pub next: Option<(KeyHash, Box<[u8]>)>,
    /// Keys passed over because a truncation took their newest record. Not zero: the collection is
    /// not whole now.
    pub lost: usize,
    /// Keys may exist that the slice could not keep.
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
    /// Keys may exist that the slice could not keep.
    pub incomplete: bool,
}

impl Slice {
    /// Live entries after `after`, in the order of (hash, key). A key that is live during a whole
    /// scan is in its pages exactly once, however the table grows meanwhile.
    #[must_use]
    pub fn page(&self, after: Option<(KeyHash, &[u8])>, limits: PageLimits) -> Page {
        todo!()
    }

    /// The newest records with `since` ≤ offset < `below`, tombstones too, by partition and offset;
    /// of one key if `key` is given. A key rewritten at or above `below` is no longer in it: the
    /// steps after `below` show it.
    #[must_use]
    pub fn changes(
        &self,
        since: &Cut,
        below: &Cut,
        after: Option<ChangeCursor>,
        key: Option<(KeyHash, &[u8])>,
        limits: PageLimits,
    ) -> Changes {
        todo!()
    }
}

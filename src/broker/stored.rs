//! A batch as a log keeps it.

use bytes::Bytes;

use super::batch::{Header, RawRecord};

/// A batch in the log.
#[derive(Debug)]
pub(super) struct Stored {
    pub base: i64,
    pub last: i64,
    pub max_timestamp: i64,
    pub bytes: Bytes,
    /// Grows with every append in the cluster, so the lowest number is the oldest batch of all.
    pub number: u64,
    /// When a compaction may remove the tombstones in here; unset before the first one.
    pub delete_horizon: Option<i64>,
}

impl Stored {
    pub(super) fn header(&self) -> Header {
        let (header, _) = Header::read(&self.bytes).expect("only whole batches are stored");
        header
    }

    /// The offset of a record of this batch.
    pub(super) fn offset(&self, record: &RawRecord<'_>) -> i64 {
        self.base + i64::from(record.offset_delta)
    }
}

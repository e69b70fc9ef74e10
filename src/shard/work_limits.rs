//! Limits of one piece of work, which bound a turn and what it holds.

use crate::cache::PageLimits;
use crate::config::{PAGES_BYTES_MAX, STEP_BYTES_MAX};
use crate::kafka::records::PieceLimits;

/// A piece of a collection or of *changes*: what one turn may spend on one client.
pub(super) const PAGE: PageLimits = PageLimits {
    entries: 256,
    bytes: 64 * 1024,
};

/// The limits that a snapshot is served with. They are constants, and no setting. The simulated
/// fleet makes them smaller by seed, so that a few small records reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// Bytes of one piece of unpacked records.
    pub piece_bytes_max: usize,
    /// Records of one piece of unpacked records.
    pub piece_records_max: usize,
    /// Bytes of the blocks of one step, over all encodings.
    pub step_bytes_max: usize,
    /// Entries of one page of a collection or of *changes*.
    pub page_entries_max: usize,
    /// Bytes of pages of *changes* that the streams of one shard have in memory.
    pub pages_bytes_max: usize,
}

impl Default for WorkLimits {
    fn default() -> Self {
        Self {
            piece_bytes_max: PieceLimits::BYTES,
            piece_records_max: PieceLimits::RECORDS,
            step_bytes_max: STEP_BYTES_MAX,
            page_entries_max: PAGE.entries,
            pages_bytes_max: PAGES_BYTES_MAX,
        }
    }
}

impl WorkLimits {
    /// The limits of one page.
    pub(super) const fn page(&self) -> PageLimits {
        PageLimits {
            entries: self.page_entries_max,
            bytes: PAGE.bytes,
        }
    }
}

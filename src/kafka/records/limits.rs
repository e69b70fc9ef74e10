//! How much one step of a walk does, and how large a piece is.

use super::codec::SCRATCH_BYTES_KEPT;
use super::decode::RECORD_LEN_MIN;
use super::snappy::AT_ONCE_BYTES_MAX;

/// Work of one step, about the nanoseconds it takes.
pub(super) const STEP_WORK_MAX: usize = 64 << 10;
/// Bytes of a checksum that cost as much work as unpacking one byte.
pub(super) const CHECKED_BYTES_PER_WORK: usize = 8;
/// Work of one record beside its bytes.
pub(super) const RECORD_WORK: usize = 32;
/// Work of one batch beside its bytes, whether or not its records show.
pub(super) const BATCH_WORK: usize = 256;
/// Work of beginning to unpack a batch: its decoder's state.
pub(super) const UNPACK_WORK: usize = 2048;

/// Limits of one piece of unpacked records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLimits {
    /// Bytes of records in a piece. A larger record is a piece of its own.
    pub bytes: usize,
    /// The largest number of records in a piece.
    pub records: usize,
    /// Bytes that one batch may unpack to.
    pub batch_bytes: u32,
}

impl PieceLimits {
    /// Bytes of records in a piece: what a step of a topic may have, since an event has at least
    /// the bytes of its record's value.
    pub const BYTES: usize = 256 << 10;
    /// Records in a piece. An event and its index entry take more than 100 bytes, so this hardly
    /// splits what fits a step.
    pub const RECORDS: usize = 2048;

    /// The usual limits, with the setting for a batch.
    #[must_use]
    pub const fn new(batch_bytes: u32) -> Self {
        Self {
            bytes: Self::BYTES,
            records: Self::RECORDS,
            batch_bytes,
        }
    }
}

const _: () = {
    // One more step of unpacking never doubles a piece.
    assert!(STEP_WORK_MAX <= PieceLimits::BYTES);
    // A batch with as many records as a piece may have bytes is still split.
    assert!(PieceLimits::RECORDS < PieceLimits::BYTES / RECORD_LEN_MIN);
    // The buffer of a batch that fits a piece is kept for the next one.
    assert!(PieceLimits::BYTES <= SCRATCH_BYTES_KEPT);
    // A step that decodes as many records as a piece has is no longer than one that unpacks.
    assert!(PieceLimits::RECORDS * RECORD_WORK <= STEP_WORK_MAX);
    // A block of snappy that is unpacked in one call is no more than a step.
    assert!(AT_ONCE_BYTES_MAX <= STEP_WORK_MAX);
    // A step passes over some batches, and not over thousands of tiny ones.
    assert!(STEP_WORK_MAX / (BATCH_WORK + UNPACK_WORK) >= 16);
    assert!(STEP_WORK_MAX / BATCH_WORK <= 1024);
    // Positions within a piece are 32 bits.
    assert!(PieceLimits::BYTES < u32::MAX as usize);
};

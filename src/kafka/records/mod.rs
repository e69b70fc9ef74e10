//! Record batches, format v2 (KIP-98). The reader copies records into pieces and keeps the ranges
//! of their parts ([`crate::log::Batch`]). Every varint and range is checked here, and nowhere
//! else. A batch is read whole or reported whole: half a batch never shows.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

#[cfg(any(test, fuzzing))]
mod check;
mod chunks;
mod codec;
mod cursor;
mod decode;
mod encode;
mod header;
mod limits;
mod snappy;
#[cfg(test)]
mod tests;
mod transactions;
mod walk;

#[cfg(any(test, fuzzing))]
pub use check::{check_any_bytes, check_any_codec};
pub use codec::Unpacker;
pub(crate) use encode::{Sequence, batch_len_max, encode};
pub use limits::PieceLimits;
pub use transactions::Aborted;
pub use walk::{Advance, Fetched, Piece, Walk, WalkProgress, walk};

/// Why records can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The batch's checksum (CRC-32C) differs from its bytes.
    #[error("the batch's checksum does not match its bytes")]
    Checksum,
    /// A message format other than v2.
    #[error("{}", refused_format(*.0))]
    Magic(i8),
    /// A compression codec that Kafka does not define.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// Compressed bytes that do not unpack.
    #[error("the compressed records are corrupt")]
    Compressed,
    /// The batch, decompressed if it was compressed, exceeds the allowed size.
    #[error("the batch has more than {0} bytes of records; raise kafka.batch_bytes_max")]
    TooLarge(u32),
    /// A length or a count that is invalid.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Why a message format is rejected, and what to do.
fn refused_format(magic: i8) -> String {
    match magic {
        0 | 1 => format!(
            "message format {magic}, of before Kafka 0.11, is not read: copy them with a newer \
             producer, or let retention remove them"
        ),
        _ => format!("message format {magic} is unknown: it takes a newer Sluicegate to read it"),
    }
}

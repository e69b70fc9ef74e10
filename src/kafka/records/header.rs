//! The header of a record batch: 61 bytes with the producer of the records and how they are packed.

use super::RecordError;

/// Bytes before the records (KIP-98).
pub(super) const HEADER_LEN: usize = 61;
/// Bytes before what the length field counts: base offset and the length itself.
const PREFIX_LEN: usize = 12;
/// The checksum covers the bytes from here on.
pub(super) const CHECKED_FROM: usize = 21;

/// The fields of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// The offset that the records' deltas are relative to.
    pub(crate) base_offset: u64,
    /// The batch's last offset, whether or not its record is still there.
    pub(crate) last_offset: u64,
    /// The epoch of the leader that appended it. -1 if it is unknown.
    pub(crate) leader_epoch: i32,
    pub(super) crc: u32,
    pub(super) attributes: i16,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(super) records: u32,
    /// Bytes of the whole batch.
    pub(super) len: usize,
}

impl BatchHeader {
    pub(super) const fn codec(&self) -> u8 {
        (self.attributes & 7) as u8
    }

    pub(super) const fn log_append_time(&self) -> bool {
        self.attributes & 8 != 0
    }

    pub(super) const fn transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    pub(super) const fn control(&self) -> bool {
        self.attributes & 0x20 != 0
    }
}

/// What some bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// A complete batch. The checksum is not checked yet.
    Batch(BatchHeader),
    /// A complete message of an older format: its length, and the offset after it.
    Old { magic: i8, len: usize, next: u64 },
    /// The first part of a batch: the broker cut the response at its byte limit.
    Partial,
    /// Bytes that are no batch.
    Nonsense(RecordError),
}

/// Reads the header at the start of `bytes`. The checksum is not checked.
pub(super) fn read_front(bytes: &[u8]) -> Front {
    let malformed = |what| Front::Nonsense(RecordError::Malformed(what));
    if bytes.len() < PREFIX_LEN + 5 {
        return Front::Partial;
    }
    let base = i64::from_be_bytes(array(bytes, 0));
    let length = i32::from_be_bytes(array(bytes, 8));
    let magic = i8::from_be_bytes(array(bytes, 16));
    let Ok(base_offset) = u64::try_from(base) else {
        return malformed("a negative base offset");
    };
    // The shortest old message: checksum, magic, attributes, two lengths.
    let least = if magic == 2 {
        HEADER_LEN - PREFIX_LEN
    } else {
        14
    };
    let Some(length) = usize::try_from(length).ok().filter(|&l| l >= least) else {
        return malformed("a batch shorter than its header");
    };
    let len = PREFIX_LEN + length;
    if bytes.len() < len {
        return Front::Partial;
    }
    match magic {
        2 => {}
        0 | 1 => {
            let next = base_offset + 1;
            return Front::Old { magic, len, next };
        }
        _ => return Front::Nonsense(RecordError::Magic(magic)),
    }
    let delta = i32::from_be_bytes(array(bytes, 23));
    let count = i32::from_be_bytes(array(bytes, 57));
    let (Ok(delta), Ok(records)) = (u64::try_from(delta), u32::try_from(count)) else {
        return malformed("a negative offset delta or record count");
    };
    if base_offset + delta >= i64::MAX as u64 {
        return malformed("offsets beyond 2^63");
    }
    Front::Batch(BatchHeader {
        base_offset,
        last_offset: base_offset + delta,
        leader_epoch: i32::from_be_bytes(array(bytes, 12)),
        crc: u32::from_be_bytes(array(bytes, 17)),
        attributes: i16::from_be_bytes(array(bytes, 21)),
        base_timestamp: i64::from_be_bytes(array(bytes, 27)),
        max_timestamp: i64::from_be_bytes(array(bytes, 35)),
        producer_id: i64::from_be_bytes(array(bytes, 43)),
        records,
        len,
    })
}

/// The `N` bytes at `at`. The caller has compared the length.
#[expect(
    clippy::indexing_slicing,
    reason = "read_front compares the length first"
)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were sliced")
}

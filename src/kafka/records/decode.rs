//! The records of one unpacked batch.

use super::cursor::{Cursor, VARINT_LEN_MAX};
use super::header::BatchHeader;
use crate::log::RecordParts;
use crate::model::{LeaderEpoch, Offset, UnixMillis, u32_of};

/// The fewest bytes of a record: its length, attributes, two deltas, two lengths, header count.
pub(super) const RECORD_LEN_MIN: usize = 7;

/// A position among the records of a batch. Every range is checked here, so that later readers of
/// the records need not check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records {
    at: usize,
    left: u32,
    /// The least delta the next record may have.
    floor: u64,
}

/// A record's lengths do not fit, or its offset does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Misfit;

impl Records {
    /// The first record of the batch.
    pub(super) const fn new(header: &BatchHeader) -> Self {
        let (at, left, floor) = (0, header.records, 0);
        Self { at, left, floor }
    }

    /// Where the next record begins.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The first `len` bytes of the body are gone.
    pub(super) const fn rebase(&mut self, len: usize) {
        self.at = self.at.saturating_sub(len);
    }

    /// Whether all of the next record is in `body`, which may end early. Also true if its length is
    /// invalid or no record is left: [`Self::next`] reports that.
    #[inline]
    pub(super) fn next_is_in(&self, body: &[u8]) -> bool {
        let mut cursor = Cursor {
            bytes: body,
            at: self.at,
        };
        let left = body.len() - self.at;
        match cursor.varint() {
            _ if self.left == 0 => left > 0,
            None => left >= VARINT_LEN_MAX,
            Some(len) => usize::try_from(len).map_or(true, |len| len <= body.len() - cursor.at),
        }
    }

    /// The parts of the next record. Their ranges are relative to the body's start. `None`: that
    /// was the last record, and it ended where the body ends.
    #[inline]
    pub(super) fn next(
        &mut self,
        header: &BatchHeader,
        body: &[u8],
    ) -> Result<Option<RecordParts>, Misfit> {
        if self.left == 0 {
            return if self.at == body.len() {
                Ok(None)
            } else {
                Err(Misfit)
            };
        }
        let parts = self.decode(header, body).ok_or(Misfit)?;
        self.left -= 1;
        Ok(Some(parts))
    }

    #[inline]
    fn decode(&mut self, header: &BatchHeader, body: &[u8]) -> Option<RecordParts> {
        let mut outer = Cursor {
            bytes: body,
            at: self.at,
        };
        let len = outer.varint()?;
        let (start, len) = outer.range(len)?;
        let (start, end) = (start as usize, (start + len) as usize);
        let mut record = Cursor {
            bytes: body.get(..end)?,
            at: start,
        };
        let (parts, delta) = decode_one(header, &mut record)?;
        let last_delta = header.last_offset - header.base_offset;
        if delta < self.floor || delta > last_delta {
            return None; // Offsets grow, and stay within what the header says.
        }
        self.floor = delta + 1;
        self.at = end;
        Some(parts)
    }
}

/// Kafka's -1 means an unknown epoch.
pub(super) fn epoch(raw: i32) -> LeaderEpoch {
    LeaderEpoch(u32::try_from(raw).ok())
}

#[inline]
fn decode_one(header: &BatchHeader, record: &mut Cursor<'_>) -> Option<(RecordParts, u64)> {
    record.range(1)?; // Attributes: unused.
    let time_delta = record.varlong()?;
    let delta = u64::try_from(record.varint()?).ok()?;
    let key = record.nullable()?;
    let value = record.nullable()?;
    let header_count = u32::try_from(record.varint()?).ok()?;
    let headers = u32_of(record.at);
    for _ in 0..header_count {
        let name = record.varint()?;
        record.range(name)?; // Unlike a value, a name is never null.
        record.nullable()?;
    }
    if record.at != record.bytes.len() {
        return None;
    }
    let timestamp = if header.log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(time_delta)
    };
    let parts = RecordParts {
        offset: Offset(header.base_offset + delta),
        timestamp: UnixMillis(timestamp),
        key,
        value,
        headers: (headers, u32_of(record.at) - headers),
        header_count,
    };
    Some((parts, delta))
}

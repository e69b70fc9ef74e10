//! The records of one unpacked batch.

use bytes::Bytes;

use super::RecordError;
use super::cursor::Cursor;
use super::header::BatchHeader;
use crate::log::{BatchBuilder, RecordParts};
use crate::model::{LeaderEpoch, Offset, UnixMillis};

/// The fewest bytes a record has: its length, attributes, two deltas, two lengths, header count.
const RECORD_LEN_MIN: usize = 7;

/// Appends the records at or above `wanted` to `out`, all or none. Every range is checked here, so
/// that whoever reads the batch later need not.
pub(super) fn decode(
    header: &BatchHeader,
    body: Bytes,
    wanted: Offset,
    out: &mut BatchBuilder,
) -> Result<(), RecordError> {
    if header.records as usize > body.len() / RECORD_LEN_MIN {
        return Err(RecordError::Malformed("more records than bytes"));
    }
    let before = out.len();
    out.reserve(header.records as usize);
    out.buffer(body.clone(), epoch(header.leader_epoch));
    let outcome = decode_each(header, &body, wanted, out);
    if outcome.is_none() {
        out.truncate(before);
    }
    outcome.ok_or(RecordError::Malformed("a record's lengths do not fit"))
}

/// Kafka's -1 stands for an unknown epoch.
pub(super) fn epoch(raw: i32) -> LeaderEpoch {
    LeaderEpoch(u32::try_from(raw).ok())
}

fn decode_each(
    header: &BatchHeader,
    body: &[u8],
    wanted: Offset,
    out: &mut BatchBuilder,
) -> Option<()> {
    let last_delta = header.last_offset - header.base_offset;
    let mut outer = Cursor { bytes: body, at: 0 };
    let mut floor = 0; // The least delta the next record may have.
    for _ in 0..header.records {
        let len = outer.varint()?;
        let (start, len) = outer.range(len)?;
        let mut record = Cursor {
            bytes: &body[..(start + len) as usize],
            at: start as usize,
        };
        let (parts, delta) = decode_one(header, &mut record)?;
        if delta < floor || delta > last_delta {
            return None; // Offsets grow, and stay within what the header says.
        }
        floor = delta + 1;
        if parts.offset >= wanted {
            out.push(parts);
        }
    }
    (outer.at == body.len()).then_some(())
}

#[inline]
fn decode_one(header: &BatchHeader, record: &mut Cursor<'_>) -> Option<(RecordParts, u64)> {
    record.range(1)?; // Attributes: unused.
    let time_delta = record.varlong()?;
    let delta = u64::try_from(record.varint()?).ok()?;
    let key = record.nullable()?;
    let value = record.nullable()?;
    let header_count = u32::try_from(record.varint()?).ok()?;
    let headers = record.at as u32;
    for _ in 0..header_count {
        let name = record.varint()?;
        record.range(name)?; // Unlike a value, a name is never null.
        record.nullable()?;
    }
    if record.at != record.bytes.len() {
        return None;
    }
    let timestamp = match header.log_append_time() {
        true => header.max_timestamp,
        false => header.base_timestamp.wrapping_add(time_delta),
    };
    let parts = RecordParts {
        offset: Offset(header.base_offset + delta),
        timestamp: UnixMillis(timestamp),
        key,
        value,
        headers: (headers, record.at as u32 - headers),
        header_count,
    };
    Some((parts, delta))
}

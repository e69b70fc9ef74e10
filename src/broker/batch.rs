//! Record batches, format v2 (KIP-98): the 61 bytes before the records, the records inside, and the
//! few bytes that a broker may write into a client's batch.

use crate::model::{i32_of, u8_of};
use std::borrow::Cow;

use super::codec;

/// Bytes of a batch before its first record.
pub(super) const HEADER_BYTES: usize = 61;
/// Bytes that a batch's own length does not count.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;
const EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
const COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The fields of a batch before its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl Header {
    /// Reads the header of the batch that `bytes` begins with and the length of the whole batch.
    /// `None` if the header is incomplete, or the length is shorter than a header.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let length = usize::try_from(i32::from_be_bytes(at(bytes, 8))).ok()?;
        let whole = length.checked_add(LENGTH_PREFIX_BYTES)?;
        let header = Self {
            base_offset: i64::from_be_bytes(at(bytes, 0)),
            leader_epoch: i32::from_be_bytes(at(bytes, EPOCH_AT)),
            magic: i8::from_be_bytes(at(bytes, MAGIC_AT)),
            crc: u32::from_be_bytes(at(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(at(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(at(bytes, 23)),
            base_timestamp: i64::from_be_bytes(at(bytes, 27)),
            max_timestamp: i64::from_be_bytes(at(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(at(bytes, 43)),
            producer_epoch: i16::from_be_bytes(at(bytes, 51)),
            base_sequence: i32::from_be_bytes(at(bytes, 53)),
            count: i32::from_be_bytes(at(bytes, COUNT_AT)),
        };
        (whole >= HEADER_BYTES).then_some((header, whole))
    }

    /// The number of the compression codec, as in Kafka's record batch attributes (0: none).
    pub(super) const fn codec(&self) -> i16 {
        self.attributes & CODEC_MASK
    }

    /// Whether the batch belongs to a transaction.
    pub(super) const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the records are transaction markers, which readers must skip.
    pub(super) const fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether all records have the time of the append, which is the batch's max timestamp.
    pub(super) const fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// The time of a record of this batch.
    pub(super) const fn timestamp(&self, delta: i64) -> i64 {
        if self.is_log_append_time() {
            self.max_timestamp
        } else {
            self.base_timestamp.wrapping_add(delta)
        }
    }
}

fn at<const N: usize>(bytes: &[u8; HEADER_BYTES], start: usize) -> [u8; N] {
    bytes[start..start + N]
        .try_into()
        .expect("every field lies within the header")
}

/// The checksum of a whole batch: CRC-32C of all bytes behind the checksum's own.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES_AT..])
}

/// Writes a batch's base offset and leader epoch, which the checksum does not cover.
pub(super) fn place(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[EPOCH_AT..MAGIC_AT].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Makes the append time the time of all records (`message.timestamp.type=LogAppendTime`). The
/// records' own deltas stay as the producer wrote them.
pub(super) fn stamp(batch: &mut [u8], header: &mut Header, append_time: i64) {
    header.attributes |= LOG_APPEND_TIME;
    header.max_timestamp = append_time;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&header.attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&append_time.to_be_bytes());
    seal(batch);
}

fn seal(batch: &mut [u8]) {
    let crc = checksum(batch);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
}

/// A copy of `batch` with only `records` (raw, as [`Records`] returns them), without compression.
/// Base offset and last offset delta stay, so the removed records leave a gap of offsets.
pub(super) fn retain<'a>(batch: &[u8], records: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = batch[..HEADER_BYTES].to_vec();
    let mut count = 0_i32;
    for raw in records {
        out.extend_from_slice(raw);
        count += 1;
    }
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES_AT], batch[ATTRIBUTES_AT + 1]]);
    let plain = attributes & !CODEC_MASK;
    let length = i32::try_from(out.len() - LENGTH_PREFIX_BYTES).expect("bounded by inflate");
    out[8..LENGTH_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&plain.to_be_bytes());
    out[COUNT_AT..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
    seal(&mut out);
    out
}

/// A control batch with the marker that ends a transaction (KIP-98, "control messages").
pub(super) fn marker(producer_id: i64, epoch: i16, committed: bool, timestamp: i64) -> Vec<u8> {
    // Key: version 0, type 0 (abort) or 1 (commit). Value: version 0, coordinator epoch 0.
    let key = [0, 0, 0, u8::from(committed)];
    let value = [0_u8; 6];
    let mut record = vec![0, 0, 0]; // Attributes, timestamp delta, offset delta.
    record.push(u8_of(key.len()) * 2); // Zigzag.
    record.extend_from_slice(&key);
    record.push(u8_of(value.len()) * 2);
    record.extend_from_slice(&value);
    record.push(0); // No headers.
    let mut out = vec![0; HEADER_BYTES];
    out.push(u8_of(record.len()) * 2);
    out.extend_from_slice(&record);
    let length = i32_of(out.len() - LENGTH_PREFIX_BYTES);
    out[8..LENGTH_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    out[MAGIC_AT] = 2;
    out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&(TRANSACTIONAL | CONTROL).to_be_bytes());
    out[27..MAX_TIMESTAMP_AT].copy_from_slice(&timestamp.to_be_bytes());
    out[MAX_TIMESTAMP_AT..43].copy_from_slice(&timestamp.to_be_bytes());
    out[43..51].copy_from_slice(&producer_id.to_be_bytes());
    out[51..53].copy_from_slice(&epoch.to_be_bytes());
    out[53..COUNT_AT].copy_from_slice(&(-1_i32).to_be_bytes());
    out[COUNT_AT..HEADER_BYTES].copy_from_slice(&1_i32.to_be_bytes());
    seal(&mut out);
    out
}

/// Whether a control batch's marker commits. `None` if it does not end a transaction.
pub(super) fn marker_commits(batch: &[u8]) -> Option<bool> {
    let (header, _) = Header::read(batch)?;
    let body = body(&header, batch)?;
    let key = Records::new(&body).next()?.ok()?.key?;
    match key {
        [_, _, 0, 0] => Some(false),
        [_, _, 0, 1] => Some(true),
        _ => None,
    }
}

/// The decompressed records of a whole batch. `None` if they can't be decompressed.
pub(super) fn body<'a>(header: &Header, batch: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    codec::inflate(header.codec(), batch.get(HEADER_BYTES..)?)
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawRecord<'a> {
    /// The whole record, with its length in front.
    pub raw: &'a [u8],
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The encoded headers after their count.
    pub headers: &'a [u8],
    pub header_count: u32,
}

impl<'a> RawRecord<'a> {
    /// The headers in order: name, and value or null. The record was read, so they are well-formed.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.headers;
        (0..self.header_count).map_while(move |_| header(&mut rest).ok())
    }
}

/// The bytes are no record: a bad length, a bad varint, or bytes left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

/// The records of a decompressed body in order. Ends after the first that can't be read.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn read(&mut self) -> Result<RawRecord<'a>, Undecodable> {
        let whole = self.rest;
        let mut after_length = whole;
        let length = length(&mut after_length)?.ok_or(Undecodable)?;
        let mut inside = after_length.get(..length).ok_or(Undecodable)?;
        self.rest = &after_length[length..];
        let raw = &whole[..whole.len() - self.rest.len()];
        take(&mut inside, 1)?; // Attributes: none are defined.
        let timestamp_delta = varint(&mut inside)?;
        let offset_delta = i32::try_from(varint(&mut inside)?).map_err(|_| Undecodable)?;
        let key = nullable(&mut inside)?;
        let value = nullable(&mut inside)?;
        let header_count = u32::try_from(varint(&mut inside)?).map_err(|_| Undecodable)?;
        let headers = inside;
        for _ in 0..header_count {
            header(&mut inside)?;
        }
        let record = RawRecord {
            raw,
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
            header_count,
        };
        inside.is_empty().then_some(record).ok_or(Undecodable)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRecord<'a>, Undecodable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

fn header<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Undecodable> {
    let name = nullable(rest)?.ok_or(Undecodable)?;
    Ok((name, nullable(rest)?))
}

fn nullable<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Undecodable> {
    match length(rest)? {
        Some(len) => take(rest, len).map(Some),
        None => Ok(None),
    }
}

/// A length; `None` for -1, which means null.
fn length(rest: &mut &[u8]) -> Result<Option<usize>, Undecodable> {
    match varint(rest)? {
        -1 => Ok(None),
        len => usize::try_from(len).map(Some).map_err(|_| Undecodable),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Undecodable> {
    let taken = rest.get(..len).ok_or(Undecodable)?;
    *rest = &rest[len..];
    Ok(taken)
}

/// A zigzag varint of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Result<i64, Undecodable> {
    let mut raw = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    Err(Undecodable)
}

//! Writes record batches: format v2, uncompressed, with a producer's sequence (KIP-98).

use crate::model::i32_of;
use bytes::Bytes;

use super::cursor::{put_varint, put_varlong, varlong_len};
use super::header::{CHECKED_FROM, HEADER_LEN};
use crate::kafka::ProduceRecord;

/// The producer of a batch and the batch's number, by which the broker recognizes duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// The sequence of the first record.
    pub(crate) first: i32,
}

/// Bytes of a batch with this record alone, at most. Limits are compared with it.
pub(crate) fn batch_len_max(record: &ProduceRecord) -> usize {
    HEADER_LEN + record_len_max(record)
}

/// Bytes a record adds to a batch, at most.
pub(crate) fn record_len_max(record: &ProduceRecord) -> usize {
    // Length, attributes, time delta, offset delta, header count: all varints but one byte.
    const AROUND: usize = 5 + 1 + 10 + 5 + 5;
    let part = |bytes: &Bytes| bytes.len() + varlong_len(bytes.len() as i64);
    let nullable = |bytes: &Option<Bytes>| bytes.as_ref().map_or(1, part);
    let headers = &record.headers;
    let headers: usize = headers.iter().map(|(n, v)| part(n) + nullable(v)).sum();
    AROUND + nullable(&record.key) + nullable(&record.value) + headers
}

/// Encodes one batch of all the records, in order. There must be at least one.
#[expect(clippy::indexing_slicing, reason = "a batch is longer than its header")]
pub(crate) fn encode<'a>(
    records: impl ExactSizeIterator<Item = &'a ProduceRecord> + Clone,
    sequence: Sequence,
) -> Bytes {
    let count = i32::try_from(records.len()).expect("a batch is bounded in bytes");
    let times = records.clone().map(|record| record.timestamp.0);
    let base_time = times.clone().next().expect("a batch has a record");
    let max_time = times.max().expect("a batch has a record");
    let size: usize = records.clone().map(record_len_max).sum();
    let mut out = Vec::with_capacity(HEADER_LEN + size);
    out.extend_from_slice(&0_i64.to_be_bytes()); // The broker gives the offset.
    out.extend_from_slice(&0_i32.to_be_bytes()); // Length, below.
    out.extend_from_slice(&(-1_i32).to_be_bytes()); // The broker knows its epoch.
    out.push(2);
    out.extend_from_slice(&0_u32.to_be_bytes()); // Checksum, below.
    out.extend_from_slice(&0_i16.to_be_bytes()); // Uncompressed, the producer's times.
    out.extend_from_slice(&(count - 1).to_be_bytes());
    out.extend_from_slice(&base_time.to_be_bytes());
    out.extend_from_slice(&max_time.to_be_bytes());
    out.extend_from_slice(&sequence.producer_id.to_be_bytes());
    out.extend_from_slice(&sequence.producer_epoch.to_be_bytes());
    out.extend_from_slice(&sequence.first.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    debug_assert_eq!(out.len(), HEADER_LEN);
    let mut scratch = Vec::new();
    for (delta, record) in records.enumerate() {
        scratch.clear();
        put_record(&mut scratch, record, base_time, i32_of(delta));
        put_varint(&mut out, i32_of(scratch.len()));
        out.extend_from_slice(&scratch);
    }
    let length = i32::try_from(out.len() - 12).expect("a batch is bounded in bytes");
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(out)
}

fn put_record(out: &mut Vec<u8>, record: &ProduceRecord, base_time: i64, delta: i32) {
    out.push(0);
    put_varlong(out, record.timestamp.0.wrapping_sub(base_time));
    put_varint(out, delta);
    put_nullable(out, record.key.as_ref());
    put_nullable(out, record.value.as_ref());
    put_varint(out, i32_of(record.headers.len()));
    for (name, value) in &record.headers {
        put_nullable(out, Some(name));
        put_nullable(out, value.as_ref());
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, i32_of(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

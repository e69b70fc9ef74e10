//! Decoded records of one partition. A batch owns one copy of its records' bytes, so it pins
//! neither the broker's response nor an unpacked record batch, and [`Batch::bytes_held`] is exact.
//! An entry holds only where a record's parts lie. Headers are read when asked for.

use super::Next;
use crate::model::{HashSecret, KeyHash, LeaderEpoch, Offset, Partition, UnixMillis, u32_of};

/// Records of one partition in offset order, without control records and aborted ones. Offsets may
/// have gaps (compaction, transactions).
#[derive(Debug)]
pub struct Batch {
    partition: Partition,
    epoch: LeaderEpoch,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One record of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The record's position in its partition.
    pub offset: Offset,
    /// The producer's or the broker's time, as the topic is configured.
    pub timestamp: UnixMillis,
    /// The key; `None` is Kafka's null, which differs from an empty key.
    pub key: Option<&'a [u8]>,
    /// The hash of the key, once [`Batch::hash_keys`] ran; of null, 0.
    pub key_hash: KeyHash,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in their order, repeats kept.
    pub headers: Headers<'a>,
}

/// Where a record's parts lie in its buffer: ranges as (start, length), `None` for null.
#[derive(Clone, Copy, Debug)]
pub struct RecordParts {
    /// The record's offset in its partition, not relative to a batch.
    pub offset: Offset,
    /// The producer's or the broker's time, as the topic is configured.
    pub timestamp: UnixMillis,
    /// The key's range; `None` is Kafka's null.
    pub key: Option<(u32, u32)>,
    /// The value's range; `None` is a tombstone.
    pub value: Option<(u32, u32)>,
    /// The range of the encoded headers after their count: `header_count` pairs of zigzag-varint
    /// length and bytes, a value's length -1 for null (record format v2, KIP-98).
    pub headers: (u32, u32),
    /// The number of headers in that range.
    pub header_count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    parts: RecordParts,
    hash: KeyHash,
}

impl Batch {
    /// Memory that each record takes beside its bytes.
    pub const ENTRY_BYTES: usize = size_of::<Entry>();

    /// The partition of all of the records.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.partition
    }

    /// The epoch of the leader that appended the last of them.
    #[must_use]
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The number of records, tombstones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the batch has no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the records as they were read.
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory held: the records' bytes and the entries.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * Self::ENTRY_BYTES
    }

    /// The offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Option<Offset> {
        self.entries.last().map(|entry| entry.parts.offset)
    }

    /// Takes the first `records` and the place after them. `next` is the place after all.
    #[must_use]
    pub fn split_with_place(&mut self, records: usize, next: Next) -> (Self, Next) {
        let part = self.split_to(records);
        match part.last_offset().filter(|_| !self.is_empty()) {
            None => (part, next),
            Some(last) => {
                let (offset, epoch) = (last.next(), part.epoch);
                (part, Next { offset, epoch })
            }
        }
    }

    /// Takes the first `records` as a batch of their own. If that is all of them, nothing is
    /// copied, and an empty batch stays.
    #[must_use]
    pub fn split_to(&mut self, records: usize) -> Self {
        let (partition, epoch) = (self.partition, self.epoch);
        if records >= self.entries.len() {
            let empty = BatchBuilder::new(partition).finish();
            return std::mem::replace(self, Self { epoch, ..empty });
        }
        let mut entries: Vec<_> = self.entries.drain(..records).collect();
        let ranges = || entries.iter().map(|entry| entry.parts.range());
        let start = ranges().map(|(start, _)| start).min().unwrap_or_default();
        let end = ranges().map(|(_, end)| end).max().unwrap_or_default();
        let bytes = self.bytes[start as usize..end as usize].to_vec();
        for entry in &mut entries {
            entry.parts = entry.parts.shifted_back(start);
        }
        Self {
            partition,
            epoch,
            bytes,
            entries,
        }
    }

    /// Hashes every key once, for ownership and indices.
    pub fn hash_keys(&mut self, secret: &HashSecret) {
        for entry in &mut self.entries {
            if let Some(key) = slice(&self.bytes, entry.parts.key) {
                entry.hash = secret.hash(key);
            }
        }
    }

    /// The records in offset order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| {
            let parts = &entry.parts;
            let headers = slice(&self.bytes, Some(parts.headers)).unwrap_or_default();
            Record {
                offset: parts.offset,
                timestamp: parts.timestamp,
                key: slice(&self.bytes, parts.key),
                key_hash: entry.hash,
                value: slice(&self.bytes, parts.value),
                headers: Headers {
                    bytes: headers,
                    left: parts.header_count,
                },
            }
        })
    }
}

fn slice(bytes: &[u8], range: Option<(u32, u32)>) -> Option<&[u8]> {
    let (start, len) = range?;
    Some(&bytes[start as usize..(start + len) as usize])
}

impl RecordParts {
    /// From the first byte of any part to the byte after the last.
    fn range(&self) -> (u32, u32) {
        let parts = [self.key, self.value, Some(self.headers)];
        let ranges = parts.into_iter().flatten();
        ranges.fold((u32::MAX, 0), |(start, end), (at, len)| {
            (start.min(at), end.max(at + len))
        })
    }

    /// The same parts in a buffer that begins `by` bytes later.
    #[must_use]
    pub fn shifted_back(self, by: u32) -> Self {
        self.map(|at| at - by)
    }

    /// The same parts in a buffer that begins `by` bytes earlier.
    fn shifted(self, by: u32) -> Self {
        self.map(|at| at + by)
    }

    fn map(self, start: impl Fn(u32) -> u32) -> Self {
        let range = |(at, len)| (start(at), len);
        Self {
            key: self.key.map(range),
            value: self.value.map(range),
            headers: range(self.headers),
            ..self
        }
    }
}

/// Makes a [`Batch`] from bytes and ranges that a reader has checked.
#[derive(Debug)]
pub struct BatchBuilder {
    batch: Batch,
    /// Where the newest buffer begins.
    base: u32,
}

impl BatchBuilder {
    /// An empty batch of `partition`.
    #[must_use]
    pub const fn new(partition: Partition) -> Self {
        Self {
            batch: Batch {
                partition,
                epoch: LeaderEpoch(None),
                bytes: Vec::new(),
                entries: Vec::new(),
            },
            base: 0,
        }
    }

    /// Adds a buffer's bytes. The ranges of records pushed next count from its start. `epoch` is
    /// theirs.
    pub fn buffer(&mut self, bytes: impl AsRef<[u8]>, epoch: LeaderEpoch) {
        self.base = u32_of(self.batch.bytes.len());
        self.batch.bytes.extend_from_slice(bytes.as_ref());
        self.batch.epoch = epoch;
    }

    /// The same with a buffer that the batch may keep: it is not copied if it is the first.
    pub fn own_buffer(&mut self, bytes: Vec<u8>, epoch: LeaderEpoch) {
        if self.batch.bytes.is_empty() {
            (self.base, self.batch.bytes, self.batch.epoch) = (0, bytes, epoch);
        } else {
            self.buffer(bytes, epoch);
        }
    }

    /// The bytes of the newest buffer.
    #[must_use]
    pub fn newest_buffer(&self) -> &[u8] {
        &self.batch.bytes[self.base as usize..]
    }

    /// Adds a record of the newest buffer. Ranges outside the buffer panic when they are read: the
    /// caller has checked them.
    pub fn push(&mut self, parts: RecordParts) {
        self.batch.entries.push(Entry {
            parts: parts.shifted(self.base),
            hash: KeyHash(0),
        });
    }

    /// Makes room for so many more records and bytes.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.batch.entries.reserve(records);
        self.batch.bytes.reserve(bytes);
    }

    /// Takes back the newest buffer and all but the first `records` records: a reader found a later
    /// record malformed.
    pub fn truncate(&mut self, records: usize) {
        self.batch.entries.truncate(records);
        self.batch.bytes.truncate(self.base as usize);
    }

    /// The number of records so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.batch.entries.len()
    }

    /// Whether no record was pushed yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.batch.entries.is_empty()
    }

    /// Bytes of the records so far.
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        self.batch.record_bytes()
    }

    /// The batch. Returns spare memory if there is much: a slow shard may keep the batch for long.
    #[must_use]
    pub fn finish(self) -> Batch {
        let mut batch = self.batch;
        if batch.bytes.capacity() > batch.bytes.len() + batch.bytes.len() / 4 {
            batch.bytes.shrink_to_fit();
        }
        if batch.entries.capacity() > batch.entries.len() + batch.entries.len() / 4 {
            batch.entries.shrink_to_fit();
        }
        batch
    }
}

/// A record's headers, read as they are asked for. Cheap to copy and to read again.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Headers<'a> {
    /// Bytes of the headers as they were read.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// The value of the last header called `name`; `None` if there is none or its value is null.
    /// The last wins, as in Kafka's own `Headers.lastHeader`.
    #[must_use]
    pub fn last(self, name: &str) -> Option<&'a [u8]> {
        self.filter(|(n, _)| *n == name.as_bytes())
            .last()
            .and_then(|(_, value)| value)
    }

    fn varint(&mut self) -> i32 {
        let (mut raw, mut shift) = (0_u32, 0);
        loop {
            let (&byte, rest) = self
                .bytes
                .split_first()
                .expect("the reader checked the headers");
            self.bytes = rest;
            raw |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return (raw >> 1) as i32 ^ -((raw & 1) as i32);
            }
            shift += 7;
        }
    }

    fn take(&mut self, len: i32) -> Option<&'a [u8]> {
        let len = usize::try_from(len).ok()?; // Negative is null.
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Some(head)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name_len = self.varint();
        let name = self.take(name_len).unwrap_or_default();
        let value_len = self.varint();
        Some((name, self.take(value_len)))
    }
}

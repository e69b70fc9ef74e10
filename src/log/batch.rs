//! Decoded records of one partition. The bytes stay in the buffers they were fetched or
//! decompressed into; an entry holds only where they are. Headers are read when asked for.

use bytes::Bytes;

use crate::model::{HashSecret, KeyHash, LeaderEpoch, Offset, Partition, UnixMillis};

/// Records of one partition in offset order: what one fetch brought, without control records and
/// aborted ones. Offsets may have holes (compaction, transactions).
#[derive(Debug)]
pub struct Batch {
    partition: Partition,
    epoch: LeaderEpoch,
    buffers: Vec<Bytes>,
    entries: Vec<Entry>,
}

/// One record of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its position.
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
    /// Absolute offset.
    pub offset: Offset,
    /// The record's time.
    pub timestamp: UnixMillis,
    /// The key's range.
    pub key: Option<(u32, u32)>,
    /// The value's range.
    pub value: Option<(u32, u32)>,
    /// The range of the encoded headers after their count: `header_count` pairs of zigzag-varint
    /// length and bytes, a value's length -1 for null (record format v2, KIP-98).
    pub headers: (u32, u32),
    /// How many headers.
    pub header_count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    parts: RecordParts,
    buffer: u32,
    hash: KeyHash,
}

impl Batch {
    /// Whose records these are.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.partition
    }

    /// The epoch of the leader that appended the last of them.
    #[must_use]
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory held: the buffers, whole.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.buffers.iter().map(Bytes::len).sum()
    }

    /// Hashes every key once, for ownership and indices.
    pub fn hash_keys(&mut self, secret: &HashSecret) {
        for entry in &mut self.entries {
            let buffer = &self.buffers[entry.buffer as usize];
            if let Some(key) = slice(buffer, entry.parts.key) {
                entry.hash = secret.hash(key);
            }
        }
    }

    /// The records in offset order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| {
            let buffer = &self.buffers[entry.buffer as usize];
            let parts = &entry.parts;
            let headers = slice(buffer, Some(parts.headers)).unwrap_or_default();
            Record {
                offset: parts.offset,
                timestamp: parts.timestamp,
                key: slice(buffer, parts.key),
                key_hash: entry.hash,
                value: slice(buffer, parts.value),
                headers: Headers {
                    bytes: headers,
                    left: parts.header_count,
                },
            }
        })
    }
}

fn slice(buffer: &[u8], range: Option<(u32, u32)>) -> Option<&[u8]> {
    let (start, len) = range?;
    Some(&buffer[start as usize..(start + len) as usize])
}

/// Makes a [`Batch`] from buffers and ranges that a reader has checked.
#[derive(Debug)]
pub struct BatchBuilder {
    batch: Batch,
}

impl BatchBuilder {
    /// An empty batch of `partition`.
    #[must_use]
    pub fn new(partition: Partition) -> Self {
        let (buffers, entries) = (Vec::new(), Vec::new());
        Self {
            batch: Batch {
                partition,
                epoch: LeaderEpoch(None),
                buffers,
                entries,
            },
        }
    }

    /// Adds a buffer; the records pushed next lie in it. `epoch` is its records'.
    pub fn buffer(&mut self, bytes: Bytes, epoch: LeaderEpoch) {
        self.batch.buffers.push(bytes);
        self.batch.epoch = epoch;
    }

    /// Adds a record of the newest buffer.
    ///
    /// # Panics
    /// If no buffer was added. Ranges outside the buffer panic when they are read: the caller has
    /// checked them.
    pub fn push(&mut self, parts: RecordParts) {
        let buffer = u32::try_from(self.batch.buffers.len()).expect("few buffers a fetch") - 1;
        self.batch.entries.push(Entry {
            parts,
            buffer,
            hash: KeyHash(0),
        });
    }

    /// Makes room for so many more records.
    pub fn reserve(&mut self, records: usize) {
        self.batch.entries.reserve(records);
    }

    /// Takes back all but the first `len` records: a reader found a later one malformed. Buffers
    /// stay.
    pub fn truncate(&mut self, len: usize) {
        self.batch.entries.truncate(len);
    }

    /// Records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is none so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The batch.
    #[must_use]
    pub fn finish(self) -> Batch {
        self.batch
    }
}

/// A record's headers, read as they are asked for. Cheap to copy and to read again.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Headers<'a> {
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

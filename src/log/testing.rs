//! Batches and steps written by hand, for the tests of rooms that apply them.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Batch, BatchBuilder, Change, Cut, Next, RecordParts, Seq, Step};
use crate::model::{HashSecret, LeaderEpoch, Offset, Partition, UnixMillis};

/// The parts of a record that a test writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Draft {
    /// With a key and a value.
    pub(crate) fn new(offset: u64, key: &str, value: Option<&str>) -> Self {
        Self {
            offset,
            key: Some(key.into()),
            value: value.map(Into::into),
            ..Self::default()
        }
    }

    /// The draft with one more header.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = Some(value.as_ref().to_vec());
        self.headers.push((name.into(), value));
        self
    }
}

/// A batch of drafts, hashed.
pub(crate) fn batch(partition: u32, drafts: &[Draft], secret: &HashSecret) -> Batch {
    let mut builder = BatchBuilder::new(Partition(partition));
    for draft in drafts {
        let mut bytes = Vec::new();
        let mut part = |part: &[u8]| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(part);
            (start, part.len() as u32)
        };
        let parts = RecordParts {
            offset: Offset(draft.offset),
            timestamp: UnixMillis(draft.timestamp),
            key: draft.key.as_deref().map(&mut part),
            value: draft.value.as_deref().map(&mut part),
            headers: part(&encoded(&draft.headers)),
            header_count: draft.headers.len() as u32,
        };
        builder.buffer(Bytes::from(bytes), LeaderEpoch(Some(0)));
        builder.push(parts);
    }
    let mut batch = builder.finish();
    batch.hash_keys(secret);
    batch
}

/// A step of this change, without blocks.
pub(crate) fn step(seq: u64, change: Change) -> Step {
    Step {
        seq: Seq(seq),
        cut: Cut::start(),
        time: UnixMillis(0),
        oldest: Seq(0),
        change,
        blocks: SmallVec::new(),
    }
}

/// A cut at these offsets.
pub(crate) fn cut(offsets: &[u64]) -> Cut {
    let mut cut = Cut::start();
    for (partition, &offset) in offsets.iter().enumerate() {
        let next = Next {
            offset: Offset(offset),
            epoch: LeaderEpoch(None),
        };
        cut.set(Partition(partition as u32), next);
    }
    cut
}

fn encoded(headers: &[(Vec<u8>, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        varint(&mut bytes, name.len() as i32);
        bytes.extend_from_slice(name);
        match value {
            None => varint(&mut bytes, -1),
            Some(value) => {
                varint(&mut bytes, value.len() as i32);
                bytes.extend_from_slice(value);
            }
        }
    }
    bytes
}

fn varint(bytes: &mut Vec<u8>, value: i32) {
    let mut raw = ((value << 1) ^ (value >> 31)) as u32;
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
}

#[test]
fn a_draft_reads_back() {
    let secret = HashSecret::new([7; 16]);
    let mut draft = Draft::new(9, "k", Some("v"))
        .header("a", "1")
        .header("a", [b'x'; 200]);
    draft.headers.push((b"n".to_vec(), None));
    let batch = batch(3, &[draft], &secret);
    let record = batch.iter().next().expect("one");
    assert_eq!(
        (record.offset, record.key, record.value),
        (Offset(9), Some(&b"k"[..]), Some(&b"v"[..]))
    );
    assert_eq!(record.key_hash, secret.hash(b"k"));
    assert_eq!(record.headers.last("a"), Some(&[b'x'; 200][..]));
    assert_eq!(record.headers.last("n"), None);
    assert_eq!(record.headers.count(), 3);
}

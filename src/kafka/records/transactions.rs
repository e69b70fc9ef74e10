//! Records of transactions that were taken back: a consumer must not see them.

use super::cursor::Cursor;
use super::header::BatchHeader;

/// An aborted transaction: the records of `producer_id` from `first_offset` up to the producer's
/// next abort marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The producer of the transaction.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: i64,
}

/// Producers with hidden records at the present position. The broker lists the aborted transactions
/// that overlap the response. The records of each are hidden from its first offset to its marker.
#[derive(Debug)]
pub(super) struct Transactions {
    /// By first offset, the next one last.
    ahead: Vec<Aborted>,
    open: Vec<i64>,
}

impl Transactions {
    pub(super) fn new(mut ahead: Vec<Aborted>) -> Self {
        ahead.sort_unstable_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
        let open = Vec::new();
        Self { ahead, open }
    }

    pub(super) fn reach(&mut self, last_offset: u64) {
        while let Some(aborted) = self.ahead.last() {
            if aborted.first_offset > last_offset as i64 {
                break;
            }
            if !self.open.contains(&aborted.producer_id) {
                self.open.push(aborted.producer_id);
            }
            self.ahead.pop();
        }
    }

    pub(super) fn hides(&self, producer_id: i64) -> bool {
        !self.open.is_empty() && self.open.contains(&producer_id)
    }

    /// A control batch. The key of its one record is a version and a type, both 16 bits. Type 0
    /// aborts.
    pub(super) fn marker(&mut self, header: &BatchHeader, body: &[u8]) {
        if self.hides(header.producer_id) && marker_type(body) == Some(0) {
            self.open.retain(|&id| id != header.producer_id);
        }
    }
}

fn marker_type(body: &[u8]) -> Option<i16> {
    let mut record = Cursor { bytes: body, at: 0 };
    record.varint()?;
    record.range(1)?;
    record.varlong()?;
    record.varint()?;
    let (start, len) = record.nullable()??;
    let key = body.get(start as usize..(start + len) as usize)?;
    Some(i16::from_be_bytes(*key.get(2..)?.first_chunk()?))
}

//! What a Fetch brought of one partition: batches one behind the other, the last maybe cut off.

use bytes::Bytes;

use super::RecordError;
use super::codec::Unpacker;
use super::decode::{decode, epoch};
use super::header::{BatchHeader, CHECKED_FROM, Front, HEADER_LEN, read_front};
use crate::log::{Batch, BatchBuilder, Next};
use crate::model::{Offset, Partition};

/// A transaction that was taken back: the records of `producer_id` from `first_offset` up to the
/// producer's next abort marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whose it was.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
}

/// Some of the records, in order.
#[derive(Debug)]
pub enum Piece {
    /// Readable ones; maybe none.
    Records(Batch),
    /// Offsets whose records can't be read.
    Undecodable {
        /// The first of them.
        from: Offset,
        /// The first after them.
        to: Offset,
        /// Why.
        error: RecordError,
    },
}

/// How far the bytes led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where reading goes on.
    pub next: Next,
    /// Why it does not go on within these bytes, where not even a batch's end is known.
    pub stuck: Option<RecordError>,
    /// There were bytes, but not one whole batch: ask for more at once.
    pub cut_short: bool,
}

/// What to read and where to stop.
#[derive(Debug)]
pub struct Fetched {
    /// Whose records these are.
    pub partition: Partition,
    /// Batches, the last maybe cut off.
    pub records: Bytes,
    /// The first offset wanted; below are skipped.
    pub from: Next,
    /// Where a damaged batch may lead at most: beyond is nothing.
    pub end: Offset,
    /// The transactions whose records are hidden.
    pub aborted: Vec<Aborted>,
}

/// Reads all batches until the bytes end or `budget`, the unpacked bytes allowed, is used up (but
/// one batch at least; one batch may have `cap` bytes). The pieces go to `sink` with the place
/// after them; the last piece is always `Records`.
pub fn walk(
    fetched: Fetched,
    unpacker: &mut Unpacker,
    cap: u32,
    budget: &mut u64,
    mut sink: impl FnMut(Piece, Next),
) -> Progress {
    let mut walk = Walk {
        transactions: Transactions::new(fetched.aborted),
        out: BatchBuilder::new(fetched.partition),
        next: fetched.from,
        batches: 0,
    };
    let (mut rest, mut stuck) = (fetched.records, None);
    let had_bytes = !rest.is_empty();
    while !(walk.batches > 0 && *budget == 0) {
        let failed = match read_front(&rest) {
            Front::Partial => break,
            Front::Nonsense(error) => {
                stuck = Some(error);
                break;
            }
            Front::Old { magic, len, next } => {
                rest = rest.slice(len..);
                Some((RecordError::Magic(magic), Offset(next)))
            }
            Front::Batch(header) => {
                // A piece is of one epoch, so that each place in it has its own.
                if epoch(header.leader_epoch) != walk.next.epoch {
                    walk.flush(fetched.partition, &mut sink);
                }
                let batch = rest.split_to(header.len);
                let outcome = walk.batch(&header, &batch, unpacker, cap, budget);
                let to = Offset(header.last_offset + 1);
                match outcome {
                    Ok(()) => None,
                    // What the header says is as doubtful as the rest: its end is held below the
                    // next batch and the end of the log, and past where we stand.
                    Err(RecordError::Checksum) => {
                        let to = to.min(fetched.end).min(base_offset(&rest));
                        Some((RecordError::Checksum, to.max(walk.next.offset.next())))
                    }
                    Err(error) => Some((error, to)),
                }
            }
        };
        walk.batches += 1;
        let Some((error, to)) = failed else { continue };
        let from = walk.next.offset;
        if to <= from {
            continue; // Below what is wanted.
        }
        walk.flush(fetched.partition, &mut sink);
        walk.next.offset = to;
        sink(Piece::Undecodable { from, to, error }, walk.next);
    }
    let cut_short = had_bytes && walk.batches == 0 && stuck.is_none();
    sink(Piece::Records(walk.out.finish()), walk.next);
    Progress {
        next: walk.next,
        stuck,
        cut_short,
    }
}

/// The base offset at the front of `bytes`; the end of all offsets if there is none.
fn base_offset(bytes: &[u8]) -> Offset {
    let raw = bytes.first_chunk().map(|raw| i64::from_be_bytes(*raw));
    Offset(raw.map_or(u64::MAX, |raw| raw.max(0) as u64))
}

struct Walk {
    transactions: Transactions,
    out: BatchBuilder,
    next: Next,
    batches: usize,
}

impl Walk {
    /// Takes one batch, whole or not at all. Moves `next` behind it where it is readable.
    fn batch(
        &mut self,
        header: &BatchHeader,
        batch: &Bytes,
        unpacker: &mut Unpacker,
        cap: u32,
        budget: &mut u64,
    ) -> Result<(), RecordError> {
        if crc32c::crc32c(&batch[CHECKED_FROM..]) != header.crc {
            return Err(RecordError::Checksum);
        }
        self.transactions.reach(header.last_offset);
        let hidden = match header.control() {
            true => {
                self.transactions.marker(header, &batch[HEADER_LEN..]);
                true
            }
            false => header.transactional() && self.transactions.hides(header.producer_id),
        };
        if header.last_offset < self.next.offset.0 {
            return Ok(()); // All below what is wanted.
        }
        if !hidden && header.records > 0 {
            let packed = batch.slice(HEADER_LEN..);
            let body = unpacker.unpack(header.codec(), packed, cap)?;
            *budget = budget.saturating_sub(body.len() as u64);
            decode(header, body, self.next.offset, &mut self.out)?;
        }
        self.next = Next {
            offset: Offset(header.last_offset + 1),
            epoch: epoch(header.leader_epoch),
        };
        Ok(())
    }

    fn flush(&mut self, partition: Partition, sink: &mut impl FnMut(Piece, Next)) {
        if !self.out.is_empty() {
            let full = std::mem::replace(&mut self.out, BatchBuilder::new(partition));
            sink(Piece::Records(full.finish()), self.next);
        }
    }
}

/// Which producers' records are hidden at the present place. The broker lists the aborted
/// transactions that overlap the answer; each is hidden from its first offset to its marker.
struct Transactions {
    /// By first offset, the next one last.
    ahead: Vec<Aborted>,
    open: Vec<i64>,
}

impl Transactions {
    fn new(mut ahead: Vec<Aborted>) -> Self {
        ahead.sort_unstable_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
        let open = Vec::new();
        Self { ahead, open }
    }

    fn reach(&mut self, last_offset: u64) {
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

    fn hides(&self, producer_id: i64) -> bool {
        !self.open.is_empty() && self.open.contains(&producer_id)
    }

    /// A control batch: its one record's key is a version and a type, both 16 bits; type 0 aborts.
    fn marker(&mut self, header: &BatchHeader, body: &[u8]) {
        if self.hides(header.producer_id) && marker_type(body) == Some(0) {
            self.open.retain(|&id| id != header.producer_id);
        }
    }
}

fn marker_type(body: &[u8]) -> Option<i16> {
    let mut record = super::cursor::Cursor { bytes: body, at: 0 };
    record.varint()?;
    record.range(1)?;
    record.varlong()?;
    record.varint()?;
    let (start, len) = record.nullable()??;
    let key = &body[start as usize..(start + len) as usize];
    Some(i16::from_be_bytes(*key.get(2..)?.first_chunk()?))
}

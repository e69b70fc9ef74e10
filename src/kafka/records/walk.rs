//! The records of one partition in a Fetch response: consecutive batches, of which the last may be
//! cut off.
//!
//! A [`Walk`] goes through them in bounded steps and returns [`Piece`]s of bounded size. A batch
//! that fits one piece is decoded in one pass. A larger one is unpacked and checked whole before
//! its first piece is returned, because half a batch never shows.

use bytes::{Buf as _, Bytes};

use super::RecordError;
use super::codec::{Begun, Body, SCRATCH_BYTES_KEPT, Unpacker, Unpacking};
use super::decode::{Decoded, RECORD_LEN_MIN, Records, epoch};
use super::header::{BatchHeader, CHECKED_FROM, Front, HEADER_LEN, read_front};
use super::transactions::{Aborted, Transactions};
use crate::log::{Batch, BatchBuilder, Next};
use crate::model::{Offset, Partition};

/// Work of one step, about the nanoseconds it takes.
const STEP_WORK_MAX: usize = 64 << 10;
/// Bytes of a checksum that cost as much work as unpacking one byte.
const CHECKED_BYTES_PER_WORK: usize = 8;
/// Work of one record beside its bytes.
const RECORD_WORK: usize = 32;

/// Some of the records, in order.
#[derive(Debug)]
pub enum Piece {
    /// Decoded records. There may be none.
    Records(Batch),
    /// Offsets of records that can't be decoded.
    Undecodable {
        /// The first of these offsets.
        from: Offset,
        /// The first offset after these.
        to: Offset,
        /// Why the records can't be decoded.
        error: RecordError,
    },
}

/// How far the walk got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkProgress {
    /// The position at which reading continues.
    pub next: Next,
    /// Why it can't continue within these bytes: not even the batch's end is known.
    pub stuck: Option<RecordError>,
    /// There were bytes, but no complete batch: the next request must ask for more.
    pub cut_short: bool,
}

/// The input of a walk.
#[derive(Debug)]
pub struct Fetched {
    /// The partition of the records.
    pub partition: Partition,
    /// Batches, of which the last may be cut off.
    pub records: Bytes,
    /// The first offset wanted. Records below are skipped.
    pub from: Next,
    /// The end of the log: a damaged batch can't lead beyond it.
    pub end: Offset,
    /// The aborted transactions, which have their records hidden.
    pub aborted: Vec<Aborted>,
}

/// Limits of one piece of unpacked records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLimits {
    /// Bytes of records in a piece. A larger record is a piece of its own.
    pub bytes: usize,
    /// The largest number of records in a piece.
    pub records: usize,
    /// Bytes that one batch may unpack to.
    pub batch_bytes: u32,
}

impl PieceLimits {
    /// Bytes of records in a piece: what a step of a topic may have, since an event has at least
    /// the bytes of its record's value.
    pub const BYTES: usize = 256 << 10;
    /// Records in a piece. An event and its index entry take more than 100 bytes, so this hardly
    /// splits what fits a step.
    pub const RECORDS: usize = 2048;

    /// The usual limits, with the setting for a batch.
    #[must_use]
    pub const fn new(batch_bytes: u32) -> Self {
        Self {
            bytes: Self::BYTES,
            records: Self::RECORDS,
            batch_bytes,
        }
    }
}

const _: () = {
    // One more step of unpacking never doubles a piece.
    assert!(STEP_WORK_MAX <= PieceLimits::BYTES);
    // A batch with as many records as a piece may have bytes is still split.
    assert!(PieceLimits::RECORDS < PieceLimits::BYTES / RECORD_LEN_MIN);
    // The buffer of a batch that fits a piece is kept for the next one.
    assert!(PieceLimits::BYTES <= SCRATCH_BYTES_KEPT);
    // A step that decodes as many records as a piece has is no longer than one that unpacks.
    assert!(PieceLimits::RECORDS * RECORD_WORK <= STEP_WORK_MAX);
    // Positions within a piece are 32 bits.
    assert!(PieceLimits::BYTES < u32::MAX as usize);
};

/// A walk over what was fetched. Call [`Walk::advance`] until it returns [`Advance::Done`].
#[derive(Debug)]
pub struct Walk {
    partition: Partition,
    end: Offset,
    limits: PieceLimits,
    transactions: Transactions,
    /// The piece that is being filled.
    out: BatchBuilder,
    next: Next,
    batches: usize,
    had_bytes: bool,
    /// From the present batch on.
    rest: Bytes,
    stage: Stage,
    /// Comes behind the piece that was just returned.
    following: Option<(Piece, Next)>,
}

/// What is done with the batch at the front.
#[derive(Debug)]
enum Stage {
    /// The header of the batch is not read yet.
    Front,
    /// Its checksum is computed, up to `at`.
    Checking(BatchHeader, u32, usize),
    Unpacking(BatchHeader, Unpacking),
    /// The batch is larger than a piece. Every record is checked before any is returned.
    Validating(BatchHeader, Body, Records),
    /// Its records are taken into pieces. All of them are valid.
    Taking(BatchHeader, Body, Records),
    /// Nothing more can be read.
    Over(Option<RecordError>),
}

/// What one step of a [`Walk`] led to.
#[derive(Debug)]
#[must_use = "unless it is `Done`, call again"]
pub enum Advance {
    /// The step did work, and more work is left.
    Working,
    /// A piece, and the place after it.
    Piece(Piece, Next),
    /// The walk has ended. The last piece before this was `Records`.
    Done(WalkProgress),
}

/// Reads batches until the bytes end or `budget`, the unpacked bytes allowed, is used up (but one
/// batch at least). The pieces go to `sink` with the place after them. The last piece is always
/// `Records`.
pub fn walk(
    fetched: Fetched,
    unpacker: &mut Unpacker,
    limits: PieceLimits,
    budget: &mut u64,
    mut sink: impl FnMut(Piece, Next),
) -> WalkProgress {
    let mut walk = Walk::new(fetched, limits);
    loop {
        match walk.advance(unpacker, budget) {
            Advance::Working => {}
            Advance::Piece(piece, next) => sink(piece, next),
            Advance::Done(progress) => return progress,
        }
    }
}

impl Walk {
    /// A walk that has not begun.
    #[must_use]
    pub fn new(fetched: Fetched, limits: PieceLimits) -> Self {
        Self {
            partition: fetched.partition,
            end: fetched.end,
            limits,
            transactions: Transactions::new(fetched.aborted),
            out: BatchBuilder::new(fetched.partition),
            next: fetched.from,
            batches: 0,
            had_bytes: !fetched.records.is_empty(),
            rest: fetched.records,
            stage: Stage::Front,
            following: None,
        }
    }

    /// Whether no batch has been looked at.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.batches == 0 && matches!(self.stage, Stage::Front)
    }

    /// Whether the walk has a batch that is not packed any more.
    #[must_use]
    pub const fn is_within_batch(&self) -> bool {
        matches!(
            self.stage,
            Stage::Unpacking(..) | Stage::Validating(..) | Stage::Taking(..)
        )
    }

    /// Gives up the unpacked batch. The batch is unpacked again later. Pieces that were returned
    /// are not returned again.
    pub fn repack(&mut self) {
        if self.is_within_batch() {
            self.stage = Stage::Front;
        }
    }

    /// Does a bounded step of work.
    pub fn advance(&mut self, unpacker: &mut Unpacker, budget: &mut u64) -> Advance {
        if let Some((piece, next)) = self.following.take() {
            return Advance::Piece(piece, next);
        }
        let mut work = 0;
        while work < STEP_WORK_MAX {
            let next = self.next;
            let piece = match std::mem::replace(&mut self.stage, Stage::Front) {
                Stage::Front => self.front(*budget),
                Stage::Checking(header, crc, at) => {
                    self.check(header, crc, at, unpacker, budget, &mut work)
                }
                Stage::Unpacking(header, unpacking) => {
                    self.unpack(header, unpacking, unpacker, budget, &mut work)
                }
                Stage::Validating(header, body, records) => {
                    self.validate(header, body, records, unpacker, &mut work)
                }
                Stage::Taking(header, body, records) => {
                    self.take(header, body, records, unpacker, &mut work)
                }
                Stage::Over(stuck) => {
                    let cut_short = self.had_bytes && self.batches == 0 && stuck.is_none();
                    self.stage = Stage::Over(stuck);
                    return Advance::Done(WalkProgress {
                        next,
                        stuck,
                        cut_short,
                    });
                }
            };
            if let Some((piece, next)) = piece {
                return Advance::Piece(piece, next);
            }
        }
        Advance::Working
    }

    /// Looks at the next batch's header.
    fn front(&mut self, budget: u64) -> Option<(Piece, Next)> {
        if self.batches > 0 && budget == 0 {
            return self.end(None);
        }
        match read_front(&self.rest) {
            Front::Partial => self.end(None),
            Front::Nonsense(error) => self.end(Some(error)),
            Front::Old { magic, len, next } => {
                self.leave_batch(len);
                self.undecodable(RecordError::Magic(magic), Offset(next))
            }
            Front::Batch(header) => {
                self.stage = Stage::Checking(header, 0, CHECKED_FROM);
                // A piece is of one epoch, so that each place in it has its own.
                if epoch(header.leader_epoch) == self.next.epoch || self.out.is_empty() {
                    None
                } else {
                    Some(self.flush())
                }
            }
        }
    }

    /// Computes the checksum of some of the batch.
    fn check(
        &mut self,
        header: BatchHeader,
        crc: u32,
        at: usize,
        unpacker: &mut Unpacker,
        budget: &mut u64,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        let end = header.len.min(at + STEP_WORK_MAX * CHECKED_BYTES_PER_WORK);
        let crc = crc32c::crc32c_append(crc, self.rest.get(at..end).unwrap_or_default());
        *work += (end - at) / CHECKED_BYTES_PER_WORK;
        if end < header.len {
            self.stage = Stage::Checking(header, crc, end);
            return None;
        }
        if crc != header.crc {
            self.leave_batch(header.len);
            // The header may be damaged too: bound its end by the next batch and the end of the
            // log, and move on by one offset at least.
            let to = end_of(&header).min(self.end).min(base_offset(&self.rest));
            return self.undecodable(RecordError::Checksum, to.max(self.next.offset.next()));
        }
        self.transactions.reach(header.last_offset);
        let hidden = if header.control() {
            let body = self.rest.get(HEADER_LEN..header.len).unwrap_or_default();
            self.transactions.marker(&header, body);
            true
        } else {
            header.transactional() && self.transactions.hides(header.producer_id)
        };
        if header.last_offset < self.next.offset.0 {
            self.leave_batch(header.len); // All below what is wanted.
            return None;
        }
        if hidden || header.records == 0 {
            self.leave(&header);
            return None;
        }
        let packed = self.rest.slice(HEADER_LEN..header.len);
        match unpacker.begin(header.codec(), packed, self.limits.batch_bytes) {
            Ok(Begun::Whole(bytes)) => {
                self.on_unpacked(header, Body::Sent(bytes), unpacker, budget, work)
            }
            Ok(Begun::Packed(unpacking)) => {
                self.stage = Stage::Unpacking(header, unpacking);
                None
            }
            Err(error) => self.fail(&header, error),
        }
    }

    fn unpack(
        &mut self,
        header: BatchHeader,
        mut unpacking: Unpacking,
        unpacker: &mut Unpacker,
        budget: &mut u64,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        let before = unpacking.len();
        let done = unpacking.advance(unpacker, STEP_WORK_MAX);
        *work += unpacking.len() - before;
        match done {
            Ok(true) => {
                let body = unpacking.finish(unpacker);
                self.on_unpacked(header, body, unpacker, budget, work)
            }
            Ok(false) => {
                self.stage = Stage::Unpacking(header, unpacking);
                None
            }
            Err(error) => self.fail(&header, error),
        }
    }

    fn on_unpacked(
        &mut self,
        header: BatchHeader,
        body: Body,
        unpacker: &mut Unpacker,
        budget: &mut u64,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        *budget = budget.saturating_sub(body.len() as u64);
        let records = header.records as usize;
        if records > body.len() / RECORD_LEN_MIN {
            unpacker.give_back(body);
            let error = RecordError::Malformed("more records than bytes");
            return self.fail(&header, error);
        }
        if body.len() > self.limits.bytes || records > self.limits.records {
            self.stage = Stage::Validating(header, body, Records::new(&header));
            return None;
        }
        let fits = self.out.record_bytes() + body.len() <= self.limits.bytes
            && self.out.len() + records <= self.limits.records;
        let full = (!fits && !self.out.is_empty()).then(|| self.flush());
        *work += body.len() + records * RECORD_WORK;
        let before = self.out.len();
        let taken = self.take_whole(&header, &body);
        unpacker.give_back(body);
        if taken.is_some() {
            self.leave(&header);
            return full;
        }
        self.out.truncate(before);
        let failed = self.fail(&header, MISFIT);
        match (full, failed) {
            (Some(full), Some(failed)) => {
                self.following = Some(failed);
                Some(full)
            }
            (full, failed) => full.or(failed),
        }
    }

    /// Takes the records of a batch that fits the present piece. `None`: one of them is malformed.
    fn take_whole(&mut self, header: &BatchHeader, body: &[u8]) -> Option<()> {
        self.out.reserve(header.records as usize, body.len());
        self.out.buffer(body, epoch(header.leader_epoch));
        let mut records = Records::new(header);
        while let Some(record) = records.next(header, body).ok()? {
            if record.parts.offset >= self.next.offset {
                self.out.push(record.parts);
            }
        }
        Some(())
    }

    fn validate(
        &mut self,
        header: BatchHeader,
        body: Body,
        mut records: Records,
        unpacker: &mut Unpacker,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        while *work < STEP_WORK_MAX {
            *work += RECORD_WORK;
            match records.next(&header, &body) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.stage = Stage::Taking(header, body, Records::new(&header));
                    return None;
                }
                Err(_) => {
                    unpacker.give_back(body);
                    return self.fail(&header, MISFIT);
                }
            }
        }
        self.stage = Stage::Validating(header, body, records);
        None
    }

    /// Takes records of a large batch until a piece is full or the step is over.
    fn take(
        &mut self,
        header: BatchHeader,
        body: Body,
        mut records: Records,
        unpacker: &mut Unpacker,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        let epoch = epoch(header.leader_epoch);
        while *work < STEP_WORK_MAX {
            let place = records;
            let Ok(Some(Decoded { start, end, parts })) = records.next(&header, &body) else {
                // All records of the batch are valid, so an error here only means the end.
                unpacker.give_back(body);
                self.leave(&header);
                return None;
            };
            *work += RECORD_WORK;
            if parts.offset < self.next.offset {
                continue;
            }
            let len = end - start;
            *work += len;
            let full = self.out.record_bytes() + len > self.limits.bytes
                || self.out.len() >= self.limits.records;
            if full && !self.out.is_empty() {
                self.stage = Stage::Taking(header, body, place);
                return Some(self.flush());
            }
            if self.out.is_empty() {
                let left = (body.len() - start).min(self.limits.bytes.max(len));
                let records = (place.left() as usize).min(self.limits.records);
                self.out.reserve(records, left);
            }
            #[expect(clippy::indexing_slicing, reason = "`Decoded` is a range of this body")]
            self.out.buffer(&body[start..end], epoch);
            self.out.push(parts.shifted_back(start as u32));
            self.next = Next {
                offset: parts.offset.next(),
                epoch,
            };
        }
        self.stage = Stage::Taking(header, body, records);
        None
    }

    /// Leaves a batch that was read or is hidden.
    fn leave(&mut self, header: &BatchHeader) {
        self.leave_batch(header.len);
        self.next = Next {
            offset: end_of(header),
            epoch: epoch(header.leader_epoch),
        };
    }

    /// Leaves the batch at the front, of this length. The place stays.
    fn leave_batch(&mut self, len: usize) {
        self.rest.advance(len);
        self.batches += 1;
        self.stage = Stage::Front;
    }

    /// Leaves a batch that can't be read.
    fn fail(&mut self, header: &BatchHeader, error: RecordError) -> Option<(Piece, Next)> {
        self.leave_batch(header.len);
        self.undecodable(error, end_of(header))
    }

    /// Reports offsets up to `to` as undecodable, behind the records before them.
    fn undecodable(&mut self, error: RecordError, to: Offset) -> Option<(Piece, Next)> {
        let from = self.next.offset;
        if to <= from {
            return None; // Below what is wanted.
        }
        let before = (!self.out.is_empty()).then(|| self.flush());
        self.next.offset = to;
        let piece = (Piece::Undecodable { from, to, error }, self.next);
        match before {
            None => Some(piece),
            Some(before) => {
                self.following = Some(piece);
                Some(before)
            }
        }
    }

    fn end(&mut self, stuck: Option<RecordError>) -> Option<(Piece, Next)> {
        self.stage = Stage::Over(stuck);
        Some(self.flush())
    }

    fn flush(&mut self) -> (Piece, Next) {
        let full = std::mem::replace(&mut self.out, BatchBuilder::new(self.partition));
        (Piece::Records(full.finish()), self.next)
    }
}

const MISFIT: RecordError = RecordError::Malformed("a record's lengths do not fit");

/// The place after a batch.
const fn end_of(header: &BatchHeader) -> Offset {
    Offset(header.last_offset + 1)
}

/// The base offset at the front of `bytes`, or the largest offset if there is none.
fn base_offset(bytes: &[u8]) -> Offset {
    let raw = bytes.first_chunk().map(|raw| i64::from_be_bytes(*raw));
    Offset(raw.map_or(u64::MAX, |raw| raw.max(0) as u64))
}

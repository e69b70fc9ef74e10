//! The records of one partition in a Fetch response: consecutive batches, of which the last may be
//! cut off.
//!
//! A [`Walk`] goes through them in bounded steps and returns [`Piece`]s of bounded size. A batch
//! that fits one piece is decoded in one pass. A larger one is unpacked and checked whole before
//! its first piece is returned, because half a batch never shows. It is cut into chunks of a
//! piece's size meanwhile.

use bytes::{Buf as _, Bytes};

use super::RecordError;
use super::chunks::{Checked, Chunks};
use super::codec::{Begun, Body, Unpacker, Unpacking};
use super::decode::{RECORD_LEN_MIN, Records, epoch};
use super::header::{BatchHeader, CHECKED_FROM, Front, HEADER_LEN, read_front};
use super::limits::{
    BATCH_WORK, CHECKED_BYTES_PER_WORK, PieceLimits, RECORD_WORK, STEP_WORK_MAX, UNPACK_WORK,
};
use super::transactions::{Aborted, Transactions};
use crate::log::{Batch, BatchBuilder, Next};
use crate::model::{Offset, Partition};

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
    /// The batch is being unpacked. If it is larger than a piece, what is unpacked is checked.
    Unpacking(BatchHeader, Unpacking, Chunks),
    /// Nothing is packed any more of a batch larger than a piece. The rest of it is being checked.
    Splitting(BatchHeader, Body, Chunks),
    /// Its chunks become pieces. All records are valid.
    Taking(BatchHeader, Chunks, Records),
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
            Stage::Unpacking(..) | Stage::Splitting(..) | Stage::Taking(..)
        )
    }

    /// Whether a batch is being unpacked: its decoder has memory of its own.
    #[must_use]
    pub const fn is_unpacking(&self) -> bool {
        matches!(self.stage, Stage::Unpacking(..))
    }

    /// Bytes of the present batch that are not packed any more.
    #[must_use]
    pub fn unpacked_bytes(&self) -> usize {
        match &self.stage {
            Stage::Unpacking(_, unpacking, _) => unpacking.len(),
            Stage::Splitting(_, rest, chunks) => chunks.bytes() + rest.len(),
            Stage::Taking(_, chunks, _) => chunks.bytes(),
            Stage::Front | Stage::Checking(..) | Stage::Over(_) => 0,
        }
    }

    /// Bytes that may stay unpacked elsewhere during the next step, if all share what one batch may
    /// have.
    #[must_use]
    pub fn room(&self) -> usize {
        let batch = self.limits.batch_bytes as usize;
        batch.saturating_sub(self.unpacked_bytes() + STEP_WORK_MAX)
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
                Stage::Front => self.front(*budget, &mut work),
                Stage::Checking(header, crc, at) => {
                    self.check(header, crc, at, unpacker, budget, &mut work)
                }
                Stage::Unpacking(header, unpacking, chunks) => {
                    self.unpack(header, unpacking, chunks, unpacker, budget, &mut work)
                }
                Stage::Splitting(header, rest, chunks) => {
                    self.split(header, rest, chunks, &mut work)
                }
                Stage::Taking(header, chunks, records) => {
                    self.take(header, chunks, records, &mut work)
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
    fn front(&mut self, budget: u64, work: &mut usize) -> Option<(Piece, Next)> {
        *work += BATCH_WORK;
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
                let (body, chunks) = (Body::Shared(bytes), Chunks::new(&header));
                self.on_unpacked(header, body, chunks, unpacker, budget, work)
            }
            Ok(Begun::Packed(unpacking)) => {
                *work += UNPACK_WORK;
                self.stage = Stage::Unpacking(header, unpacking, Chunks::new(&header));
                None
            }
            Err(error) => self.fail(&header, error),
        }
    }

    fn unpack(
        &mut self,
        header: BatchHeader,
        mut unpacking: Unpacking,
        mut chunks: Chunks,
        unpacker: &mut Unpacker,
        budget: &mut u64,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        if self.is_large(unpacking.len(), &header) && unpacking.can_be_cut() {
            // Check what is unpacked before more is unpacked, so that little is in one buffer.
            match chunks.check(&header, unpacking.bytes(), false, &self.limits, work) {
                Ok(Checked::Chunk(len)) => {
                    chunks.push(unpacking.cut(len));
                    self.stage = Stage::Unpacking(header, unpacking, chunks);
                    return None;
                }
                Ok(Checked::Spent) => {
                    self.stage = Stage::Unpacking(header, unpacking, chunks);
                    return None;
                }
                Ok(Checked::Partial | Checked::Whole) => {}
                Err(_) => return self.fail(&header, MISFIT),
            }
        }
        let before = unpacking.len();
        let done = unpacking.advance(unpacker, STEP_WORK_MAX);
        *work += unpacking.len() - before;
        match done {
            Ok(true) => {
                let body = unpacking.finish(unpacker);
                self.on_unpacked(header, body, chunks, unpacker, budget, work)
            }
            Ok(false) => {
                self.stage = Stage::Unpacking(header, unpacking, chunks);
                None
            }
            Err(error) => self.fail(&header, error),
        }
    }

    /// Whether a batch with so many bytes, or more, does not fit a piece.
    const fn is_large(&self, bytes: usize, header: &BatchHeader) -> bool {
        bytes > self.limits.bytes || header.records as usize > self.limits.records
    }

    /// Nothing of the batch is packed any more. `body` follows `chunks`.
    fn on_unpacked(
        &mut self,
        header: BatchHeader,
        body: Body,
        chunks: Chunks,
        unpacker: &mut Unpacker,
        budget: &mut u64,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        let bytes = chunks.bytes() + body.len();
        *budget = budget.saturating_sub(bytes as u64);
        let records = header.records as usize;
        if records > bytes / RECORD_LEN_MIN {
            unpacker.give_back(body);
            let error = RecordError::Malformed("more records than bytes");
            return self.fail(&header, error);
        }
        if self.is_large(bytes, &header) {
            let large = body.len() > 2 * self.limits.bytes;
            let body = if large { body.into_shared() } else { body };
            self.stage = Stage::Splitting(header, body, chunks);
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
        while let Some(parts) = records.next(header, body).ok()? {
            if parts.offset >= self.next.offset {
                self.out.push(parts);
            }
        }
        Some(())
    }

    /// Checks the rest of a large batch.
    fn split(
        &mut self,
        header: BatchHeader,
        mut rest: Body,
        mut chunks: Chunks,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        match chunks.check(&header, &rest, true, &self.limits, work) {
            Ok(Checked::Chunk(len)) => chunks.push(rest.split_to(len)),
            Ok(Checked::Whole) => {
                if !rest.is_empty() {
                    chunks.push(rest);
                }
                self.stage = Stage::Taking(header, chunks, Records::new(&header));
                return None;
            }
            Ok(Checked::Spent | Checked::Partial) => {}
            Err(_) => return self.fail(&header, MISFIT),
        }
        self.stage = Stage::Splitting(header, rest, chunks);
        None
    }

    /// Makes a chunk of a large batch the present piece.
    fn take(
        &mut self,
        header: BatchHeader,
        mut chunks: Chunks,
        mut records: Records,
        work: &mut usize,
    ) -> Option<(Piece, Next)> {
        if !self.out.is_empty() {
            self.stage = Stage::Taking(header, chunks, records);
            return Some(self.flush());
        }
        let Some(chunk) = chunks.pop() else {
            self.leave(&header);
            return None;
        };
        let (len, epoch) = (chunk.body.len(), epoch(header.leader_epoch));
        self.out.reserve(chunk.records as usize, 0);
        match chunk.body {
            Body::Own(bytes) => self.out.own_buffer(bytes, epoch),
            Body::Shared(bytes) => {
                *work += len;
                self.out.buffer(bytes, epoch);
            }
        }
        for _ in 0..chunk.records {
            *work += RECORD_WORK;
            let Ok(Some(parts)) = records.next(&header, self.out.newest_buffer()) else {
                break; // All records of a chunk are valid.
            };
            if parts.offset >= self.next.offset {
                self.out.push(parts);
                let offset = parts.offset.next();
                self.next = Next { offset, epoch };
            }
        }
        records.rebase(len);
        if self.out.is_empty() {
            self.out.truncate(0); // All below what is wanted.
        }
        if chunks.is_empty() {
            // Records of the next batch may come into the same piece.
            self.leave(&header);
            return None;
        }
        self.stage = Stage::Taking(header, chunks, records);
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

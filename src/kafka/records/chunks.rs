//! The records of a batch that is larger than a piece, cut into chunks of whole records while the
//! batch is unpacked. Each chunk becomes a piece without a copy, so a batch of many megabytes is
//! never one buffer: growing and freeing such a buffer would hold up its shard for milliseconds.

use std::collections::VecDeque;

use super::codec::Body;
use super::decode::{Misfit, Records};
use super::header::BatchHeader;
use super::limits::{PieceLimits, RECORD_WORK, STEP_WORK_MAX};

/// Checked records of one batch. The buffer that is being filled is not here: its owner gives it to
/// [`Chunks::check`], and cuts it where that says.
#[derive(Debug)]
pub(super) struct Chunks {
    full: VecDeque<Chunk>,
    /// Bytes of the full chunks.
    bytes: usize,
    /// The next record to check. Its position is relative to the buffer that is being filled.
    unchecked: Records,
    /// Records of this buffer that are checked.
    records: u32,
}

/// Some records of a batch, whole and valid.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) body: Body,
    pub(super) records: u32,
}

/// What [`Chunks::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "unless it is `Whole`, more is to be done"]
pub(super) enum Checked {
    /// The first bytes, this many, are a chunk. Give it to [`Chunks::push`], then check again.
    Chunk(usize),
    /// The next record is not all there yet.
    Partial,
    /// The step's work is done.
    Spent,
    /// All records of the batch are valid. What is left of the buffer is the last chunk.
    Whole,
}

impl Chunks {
    /// No chunk yet of the batch with this header.
    pub(super) const fn new(header: &BatchHeader) -> Self {
        Self {
            full: VecDeque::new(),
            bytes: 0,
            unchecked: Records::new(header),
            records: 0,
        }
    }

    /// Bytes of all chunks.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Checks records of `buffer`, which holds what follows the last chunk. `ended`: nothing
    /// follows the buffer.
    pub(super) fn check(
        &mut self,
        header: &BatchHeader,
        buffer: &[u8],
        ended: bool,
        limits: &PieceLimits,
        work: &mut usize,
    ) -> Result<Checked, Misfit> {
        while *work < STEP_WORK_MAX {
            if !ended && !self.unchecked.next_is_in(buffer) {
                return Ok(Checked::Partial);
            }
            *work += RECORD_WORK;
            let before = self.unchecked;
            if self.unchecked.next(header, buffer)?.is_none() {
                return Ok(Checked::Whole);
            }
            let full =
                self.unchecked.at() > limits.bytes || self.records as usize == limits.records;
            if full && self.records > 0 {
                self.unchecked = before;
                return Ok(Checked::Chunk(before.at()));
            }
            self.records += 1;
        }
        Ok(Checked::Spent)
    }

    /// Adds the chunk that [`Self::check`] found at the front of the buffer, or the last one.
    pub(super) fn push(&mut self, body: Body) {
        self.bytes += body.len();
        self.unchecked.rebase(body.len());
        let records = std::mem::take(&mut self.records);
        self.full.push_back(Chunk { body, records });
    }

    /// Takes the first chunk.
    pub(super) fn pop(&mut self) -> Option<Chunk> {
        let chunk = self.full.pop_front()?;
        self.bytes -= chunk.body.len();
        Some(chunk)
    }

    /// Whether all chunks are taken.
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}

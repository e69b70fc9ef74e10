//! Raw snappy in bounded steps. The `snap` crate unpacks a block in one call, however large, and
//! clients that do not frame snappy as the Java client does write a whole batch as one block.

use bytes::{Buf as _, Bytes};

use super::RecordError;

/// Unpacked bytes for one packed byte, at most: an element of 3 bytes copies up to 64.
const BYTES_PER_BYTE_MAX: usize = 64;
/// A block up to this size, which the Java client's blocks have, is unpacked by the `snap` crate in
/// one call: it is twice as fast.
pub(super) const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// A block of raw snappy that is being unpacked. Its elements refer to what is unpacked before
/// them, so all of it stays in one buffer until the block ends.
#[derive(Debug)]
pub(super) struct SnappyBlock {
    packed: Bytes,
    /// Where the block begins and ends in the buffer.
    start: usize,
    end: usize,
    /// What is left of a literal, whose bytes stand for themselves.
    literal: usize,
}

impl SnappyBlock {
    /// A block that is appended to a buffer with `start` bytes.
    pub(super) fn new(packed: Bytes, start: usize) -> Result<Self, RecordError> {
        let len = snap::raw::decompress_len(&packed).map_err(|_| RecordError::Compressed)?;
        // A greater length lies, and is not allocated.
        if len > packed.len().saturating_mul(BYTES_PER_BYTE_MAX) {
            return Err(RecordError::Compressed);
        }
        let (end, literal) = (start + len, 0);
        Ok(Self {
            packed,
            start,
            end,
            literal,
        })
    }

    /// The length of the block once it is unpacked.
    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Unpacks about `bytes` more, and a small block whole. Returns true once the block is
    /// unpacked.
    #[must_use = "unless it is true, call again"]
    pub(super) fn advance(
        &mut self,
        decoder: &mut snap::raw::Decoder,
        out: &mut Vec<u8>,
        bytes: usize,
    ) -> Result<bool, RecordError> {
        if self.len() <= AT_ONCE_BYTES_MAX {
            return self.at_once(decoder, out);
        }
        if out.len() == self.start {
            let varint = self.packed.iter().take_while(|&&byte| byte & 0x80 != 0);
            let varint = varint.count() + 1;
            self.packed.advance(varint.min(self.packed.len()));
            out.reserve_exact(self.len());
        }
        let until = self.end.min(out.len() + bytes);
        while out.len() < until {
            if self.literal == 0 {
                self.element(out)?;
            }
            let taken = self.literal.min(until.saturating_sub(out.len()));
            let bytes = self.packed.get(..taken).ok_or(RecordError::Compressed)?;
            out.extend_from_slice(bytes);
            self.packed.advance(taken);
            self.literal -= taken;
        }
        let whole = out.len() == self.end;
        if whole && (!self.packed.is_empty() || self.literal > 0) {
            return Err(RecordError::Compressed);
        }
        Ok(whole)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "start is the length before the resize"
    )]
    fn at_once(
        &self,
        decoder: &mut snap::raw::Decoder,
        out: &mut Vec<u8>,
    ) -> Result<bool, RecordError> {
        out.resize(self.end, 0);
        match decoder.decompress(&self.packed, &mut out[self.start..]) {
            Ok(len) if len == self.len() => Ok(true),
            _ => Err(RecordError::Compressed),
        }
    }

    /// Reads an element: does its copy, or begins its literal.
    fn element(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let tag = self.number(1)?;
        let upper = tag >> 2;
        let (len, offset) = match tag & 3 {
            0 => {
                // Above 59 the length is in the next 1 to 4 bytes.
                let len = match upper.saturating_sub(59) {
                    0 => upper,
                    bytes => self.number(bytes)?,
                };
                self.literal = len + 1;
                return Ok(());
            }
            1 => (4 + (upper & 7), (tag >> 5) << 8 | self.number(1)?),
            2 => (1 + upper, self.number(2)?),
            _ => (1 + upper, self.number(4)?),
        };
        let from = out.len().checked_sub(offset);
        let from = from.filter(|from| *from >= self.start && offset > 0);
        let from = from.ok_or(RecordError::Compressed)?;
        if out.len() + len > self.end {
            return Err(RecordError::Compressed);
        }
        // A copy longer than its offset reads what it writes, and so repeats it.
        let mut left = len;
        while left > 0 {
            let step = left.min(out.len() - from);
            out.extend_from_within(from..from + step);
            left -= step;
        }
        Ok(())
    }

    /// A little-endian number of up to 4 bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, RecordError> {
        let raw = self.packed.get(..bytes).ok_or(RecordError::Compressed)?;
        let digits = raw.iter().rev();
        let number = digits.fold(0, |number, &byte| number << 8 | usize::from(byte));
        self.packed.advance(bytes);
        Ok(number)
    }
}

//! Unpacks compressed batches, never beyond a cap: a few bytes of any of these formats can stand
//! for gigabytes, and what a batch claims about itself is not believed.

use std::io::Read;

use bytes::Bytes;
use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::RecordError;

/// Decoders whose state is worth keeping from batch to batch.
pub struct Unpacker {
    zstd: Option<ZstdDecoder<'static>>,
    snappy: snap::raw::Decoder,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unpacker")
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::new()
    }
}

impl Unpacker {
    /// Costs nothing until the first compressed batch.
    #[must_use]
    pub fn new() -> Self {
        let snappy = snap::raw::Decoder::new();
        Self { zstd: None, snappy }
    }

    /// The uncompressed records section of a batch, at most `cap` bytes: `packed` itself for codec
    /// 0, else a new buffer. Uncompressed sections have the same limit. Otherwise a batch's codec
    /// would decide whether it can be read.
    pub(super) fn unpack(
        &mut self,
        codec: u8,
        packed: Bytes,
        cap: u32,
    ) -> Result<Bytes, RecordError> {
        let mut out = match codec {
            0 if packed.len() > cap as usize => return Err(RecordError::TooLarge(cap)),
            0 => return Ok(packed),
            1 => read_capped(flate2::bufread::MultiGzDecoder::new(&packed[..]), cap)?,
            2 => self.snappy(&packed, cap)?,
            3 => read_capped(lz4_flex::frame::FrameDecoder::new(&packed[..]), cap)?,
            4 => self.zstd(&packed, cap)?,
            _ => return Err(RecordError::Codec(codec)),
        };
        if out.capacity() > out.len() + out.len() / 2 {
            out.shrink_to_fit(); // What waits for a slow reader is counted by length.
        }
        Ok(Bytes::from(out))
    }

    /// Raw snappy, or the framing of the Java client (xerial): a 16-byte header, then blocks of a
    /// big-endian length and raw snappy.
    fn snappy(&mut self, packed: &[u8], cap: u32) -> Result<Vec<u8>, RecordError> {
        const XERIAL: &[u8; 8] = b"\x82SNAPPY\0";
        let mut out = Vec::new();
        if !packed.starts_with(XERIAL) {
            self.snappy_block(packed, cap, &mut out)?;
            return Ok(out);
        }
        let mut rest = packed.get(16..).ok_or(RecordError::Compressed)?;
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*len) as usize;
            let (block, tail) = tail.split_at_checked(len).ok_or(RecordError::Compressed)?;
            self.snappy_block(block, cap, &mut out)?;
            rest = tail;
        }
        match rest {
            [] => Ok(out),
            _ => Err(RecordError::Compressed),
        }
    }

    fn snappy_block(
        &mut self,
        block: &[u8],
        cap: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let len = snap::raw::decompress_len(block).map_err(|_| RecordError::Compressed)?;
        // The densest element is 64 bytes from 2: a greater length lies, and is not allocated.
        if len > block.len().saturating_mul(64) {
            return Err(RecordError::Compressed);
        }
        if out.len() + len > cap as usize {
            return Err(RecordError::TooLarge(cap));
        }
        let start = out.len();
        out.resize(start + len, 0);
        match self.snappy.decompress(block, &mut out[start..]) {
            Ok(n) if n == len => Ok(()),
            _ => Err(RecordError::Compressed),
        }
    }

    fn zstd(&mut self, packed: &[u8], cap: u32) -> Result<Vec<u8>, RecordError> {
        let corrupt = |_| RecordError::Compressed;
        let decoder = match &mut self.zstd {
            Some(decoder) => decoder,
            none => none.insert(ZstdDecoder::new().map_err(corrupt)?),
        };
        decoder.reinit().map_err(corrupt)?;
        let mut out = Vec::with_capacity(first_guess(packed.len(), cap));
        let mut input = InBuffer::around(packed);
        loop {
            let (read, written) = (input.pos(), out.len());
            let mut output = OutBuffer::around_pos(&mut out, written);
            let hint = decoder.run(&mut input, &mut output).map_err(corrupt)?;
            let full = output.pos() == output.capacity();
            if out.len() > cap as usize {
                return Err(RecordError::TooLarge(cap));
            }
            let ended = input.pos() == packed.len();
            match hint {
                0 if ended => return Ok(out),
                _ if full => {
                    // One byte beyond the cap tells "too large" from "just fits".
                    let room = (cap as usize + 1).saturating_sub(out.len());
                    out.reserve_exact(out.len().max(1024).min(room));
                }
                _ if ended || (input.pos() == read && out.len() == written) => {
                    return Err(RecordError::Compressed);
                }
                _ => {}
            }
        }
    }
}

/// What records usually unpack to, so that most batches are allocated once.
fn first_guess(packed: usize, cap: u32) -> usize {
    packed.saturating_mul(4).min(cap as usize).max(64)
}

fn read_capped(mut reader: impl Read, cap: u32) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    let mut chunk = reader.by_ref().take(u64::from(cap) + 1);
    chunk
        .read_to_end(&mut out)
        .map_err(|_| RecordError::Compressed)?;
    match out.len() > cap as usize {
        true => Err(RecordError::TooLarge(cap)),
        false => Ok(out),
    }
}

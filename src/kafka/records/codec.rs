//! Unpacks compressed batches, never beyond a cap. A few bytes of any of these formats can unpack
//! to gigabytes, and what a batch claims about itself is not believed. A batch is unpacked in
//! pieces, so that a large one does not hold up its shard.
//!
//! Not every format can stop anywhere. The largest piece that can't be interrupted is 128 KiB of
//! zstd (its block), the block size of lz4 (64 KiB as Kafka writes it, 4 MiB at most), 32 KiB of
//! snappy as the Java client frames it, and a whole batch of raw snappy, which has no blocks.

use std::io::Read;

use bytes::{Buf as _, Bytes, buf::Reader};
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::RecordError;

/// Capacity of a kept buffer, at most. A larger one was needed for one large batch.
pub(super) const SCRATCH_BYTES_KEPT: usize = 256 << 10;

/// The header of the Java client's snappy framing (xerial): a magic of 8 bytes and two versions.
const XERIAL_HEADER_LEN: usize = 16;
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";

/// What is worth keeping from batch to batch: a decoder's state and a buffer.
pub struct Unpacker {
    zstd: Option<ZstdDecoder<'static>>,
    snappy: snap::raw::Decoder,
    scratch: Vec<u8>,
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

/// The records section of a batch on its way out of its compression.
pub(super) struct Unpacking {
    format: Format,
    out: Vec<u8>,
    cap: u32,
}

impl std::fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unpacking {{ {} bytes }}", self.out.len())
    }
}

/// How the rest is packed.
enum Format {
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    /// One block of raw snappy.
    Snappy(Bytes),
    /// Blocks, each a big-endian length and raw snappy.
    Xerial(Bytes),
    Lz4(Box<FrameDecoder<Reader<Bytes>>>),
    Zstd {
        decoder: ZstdDecoder<'static>,
        packed: Bytes,
        at: usize,
    },
}

/// The records section of a batch, not compressed.
#[derive(Debug)]
pub(super) enum Body {
    /// As the broker sent them.
    Sent(Bytes),
    /// In a buffer of their own. See [`Unpacker::give_back`].
    Unpacked(Vec<u8>),
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Sent(bytes) => bytes,
            Self::Unpacked(bytes) => bytes,
        }
    }
}

/// What becomes of a records section at first.
#[derive(Debug)]
pub(super) enum Begun {
    /// The section was not compressed.
    Whole(Bytes),
    /// The section has to be unpacked.
    Packed(Unpacking),
}

impl Unpacker {
    /// Costs nothing until the first compressed batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            zstd: None,
            snappy: snap::raw::Decoder::new(),
            scratch: Vec::new(),
        }
    }

    /// Begins with the records section of a batch, which has at most `cap` bytes unpacked.
    /// Uncompressed sections have the same limit. Otherwise a batch's codec would decide whether it
    /// can be read.
    pub(super) fn begin(
        &mut self,
        codec: u8,
        packed: Bytes,
        cap: u32,
    ) -> Result<Begun, RecordError> {
        let format = match codec {
            0 if packed.len() > cap as usize => return Err(RecordError::TooLarge(cap)),
            0 => return Ok(Begun::Whole(packed)),
            1 => Format::Gzip(Box::new(MultiGzDecoder::new(packed.reader()))),
            2 if !packed.starts_with(XERIAL_MAGIC) => Format::Snappy(packed),
            2 if packed.len() < XERIAL_HEADER_LEN => return Err(RecordError::Compressed),
            2 => Format::Xerial(packed.slice(XERIAL_HEADER_LEN..)),
            3 => Format::Lz4(Box::new(FrameDecoder::new(packed.reader()))),
            4 => Format::Zstd {
                decoder: self.take_zstd()?,
                packed,
                at: 0,
            },
            _ => return Err(RecordError::Codec(codec)),
        };
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        Ok(Begun::Packed(Unpacking { format, out, cap }))
    }

    /// Takes back the buffer of a body that is no longer needed.
    pub(super) fn give_back(&mut self, body: Body) {
        if let Body::Unpacked(bytes) = body
            && bytes.capacity() <= SCRATCH_BYTES_KEPT
        {
            self.scratch = bytes;
        }
    }

    fn take_zstd(&mut self) -> Result<ZstdDecoder<'static>, RecordError> {
        let corrupt = |_| RecordError::Compressed;
        let mut decoder = match self.zstd.take() {
            Some(decoder) => decoder,
            None => ZstdDecoder::new().map_err(corrupt)?,
        };
        decoder.reinit().map_err(corrupt)?;
        Ok(decoder)
    }

    /// The whole section at once.
    #[cfg(any(test, fuzzing))]
    pub(super) fn unpack(
        &mut self,
        codec: u8,
        packed: Bytes,
        cap: u32,
    ) -> Result<Bytes, RecordError> {
        let mut unpacking = match self.begin(codec, packed, cap)? {
            Begun::Whole(bytes) => return Ok(bytes),
            Begun::Packed(unpacking) => unpacking,
        };
        while !unpacking.advance(self, 1000)? {}
        let body = unpacking.finish(self);
        let bytes = Bytes::copy_from_slice(&body);
        self.give_back(body);
        Ok(bytes)
    }
}

impl Unpacking {
    /// Unpacks about `bytes` more. Returns true once all is unpacked.
    #[must_use = "unless it is true, call again"]
    pub(super) fn advance(
        &mut self,
        unpacker: &mut Unpacker,
        bytes: usize,
    ) -> Result<bool, RecordError> {
        let Self { format, out, cap } = self;
        match format {
            Format::Gzip(decoder) => read_more(decoder, out, *cap, bytes),
            Format::Lz4(decoder) => read_more(decoder, out, *cap, bytes),
            Format::Snappy(block) => {
                snappy_block(&mut unpacker.snappy, block, *cap, out)?;
                Ok(true)
            }
            Format::Xerial(rest) => {
                let end = out.len() + bytes;
                while out.len() < end {
                    if rest.is_empty() {
                        return Ok(true);
                    }
                    if rest.len() < 4 {
                        return Err(RecordError::Compressed);
                    }
                    let len = rest.get_u32() as usize;
                    if len > rest.len() {
                        return Err(RecordError::Compressed);
                    }
                    let block = rest.split_to(len);
                    snappy_block(&mut unpacker.snappy, &block, *cap, out)?;
                }
                Ok(false)
            }
            Format::Zstd {
                decoder,
                packed,
                at,
            } => zstd_more(decoder, packed, at, out, *cap, bytes),
        }
    }

    /// How much is unpacked so far.
    pub(super) const fn len(&self) -> usize {
        self.out.len()
    }

    /// Returns the unpacked section, once [`Self::advance`] has returned true.
    pub(super) fn finish(self, unpacker: &mut Unpacker) -> Body {
        if let Format::Zstd { decoder, .. } = self.format {
            unpacker.zstd = Some(decoder);
        }
        Body::Unpacked(self.out)
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "start is the length before the resize"
)]
fn snappy_block(
    decoder: &mut snap::raw::Decoder,
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
    match decoder.decompress(block, &mut out[start..]) {
        Ok(n) if n == len => Ok(()),
        _ => Err(RecordError::Compressed),
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "start is the length before the resize; at, what was read"
)]
fn zstd_more(
    decoder: &mut ZstdDecoder<'static>,
    packed: &[u8],
    at: &mut usize,
    out: &mut Vec<u8>,
    cap: u32,
    bytes: usize,
) -> Result<bool, RecordError> {
    let end = out.len() + bytes;
    while out.len() < end {
        // One byte beyond the cap tells "too large" from "just fits".
        let room = (cap as usize + 1).saturating_sub(out.len());
        let start = out.len();
        let guess = match start {
            0 => first_guess(packed.len(), cap),
            _ => start.max(1024),
        };
        let offered = guess.min(end - start);
        out.resize(start + offered.min(room), 0);
        let mut input = InBuffer::around(&packed[*at..]);
        let mut output = OutBuffer::around(&mut out[start..]);
        let ran = decoder.run(&mut input, &mut output);
        let (read, written) = (input.pos(), output.pos());
        let full = start + written == out.len();
        out.truncate(start + written);
        let hint = ran.map_err(|_| RecordError::Compressed)?;
        *at += read;
        if out.len() > cap as usize {
            return Err(RecordError::TooLarge(cap));
        }
        let ended = *at == packed.len();
        match hint {
            0 if ended => return Ok(true),
            _ if full => {}
            _ if ended || (read == 0 && written == 0) => return Err(RecordError::Compressed),
            _ => {}
        }
    }
    Ok(false)
}

fn read_more(
    reader: &mut impl Read,
    out: &mut Vec<u8>,
    cap: u32,
    bytes: usize,
) -> Result<bool, RecordError> {
    let room = (cap as usize + 1).saturating_sub(out.len());
    let wanted = bytes.min(room);
    let read = reader
        .take(wanted as u64)
        .read_to_end(out)
        .map_err(|_| RecordError::Compressed)?;
    if out.len() > cap as usize {
        Err(RecordError::TooLarge(cap))
    } else {
        Ok(read < wanted)
    }
}

/// What records usually unpack to, so that most batches take one call.
fn first_guess(packed: usize, cap: u32) -> usize {
    packed.saturating_mul(4).min(cap as usize).max(64)
}

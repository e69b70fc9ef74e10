//! Unpacks compressed batches, never beyond a cap. A few bytes of any of these formats can unpack
//! to gigabytes, and what a batch claims about itself is not believed. A batch is unpacked in
//! pieces, so that a large one does not hold up its shard.
//!
//! Not every format can stop anywhere. The most that is unpacked without a stop is 128 KiB of zstd
//! (its block) and the block size of lz4: 64 KiB as Kafka's clients write it, 4 MiB at most.

use std::io::Read;

use bytes::{Buf as _, Bytes, buf::Reader};
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::RecordError;
use super::snappy::SnappyBlock;

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
    out: Output,
}

impl std::fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unpacking {{ {} bytes }}", self.len())
    }
}

/// What is unpacked. A batch has at most `cap` bytes of it.
struct Output {
    /// What [`Unpacking::cut`] has left.
    bytes: Vec<u8>,
    /// The number of bytes that were cut off.
    cut: usize,
    cap: u32,
}

/// How the rest is packed.
enum Format {
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    /// One block of raw snappy.
    Snappy(SnappyBlock),
    /// Blocks, each a big-endian length and raw snappy.
    Xerial {
        block: Option<SnappyBlock>,
        rest: Bytes,
    },
    Lz4(Box<FrameDecoder<Reader<Bytes>>>),
    Zstd {
        decoder: ZstdDecoder<'static>,
        packed: Bytes,
        at: usize,
    },
}

/// Records of a batch, not compressed.
#[derive(Debug)]
pub(super) enum Body {
    /// Part of a larger buffer, such as the broker's response.
    Shared(Bytes),
    /// In a buffer of their own. See [`Unpacker::give_back`].
    Own(Vec<u8>),
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl Body {
    /// Takes the first `len` bytes.
    pub(super) fn split_to(&mut self, len: usize) -> Self {
        match self {
            Self::Shared(bytes) => Self::Shared(bytes.split_to(len)),
            Self::Own(bytes) => Self::Own(split_to(bytes, len)),
        }
    }

    /// The same bytes, so that taking some of them copies none.
    pub(super) fn into_shared(self) -> Self {
        match self {
            Self::Own(bytes) => Self::Shared(Bytes::from(bytes)),
            shared @ Self::Shared(_) => shared,
        }
    }
}

/// Takes the first `len` bytes without a copy, and copies the rest.
fn split_to(bytes: &mut Vec<u8>, len: usize) -> Vec<u8> {
    let rest = bytes.split_off(len);
    let mut first = std::mem::replace(bytes, rest);
    if first.capacity() > len + len / 4 {
        first.shrink_to_fit();
    }
    first
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
        let mut out = Output {
            bytes: Vec::new(),
            cut: 0,
            cap,
        };
        let format = match codec {
            0 if packed.len() > cap as usize => return Err(RecordError::TooLarge(cap)),
            0 => return Ok(Begun::Whole(packed)),
            1 => Format::Gzip(Box::new(MultiGzDecoder::new(packed.reader()))),
            2 if !packed.starts_with(XERIAL_MAGIC) => Format::Snappy(out.snappy(packed)?),
            2 if packed.len() < XERIAL_HEADER_LEN => return Err(RecordError::Compressed),
            2 => Format::Xerial {
                block: None,
                rest: packed.slice(XERIAL_HEADER_LEN..),
            },
            3 => Format::Lz4(Box::new(FrameDecoder::new(packed.reader()))),
            4 => Format::Zstd {
                decoder: self.take_zstd()?,
                packed,
                at: 0,
            },
            _ => return Err(RecordError::Codec(codec)),
        };
        out.bytes = std::mem::take(&mut self.scratch);
        out.bytes.clear();
        Ok(Begun::Packed(Unpacking { format, out }))
    }

    /// Takes back the buffer of a body that is no longer needed.
    pub(super) fn give_back(&mut self, body: Body) {
        if let Body::Own(bytes) = body
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
        let Self { format, out } = self;
        match format {
            Format::Gzip(decoder) => out.read_more(decoder, bytes),
            Format::Lz4(decoder) => out.read_more(decoder, bytes),
            Format::Snappy(block) => block.advance(&mut unpacker.snappy, &mut out.bytes, bytes),
            Format::Xerial { block, rest } => {
                let end = out.bytes.len() + bytes;
                while out.bytes.len() < end {
                    let mut present = match block.take() {
                        Some(present) => present,
                        None if rest.is_empty() => return Ok(true),
                        None => out.snappy(next_frame(rest)?)?,
                    };
                    let left = end - out.bytes.len();
                    if !present.advance(&mut unpacker.snappy, &mut out.bytes, left)? {
                        *block = Some(present);
                    }
                }
                Ok(false)
            }
            Format::Zstd {
                decoder,
                packed,
                at,
            } => out.zstd_more(decoder, packed, at, bytes),
        }
    }

    /// How much is unpacked so far, with what was cut off.
    pub(super) const fn len(&self) -> usize {
        self.out.cut + self.out.bytes.len()
    }

    /// What is unpacked and not cut off.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.out.bytes
    }

    /// Whether [`Self::cut`] may be called. The bytes of a snappy block are read again until it
    /// ends.
    pub(super) const fn can_be_cut(&self) -> bool {
        !matches!(
            self.format,
            Format::Snappy(_) | Format::Xerial { block: Some(_), .. }
        )
    }

    /// Cuts off the first `len` of [`Self::bytes`].
    pub(super) fn cut(&mut self, len: usize) -> Body {
        let first = split_to(&mut self.out.bytes, len);
        // The rest grows to about as much, and by what is unpacked at once.
        self.out.bytes.reserve(len + len / 4);
        self.out.cut += len;
        Body::Own(first)
    }

    /// Returns what is not cut off, once [`Self::advance`] has returned true.
    pub(super) fn finish(self, unpacker: &mut Unpacker) -> Body {
        if let Format::Zstd { decoder, .. } = self.format {
            unpacker.zstd = Some(decoder);
        }
        Body::Own(self.out.bytes)
    }
}

/// The packed bytes of the next block in the Java client's framing.
fn next_frame(rest: &mut Bytes) -> Result<Bytes, RecordError> {
    if rest.len() < 4 {
        return Err(RecordError::Compressed);
    }
    let len = rest.get_u32() as usize;
    if len > rest.len() {
        return Err(RecordError::Compressed);
    }
    Ok(rest.split_to(len))
}

impl Output {
    /// The number of bytes that may follow, and one: it tells "too large" from "just fits".
    const fn room(&self) -> usize {
        (self.cap as usize + 1).saturating_sub(self.cut + self.bytes.len())
    }

    const fn check(&self) -> Result<(), RecordError> {
        if self.room() == 0 {
            return Err(RecordError::TooLarge(self.cap));
        }
        Ok(())
    }

    /// A block of snappy that is unpacked behind the present bytes.
    fn snappy(&self, packed: Bytes) -> Result<SnappyBlock, RecordError> {
        let block = SnappyBlock::new(packed, self.bytes.len())?;
        if block.len() >= self.room() {
            return Err(RecordError::TooLarge(self.cap));
        }
        Ok(block)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "start is the length before the resize; at, what was read"
    )]
    fn zstd_more(
        &mut self,
        decoder: &mut ZstdDecoder<'static>,
        packed: &[u8],
        at: &mut usize,
        bytes: usize,
    ) -> Result<bool, RecordError> {
        let end = self.bytes.len() + bytes;
        while self.bytes.len() < end {
            let start = self.bytes.len();
            let guess = match self.cut + start {
                0 => first_guess(packed.len(), self.cap),
                unpacked => unpacked.max(1024),
            };
            let offered = guess.min(end - start).min(self.room());
            self.bytes.resize(start + offered, 0);
            let mut input = InBuffer::around(&packed[*at..]);
            let mut output = OutBuffer::around(&mut self.bytes[start..]);
            let ran = decoder.run(&mut input, &mut output);
            let (read, written) = (input.pos(), output.pos());
            let full = start + written == self.bytes.len();
            self.bytes.truncate(start + written);
            let hint = ran.map_err(|_| RecordError::Compressed)?;
            *at += read;
            self.check()?;
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

    fn read_more(&mut self, reader: &mut impl Read, bytes: usize) -> Result<bool, RecordError> {
        let wanted = bytes.min(self.room());
        let read = reader
            .take(wanted as u64)
            .read_to_end(&mut self.bytes)
            .map_err(|_| RecordError::Compressed)?;
        self.check()?;
        Ok(read < wanted)
    }
}

/// What records usually unpack to, so that most batches take one call.
fn first_guess(packed: usize, cap: u32) -> usize {
    packed.saturating_mul(4).min(cap as usize).max(64)
}

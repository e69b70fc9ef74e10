//! Decompression of record bodies, under an output limit. Nothing is compressed here: the batches
//! that the broker writes itself (control batches, compacted batches) are stored plain.

use std::borrow::Cow;
use std::io::Read;

/// Bytes that one batch may decompress to. A larger batch is rejected with CORRUPT_MESSAGE.
pub(super) const INFLATED_BYTES_MAX: usize = 64 << 20;

/// Header of the block format that Java's snappy library writes and Kafka's clients follow.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;

/// Decompresses the records of a batch. `codec` is the low three bits of the batch's attributes.
/// Returns `None` if the codec is unknown, the bytes are not of it, or they decompress to more than
/// [`INFLATED_BYTES_MAX`].
pub(super) fn inflate(codec: i16, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    match codec {
        0 => Some(Cow::Borrowed(bytes)),
        1 => limited(flate2::read::GzDecoder::new(bytes)),
        2 => snappy(bytes).map(Cow::Owned),
        3 => limited(lz4_flex::frame::FrameDecoder::new(bytes)),
        4 => limited(zstd::stream::read::Decoder::new(bytes).ok()?),
        _ => None,
    }
}

fn limited<'a>(reader: impl Read) -> Option<Cow<'a, [u8]>> {
    let mut out = Vec::new();
    let limit = INFLATED_BYTES_MAX as u64 + 1;
    reader.take(limit).read_to_end(&mut out).ok()?;
    (out.len() <= INFLATED_BYTES_MAX).then_some(Cow::Owned(out))
}

fn snappy(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        snappy_block(bytes, &mut out)?;
        return Some(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER..)?;
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk()?;
        let len = u32::from_be_bytes(*len) as usize;
        snappy_block(tail.get(..len)?, &mut out)?;
        rest = &tail[len..];
    }
    Some(out)
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let len = snap::raw::decompress_len(block).ok()?;
    let start = out.len();
    if len > INFLATED_BYTES_MAX - start {
        return None;
    }
    out.resize(start + len, 0);
    let taken = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .ok()?;
    (taken == len).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_bomb_is_refused_in_every_codec() {
        let zeros = vec![0_u8; INFLATED_BYTES_MAX + 1];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&zeros).expect("into memory");
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&zeros).expect("into memory");
        let snappy = snap::raw::Encoder::new()
            .compress_vec(&zeros)
            .expect("below 4 GiB");
        let bombs = [
            gzip.finish().expect("into memory"),
            snappy,
            lz4.finish().expect("into memory"),
            zstd::encode_all(&zeros[..], 1).expect("into memory"),
        ];
        for (codec, bomb) in (1..).zip(&bombs) {
            assert!(inflate(codec, bomb).is_none(), "codec {codec}");
        }
    }

    #[test]
    fn snappy_comes_bare_or_in_xerial_blocks() {
        let block = snap::raw::Encoder::new()
            .compress_vec(b"hello")
            .expect("short");
        assert_eq!(inflate(2, &block).as_deref(), Some(&b"hello"[..]));
        let mut framed = [XERIAL_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for _ in 0..2 {
            framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            framed.extend_from_slice(&block);
        }
        assert_eq!(inflate(2, &framed).as_deref(), Some(&b"hellohello"[..]));
        framed.truncate(framed.len() - 1);
        assert_eq!(inflate(2, &framed), None);
    }
}

//! How HTTP/1 frames the body behind a response head.

/// The framing of the bytes behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The response is complete: no byte follows.
    Nothing,
    /// Unframed bytes, until the connection is closed.
    Bytes,
    /// Chunks, until [`Framed::end`] writes the last of them.
    Chunks,
}

/// How a response continues behind the bytes that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it says whether a body follows and whether the connection ends"]
pub struct Framed {
    /// The framing of the pieces that follow.
    pub follows: Follows,
    /// Close the connection after the last byte.
    pub close: bool,
}

impl Framed {
    /// Appends one piece of the body, framed as the head announced. An empty piece is skipped,
    /// because an empty chunk would end the body.
    pub fn piece(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self.follows {
            Follows::Nothing => {}
            Follows::Bytes => out.extend_from_slice(bytes),
            Follows::Chunks if bytes.is_empty() => {}
            Follows::Chunks => {
                out.extend_from_slice(ChunkHead::new(bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(CHUNK_END);
            }
        }
    }

    /// Appends the end of a body that came in pieces.
    pub fn end(&self, out: &mut Vec<u8>) {
        if self.follows == Follows::Chunks {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}

/// The bytes after a chunk's data (RFC 9112 7.1).
pub const CHUNK_END: &[u8] = b"\r\n";

/// The chunk of size zero and the end of a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Hex digits of the largest size, and CR LF.
const CHUNK_HEAD_BYTES: usize = usize::BITS as usize / 4 + 2;

/// The bytes before a chunk's data (RFC 9112 7.1): the size in hex digits without leading zeros,
/// and CR LF. Stored in place, so that a chunk can be sent without moving its data.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    size: usize,
    text: [u8; CHUNK_HEAD_BYTES],
    start: usize,
}

impl ChunkHead {
    /// The head of a chunk with `size` bytes of data. Size 0 is the last chunk's.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "CHUNK_HEAD_BYTES has room for the largest size"
    )]
    pub const fn new(size: usize) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'\n'; CHUNK_HEAD_BYTES];
        let mut start = CHUNK_HEAD_BYTES - 2;
        text[start] = b'\r';
        let mut left = size;
        loop {
            start -= 1;
            text[start] = HEX[left & 15];
            left >>= 4;
            if left == 0 {
                return Self { size, text, start };
            }
        }
    }

    /// How many bytes of data the chunk has.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// How many bytes the head has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        CHUNK_HEAD_BYTES - self.start
    }

    /// The bytes of the head.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_chunk_says_its_size(size in prop_oneof![0_usize..70_000, any::<usize>()]) {
            let head = ChunkHead::new(size);
            prop_assert_eq!(head.as_bytes().to_vec(), format!("{size:x}\r\n").into_bytes());
        }
    }
}

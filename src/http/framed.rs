//! What follows a response head, and how it is framed.

/// What must follow a finished head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing: the response is whole.
    Nothing,
    /// Exactly as many bytes as were announced, or any until the close.
    Bytes,
    /// Chunks, ended by [`Framed::end`].
    Chunks,
}

/// How a response goes on after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it says whether a body follows and whether the connection ends"]
pub struct Framed {
    /// What follows.
    pub follows: Follows,
    /// Close the connection after the last byte.
    pub close: bool,
}

impl Framed {
    /// Appends one piece of a streamed body, framed as it was announced. An empty piece is none: as
    /// a chunk it would end the body.
    pub fn piece(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self.follows {
            Follows::Nothing => {}
            Follows::Bytes => out.extend_from_slice(bytes),
            Follows::Chunks if bytes.is_empty() => {}
            Follows::Chunks => {
                write_chunk_size(out, bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Appends the end of a streamed body.
    pub fn end(&self, out: &mut Vec<u8>) {
        if self.follows == Follows::Chunks {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// RFC 9112 7.1: hex digits without leading zeros, and the line's end.
fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(HEX[(size >> (at * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_chunk_says_its_size(size in 1_usize..70_000) {
            let mut out = Vec::new();
            write_chunk_size(&mut out, size);
            prop_assert_eq!(out, format!("{size:x}\r\n").into_bytes());
        }
    }
}

//! Entity tags (RFC 9110 8.8.3) as this product makes them.

use std::fmt;

use smallvec::SmallVec;

use super::{LogTag, Offset, Partition};

/// The opaque part of an entity tag, without quotes: only `[A-Za-z0-9_=-]`, so it stands unescaped
/// in an `ETag`, in an event id and in a URL. At most 128 bytes; longer source values are refused
/// by whoever makes one and fall back to the position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etag(SmallVec<[u8; 40]>);

impl Etag {
    /// Bytes an etag may have.
    pub const LEN_MAX: usize = 128;

    /// The etag of a record that brings none: `tag-partition-offset`.
    #[must_use]
    pub fn from_position(tag: LogTag, partition: Partition, offset: Offset) -> Self {
        let mut number = itoa::Buffer::new();
        let mut bytes = SmallVec::new();
        bytes.extend_from_slice(tag.to_string().as_bytes());
        bytes.push(b'-');
        bytes.extend_from_slice(number.format(partition.0).as_bytes());
        bytes.push(b'-');
        bytes.extend_from_slice(number.format(offset.0).as_bytes());
        Self(bytes)
    }

    /// The etag a record's `etag` header asks for. Bytes outside the alphabet, and `=`, become
    /// `=XX` (hex), so that distinct headers stay distinct. `None` if the result is too long or
    /// the header is empty.
    #[must_use]
    pub fn from_header(header: &[u8]) -> Option<Self> {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut bytes = SmallVec::new();
        for &b in header {
            if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-') {
                bytes.push(b);
            } else {
                bytes.extend_from_slice(&[
                    b'=',
                    HEX[usize::from(b >> 4)],
                    HEX[usize::from(b & 15)],
                ]);
            }
        }
        (!bytes.is_empty() && bytes.len() <= Self::LEN_MAX).then_some(Self(bytes))
    }

    /// The bytes, without quotes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII is let in")
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

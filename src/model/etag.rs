//! Entity tags (RFC 9110 8.8.3), written by services or derived for records without one.

use std::fmt;

use smallvec::SmallVec;

use super::{LogTag, Offset, Partition};

/// An entity tag as in the header `ETag`: `"7"`, or `W/"7"`. The bytes between the quotes are
/// exactly those that the service wrote, because clients send them back and the service compares
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etag(SmallVec<[u8; 40]>);

/// The escaped etag in an event id.
type EventIdPart = SmallVec<[u8; 40]>;

impl Etag {
    /// Most bytes between the quotes.
    pub const LEN_MAX: usize = 128;

    /// Ends the tag of content in gzip. No service writes such a tag, so a client's condition can
    /// be read without knowing in which coding it has the content.
    pub const GZIP_SUFFIX: &'static [u8] = b";gzip";

    /// Most bytes of [`Self::event_id_part`]: every byte of a weak tag escaped.
    pub const EVENT_ID_PART_MAX: usize = 3 * (Self::LEN_MAX + b"W/\"\"".len());

    /// Bytes of the etag part of a record's event id, at most, if the record has so many bytes of
    /// headers. Without headers the tag names the record's position.
    #[must_use]
    pub const fn event_id_part_max(headers: usize) -> usize {
        const POSITION_MAX: usize = b"01020304-4294967295-18446744073709551615".len();
        match headers * 3 {
            len if len < POSITION_MAX => POSITION_MAX,
            len if len < Self::EVENT_ID_PART_MAX => len,
            _ => Self::EVENT_ID_PART_MAX,
        }
    }

    /// The tag of a record without an etag header: `"tag-partition-offset"`.
    #[must_use]
    pub fn from_position(tag: LogTag, partition: Partition, offset: Offset) -> Self {
        let mut number = itoa::Buffer::new();
        let mut bytes = SmallVec::new();
        bytes.push(b'"');
        bytes.extend_from_slice(tag.to_string().as_bytes());
        bytes.push(b'-');
        bytes.extend_from_slice(number.format(partition.0).as_bytes());
        bytes.push(b'-');
        bytes.extend_from_slice(number.format(offset.0).as_bytes());
        bytes.push(b'"');
        Self(bytes)
    }

    /// Parses the etag header of a record: `7`, `"7"` or `W/"7"`; the first two are the same tag.
    /// Returns `None` if HTTP can't carry the tag: it is empty, longer than [`Self::LEN_MAX`], or
    /// has a space, a quote or a control byte. Such a tag is not escaped, because the service would
    /// not recognise it.
    #[must_use]
    pub fn from_header(header: &[u8]) -> Option<Self> {
        match header.trim_ascii() {
            [b'W', b'/', b'"', opaque @ .., b'"'] => Self::new(true, opaque),
            [b'"', opaque @ .., b'"'] | opaque => Self::new(false, opaque),
        }
    }

    fn new(weak: bool, opaque: &[u8]) -> Option<Self> {
        // RFC 9110 8.8.3, etagc: visible characters except the quote, and bytes from 0x80 on.
        let legal = |&b: &u8| b > b' ' && b != b'"' && b != 0x7f;
        if opaque.is_empty() || opaque.len() > Self::LEN_MAX || !opaque.iter().all(legal) {
            return None;
        }
        let mut bytes = SmallVec::new();
        bytes.extend_from_slice(if weak { b"W/\"" } else { b"\"" });
        bytes.extend_from_slice(opaque);
        bytes.push(b'"');
        Some(Self(bytes))
    }

    /// The tag as in the header `ETag`, with its quotes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The tag of the same content in gzip. It differs, because the bytes differ (RFC 9110
    /// 8.8.3.3).
    #[must_use]
    pub fn in_gzip(&self) -> Self {
        let mut bytes = self.0.clone();
        let quote = bytes.pop();
        bytes.extend_from_slice(Self::GZIP_SUFFIX);
        bytes.extend(quote);
        Self(bytes)
    }

    /// Whether the tag is weak (RFC 9110 8.8.1).
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.0[0] == b'W'
    }

    /// The bytes between the tag's quotes.
    #[must_use]
    pub fn opaque(&self) -> &[u8] {
        let start = if self.is_weak() { 3 } else { 1 };
        &self.0[start..self.0.len() - 1]
    }

    /// The tag as part of an event id. Bytes outside `[A-Za-z0-9_-]` are written as `=XX` (hex). A
    /// strong tag is written without its quotes, a weak one with them. No tag contains a quote, so
    /// the two forms differ.
    #[must_use]
    pub fn event_id_part(&self) -> EventIdPart {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let text = if self.is_weak() {
            &self.0
        } else {
            self.opaque()
        };
        let mut part = SmallVec::new();
        for &b in text {
            if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-') {
                part.push(b);
            } else {
                part.extend_from_slice(&[b'=', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
        part
    }

    /// Parses the tag in an event id. Returns `None` for text that [`Self::event_id_part`] never
    /// writes.
    #[must_use]
    pub fn from_event_id_part(mut part: &[u8]) -> Option<Self> {
        let mut text = SmallVec::<[u8; 40]>::new();
        while let Some((&byte, rest)) = part.split_first() {
            part = rest;
            match byte {
                b'=' => {
                    let (digits, rest) = part.split_at_checked(2)?;
                    let digits = std::str::from_utf8(digits).ok()?;
                    let upper = |b: u8| matches!(b, b'0'..=b'9' | b'A'..=b'F');
                    let byte = u8::from_str_radix(digits, 16).ok()?;
                    text.push(digits.bytes().all(upper).then_some(byte)?);
                    part = rest;
                }
                b'_' | b'-' => text.push(byte),
                _ => text.push(byte.is_ascii_alphanumeric().then_some(byte)?),
            }
        }
        Self::from_header(&text)
    }
}

/// For messages: replaces bytes that are not UTF-8.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_is_what_the_service_wrote() {
        for (header, shown) in [
            ("7", "\"7\""),
            ("\"7\"", "\"7\""),
            ("W/\"7\"", "W/\"7\""),
            (" 7 ", "\"7\""),
            ("1.2", "\"1.2\""),
            ("a/b+c==", "\"a/b+c==\""),
            ("W/7", "\"W/7\""),
            ("a,b;c", "\"a,b;c\""),
            ("{'x':[1]}\\", "\"{'x':[1]}\\\""),
            ("\u{fc}", "\"\u{fc}\""),
            ("*", "\"*\""),
        ] {
            let etag = Etag::from_header(header.as_bytes()).expect(header);
            assert_eq!(etag.as_bytes(), shown.as_bytes(), "{header}");
        }
    }

    #[test]
    fn what_http_can_not_carry_is_no_tag() {
        let long = "x".repeat(Etag::LEN_MAX + 1);
        for header in [
            "", " ", "\"\"", "W/\"\"", "\"", "\"a", "a\"", "a b", "\"a b\"", "a\"b", "a\tb",
            "a\r\nb", "\0", "\x7f", "w/\"7\"", &long,
        ] {
            assert_eq!(Etag::from_header(header.as_bytes()), None, "{header:?}");
        }
    }

    #[test]
    fn content_in_gzip_has_a_tag_of_its_own() {
        for (header, gzip) in [("7", "\"7;gzip\""), ("W/\"7\"", "W/\"7;gzip\"")] {
            let etag = Etag::from_header(header.as_bytes()).expect(header);
            assert_eq!(etag.in_gzip().as_bytes(), gzip.as_bytes());
            assert_eq!(etag.in_gzip().is_weak(), etag.is_weak());
        }
    }

    #[test]
    fn an_event_id_carries_a_tag_escaped() {
        for (header, part) in [
            ("v1-2_B", "v1-2_B"),
            ("1.2", "1=2E2"),
            ("a=b", "a=3Db"),
            ("W/\"7\"", "W=2F=227=22"),
        ] {
            let etag = Etag::from_header(header.as_bytes()).expect(header);
            assert_eq!(&etag.event_id_part()[..], part.as_bytes(), "{header}");
        }
        // The form in which earlier versions wrote a quoted header.
        let quoted = Etag::from_event_id_part(b"=227=22").expect("escaped");
        assert_eq!(quoted.as_bytes(), b"\"7\"");
        for bad in ["", "a.b", "a=2", "a=2e", "a=+1", "a=ZZ", "a b", "=20", "="] {
            assert_eq!(Etag::from_event_id_part(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        /// Every tag survives an event id unchanged.
        #[test]
        fn every_tag_goes_through_an_event_id(
            header in prop::collection::vec(any::<u8>(), 0..140),
            weak in any::<bool>(),
        ) {
            let header = if weak {[b"W/\"", &header[..], b"\""].concat()} else {header};
            if let Some(etag) = Etag::from_header(&header) {
                let part = etag.event_id_part();
                prop_assert!(part.len() <= Etag::EVENT_ID_PART_MAX);
                prop_assert!(part.iter().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(b)));
                prop_assert_eq!(Etag::from_event_id_part(&part), Some(etag));
            }
        }
    }
}

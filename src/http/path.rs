//! The path of a request: one parse, one canonical form, used for authorisation, routing and the
//! record alike. A path that another reader could interpret differently is refused, not corrected.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::problem::{Fault, Refusal};

/// A path in its one canonical form: percent-decoded once, UTF-8, beginning with `/`. It holds no
/// empty segment but a last one, no `.` or `..` segment, no control byte, and no backslash; no
/// slash in it was encoded, so its segments are exactly those the client wrote. The one other form
/// is `*`, which `OPTIONS` may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'b> {
    raw: &'b str,
    text: Cow<'b, str>,
}

impl<'b> Path<'b> {
    /// Parses the path of a request target, without the query. Allocates only if the path contains
    /// percent-encoded bytes.
    ///
    /// # Errors
    /// [`Fault::AmbiguousTarget`] with the rule that the path breaks.
    pub fn parse(raw: &'b str) -> Result<Self, Refusal> {
        let text = match check_raw(raw.as_bytes())? {
            Encoded::No => Cow::Borrowed(raw),
            Encoded::Yes => percent_decode_str(raw)
                .decode_utf8()
                .map_err(|_| refuse("the path, decoded, is not UTF-8"))?,
        };
        check_segments(text.as_bytes())?;
        Ok(Self { raw, text })
    }

    /// The target `*` (RFC 9112 3.2.4): the server as a whole.
    pub(super) const fn asterisk() -> Self {
        Self {
            raw: "*",
            text: Cow::Borrowed("*"),
        }
    }

    /// The path in its canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path as it was sent, still encoded; for logs and records, never for decisions.
    #[must_use]
    pub const fn raw(&self) -> &'b str {
        self.raw
    }

    /// The decoded segments: of `/a/b` they are `a` and `b`, of `/` one that is empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.text
            .strip_prefix('/')
            .into_iter()
            .flat_map(|t| t.split('/'))
    }
}

enum Encoded {
    Yes,
    No,
}

/// Checks a path as sent: it may contain RFC 3986 `pchar`, `/`, and a few other bytes that browsers
/// do not encode. Encoded bytes are checked here too, before decoding hides them.
fn check_raw(raw: &[u8]) -> Result<Encoded, Refusal> {
    if raw.first() != Some(&b'/') {
        return Err(refuse("the path does not begin with a slash"));
    }
    let mut encoded = Encoded::No;
    for (at, &byte) in raw.iter().enumerate() {
        if is_plain(byte) {
            continue;
        }
        match byte {
            b'%' => {
                encoded = Encoded::Yes;
                match raw.get(at + 1..).and_then(decode_byte) {
                    None => {
                        return Err(refuse(
                            "a `%` in the path is not followed by two hex digits",
                        ));
                    }
                    Some(b'/') => return Err(refuse("the path has an encoded slash")),
                    Some(b'\\') => return Err(refuse("the path has a backslash")),
                    Some(0..0x20 | 0x7f) => return Err(refuse("the path has a control byte")),
                    Some(_) => {}
                }
            }
            b'\\' => return Err(refuse("the path has a backslash")),
            _ => return Err(refuse("the path has a byte that must be percent-encoded")),
        }
    }
    Ok(encoded)
}

/// Bytes that a path contains unescaped.
#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, for bytes"
)]
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = !matches!(
            byte as u8,
            b'%' | b'\\' | b'"' | b'#' | b'<' | b'>' | b'?' | b'`' | b'{' | b'}' | 0..=b' ' | 0x7f..
        );
        byte += 1;
    }
    table
};

#[expect(
    clippy::indexing_slicing,
    reason = "the table has an entry for every byte"
)]
const fn is_plain(byte: u8) -> bool {
    PLAIN[byte as usize]
}

fn check_segments(text: &[u8]) -> Result<(), Refusal> {
    // Only a segment that is empty or begins with a dot can be wrong, and few paths have one.
    let suspicious = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    if !text.windows(2).any(suspicious) {
        return Ok(());
    }
    // The path begins with a slash: what is before it is no segment.
    let mut segments = text.split(|&b| b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            b"." | b".." => return Err(refuse("the path has a `.` or `..` segment")),
            b"" if segments.peek().is_some() => {
                return Err(refuse("the path has an empty segment"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The byte that two hex digits at the start of `digits` encode.
pub(super) fn decode_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| {
        let byte = *digits.get(at)?;
        char::from(byte).to_digit(16)
    };
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

const fn refuse(detail: &'static str) -> Refusal {
    Refusal::new(Fault::AmbiguousTarget, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        for (raw, text) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/a%20b", "/a b"),
            ("/%C3%BC", "/ü"),
            ("/%252e%252E", "/%2e%2E"),
            ("/%25%32%46", "/%2F"),
            ("/a;b=c,d:@!$&'()*+~|^[]", "/a;b=c,d:@!$&'()*+~|^[]"),
            ("/..a/.b/...", "/..a/.b/..."),
        ] {
            let path = Path::parse(raw).expect(raw);
            assert_eq!(path.as_str(), text);
            assert_eq!(path.raw(), raw);
        }
    }

    #[test]
    fn segments_are_those_the_client_wrote() {
        let segments = |raw| -> Vec<String> {
            let path = Path::parse(raw).expect("canonical");
            path.segments().map(str::to_owned).collect()
        };
        assert_eq!(segments("/"), [""]);
        assert_eq!(segments("/a/b%20c"), ["a", "b c"]);
        assert_eq!(segments("/a/"), ["a", ""]);
        assert_eq!(Path::asterisk().segments().count(), 0);
    }

    // The attack table's "path confusion": CVE-2021-29492 and its kin.
    #[test]
    fn a_path_with_two_readings_is_refused() {
        for raw in [
            "",
            "a",
            "*",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e/a",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/%00",
            "/a%0a",
            "/a%0d%0aX",
            "/%7f",
            "/%1b[0m",
            "/%",
            "/%a",
            "/%zz",
            "/%+1",
            "/a%2",
            "/%ff",
            "/%c0%ae",
            "/%c3",
            "/%ed%a0%80",
            "/a#b",
            "/a b",
            "/ü",
            "/a\"b",
            "/<a>",
            "/{id}",
            "/`",
            "/a\0b",
            "/a\tb",
        ] {
            let refusal = Path::parse(raw).expect_err(raw);
            assert_eq!(refusal.fault, Fault::AmbiguousTarget, "{raw}");
        }
    }

    const ALL_BUT_SLASH: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/');

    proptest! {
        /// Encoding a canonical path and reading it again gives the same path: there is only one.
        #[test]
        fn a_canonical_path_is_its_own_canonical_form(raw in "[/.a%0-9A-Fé~]{0,12}") {
            let raw = format!("/{raw}");
            if let Ok(path) = Path::parse(&raw) {
                let again = percent_encoding::utf8_percent_encode(
                    path.as_str(),
                    ALL_BUT_SLASH,
                )
                .to_string();
                // `.` came out as `%2E`; that must not open a way round the segment rule.
                let again = Path::parse(&again).expect("was canonical");
                prop_assert_eq!(again.as_str(), path.as_str());
                prop_assert!(!path.as_str().contains("//"));
                prop_assert!(path.segments().all(|s| s != "." && s != ".."));
            }
        }
    }
}

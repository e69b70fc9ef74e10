//! Checks that a value is JSON that every strict reader accepts as part of a larger document.
//!
//! RFC 8259 leaves four things to the reader: bytes that are not UTF-8, escapes that are not
//! Unicode text, deep nesting, and numbers beyond an `f64`. A reader may reject a whole document
//! because of one such value. The parser of `serde_json` checks none of them in a value that it
//! skips.

/// Most levels of arrays and objects. `serde_json`, a common reader, accepts 127 levels in a whole
/// document; others accept 512 and more.
pub const JSON_LEVELS_MAX: usize = 128;

/// Why bytes are not JSON that every reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotJson {
    /// The bytes are not UTF-8 (RFC 8259 8.1).
    #[error("it is not valid UTF-8")]
    NotUtf8,
    /// The text does not follow the grammar of RFC 8259.
    #[error("it does not follow the grammar of JSON")]
    Syntax,
    /// The value has more than [`JSON_LEVELS_MAX`] levels.
    #[error("it is nested over 128 levels deep")]
    TooDeep,
    /// An escape such as `\ud800` is half a surrogate pair, which UTF-8 cannot represent (RFC 8259
    /// 8.2).
    #[error("a string has half a surrogate pair")]
    HalfSurrogate,
    /// A number is infinite as an `f64` (RFC 8259 6). Go and `serde_json` reject it.
    #[error("a number is beyond the range of a double")]
    NumberRange,
}

/// Checks that `bytes` are one JSON text that every reader accepts, even within a larger one. Reads
/// the bytes a few times, stores nothing and does not recurse.
///
/// # Errors
/// Why some reader would reject the text.
pub fn check_json(bytes: &[u8]) -> Result<(), NotJson> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotJson::NotUtf8)?;
    let grammar = serde_json::from_str::<serde::de::IgnoredAny>(text);
    grammar.map_err(|_| NotJson::Syntax)?;
    check_tokens(bytes)
}

/// Checks the things that the grammar leaves to the reader. The bytes follow the grammar.
fn check_tokens(bytes: &[u8]) -> Result<(), NotJson> {
    let (mut level, mut at) = (0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => level += 1,
            b'}' | b']' => level = level.saturating_sub(1),
            b'"' => at = check_string(bytes, at)?,
            b'-' | b'0'..=b'9' => at = check_number(bytes, at - 1)?,
            _ => {}
        }
        if level > JSON_LEVELS_MAX {
            return Err(NotJson::TooDeep);
        }
    }
    Ok(())
}

/// Checks the escapes of a string with contents from `at` on. Returns the position after its
/// closing quote.
fn check_string(bytes: &[u8], mut at: usize) -> Result<usize, NotJson> {
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => return Ok(at),
            b'\\' => at = check_escape(bytes, at)?,
            _ => {}
        }
    }
    Err(NotJson::Syntax)
}

/// Checks the escape after a backslash at `at`. Returns the position after it.
fn check_escape(bytes: &[u8], at: usize) -> Result<usize, NotJson> {
    let Some(unit) = escaped_unit(bytes, at) else {
        return Ok(at + 1); // One letter: `\n`, `\"`, `\\`.
    };
    let behind = at + 5;
    match unit {
        0xd800..=0xdbff => {
            let low = match bytes.get(behind) {
                Some(b'\\') => escaped_unit(bytes, behind + 1),
                _ => None,
            };
            match low {
                Some(0xdc00..=0xdfff) => Ok(behind + 6),
                _ => Err(NotJson::HalfSurrogate),
            }
        }
        0xdc00..=0xdfff => Err(NotJson::HalfSurrogate),
        _ => Ok(behind),
    }
}

/// Checks a number that begins at `at`. Returns the position after it.
fn check_number(bytes: &[u8], at: usize) -> Result<usize, NotJson> {
    /// Without an exponent, a number of this many characters is below 1.8e308.
    const FINITE_LEN: usize = 300;
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let number = &bytes[at..];
    let number = &number[..number.iter().take_while(is_part).count()];
    let finite = number.len() <= FINITE_LEN && !number.iter().any(|b| matches!(b, b'e' | b'E'));
    let is_finite = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite);
    if finite || std::str::from_utf8(number).is_ok_and(is_finite) {
        Ok(at + number.len())
    } else {
        Err(NotJson::NumberRange)
    }
}

/// The UTF-16 code unit of `u` and four hex digits at `at`.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 5)?.strip_prefix(b"u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn what_every_reader_accepts_is_json() {
        for text in [
            "1",
            " {\"a\": [true, null, -0.5e-3]} ",
            r#""a\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00 é😀""#,
            r#""\\ud800""#,
            r#"{"[[[": "{{{"}"#,
            "[1e308, -1e-999, 0.1E+2, 12345678901234567890123]",
        ] {
            assert_eq!(check_json(text.as_bytes()), Ok(()), "{text}");
        }
        assert_eq!(check_json(nested(JSON_LEVELS_MAX).as_bytes()), Ok(()));
    }

    #[test]
    fn what_a_strict_reader_rejects_is_not() {
        use NotJson::{HalfSurrogate, NotUtf8, NumberRange, Syntax, TooDeep};
        let deeper = nested(JSON_LEVELS_MAX + 1);
        let long = "1".repeat(400);
        let deepest = nested(100_000);
        let objects = "{\"a\":".repeat(129) + "1" + &"}".repeat(129);
        for (bytes, why) in [
            (&b""[..], Syntax),
            (b"not json", Syntax),
            (b"1 2", Syntax),
            (b"[1,]", Syntax),
            (b"NaN", Syntax),
            (b"\"a", Syntax),
            (b"\"\x01\"", Syntax),
            (b"\"\xff\"", NotUtf8),
            (b"{\"\xc3\": 1}", NotUtf8),
            // A surrogate as three bytes (CESU-8), and an overlong slash.
            (b"\"\xed\xa0\x80\"", NotUtf8),
            (b"\"\xc0\xaf\"", NotUtf8),
            (b"\xef\xbb\xbf1", Syntax),
            (br#""\ud800""#, HalfSurrogate),
            (br#""\ud800\n""#, HalfSurrogate),
            (br#""\ud800\ud800""#, HalfSurrogate),
            (br#"{"\udc00": 1}"#, HalfSurrogate),
            (b"[1e999]", NumberRange),
            (b"-1E400", NumberRange),
            (long.as_bytes(), NumberRange),
            (deeper.as_bytes(), TooDeep),
            (deepest.as_bytes(), TooDeep),
            (objects.as_bytes(), TooDeep),
        ] {
            assert_eq!(check_json(bytes), Err(why), "{:?}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// `serde_json` can read every accepted value into a tree, which decodes every string and
        /// allows 127 levels. Every value that it can read is accepted here.
        #[test]
        fn it_agrees_with_a_reader_that_builds_a_tree(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "[", "]", "{", "}", ",", ":", "\"", "\\", "\\u", "d83d", "de00", "00e9",
                    "a", "1", "e999", "-", ".5", "é", " ",
                ]),
                0..12,
            ),
            quoted in any::<bool>(),
        ) {
            let mut text = parts.concat();
            if quoted {
                text = format!("\"{text}\"");
            }
            let tree = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(check_json(text.as_bytes()).is_ok(), tree, "{}", text);
        }
    }
}

//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the client's name for a command.

use std::borrow::Cow;

use super::headers::Headers;
use super::problem::{Fault, Refusal};

/// The key of one request, without quotes: 1 to 255 visible characters or spaces. A quoted key and
/// a bare one of the same characters are the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey<'b>(Cow<'b, [u8]>);

impl<'b> IdempotencyKey<'b> {
    /// Most bytes of a key, without quotes and escapes.
    pub const LEN_MAX: usize = 255;

    /// The key of a request, if the request has one. The draft asks for a structured string
    /// (`"8e03…"`). Bare keys are as common and accepted too.
    ///
    /// # Errors
    /// The key is repeated, empty, too long, or neither a string nor a bare word.
    pub fn parse(headers: &Headers<'b>) -> Result<Option<Self>, Refusal> {
        let Some(value) = headers.one("idempotency-key")? else {
            return Ok(None);
        };
        let key = match value {
            [b'"', inner @ .., b'"'] => unquote(inner),
            _ => value.iter().all(is_bare).then_some(Cow::Borrowed(value)),
        };
        let key = key.ok_or(refuse(
            "Idempotency-Key is neither a string nor a bare word",
        ))?;
        match key.len() {
            1..=Self::LEN_MAX => Ok(Some(Self(key))),
            0 => Err(refuse("Idempotency-Key is empty")),
            _ => Err(refuse("Idempotency-Key is longer than 255 bytes")),
        }
    }

    /// The key without quotes and escapes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// RFC 8941 3.3.3: printable ASCII; a backslash escapes a quote or a backslash, nothing else.
fn unquote(inner: &[u8]) -> Option<Cow<'_, [u8]>> {
    let plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    if inner.iter().all(plain) {
        return Some(Cow::Borrowed(inner));
    }
    let mut key = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next() {
                Some(escaped @ (b'"' | b'\\')) => key.push(*escaped),
                _ => return None,
            },
            byte if plain(byte) => key.push(*byte),
            _ => return None,
        }
    }
    Some(Cow::Owned(key))
}

/// Visible ASCII, except the bytes that begin a string, another member or a parameter.
fn is_bare(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';')
}

const fn refuse(detail: &'static str) -> Refusal {
    Refusal::new(Fault::MalformedHeader, detail)
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers_of;
    use super::*;

    fn parse(header: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let head = headers_of(&[("Idempotency-Key", header)]);
        IdempotencyKey::parse(&head.headers()).map(|key| key.map(|k| k.as_bytes().to_vec()))
    }

    // draft-ietf-httpapi-idempotency-key-header 2.1, RFC 8941 3.3.3.
    #[test]
    fn a_key_is_a_string_or_a_bare_word() {
        let longest = "k".repeat(255);
        for (header, key) in [
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("8e03978e-40d5", "8e03978e-40d5"),
            ("\"a, b; c\"", "a, b; c"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (&longest, &longest),
        ] {
            assert_eq!(parse(header), Ok(Some(key.as_bytes().to_vec())), "{header}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for header in [
            "",
            "\"",
            "\"\"",
            "\"a",
            "a\"",
            "\"a\";p=1",
            "a b",
            "a,b",
            "\"a\", \"b\"",
            "a;b",
            r#""a\b""#,
            r#""a\""#,
            "\"\u{fc}\"",
            "\u{fc}",
            "\"a\tb\"",
            &"k".repeat(256),
        ] {
            let refusal = parse(header).expect_err(header);
            assert_eq!(refusal.fault, Fault::MalformedHeader, "{header}");
        }
    }

    #[test]
    fn two_keys_are_none() {
        let head = headers_of(&[("idempotency-key", "a"), ("Idempotency-Key", "a")]);
        assert!(IdempotencyKey::parse(&head.headers()).is_err());
        let head = headers_of(&[]);
        assert_eq!(IdempotencyKey::parse(&head.headers()), Ok(None));
    }
}

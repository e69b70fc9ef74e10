//! One place of a body that its schema does not allow, as a client reads it.

use std::fmt::{self, Write};

use jsonschema::ValidationError;

/// Most violations that a client receives. Further ones are left out.
pub const VIOLATIONS_MAX: usize = 20;

/// Longest pointer in bytes. The names in it are the client's.
const POINTER_BYTES_MAX: usize = 512;

/// Longest message in bytes.
const DETAIL_BYTES_MAX: usize = 256;

/// A value of a body that its schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The value's JSON pointer as a URI fragment (RFC 6901 6): `#/items/0/amount`. If it would be
    /// too long, it leads to an object or array around the value.
    pub pointer: String,
    /// What the schema wants. It never quotes the value.
    pub detail: String,
}

impl Violation {
    /// The violation that an error of the library describes.
    pub(super) fn of(error: &ValidationError<'_>) -> Self {
        let mut detail = Bounded::new(DETAIL_BYTES_MAX);
        // An error means that the text reached its limit.
        let _ = write!(detail, "{}", error.masked());
        Self {
            pointer: fragment(error.instance_path().as_str()),
            detail: detail.finish(),
        }
    }
}

impl Violation {
    /// The violation of a body whose first violation is too large to be described.
    pub(super) fn of_all() -> Self {
        Self {
            pointer: "#".into(),
            detail: "the body does not match the schema of the route".into(),
        }
    }
}

/// A JSON pointer as a URI fragment: RFC 6901 6 encodes what RFC 3986 3.5 does not allow there.
fn fragment(pointer: &str) -> String {
    let mut fragment = String::from("#");
    for token in pointer.split('/').skip(1) {
        let before = fragment.len();
        fragment.push('/');
        for byte in token.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@?".contains(&byte) {
                fragment.push(char::from(byte));
            } else {
                let _ = write!(fragment, "%{byte:02X}");
            }
            if fragment.len() > POINTER_BYTES_MAX {
                fragment.truncate(before);
                return fragment;
            }
        }
    }
    fragment
}

/// Text that ends at a limit, with an ellipsis.
struct Bounded {
    text: String,
    bytes_max: usize,
}

impl Bounded {
    const fn new(bytes_max: usize) -> Self {
        let text = String::new();
        Self { text, bytes_max }
    }

    fn finish(mut self) -> String {
        if self.text.len() > self.bytes_max {
            let end = self.text.floor_char_boundary(self.bytes_max);
            self.text.truncate(end);
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One character more than the limit shows that something is left out.
        let room = (self.bytes_max + 4).saturating_sub(self.text.len());
        let taken = text.floor_char_boundary(room.min(text.len()));
        self.text.push_str(&text[..taken]);
        if taken < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_a_fragment_of_a_uri() {
        for (pointer, expected) in [
            ("", "#"),
            ("/a/0", "#/a/0"),
            ("/a~1b/~0", "#/a~1b/~0"),
            ("/ä b%\"", "#/%C3%A4%20b%25%22"),
            ("//", "#//"),
        ] {
            assert_eq!(fragment(pointer), expected, "RFC 6901 6: {pointer}");
        }
    }

    #[test]
    fn a_long_name_of_the_client_is_not_in_a_pointer() {
        let pointer = format!("/a/{}/b", "x".repeat(POINTER_BYTES_MAX));
        assert_eq!(fragment(&pointer), "#/a");
    }

    #[test]
    fn a_text_ends_at_its_limit() {
        let mut bounded = Bounded::new(4);
        assert!(write!(bounded, "{}", "äää").is_ok(), "one more fits");
        assert_eq!(bounded.finish(), "ää…");
        let mut bounded = Bounded::new(4);
        assert!(write!(bounded, "{}{}", "abc", "defghi").is_err());
        assert_eq!(bounded.finish(), "abcd…");
    }
}

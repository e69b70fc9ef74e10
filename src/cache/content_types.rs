//! Content types by number. A topic has few different types and many records, so each record stores
//! a number.

use crate::model::u16_of;
use std::sync::Arc;

/// Most different types of a slice. A topic with more puts something else into the header.
const TYPES_MAX: usize = 64;
/// Most bytes of a content type.
const LEN_MAX: usize = 128;

#[derive(Debug, Default)]
pub(super) struct ContentTypes {
    types: Vec<Arc<str>>,
}

impl ContentTypes {
    /// The number of a type, from 1. `None` if HTTP can't carry it or there are too many types.
    pub(super) fn intern(&mut self, value: &[u8]) -> Option<u16> {
        let known = self.types.iter().position(|t| t.as_bytes() == value);
        if let Some(index) = known {
            return Some(u16_of(index) + 1);
        }
        // Accept visible ASCII with spaces inside, which cannot break a header or a log line.
        let legal = |b: &u8| matches!(b, b' '..=b'~');
        let trimmed = value.trim_ascii().len() == value.len();
        let fits = !value.is_empty() && value.len() <= LEN_MAX && value.iter().all(legal);
        if !fits || !trimmed || self.types.len() == TYPES_MAX {
            return None;
        }
        let text = std::str::from_utf8(value).expect("only ASCII is let in");
        self.types.push(text.into());
        Some(u16_of(self.types.len()))
    }

    /// The type of a number. `None` for 0.
    pub(super) fn get(&self, number: u16) -> Option<&Arc<str>> {
        self.types.get(usize::from(number).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_could_break_a_header_is_refused() {
        let mut types = ContentTypes::default();
        for bad in [&b""[..], b"a\r\nx: y", b"a\0", b" a", b"a\t", &[b'a'; 129]] {
            assert_eq!(types.intern(bad), None);
        }
        let number = types.intern(b"application/json; v=1").expect("legal");
        assert_eq!(types.intern(b"application/json; v=1"), Some(number));
        assert_eq!(
            types.get(number).map(|t| &**t),
            Some("application/json; v=1")
        );
        assert_eq!(types.get(0), None);
    }

    #[test]
    fn there_are_only_so_many() {
        let mut types = ContentTypes::default();
        for n in 0..TYPES_MAX {
            assert!(types.intern(n.to_string().as_bytes()).is_some());
        }
        assert_eq!(types.intern(b"one/more"), None);
        assert_eq!(types.intern(b"0"), Some(1));
    }
}

//! Paths and bodies with placeholders: `{key}` (or `{n}`) is a key's number, `{i}` the number of
//! the request, `{at}` the time at which it was due (µs since 1970). Other braces stand for
//! themselves, so a JSON body needs no escapes.

use std::io::Write as _;

use anyhow::{Result, ensure};

/// Longest template.
const TEMPLATE_BYTES_MAX: usize = 16 << 20;

/// A text with placeholders.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Key,
    Index,
    Due,
}

/// The values of the placeholders.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Values {
    pub(crate) key: u64,
    pub(crate) index: u64,
    pub(crate) due_us: u64,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        ensure!(text.len() <= TEMPLATE_BYTES_MAX, "a template over 16 MiB");
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut plain = String::new();
        while !rest.is_empty() {
            let known = [
                ("{key}", Piece::Key),
                ("{n}", Piece::Key),
                ("{i}", Piece::Index),
                ("{at}", Piece::Due),
            ];
            let found = known.into_iter().find(|(name, _)| rest.starts_with(name));
            if let Some((name, piece)) = found {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain).into_bytes()));
                }
                pieces.push(piece);
                rest = &rest[name.len()..];
                continue;
            }
            let next = rest.chars().next().map_or(1, char::len_utf8);
            plain.push_str(&rest[..next]);
            rest = &rest[next..];
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into_bytes()));
        }
        Ok(Self(pieces))
    }

    /// Appends the text for a key.
    pub(crate) fn put(&self, key: u64, into: &mut Vec<u8>) {
        self.put_values(
            &Values {
                key,
                ..Values::default()
            },
            into,
        );
    }

    /// Appends the text with all placeholders.
    pub(crate) fn put_values(&self, values: &Values, into: &mut Vec<u8>) {
        for piece in &self.0 {
            let number = match piece {
                Piece::Text(text) => {
                    into.extend_from_slice(text);
                    continue;
                }
                Piece::Key => values.key,
                Piece::Index => values.index,
                Piece::Due => values.due_us,
            };
            write!(into, "{number}").expect("a Vec takes all");
        }
    }

    /// Whether the text depends on the key.
    pub(crate) fn has_key(&self) -> bool {
        self.0.contains(&Piece::Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_expand_and_other_braces_stay() {
        let template =
            Template::parse(r#"{"to":"{n}","no":{i},"at":{at},"x":{y}}"#).expect("parses");
        let (mut text, values) = (
            Vec::new(),
            Values {
                key: 7,
                index: 8,
                due_us: 9,
            },
        );
        template.put_values(&values, &mut text);
        assert_eq!(text, br#"{"to":"7","no":8,"at":9,"x":{y}}"#);
        assert!(template.has_key());
        assert!(!Template::parse("/ü").expect("parses").has_key());
    }
}

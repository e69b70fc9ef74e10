//! The query of a request target, as `application/x-www-form-urlencoded` pairs.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::path::decode_byte;
use super::problem::{Fault, Refusal};

/// The part of a target behind the `?`. It was checked when the request was parsed: ASCII, every
/// `%` followed by two hex digits, and UTF-8 once decoded. Reading pairs from it therefore never
/// fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'b> {
    raw: Option<&'b str>,
}

impl<'b> Query<'b> {
    /// Checks a query; `None` is a target without `?`.
    ///
    /// # Errors
    /// [`Fault::AmbiguousTarget`] with the rule that the query breaks.
    pub fn parse(raw: Option<&'b str>) -> Result<Self, Refusal> {
        if let Some(text) = raw {
            check(text)?;
        }
        Ok(Self { raw })
    }

    /// The query as it was sent, without `?`.
    #[must_use]
    pub const fn raw(&self) -> Option<&'b str> {
        self.raw
    }

    /// Names and values, decoded once, in order; `+` is a space. A name without `=` has the empty
    /// value.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'b, str>, Cow<'b, str>)> + use<'b> {
        let pieces = self.raw.unwrap_or("").split('&');
        pieces.filter(|piece| !piece.is_empty()).map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            (decode(name), decode(value))
        })
    }

    /// The value of `name`, which may occur once.
    ///
    /// # Errors
    /// The name occurs twice: which of two values counts must never depend on the reader.
    pub fn one(&self, name: &str) -> Result<Option<Cow<'b, str>>, Refusal> {
        let mut all = self.pairs().filter(|(n, _)| n == name);
        let first = all.next();
        match all.next() {
            Some(_) => Err(refuse(
                "a query parameter that may stand only once is repeated",
            )),
            None => Ok(first.map(|(_, value)| value)),
        }
    }
}

fn check(text: &str) -> Result<(), Refusal> {
    let mut encoded = false;
    for (at, &byte) in text.as_bytes().iter().enumerate() {
        match byte {
            b'%' => {
                encoded = true;
                let behind = text.as_bytes().get(at + 1..);
                if behind.and_then(decode_byte).is_none() {
                    return Err(refuse(
                        "a `%` in the query is not followed by two hex digits",
                    ));
                }
            }
            b'"' | b'#' | b'<' | b'>' | 0..=b' ' | 0x7f.. => {
                return Err(refuse("the query has a byte that must be percent-encoded"));
            }
            _ => {}
        }
    }
    // Pairs are split at ASCII bytes, so every pair is UTF-8 exactly if the whole query is.
    if encoded && percent_decode_str(text).decode_utf8().is_err() {
        return Err(refuse("the query, decoded, is not UTF-8"));
    }
    Ok(())
}

fn decode(piece: &str) -> Cow<'_, str> {
    if !piece.contains('+') {
        return percent_decode_str(piece)
            .decode_utf8()
            .expect("the whole was checked");
    }
    let spaced = piece.replace('+', " ");
    let decoded = percent_decode_str(&spaced)
        .decode_utf8()
        .expect("the whole was checked");
    Cow::Owned(decoded.into_owned())
}

const fn refuse(detail: &'static str) -> Refusal {
    Refusal::new(Fault::AmbiguousTarget, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_decoded_once() {
        let query = Query::parse(Some("a=1&b&&=x&c=%C3%BC+%2B%26=&d=%2541")).expect("well-formed");
        let pairs: Vec<_> = query.pairs().collect();
        let expected = [
            ("a", "1"),
            ("b", ""),
            ("", "x"),
            ("c", "ü +&="),
            ("d", "%41"),
        ];
        assert_eq!(pairs.len(), expected.len());
        for (pair, (name, value)) in pairs.iter().zip(expected) {
            assert_eq!((&*pair.0, &*pair.1), (name, value));
        }
    }

    #[test]
    fn a_name_that_must_be_alone_is_not_repeated() {
        let query = Query::parse(Some("a=1&%61=2&b=3")).expect("well-formed");
        assert_eq!(query.one("b"), Ok(Some("3".into())));
        assert_eq!(query.one("c"), Ok(None));
        assert!(query.one("a").is_err());
        assert_eq!(Query::default().one("a"), Ok(None));
    }

    #[test]
    fn a_malformed_query_is_refused() {
        for raw in [
            "%",
            "a=%2",
            "a=%zz",
            "%ff",
            "a=%C3&b=%BC",
            "a#b",
            "ü",
            "a b",
            "<",
            "a=\"",
        ] {
            assert!(Query::parse(Some(raw)).is_err(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_refused_or_read(raw in "[a%&=+0-9A-F]{0,16}") {
            if let Ok(query) = Query::parse(Some(&raw)) {
                for (name, value) in query.pairs() {
                    prop_assert!(name.len() + value.len() <= raw.len());
                }
            }
        }
    }
}

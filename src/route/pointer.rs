//! One scalar of a JSON body, by its pointer (RFC 6901), as text. The body is read through once and
//! nothing of it is kept: no tree is built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::check_json;

/// Why a pointer leads to no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PointerError {
    /// The body is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// Nothing is there, or null.
    #[error("is missing")]
    Missing,
    /// An object or an array is there.
    #[error("is an object or an array")]
    NotScalar,
    /// A number that a `f64` would round: two of them could become one key.
    #[error("is a number that can't be held exactly; send it as a string")]
    Inexact,
    /// An object on the way has the name twice: which of two values counts must never depend on who
    /// looks.
    #[error("stands in its object twice")]
    Repeated,
}

/// The scalar at `pointer` as text: a string as it is, a boolean by its word, a number in one
/// spelling for each value (`1`, `1.0` and `1e0` are `1`).
///
/// # Errors
/// There is no such scalar, or more than one.
pub(super) fn scalar(body: &[u8], pointer: &[String]) -> Result<String, PointerError> {
    // Check the whole body, although one member is wanted: the service must be able to read the
    // body. The reader below skips the rest without checking its strings and its depth.
    if check_json(body).is_err() {
        return Err(PointerError::NotJson);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = At { pointer };
    let found = seed.deserialize(&mut reader);
    let found = found.and_then(|found| reader.end().map(|()| found));
    match found {
        Ok(Found::Text(text)) => Ok(text),
        Ok(Found::Not(error)) => Err(error),
        Err(_) => Err(PointerError::NotJson),
    }
}

enum Found {
    Text(String),
    Not(PointerError),
}

/// Reads one value, and within it follows what is left of the pointer.
#[derive(Clone, Copy)]
struct At<'a> {
    pointer: &'a [String],
}

impl At<'_> {
    /// A scalar: found, if the pointer ends here.
    fn end(self, text: impl Into<String>) -> Found {
        match self.pointer {
            [] => Found::Text(text.into()),
            _ => Found::Not(PointerError::Missing),
        }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Found, E> {
        Ok(self.end(text))
    }

    fn visit_bool<E: Error>(self, it: bool) -> Result<Found, E> {
        Ok(self.end(if it { "true" } else { "false" }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Found, E> {
        Ok(self.end(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Found, E> {
        Ok(self.end(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Found, E> {
        /// 2^53: from here on a `f64` skips whole numbers.
        const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
        if number.abs() >= EXACT_BELOW {
            return Ok(match self.pointer {
                [] => Found::Not(PointerError::Inexact),
                _ => Found::Not(PointerError::Missing),
            });
        }
        Ok(match number.fract() == 0.0 {
            true => self.end((number as i64).to_string()),
            false => self.end(number.to_string()),
        })
    }

    fn visit_unit<E: Error>(self) -> Result<Found, E> {
        Ok(Found::Not(PointerError::Missing))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        let Some((token, pointer)) = self.pointer.split_first() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Found::Not(PointerError::NotScalar));
        };
        let mut left = index(token);
        let mut found = Found::Not(PointerError::Missing);
        loop {
            let more = match left {
                Some(0) => match seq.next_element_seed(At { pointer })? {
                    Some(here) => {
                        found = here;
                        true
                    }
                    None => false,
                },
                _ => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(found);
            }
            left = left.and_then(|left| left.checked_sub(1));
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let Some((token, pointer)) = self.pointer.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Found::Not(PointerError::NotScalar));
        };
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if *name != **token {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let here = map.next_value_seed(At { pointer })?;
            found = Some(match found {
                None => here,
                Some(_) => Found::Not(PointerError::Repeated),
            });
        }
        Ok(found.unwrap_or(Found::Not(PointerError::Missing)))
    }
}

/// RFC 6901 4: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|b| b.is_ascii_digit());
    let plain = token == "0" || !token.starts_with('0');
    (digits && plain).then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(body: &str, pointer: &[&str]) -> Result<String, PointerError> {
        let pointer: Vec<String> = pointer.iter().map(|token| (*token).to_owned()).collect();
        scalar(body.as_bytes(), &pointer)
    }

    #[test]
    fn scalars_have_one_text_each() {
        for (json, text) in [
            (r#""a\u0062""#, "ab"),
            ("true", "true"),
            ("7", "7"),
            ("7.0", "7"),
            ("70e-1", "7"),
            ("-0.0", "0"),
            ("1.5", "1.5"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
        ] {
            let body = format!(r#"{{"x":[0,{{"y":{json}}}]}}"#);
            assert_eq!(at(&body, &["x", "1", "y"]).as_deref(), Ok(text), "{json}");
        }
    }

    #[test]
    fn what_is_no_scalar_says_why() {
        use PointerError::{Inexact, Missing, NotJson, NotScalar, Repeated};
        for (body, error) in [
            ("{}", Missing),
            (r#"{"x":null}"#, Missing),
            (r#"{"x":"a"}"#, Missing),
            (r#"{"x":{"y":{}}}"#, NotScalar),
            (r#"{"x":{"y":[1]}}"#, NotScalar),
            (r#"{"x":{"y":18446744073709551616}}"#, Inexact),
            (r#"{"x":{"y":1,"y":1}}"#, Repeated),
            (r#"{"x":{"y":1},"x":{"y":2}}"#, Repeated),
            (r#"{"x":{"y":1}"#, NotJson),
            (r#"{"x":{"y":1}} x"#, NotJson),
            (r#"{"x":{"y":1},"z":01}"#, NotJson),
            ("", NotJson),
        ] {
            assert_eq!(at(body, &["x", "y"]), Err(error), "{body}");
        }
        for token in ["00", "01", "+0", "-", "1", ""] {
            assert_eq!(at("[5]", &[token]), Err(Missing), "RFC 6901 4: {token}");
        }
        // Deep nesting is refused, not followed to the end of the stack.
        let deep = "[".repeat(100_000);
        assert_eq!(at(&deep, &["x"]), Err(NotJson));
    }

    #[test]
    fn a_body_that_a_strict_reader_rejects_is_not_read_though_its_member_is_sound() {
        let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
        let with = |beside: &str| format!(r#"{{"x":"a","beside":{beside}}}"#);
        for (beside, expected) in [
            (nested(127), Ok("a".to_owned())),
            (nested(128), Err(PointerError::NotJson)),
            (nested(100_000), Err(PointerError::NotJson)),
            (r#""\ud800""#.to_owned(), Err(PointerError::NotJson)),
        ] {
            assert_eq!(at(&with(&beside), &["x"]), expected, "{:.40}", beside);
        }
        let pointer = ["x".to_owned()];
        for body in [
            &b"{\"x\":\"a\",\"y\":\"\xff\"}"[..],
            b"{\"\xff\":1,\"x\":\"a\"}",
        ] {
            assert_eq!(scalar(body, &pointer), Err(PointerError::NotJson));
        }
    }

    proptest! {
        /// Where `serde_json` finds a scalar in its tree, so do we, and the same.
        #[test]
        fn a_pointer_finds_what_a_tree_holds(
            key in "[a-c]", index in 0..3_usize, text in ".{0,4}", number in any::<i64>(),
        ) {
            let list = serde_json::json!([text, number, true]);
            let body = serde_json::json!({"a": list, "b": {"a": text}, "c": number});
            let bytes = serde_json::to_vec(&body).expect("a tree is JSON");
            let second = [Some(index.to_string()), Some("a".into()), None];
            for second in second {
                let pointer = [Some(key.clone()), second].into_iter().flatten();
                let pointer: Vec<String> = pointer.collect();
                let there = body.pointer(&format!("/{}", pointer.join("/")));
                let expected = match there {
                    None => Err(PointerError::Missing),
                    Some(serde_json::Value::String(text)) => Ok(text.clone()),
                    Some(value) if value.is_object() || value.is_array() => {
                        Err(PointerError::NotScalar)
                    }
                    Some(value) => Ok(value.to_string()),
                };
                prop_assert_eq!(scalar(&bytes, &pointer), expected);
            }
        }
    }
}

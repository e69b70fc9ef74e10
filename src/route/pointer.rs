//! Reads one scalar of a JSON body by its pointer (RFC 6901), as text. The body is read once, and
//! no tree is built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::check_json;

/// Why a pointer does not lead to a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PointerError {
    /// The body is not valid JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// The member is absent or null.
    #[error("is missing")]
    Missing,
    /// The value is an object or an array.
    #[error("is an object or an array")]
    NotScalar,
    /// A number that an `f64` would round: two different numbers could become one key.
    #[error("is a number that can't be held exactly; send it as a string")]
    Inexact,
    /// An object on the path has the name twice. Different readers would choose different values,
    /// so neither is used.
    #[error("is in its object twice")]
    Repeated,
}

/// Returns the scalar at `pointer` as text: a string unchanged, a boolean as its word, a number in
/// one spelling per value (`1`, `1.0` and `1e0` are `1`).
///
/// # Errors
/// There is no such scalar, or its name is repeated.
pub(super) fn scalar(body: &[u8], pointer: &[String]) -> Result<String, PointerError> {
    // Check the whole body, although only one member is read: the service must be able to parse it.
    // The reader below skips the rest without checking its strings and its depth.
    if check_json(body).is_err() {
        return Err(PointerError::NotJson);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = PointerReader { pointer };
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

/// Reads one value and follows the rest of the pointer within it.
#[derive(Clone, Copy)]
struct PointerReader<'a> {
    pointer: &'a [String],
}

impl PointerReader<'_> {
    /// Handles a scalar, which is the result if the pointer ends here.
    fn on_scalar(self, text: impl Into<String>) -> Found {
        match self.pointer {
            [] => Found::Text(text.into()),
            _ => Found::Not(PointerError::Missing),
        }
    }
}

impl<'de> DeserializeSeed<'de> for PointerReader<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PointerReader<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Found, E> {
        Ok(self.on_scalar(text))
    }

    fn visit_bool<E: Error>(self, it: bool) -> Result<Found, E> {
        Ok(self.on_scalar(if it { "true" } else { "false" }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Found, E> {
        Ok(self.on_scalar(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Found, E> {
        Ok(self.on_scalar(number.to_string()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "below 2^53, and whole")]
    fn visit_f64<E: Error>(self, number: f64) -> Result<Found, E> {
        /// 2^53: an `f64` from here on cannot represent every integer.
        const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
        if number.abs() >= EXACT_BELOW {
            return Ok(match self.pointer {
                [] => Found::Not(PointerError::Inexact),
                _ => Found::Not(PointerError::Missing),
            });
        }
        Ok(if number.fract() == 0.0 {
            self.on_scalar((number as i64).to_string())
        } else {
            self.on_scalar(number.to_string())
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
                Some(0) => match seq.next_element_seed(PointerReader { pointer })? {
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
            let here = map.next_value_seed(PointerReader { pointer })?;
            found = Some(match found {
                None => here,
                Some(_) => Found::Not(PointerError::Repeated),
            });
        }
        Ok(found.unwrap_or(Found::Not(PointerError::Missing)))
    }
}

/// Parses an array index: digits without a leading zero (RFC 6901 4).
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
        // Deep nesting is rejected before it can overflow the stack.
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
        /// This reader finds the same scalars as `serde_json` in its tree.
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

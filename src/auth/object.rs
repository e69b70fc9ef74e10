//! One JSON object, read strictly: a name occurs once (RFC 7515 4, RFC 7519 4), and nothing but an
//! object will do. A reader that takes the last of two values, beside one that takes the first, is
//! how two services come to see two different clients in one token.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

/// The members of a JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object(Vec<(String, Value)>);

/// Most members of an object. Tokens are bounded to 8 KiB, and keys have fewer than 20.
const MEMBERS_MAX: usize = 128;

impl Object {
    /// Reads one object. `None`: the bytes are something else, or a name occurs twice.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let members = reader.deserialize_map(Members).ok()?;
        reader.end().ok()?;
        Some(Self(members))
    }

    /// An object that was read as a part of another. Its names were not checked for repetition.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        let members = members
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        Some(Self(members.collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A member that must be text if it is there. The outer `None`: it is something else.
    pub(super) fn text(&self, name: &str) -> Option<Option<&str>> {
        match self.get(name) {
            None => Some(None),
            Some(value) => value.as_str().map(Some),
        }
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.len() == MEMBERS_MAX || members.iter().any(|(known, _)| *known == name) {
                return Err(serde::de::Error::custom("a name is repeated"));
            }
            members.push((name, value));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_whose_names_occur_once_is_read() {
        let good = Object::parse(br#" {"a":1,"b":{"c":null}} "#).expect("an object");
        assert!(good.has("a") && good.has("b") && !good.has("c"));
        assert_eq!(good.text("a"), None, "it is a number");
        assert_eq!(good.text("x"), Some(None));
        for bad in [
            r#"["RS256"]"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"a":1}{"#,
            r#"{"a":1"#,
            "null",
            "",
            "\u{feff}{}",
        ] {
            assert_eq!(Object::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}"), None);
    }
}

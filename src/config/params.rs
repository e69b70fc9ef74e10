//! Types of path and query parameters. They are checked before a record is made, so that a service
//! need not expect other text.

use std::fmt;

/// Most query parameters of a route with a type. Each request looks for every one of them.
pub const QUERY_PARAMS_MAX: usize = 32;

/// A parameter with the type of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamRule {
    /// Where requests have the parameter.
    pub place: ParamPlace,
    /// The parameter's name.
    pub name: String,
    /// What its value must be.
    pub kind: ParamKind,
    /// Whether a request must have it. A path always has its parameters.
    pub required: bool,
}

/// Where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamPlace {
    /// In the path: its index in `PathPattern::params`.
    Path(usize),
    /// In the query.
    Query,
}

/// The type of a parameter's values. Every integer and boolean has one spelling, so that a value
/// that becomes a key is one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Any text.
    Text,
    /// Digits without leading zeros, perhaps after `-`, within these bounds.
    Integer {
        /// The lowest value.
        min: i64,
        /// The highest value.
        max: i64,
    },
    /// A number as JSON writes it.
    Number,
    /// `true` or `false`.
    Boolean,
    /// 32 hex digits in five groups, upper or lower case (RFC 9562 4).
    Uuid,
    /// One of these texts.
    OneOf(Vec<String>),
}

impl ParamKind {
    /// Whether `text` is a value of the type.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Integer { min, max } => text
                .parse()
                .is_ok_and(|n: i64| (*min..=*max).contains(&n) && n.to_string() == text),
            Self::Number => {
                // JSON allows whitespace around a number.
                let whole = text.trim_ascii() == text;
                whole && serde_json::from_str::<serde_json::Number>(text).is_ok()
            }
            Self::Boolean => matches!(text, "true" | "false"),
            Self::Uuid => is_uuid(text),
            Self::OneOf(values) => values.iter().any(|value| value == text),
        }
    }
}

/// What a value must be, for messages: "an integer from 1 to 100".
impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Integer {
                min: i64::MIN,
                max: i64::MAX,
            } => f.write_str("an integer"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Number => f.write_str("a number"),
            Self::Boolean => f.write_str("true or false"),
            Self::Uuid => f.write_str("a UUID"),
            Self::OneOf(values) => write!(f, "one of {}", values.join(", ")),
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let mut groups = text.split('-');
    let hex = |group: &str, len| group.len() == len && group.bytes().all(|b| b.is_ascii_hexdigit());
    let fits = [8, 4, 4, 4, 12].map(|len| groups.next().is_some_and(|group| hex(group, len)));
    fits == [true; 5] && groups.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_knows_its_values() {
        let integer = ParamKind::Integer { min: -5, max: 100 };
        let any = ParamKind::Integer {
            min: i64::MIN,
            max: i64::MAX,
        };
        let words = ParamKind::OneOf(vec!["asc".into(), "desc".into()]);
        let uuid = "0af76519-16cd-43dd-8448-EB211c80319c";
        for (kind, good, bad) in [
            (
                &integer,
                &["-5", "0", "100"][..],
                &["-6", "101", "007", "+1", "-0", "", "1.0"][..],
            ),
            (
                &any,
                &["-9223372036854775808"],
                &["9223372036854775808", " 1", "1e2", "a"],
            ),
            (
                &ParamKind::Number,
                &["1", "-1.5", "1e3"],
                &["", "01", ".5", "NaN", "1e999", "1 "],
            ),
            (&ParamKind::Boolean, &["true", "false"], &["", "True", "1"]),
            (
                &ParamKind::Uuid,
                &[uuid],
                &["", "0af7651916cd43dd8448eb211c80319c", "g"],
            ),
            (&words, &["asc"], &["", "ASC", "asc "]),
            (&ParamKind::Text, &["", "ä"], &[]),
        ] {
            for text in good {
                assert!(kind.allows(text), "{kind}: {text:?}");
            }
            for text in bad {
                assert!(!kind.allows(text), "{kind}: {text:?}");
            }
        }
        let (short, long) = (&uuid[1..], format!("{uuid}-"));
        assert!(!ParamKind::Uuid.allows(short) && !ParamKind::Uuid.allows(&long));
    }
}

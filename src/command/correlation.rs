//! The correlation id of a record: which command the record is, or answers.

use crate::log::Headers;
use crate::model::CorrelationId;

/// Why a record has no correlation id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unaddressed {
    /// The header is absent.
    Absent,
    /// The header's value is null.
    Null,
    /// The header's value does not have the form of a correlation id.
    Malformed,
    /// The header comes several times with different values. The last one is not more likely to be
    /// right than the first, and a reply to another command's client is worse than none.
    Ambiguous,
}

/// The correlation id in the headers called `name`. Several of them must have the same value, as
/// when a service copies all headers of the command and adds this one again.
pub(super) fn correlation_id(
    headers: Headers<'_>,
    name: &str,
) -> Result<CorrelationId, Unaddressed> {
    let named = headers.filter(|(it, _)| *it == name.as_bytes());
    let mut values = named.map(|(_, value)| value);
    let first = values.next().ok_or(Unaddressed::Absent)?;
    if values.any(|other| other != first) {
        return Err(Unaddressed::Ambiguous);
    }
    let text = first.ok_or(Unaddressed::Null)?;
    CorrelationId::parse(text).ok_or(Unaddressed::Malformed)
}

impl Unaddressed {
    /// What is wrong with the headers called `name`, in a sentence.
    pub(super) fn explain(self, name: &str) -> String {
        match self {
            Self::Absent => format!("there is no header `{name}`"),
            Self::Null => format!("header `{name}` is null"),
            Self::Malformed => format!("header `{name}` is not the correlation id of a command"),
            Self::Ambiguous => format!("headers `{name}` have different values"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{Draft, batch};
    use crate::model::{CommandKey, Fingerprint, HashSecret};

    #[test]
    fn a_record_has_one_id_or_none() {
        let id = |n| CorrelationId {
            key: CommandKey([n; 16]),
            fingerprint: Fingerprint([1; 16]),
        };
        let (one, other) = (id(1).to_string(), id(2).to_string());
        let cases: [(&[Option<&str>], Result<_, _>); 9] = [
            (&[Some(&one)], Ok(id(1))),
            (&[Some(&one), Some(&one)], Ok(id(1))),
            (&[], Err(Unaddressed::Absent)),
            (&[None], Err(Unaddressed::Null)),
            (&[Some("42")], Err(Unaddressed::Malformed)),
            (&[Some("")], Err(Unaddressed::Malformed)),
            (&[Some(&one), Some(&other)], Err(Unaddressed::Ambiguous)),
            (&[Some("42"), Some(&one)], Err(Unaddressed::Ambiguous)),
            (&[Some(&one), None], Err(Unaddressed::Ambiguous)),
        ];
        for (values, expected) in cases {
            let mut draft = Draft::new(0, "k", Some("v"))
                .header("Correlation-Id", &other)
                .header("correlation", &other);
            for value in values {
                let value = value.map(|it| it.as_bytes().to_vec());
                draft.headers.push((b"correlation-id".to_vec(), value));
            }
            let batch = batch(0, &[draft], &HashSecret::new([0; 16]));
            let record = batch.iter().next().expect("one");
            let found = correlation_id(record.headers, "correlation-id");
            assert_eq!(found, expected, "{values:?}");
        }
    }
}

//! What went wrong, counted by cause, with one example each.

use std::collections::BTreeMap;

use serde::Serialize;

/// Most different causes that are counted; further ones are "other".
const CAUSES_MAX: usize = 64;
/// Longest example, in characters.
const EXAMPLE_CHARS_MAX: usize = 300;

/// One cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    pub(crate) count: u64,
    /// The first one seen: the URL, and the first bytes of the answer.
    pub(crate) example: String,
}

/// Errors by cause: a status, or what happened to the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Errors(BTreeMap<String, Cause>);

impl Errors {
    /// Counts one. `example` is made only for the first of its cause.
    pub(crate) fn add(&mut self, cause: &str, example: impl FnOnce() -> String) {
        let cause = if self.0.contains_key(cause) || self.0.len() < CAUSES_MAX {
            cause
        } else {
            "other"
        };
        if let Some(known) = self.0.get_mut(cause) {
            known.count += 1;
            return;
        }
        let example = example().chars().take(EXAMPLE_CHARS_MAX).collect();
        self.0.insert(cause.to_owned(), Cause { count: 1, example });
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, cause) in &other.0 {
            let known = self.0.entry(name.clone()).or_insert_with(|| Cause {
                count: 0,
                example: cause.example.clone(),
            });
            known.count += cause.count;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|cause| cause.count).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Cause)> {
        self.0.iter().map(|(name, cause)| (&name[..], cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_counted_with_their_first_example() {
        let (mut a, mut b) = (Errors::default(), Errors::default());
        a.add("503", || "first".into());
        a.add("503", || unreachable!("only the first has an example"));
        b.add("503", || "second".into());
        b.add("closed", || "x".repeat(1000));
        a.merge(&b);
        assert_eq!(a.total(), 4);
        let all: Vec<_> = a
            .iter()
            .map(|(name, it)| (name, it.count, it.example.len()))
            .collect();
        assert_eq!(all, [("503", 3, 5), ("closed", 1, EXAMPLE_CHARS_MAX)]);
        for n in 0..1000 {
            a.add(&format!("cause {n}"), String::new);
        }
        assert!(a.iter().count() <= CAUSES_MAX + 1);
    }
}

//! Conditions under which a run fails: a figure, a comparison, and a value with its unit.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};

/// `p99>5ms`: the run fails if it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    name: String,
    compare: Compare,
    value: f64,
    has_time: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl FromStr for Threshold {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let at = text
            .find(['<', '>'])
            .context("no comparison: write it as p99>5ms")?;
        let (name, rest) = text.split_at(at);
        let (compare, value) = match rest.strip_prefix(">=") {
            Some(value) => (Compare::AtLeast, value),
            None => match (rest.strip_prefix("<="), &rest[..1]) {
                (Some(value), _) => (Compare::AtMost, value),
                (None, ">") => (Compare::Above, &rest[1..]),
                (None, _) => (Compare::Below, &rest[1..]),
            },
        };
        let value = value.trim();
        let digits = value.trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
        let number: f64 = digits
            .trim()
            .parse()
            .ok()
            .with_context(|| format!("`{value}` is no value"))?;
        let (scale, has_time) = match &value[digits.len()..] {
            "" => (1.0, false),
            "%" => (0.01, false),
            "us" | "µs" => (1.0, true),
            "ms" => (1e3, true),
            "s" => (1e6, true),
            unit => bail!("`{unit}` is no unit: us, ms, s, % or none"),
        };
        let name = name.trim();
        ensure!(!name.is_empty(), "no figure is named");
        Ok(Self {
            text: text.to_owned(),
            name: name.to_owned(),
            compare,
            value: number * scale,
            has_time,
        })
    }
}

impl Threshold {
    /// What the figure is, if the condition holds. An error if there is no such figure.
    pub(crate) fn holds(&self, figures: &[(String, f64)]) -> Result<Option<String>> {
        let wanted = self.name.replace("p99.9", "p99_9");
        let time = format!("{wanted}_us");
        // cpu_per_delivery stands for cpu_us_per_delivery.
        let inner = wanted.replacen("cpu_per", "cpu_us_per", 1);
        let found = figures
            .iter()
            .find(|(name, _)| *name == wanted || *name == time || *name == inner);
        let (name, value) = found.with_context(|| {
            let known: Vec<&str> = figures.iter().map(|(name, _)| &name[..]).collect();
            format!(
                "there is no figure `{}`; there are {}",
                self.name,
                known.join(", ")
            )
        })?;
        let in_time =
            name.ends_with("_us") || (name.contains("_us_per_") && !name.contains(".ratio"));
        ensure!(
            in_time == self.has_time,
            "`{name}` {} a unit of time",
            if in_time { "needs" } else { "has not" }
        );
        let holds = match self.compare {
            Compare::Above => *value > self.value,
            Compare::AtLeast => *value >= self.value,
            Compare::Below => *value < self.value,
            Compare::AtMost => *value <= self.value,
        };
        let unit = if in_time { " µs" } else { "" };
        Ok(holds.then(|| format!("{}{unit}", super::Number(*value))))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_compared_in_their_units() {
        let figures = [
            ("p99_us".to_owned(), 5_500.0),
            ("p99_9_us".to_owned(), 9_000.0),
            ("cpu_us_per_delivery".to_owned(), 4.2),
            ("queries.errors".to_owned(), 0.0),
        ];
        for (text, expected) in [
            ("p99>5ms", true),
            ("p99 > 5.5ms", false),
            ("p99>=5500us", true),
            ("p99.9<0.01s", true),
            ("cpu_per_delivery>10us", false),
            ("queries.errors<=0", true),
        ] {
            let threshold: Threshold = text.parse().expect(text);
            let held = threshold.holds(&figures).expect(text);
            assert_eq!(held.is_some(), expected, "{text}");
        }
        for text in ["p99", ">5ms", "p99>5parsecs", "p99>fast"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
        for text in ["p95>5ms", "p99>5", "queries.errors>1ms"] {
            let threshold: Threshold = text.parse().expect(text);
            assert!(threshold.holds(&figures).is_err(), "{text}");
        }
    }
}

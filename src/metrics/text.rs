//! The text exposition of Prometheus, version 0.0.4: `# HELP`, `# TYPE`, then all samples of the
//! family.

use std::fmt::{Display, Write as _};

use super::Histogram;

/// The `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An exposition while it is written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Starts a family and lets `samples` write its samples. Write each family once.
    pub fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl FnOnce(&mut Samples<'_>),
    ) {
        let help = help.replace('\\', "\\\\").replace('\n', " ");
        let text = &mut self.text;
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let labels = String::new();
        samples(&mut Samples { name, labels, text });
    }

    /// Returns the text of all families.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Writes the samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    name: &'a str,
    labels: String,
    text: &'a mut String,
}

impl Samples<'_> {
    /// Adds a label to all samples that `samples` writes.
    pub fn labelled(&mut self, name: &str, value: &str, samples: impl FnOnce(&mut Self)) {
        let before = self.labels.len();
        if before > 0 {
            self.labels.push(',');
        }
        self.labels.push_str(name);
        self.labels.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => self.labels.push_str("\\\\"),
                '"' => self.labels.push_str("\\\""),
                '\n' => self.labels.push_str("\\n"),
                c => self.labels.push(c),
            }
        }
        self.labels.push('"');
        samples(self);
        self.labels.truncate(before);
    }

    /// Writes one sample with an integer.
    pub fn integer(&mut self, suffix: &str, value: u64) {
        self.line(suffix, None, &value);
    }

    /// Writes one sample with a real number.
    pub fn real(&mut self, suffix: &str, value: f64) {
        self.line(suffix, None, &value);
    }

    /// Writes the buckets, sum and count of a histogram.
    pub fn histogram(&mut self, histogram: &Histogram) {
        for (bound, below) in histogram.cumulative() {
            self.line("_bucket", Some(&bound), &below);
        }
        self.line("_bucket", Some(&"+Inf"), &histogram.count());
        self.real("_sum", histogram.sum_seconds());
        self.integer("_count", histogram.count());
    }

    fn line(&mut self, suffix: &str, le: Option<&dyn Display>, value: &dyn Display) {
        let (name, labels, text) = (self.name, &self.labels, &mut *self.text);
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}{suffix}");
        let _ = match (le, labels.as_str()) {
            (None, "") => Ok(()),
            (None, labels) => write!(text, "{{{labels}}}"),
            (Some(le), "") => write!(text, "{{le=\"{le}\"}}"),
            (Some(le), labels) => write!(text, "{{{labels},le=\"{le}\"}}"),
        };
        let _ = writeln!(text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn labels_are_escaped_and_nest() {
        let mut out = Exposition::default();
        out.family("x_total", "counter", "Things.\nMany.", |out| {
            out.integer("", 1);
            out.labelled("a", "q\"\\\n", |out| {
                out.labelled("b", "c", |out| out.integer("", 2));
            });
        });
        let text = "# HELP x_total Things. Many.\n# TYPE x_total counter\nx_total 1\n\
                    x_total{a=\"q\\\"\\\\\\n\",b=\"c\"} 2\n";
        assert_eq!(out.into_text(), text);
    }

    #[test]
    fn a_histogram_ends_with_inf_sum_and_count() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(1));
        histogram.record(Duration::from_secs(1000));
        let mut out = Exposition::default();
        out.family("t_seconds", "histogram", "Times.", |out| {
            out.labelled("kind", "query", |out| out.histogram(&histogram));
        });
        let text = out.into_text();
        assert!(text.contains("t_seconds_bucket{kind=\"query\",le=\"0.000001024\"} 1\n"));
        assert!(text.contains("t_seconds_bucket{kind=\"query\",le=\"+Inf\"} 2\n"));
        assert!(text.contains("t_seconds_sum{kind=\"query\"} 1000.000001\n"));
        assert!(text.ends_with("t_seconds_count{kind=\"query\"} 2\n"));
    }
}

//! Named results, and violated conditions.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Format of the printed results.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// One `name value` per line.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

/// The results of a role.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<(&'static str, f64)>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn figure(&mut self, name: &'static str, value: f64) -> &mut Self {
        self.figures.push((name, value));
        self
    }

    pub(crate) fn count(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.figure(name, value as f64)
    }

    /// Adds p50, p99 and maximum in µs.
    pub(crate) fn latency(&mut self, latency: &Latency) -> &mut Self {
        let Latency(histogram) = latency;
        if histogram.is_empty() {
            return self;
        }
        self.count("p50_us", histogram.value_at_quantile(0.5))
            .count("p99_us", histogram.value_at_quantile(0.99))
            .count("max_us", histogram.max())
    }

    /// Records a violation unless the condition holds.
    pub(crate) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(what());
        }
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(crate) fn print(&self, output: Output) {
        match output {
            Output::Text => {
                for (name, value) in &self.figures {
                    println!("{name} {}", Number(*value));
                }
            }
            Output::Json => {
                let figures = self.figures.iter();
                let pairs: Vec<_> = figures
                    .map(|(name, value)| format!("\"{name}\":{}", Number(*value)))
                    .collect();
                println!("{{{}}}", pairs.join(","));
            }
        }
    }
}

/// Prints three decimals, or none for an integer.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.fract() == 0.0 {
            write!(f, "{:.0}", self.0)
        } else {
            write!(f, "{:.3}", self.0)
        }
    }
}

/// A histogram of delays in µs, up to a minute.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3);
        Self(histogram.expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }
}

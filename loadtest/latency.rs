//! Histograms of delays in µs, up to a minute: percentiles, and HdrHistogram's text format.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest delay that is recorded exactly, in µs.
const DELAY_US_MAX: u64 = 60_000_000;

/// Percentiles that every report shows, with the names of their figures.
pub(crate) const PERCENTILES: [(&str, f64); 4] = [
    ("p50_us", 0.5),
    ("p90_us", 0.9),
    ("p99_us", 0.99),
    ("p99_9_us", 0.999),
];

/// Delays in µs. A delay longer than a minute counts as a minute.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, DELAY_US_MAX, 3);
        Self(histogram.expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    /// The delay that the share `quantile` of all does not exceed, in µs.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// Points of the percentile curve: (1 / (1 − quantile), µs), up to the last sample.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        let mut points = Vec::new();
        let mut step = 1.0_f64;
        let all = self.count() as f64;
        while step <= all.max(1.0) {
            points.push((step, self.at(1.0 - 1.0 / step)));
            step *= 1.2;
        }
        points.push((all.max(1.0), self.max()));
        points
    }

    /// The histogram in HdrHistogram's percentile format (`.hgrm`), in milliseconds, which its
    /// plotters read.
    pub(crate) fn hgrm(&self) -> String {
        let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        for value in self.0.iter_quantiles(5) {
            let quantile = value.quantile_iterated_to();
            let upper = value.value_iterated_to() as f64 / 1000.0;
            let below = self.0.count_between(0, value.value_iterated_to());
            let _ = if quantile < 1.0 {
                let inverse = 1.0 / (1.0 - quantile);
                writeln!(
                    text,
                    "{upper:12.3} {quantile:14.12} {below:10} {inverse:14.2}"
                )
            } else {
                writeln!(
                    text,
                    "{upper:12.3} {quantile:14.12} {below:10}            inf"
                )
            };
        }
        let _ = writeln!(
            text,
            "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = \
             {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]",
            self.0.mean() / 1000.0,
            self.0.stdev() / 1000.0,
            self.max() as f64 / 1000.0,
            self.count(),
            self.0.buckets(),
            2048,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_exports_agree() {
        let mut latency = Latency::new();
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        assert_eq!(
            (latency.at(0.5), latency.at(0.99), latency.max()),
            (500, 990, 1000)
        );
        let text = latency.hgrm();
        let last = text
            .lines()
            .rfind(|line| line.contains("inf"))
            .expect("the last row");
        assert!(last.contains("1.000 1.000000000000       1000"), "{last}");
        assert!(text.contains("Total count    =         1000]"));
        let curve = latency.curve();
        assert_eq!(curve.last(), Some(&(1000.0, 1000)));
        assert!(curve.is_sorted());
    }
}

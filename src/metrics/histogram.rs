//! A histogram of times in fixed buckets, each twice as wide as the one before. Recording is one
//! increment and one addition, and merging adds two arrays. All instances have the same bounds, so
//! Prometheus can add them up, which it cannot do with summaries.

use std::time::Duration;

/// The first bound is 2^10 ns, about 1 µs.
const FIRST_BIT: u32 = 10;

/// Number of buckets with a bound. The last bound is 2^36 ns, about 69 s; longer times count only
/// in `+Inf`.
pub const BOUNDS: usize = 27;

/// Number of times per bucket, and their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Counts per bucket, not cumulative. The last bucket is beyond all bounds.
    buckets: [u64; BOUNDS + 1],
    sum_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = [0; BOUNDS + 1];
        Self {
            buckets,
            sum_nanos: 0,
        }
    }
}

impl Histogram {
    /// Records one time at its bucket.
    pub fn record(&mut self, time: Duration) {
        self.record_n(time, 1);
    }

    /// Records `n` times of the same length, at the cost of one.
    pub fn record_n(&mut self, time: Duration, n: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Choose the bucket of the smallest power of two that is at least the time: bounds are
        // inclusive.
        let bits = u64::BITS - nanos.saturating_sub(1).leading_zeros();
        let bucket = (bits.saturating_sub(FIRST_BIT) as usize).min(BOUNDS);
        self.buckets[bucket] += n;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos.saturating_mul(n));
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    /// Number of times that were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of the recorded times in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanos as f64 / 1e9
    }

    /// Each bound in seconds, with the number of times up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        self.buckets[..BOUNDS]
            .iter()
            .enumerate()
            .map(move |(bucket, count)| {
                below += count;
                ((1_u64 << (FIRST_BIT as usize + bucket)) as f64 / 1e9, below)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_one_more_to_the_next() {
        let mut histogram = Histogram::default();
        for nanos in [0, 1, 1024, 1025, 2048, 1 << 36, (1 << 36) + 1, u64::MAX] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let below: Vec<_> = histogram.cumulative().map(|(_, n)| n).collect();
        assert_eq!(below[0], 3);
        assert_eq!(below[1], 5);
        assert_eq!(below[BOUNDS - 1], 6);
        assert_eq!(histogram.count(), 8);
        let bounds: Vec<_> = histogram.cumulative().map(|(bound, _)| bound).collect();
        assert_eq!(bounds[0], 1.024e-6);
        assert!(bounds[BOUNDS - 1] > 60.0);
    }

    #[test]
    fn merged_counts_are_sums() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        a.record_n(Duration::from_millis(1), 3);
        b.record(Duration::from_secs(2));
        a.merge(&b);
        assert_eq!(a.count(), 4);
        assert!((a.sum_seconds() - 2.003).abs() < 1e-9);
    }
}

//! How long to wait after a failure, and the one source of jitter.

use std::time::Duration;

/// A small generator (SplitMix64): the same seed gives the same waits, so a simulation repeats.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Something below `bound`, which is not 0.
    pub(super) const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Waits that double from `min` to `max`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row, the first being 1: between half and the whole of
    /// the doubled wait, so that peers which failed together do not return together.
    pub(super) fn after(self, failures: u32, jitter: &mut Jitter) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let whole = self.min.saturating_mul(1 << doublings).min(self.max);
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(jitter.next() % nanos.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        let mut jitter = Jitter::new(7);
        let backoff = Backoff {
            min: Duration::from_millis(50),
            max: Duration::from_secs(1),
        };
        for failures in 1..100 {
            let wait = backoff.after(failures, &mut jitter);
            let whole = Duration::from_millis(50 << (failures - 1).min(10)).min(backoff.max);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
        }
    }
}

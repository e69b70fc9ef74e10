//! How long to wait after a failure.

use std::time::Duration;

use crate::model::FastRandom;

/// Waits that double from `min` to `max`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row, the first being 1. The result is between half and
    /// the whole of the doubled wait, so that instances which failed together do not retry
    /// together.
    pub(super) fn after(self, failures: u32, jitter: &mut FastRandom) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let whole = self.min.saturating_mul(1 << doublings).min(self.max);
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(jitter.below(nanos.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        let mut jitter = FastRandom::new(7);
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

//! When the certificates of clients are verified again.

use std::time::Duration;

use crate::model::Instant;

/// The state of verifying the certificates of open connections again, after the authorities of
/// clients may have changed. It is done twice: at once, and when every handshake that began under
/// the earlier authorities has ended.
#[derive(Debug, Default)]
pub(super) struct TrustSweep {
    /// The slot to continue with.
    next: Option<usize>,
    again_at: Option<Instant>,
}

impl TrustSweep {
    /// Authorities may have changed. A handshake takes at most `handshake_timeout`.
    pub(super) fn begin(&mut self, now: Instant, handshake_timeout: Duration) {
        self.next = Some(0);
        self.again_at = Some(now.after(handshake_timeout));
    }

    /// The slot from which on connections are due to be verified.
    pub(super) fn next(&mut self, now: Instant) -> Option<usize> {
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.next = Some(0);
        }
        self.next
    }

    /// The slot to continue with, or the end.
    pub(super) const fn continue_at(&mut self, next: Option<usize>) {
        self.next = next;
    }

    /// When [`Self::next`] next has work. `Instant::ZERO`: at once.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.next {
            Some(_) => Some(Instant::ZERO),
            None => self.again_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_verified_at_once_and_again_after_the_last_handshake() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut sweep = TrustSweep::default();
        assert_eq!((sweep.next(at(1)), sweep.next_deadline()), (None, None));
        sweep.begin(at(1), Duration::from_secs(10));
        assert_eq!(sweep.next(at(1)), Some(0));
        sweep.continue_at(Some(4096));
        assert_eq!(sweep.next(at(1)), Some(4096));
        assert_eq!(sweep.next_deadline(), Some(Instant::ZERO));
        sweep.continue_at(None);
        assert_eq!(sweep.next(at(10)), None);
        assert_eq!(sweep.next_deadline(), Some(at(11)));
        assert_eq!(sweep.next(at(11)), Some(0));
        sweep.continue_at(None);
        assert_eq!(sweep.next_deadline(), None);
    }
}

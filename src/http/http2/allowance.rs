//! How many frames that ask for nothing a client may send: SETTINGS, PING, PRIORITY, WINDOW_UPDATE,
//! RST_STREAM, empty DATA and frames of unknown types. Each costs the gateway work, and flow
//! control bounds none of them (RFC 9113 10.5).

use std::time::Duration;

use crate::model::Instant;

/// What a client may spend at once.
const POINTS_MAX: u64 = 1000;
/// What a client gets back in a second.
const POINTS_PER_SECOND: u64 = 200;
/// What a client gets for each DATA frame that is sent to it: it may answer the frame with a
/// WINDOW_UPDATE of the stream and one of the connection, and some clients send a PING too.
const POINTS_PER_DATA: u64 = 4;
/// The price of a frame.
const FRAME_POINTS: u64 = 1;
/// The price of RST_STREAM, which may have cost a request (CVE-2023-44487).
const RESET_POINTS: u64 = 5;

/// Streams that a client may reset at once.
pub(super) const RESETS_AT_ONCE: u64 = POINTS_MAX / RESET_POINTS;

/// What a client may still spend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    points: u64,
    /// Up to when points were added.
    since: Instant,
}

impl Allowance {
    pub(super) const fn new(now: Instant) -> Self {
        let (points, since) = (POINTS_MAX, now);
        Self { points, since }
    }

    /// Adds what time brings.
    pub(super) fn on_time(&mut self, now: Instant) {
        let each = Duration::from_secs(1).as_nanos() / u128::from(POINTS_PER_SECOND);
        let passed = now.since(self.since).as_nanos() / each;
        if passed > 0 {
            self.add(u64::try_from(passed).unwrap_or(u64::MAX));
            self.since = now;
        }
    }

    /// A DATA frame was sent.
    pub(super) fn on_data_sent(&mut self) {
        self.add(POINTS_PER_DATA);
    }

    fn add(&mut self, points: u64) {
        self.points = self.points.saturating_add(points).min(POINTS_MAX);
    }

    /// Pays for a frame. Returns false if the client has nothing left.
    #[must_use]
    pub(super) fn pay(&mut self, is_reset: bool) -> bool {
        let price = if is_reset { RESET_POINTS } else { FRAME_POINTS };
        let left = self.points.checked_sub(price);
        self.points = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_only_sends_idle_frames_runs_out_and_recovers() {
        let start = Instant::ZERO;
        let mut allowance = Allowance::new(start);
        let paid = (0..).take_while(|_| allowance.pay(false)).count();
        assert_eq!(paid as u64, POINTS_MAX);
        let later = start.after(Duration::from_millis(50));
        allowance.on_time(later);
        assert_eq!((0..).take_while(|_| allowance.pay(false)).count(), 10);
        // Times that are too short for a point are not lost.
        for ms in 51..=55 {
            allowance.on_time(start.after(Duration::from_millis(ms)));
        }
        assert!(allowance.pay(false) && !allowance.pay(false));
    }

    #[test]
    fn a_client_may_acknowledge_every_event() {
        let mut allowance = Allowance::new(Instant::ZERO);
        for _ in 0..10 * POINTS_MAX {
            allowance.on_data_sent();
            assert!(allowance.pay(false) && allowance.pay(false) && allowance.pay(false));
        }
    }

    #[test]
    fn resets_cost_more() {
        let mut allowance = Allowance::new(Instant::ZERO);
        let paid = (0..).take_while(|_| allowance.pay(true)).count();
        assert_eq!(paid as u64, POINTS_MAX / RESET_POINTS);
    }
}

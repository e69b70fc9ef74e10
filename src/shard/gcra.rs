//! The generic cell rate algorithm (GCRA): a limit of requests per time as one number for each
//! client, the time at which its requests so far would have arrived if it had spread them evenly.
//!
//! It is a token bucket without a count: the bucket holds `burst` requests and gets one back every
//! `interval`. A client that is behind its even schedule has a full bucket.

use std::time::Duration;

use crate::config::Rate;
use crate::model::Instant;

/// The limit of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Nanoseconds between two requests that arrive evenly.
    interval: u64,
    /// How far ahead of the even schedule a client may be, in nanoseconds.
    tolerance: u64,
}

/// The decision on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request is within the limit. The state of its client becomes `next`.
    Pass { next: Instant },
    /// The request is beyond the limit, and would be within it after this time.
    Wait(Duration),
}

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Requests that the client may send at once.
    pub(super) requests: u32,
    /// Time until it has all of them back.
    pub(super) full_after: Duration,
}

impl Gcra {
    /// The limit of `rate`.
    pub(super) fn new(rate: Rate) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: a client never gets more than `requests` in each `per`.
        let interval = per.div_ceil(u64::from(rate.requests.max(1))).max(1);
        let burst = u64::from(rate.burst.max(1));
        Self {
            interval,
            tolerance: interval.saturating_mul(burst - 1),
        }
    }

    /// Decides a request that arrives `now`, of a client with the state `due`. A client that was
    /// never seen has [`Instant::ZERO`].
    pub(super) fn decide(&self, due: Instant, now: Instant) -> Verdict {
        let due = due.max(now);
        let ahead = due.since(now);
        let tolerance = Duration::from_nanos(self.tolerance);
        match ahead.checked_sub(tolerance) {
            None | Some(Duration::ZERO) => Verdict::Pass {
                next: due.after(Duration::from_nanos(self.interval)),
            },
            Some(wait) => Verdict::Wait(wait),
        }
    }

    /// What a client with the state `due` has left.
    pub(super) fn allowance(&self, due: Instant, now: Instant) -> Allowance {
        let ahead = due.since(now);
        let nanos = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
        // The last request may arrive with `tolerance` left, hence the one more.
        let left = (self.tolerance + self.interval).saturating_sub(nanos) / self.interval;
        Allowance {
            requests: u32::try_from(left).unwrap_or(u32::MAX),
            full_after: ahead,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(requests: u32, seconds: u64, burst: u32) -> Rate {
        let per = Duration::from_secs(seconds);
        Rate {
            requests,
            per,
            burst,
        }
    }

    /// A client under the limit.
    struct Client {
        limit: Gcra,
        due: Instant,
    }

    impl Client {
        fn new(rate: Rate) -> Self {
            Self {
                limit: Gcra::new(rate),
                due: Instant::ZERO,
            }
        }

        /// Sends a request. Returns the time to wait if it is refused.
        fn ask(&mut self, now: Instant) -> Option<Duration> {
            match self.limit.decide(self.due, now) {
                Verdict::Pass { next } => {
                    self.due = next;
                    None
                }
                Verdict::Wait(wait) => Some(wait),
            }
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO.after(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let mut client = Client::new(rate(10, 1, 3));
        assert_eq!([0; 3].map(|_| client.ask(at(5000))), [None; 3]);
        assert_eq!(client.ask(at(5000)), Some(Duration::from_millis(100)));
        assert_eq!(client.ask(at(5099)), Some(Duration::from_millis(1)));
        assert_eq!(client.ask(at(5100)), None);
        assert_eq!(client.ask(at(5101)), Some(Duration::from_millis(99)));
        // A pause gives the burst back, and no more than that.
        assert_eq!([0; 3].map(|_| client.ask(at(9000))), [None; 3]);
        assert!(client.ask(at(9000)).is_some());
    }

    #[test]
    fn what_is_left_is_what_may_be_sent_at_once() {
        let mut client = Client::new(rate(60, 60, 5));
        let left = |client: &Client| client.limit.allowance(client.due, at(1000));
        assert_eq!(left(&client).requests, 5);
        assert_eq!(left(&client).full_after, Duration::ZERO);
        for left_over in (0..5).rev() {
            assert_eq!(client.ask(at(1000)), None);
            assert_eq!(left(&client).requests, left_over);
        }
        assert_eq!(left(&client).full_after, Duration::from_secs(5));
        assert!(client.ask(at(1000)).is_some());
    }

    /// The largest rates that a config may have neither overflow nor let everything pass.
    #[test]
    fn extreme_rates_are_limits_too() {
        for rate in [
            rate(1_000_000, 1, 1_000_000),
            rate(1_000_000, 86_400, 1_000_000),
            rate(1, 86_400, 1),
        ] {
            let mut client = Client::new(rate);
            for _ in 0..rate.burst {
                assert_eq!(client.ask(at(1)), None);
            }
            assert!(client.ask(at(1)).is_some());
        }
    }

    proptest! {
        /// However requests arrive: in each time span at most the burst and one per interval pass,
        /// a request that waits as long as it is told passes, and what is announced as left passes.
        #[test]
        fn no_arrival_beats_the_limit(
            requests in 20..50_u32, seconds in 1..100_u64, burst in 1..20_u32,
            gaps in prop::collection::vec(0..3000_u64, 1..200),
        ) {
            let rate = rate(requests, seconds, burst);
            let mut client = Client::new(rate);
            let interval = Duration::from_nanos(client.limit.interval);
            let mut now = at(1);
            let mut passed: Vec<Instant> = Vec::new();
            for gap in gaps {
                now = now.after(Duration::from_millis(gap));
                let left = client.limit.allowance(client.due, now).requests;
                let again = Client { limit: client.limit, due: client.due };
                match client.ask(now) {
                    None => {
                        prop_assert!(left > 0);
                        passed.push(now);
                    }
                    Some(wait) => {
                        prop_assert_eq!(left, 0);
                        let mut again = again;
                        let early = wait.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(again.ask(now.after(early)).is_some());
                        prop_assert_eq!(again.ask(now.after(wait)), None);
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let span = to.since(*from);
                    let most = u128::from(burst) + span.as_nanos() / interval.as_nanos();
                    prop_assert!((last - first + 1) as u128 <= most);
                }
            }
        }
    }
}

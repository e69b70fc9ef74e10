//! How fast a broker answers: its recent response times, and the silence after which it counts as
//! unavailable. Without them a slow broker would be mistaken for a dead one.

use std::collections::VecDeque;
use std::time::Duration;

use super::settings::Settings;
use crate::model::{Instant, u32_of};

/// The number of response times that are kept.
const SAMPLES_MAX: usize = 128;
/// The number of slowest responses that are ignored: with 128 responses the rest gives their p99.
const LEFT_OUT: usize = 2;
/// Of the last few responses only one is ignored. So a broker that has become slow is detected at
/// its second slow response, and one that is fast again after this many fast ones.
const NEWEST: usize = 8;
/// One slow response is usually the first one of a broker that has just started.
const NEWEST_LEFT_OUT: usize = 1;
/// Older responses say nothing about the broker's present speed.
const RECENT: Duration = Duration::from_secs(60);
/// A broker may be silent for this multiple of its p99.
const FACTOR: u32 = 4;
/// The p99 is computed again after this many responses, or at once after a response slower than it.
const EVERY: u32 = u32_of(NEWEST);

/// The recent response times of a broker, for one kind of request.
#[derive(Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<(Instant, Duration)>,
    p99: Duration,
    until_next: u32,
}

/// How long a broker may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SilenceLimits {
    stall: Duration,
    unsent_max: Duration,
    stall_max: Duration,
}

impl Pace {
    /// Records a response that took `took`. A response slower than `max` was an outage and is
    /// ignored: it must not delay the detection of a second outage soon after.
    pub(super) fn record(&mut self, took: Duration, max: Duration, now: Instant) {
        if took > max {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, took));
        if self.until_next > 0 && took <= self.p99 {
            self.until_next -= 1;
            return;
        }
        self.until_next = EVERY;
        let old = |(at, _): &(Instant, Duration)| now.since(*at) > RECENT;
        while self.samples.front().is_some_and(old) {
            self.samples.pop_front();
        }
        let mut all: Vec<Duration> = self.samples.iter().map(|(_, took)| *took).collect();
        let newest = all.len().saturating_sub(NEWEST);
        let newest = slowest_but(NEWEST_LEFT_OUT, &mut all[newest..].to_vec());
        self.p99 = newest.max(slowest_but(LEFT_OUT, &mut all));
    }

    /// The p99 of the recent response times. Zero if there are none.
    pub(super) fn p99(&self, now: Instant) -> Duration {
        let last = self.samples.back();
        let recent = last.is_some_and(|(at, _)| now.since(*at) <= RECENT);
        if recent { self.p99 } else { Duration::ZERO }
    }
}

/// The slowest of `all` without the `left_out` slowest ones. Zero if none remains.
fn slowest_but(left_out: usize, all: &mut [Duration]) -> Duration {
    match all.len().checked_sub(left_out + 1) {
        None => Duration::ZERO,
        Some(at) => *all.select_nth_unstable(at).1,
    }
}

impl SilenceLimits {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            stall: settings.stall,
            unsent_max: settings.unsent_max,
            stall_max: settings.stall_max.max(settings.unsent_max),
        }
    }

    /// The silence from which a broker with this p99 counts as unavailable.
    pub(super) fn unavailable(&self, p99: Duration) -> Duration {
        let limit = p99.saturating_mul(FACTOR).max(self.unsent_max);
        limit.min(self.stall_max)
    }

    /// The silence from which nothing more is sent to a broker with this p99.
    pub(super) fn stalled(&self, p99: Duration) -> Duration {
        let limit = self.unavailable(p99).as_nanos() * self.stall.as_nanos();
        let limit = limit / self.unsent_max.as_nanos().max(1);
        Duration::from_nanos(u64::try_from(limit).unwrap_or(u64::MAX))
    }

    /// The time after which a failing connection counts as unavailable, however slow the broker
    /// was.
    pub(super) const fn failing(&self) -> Duration {
        self.unsent_max
    }

    /// The upper bound of all silence limits.
    pub(super) const fn max(&self) -> Duration {
        self.stall_max
    }

    /// The time after which nothing more is sent on a failing connection, however slow the broker
    /// was.
    pub(super) const fn failing_stalled(&self) -> Duration {
        self.stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn limits() -> SilenceLimits {
        SilenceLimits::of(&Settings::default())
    }

    /// The limit after responses that took these times in ms, one every 100 ms.
    fn after(times: impl IntoIterator<Item = u64>) -> (Duration, Duration) {
        let (mut pace, mut now) = (Pace::default(), 0);
        for took in times {
            now += 100;
            pace.record(ms(took), limits().max(), at(now));
        }
        let p99 = pace.p99(at(now));
        (limits().unavailable(p99), limits().stalled(p99))
    }

    #[test]
    fn silence_is_judged_by_the_pace_of_the_broker() {
        let usual = (ms(900), ms(500));
        assert_eq!(after([]), usual, "of a broker that nothing is known of");
        assert_eq!(after([199; 50]), usual);
        assert_eq!(after([300; 50]).0, ms(1_200));
        assert_eq!(after([1_000; 2]).0, ms(3_000), "the second answer teaches");
        let slow = [5; 128].into_iter().chain([1_000; 2]);
        assert_eq!(after(slow).0, ms(3_000), "and the second slow one");
        let (unavailable, stalled) = after([1_000; 50]);
        assert_eq!(unavailable, ms(3_000), "kafka.stall_max");
        assert!(stalled > ms(1_600) && stalled < ms(1_700), "{stalled:?}");
    }

    #[test]
    fn one_slow_answer_among_many_and_an_outage_change_nothing() {
        let one = (0..128).map(|n| if n == 60 { 2_000 } else { 5 });
        assert_eq!(after(one).0, ms(900));
        let first = [600, 500].into_iter().chain([5; 16]);
        assert_eq!(after(first).0, ms(900), "it has just started");
        assert_eq!(after([700]).0, ms(900), "it has answered once");
        assert_eq!(after([8_000, 3_001]).0, ms(900), "those were outages");
    }

    #[test]
    fn an_old_pace_is_forgotten() {
        let mut pace = Pace::default();
        (0..2).for_each(|_| pace.record(ms(1_000), ms(3_000), at(0)));
        assert_eq!(pace.p99(at(60_000)), ms(1_000));
        assert_eq!(pace.p99(at(60_001)), ms(0));
        (0..20).for_each(|n| pace.record(ms(5), ms(3_000), at(70_000 + n)));
        assert_eq!(pace.p99(at(70_030)), ms(5));
    }
}

//! How old the answers from a topic's memory may be. While brokers confirm a partition, an answer
//! is as old as a fetch takes. While they do not, the answer carries its age. Records behind an
//! open transaction are not confirmed either, since they may be older than a fetch.

use std::time::Duration;

use crate::config::Settings;
use crate::model::{Instant, Offset};

/// The time that a healthy broker may take beyond two waits of a fetch.
const GRACE: Duration = Duration::from_secs(1);

/// How up to date the read part of a partition is: everything in its log at `as_of` has been read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Staleness {
    as_of: Instant,
    /// A later moment, and the log's end at that moment. Once all below that end is read, `as_of`
    /// becomes that moment.
    next_end: Offset,
    next_at: Instant,
}

impl Staleness {
    /// The state before the first read, whose age counts from `now`.
    pub(super) const fn since(now: Instant) -> Self {
        Self {
            as_of: now,
            next_end: Offset(0),
            next_at: now,
        }
    }

    /// A broker reports that the log ends at `end`, replicated but maybe not committed. Everything
    /// below `read` has been read.
    pub(super) fn confirm(&mut self, read: Offset, end: Offset, now: Instant) {
        if read < self.next_end {
            return; // Something that was there at `next_at` is still held back.
        }
        self.as_of = if read >= end { now } else { self.next_at };
        (self.next_end, self.next_at) = (end, now);
    }

    /// The moment up to whose end of the log everything has been read.
    pub(super) const fn as_of(&self) -> Instant {
        self.as_of
    }
}

/// The greatest age of an answer that does not carry its age.
pub(super) fn fresh_for(settings: &Settings) -> Duration {
    settings.kafka.fetch_wait * 2 + GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_is_read_to_the_end_is_as_new_as_the_answer() {
        let mut staleness = Staleness::since(at(1));
        staleness.confirm(Offset(0), Offset(0), at(5));
        assert_eq!(staleness.as_of(), at(5));
        staleness.confirm(Offset(7), Offset(7), at(6));
        assert_eq!(staleness.as_of(), at(6));
    }

    /// Offsets from 3 on are behind an open transaction.
    #[test]
    fn what_a_transaction_holds_back_ages_from_when_it_was_seen() {
        let mut staleness = Staleness::since(at(1));
        staleness.confirm(Offset(3), Offset(3), at(2));
        for second in 3..60 {
            staleness.confirm(Offset(3), Offset(4 + second), at(second));
            assert_eq!(staleness.as_of(), at(2), "at {second} s");
        }
        // The transaction ends, and what was written at 30 s is behind another one.
        staleness.confirm(Offset(20), Offset(70), at(60));
        assert_eq!(staleness.as_of(), at(3), "all that was there then");
        staleness.confirm(Offset(70), Offset(70), at(61));
        assert_eq!(staleness.as_of(), at(61));
    }

    /// With transactions in close succession, the log's end is behind an open one at any moment.
    #[test]
    fn a_log_that_moves_on_is_as_new_as_its_last_answers() {
        let mut staleness = Staleness::since(at(0));
        for second in 1..60 {
            staleness.confirm(Offset(10 * second), Offset(10 * second + 5), at(second));
            assert!(staleness.as_of() >= at(second - 1), "at {second} s");
        }
    }
}

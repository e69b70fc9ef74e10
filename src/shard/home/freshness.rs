//! Whether brokers still confirm what a topic shows. While they do, an answer from memory is as old
//! as a fetch takes. While they do not, the answer carries its age. Records that an open
//! transaction holds back are not confirmed either, since they may be older than a fetch.

use std::time::Duration;

use crate::config::Settings;
use crate::model::{Instant, Offset};
use crate::shard::message::{Blocked, ProjectionMessage, Standing};
use crate::shard::snapshot::Snapshot;

use super::HomeContext;
use super::topic::Topic;

/// What a healthy broker may take beyond two waits of a fetch.
const GRACE: Duration = Duration::from_secs(1);

/// How fresh the read part of a partition is: everything in its log at `as_of` has been read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freshness {
    as_of: Instant,
    /// A later moment, and the log's end at that moment. Once all below that end is read, `as_of`
    /// becomes that moment.
    next_end: Offset,
    next_at: Instant,
}

impl Freshness {
    /// Before anything is read.
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

impl Topic {
    /// A broker has answered for a partition that is read up to `next`. The answer counts even if
    /// it has no records.
    pub(super) fn on_heard(&mut self, partition: usize, next: Offset, now: Instant) {
        if let Some(part) = self.parts.get_mut(partition) {
            part.heard = now;
            part.freshness.confirm(next, part.high_watermark, now);
        }
        if self.standing.stale_since.is_some() {
            self.look_at = now;
        }
    }

    /// Looks how the topic stands, if that is due; tells all shards where it is another way now.
    pub(super) fn look(&mut self, cx: &mut HomeContext<'_>) {
        if cx.now.mono < self.look_at {
            return;
        }
        let fresh_for = fresh_for(&cx.snapshot.config.settings);
        let oldest = self.parts.iter().map(|part| part.freshness.as_of()).min();
        let oldest = oldest.filter(|_| self.live);
        let stale = oldest.filter(|&oldest| cx.now.mono.since(oldest) >= fresh_for);
        // The next partition to fall silent does so then at the earliest.
        let from = oldest.filter(|_| stale.is_none()).unwrap_or(cx.now.mono);
        self.look_at = from.after(fresh_for);
        let standing = Standing {
            stale_since: stale,
            blocked: self.blocked(cx.snapshot).filter(|_| !self.live),
            full: self.is_full(),
            grown: self.parts.len() > self.opened_with,
        };
        if std::mem::replace(&mut self.standing, standing) != standing
            && cx.snapshot.topic(self.index).is_shared()
        {
            cx.to_projections(self.index, || ProjectionMessage::Standing(standing));
        }
        let why = self.held_up(cx.client, fresh_for, cx.now);
        let line = self.held_up.on_look(why, cx.now.mono);
        self.say(line, cx.snapshot, cx.out);
        self.refill_if_room(cx);
    }

    /// The problem that only an operator can end, if there is one.
    pub(super) fn blocked(&self, snapshot: &Snapshot) -> Option<Blocked> {
        let missing = self.missing.map(|reason| match reason.denial() {
            Some(denial) => Blocked::Denied(crate::kafka::Doing::Describe, denial),
            None => Blocked::Misconfigured,
        });
        let unfit = self.is_blocked(snapshot).then_some(Blocked::Misconfigured);
        let denied = self.read_denied();
        let denied = denied.map(|denial| Blocked::Denied(crate::kafka::Doing::Read, denial));
        missing.or(unfit).or(denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_is_read_to_the_end_is_as_new_as_the_answer() {
        let mut freshness = Freshness::since(at(1));
        freshness.confirm(Offset(0), Offset(0), at(5));
        assert_eq!(freshness.as_of(), at(5));
        freshness.confirm(Offset(7), Offset(7), at(6));
        assert_eq!(freshness.as_of(), at(6));
    }

    /// Offsets from 3 on are behind an open transaction.
    #[test]
    fn what_a_transaction_holds_back_ages_from_when_it_was_seen() {
        let mut freshness = Freshness::since(at(1));
        freshness.confirm(Offset(3), Offset(3), at(2));
        for second in 3..60 {
            freshness.confirm(Offset(3), Offset(4 + second), at(second));
            assert_eq!(freshness.as_of(), at(2), "at {second} s");
        }
        // The transaction ends, and what was written at 30 s is behind another one.
        freshness.confirm(Offset(20), Offset(70), at(60));
        assert_eq!(freshness.as_of(), at(3), "all that was there then");
        freshness.confirm(Offset(70), Offset(70), at(61));
        assert_eq!(freshness.as_of(), at(61));
    }

    /// With transactions in close succession, the log's end is behind an open one at any moment.
    #[test]
    fn a_log_that_moves_on_is_as_new_as_its_last_answers() {
        let mut freshness = Freshness::since(at(0));
        for second in 1..60 {
            freshness.confirm(Offset(10 * second), Offset(10 * second + 5), at(second));
            assert!(freshness.as_of() >= at(second - 1), "at {second} s");
        }
    }
}

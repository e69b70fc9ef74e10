//! Whether the log still has what clients hold, where a shard's own epochs can't tell: the client's
//! id has an epoch from before this process read the log. The partitions' leaders report where
//! their epochs end, and each answer serves all clients that ask.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::context::HistoryContext;
use crate::kafka::EpochEnd;
use crate::log::Next;
use crate::model::{ExchangeId, Instant, Partition};
use crate::shard::message::FeedMessage;
use crate::shard::wait_queue::WaitQueue;
use crate::sse::StreamQuestion;

/// How long a client waits for the leaders before its stream ends. The client then resumes by its
/// id.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Clients looked at in one turn.
const LOOKS_MAX: usize = 256;

/// The clients that wait: at most one question per stream.
#[derive(Debug)]
pub(super) struct EpochChecks {
    /// By the number of reports that were known when a client was last looked at. A report does not
    /// name the clients that it helps, so each report lets all clients be looked at again.
    waiting: WaitQueue<ExchangeId, u64, EpochCheck>,
    /// Reports of leaders so far, and one more: a client that was never looked at comes before.
    reports: u64,
}

#[derive(Debug)]
struct EpochCheck {
    question: StreamQuestion,
    positions: Vec<(Partition, Next)>,
    deadline: Instant,
}

impl EpochChecks {
    /// `streams_max`: streams that the process has at most.
    pub(super) const fn new(streams_max: usize) -> Self {
        Self {
            // Streams that have ended may still be in it, until they are cancelled.
            waiting: WaitQueue::new(streams_max.saturating_mul(2)),
            reports: 1,
        }
    }

    /// Another incarnation begins. The streams that wait are closed.
    pub(super) fn on_open(&mut self) {
        self.waiting.clear();
    }

    /// Answers as soon as everything is known, which may be now.
    pub(super) fn check(
        &mut self,
        question: StreamQuestion,
        positions: Vec<(Partition, Next)>,
        at: &mut HistoryContext<'_>,
    ) {
        let deadline = at.now.mono.after(WAIT_MAX);
        let check = EpochCheck {
            question,
            positions,
            deadline,
        };
        self.look_at(check, at);
    }

    /// A stream has ended, so its question is dropped.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.waiting.cancel(exchange);
    }

    /// More is known of where epochs end.
    pub(super) fn on_epoch_ends(&mut self, at: &mut HistoryContext<'_>) {
        self.reports += 1;
        self.look_again(at);
    }

    /// Looks at clients that wait for what is known now, and gives up on those that have waited too
    /// long. Bounded: [`Self::next_deadline`] says when to call it again.
    pub(super) fn on_timeout(&mut self, at: &mut HistoryContext<'_>) {
        self.look_again(at);
        for _ in 0..LOOKS_MAX {
            let Some(check) = self.waiting.next_expired(at.now.mono) else {
                return;
            };
            answer(check.question, None, at);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.waiting.is_met(&self.looked_at_before()) {
            return Some(Instant::ZERO);
        }
        self.waiting.next_deadline()
    }

    /// The clients that were not looked at since the last report.
    const fn looked_at_before(&self) -> RangeInclusive<u64> {
        0..=self.reports - 1
    }

    fn look_again(&mut self, at: &mut HistoryContext<'_>) {
        for _ in 0..LOOKS_MAX {
            let Some(check) = self.waiting.next_met(&self.looked_at_before()) else {
                return;
            };
            self.look_at(check, at);
        }
    }

    /// Answers a client, or keeps it until the next report.
    fn look_at(&mut self, check: EpochCheck, at: &mut HistoryContext<'_>) {
        let (question, deadline) = (check.question, check.deadline);
        if let Some(ends) = check.ends(at) {
            return answer(question, Some(ends), at);
        }
        let (exchange, seen) = (question.exchange, self.reports);
        let kept = self.waiting.insert(exchange, seen, deadline, check);
        if kept.is_err() {
            // As if the leaders had not answered in time: the client resumes by its id.
            answer(question, None, at);
        }
    }
}

impl EpochCheck {
    /// Where the log ends what the client holds, for partitions in which the client holds more.
    /// `None`: a leader has not answered yet.
    fn ends(&self, at: &mut HistoryContext<'_>) -> Option<Vec<(Partition, Next)>> {
        let (mut ends, mut known) = (Vec::new(), true);
        for &(partition, held) in &self.positions {
            // Ask for all positions, even if the first is not known: the leaders answer at once.
            match at
                .client
                .epoch_end(at.handle, partition, held.epoch, at.now)
            {
                EpochEnd::Ended(end) if end.offset < held.offset => ends.push((partition, end)),
                EpochEnd::Ended(_) | EpochEnd::Open => {}
                EpochEnd::Pending => known = false,
            }
        }
        known.then_some(ends)
    }
}

fn answer(
    question: StreamQuestion,
    ends: Option<Vec<(Partition, Next)>>,
    at: &mut HistoryContext<'_>,
) {
    let answer = FeedMessage::EpochsChecked { question, ends };
    at.to_feed(question.exchange.shard, answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Client, DirectoryRole, Settings, TopicHandle};
    use crate::log::Cut;
    use crate::model::{HashSecret, LeaderEpoch, LogTag, Now, Offset, ShardId, UnixMillis};
    use crate::shard::home::order::{Limits, Order};
    use crate::shard::outbox::Outbox;
    use crate::shard::snapshot::TopicId;

    /// The client knows no broker, so that every end of an epoch is pending.
    struct Ground {
        order: Order,
        client: Client,
        now: Now,
        out: Outbox,
        checks: EpochChecks,
    }

    impl Ground {
        fn new(streams_max: usize) -> Self {
            let secret = HashSecret::derived_from(b"c");
            let limits = Limits {
                window_bytes_max: 1 << 20,
                in_flight_bytes_max: 1 << 20,
                step_bytes_max: 1 << 18,
            };
            let shards = [ShardId(1)].into_iter();
            let (tag, now) = (LogTag([1; 4]), Now::default());
            Self {
                order: Order::new(tag, secret, limits, &[], shards, UnixMillis(0)),
                client: Client::new(Settings::default(), 1, DirectoryRole::Fed, now),
                now,
                out: Outbox::new(ShardId(0)),
                checks: EpochChecks::new(streams_max),
            }
        }

        fn with(&mut self, act: impl FnOnce(&mut EpochChecks, &mut HistoryContext<'_>)) {
            let mut at = HistoryContext {
                topic: TopicId(0),
                handle: TopicHandle(0),
                order: &self.order,
                parts: &[],
                now: self.now,
                client: &mut self.client,
                out: &mut self.out,
            };
            act(&mut self.checks, &mut at);
        }

        fn check(&mut self, slot: u32) {
            let mut held = Cut::start();
            let (offset, epoch) = (Offset(5), LeaderEpoch(Some(3)));
            held.set(Partition(0), Next { offset, epoch });
            let exchange = ExchangeId {
                shard: ShardId(1),
                slot,
                generation: 0,
            };
            let question = StreamQuestion {
                exchange,
                number: 1,
            };
            self.with(|checks, at| checks.check(question, held.iter().collect(), at));
        }

        /// How many answers were sent since.
        fn answers(&mut self) -> usize {
            self.out.drain().len()
        }
    }

    #[test]
    fn a_report_and_a_deadline_are_handled_some_clients_at_a_time() {
        let mut ground = Ground::new(1000);
        (0..600).for_each(|slot| ground.check(slot));
        let late = ground.now.mono.after(WAIT_MAX);
        assert_eq!(ground.checks.next_deadline(), Some(late));
        ground.with(EpochChecks::on_epoch_ends);
        let mut calls = 1;
        while ground.checks.next_deadline() == Some(Instant::ZERO) {
            ground.with(EpochChecks::on_timeout);
            calls += 1;
        }
        assert_eq!(
            (calls, ground.answers()),
            (3, 0),
            "600 looked at, 256 a call"
        );
        assert_eq!(ground.checks.next_deadline(), Some(late), "as before");
        ground.now.mono = late;
        let mut ended = Vec::new();
        while ground.checks.next_deadline().is_some() {
            ground.with(EpochChecks::on_timeout);
            ended.push(ground.answers());
        }
        assert_eq!(ended, [256, 256, 88]);
    }

    #[test]
    fn a_client_that_finds_no_place_is_told_at_once() {
        let mut ground = Ground::new(1);
        (0..3).for_each(|slot| ground.check(slot));
        assert_eq!(ground.answers(), 1);
        // Another question of a client replaces its first.
        ground.check(0);
        assert_eq!(ground.answers(), 0);
    }
}

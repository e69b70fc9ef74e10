//! Whether the log still has what clients hold, where a shard's own epochs can't tell: the client's
//! id has an epoch from before this process read the log. The partitions' leaders report where
//! their epochs end, and each answer serves all clients that ask.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::HistoryContext;
use crate::kafka::EpochEnd;
use crate::log::Next;
use crate::model::{ExchangeId, Instant, Partition};
use crate::shard::message::FeedMessage;
use crate::sse::StreamQuestion;

/// How long a client waits for the leaders before its stream ends. The client then resumes by its
/// id.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The clients that wait: at most one question per stream.
#[derive(Debug, Default)]
pub(super) struct EpochChecks {
    waiting: BTreeMap<ExchangeId, EpochCheck>,
}

#[derive(Debug)]
struct EpochCheck {
    question: StreamQuestion,
    positions: Vec<(Partition, Next)>,
    deadline: Instant,
}

impl EpochChecks {
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
        match check.ends(at) {
            Some(ends) => answer(question, Some(ends), at),
            None => drop(self.waiting.insert(question.exchange, check)),
        }
    }

    /// A stream has ended, so its question is dropped.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.waiting.remove(&exchange);
    }

    /// More is known of where epochs end.
    pub(super) fn on_epoch_ends(&mut self, at: &mut HistoryContext<'_>) {
        self.waiting.retain(|_, check| {
            let ends = check.ends(at);
            let known = ends.is_some();
            if known {
                answer(check.question, ends, at);
            }
            !known
        });
    }

    /// Gives up on clients that have waited too long.
    pub(super) fn on_timeout(&mut self, at: &mut HistoryContext<'_>) {
        let now = at.now.mono;
        let late = self.waiting.extract_if(.., |_, it| it.deadline <= now);
        for (_, check) in late {
            answer(check.question, None, at);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|check| check.deadline).min()
    }
}

impl EpochCheck {
    /// Where the log ends what the client holds, for partitions in which the client holds more.
    /// `None`: a leader has not answered yet.
    fn ends(&self, at: &mut HistoryContext<'_>) -> Option<Vec<(Partition, Next)>> {
        let (mut ends, mut known) = (Vec::new(), true);
        for &(partition, held) in &self.positions {
            // Ask for all of them, also if one is not known yet: the leaders answer at once.
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

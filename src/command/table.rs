//! Open commands and replies as one: the decision of a route's home shard.

use std::sync::Arc;

use super::open::{Admission, Limit, OpenCommands};
use super::recipe::fingerprints_differ;
use super::replies::{Replied, ReplyIndex};
use super::reply::{Answer, Reply, ReplyHeaders};
use crate::log::{Batch, Change, Step};
use crate::model::{
    CommandKey, CorrelationId, Fingerprint, Instant, Offset, Partition, UnixMillis,
};

/// What becomes of a command. Only `Opened` is produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Answered before: the same answer again.
    Answered(Answer),
    /// Answered before; the reply is at this place of the replies topic, not in memory. Its record
    /// goes through [`Reply::read`].
    AnsweredAt(Partition, Offset),
    /// Its key is used for something else: 422.
    Mismatch,
    /// It is open, sent before: the waiter waits for the same reply.
    Joined,
    /// Produce it; the waiter waits.
    Opened,
    /// No room: 503, nothing is produced.
    Full(Limit),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service's reply.
    Answer(Answer),
    /// The first reply under this key answers something else: 422.
    Mismatch,
}

/// A waiter and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<W> {
    /// Who waited.
    pub waiter: W,
    /// What to say.
    pub outcome: Outcome,
}

/// Both tables of a home: one owner, so no race within the process.
#[derive(Debug)]
pub struct CommandTable<W> {
    /// Sent, not answered: the outcomes of producing and the timeouts go here.
    pub open: OpenCommands<W>,
    /// Answered.
    pub replies: ReplyIndex,
    names: ReplyHeaders,
    foreign: u64,
}

impl<W: Copy + PartialEq> CommandTable<W> {
    /// Joins the two.
    #[must_use]
    pub fn new(open: OpenCommands<W>, replies: ReplyIndex, names: ReplyHeaders) -> Self {
        Self {
            open,
            replies,
            names,
            foreign: 0,
        }
    }

    /// Decides. To be called once the replies topic was read up to the barrier. `waiter` comes with
    /// its deadline; `None`: nobody waits (`respond-async`).
    pub fn admit(
        &mut self,
        key: CommandKey,
        print: Fingerprint,
        waiter: Option<(W, Instant)>,
        now: Instant,
    ) -> Admitted {
        if let Some(known) = self.replies.get(key) {
            return match known.answer {
                _ if fingerprints_differ(known.print, print) => Admitted::Mismatch,
                Some(answer) => Admitted::Answered(answer),
                None => Admitted::AnsweredAt(known.partition, known.offset),
            };
        }
        match self.open.admit(key, print, waiter, now) {
            Admission::Opened => Admitted::Opened,
            Admission::Joined => Admitted::Joined,
            Admission::Mismatch => Admitted::Mismatch,
            Admission::Full(limit) => Admitted::Full(limit),
        }
    }

    /// Applies one step of the replies topic; who waited for its replies comes out with them.
    /// Records without a correlation id of ours are counted and passed over.
    pub fn apply(&mut self, step: &Step, now: UnixMillis, answered: &mut Vec<Answered<W>>) {
        match &step.change {
            Change::Records(batch) => self.on_records(batch, now, answered),
            Change::LogStart { partition, offset } => {
                self.replies.on_log_start(*partition, *offset);
            }
            Change::Again(_) | Change::Nothing | Change::Gap { .. } | Change::Stuck { .. } => {}
        }
    }

    /// Records of the replies topic without a correlation id of ours, ever.
    #[must_use]
    pub const fn foreign(&self) -> u64 {
        self.foreign
    }

    /// How a stored reply's record reads: for one that [`Admitted::AnsweredAt`] made the home
    /// fetch.
    #[must_use]
    pub const fn names(&self) -> &ReplyHeaders {
        &self.names
    }

    fn on_records(&mut self, batch: &Batch, now: UnixMillis, answered: &mut Vec<Answered<W>>) {
        for record in batch.iter() {
            let id = record.headers.last(&self.names.correlation_id);
            let Some(CorrelationId { key, fingerprint }) = id.and_then(CorrelationId::parse) else {
                self.foreign += 1;
                continue;
            };
            let answer = Reply::read(&record, &self.names).map(Arc::new);
            let retry = Reply::is_retry(&record, &self.names);
            if !retry {
                let reply = Replied {
                    key,
                    print: fingerprint,
                    partition: batch.partition(),
                    offset: record.offset,
                    timestamp: record.timestamp,
                    answer: &answer,
                };
                self.replies.on_reply(&reply, now);
            }
            let Some((asked, waiters)) = self.open.on_reply(key) else {
                continue;
            };
            let outcome = match fingerprints_differ(asked, fingerprint) {
                // Another peer opened the same key for something else, and was first.
                true => Outcome::Mismatch,
                false => Outcome::Answer(answer),
            };
            answered.extend(waiters.into_iter().map(|waiter| Answered {
                waiter,
                outcome: outcome.clone(),
            }));
        }
    }
}

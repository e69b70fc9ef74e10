//! Open commands and replies as one: the decision of a route's home shard.

use std::sync::Arc;

use super::open::{Limit, OpenCommands};
use super::replies::ReplyIndex;
use super::reply::{Answer, Reply, ReplyHeaders};
use crate::log::Step;
use crate::model::{CommandKey, Fingerprint, Instant, Now, Offset, Partition};

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
}

impl<W: Copy + PartialEq> CommandTable<W> {
    /// Joins the two.
    #[must_use]
    pub fn new(open: OpenCommands<W>, replies: ReplyIndex, names: ReplyHeaders) -> Self {
        Self {
            open,
            replies,
            names,
        }
    }

    /// Decides. To be called once the replies topic was read up to the barrier.
    pub fn admit(
        &mut self,
        key: CommandKey,
        print: Fingerprint,
        waiter: Option<(W, Instant)>,
        now: Instant,
    ) -> Admitted {
        todo!()
    }

    /// Applies one step of the replies topic; who waited for its replies comes out with them.
    /// Records without a correlation id of ours are counted and passed over.
    pub fn apply(&mut self, step: &Step, now: Now, answered: &mut Vec<Answered<W>>) {
        todo!()
    }
}

//! Commands answered lately, so that a duplicate gets the first one's reply and nothing else.
//!
//! The gateway appends all attempts at one command to one partition, and retries a produce for a
//! bounded time. So a duplicate can only be appended by an attempt that *arrived* at a gateway
//! before the reply was readable, and at most `delivery_timeout` after it arrived. Once a command
//! is read that was appended later than twice that after the reply was committed, no duplicate of
//! it can follow in that partition, and the reply is forgotten. Time is the log's, not the clock's:
//! a service that catches up with an old backlog forgets no sooner.

use std::collections::{HashMap, VecDeque};

use super::entry::Reply;

/// How long after its reply's commit a duplicate may still be appended: twice the gateway's
/// `delivery_timeout` of 30 s.
pub(super) const DUPLICATE_MS_MAX: i64 = 2 * 30_000;

/// Replies kept for one partition. About 400 bytes each, so 13 MB; at the limit (some 500 commands
/// a second in one partition, sustained) a command is refused with `retry`, nothing applied.
pub(super) const SEEN_MAX: usize = 32_768;

/// Replies to the commands of one partition, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    replies: HashMap<Box<str>, Reply>,
    order: VecDeque<Remembered>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    key: Box<str>,
    /// When the reply was surely readable. None: not relayed yet, so not to be forgotten.
    committed_ms: Option<i64>,
}

impl Seen {
    /// The reply that was given to this key.
    pub(super) fn get(&self, key: &str) -> Option<&Reply> {
        self.replies.get(key)
    }

    /// Whether a command read now, `appended_ms` by the log, could not be remembered.
    pub(super) fn is_full(&self, appended_ms: i64) -> bool {
        let due = self.order.front().is_some_and(|r| r.is_over(appended_ms));
        self.replies.len() >= SEEN_MAX && !due
    }

    /// Keeps a reply, after letting go of those that the time of this command ends.
    pub(super) fn remember(&mut self, key: &str, reply: &Reply, appended_ms: i64) {
        while self.order.front().is_some_and(|r| r.is_over(appended_ms)) {
            let over = self.order.pop_front().expect("front was there");
            self.replies.remove(&over.key);
        }
        if self.replies.insert(key.into(), reply.clone()).is_none() {
            self.order.push_back(Remembered {
                key: key.into(),
                committed_ms: None,
            });
        }
    }

    /// All replies kept so far can be read by now, `at_ms` by the clock that stamps commands.
    pub(super) fn on_relayed(&mut self, at_ms: i64) {
        // Stamps are made in order, so those without one are the last.
        let unstamped = self.order.iter_mut().rev();
        for remembered in unstamped.take_while(|r| r.committed_ms.is_none()) {
            remembered.committed_ms = Some(at_ms);
        }
    }

    /// Replies kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }
}

impl Remembered {
    fn is_over(&self, appended_ms: i64) -> bool {
        self.committed_ms
            .is_some_and(|committed| appended_ms > committed.saturating_add(DUPLICATE_MS_MAX))
    }
}

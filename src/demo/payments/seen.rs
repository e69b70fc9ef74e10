//! Replies to recent commands, so that a duplicate gets the first reply and has no effect.
//!
//! The gateway appends all attempts at one command to one partition, and retries a produce for a
//! limited time. So a duplicate is appended only by an attempt that *arrived* at a gateway before
//! the reply was readable, and at most `delivery_timeout` after it arrived. Once the service reads
//! a command that was appended more than twice that time after the reply was committed, no
//! duplicate can follow in that partition, and the reply is forgotten. Time is the log's time, not
//! the clock's: a service that works off a backlog forgets no sooner.

use std::collections::{HashMap, VecDeque};

use super::entry::Reply;

/// Longest time in milliseconds after a reply's commit in which a duplicate may be appended: twice
/// the gateway's `delivery_timeout` of 30 s.
pub(super) const DUPLICATE_MS_MAX: i64 = 2 * 30_000;

/// Most replies kept per partition: at about 400 bytes each, 13 MB. At the limit (about 500
/// commands per second in one partition, sustained) a command is rejected with `retry` and nothing
/// is applied.
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
    /// When the reply was certainly readable. `None` until it is relayed; it must not be forgotten
    /// before.
    committed_ms: Option<i64>,
}

impl Seen {
    /// The reply to the command with this key.
    pub(super) fn get(&self, key: &str) -> Option<&Reply> {
        self.replies.get(key)
    }

    /// Whether a command that was appended at `appended_ms` could not be remembered.
    pub(super) fn is_full(&self, appended_ms: i64) -> bool {
        let due = self
            .order
            .front()
            .is_some_and(|r| r.is_expired(appended_ms));
        self.replies.len() >= SEEN_MAX && !due
    }

    /// Keeps a reply, after forgetting those that expired by the log time of this command.
    pub(super) fn remember(&mut self, key: &str, reply: &Reply, appended_ms: i64) {
        while self
            .order
            .front()
            .is_some_and(|r| r.is_expired(appended_ms))
        {
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

    /// All replies kept so far are readable at `at_ms`, by the clock that stamps commands.
    pub(super) fn on_relayed(&mut self, at_ms: i64) {
        // Replies are stamped in order, so those without a stamp are the last.
        let unstamped = self.order.iter_mut().rev();
        for remembered in unstamped.take_while(|r| r.committed_ms.is_none()) {
            remembered.committed_ms = Some(at_ms);
        }
    }

    /// Number of replies that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }
}

impl Remembered {
    fn is_expired(&self, appended_ms: i64) -> bool {
        self.committed_ms
            .is_some_and(|committed| appended_ms > committed.saturating_add(DUPLICATE_MS_MAX))
    }
}

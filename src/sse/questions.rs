//! Questions that subscribers ask outside their feed. Each has a number, so that an answer to an
//! older question of the same subscriber is ignored: it may be about other positions.

use std::collections::VecDeque;

use super::log_view::LogView;
use super::request::{Need, Ticket};
use super::source::Source;
use super::subscriber::{Own, Subscriber};
use super::subscriber_index::Group;

/// Questions that the shard has not taken yet. Some may be stale.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pending: VecDeque<Ticket>,
    last: u32,
}

impl Questions {
    /// Asks what the subscriber's source needs. Its older questions are stale from now on.
    pub(super) fn ask(&mut self, subscriber: &mut Subscriber) {
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        subscriber.own().question = number;
        let token = subscriber.token;
        self.pending.push_back(Ticket { token, number });
    }

    /// The oldest pending question.
    pub(super) fn next(&mut self) -> Option<Ticket> {
        self.pending.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// For tests that answer at once.
    #[cfg(test)]
    pub(super) fn pending(&self) -> Vec<Ticket> {
        self.pending.iter().copied().collect()
    }
}

/// What a subscriber needs, by its source. `None` if it needs nothing any more.
pub(super) fn need_of(ticket: Ticket, own: &Own, group: &Group, log: &LogView) -> Option<Need> {
    let held = own.progress.as_ref().map(|progress| &progress.cut)?;
    match &own.source {
        Source::AwaitingPage(changes) => Some(Need::Page {
            ticket,
            since: held.clone(),
            below: changes.below.clone(),
            seq: changes.seq,
            after: changes.after,
            key: group.key.clone(),
        }),
        Source::AwaitingEpochCheck => Some(Need::Places {
            ticket,
            places: log.unknown(held),
        }),
        Source::AwaitingCatchUp => Some(Need::CatchUp {
            ticket,
            from: held.clone(),
            encoding: group.encoding as usize,
        }),
        _ => None,
    }
}

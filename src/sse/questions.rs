//! Questions that subscribers ask outside their feed. Each has a number, so that an answer to an
//! older question of the same subscriber is ignored: it may be about other positions.

use std::collections::{BTreeMap, VecDeque};

use super::log_view::LogView;
use super::request::{Need, StreamQuestion, WaitsAt};
use super::source::Source;
use super::subscriber::{Own, Subscriber};
use super::subscriber_index::Group;
use crate::model::ExchangeId;

/// What the shard has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pending: VecDeque<Pending>,
    /// Subscribers that wait until there is memory for their next page, by the number of their
    /// question, so in order of arrival. Each subscriber is in it at most once.
    pages: BTreeMap<u32, ExchangeId>,
    last: u32,
}

/// What the shard takes next: a question, or the end of a wait.
#[derive(Debug)]
pub(super) enum Pending {
    /// A question. It may be stale by now.
    Ask(StreamQuestion),
    /// A subscriber does not wait any more.
    Cancel(Need),
}

impl Questions {
    /// Asks what the subscriber's source needs. Its older questions are stale from now on.
    pub(super) fn ask(&mut self, subscriber: &mut Subscriber) {
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        subscriber.own().question = number;
        let exchange = subscriber.exchange;
        if matches!(subscriber.own().source, Source::AwaitingPage(_)) {
            self.pages.insert(number, exchange);
        } else {
            let question = StreamQuestion { exchange, number };
            self.pending.push_back(Pending::Ask(question));
        }
    }

    /// A subscriber waits for no answer any more. If it waits for one, its place is freed.
    pub(super) fn cancel(&mut self, subscriber: &Subscriber, group: &Group) {
        let Some(own) = &subscriber.own else { return };
        let at = match &own.source {
            Source::AwaitingEpochCheck(_) | Source::AwaitingCatchUp => WaitsAt::Home,
            // It waits for memory, and has asked no slice yet.
            Source::AwaitingPage(_) if self.pages.remove(&own.question).is_some() => return,
            Source::AwaitingPage(changes) => WaitsAt::Slice {
                after: changes.after,
                key: group.key.as_ref().map(|(hash, _)| *hash),
            },
            _ => return,
        };
        let exchange = subscriber.exchange;
        let cancel = Need::Cancel { exchange, at };
        self.pending.push_back(Pending::Cancel(cancel));
    }

    /// Takes the oldest question or cancellation.
    pub(super) fn next(&mut self) -> Option<Pending> {
        self.pending.pop_front()
    }

    /// Takes the question of the subscriber that has waited longest for memory for its page.
    pub(super) fn next_page(&mut self) -> Option<StreamQuestion> {
        let (number, exchange) = self.pages.pop_first()?;
        Some(StreamQuestion { exchange, number })
    }

    /// How many subscribers wait for memory for their next page.
    pub(super) fn pages_waiting(&self) -> usize {
        self.pages.len()
    }

    /// Whether nothing is to be asked or cancelled outside, apart from pages.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// For tests that answer at once.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<StreamQuestion> {
        let question = |pending: &Pending| match pending {
            Pending::Ask(question) => Some(*question),
            Pending::Cancel(_) => None,
        };
        self.pending.iter().filter_map(question).collect()
    }
}

/// What a subscriber needs, by its source. `None` if it needs nothing any more.
pub(super) fn need_of(
    question: StreamQuestion,
    own: &Own,
    group: &Group,
    log: &LogView,
) -> Option<Need> {
    let held = own.progress.as_ref().map(|progress| &progress.cut)?;
    match &own.source {
        Source::AwaitingPage(changes) => Some(Need::Page {
            question,
            since: held.clone(),
            below: changes.below.clone(),
            seq: changes.seq,
            after: changes.after,
            key: group.key.clone(),
        }),
        Source::AwaitingEpochCheck(_) => Some(Need::EpochCheck {
            question,
            positions: log.unknown(held),
        }),
        Source::AwaitingCatchUp => Some(Need::CatchUp {
            question,
            from: held.clone(),
            encoding: group.encoding as usize,
        }),
        _ => None,
    }
}

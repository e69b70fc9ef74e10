//! A subscriber. While idle and sharing the window, it is this struct and nothing else: what few
//! subscribers need at a time (unsent bytes, ids of its own, history) is boxed.

use super::cursor::Cursor;
use super::held_pages::HeldPage;
use super::ids::Ids;
use super::lines::{self, Missing};
use super::progress::ClientProgress;
use super::request::{CatchUpId, Slow};
use super::source::Source;
use super::unsent::Unsent;
use crate::log::{GapReason, Next, Notice};
use crate::model::ExchangeId;

/// Index into the slab of subscribers.
pub(super) type Slot = u32;

/// An index that names no slot and no group.
pub(super) const NONE: u32 = u32::MAX;

/// The state of a subscriber in the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its group's idle list, or in a run that was woken from it.
    Idle,
    /// In a run of its own.
    Queued,
    /// `Feed::next_pending` has just returned it.
    Current,
    /// Waiting until its sink is writable again.
    Blocked,
    /// Waiting for an answer: an epoch check, a page, or a catch-up read.
    Waiting,
    /// Unsubscribed while in a run; the slot is free once the run has passed.
    Gone,
}

/// A stream's entry in the slab of its feed.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The next frame to read from the window. Not used while idle.
    pub(super) cursor: Cursor,
    pub(super) exchange: ExchangeId,
    /// Its group: encoding and filter.
    pub(super) group: u32,
    /// Neighbours in the idle list or the run.
    pub(super) prev: Slot,
    pub(super) next: Slot,
    /// The group's epoch when the subscriber went idle. If the group has another one now, the
    /// subscriber was woken.
    pub(super) epoch: u32,
    pub(super) place: Place,
    pub(super) slow: Slow,
    /// A heartbeat is due with the next delivery.
    pub(super) heartbeat: bool,
    pub(super) own: Option<Box<Own>>,
}

/// What a subscriber has beside the window. Boxed: an idle subscriber that shares the window has
/// none of it.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) unsent: Unsent,
    /// What the client holds, if that is not the cut at the subscriber's cursor.
    pub(super) progress: Option<ClientProgress>,
    pub(super) source: Source,
    /// The number of the last question. Answers to older ones are ignored.
    pub(super) question: u32,
    /// The page of *changes* that it waits for, or that its socket has not taken.
    pub(super) page: HeldPage,
    /// The last walk over changes of epochs in which it was checked.
    pub(super) checked_in: u32,
}

impl Own {
    /// What the client holds.
    ///
    /// # Panics
    /// If the subscriber shares the window. A subscriber that reads history, or has ids of its own,
    /// does not share it.
    pub(super) fn progress(&self) -> &ClientProgress {
        self.progress
            .as_ref()
            .expect("a subscriber that reads history holds something of its own")
    }

    /// As [`Self::progress`], but the progress can be changed.
    pub(super) fn progress_mut(&mut self) -> &mut ClientProgress {
        self.progress
            .as_mut()
            .expect("a subscriber that reads history holds something of its own")
    }

    /// Whether it neither waits for a page of *changes* nor has bytes of one to send.
    pub(super) const fn has_no_page(&self) -> bool {
        self.unsent.is_empty() && !matches!(self.source, Source::AwaitingPage(_))
    }

    /// Writes an `id:` line of what the client holds, and a blank line.
    pub(super) fn put_id(&mut self, ids: &mut Ids) {
        let progress = self.progress.as_ref();
        let progress = progress.expect("only a subscriber with progress of its own is sent it");
        ids.put(self.unsent.out(), progress);
    }

    /// Writes a gap, with the id that the client then has.
    pub(super) fn put_gap(&mut self, gap: Option<Missing>, reason: GapReason, ids: &mut Ids) {
        lines::put_gap(self.unsent.out(), gap, reason);
        self.put_id(ids);
    }

    /// Writes a gap. The client continues at the gap's end.
    pub(super) fn skip(&mut self, notice: Notice, ids: &mut Ids) {
        let Notice {
            partition,
            from,
            to,
            reason,
        } = notice;
        // The epoch of the record before `to` is not known.
        self.progress_mut().cut.set(partition, Next::at(to));
        self.put_gap(Some((partition, from, to)), reason, ids);
    }

    /// Writes the client's position in a form that every reader remembers. Without it, a reader
    /// that disconnects before its next event would start again and miss the events between.
    pub(super) fn put_position(&mut self, as_event: bool, ids: &mut Ids) {
        if as_event {
            lines::put_position(self.unsent.out());
        }
        self.put_id(ids);
    }
}

impl Subscriber {
    /// Whether its ids are its own.
    pub(super) fn is_private(&self) -> bool {
        let progress = self.own.as_ref().and_then(|own| own.progress.as_ref());
        progress.is_some_and(ClientProgress::is_private)
    }

    /// The catch-up read of which it is a member, and whether it is still reading the block.
    pub(super) fn membership(&self) -> Option<(CatchUpId, bool)> {
        self.own.as_ref()?.source.membership()
    }

    /// Its own state, which is made if there is none.
    pub(super) fn own(&mut self) -> &mut Own {
        self.own.get_or_insert_default()
    }

    /// Frees its own state if nothing in it matters.
    pub(super) fn tidy(&mut self) {
        let empty = |own: &Own| {
            own.unsent.is_empty() && own.progress.is_none() && matches!(own.source, Source::Window)
        };
        if self.own.as_deref().is_some_and(empty) {
            self.own = None;
        }
    }
}

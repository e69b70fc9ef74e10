//! What one subscriber is sent: its own bytes first, then frames of the window as they are or, as
//! long as it is private, with ids of its own. A call makes at most one offer of frames.

use super::cursor::Cursor;
use super::ids::Ids;
use super::joined_catch_ups::JoinedCatchUps;
use super::lines;
use super::log_view::LogView;
use super::offer::Offer;
use super::request::{CatchUpId, FeedCounts, Slow};
use super::sink::{Sink, Taken};
use super::source::Source;
use super::splice::{Scratch, Sent, Splice};
use super::subscriber::Subscriber;
use super::subscriber_index::Group;
use super::trail::Trail;
use super::unsent::Flushed;
use crate::log::Seq;

/// Bytes of one offer. A larger frame is offered alone.
const OFFER_BYTES_MAX: usize = 256 * 1024;
/// Bytes copied for one offer to a private subscriber. A larger frame is copied alone.
const PRIVATE_BYTES_MAX: usize = 64 * 1024;

const _: () = {
    // What is copied for one offer is a part of what is offered.
    assert!(PRIVATE_BYTES_MAX <= OFFER_BYTES_MAX);
};

/// What a call came to, before the rotation learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The subscriber has read all that there is.
    Idle,
    /// The subscriber waits for an answer, or for the next block of a catch-up read.
    Waiting,
    /// The subscriber has been sent a page and must ask for the next page.
    PageSent,
    /// The subscriber has read the whole block of a catch-up read.
    BlockRead(CatchUpId),
    /// The sink takes no more bytes until it is writable.
    Full,
    /// More can be sent in the next turn of the subscriber.
    More,
    /// The subscriber's source must be decided before more can be sent.
    Undecided,
    /// The subscriber's cursor fell out of the window.
    Lagged,
    /// The stream must end, and the client resumes by its id.
    Disconnect,
    /// The client has not taken a page in time: the connection must be closed.
    Stalled,
    /// The connection is closed: nothing can be sent any more.
    Closed,
}

/// Sends to one subscriber. It borrows the parts of a feed for one call.
pub(super) struct Sender<'a, S> {
    pub(super) subscriber: &'a mut Subscriber,
    pub(super) group: &'a Group,
    pub(super) log: &'a LogView,
    pub(super) trail: &'a Trail,
    pub(super) catch_ups: &'a JoinedCatchUps,
    pub(super) ids: &'a mut Ids,
    pub(super) scratch: &'a mut Scratch,
    pub(super) counts: &'a mut FeedCounts,
    pub(super) sink: &'a mut S,
    /// Whether a quiet client needs an id now and then although it has no filter: on a compacted
    /// topic the time in the id matters.
    pub(super) compacted: bool,
}

impl<S: Sink> Sender<'_, S> {
    /// Sends what is pending, at most one offer of frames.
    pub(super) fn send(&mut self) -> Outcome {
        let Some(own) = &self.subscriber.own else {
            return self.read_shared();
        };
        if !own.unsent.is_empty() {
            if let Some(outcome) = self.flush() {
                return outcome;
            }
            self.subscriber.heartbeat = false;
        }
        match self.subscriber.own().source {
            Source::Window | Source::Rejoining => {
                if self.subscriber.is_private() {
                    self.read_private()
                } else {
                    self.read_shared()
                }
            }
            Source::ReadingBlock(id, frame) => self.read_block(id, frame),
            Source::SendingPage(_) => Outcome::PageSent,
            Source::AwaitingEpochCheck(_)
            | Source::AwaitingPage(_)
            | Source::AwaitingCatchUp
            | Source::AwaitingBlock(_) => self.wait(),
            Source::Undecided(_) => Outcome::Undecided,
            Source::Disconnecting => Outcome::Disconnect,
            Source::Stalled => Outcome::Stalled,
        }
    }

    /// Sends the subscriber's own bytes. `None`: all are taken.
    fn flush(&mut self) -> Option<Outcome> {
        let unsent = &mut self.subscriber.own().unsent;
        match unsent.flush(self.sink, &mut self.counts.bytes) {
            Flushed::All => None,
            Flushed::More => Some(Outcome::More),
            Flushed::Full => Some(Outcome::Full),
            Flushed::Closed => Some(Outcome::Closed),
        }
    }

    /// Nothing is sent until an answer is here, except heartbeats.
    fn wait(&mut self) -> Outcome {
        if std::mem::take(&mut self.subscriber.heartbeat) {
            self.counts.heartbeats += 1;
            self.subscriber.own().unsent.push(lines::COMMENT);
            if let Some(outcome) = self.flush() {
                return outcome;
            }
        }
        Outcome::Waiting
    }

    /// All that there is has been sent: the client holds the log's cut, or more.
    fn caught_up(&mut self) -> Outcome {
        let (cut, time) = (self.log.cut(), self.log.time());
        if let Some(own) = &mut self.subscriber.own {
            own.source.on_window_read();
            if let Some(progress) = &mut own.progress {
                progress.raise(cut, time);
                if !progress.is_private() || cut.covers(&progress.cut) {
                    own.progress = None;
                }
            }
        }
        if std::mem::take(&mut self.subscriber.heartbeat) {
            self.put_heartbeat();
            if let Some(outcome) = self.flush() {
                return outcome;
            }
            if self.subscriber.is_private() {
                // The client is still ahead of this instance. Does the log still have what it
                // holds?
                self.subscriber.own().source.on_heartbeat_ahead();
                return Outcome::Undecided;
            }
        }
        Outcome::Idle
    }

    /// Writes a heartbeat. Where it matters it carries an id, so that a quiet client resumes from
    /// seconds ago: its filter may let few records through, or the topic is compacted.
    fn put_heartbeat(&mut self) {
        self.counts.heartbeats += 1;
        let private = self.subscriber.is_private();
        let own = self.subscriber.own();
        if private {
            own.put_id(self.ids);
        } else if self.group.key.is_some() || self.compacted {
            let (time, cut) = (self.log.time(), self.log.cut());
            self.ids.put_shared(own.unsent.out(), time, cut);
        } else {
            own.unsent.push(lines::COMMENT);
        }
    }

    /// The cursor points to what has left the window.
    fn on_evicted(&mut self) -> Outcome {
        let subscriber = &mut *self.subscriber;
        let own = subscriber.own.as_ref();
        if own.is_some_and(|own| matches!(own.source, Source::Rejoining)) {
            // Not slow: history was longer than the window, so the subscriber reads history again.
            subscriber.own().source.on_evicted();
            return Outcome::Undecided;
        }
        if subscriber.slow == Slow::Disconnect {
            return Outcome::Lagged;
        }
        let kept = own.and_then(|own| own.progress.clone());
        let Some(progress) = kept.or_else(|| self.trail.before(subscriber.cursor.seq)) else {
            return Outcome::Lagged;
        };
        self.counts.conflated += 1;
        let own = subscriber.own();
        own.progress = Some(progress.into_private());
        own.source.on_evicted();
        Outcome::Undecided
    }

    /// The outcome for a subscriber that has nothing to read at its cursor, if so.
    fn nothing_to_read(&mut self) -> Option<Outcome> {
        let cursor = self.subscriber.cursor;
        if cursor > self.group.last {
            return Some(self.caught_up());
        }
        self.log.has_evicted(cursor.seq).then(|| self.on_evicted())
    }

    /// Sends the window as it is: no copy, no count, no allocation.
    fn read_shared(&mut self) -> Outcome {
        if let Some(outcome) = self.nothing_to_read() {
            return outcome;
        }
        match self.offer_shared() {
            Some(outcome) => outcome,
            None => self.caught_up(),
        }
    }

    /// Makes one offer from the window. `None`: all is sent.
    fn offer_shared(&mut self) -> Option<Outcome> {
        let limit = self.sink.room().min(OFFER_BYTES_MAX);
        let subscriber = &mut *self.subscriber;
        let mut offer = Offer::at(subscriber.cursor);
        offer.gather(self.log, self.group, limit);
        if offer.slices.is_empty() {
            subscriber.cursor = offer.cursor;
            return offer.more.then_some(Outcome::More);
        }
        let taken = match limit {
            0 => 0,
            _ => match self.sink.take(&offer.slices) {
                Taken::Closed => return Some(Outcome::Closed),
                Taken::Bytes(taken) => taken,
            },
        };
        self.counts.bytes += taken as u64;
        if taken == offer.bytes {
            self.counts.frames_shared += offer.frames;
            subscriber.cursor = offer.cursor;
            subscriber.heartbeat = false;
            if !offer.more {
                return None;
            }
        }
        let reached = offer.reached(taken);
        if subscriber.slow == Slow::Conflate {
            reached.keep_progress(subscriber, &offer);
        }
        if taken == offer.bytes {
            return Some(Outcome::More);
        }
        self.counts.frames_shared += offer.frames_before(reached.cursor);
        subscriber.cursor = reached.cursor;
        if !reached.rest.is_empty() {
            subscriber.own().unsent.push(reached.rest);
        }
        Some(Outcome::Full)
    }

    /// Sends the window to a private subscriber, with max(progress, cut) in the ids. Records below
    /// the progress are skipped.
    fn read_private(&mut self) -> Outcome {
        if let Some(outcome) = self.nothing_to_read() {
            return outcome;
        }
        let limit = self.sink.room().min(PRIVATE_BYTES_MAX);
        if limit == 0 {
            return Outcome::Full;
        }
        let mut cursor = self.subscriber.cursor;
        let own = self.subscriber.own();
        own.source.on_window_read();
        let id = self.ids.private(own.progress());
        let mut splice = Splice::new(id, self.scratch, limit);
        let (last, encoding) = (self.group.last, self.group.encoding as usize);
        let (mut more, mut shared) = (false, false);
        while cursor <= last {
            let Some((seq, block)) = self.log.next_block(encoding, cursor.seq, last.seq) else {
                cursor = Cursor::after(last.seq);
                break;
            };
            if seq > cursor.seq {
                cursor = Cursor::at(seq);
            }
            shared = splice.is_shared_from(block);
            more = shared || !splice.block(self.group, block, &mut cursor);
            if more {
                break;
            }
        }
        match self.send_scratch() {
            Sent::Closed => return Outcome::Closed,
            Sent::Part(reached) => {
                self.subscriber.cursor = reached.unwrap_or(self.subscriber.cursor);
                return Outcome::Full;
            }
            Sent::All => self.subscriber.cursor = cursor,
        }
        if shared {
            self.subscriber.own().progress = None;
        }
        if more {
            Outcome::More
        } else {
            self.caught_up()
        }
    }

    /// Sends the present block of a catch-up read, from `frame` on.
    fn read_block(&mut self, id: CatchUpId, frame: u32) -> Outcome {
        let limit = self.sink.room().min(PRIVATE_BYTES_MAX);
        if limit == 0 {
            return Outcome::Full;
        }
        let block = self.catch_ups.block(id);
        let block = block.expect("a catch-up read keeps its block while a member reads it");
        let own = self.subscriber.own();
        let text = self.ids.private(own.progress());
        let seq = Seq(0); // A catch-up read has an order of its own.
        let mut cursor = Cursor { seq, frame };
        let mut splice = Splice::new(text, self.scratch, limit);
        let whole = splice.block(self.group, block, &mut cursor);
        let sent = self.send_scratch();
        let own = self.subscriber.own();
        match (sent, whole) {
            (Sent::Closed, _) => Outcome::Closed,
            (Sent::Part(reached), _) => {
                let reached = reached.map_or(frame, |cursor| cursor.frame);
                own.source.on_frames_read(reached);
                Outcome::Full
            }
            (Sent::All, false) => {
                own.source.on_frames_read(cursor.frame);
                Outcome::More
            }
            (Sent::All, true) => {
                // All below the block's end was offered, whether or not the filter let it through.
                own.progress_mut().cut.raise(&block.end_cut());
                own.source.on_block_read();
                Outcome::BlockRead(id)
            }
        }
    }

    fn send_scratch(&mut self) -> Sent {
        let before = self.counts.bytes;
        let own = self.subscriber.own();
        let sent = self.scratch.send(own, self.sink, self.counts);
        if self.counts.bytes > before {
            self.subscriber.heartbeat = false;
        }
        sent
    }
}

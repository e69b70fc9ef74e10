//! What one subscriber is sent: its own bytes first, then frames of the window as they lie or, as
//! long as it is private, with ids of its own. One offer to the transport a call.

use std::io::IoSlice;

use super::feed::Feed;
use super::lines;
use super::offer::Offer;
use super::request::{CatchUpId, Delivery, Slow};
use super::sink::{Sink, Taken};
use super::splice::Splice;
use super::subscriber::{Cursor, Held, Place, Slot, Source};
use crate::log::Seq;
use crate::model::Now;

/// Bytes of one offer; a frame that is larger goes alone.
const OFFER_BYTES_MAX: usize = 256 * 1024;
/// Bytes copied for one offer to a private subscriber; a frame that is larger goes alone.
const PRIVATE_BYTES_MAX: usize = 64 * 1024;

/// What a call came to, before the rotation is told.
enum Outcome {
    Idle,
    Waiting,
    Full,
    More,
    Lagged,
    Closed,
}

/// What became of the scratch buffer.
struct Sent {
    full: bool,
    /// After the last frame taken, whole or cut; `None`: not a byte was.
    cursor: Option<Cursor>,
}

/// What was gathered for a private subscriber.
struct Gathered {
    cursor: Cursor,
    more: bool,
    /// From `cursor` on, the window's own ids are right.
    shared: bool,
}

impl Feed {
    /// Sends what is pending, as much as one offer holds. Does nothing unless
    /// [`Self::next_pending`] has just named the subscriber.
    pub fn deliver(&mut self, token: u32, sink: &mut impl Sink, now: Now) -> Delivery {
        let Some(slot) = self.subscribers.find(token) else {
            return Delivery::Idle;
        };
        if self.subscribers.get(slot).place != Place::Current {
            return Delivery::Idle;
        }
        match self.serve(slot, sink, now) {
            Outcome::Idle => {
                self.subscribers.get_mut(slot).tidy();
                self.subscribers.go_idle(slot);
                Delivery::Idle
            }
            Outcome::Waiting => {
                self.subscribers.get_mut(slot).place = Place::Waiting;
                Delivery::Idle
            }
            Outcome::Full => {
                let subscriber = self.subscribers.get_mut(slot);
                subscriber.place = Place::Blocked;
                subscriber.heartbeat = false;
                Delivery::Full
            }
            Outcome::More => {
                self.subscribers.queue(slot);
                Delivery::More
            }
            Outcome::Lagged => {
                self.counts.lagged += 1;
                self.remove(slot);
                Delivery::Lagged
            }
            Outcome::Closed => {
                self.remove(slot);
                Delivery::Closed
            }
        }
    }

    fn serve(&mut self, slot: Slot, sink: &mut impl Sink, now: Now) -> Outcome {
        let Some(own) = self.subscribers.get(slot).own.as_ref() else {
            return self.read_shared(slot, sink, now);
        };
        if !own.rest.is_empty() {
            if let Some(outcome) = self.flush(slot, sink) {
                return outcome;
            }
            self.subscribers.get_mut(slot).heartbeat = false;
        }
        match &mut self.subscribers.get_mut(slot).own().source {
            Source::Window | Source::Rejoining => match self.subscribers.get(slot).is_private() {
                true => self.read_private(slot, sink, now),
                false => self.read_shared(slot, sink, now),
            },
            Source::Pages(pages) => {
                // The socket has taken the page before.
                if !pages.asked && pages.after.is_some() {
                    pages.asked = true;
                    self.ask(slot);
                }
                self.wait(slot, sink)
            }
            Source::AwaitingEpochCheck => self.wait(slot, sink),
            Source::CatchUp { frame, .. } if *frame == u32::MAX => self.wait(slot, sink),
            Source::CatchUp { catch_up, frame } => {
                let (catch_up, frame) = (*catch_up, *frame);
                let catch_up = catch_up.expect("a frame to read is a member's");
                self.read_catch_up(slot, catch_up, frame, sink)
            }
            Source::Undecided => {
                self.go_on(slot, now);
                Outcome::More
            }
            Source::Disconnecting => Outcome::Lagged,
        }
    }

    /// Sends the subscriber's own bytes. `None`: all are gone.
    fn flush(&mut self, slot: Slot, sink: &mut impl Sink) -> Option<Outcome> {
        let room = sink.room();
        if room == 0 {
            return Some(Outcome::Full);
        }
        let own = self.subscribers.get_mut(slot).own();
        let offer = lines::whole_frames(&own.rest[own.sent..], room);
        let offered = offer.len();
        let taken = match sink.take(&[IoSlice::new(offer)]) {
            Taken::Closed => return Some(Outcome::Closed),
            Taken::Bytes(taken) => taken,
        };
        self.counts.bytes += taken as u64;
        own.sent += taken;
        if own.sent < own.rest.len() {
            return Some(match taken == offered {
                true => Outcome::More,
                false => Outcome::Full,
            });
        }
        (own.rest, own.sent) = (Vec::new(), 0);
        None
    }

    /// Nothing to send until an answer comes; a heartbeat shows that the stream lives.
    fn wait(&mut self, slot: Slot, sink: &mut impl Sink) -> Outcome {
        let subscriber = self.subscribers.get_mut(slot);
        if std::mem::take(&mut subscriber.heartbeat) {
            self.counts.heartbeats += 1;
            subscriber.own().rest.extend_from_slice(lines::COMMENT);
            if let Some(outcome) = self.flush(slot, sink) {
                return outcome;
            }
        }
        Outcome::Waiting
    }

    /// All that there is has been sent: the cut of now is what the client holds, or more.
    fn caught_up(&mut self, slot: Slot, sink: &mut impl Sink) -> Outcome {
        let (cut, time) = (self.window.cut(), self.time);
        let subscriber = self.subscribers.get_mut(slot);
        if let Some(own) = &mut subscriber.own {
            own.source = Source::Window;
            if let Some(held) = &mut own.held {
                held.raise(cut, time);
                if !held.private || cut.covers(&held.cut) {
                    own.held = None;
                }
            }
        }
        if std::mem::take(&mut subscriber.heartbeat) {
            self.put_heartbeat(slot);
            if let Some(outcome) = self.flush(slot, sink) {
                return outcome;
            }
            let subscriber = self.subscribers.get_mut(slot);
            if subscriber.is_private() {
                // Still ahead of us: is what it holds still in the log?
                subscriber.own().source = Source::Undecided;
                return Outcome::More;
            }
        }
        Outcome::Idle
    }

    /// A heartbeat. Where it matters it carries an id, so that a quiet client resumes from seconds
    /// ago: its filter may let little through, and on a compacted topic the id's time counts.
    fn put_heartbeat(&mut self, slot: Slot) {
        self.counts.heartbeats += 1;
        let filtered = self.subscribers.group(slot).key.is_some();
        if self.subscribers.get(slot).is_private() {
            self.put_held_id(slot);
        } else if filtered || self.settings.compacted {
            self.now_id.reset(self.time, self.window.cut());
            let rest = &mut self.subscribers.get_mut(slot).own().rest;
            lines::put_id(rest, self.now_id.as_bytes(), b"");
        } else {
            let rest = &mut self.subscribers.get_mut(slot).own().rest;
            rest.extend_from_slice(lines::COMMENT);
        }
    }

    /// Its cursor points into what has left the window.
    fn fell_out(&mut self, slot: Slot, now: Now) -> Outcome {
        let subscriber = self.subscribers.get(slot);
        let own = subscriber.own.as_ref();
        if own.is_some_and(|own| matches!(own.source, Source::Rejoining)) {
            // Not slow: history was longer than the window, so it goes on with history.
            self.go_on(slot, now);
            return Outcome::More;
        }
        if subscriber.slow == Slow::Disconnect {
            return Outcome::Lagged;
        }
        let Some(held) = self.held_before(slot) else {
            return Outcome::Lagged;
        };
        self.counts.conflated += 1;
        let private = true;
        self.subscribers.get_mut(slot).own().held = Some(Held { private, ..held });
        self.go_on(slot, now);
        Outcome::More
    }

    /// The window as it lies: no copy, no count, no allocation.
    fn read_shared(&mut self, slot: Slot, sink: &mut impl Sink, now: Now) -> Outcome {
        let cursor = self.subscribers.get(slot).cursor;
        let group = self.subscribers.group(slot);
        if cursor > group.last {
            return self.caught_up(slot, sink);
        }
        if self.window.has_lost(cursor.seq) {
            return self.fell_out(slot, now);
        }
        match self.offer_shared(slot, sink) {
            Some(outcome) => outcome,
            None => self.caught_up(slot, sink),
        }
    }

    /// One offer from the window. `None`: all is sent.
    fn offer_shared(&mut self, slot: Slot, sink: &mut impl Sink) -> Option<Outcome> {
        let limit = sink.room().min(OFFER_BYTES_MAX);
        let (cursor, group) = (
            self.subscribers.get(slot).cursor,
            self.subscribers.group(slot),
        );
        let mut offer = Offer::at(cursor);
        offer.gather(&self.window, group, limit);
        let subscriber = self.subscribers.get_mut(slot);
        if offer.slices.is_empty() {
            subscriber.cursor = offer.cursor;
            return offer.more.then_some(Outcome::More);
        }
        let taken = match limit {
            0 => 0,
            _ => match sink.take(&offer.slices) {
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
            reached.keep_held(subscriber, &offer);
        }
        if taken == offer.bytes {
            return Some(Outcome::More);
        }
        self.counts.frames_shared += offer.frames_before(reached.cursor);
        subscriber.cursor = reached.cursor;
        if !reached.rest.is_empty() {
            subscriber.own().rest.extend_from_slice(reached.rest);
        }
        Some(Outcome::Full)
    }

    /// The window with ids of the subscriber's own: max(V, cut). What is below V is skipped.
    fn read_private(&mut self, slot: Slot, sink: &mut impl Sink, now: Now) -> Outcome {
        let mut cursor = self.subscribers.get(slot).cursor;
        if cursor > self.subscribers.group(slot).last {
            return self.caught_up(slot, sink);
        }
        if self.window.has_lost(cursor.seq) {
            return self.fell_out(slot, now);
        }
        let limit = sink.room().min(PRIVATE_BYTES_MAX);
        if limit == 0 {
            return Outcome::Full;
        }
        let own = self.subscribers.get_mut(slot).own();
        own.source = Source::Window;
        let held = own.held.as_ref().expect("a private one holds its own");
        self.id.reset(held.time, &held.cut);
        let group = self.subscribers.group(slot);
        let mut splice = Splice::new(&mut self.id, &mut self.scratch, &mut self.bounds, limit);
        let (mut more, mut shared) = (false, false);
        while cursor <= group.last {
            let encoding = group.encoding as usize;
            let next = self.window.next_block(encoding, cursor.seq, group.last.seq);
            let Some((seq, block)) = next else {
                cursor = Cursor::after(group.last.seq);
                break;
            };
            if seq > cursor.seq {
                cursor = Cursor::at(seq);
            }
            shared = block.before().covers(splice.id.cut());
            more = shared || !splice.block(group, block, &mut cursor);
            if more {
                break;
            }
        }
        let gathered = Gathered {
            cursor,
            more,
            shared,
        };
        self.send_private(slot, sink, &gathered)
    }

    /// Offers what was gathered, and moves the subscriber as far as it was taken.
    fn send_private(&mut self, slot: Slot, sink: &mut impl Sink, gathered: &Gathered) -> Outcome {
        let sent = match self.offer_scratch(slot, sink) {
            Ok(sent) => sent,
            Err(outcome) => return outcome,
        };
        let subscriber = self.subscribers.get_mut(slot);
        if sent.full {
            subscriber.cursor = sent.cursor.unwrap_or(subscriber.cursor);
            return Outcome::Full;
        }
        subscriber.cursor = gathered.cursor;
        if gathered.shared {
            subscriber.own().held = None;
        }
        match gathered.more {
            true => Outcome::More,
            false => self.caught_up(slot, sink),
        }
    }

    /// Offers the scratch buffer. The subscriber then holds the frames taken, the one that was cut
    /// among them: its rest is kept.
    fn offer_scratch(&mut self, slot: Slot, sink: &mut impl Sink) -> Result<Sent, Outcome> {
        let (mut full, mut cursor) = (false, None);
        if self.scratch.is_empty() {
            return Ok(Sent { full, cursor });
        }
        let taken = match sink.take(&[IoSlice::new(&self.scratch)]) {
            Taken::Closed => return Err(Outcome::Closed),
            Taken::Bytes(taken) => taken,
        };
        full = taken < self.scratch.len();
        self.counts.bytes += taken as u64;
        let subscriber = self.subscribers.get_mut(slot);
        subscriber.heartbeat = false;
        let own = subscriber.own();
        let held = own.held.as_mut().expect("a private one holds its own");
        let mut start = 0;
        for bound in &self.bounds {
            if taken <= start {
                break;
            }
            cursor = Some(bound.cursor);
            held.cut.set(bound.partition, bound.next);
            if taken < bound.end {
                own.rest.extend_from_slice(&self.scratch[taken..bound.end]);
            }
            start = bound.end;
            self.counts.frames_private += 1;
        }
        Ok(Sent { full, cursor })
    }

    /// The present block of a catch-up read, from `frame` on.
    fn read_catch_up(
        &mut self,
        slot: Slot,
        id: CatchUpId,
        frame: u32,
        sink: &mut impl Sink,
    ) -> Outcome {
        let limit = sink.room().min(PRIVATE_BYTES_MAX);
        if limit == 0 {
            return Outcome::Full;
        }
        let own = self.subscribers.get(slot).own.as_ref();
        let held = own.and_then(|own| own.held.as_ref());
        let held = held.expect("a member of a catch_up holds its own");
        self.id.reset(held.time, &held.cut);
        let group = self.subscribers.group(slot);
        let block = self.catch_ups.block(id);
        let block = block.expect("a catch_up keeps its block while a member reads it");
        let seq = Seq(0); // A catch_up has an order of its own.
        let mut cursor = Cursor { seq, frame };
        let mut splice = Splice::new(&mut self.id, &mut self.scratch, &mut self.bounds, limit);
        let whole = splice.block(group, block, &mut cursor);
        let sent = match self.offer_scratch(slot, sink) {
            Ok(sent) => sent,
            Err(outcome) => return outcome,
        };
        let (at, outcome) = match (sent.full, whole) {
            (true, _) => (sent.cursor.map_or(frame, |c| c.frame), Outcome::Full),
            (false, false) => (cursor.frame, Outcome::More),
            (false, true) => (u32::MAX, Outcome::Waiting),
        };
        if at == u32::MAX {
            // All below the block's end was offered, whether or not its filter let it through.
            let end = self.catch_ups.block(id).map(|block| block.end_cut());
            let held = self.held_mut(slot);
            held.cut.raise(&end.expect("it was read above"));
        }
        self.set_catch_up_frame(slot, id, at);
        outcome
    }

    fn set_catch_up_frame(&mut self, slot: Slot, id: CatchUpId, at: u32) {
        if let Source::CatchUp { frame, .. } = &mut self.subscribers.get_mut(slot).own().source {
            *frame = at;
        }
        if at == u32::MAX {
            self.catch_ups.on_taken(id);
        }
    }
}

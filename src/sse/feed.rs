//! One topic instance's fan-out on one shard: what happens to it. How it answers is in `open.rs`
//! (where a stream starts), `deliver.rs` (what is sent), `history.rs` (pages and catch-up reads),
//! `branch.rs` (what an unclean election took) and `heartbeat.rs` (time).

use std::collections::VecDeque;
use std::sync::Arc;

use super::branch::Branch;
use super::heartbeat::Heartbeats;
use super::history::CatchUps;
use super::request::{FeedCounts, FeedSettings, Slow, Subscribe, Ticket};
use super::splice::Bound;
use super::subscriber::{Held, Place, Slot};
use super::subscriber_index::SubscriberIndex;
use crate::log::{Block, Change, Cut, Next, ProgressText, Seq, Step, Window};
use crate::model::{FastRandom, LeaderEpoch, Now, UnixMillis};

/// Blocks that left the window, of which a conflating subscriber that had not even started to read
/// them can still learn what its client holds.
const TRAIL_MAX: usize = 256;

/// The streams of one topic instance on one shard. See the room's docs for the model.
#[derive(Debug)]
pub struct Feed {
    pub(super) settings: FeedSettings,
    pub(super) window: Window,
    pub(super) time: UnixMillis,
    pub(super) log_start: Cut,
    pub(super) subscribers: SubscriberIndex,
    pub(super) needs: VecDeque<Ticket>,
    pub(super) catch_ups: CatchUps,
    pub(super) heartbeats: Heartbeats,
    pub(super) branch: Branch,
    pub(super) counts: FeedCounts,
    /// Ids of single subscribers are written here.
    pub(super) id: ProgressText,
    /// The id of all that share the window and have read it.
    pub(super) now_id: ProgressText,
    /// Frames of one private subscriber on their way out, and where each ends.
    pub(super) scratch: Vec<u8>,
    pub(super) bounds: Vec<Bound>,
    trail: Trail,
    tickets: u32,
    pub(super) random: FastRandom,
}

/// What one held who stood before a block that has left the window.
#[derive(Debug, Default)]
struct Trail {
    before: VecDeque<(Seq, Held)>,
    /// The newest step whose place here is gone too.
    lost: Seq,
    /// Subscribers that may ask.
    wanted: usize,
}

impl Feed {
    /// A feed without subscribers after step `seq`, which led to `cut` at `time`.
    ///
    /// # Panics
    /// If there are more than [`super::ENCODINGS_MAX`] encodings.
    #[must_use]
    pub fn new(settings: FeedSettings, seq: Seq, cut: Cut, time: UnixMillis) -> Self {
        assert!(settings.encodings.len() <= super::ENCODINGS_MAX);
        let id = ProgressText::new(settings.tag, time, &cut);
        Self {
            time,
            log_start: settings.log_start.clone(),
            subscribers: SubscriberIndex::new(settings.encodings.len()),
            needs: VecDeque::new(),
            catch_ups: CatchUps::default(),
            heartbeats: Heartbeats::new(&settings),
            branch: Branch::default(),
            counts: FeedCounts::default(),
            now_id: id.clone(),
            id,
            scratch: Vec::new(),
            bounds: Vec::new(),
            trail: Trail {
                lost: seq,
                ..Trail::default()
            },
            tickets: 0,
            random: FastRandom::new(settings.seed),
            window: Window::new(seq, cut),
            settings,
        }
    }

    /// Takes the next step. Bounded: one lookup a frame if anybody filters, whatever their number;
    /// without subscribers, nothing a frame.
    ///
    /// # Panics
    /// If a step was left out.
    pub fn on_step(&mut self, step: &Arc<Step>) {
        let turned = self.branch.on_cut(self.window.cut(), &step.cut);
        let trail = &mut self.trail;
        self.window
            .push(step, |seq, _, block| trail.on_drop(seq, block));
        self.time = step.time;
        if let Change::LogStart { partition, offset } = step.change {
            let epoch = LeaderEpoch(None);
            self.log_start.set(partition, Next { offset, epoch });
        }
        if self.subscribers.len() == 0 {
            return;
        }
        if !turned.is_empty() {
            self.on_turn(&turned);
        }
        for encoding in 0..self.settings.encodings.len() {
            match step.blocks.get(encoding) {
                Some(Some(block)) => self.subscribers.on_block(encoding, step.seq, block),
                // It has something to show but can't: whoever listens has lost it.
                _ if self.window.has_lost(step.seq) => {
                    self.subscribers.wake_all(encoding, step.seq)
                }
                _ => {}
            }
        }
    }

    /// Adds a subscriber; it is pending at once, for its first bytes. The shard has written the
    /// HTTP head; all of the body is the feed's. A token in use is unsubscribed first.
    ///
    /// # Panics
    /// If the encoding is none of the settings'.
    pub fn subscribe(&mut self, token: u32, request: &Subscribe<'_>, now: Now) {
        assert!(request.encoding < self.settings.encodings.len());
        self.unsubscribe(token);
        self.heartbeats
            .on_subscribe(self.subscribers.len(), now.mono);
        let slow = match self.settings.compacted {
            true => request.slow,
            false => Slow::Disconnect,
        };
        let newest = self.window.newest();
        let slot = self
            .subscribers
            .add(token, request.encoding, request.filter, slow, newest);
        self.trail.wanted += usize::from(slow == Slow::Conflate);
        self.open(slot, request, now);
        self.subscribers.queue(slot);
    }

    /// Forgets a subscriber. Unknown tokens are ignored.
    pub fn unsubscribe(&mut self, token: u32) {
        if let Some(slot) = self.subscribers.find(token) {
            self.remove(slot);
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.leave_catch_up(slot);
        self.trail.wanted -= usize::from(self.subscribers.get(slot).slow == Slow::Conflate);
        self.subscribers.remove(slot);
    }

    /// The subscriber to deliver to next, in rotation. Call [`Self::deliver`] with it at once.
    pub fn next_pending(&mut self) -> Option<u32> {
        let slot = self.subscribers.pop()?;
        Some(self.subscribers.get(slot).token)
    }

    /// The transport can take more: the subscriber is pending again.
    pub fn on_writable(&mut self, token: u32) {
        if let Some(slot) = self.subscribers.find(token)
            && self.subscribers.get(slot).place == Place::Blocked
        {
            self.subscribers.queue(slot);
        }
    }

    /// Whether somebody is to be served, or something is to be asked outside: another turn is due.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.subscribers.has_pending() || !self.needs.is_empty()
    }

    /// How many subscribers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.subscribers.len() == 0
    }

    /// What it has done so far.
    #[must_use]
    pub const fn counts(&self) -> FeedCounts {
        self.counts
    }

    /// What the client of a subscriber that shares the window holds, when its cursor has fallen out
    /// of it. `None`: nobody knows any more.
    pub(super) fn held_before(&self, slot: Slot) -> Option<Held> {
        let subscriber = self.subscribers.get(slot);
        if let Some(held) = subscriber.own.as_ref().and_then(|own| own.held.clone()) {
            return Some(held);
        }
        self.trail.before(subscriber.cursor.seq)
    }

    /// A new question of this subscriber; older ones are stale now.
    pub(super) fn ask(&mut self, slot: Slot) {
        self.tickets = self.tickets.wrapping_add(1);
        let number = self.tickets;
        let subscriber = self.subscribers.get_mut(slot);
        subscriber.own().ticket = number;
        let token = subscriber.token;
        self.needs.push_back(Ticket { token, number });
    }

    /// Whose question this is, if it still waits for the answer.
    pub(super) fn asker(&self, ticket: Ticket) -> Option<Slot> {
        let slot = self.subscribers.find(ticket.token)?;
        let own = self.subscribers.get(slot).own.as_ref()?;
        (own.ticket == ticket.number).then_some(slot)
    }
}

impl Trail {
    fn on_drop(&mut self, seq: Seq, block: &Block) {
        if self.wanted == 0 {
            self.forget(seq);
            return;
        }
        if self.before.back().is_some_and(|(last, _)| *last == seq) {
            return; // Another encoding's block of the same step.
        }
        let Some(mut held) = Held::at_frame(block, 0) else {
            self.forget(seq);
            return;
        };
        held.cut = block.before().clone();
        self.before.push_back((seq, held));
        if self.before.len() > TRAIL_MAX {
            let (seq, _) = self.before.pop_front().expect("len checked above");
            self.lost = seq;
        }
    }

    fn forget(&mut self, until: Seq) {
        self.before.clear();
        self.lost = until;
    }

    /// What one held whose next frame was in step `seq` or, if that has none, a later one.
    fn before(&self, seq: Seq) -> Option<Held> {
        if seq <= self.lost {
            return None;
        }
        let at = self.before.partition_point(|(s, _)| *s < seq);
        self.before.get(at).map(|(_, held)| held.clone())
    }
}

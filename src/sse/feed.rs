//! One topic instance's fan-out on one shard.

use std::sync::Arc;

use super::face::Face;
use super::request::{
    Credit, Delivery, FeedCounts, FeedSettings, Need, PageCursor, PageEntry, PassId, Subscribe,
    Ticket,
};
use crate::log::{Block, Cut, GapReason, Seq, Step};
use crate::model::{Instant, Now, Offset, Partition, UnixMillis};

/// The streams of one topic instance on one shard. See the room's docs for the model.
#[derive(Debug)]
pub struct Feed;

#[allow(unused_variables)]
impl Feed {
    /// A feed without subscribers after step `seq`, which led to `cut` at `time`.
    #[must_use]
    pub fn new(settings: FeedSettings, seq: Seq, cut: Cut, time: UnixMillis) -> Self {
        todo!()
    }
    /// Takes the next step. Bounded: a lookup per frame if anybody filters, whatever their number.
    pub fn on_step(&mut self, step: &Arc<Step>) {
        todo!()
    }
    /// Adds a subscriber; it is pending at once, for its first bytes. The shard has written the
    /// HTTP head; all of the body is the feed's.
    pub fn subscribe(&mut self, token: u32, request: &Subscribe<'_>, now: Now) {
        todo!()
    }
    /// Forgets a subscriber. Unknown tokens are ignored.
    pub fn unsubscribe(&mut self, token: u32) {
        todo!()
    }
    /// The subscriber to deliver to next, in rotation. Call [`Self::deliver`] with it at once.
    pub fn next_pending(&mut self) -> Option<u32> {
        todo!()
    }
    /// Sends what is pending, as much as one offer holds.
    pub fn deliver(&mut self, token: u32, face: &mut impl Face, now: Now) -> Delivery {
        todo!()
    }
    /// The transport can take more: the subscriber is pending again.
    pub fn on_writable(&mut self, token: u32) {
        todo!()
    }
    /// What to ask for outside.
    pub fn next_need(&mut self) -> Option<Need> {
        todo!()
    }
    /// A page of *changes*. `next`: where the following page starts; `None`: that was the last.
    pub fn on_page<'a>(
        &mut self,
        ticket: Ticket,
        entries: impl Iterator<Item = PageEntry<'a>>,
        next: Option<PageCursor>,
    ) {
        todo!()
    }
    /// These are now members of a pass.
    pub fn on_pass_start(&mut self, pass: PassId, tickets: &[Ticket]) {
        todo!()
    }
    /// The next block of a pass, for all its members here.
    pub fn on_pass_block(&mut self, pass: PassId, block: &Arc<Block>, now: Instant) {
        todo!()
    }
    /// Passes whose block all members have taken, or that have waited long enough.
    pub fn next_credit(&mut self) -> Option<Credit> {
        todo!()
    }
    /// The pass met the home's order: its members go on after `seq`, which led to `cut`. Call it
    /// once that step is applied.
    pub fn on_pass_end(&mut self, pass: PassId, seq: Seq, cut: &Cut) {
        todo!()
    }
    /// What the home found missing for one that asked for a pass: told, and passed over.
    pub fn on_gap(
        &mut self,
        ticket: Ticket,
        partition: Partition,
        from: Offset,
        to: Offset,
        reason: GapReason,
    ) {
        todo!()
    }
    /// Due heartbeats become pending, and passes that waited too long give credit. Bounded work.
    pub fn on_timeout(&mut self, now: Instant) {
        todo!()
    }
    /// When [`Self::on_timeout`] next has work.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }
    /// How many subscribers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> FeedCounts {
        todo!()
    }
}

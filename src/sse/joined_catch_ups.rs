//! Catch-up reads as one shard sees them: which subscribers are members, which block they read, and
//! when the home may send the next one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cursor::Cursor;
use super::request::{CatchUpId, Credit};
use super::source::Source;
use super::subscriber::{Slot, Subscriber};
use super::subscriber_index::SubscriberIndex;
use crate::log::{Block, Cut, Seq};
use crate::model::{Instant, u32_of};

/// The catch-up reads that have members on this shard. A topic has one or two at a time, so they
/// are found by a scan.
#[derive(Debug, Default)]
pub(super) struct JoinedCatchUps {
    list: Vec<JoinedCatchUp>,
    credits: VecDeque<Credit>,
}

#[derive(Debug)]
struct JoinedCatchUp {
    id: CatchUpId,
    /// The subscribers that joined. Some may have left: a member's source names the catch-up read.
    joined: Vec<Slot>,
    /// How many of them are still members.
    members: u32,
    /// How many members have not read the whole block.
    behind: u32,
    block: Option<Arc<Block>>,
    /// When the home may send the next block although a member is behind. `None`: it may already.
    patience: Option<Instant>,
}

impl JoinedCatchUp {
    fn give_credit(&mut self, credits: &mut VecDeque<Credit>) {
        if self.patience.take().is_some() {
            let (catch_up, members) = (self.id, self.members);
            credits.push_back(Credit { catch_up, members });
        }
    }

    fn on_read(&mut self, credits: &mut VecDeque<Credit>) {
        self.behind -= 1;
        if self.behind == 0 {
            self.block = None;
            self.give_credit(credits);
        }
    }
}

impl JoinedCatchUps {
    /// These subscribers join a catch-up read that begins. They may come in several parts.
    pub(super) fn on_start(&mut self, id: CatchUpId, joined: Vec<Slot>) {
        let members = u32_of(joined.len());
        if let Some(begun) = self.list.iter_mut().find(|it| it.id == id) {
            begun.joined.extend(joined);
            begun.members += members;
            return;
        }
        let (behind, block, patience) = (0, None, None);
        self.list.push(JoinedCatchUp {
            id,
            joined,
            members,
            behind,
            block,
            patience,
        });
    }

    /// The next block, for all members. The home waits for them until `patience`. A member that has
    /// not read the whole block before leaves.
    pub(super) fn on_block(
        &mut self,
        id: CatchUpId,
        block: &Arc<Block>,
        patience: Instant,
        subscribers: &mut SubscriberIndex,
    ) {
        for slot in self.members_in_step(id, subscribers) {
            subscribers.get_mut(slot).own().source.on_block(id);
            subscribers.wake_waiting(slot);
        }
        let Some(catch_up) = self.list.iter_mut().find(|it| it.id == id) else {
            let (catch_up, members) = (id, 0);
            self.credits.push_back(Credit { catch_up, members });
            return;
        };
        catch_up.patience = Some(patience);
        catch_up.behind = catch_up.members;
        catch_up.block = (catch_up.members > 0).then(|| Arc::clone(block));
        if catch_up.members == 0 {
            catch_up.give_credit(&mut self.credits);
        }
    }

    /// The members that have read all that the catch-up read brought. The others leave: they would
    /// miss the rest of their block.
    pub(super) fn members_in_step(
        &mut self,
        id: CatchUpId,
        subscribers: &mut SubscriberIndex,
    ) -> Vec<Slot> {
        let mut members = self.members(id, subscribers);
        members.retain(|&slot| {
            let behind = subscribers.get_mut(slot).own().source.on_left_behind(id);
            if behind {
                self.on_left(id, true);
            }
            !behind
        });
        members
    }

    /// The subscribers that are members.
    pub(super) fn members(&self, id: CatchUpId, subscribers: &SubscriberIndex) -> Vec<Slot> {
        let Some(catch_up) = self.list.iter().find(|it| it.id == id) else {
            return Vec::new();
        };
        let is_member = |slot: &Slot| {
            let membership = subscribers.get(*slot).membership();
            membership.is_some_and(|(of, _)| of == id)
        };
        let joined = catch_up.joined.iter().copied();
        joined.filter(is_member).collect()
    }

    /// The catch-up read has met the window after step `seq`, which led to `cut`.
    pub(super) fn on_end(
        &mut self,
        id: CatchUpId,
        seq: Seq,
        cut: &Cut,
        subscribers: &mut SubscriberIndex,
    ) {
        for slot in self.members(id, subscribers) {
            let subscriber = subscribers.get_mut(slot);
            let own = subscriber.own();
            own.source.on_catch_up_ended(id);
            if matches!(own.source, Source::Rejoining) {
                own.progress_mut().cut.raise(cut);
                subscriber.cursor = Cursor::after(seq);
            }
            subscribers.wake_waiting(slot);
        }
        self.forget(id);
    }

    /// The catch-up read ends without having met the window.
    pub(super) fn on_stalled(&mut self, id: CatchUpId, subscribers: &mut SubscriberIndex) {
        for slot in self.members(id, subscribers) {
            let own = subscribers.get_mut(slot).own();
            own.source.on_catch_up_stalled(id);
            subscribers.wake_waiting(slot);
        }
        self.forget(id);
    }

    /// The present block, while a member has not read all of it.
    pub(super) fn block(&self, id: CatchUpId) -> Option<&Arc<Block>> {
        let catch_up = self.list.iter().find(|it| it.id == id)?;
        catch_up.block.as_ref()
    }

    /// A member has read the whole block.
    pub(super) fn on_read(&mut self, id: CatchUpId) {
        if let Some(catch_up) = self.list.iter_mut().find(|it| it.id == id) {
            catch_up.on_read(&mut self.credits);
        }
    }

    /// Ends a subscriber's membership before it is removed, or reads something else.
    pub(super) fn leave(&mut self, subscriber: &Subscriber) {
        if let Some((id, behind)) = subscriber.membership() {
            self.on_left(id, behind);
        }
    }

    /// A subscriber is no longer a member. `was_behind`: it had not read the whole block.
    fn on_left(&mut self, id: CatchUpId, was_behind: bool) {
        if let Some(catch_up) = self.list.iter_mut().find(|it| it.id == id) {
            catch_up.members -= 1;
            if was_behind {
                catch_up.on_read(&mut self.credits);
            }
        }
    }

    fn forget(&mut self, id: CatchUpId) {
        self.list.retain(|it| it.id != id);
    }

    /// The next catch-up read that may be sent a block by its home. A read without members is
    /// forgotten with its credit: the home sends it nothing more, not even its end.
    pub(super) fn next_credit(&mut self) -> Option<Credit> {
        let credit = self.credits.pop_front()?;
        if credit.members == 0 {
            self.forget(credit.catch_up);
        }
        Some(credit)
    }

    /// Whether [`Self::next_credit`] returns one.
    pub(super) fn has_credit(&self) -> bool {
        !self.credits.is_empty()
    }

    /// When [`Self::on_timeout`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().filter_map(|it| it.patience).min()
    }

    /// Gives credit where the home has waited long enough.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        for catch_up in &mut self.list {
            if catch_up.patience.is_some_and(|patience| patience <= now) {
                catch_up.give_credit(&mut self.credits);
            }
        }
    }
}

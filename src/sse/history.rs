//! What comes from outside the window: pages of *changes*, blocks of catch-up reads.

use std::collections::VecDeque;
use std::sync::Arc;

use super::feed::Feed;
use super::lines;
use super::request::{CatchUpId, Credit, PageCursor, PageEntry, Ticket};
use super::subscriber::{Cursor, Place, Slot, Source};
use crate::log::{Block, Cut, GapReason, Next, Notice, OffsetRange, Seq};
use crate::model::{Instant, Offset, Partition};

/// CatchUps that have members here. A topic has two at a time, so a list does.
#[derive(Debug, Default)]
pub(super) struct CatchUps {
    list: Vec<CatchUp>,
    credits: VecDeque<Credit>,
}

#[derive(Debug)]
struct CatchUp {
    id: CatchUpId,
    /// Who joined, by their question; some may have left.
    joined: Vec<Ticket>,
    /// How many are left.
    members: u32,
    /// How many of them have not taken the block.
    behind: u32,
    block: Option<Arc<Block>>,
    /// When the catch-up read goes on without the slowest; `None`: its credit is given.
    patience: Option<Instant>,
}

impl CatchUp {
    fn give_credit(&mut self, credits: &mut VecDeque<Credit>) {
        if self.patience.take().is_some() {
            let (catch_up, members) = (self.id, self.members);
            credits.push_back(Credit { catch_up, members });
        }
    }
}

impl CatchUps {
    fn find(&mut self, id: CatchUpId) -> Option<&mut CatchUp> {
        self.list.iter_mut().find(|catch_up| catch_up.id == id)
    }

    /// The block of a catch-up read, while somebody has not taken it.
    pub(super) fn block(&self, id: CatchUpId) -> Option<&Arc<Block>> {
        let catch_up = self.list.iter().find(|catch_up| catch_up.id == id)?;
        catch_up.block.as_ref()
    }

    /// A member has taken the block whole.
    pub(super) fn on_taken(&mut self, id: CatchUpId) {
        let credits = &mut self.credits;
        let Some(catch_up) = self.list.iter_mut().find(|catch_up| catch_up.id == id) else {
            return;
        };
        catch_up.behind -= 1;
        if catch_up.behind == 0 {
            catch_up.block = None;
            catch_up.give_credit(credits);
        }
    }

    /// A member is no more.
    fn on_left(&mut self, id: CatchUpId, was_behind: bool) {
        if let Some(catch_up) = self.find(id) {
            catch_up.members -= 1;
            if was_behind {
                self.on_taken(id);
            }
        }
    }

    /// The next moment at which a catch-up read loses patience.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list
            .iter()
            .filter_map(|catch_up| catch_up.patience)
            .min()
    }

    /// CatchUps that have waited long enough go on.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        for catch_up in &mut self.list {
            if catch_up.patience.is_some_and(|patience| patience <= now) {
                catch_up.give_credit(&mut self.credits);
            }
        }
    }
}

impl Feed {
    /// A page of *changes*. `next`: where the following page starts; `None`: that was the last.
    /// Entries outside the bounds that were asked for are left out.
    pub fn on_page<'a>(
        &mut self,
        ticket: Ticket,
        entries: impl Iterator<Item = PageEntry<'a>>,
        next: Option<PageCursor>,
    ) {
        let Some(slot) = self.asker(ticket) else {
            return;
        };
        let encoding = self.subscribers.group(slot).encoding as usize;
        let subscriber = self.subscribers.get_mut(slot);
        let Some(own) = subscriber.own.as_deref_mut() else {
            return;
        };
        let (Source::Pages(pages), Some(held)) = (&mut own.source, &mut own.held) else {
            return;
        };
        if !pages.asked {
            return;
        }
        pages.asked = false;
        pages.after = next;
        self.id.reset(held.time, &held.cut);
        let progress = match held.over {
            true => lines::START_OVER,
            false => self.id.as_bytes(),
        };
        for entry in entries {
            let (from, below) = (
                held.cut.get(entry.partition),
                pages.below.get(entry.partition),
            );
            if entry.offset < from.offset || entry.offset >= below.offset {
                continue;
            }
            let encoding = &self.settings.encodings[encoding];
            encoding.put(&mut own.rest, Some(entry.key), entry.value);
            lines::put_id(&mut own.rest, progress, &entry.etag.event_id_part());
            self.counts.page_entries += 1;
        }
        if next.is_none() {
            held.raise(&pages.below, pages.time);
            held.over = false;
            subscriber.cursor = Cursor::after(pages.seq);
            own.source = Source::Rejoining;
            self.put_position(slot);
        }
        self.wake_waiting(slot);
    }

    /// Sends gaps for undecodable ranges of the log within the pages' bounds. Call it with the last
    /// page, before [`Self::on_page`]. The gaps carry the client's present id, so that a client
    /// that is cut off before the end receives them again.
    pub fn on_page_gaps(&mut self, ticket: Ticket, undecodable: &[OffsetRange]) {
        let Some(slot) = self.asker(ticket) else {
            return;
        };
        let own = self.subscribers.get(slot).own.as_ref();
        let Some((Source::Pages(pages), Some(held))) = own.map(|own| (&own.source, &own.held))
        else {
            return;
        };
        let within = |range: &OffsetRange| {
            let from = range.from.max(held.cut.get(range.partition).offset);
            let to = range.to.min(pages.below.get(range.partition).offset);
            (from < to).then_some((range.partition, from, to))
        };
        let missing: Vec<_> = undecodable.iter().filter_map(within).collect();
        for missing in missing {
            self.counts.gaps += 1;
            self.put_gap(slot, Some(missing), GapReason::Undecodable);
        }
    }

    pub(super) fn wake_waiting(&mut self, slot: Slot) {
        if self.subscribers.get(slot).place == Place::Waiting {
            self.subscribers.queue(slot);
        }
    }

    /// What the home found missing for one that asked for a catch-up read and has got nothing of it yet:
    /// told, and passed over.
    pub fn on_gap(
        &mut self,
        ticket: Ticket,
        partition: Partition,
        from: Offset,
        to: Offset,
        reason: GapReason,
    ) {
        let Some(slot) = self.asker(ticket) else {
            return;
        };
        let own = self.subscribers.get(slot).own.as_ref();
        let waits = own.is_some_and(|own| match own.source {
            Source::CatchUp { frame, .. } => frame == u32::MAX,
            _ => false,
        });
        if !waits {
            return;
        }
        self.catch_up_over(slot, partition, from, to, reason);
    }

    /// Tells one of a gap, and goes on behind it.
    fn catch_up_over(
        &mut self,
        slot: Slot,
        partition: Partition,
        from: Offset,
        to: Offset,
        reason: GapReason,
    ) {
        // Whose epoch the record before `to` is of, nobody has said.
        self.held_mut(slot).cut.set(partition, Next::at(to));
        self.counts.gaps += 1;
        self.put_gap(slot, Some((partition, from, to)), reason);
        self.wake_waiting(slot);
    }

    /// These are now members of a catch-up read, which starts at the lowest of what they hold.
    pub fn on_catch_up_start(&mut self, id: CatchUpId, tickets: &[Ticket]) {
        let mut joined = Vec::with_capacity(tickets.len());
        for &ticket in tickets {
            let Some(slot) = self.asker(ticket) else {
                continue;
            };
            let own = self.subscribers.get_mut(slot).own();
            if let Source::CatchUp { catch_up, .. } = &mut own.source
                && catch_up.is_none()
            {
                *catch_up = Some(id);
                joined.push(ticket);
            }
        }
        let members = joined.len() as u32;
        let (behind, block, patience) = (0, None, None);
        self.catch_ups.list.push(CatchUp {
            id,
            joined,
            members,
            behind,
            block,
            patience,
        });
    }

    /// The next block of a catch-up read, for all its members here. Who has not taken the one before leaves.
    pub fn on_catch_up_block(&mut self, id: CatchUpId, block: &Arc<Block>, now: Instant) {
        let patience = now.after(self.settings.catch_up_patience);
        for slot in self.members_in_step(id) {
            if let Source::CatchUp { frame, .. } = &mut self.subscribers.get_mut(slot).own().source
            {
                *frame = 0;
            }
            self.wake_waiting(slot);
        }
        let catch_ups = &mut self.catch_ups;
        let Some(catch_up) = catch_ups.list.iter_mut().find(|catch_up| catch_up.id == id) else {
            let (catch_up, members) = (id, 0);
            catch_ups.credits.push_back(Credit { catch_up, members });
            return;
        };
        catch_up.patience = Some(patience);
        catch_up.behind = catch_up.members;
        catch_up.block = (catch_up.members > 0).then(|| Arc::clone(block));
        if catch_up.members == 0 {
            catch_up.give_credit(&mut catch_ups.credits);
        }
    }

    /// The log no longer has, or can't show, what a catch-up read was to bring next: its members are told of
    /// what they lack of it. Who has not taken the block before leaves.
    pub fn on_catch_up_gap(&mut self, id: CatchUpId, notice: Notice) {
        for slot in self.members_in_step(id) {
            let held = self.held_mut(slot).cut.get(notice.partition).offset;
            if held < notice.to {
                let from = held.max(notice.from);
                self.catch_up_over(slot, notice.partition, from, notice.to, notice.reason);
            }
        }
    }

    /// CatchUps whose block all members here have taken, or that have waited long enough. One without
    /// members is forgotten with its credit: no end need be told.
    pub fn next_credit(&mut self) -> Option<Credit> {
        let credit = self.catch_ups.credits.pop_front()?;
        if credit.members == 0 {
            self.catch_ups
                .list
                .retain(|catch_up| catch_up.id != credit.catch_up);
        }
        Some(credit)
    }

    /// The catch-up read met the home's order: its members go on after `seq`, which led to `cut`. Call it
    /// once that step is applied.
    pub fn on_catch_up_end(&mut self, id: CatchUpId, seq: Seq, cut: &Cut) {
        debug_assert!(seq <= self.window.newest(), "the end comes behind its step");
        for slot in self.members(id) {
            let subscriber = self.subscribers.get_mut(slot);
            let own = subscriber.own();
            let Source::CatchUp { frame, .. } = own.source else {
                continue;
            };
            if frame == u32::MAX {
                own.source = Source::Rejoining;
                subscriber.cursor = Cursor::after(seq);
                let held = self.held_mut(slot);
                let time = held.time;
                held.raise(cut, time);
            } else {
                own.source = Source::Undecided;
            }
            self.wake_waiting(slot);
        }
        self.catch_ups.list.retain(|catch_up| catch_up.id != id);
    }

    /// The catch-up read ended before it met the home's order: its members go on from what they hold.
    pub fn on_catch_up_short(&mut self, id: CatchUpId) {
        for slot in self.members(id) {
            self.subscribers.get_mut(slot).own().source = Source::Undecided;
            self.wake_waiting(slot);
        }
        self.catch_ups.list.retain(|catch_up| catch_up.id != id);
    }

    fn members(&mut self, id: CatchUpId) -> Vec<Slot> {
        let Some(catch_up) = self
            .catch_ups
            .list
            .iter()
            .find(|catch_up| catch_up.id == id)
        else {
            return Vec::new();
        };
        let is_in = |slot: &Slot| {
            let own = self.subscribers.get(*slot).own.as_ref();
            own.is_some_and(
                |own| matches!(own.source, Source::CatchUp { catch_up: Some(p), .. } if p == id),
            )
        };
        let askers = catch_up
            .joined
            .iter()
            .filter_map(|ticket| self.asker(*ticket));
        askers.filter(is_in).collect()
    }

    /// The members that have taken all that the catch-up read brought. The others leave it, and go on from
    /// what they hold: they would miss the rest of their block.
    fn members_in_step(&mut self, id: CatchUpId) -> Vec<Slot> {
        let mut members = self.members(id);
        members.retain(|&slot| {
            let own = self.subscribers.get(slot).own.as_ref();
            let has_all = own.is_some_and(
                |own| matches!(own.source, Source::CatchUp { frame, .. } if frame == u32::MAX),
            );
            if !has_all {
                self.leave_catch_up(slot);
                self.subscribers.get_mut(slot).own().source = Source::Undecided;
            }
            has_all
        });
        members
    }

    /// Before a subscriber goes, or reads something else.
    pub(super) fn leave_catch_up(&mut self, slot: Slot) {
        let own = self.subscribers.get(slot).own.as_ref();
        if let Some(Source::CatchUp {
            catch_up: Some(id),
            frame,
        }) = own.map(|own| &own.source)
        {
            self.catch_ups.on_left(*id, *frame != u32::MAX);
        }
    }
}

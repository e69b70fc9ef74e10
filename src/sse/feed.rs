//! The streams of one topic incarnation on one shard. The feed composes the parts and hands each
//! call to the part that it concerns: `log_view.rs` (what can be sent), `plan.rs` (from where a
//! client is served), `deliver.rs` (sending to one client), `pages.rs` (what a page writes),
//! `held_pages.rs` (the memory of pages), `epoch_walk.rs`, `joined_catch_ups.rs`, `questions.rs`,
//! `heartbeat.rs`.

use std::sync::Arc;

use super::cursor::Cursor;
use super::deliver::{Outcome, Sender};
use super::epoch_walk::{EPOCH_SLOTS_MAX, EpochWalk};
use super::heartbeat::Heartbeats;
use super::held_pages::HeldPages;
use super::ids::Ids;
use super::joined_catch_ups::JoinedCatchUps;
use super::log_view::LogView;
use super::pages::PageWriter;
use super::plan::Planner;
use super::questions::{Pending, Questions, need_of};
use super::request::{
    CatchUpId, Credit, Delivery, FeedCounts, FeedSettings, Need, PageCursor, PageEntry, Slow,
    StreamQuestion, Subscribe,
};
use super::sink::Sink;
use super::splice::Scratch;
use super::subscriber::{Place, Slot, Subscriber};
use super::subscriber_index::SubscriberIndex;
use super::trail::Trail;
use super::unsent::Unsent;
use crate::log::{Block, Cut, GapReason, Next, Notice, OffsetRange, Seq, Step};
use crate::model::{ExchangeId, FastRandom, Instant, Now, Partition, UnixMillis};

/// Slots that one call of [`Feed::on_timeout`] looks at.
const HEARTBEAT_SLOTS_MAX: usize = 256;

/// The streams of one topic incarnation on one shard. See the room's docs for the model.
#[derive(Debug)]
pub struct Feed {
    settings: FeedSettings,
    log: LogView,
    trail: Trail,
    subscribers: SubscriberIndex,
    questions: Questions,
    catch_ups: JoinedCatchUps,
    pages: HeldPages,
    epoch_walk: EpochWalk,
    heartbeats: Heartbeats,
    ids: Ids,
    scratch: Scratch,
    counts: FeedCounts,
    random: FastRandom,
}

impl Feed {
    /// A feed without subscribers after step `seq`, which led to `cut` at `time`.
    ///
    /// # Panics
    /// If there are more than [`super::ENCODINGS_MAX`] encodings.
    #[must_use]
    pub fn new(settings: FeedSettings, seq: Seq, cut: Cut, time: UnixMillis) -> Self {
        assert!(settings.encodings.len() <= super::ENCODINGS_MAX);
        Self {
            ids: Ids::new(settings.tag, time, &cut),
            log: LogView::new(&settings, seq, cut, time),
            trail: Trail::new(seq),
            subscribers: SubscriberIndex::new(settings.encodings.len()),
            questions: Questions::default(),
            catch_ups: JoinedCatchUps::default(),
            pages: HeldPages::default(),
            epoch_walk: EpochWalk::default(),
            heartbeats: Heartbeats::new(&settings),
            scratch: Scratch::default(),
            counts: FeedCounts::default(),
            random: FastRandom::new(settings.seed),
            settings,
        }
    }

    /// Applies the next step. Bounded: one lookup per frame if any subscriber filters, whatever
    /// their number; without subscribers, nothing per frame.
    ///
    /// # Panics
    /// If a step was left out.
    pub fn on_step(&mut self, step: &Arc<Step>) {
        let changed = self.log.on_step(step, &mut self.trail);
        if self.is_empty() {
            return;
        }
        if !changed.is_empty() {
            self.epoch_walk.start(changed);
            self.walk_epochs();
        }
        for encoding in 0..self.settings.encodings.len() {
            match step.blocks.get(encoding) {
                Some(Some(block)) => self.subscribers.on_block(encoding, step.seq, block),
                // The step has records but no block: every subscriber has lost them.
                _ if self.log.has_evicted(step.seq) => {
                    self.subscribers.wake_all(encoding, step.seq);
                }
                _ => {}
            }
        }
    }

    /// Checks the next subscribers after a change of epochs.
    fn walk_epochs(&mut self) {
        for _ in 0..EPOCH_SLOTS_MAX {
            let Some(slot) = self.epoch_walk.next(self.subscribers.slots()) else {
                return;
            };
            self.check_epochs(slot);
        }
    }

    /// Makes a subscriber undecided if its client may hold records that a new epoch has cut off,
    /// so that the leaders are asked. It is called before anything is sent to a subscriber, and
    /// before what its client holds is raised, which would hide what was cut off.
    fn check_epochs(&mut self, slot: Slot) {
        let (subscriber, group) = self.subscribers.split(slot);
        let Some(own) = &mut subscriber.own else {
            return;
        };
        if !self.epoch_walk.is_due(own.checked_in) {
            return;
        }
        own.checked_in = self.epoch_walk.number();
        let held = own.progress.as_ref().filter(|held| held.is_private());
        if !held.is_some_and(|held| self.epoch_walk.may_cut_off(&held.cut)) {
            return;
        }
        let waiting = subscriber.place == Place::Waiting;
        self.questions.cancel(subscriber, group);
        self.catch_ups.leave(subscriber);
        let own = subscriber.own();
        let changed = own.source.on_epoch_changed();
        if own.has_no_page() {
            self.pages.release(&mut own.page);
        }
        if changed && (waiting || self.subscribers.leave_idle(slot)) {
            self.subscribers.queue(slot);
        }
    }

    /// Adds a subscriber, which is pending at once, for its first bytes. The shard has written the
    /// HTTP head; the whole body is the feed's. A subscriber of an earlier
    /// exchange in the same slot is removed.
    ///
    /// # Panics
    /// If the encoding is not one of the settings'.
    pub fn subscribe(&mut self, exchange: ExchangeId, request: &Subscribe<'_>, now: Now) {
        assert!(request.encoding < self.settings.encodings.len());
        if let Some(slot) = self.subscribers.find_predecessor(exchange) {
            self.remove(slot);
        }
        self.heartbeats
            .on_subscribe(self.subscribers.len(), now.mono);
        let slow = if self.settings.compacted {
            request.slow
        } else {
            Slow::Disconnect
        };
        if slow == Slow::Conflate {
            self.trail.on_reader();
        }
        let (encoding, newest) = (request.encoding, self.log.newest());
        let slot = self
            .subscribers
            .add(exchange, encoding, request.filter, slow, newest);
        let retry_ms = self.retry_ms();
        self.plan(slot, now, |planner, subscriber, _| {
            planner.open(subscriber, request, retry_ms);
        });
        self.subscribers.queue(slot);
    }

    /// Removes a subscriber. An unknown exchange is ignored.
    pub fn unsubscribe(&mut self, exchange: ExchangeId) {
        if let Some(slot) = self.subscribers.find(exchange) {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: Slot) {
        let (subscriber, group) = self.subscribers.split(slot);
        self.questions.cancel(subscriber, group);
        self.catch_ups.leave(subscriber);
        if let Some(own) = &mut subscriber.own {
            self.pages.release(&mut own.page);
        }
        if self.subscribers.get(slot).slow == Slow::Conflate {
            self.trail.on_reader_left();
        }
        self.subscribers.remove(slot);
    }

    /// The subscriber to deliver to next, in rotation. Call [`Self::deliver`] with it at once.
    #[must_use]
    pub fn next_pending(&mut self) -> Option<ExchangeId> {
        let slot = self.subscribers.pop()?;
        Some(self.subscribers.get(slot).exchange)
    }

    /// Sends what is pending, as much as one offer holds. Does nothing unless
    /// [`Self::next_pending`] has just returned the subscriber.
    pub fn deliver(&mut self, exchange: ExchangeId, sink: &mut impl Sink, now: Now) -> Delivery {
        let Some(slot) = self.subscribers.find(exchange) else {
            return Delivery::Idle;
        };
        if self.subscribers.get(slot).place != Place::Current {
            return Delivery::Idle;
        }
        self.check_epochs(slot);
        let outcome = self.sender(slot, sink).send();
        if let Some(own) = &mut self.subscribers.get_mut(slot).own
            && own.has_no_page()
        {
            self.pages.release(&mut own.page);
        }
        match outcome {
            Outcome::Idle => {
                self.subscribers.get_mut(slot).tidy();
                self.subscribers.go_idle(slot);
                return Delivery::Idle;
            }
            Outcome::Full => {
                let subscriber = self.subscribers.get_mut(slot);
                subscriber.place = Place::Blocked;
                subscriber.heartbeat = false;
                return Delivery::Full;
            }
            Outcome::More => {
                self.subscribers.queue(slot);
                return Delivery::More;
            }
            Outcome::Undecided => {
                self.plan(slot, now, |planner, subscriber, encoding| {
                    planner.resume(subscriber, encoding);
                });
                self.subscribers.queue(slot);
                return Delivery::More;
            }
            Outcome::Lagged => {
                self.counts.lagged += 1;
                self.remove(slot);
                return Delivery::Lagged;
            }
            Outcome::Disconnect => {
                self.remove(slot);
                return Delivery::Failed;
            }
            Outcome::Stalled => {
                self.remove(slot);
                return Delivery::Stalled;
            }
            Outcome::Closed => {
                self.remove(slot);
                return Delivery::Closed;
            }
            Outcome::Waiting => {}
            Outcome::PageSent => {
                let subscriber = self.subscribers.get_mut(slot);
                subscriber.own().source.on_page_sent();
                self.questions.ask(subscriber);
            }
            Outcome::BlockRead(id) => self.catch_ups.on_read(id),
        }
        self.subscribers.get_mut(slot).place = Place::Waiting;
        Delivery::Idle
    }

    fn sender<'a, S: Sink>(&'a mut self, slot: Slot, sink: &'a mut S) -> Sender<'a, S> {
        let (subscriber, group) = self.subscribers.split(slot);
        Sender {
            subscriber,
            group,
            log: &self.log,
            trail: &self.trail,
            catch_ups: &self.catch_ups,
            ids: &mut self.ids,
            scratch: &mut self.scratch,
            counts: &mut self.counts,
            sink,
            compacted: self.settings.compacted,
        }
    }

    /// Plans a subscriber's source, and asks for what the source needs.
    fn plan(
        &mut self,
        slot: Slot,
        now: Now,
        plan: impl FnOnce(&mut Planner<'_>, &mut Subscriber, usize),
    ) {
        let (subscriber, group) = self.subscribers.split(slot);
        let mut planner = Planner {
            settings: &self.settings,
            log: &self.log,
            ids: &mut self.ids,
            counts: &mut self.counts,
            now,
        };
        plan(&mut planner, subscriber, group.encoding as usize);
        if subscriber.own().source.asks() {
            self.questions.ask(subscriber);
        }
    }

    /// The sink can take more: the subscriber is pending again.
    pub fn on_writable(&mut self, exchange: ExchangeId) {
        if let Some(slot) = self.subscribers.find(exchange)
            && self.subscribers.get(slot).place == Place::Blocked
        {
            self.subscribers.queue(slot);
        }
    }

    /// What a subscriber needs from outside. Call it until it returns `None`.
    #[must_use]
    pub fn next_need(&mut self) -> Option<Need> {
        loop {
            let question = match self.questions.next()? {
                Pending::Ask(question) => question,
                Pending::Cancel(cancel) => return Some(cancel),
            };
            let Some(slot) = self.asker(question) else {
                continue;
            };
            let group = self.subscribers.group(slot);
            let own = self.subscribers.get(slot).own.as_ref();
            let need = own.and_then(|own| need_of(question, own, group, &self.log));
            if need.is_some() {
                return need;
            }
        }
    }

    /// The page that has waited longest for memory. Call it only while the shard has `bytes`, the
    /// most that a page may take: they count from now on.
    #[must_use]
    pub fn next_page(&mut self, bytes: usize) -> Option<Need> {
        loop {
            let question = self.questions.next_page()?;
            let Some(slot) = self.asker(question) else {
                continue;
            };
            let (subscriber, group) = self.subscribers.split(slot);
            let own = subscriber.own();
            if let Some(need) = need_of(question, own, group, &self.log) {
                self.pages.reserve(&mut own.page, bytes);
                return Some(need);
            }
        }
    }

    /// How many subscribers wait for memory for their next page.
    #[must_use]
    pub fn pages_waiting(&self) -> usize {
        self.questions.pages_waiting()
    }

    /// Memory that pages of *changes* take: those that were asked for, and those that sockets have
    /// not taken.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        self.pages.bytes()
    }

    /// Ends streams whose sockets have not taken a page within [`super::PAGE_PATIENCE`]. Their
    /// pages are freed at once, and [`Self::deliver`] returns [`Delivery::Stalled`] for each. Call
    /// it while other streams wait for memory.
    pub fn end_overdue_pages(&mut self, now: Instant) {
        while let Some(exchange) = self.pages.overdue(now) {
            let slot = self.subscribers.find(exchange);
            let slot = slot.expect("a subscriber that leaves releases its page");
            let subscriber = self.subscribers.get_mut(slot);
            let own = subscriber.own();
            own.source.on_page_overdue();
            own.unsent = Unsent::default();
            self.pages.release(&mut own.page);
            if subscriber.place == Place::Blocked {
                self.subscribers.queue(slot);
            }
        }
    }

    /// The subscriber that waits for the answer to a question. `None` if it has left, or asks
    /// another question now.
    fn asker(&mut self, question: StreamQuestion) -> Option<Slot> {
        let slot = self.subscribers.find(question.exchange)?;
        let own = self.subscribers.get(slot).own.as_ref()?;
        if own.question != question.number {
            return None;
        }
        self.check_epochs(slot);
        Some(slot)
    }

    /// The leaders have said where the log still has what a client holds: `ends` names the
    /// partitions where the client holds more. `None`: they could not be asked in time, so the
    /// client is disconnected.
    pub fn on_epochs_checked(
        &mut self,
        question: StreamQuestion,
        ends: Option<&[(Partition, Next)]>,
        now: Now,
    ) {
        let Some(slot) = self.asker(question) else {
            return;
        };
        let source = &mut self.subscribers.get_mut(slot).own().source;
        match ends {
            None => {
                source.on_epoch_check_failed();
            }
            Some(ends) => {
                if !source.on_epochs_checked() {
                    return;
                }
                self.plan(slot, now, |planner, subscriber, encoding| {
                    planner.resume_checked(subscriber, encoding, ends);
                });
            }
        }
        self.subscribers.wake_waiting(slot);
    }

    /// A page of *changes*. `next`: where the page after it starts; `None` if it is the last.
    /// Entries outside the bounds that were asked for are left out.
    pub fn on_page<'a>(
        &mut self,
        question: StreamQuestion,
        entries: impl Iterator<Item = PageEntry<'a>>,
        next: Option<PageCursor>,
        now: Instant,
    ) {
        let Some(slot) = self.asker(question) else {
            return;
        };
        let (subscriber, group) = self.subscribers.split(slot);
        let mut writer = PageWriter {
            encoding: &self.settings.encodings[group.encoding as usize],
            ids: &mut self.ids,
            counts: &mut self.counts,
            position_events: self.settings.position_events,
        };
        if writer.put(subscriber, entries, next) {
            let exchange = subscriber.exchange;
            let own = subscriber.own();
            let bytes = own.unsent.bytes_held();
            self.pages.on_page(&mut own.page, exchange, bytes, now);
            self.subscribers.wake_waiting(slot);
        }
    }

    /// A slice does not have every value of a page. The client is disconnected: an incomplete page
    /// must not look like a complete one.
    pub fn on_page_failed(&mut self, question: StreamQuestion) {
        if let Some(slot) = self.asker(question) {
            self.subscribers.get_mut(slot).own().source.on_page_failed();
            self.subscribers.wake_waiting(slot);
        }
    }

    /// Sends gaps for undecodable ranges of the log within the bounds of *changes*. Call it with
    /// the last page, before [`Self::on_page`]. The gaps carry the client's present id, so that a
    /// client that disconnects before the last page receives them again.
    pub fn on_page_gaps(&mut self, question: StreamQuestion, undecodable: &[OffsetRange]) {
        let Some(slot) = self.asker(question) else {
            return;
        };
        let (subscriber, group) = self.subscribers.split(slot);
        let mut writer = PageWriter {
            encoding: &self.settings.encodings[group.encoding as usize],
            ids: &mut self.ids,
            counts: &mut self.counts,
            position_events: self.settings.position_events,
        };
        writer.put_gaps(subscriber.own(), undecodable);
    }

    /// Sends a gap to one client. It continues at the gap's end.
    fn skip(&mut self, slot: Slot, notice: Notice) {
        self.counts.gaps += 1;
        let own = self.subscribers.get_mut(slot).own();
        own.skip(notice, &mut self.ids);
        self.subscribers.wake_waiting(slot);
    }

    /// A catch-up read starts, at the lowest of what these subscribers hold. They are its members.
    /// What a client lacks below `log_start` is sent as gaps.
    pub fn on_catch_up_joined(
        &mut self,
        id: CatchUpId,
        members: &[StreamQuestion],
        log_start: &Cut,
    ) {
        let mut joined = Vec::with_capacity(members.len());
        for &question in members {
            let Some(slot) = self.asker(question) else {
                continue;
            };
            if !self.subscribers.get_mut(slot).own().source.on_joined(id) {
                continue;
            }
            joined.push(slot);
            for (partition, start) in log_start.iter() {
                let own = self.subscribers.get_mut(slot).own();
                let (from, to) = (own.progress().cut.get(partition).offset, start.offset);
                if from < to {
                    let reason = GapReason::Retention;
                    self.skip(
                        slot,
                        Notice {
                            partition,
                            from,
                            to,
                            reason,
                        },
                    );
                }
            }
        }
        self.catch_ups.on_start(id, joined);
    }

    /// The next block of a catch-up read, for all its members here. A member that has not read the
    /// whole block before leaves.
    pub fn on_catch_up_block(&mut self, id: CatchUpId, block: &Arc<Block>, now: Instant) {
        let patience = now.after(self.settings.catch_up_patience);
        self.catch_ups
            .on_block(id, block, patience, &mut self.subscribers);
    }

    /// What a catch-up read was to bring next, but the log no longer has or can't show. Members
    /// that lack some of it are sent a gap. A member that has not read the whole block before
    /// leaves.
    pub fn on_catch_up_gap(&mut self, id: CatchUpId, notice: Notice) {
        self.check_members(id);
        for slot in self.catch_ups.members_in_step(id, &mut self.subscribers) {
            let own = self.subscribers.get_mut(slot).own();
            let held = own.progress().cut.get(notice.partition).offset;
            if held < notice.to {
                let from = held.max(notice.from);
                self.skip(slot, Notice { from, ..notice });
            }
        }
    }

    /// A catch-up read has met the home's order: its members continue after step `seq`, which led
    /// to `cut`. Call it once that step is applied.
    pub fn on_catch_up_end(&mut self, id: CatchUpId, seq: Seq, cut: &Cut) {
        debug_assert!(seq <= self.log.newest(), "the end comes after its step");
        self.check_members(id);
        self.catch_ups.on_end(id, seq, cut, &mut self.subscribers);
    }

    /// Checks the members of a catch-up read that the walk over epochs has not reached.
    fn check_members(&mut self, id: CatchUpId) {
        if self.epoch_walk.is_walking() {
            for slot in self.catch_ups.members(id, &self.subscribers) {
                self.check_epochs(slot);
            }
        }
    }

    /// A catch-up read ended before it met the home's order: its members continue from what their
    /// clients hold.
    pub fn on_catch_up_stalled(&mut self, id: CatchUpId) {
        self.catch_ups.on_stalled(id, &mut self.subscribers);
    }

    /// The next catch-up read of which the home may send another block: its members here have read
    /// the last one, or the home has waited long enough.
    #[must_use]
    pub fn next_credit(&mut self) -> Option<Credit> {
        self.catch_ups.next_credit()
    }

    /// Makes due heartbeats pending, gives credit for catch-up reads that have waited long enough,
    /// and continues the walk over epochs. Bounded work; [`Self::next_deadline`] says when to call
    /// it again.
    pub fn on_timeout(&mut self, now: Instant) {
        self.catch_ups.on_timeout(now);
        self.walk_epochs();
        if self.is_empty() {
            return;
        }
        for _ in 0..HEARTBEAT_SLOTS_MAX {
            let Some(slot) = self.heartbeats.next(self.subscribers.slots(), now) else {
                return;
            };
            if self.subscribers.leave_idle(slot) {
                self.subscribers.get_mut(slot).cursor = Cursor::after(self.log.newest());
            } else if self.subscribers.get(slot).place != Place::Waiting {
                continue; // It is being sent something, or its sink is full.
            }
            self.subscribers.get_mut(slot).heartbeat = true;
            self.subscribers.queue(slot);
        }
    }

    /// When [`Self::on_timeout`] next has work.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let heartbeat =
            (!self.is_empty()).then(|| self.heartbeats.next_deadline(self.subscribers.slots()));
        let walk = self.epoch_walk.is_walking().then_some(Instant::ZERO);
        let waits = self.catch_ups.next_deadline();
        heartbeat.into_iter().chain(walk).chain(waits).min()
    }

    /// Whether a subscriber is pending.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.subscribers.has_pending()
    }

    /// Whether another turn is due: a subscriber is pending, or something must be asked or sent
    /// outside.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.has_pending()
            || !self.questions.is_empty()
            || self.questions.pages_waiting() > 0
            || self.catch_ups.has_credit()
    }

    /// How many subscribers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether there are no subscribers.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.subscribers.len() == 0
    }

    /// What the feed has done so far.
    #[must_use]
    pub const fn counts(&self) -> FeedCounts {
        self.counts
    }

    /// For tests that answer at once.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<StreamQuestion> {
        self.questions.asked()
    }

    /// What `retry:` says: the setting give or take a half, so that clients do not reconnect
    /// together.
    fn retry_ms(&mut self) -> u64 {
        let base = u64::try_from(self.settings.retry.as_millis()).unwrap_or(u64::MAX);
        base / 2 + self.random.below(base.max(1))
    }
}

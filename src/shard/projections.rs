//! The projections of a shard: of each topic, the slice of keys that the shard owns and the streams
//! that it serves. Every shard applies the same steps in the same order, so one number names the
//! state of a projection: the seq of the last step applied. A request that names a later seq waits
//! until that step is applied.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Slice, SliceSettings};
use crate::log::{Cut, Step};
use crate::metrics::{Check, CheckState};
use crate::model::{ExchangeId, Instant, Now, ShardId, u16_of};
use crate::route::{Failure, Refused};
use crate::sse::{CatchUpId, Feed, FeedSettings};

use super::active::{ActiveSet, Deadlines};
use super::deferred::{Deferred, DeferredRequests, StepPlace, changed};
use super::message::{Blocked, EdgeMessage, FeedMessage, Incarnation, Standing};
use super::outbox::Outbox;
use super::page_memory::{PAGE_BYTES_MAX, PageMemory};
use super::projection::{PageContext, Projection};
use super::snapshot::{Snapshot, TopicId};
use super::topic_feed::Route;

/// How long a catch-up read waits for its slowest member before it continues without it.
const CATCH_UP_PATIENCE: Duration = Duration::from_millis(100);

/// Waits that one turn ends at their deadline.
const WAITS_ENDED_MAX: usize = 256;

/// Every topic of the snapshot on this shard.
#[derive(Debug)]
pub(super) struct Projections {
    me: ShardId,
    snapshot: Arc<Snapshot>,
    seed: u64,
    topics: Vec<Option<Projection>>,
    /// By topic: the state that its home reported.
    standing: Vec<Standing>,
    /// Requests of exchanges and streams, on any shard, that name a seq of a topic.
    deferred: DeferredRequests,
    pages: PageMemory,
    attention: Attention,
}

/// The topics that need attention, by their index. All others cost a turn nothing.
#[derive(Debug, Default)]
struct Attention {
    /// Topics whose streams may need something, or whose deadline may have changed.
    changed: ActiveSet,
    /// Topics of which the home does not know what is applied here.
    unreported: ActiveSet,
    /// Topics with events to send to streams.
    pending: ActiveSet,
    /// Deadlines of streams and tombstones.
    deadlines: Deadlines,
}

impl Projections {
    pub(super) fn new(me: ShardId, snapshot: Arc<Snapshot>, seed: u64) -> Self {
        let topics = (0..snapshot.topics.end()).map(|_| None).collect();
        let standing = vec![Standing::default(); snapshot.topics.end()];
        // An exchange has at most one request here, and a topic usually at most one catch-up read
        // that ends. More may come while cancellations are on their way, or while this shard is
        // behind several ends. They are rejected: a page fails, a catch-up read counts as stalled.
        let connections_max = snapshot.config.settings.http.connections_max;
        let deferred = DeferredRequests::new(connections_max + snapshot.topics.end());
        let pages = PageMemory::new(snapshot.work.pages_bytes_max);
        Self {
            me,
            snapshot,
            seed,
            topics,
            standing,
            deferred,
            pages,
            attention: Attention::default(),
        }
    }

    /// Takes over a snapshot with the same topics.
    pub(super) fn load(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The home reports the state of a topic.
    pub(super) fn on_standing(&mut self, topic: TopicId, standing: Standing) {
        self.standing[usize::from(topic.0)] = standing;
    }

    /// Why a topic that is not live can't be used.
    pub(super) fn not_live(&self, topic: TopicId) -> Failure {
        match self.standing[usize::from(topic.0)].blocked {
            Some(_) => Failure::TopicUnavailable,
            None => Failure::NotReady,
        }
    }

    /// The same as [`Self::not_live`], with its cause.
    pub(super) fn why_not_live(&self, topic: TopicId) -> Refused {
        let blocked = self.standing[usize::from(topic.0)].blocked;
        blocked.map_or_else(|| Failure::NotReady.into(), Blocked::refused)
    }

    /// Seconds since the brokers last confirmed all of a topic, if that is longer than usual
    /// (`Age`, RFC 9111 5.1).
    pub(super) fn age(&self, topic: TopicId, now: Instant) -> Option<u64> {
        let since = self.standing[usize::from(topic.0)].stale_since?;
        Some(now.since(since).as_secs())
    }

    /// Whether the topic has more partitions than when its incarnation began.
    pub(super) fn has_grown(&self, topic: TopicId) -> bool {
        self.standing[usize::from(topic.0)].grown
    }

    /// Whether any slice of the topic, on any shard, is known to be full.
    pub(super) fn is_full(&self, topic: TopicId) -> bool {
        self.standing[usize::from(topic.0)].full
    }

    /// One check per topic: whether this shard has what it serves. A home that is ready may be
    /// ahead of its projections.
    pub(super) fn checks(&self) -> impl Iterator<Item = Check> + '_ {
        let serves = self.me >= self.snapshot.layout.first_slice();
        let shared = self
            .snapshot
            .indexed()
            .filter(move |(_, plan)| serves && plan.is_shared());
        shared.map(|(topic, plan)| {
            let ok = self.get(topic).is_some_and(Projection::is_live);
            let state = if ok {
                CheckState::Ready
            } else {
                CheckState::Loading
            };
            // The home's check of the topic has the details.
            Check::new(self.snapshot.topic_name(plan), state, "")
        })
    }

    /// Every topic that has begun to load.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (TopicId, &Projection)> {
        let topics = self.topics.iter().enumerate();
        topics.filter_map(|(i, projection)| Some((TopicId(u16_of(i)), projection.as_ref()?)))
    }

    /// A topic, once it has begun to load.
    pub(super) fn get(&self, topic: TopicId) -> Option<&Projection> {
        self.topics[usize::from(topic.0)].as_ref()
    }

    /// The same, mutable. The topic is visited in this turn.
    pub(super) fn get_mut(&mut self, topic: TopicId) -> Option<&mut Projection> {
        self.attention.changed.insert(usize::from(topic.0));
        self.topics[usize::from(topic.0)].as_mut()
    }

    /// The streams of a topic, once it is live.
    pub(super) fn feed_mut(&mut self, topic: TopicId) -> Option<&mut Feed> {
        self.get_mut(topic)?.feed_mut()
    }

    /// A message to the streams of a topic.
    pub(super) fn on_feed_message(
        &mut self,
        topic: TopicId,
        message: FeedMessage,
        now: Now,
        out: &mut Outbox,
    ) {
        if let FeedMessage::CatchUpEnd {
            incarnation,
            catch_up,
            seq,
            cut,
        } = message
        {
            // The streams continue in the window after this step, which may not be applied yet.
            let patience = self.snapshot.config.settings.http.query_timeout;
            let deadline = now.mono.after(patience);
            let end = Deferred::CatchUpEnd(topic, catch_up, seq, cut);
            return self.answer_at(topic, (incarnation, seq), deadline, end, out);
        }
        if let Some(projection) = self.get_mut(topic) {
            projection.on_feed_message(message, now);
        }
    }

    /// Handles deadlines: ends waits, and visits the topics that are due. Returns true if more
    /// waits or tombstones are due, so that another turn is due.
    #[must_use = "a quiet shard turns twice a second"]
    pub(super) fn on_time(&mut self, now: Now, out: &mut Outbox) -> bool {
        let mut more = self.end_waits(now.mono, out);
        self.end_overdue_pages(now.mono);
        let Attention {
            changed, deadlines, ..
        } = &mut self.attention;
        deadlines.expire(now.mono, changed);
        for _ in 0..self.attention.changed.len() {
            let Some(place) = self.attention.changed.pop() else {
                break;
            };
            let projection = self.topics[place].as_mut();
            if projection.is_some_and(|it| it.expire(now, &mut more)) {
                self.attention.unreported.insert(place);
            }
            self.visit(place, now.mono, out);
        }
        more
    }

    /// While streams wait for memory, ends those whose sockets have had a page for too long.
    fn end_overdue_pages(&mut self, now: Instant) {
        for place in self.pages.check(now) {
            let projection = self.topics[place].as_mut();
            if let Some(feed) = projection.and_then(Projection::feed_mut) {
                feed.end_overdue_pages(now);
                self.attention.changed.insert(place);
            }
        }
    }

    /// Visits the topics that were changed: sends what their streams need.
    pub(super) fn pump_feeds(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(place) = self.attention.changed.pop() {
            self.visit(place, now, out);
        }
        // Only now is it known how much memory this turn has freed.
        while let Some(place) = self.pages.next_topic() {
            let projection = self.topics[place].as_mut();
            if let Some(feed) = projection.and_then(Projection::topic_feed_mut) {
                feed.ask_page(PAGE_BYTES_MAX, now, out);
                self.pages.recount(place, feed);
            }
        }
        self.pages.plan_check(now);
    }

    fn visit(&mut self, place: usize, now: Instant, out: &mut Outbox) {
        let Some(projection) = &mut self.topics[place] else {
            return self.attention.deadlines.set(place, None);
        };
        if let Some(feed) = projection.topic_feed_mut() {
            feed.pump(now, out);
            self.pages.recount(place, feed);
            if feed.feed().has_pending() {
                self.attention.pending.insert(place);
            }
        }
        let next = projection.next_deadline();
        self.attention.deadlines.set(place, next);
    }

    /// What pages of *changes* take, and how many streams wait for memory for one.
    pub(super) fn pages(&self) -> (usize, usize) {
        let feeds = self
            .indexed()
            .filter_map(|(_, projection)| projection.feed());
        (self.pages.used(), feeds.map(Feed::pages_waiting).sum())
    }

    /// How many topics have events to send. [`Self::next_pending`] returns each of them.
    pub(super) fn pending(&self) -> usize {
        self.attention.pending.len()
    }

    pub(super) fn next_pending(&mut self) -> Option<TopicId> {
        let place = self.attention.pending.pop()?;
        Some(TopicId(u16_of(place)))
    }

    /// Moves a topic to the end of the queue if its streams were not served completely.
    pub(super) fn still_pending(&mut self, topic: TopicId) {
        self.attention.pending.insert(usize::from(topic.0));
    }

    /// The next topic of which the home does not know what is applied here.
    pub(super) fn next_unreported(&mut self) -> Option<(TopicId, &mut Projection)> {
        let place = self.attention.unreported.pop()?;
        let projection = self.topics[place].as_mut();
        let projection = projection.expect("an open topic stays open");
        Some((TopicId(u16_of(place)), projection))
    }

    /// Whether another turn has something to do at once.
    pub(super) fn has_work(&self) -> bool {
        let Attention {
            changed, pending, ..
        } = &self.attention;
        let feed = |place: usize| self.topics[place].as_ref()?.feed();
        // A topic that was changed may have freed memory that another one waits for.
        let frees = !changed.is_empty() && self.pages.is_waited_for();
        let answers = self.has_answers() || frees;
        answers || !pending.is_empty() || changed.iter().filter_map(feed).any(Feed::has_work)
    }

    /// An exchange has ended: what it waits for is dropped.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.deferred.cancel(exchange);
    }

    /// An incarnation of the topic begins. Returns true if it replaces another, whose streams must
    /// end.
    pub(super) fn on_open(&mut self, topic: TopicId, incarnation: Arc<Incarnation>) -> bool {
        let slice = incarnation
            .cached
            .then(|| Slice::new(self.slice_settings(topic, &incarnation)));
        let index = usize::from(topic.0);
        let past = self.topics[index].as_ref().map(Projection::counted);
        let projection = Projection::new(incarnation, slice, past.unwrap_or_default());
        // What waits for an earlier incarnation is rejected by `answer_next`.
        self.deferred.on_applied(topic, projection.place());
        self.attention.changed.insert(index);
        let mut before = self.topics[index].replace(projection);
        if let Some(feed) = before.as_mut().and_then(Projection::topic_feed_mut) {
            self.pages.release(index, feed);
        }
        before.is_some()
    }

    fn slice_settings(&self, topic: TopicId, incarnation: &Incarnation) -> SliceSettings {
        let config = &self.snapshot.config;
        let layout = self.snapshot.layout;
        SliceSettings {
            me: self.me,
            first: layout.first_slice(),
            slices: layout.slices(),
            bytes_max: config.settings.cache.bytes_max / usize::from(layout.slices()),
            tag: incarnation.tag,
            etag_header: config.headers.etag.as_str().into(),
            tombstone_keep: Duration::from_millis(incarnation.delete_retention_ms),
            listed: self.snapshot.topic(topic).listed,
        }
    }

    /// Applies a step. Requests that waited for it are answered by [`Self::answer_next`]. Returns
    /// false if the topic is not open.
    pub(super) fn apply(&mut self, topic: TopicId, step: &Arc<Step>, now: Now) -> bool {
        let place = usize::from(topic.0);
        let Some(projection) = &mut self.topics[place] else {
            return false;
        };
        projection.apply(step, now);
        self.attention.changed.insert(place);
        self.attention.unreported.insert(place);
        self.deferred.on_applied(topic, projection.place());
        true
    }

    /// Answers a request once its topic is at `place`: by [`Self::answer_next`], in this turn if
    /// that is now.
    pub(super) fn answer_at(
        &mut self,
        topic: TopicId,
        place: StepPlace,
        deadline: Instant,
        request: Deferred,
        out: &mut Outbox,
    ) {
        let index = usize::from(topic.0);
        let reached = match &self.topics[index] {
            Some(projection) if projection.incarnation.number == place.0 => projection.place(),
            // A seq of another incarnation would never come, or mean something else.
            _ => return self.reject(request, out),
        };
        match self.deferred.insert(topic, place, deadline, request) {
            Ok(()) => self.deferred.on_applied(topic, reached),
            Err(request) => self.reject(request, out),
        }
    }

    /// Whether [`Self::answer_next`] has work.
    pub(super) fn has_answers(&self) -> bool {
        self.deferred.has_met()
    }

    /// Answers one of the requests whose seq is applied, topic by topic.
    pub(super) fn answer_next(&mut self, out: &mut Outbox) {
        let Some(topic) = self.deferred.next_topic() else {
            return;
        };
        let following = ShardId(self.me.0 + 1);
        let pages = PageContext {
            me: self.me,
            following: (following.0 < self.snapshot.layout.shards).then_some(following),
            limits: self.snapshot.work.page(),
        };
        let index = usize::from(topic.0);
        let Some(projection) = &mut self.topics[index] else {
            return;
        };
        let Some((incarnation, request)) = self.deferred.next_met(topic, projection.place()) else {
            return;
        };
        if incarnation == projection.incarnation.number {
            self.attention.changed.insert(index);
            projection.answer(request, pages, out);
        } else {
            self.reject(request, out);
        }
    }

    /// Ends waits whose deadline has passed. Returns true if more are due.
    fn end_waits(&mut self, now: Instant, out: &mut Outbox) -> bool {
        for _ in 0..WAITS_ENDED_MAX {
            let Some(request) = self.deferred.next_expired(now) else {
                return false;
            };
            self.reject(request, out);
        }
        self.deferred.next_deadline().is_some_and(|at| at <= now)
    }

    /// Ends a wait without an answer.
    fn reject(&mut self, request: Deferred, out: &mut Outbox) {
        match request {
            Deferred::Scan(exchange, _) => out.to_edge(exchange, EdgeMessage::Scanned(None)),
            Deferred::Changes(topic, request) => changed(topic, request.question, None, out),
            // The home sends its members nothing more, so they must look for another one.
            Deferred::CatchUpEnd(topic, catch_up, ..) => {
                if let Some(feed) = self.feed_mut(topic) {
                    feed.on_catch_up_stalled(CatchUpId(catch_up));
                }
            }
        }
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let Attention {
            changed, deadlines, ..
        } = &self.attention;
        let of = |place: usize| self.topics[place].as_ref()?.next_deadline();
        let all = changed.iter().filter_map(of).chain(deadlines.next());
        let all = all.chain(self.pages.next_check());
        all.chain(self.deferred.next_deadline()).min()
    }

    /// The end of the log is reached: queries and streams may use the topic.
    pub(super) fn on_live(&mut self, topic: TopicId, log_start: Cut) {
        let plan = self.snapshot.topic(topic);
        let settings = &self.snapshot.config.settings.streams;
        self.attention.changed.insert(usize::from(topic.0));
        let projection = self.topics[usize::from(topic.0)]
            .as_mut()
            .expect("it opened before");
        projection.go_live();
        if !projection.incarnation.streamed {
            return;
        }
        let incarnation = &projection.incarnation;
        let feed = FeedSettings {
            tag: incarnation.tag,
            encodings: plan.encodings.clone(),
            compacted: incarnation.compacted,
            delete_retention: Duration::from_millis(incarnation.delete_retention_ms),
            log_start,
            heartbeat: settings.heartbeat,
            retry: settings.retry,
            position_events: settings.position_events,
            catch_up_patience: CATCH_UP_PATIENCE,
            seed: self.seed,
        };
        let route = Route {
            topic,
            incarnation: incarnation.number,
            home: plan.home,
            layout: self.snapshot.layout,
            page_timeout: self.snapshot.config.settings.http.query_timeout,
        };
        projection.open_feed(feed, route);
    }
}

#[cfg(test)]
#[path = "projections_tests.rs"]
mod tests;

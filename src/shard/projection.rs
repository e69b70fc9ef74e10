//! The projections of a shard: of each topic, the slice of keys that the shard owns and the streams
//! that it serves. Every shard applies the same steps in the same order, so one number names the
//! state of a projection: the seq of the last step applied. A request that names a later seq waits
//! until that step is applied.

use std::hash::Hasher as _;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{
    ChangeCursor, Changes, Gaps, Lookup, Page, PageLimits, Slice, SliceSettings, Value,
};
use crate::log::{Cut, OffsetRange, Seq, Step};
use crate::metrics::{Check, CheckState};
use crate::model::{
    Etag, ExchangeId, Instant, KeyHash, Now, Offset, Partition, ShardId, UnixMillis,
};
use crate::route::{Failure, Refused};
use crate::sse::{CatchUpId, Feed, FeedSettings, StreamQuestion};

use super::active::{ActiveSet, Deadlines};
use super::message::{
    Blocked, ChangesPiece, ChangesRequest, EdgeMessage, FeedMessage, Found, Incarnation,
    ProjectionMessage, Standing,
};
use super::outbox::Outbox;
use super::snapshot::{Layout, Snapshot, TopicId};
use super::topic_feed::{Route, TopicFeed};
use super::wait_queue::WaitQueue;

/// The longest wait for the tombstone that expires first. Tombstones expire by the wall clock, and
/// that may be set while the shard waits.
const WALL_CHECK_EVERY: Duration = Duration::from_secs(60);

/// How long a catch-up read waits for its slowest member before it continues without it.
const CATCH_UP_PATIENCE: Duration = Duration::from_millis(100);

/// The projection of one topic on this shard.
#[derive(Debug)]
pub(super) struct Projection {
    /// Counters of the topic's earlier incarnations.
    past: Counted,
    pub(super) incarnation: Arc<Incarnation>,
    slice: Option<Slice>,
    /// The streams, once the topic is live and if it has any.
    feed: Option<TopicFeed>,
    seq: Seq,
    cut: Cut,
    time: UnixMillis,
    live: bool,
    /// The last step that the home knows to be applied here.
    reported: Seq,
    /// The slice's gaps that the home knows.
    reported_gaps: Gaps,
    /// When the slice next drops tombstones; `None`: it has none.
    expire_at: Option<Instant>,
}

/// Counters of a topic on this shard. They only grow, over all its incarnations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// Events written, over all streams of the topic.
    pub(super) events: u64,
    /// Gaps sent to single streams.
    pub(super) gaps: u64,
    /// Records of keys that found no room in the slice.
    pub(super) keys_refused: u64,
}

/// A request that a projection can answer once it has applied a seq.
#[derive(Debug)]
pub(super) enum Deferred {
    /// A piece of a collection.
    Scan(ExchangeId, Option<(KeyHash, Box<[u8]>)>),
    /// A piece of *changes* for a stream of the topic.
    Changes(TopicId, Box<ChangesRequest>),
    /// The end of a catch-up read.
    CatchUpEnd(TopicId, u32, Seq, Cut),
}

/// The owner of a deferred request. Each owner has at most one request at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DeferredFor {
    Exchange(ExchangeId),
    CatchUp(TopicId, u32),
}

/// Every topic of the snapshot on this shard.
#[derive(Debug)]
pub(super) struct Projections {
    me: ShardId,
    snapshot: Arc<Snapshot>,
    seed: u64,
    topics: Vec<Option<Projection>>,
    /// By topic: the state that its home reported.
    standing: Vec<Standing>,
    /// Requests that name a seq of a topic's present incarnation that is not applied yet.
    deferred: WaitQueue<DeferredFor, (TopicId, Seq), Deferred>,
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
        // An exchange has at most one request here, and a topic at most one running catch-up read.
        let connections_max = snapshot.config.settings.http.connections_max;
        let deferred = WaitQueue::new(connections_max + snapshot.topics.end());
        Self {
            me,
            snapshot,
            seed,
            topics,
            standing,
            deferred,
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
        topics.filter_map(|(i, projection)| Some((TopicId(i as u16), projection.as_ref()?)))
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
    /// tombstones are due, so that another turn is due.
    #[must_use = "a quiet shard turns twice a second"]
    pub(super) fn on_time(&mut self, now: Now, out: &mut Outbox) -> bool {
        self.end_waits(now.mono, out);
        let Attention {
            changed, deadlines, ..
        } = &mut self.attention;
        deadlines.expire(now.mono, changed);
        let mut more = false;
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

    /// Visits the topics that were changed: sends what their streams need.
    pub(super) fn pump_feeds(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(place) = self.attention.changed.pop() {
            self.visit(place, now, out);
        }
    }

    fn visit(&mut self, place: usize, now: Instant, out: &mut Outbox) {
        let Some(projection) = &mut self.topics[place] else {
            return self.attention.deadlines.set(place, None);
        };
        if let Some(feed) = &mut projection.feed {
            feed.pump(now, out);
            if feed.feed().has_work() {
                self.attention.pending.insert(place);
            }
        }
        let next = projection.next_deadline();
        self.attention.deadlines.set(place, next);
    }

    /// How many topics have events to send. [`Self::next_pending`] returns each of them.
    pub(super) fn pending(&self) -> usize {
        self.attention.pending.len()
    }

    pub(super) fn next_pending(&mut self) -> Option<TopicId> {
        let place = self.attention.pending.pop()?;
        Some(TopicId(place as u16))
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
        Some((TopicId(place as u16), projection))
    }

    /// Whether another turn has something to do at once.
    pub(super) fn has_work(&self) -> bool {
        let Attention {
            changed, pending, ..
        } = &self.attention;
        let feed = |place: usize| self.topics[place].as_ref()?.feed();
        !pending.is_empty() || changed.iter().filter_map(feed).any(Feed::has_work)
    }

    /// An exchange has ended: what it waits for is dropped.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.deferred.cancel(DeferredFor::Exchange(exchange));
    }

    /// An incarnation of the topic begins. Returns true if it replaces another, whose streams must
    /// end.
    pub(super) fn on_open(
        &mut self,
        topic: TopicId,
        incarnation: Arc<Incarnation>,
        out: &mut Outbox,
    ) -> bool {
        let settings = &self.snapshot.config.settings;
        let layout = self.snapshot.layout;
        let slice = incarnation.cached.then(|| {
            let bytes_max = settings.cache.bytes_max / usize::from(layout.slices());
            Slice::new(SliceSettings {
                me: self.me,
                first: layout.first_slice(),
                slices: layout.slices(),
                bytes_max,
                tag: incarnation.tag,
                etag_header: self.snapshot.config.headers.etag.as_str().into(),
                tombstone_keep: std::time::Duration::from_millis(incarnation.delete_retention_ms),
                listed: self.snapshot.topic(topic).listed,
            })
        });
        let index = usize::from(topic.0);
        let (seq, cut, time) = (Seq(0), Cut::start(), UnixMillis(0));
        let (feed, live, reported) = (None, false, Seq(0));
        let past = self.topics[index].as_ref().map(Projection::counted);
        let (past, reported_gaps) = (past.unwrap_or_default(), Gaps::default());
        let projection = Projection {
            past,
            incarnation,
            slice,
            feed,
            seq,
            cut,
            time,
            live,
            reported,
            reported_gaps,
            expire_at: None,
        };
        while let Some(request) = self.deferred.next_met(&all_seqs(topic)) {
            request.reject(out);
        }
        self.attention.changed.insert(index);
        self.topics[index].replace(projection).is_some()
    }

    /// Applies a step and answers the requests that waited for it. Returns false if the topic is
    /// not open.
    pub(super) fn apply(
        &mut self,
        topic: TopicId,
        step: &Arc<Step>,
        now: Now,
        out: &mut Outbox,
    ) -> bool {
        let (me, layout) = (self.me, self.snapshot.layout);
        let place = usize::from(topic.0);
        let Some(projection) = &mut self.topics[place] else {
            return false;
        };
        projection.apply(step, now);
        self.attention.changed.insert(place);
        self.attention.unreported.insert(place);
        let applied = (topic, Seq(0))..=(topic, step.seq);
        while let Some(request) = self.deferred.next_met(&applied) {
            projection.answer(me, layout, request, out);
        }
        true
    }

    /// Answers a request once its seq is applied, which may be now.
    pub(super) fn answer_at(
        &mut self,
        topic: TopicId,
        (incarnation, seq): (u32, Seq),
        deadline: Instant,
        request: Deferred,
        out: &mut Outbox,
    ) {
        let (me, layout) = (self.me, self.snapshot.layout);
        let place = usize::from(topic.0);
        self.attention.changed.insert(place);
        match &mut self.topics[place] {
            Some(projection) if projection.incarnation.number == incarnation => {
                if seq <= projection.seq {
                    return projection.answer(me, layout, request, out);
                }
                let of = request.belongs_to();
                let inserted = self.deferred.insert(of, (topic, seq), deadline, request);
                if let Err(request) = inserted {
                    request.reject(out);
                }
            }
            // A seq of another incarnation would never come, or mean something else.
            _ => request.reject(out),
        }
    }

    /// Ends the waits whose deadline has passed.
    fn end_waits(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(request) = self.deferred.next_expired(now) {
            if let Deferred::CatchUpEnd(topic, catch_up, ..) = request
                && let Some(feed) = self.feed_mut(topic)
            {
                feed.on_catch_up_stalled(CatchUpId(catch_up));
            }
            request.reject(out);
        }
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let Attention {
            changed, deadlines, ..
        } = &self.attention;
        let of = |place: usize| self.topics[place].as_ref()?.next_deadline();
        let all = changed.iter().filter_map(of).chain(deadlines.next());
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
        projection.live = true;
        if !projection.incarnation.streamed {
            return;
        }
        let incarnation = &projection.incarnation;
        let feed = FeedSettings {
            tag: incarnation.tag,
            encodings: plan.encodings.clone(),
            compacted: incarnation.compacted,
            delete_retention: std::time::Duration::from_millis(incarnation.delete_retention_ms),
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
        projection.feed = Some(TopicFeed::new(
            feed,
            route,
            projection.seq,
            projection.cut.clone(),
            projection.time,
        ));
    }
}

impl Projection {
    /// The counters, over all incarnations.
    pub(super) fn counted(&self) -> Counted {
        let counts = self.feed().map(Feed::counts).unwrap_or_default();
        let stats = self.slice.as_ref().map(Slice::stats).unwrap_or_default();
        Counted {
            events: self.past.events + counts.events(),
            gaps: self.past.gaps + counts.gaps,
            keys_refused: self.past.keys_refused + stats.keys_refused,
        }
    }

    /// The streams, once the topic is live and if it has any.
    pub(super) fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref().map(TopicFeed::feed)
    }

    pub(super) fn feed_mut(&mut self) -> Option<&mut Feed> {
        self.feed.as_mut().map(TopicFeed::feed_mut)
    }

    fn on_feed_message(&mut self, message: FeedMessage, now: Now) {
        let slice = self.slice.as_ref();
        if let Some(feed) = &mut self.feed {
            feed.on_message(message, || slice.map_or_else(Vec::new, undecodable), now);
        }
    }

    /// Whether the topic can be used.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    /// The seq of the last step that was applied.
    pub(super) const fn seq(&self) -> Seq {
        self.seq
    }

    /// Applies a step: the slice copies the records that it owns, the feed keeps the block.
    pub(super) fn apply(&mut self, step: &Arc<Step>, now: Now) {
        debug_assert_eq!(step.seq.0, self.seq.0 + 1, "a home's steps come in order");
        if let Some(slice) = &mut self.slice {
            slice.apply(step, now.wall);
            self.expire_at = Some(now.mono);
        }
        if let Some(feed) = self.feed_mut() {
            feed.on_step(step);
        }
        self.seq = step.seq;
        self.cut.clone_from(&step.cut);
        self.time = step.time;
    }

    /// Drops tombstones past their time, if some are due. The work is bounded: sets `more` if some
    /// are left. Returns whether the slice may have changed.
    fn expire(&mut self, now: Now, more: &mut bool) -> bool {
        let due = self.expire_at.is_some_and(|at| at <= now.mono);
        let Some(slice) = self.slice.as_mut().filter(|_| due) else {
            return false;
        };
        let left = slice.expire(now.wall);
        *more |= left;
        self.expire_at = slice.next_expiry().map(|due| {
            let millis = due.0.saturating_sub(now.wall.0);
            let wait = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            now.mono.after(wait.min(WALL_CHECK_EVERY))
        });
        true
    }

    /// When the streams or the slice next have work.
    fn next_deadline(&self) -> Option<Instant> {
        let feed = self.feed().and_then(Feed::next_deadline);
        feed.into_iter().chain(self.expire_at).min()
    }

    /// The last step applied, if the home does not know it yet. The step counts as reported then.
    pub(super) fn unreported(&mut self) -> Option<Seq> {
        let news = self.reported < self.seq;
        self.reported = self.seq;
        news.then_some(self.seq)
    }

    /// The slice's gaps, if the home does not know them yet. The gaps count as reported then.
    pub(super) fn unreported_gaps(&mut self) -> Option<Gaps> {
        let gaps = self.slice.as_ref()?.gaps();
        if self.reported_gaps == gaps {
            return None;
        }
        self.reported_gaps = gaps.clone();
        Some(gaps)
    }

    /// The newest record of a key that this shard owns. `partition`: the partition with all of its
    /// records, if known.
    pub(super) fn find(&self, hash: KeyHash, key: &[u8], partition: Option<Partition>) -> Found {
        let Some(slice) = self.slice.as_ref().filter(|_| self.live) else {
            return Found::Failed(Failure::NotReady);
        };
        let lookup = slice.get_of(key, hash, partition);
        if let Some(failure) = Refused::of_lookup(&lookup) {
            return Found::Failed(failure);
        }
        match lookup {
            Lookup::Found(entry) => match entry.value() {
                Value::Held(value) => Found::Entry {
                    value: value.clone(),
                    etag: entry.etag(),
                    content_type: entry.content_type().cloned(),
                },
                Value::Unheld(_) | Value::Tombstone(_) => Found::Failed(Failure::NotFound),
            },
            _ => Found::Failed(Failure::NotFound),
        }
    }

    /// A page of the slice.
    pub(super) fn scan(&self, after: Option<&(KeyHash, Box<[u8]>)>) -> Option<Page> {
        let slice = self.slice.as_ref().filter(|_| self.live)?;
        Some(slice.page(after.map(|(hash, key)| (*hash, &**key)), PAGE))
    }

    /// A page of the slice's *changes*.
    pub(super) fn changes(&self, request: &ChangesRequest) -> Option<Changes> {
        let slice = self.slice.as_ref().filter(|_| self.live)?;
        let key = request.key.as_ref().map(|(hash, key)| (*hash, &**key));
        Some(slice.changes(&request.since, &request.below, request.after, key, PAGE))
    }

    /// Whether this shard's slice is complete. The home reports what other slices lack.
    pub(super) fn is_whole(&self) -> bool {
        self.slice.as_ref().is_some_and(Slice::is_whole)
    }

    pub(super) fn slice(&self) -> Option<&Slice> {
        self.slice.as_ref()
    }
}

/// The undecodable ranges of the log. All slices have the same ones at the same step.
fn undecodable(slice: &Slice) -> Vec<OffsetRange> {
    slice.undecodable().iter().collect()
}

/// Where a scan by offset starts in a slice.
pub(super) const SLICE_START: ChangeCursor = ChangeCursor {
    partition: Partition(0),
    offset: Offset(0),
};

/// A piece of a collection or of *changes*: what one turn may spend on one client.
pub(super) const PAGE: PageLimits = PageLimits {
    entries: 256,
    bytes: 64 * 1024,
};

impl Projection {
    /// Answers a request whose seq is applied.
    fn answer(&mut self, me: ShardId, layout: Layout, request: Deferred, out: &mut Outbox) {
        match request {
            Deferred::Scan(exchange, after) => {
                let page = self.scan(after.as_ref());
                out.to_edge(exchange, EdgeMessage::Scanned(page));
            }
            Deferred::Changes(topic, request) => {
                let question = request.question;
                let piece = self.changes(&request).map(|changes| {
                    let following = ShardId(me.0 + 1);
                    let another = request.key.is_none() && following.0 < layout.shards;
                    let next = match changes.next {
                        Some(cursor) => Some((me, cursor)),
                        None => another.then_some((following, SLICE_START)),
                    };
                    Box::new(ChangesPiece { changes, next })
                });
                changed(topic, question, piece, out);
            }
            Deferred::CatchUpEnd(_, catch_up, seq, cut) => {
                if let Some(feed) = self.feed_mut() {
                    feed.on_catch_up_end(CatchUpId(catch_up), seq, &cut);
                }
            }
        }
    }

    /// The tag of a collection. The tag covers the cut of its content, and the log starts, below
    /// which nothing is shown. Gateway instances with the same cut agree. The leader epoch is part
    /// of the tag, since a truncated log may have other records below the same offset.
    pub(super) fn collection_etag(&self) -> Etag {
        let starts = self.slice.as_ref().map_or(&[][..], Slice::log_starts);
        let mut hasher = siphasher::sip::SipHasher24::new_with_keys(0, 1);
        for (partition, next) in self.cut.iter().filter(|(_, next)| next.offset.0 > 0) {
            let start = starts.get(partition.0 as usize);
            hasher.write_u32(partition.0.to_be());
            hasher.write_u64(next.offset.0.to_be());
            hasher.write_u64(next.epoch.0.map_or(0, |epoch| u64::from(epoch) + 1).to_be());
            hasher.write_u64(start.map_or(0, |start| start.0).to_be());
        }
        // RFC 9110 8.8.1: weak, since the body may be newer than the cut that the tag names.
        let text = format!("W/\"{}-c{:016x}\"", self.incarnation.tag, hasher.finish());
        Etag::from_header(text.as_bytes()).expect("27 visible characters")
    }
}

/// Every seq of a topic.
const fn all_seqs(topic: TopicId) -> RangeInclusive<(TopicId, Seq)> {
    (topic, Seq(0))..=(topic, Seq(u64::MAX))
}

impl Deferred {
    const fn belongs_to(&self) -> DeferredFor {
        match self {
            Self::Scan(exchange, _) => DeferredFor::Exchange(*exchange),
            Self::Changes(_, request) => DeferredFor::Exchange(request.question.exchange),
            Self::CatchUpEnd(topic, catch_up, ..) => DeferredFor::CatchUp(*topic, *catch_up),
        }
    }

    /// Notifies the exchange that there will be no answer.
    fn reject(self, out: &mut Outbox) {
        match self {
            Self::Scan(exchange, _) => out.to_edge(exchange, EdgeMessage::Scanned(None)),
            Self::Changes(topic, request) => changed(topic, request.question, None, out),
            Self::CatchUpEnd(..) => {}
        }
    }
}

fn changed(
    topic: TopicId,
    question: StreamQuestion,
    piece: Option<Box<ChangesPiece>>,
    out: &mut Outbox,
) {
    let changed = FeedMessage::Changed(question, piece);
    let shard = question.exchange.shard;
    out.to_projection(shard, topic, ProjectionMessage::Feed(changed));
}

#[cfg(test)]
#[path = "projection_tests.rs"]
mod tests;

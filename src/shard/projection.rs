//! The topics as this shard has them: of each, the slice of keys it owns and the streams it serves,
//! at one known place of the topic's order. Every shard applies the same steps in the same order,
//! so a place is one number; what arrives with a place not yet reached waits here until it is.

use std::hash::Hasher as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

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

use super::message::{
    Blocked, ChangesPiece, ChangesRequest, EdgeMessage, FeedMessage, Found, Incarnation,
    ProjectionMessage, Standing,
};
use super::outbox::Outbox;
use super::snapshot::{Layout, Snapshot, TopicId};
use super::topic_feed::{Route, TopicFeed};
use super::wait_queue::WaitQueue;

/// How long a catch-up read waits for its slowest member before it goes on without it.
const CATCH_UP_PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);

/// One topic on this shard.
#[derive(Debug)]
pub(super) struct Projection {
    /// Counters of the topic's earlier loadings.
    past: Counted,
    pub(super) incarnation: Arc<Incarnation>,
    slice: Option<Slice>,
    /// The streams, once the topic is live and if it has any.
    feed: Option<TopicFeed>,
    seq: Seq,
    cut: Cut,
    time: UnixMillis,
    live: bool,
    /// The home knows that all up to here is applied.
    told: Seq,
    /// The slice's gaps that the home already knows.
    told_gaps: Gaps,
}

/// Counters of a topic on this shard. They only grow, over all its loadings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// Events written.
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
    /// A piece of *changes*.
    Changes(TopicId, Box<ChangesRequest>),
    /// The end of a catch-up read.
    CatchUpEnd(TopicId, u32, Seq, Cut),
}

/// What a deferred request belongs to. It has at most one at a time.
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
    /// By topic: how its home says it stands.
    standing: Vec<Standing>,
    /// Requests that name a seq of a topic's present incarnation that is not applied yet.
    deferred: WaitQueue<DeferredFor, (TopicId, Seq), Deferred>,
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
        }
    }

    /// Takes over a snapshot with the same topics.
    pub(super) fn load(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The home says how a topic stands now.
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

    /// Like the failure above, with its cause.
    pub(super) fn why_not_live(&self, topic: TopicId) -> Refused {
        let blocked = self.standing[usize::from(topic.0)].blocked;
        blocked.map_or_else(|| Failure::NotReady.into(), Blocked::refused)
    }

    /// Seconds since the brokers last confirmed all of a topic, where that is longer than usual
    /// (RFC 9111 5.1).
    pub(super) fn age(&self, topic: TopicId, now: Instant) -> Option<u64> {
        let since = self.standing[usize::from(topic.0)].stale_since?;
        Some(now.since(since).as_secs())
    }

    /// Whether the topic has more partitions than when its loading began.
    pub(super) fn has_grown(&self, topic: TopicId) -> bool {
        self.standing[usize::from(topic.0)].grown
    }

    /// Whether any slice of the topic, on any shard, is known to be full.
    pub(super) fn is_full(&self, topic: TopicId) -> bool {
        self.standing[usize::from(topic.0)].full
    }

    /// Drops tombstones past their time. The work is bounded, and if none is due, only one is
    /// examined. Returns true if more are due, so that another turn is due.
    #[must_use = "a quiet shard turns twice a second"]
    pub(super) fn expire(&mut self, now: Now) -> bool {
        let projections = self.topics.iter_mut().flatten();
        let slices = projections.filter_map(|projection| projection.slice.as_mut());
        let mut more = false;
        for slice in slices {
            more |= slice.expire(now.wall);
        }
        more
    }

    /// Whether this shard has what it serves: a home that is ready may be ahead of it.
    pub(super) fn checks(&self) -> impl Iterator<Item = Check> + '_ {
        let serves = self.me >= self.snapshot.layout.first_slice();
        let shared = self
            .snapshot
            .indexed()
            .filter(move |(_, plan)| serves && plan.is_shared());
        shared.map(|(topic, plan)| {
            let ok = self.get(topic).is_some_and(Projection::is_live);
            let state = match ok {
                true => CheckState::Ready,
                false => CheckState::Loading,
            };
            // Its home has more to say of it.
            Check::new(self.snapshot.topic_name(plan), state, "")
        })
    }

    /// Every topic that has begun to load.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Projection> {
        self.topics.iter().flatten()
    }

    /// The same, with their index.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (TopicId, &Projection)> {
        let topics = self.topics.iter().enumerate();
        topics.filter_map(|(i, projection)| Some((TopicId(i as u16), projection.as_ref()?)))
    }

    /// A topic, once it has begun to load.
    pub(super) fn get(&self, topic: TopicId) -> Option<&Projection> {
        self.topics[usize::from(topic.0)].as_ref()
    }

    /// The same, to change.
    pub(super) fn get_mut(&mut self, topic: TopicId) -> Option<&mut Projection> {
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

    /// Lets time pass for streams, and sends what they need.
    pub(super) fn pump_feeds(&mut self, now: Instant, out: &mut Outbox) {
        for (_, projection) in self.iter_mut() {
            if let Some(feed) = &mut projection.feed {
                feed.pump(now, out);
            }
        }
    }

    /// An exchange has ended: what it waits for is dropped.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.deferred.cancel(DeferredFor::Exchange(exchange));
    }

    /// Every topic that has begun to load.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (TopicId, &mut Projection)> {
        let topics = self.topics.iter_mut().enumerate();
        topics.filter_map(|(i, projection)| Some((TopicId(i as u16), projection.as_mut()?)))
    }

    /// The topic begins. True: it was there before, and its streams must end.
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
        let (feed, live, told) = (None, false, Seq(0));
        let past = self.topics[index].as_ref().map(Projection::counted);
        let (past, told_gaps) = (past.unwrap_or_default(), Gaps::default());
        let projection = Projection {
            past,
            incarnation,
            slice,
            feed,
            seq,
            cut,
            time,
            live,
            told,
            told_gaps,
        };
        while let Some(request) = self.deferred.next_met(&all_seqs(topic)) {
            request.reject(out);
        }
        self.topics[index].replace(projection).is_some()
    }

    /// Applies a step and answers the requests that waited for it. False: the topic is not open.
    pub(super) fn apply(
        &mut self,
        topic: TopicId,
        step: &Arc<Step>,
        now: Now,
        out: &mut Outbox,
    ) -> bool {
        let (me, layout) = (self.me, self.snapshot.layout);
        let Some(projection) = &mut self.topics[usize::from(topic.0)] else {
            return false;
        };
        projection.apply(step, now);
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
        match &mut self.topics[usize::from(topic.0)] {
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
    pub(super) fn on_timeout(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(request) = self.deferred.next_expired(now) {
            if let Deferred::CatchUpEnd(topic, catch_up, ..) = request {
                let projection = self.topics[usize::from(topic.0)].as_mut();
                if let Some(feed) = projection.and_then(Projection::feed_mut) {
                    feed.on_catch_up_stalled(CatchUpId(catch_up));
                }
            }
            request.reject(out);
        }
    }

    /// When [`Self::on_timeout`] has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deferred.next_deadline()
    }

    /// The topic is caught up: queries and streams may use it.
    pub(super) fn on_live(&mut self, topic: TopicId, log_start: Cut) {
        let plan = self.snapshot.topic(topic);
        let settings = &self.snapshot.config.settings.streams;
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
    /// What was counted so far, over all loadings.
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

    /// The same, to change.
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

    /// The last step applied.
    pub(super) const fn seq(&self) -> Seq {
        self.seq
    }

    /// Applies a step: the slice takes what it owns, the streams take their block.
    pub(super) fn apply(&mut self, step: &Arc<Step>, now: Now) {
        debug_assert_eq!(step.seq.0, self.seq.0 + 1, "a home's steps come in order");
        if let Some(slice) = &mut self.slice {
            slice.apply(step, now.wall);
        }
        if let Some(feed) = self.feed_mut() {
            feed.on_step(step);
        }
        self.seq = step.seq;
        self.cut.clone_from(&step.cut);
        self.time = step.time;
    }

    /// What the home does not know yet to be applied.
    pub(super) fn untold(&mut self) -> Option<Seq> {
        let news = self.told < self.seq;
        self.told = self.seq;
        news.then_some(self.seq)
    }

    /// The slice's gaps, if the home does not know them yet.
    pub(super) fn untold_gaps(&mut self) -> Option<Gaps> {
        let gaps = self.slice.as_ref()?.gaps();
        if self.told_gaps == gaps {
            return None;
        }
        self.told_gaps = gaps.clone();
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

    /// A piece of the collection, of what this shard owns.
    pub(super) fn scan(&self, after: Option<&(KeyHash, Box<[u8]>)>) -> Option<Page> {
        let slice = self.slice.as_ref().filter(|_| self.live)?;
        Some(slice.page(after.map(|(hash, key)| (*hash, &**key)), PAGE))
    }

    /// A piece of *changes*, of what this shard owns.
    pub(super) fn changes(&self, request: &ChangesRequest) -> Option<Changes> {
        let slice = self.slice.as_ref().filter(|_| self.live)?;
        let key = request.key.as_ref().map(|(hash, key)| (*hash, &**key));
        Some(slice.changes(&request.since, &request.below, request.after, key, PAGE))
    }

    /// Whether this shard's slice is complete. The home reports what other slices lack.
    pub(super) fn is_whole(&self) -> bool {
        self.slice.as_ref().is_some_and(Slice::is_whole)
    }

    /// The slice's facts.
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

    /// The tag of a collection. It covers the cut of its content, and the log starts, below which
    /// nothing is shown. Instances that have read equally far agree. The leader epoch is part of
    /// it, since a truncated log may have other records below the same offset.
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

    /// Tells the exchange that there will be no answer.
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

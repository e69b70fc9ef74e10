//! The projection of one topic on this shard: the slice of keys that the shard owns and the streams
//! that it serves, both after the same step.

use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{ChangeCursor, Changes, Gaps, Lookup, Page, PageLimits, Slice, Value};
use crate::log::{Cut, OffsetRange, Seq, Step};
use crate::model::{Etag, Instant, KeyHash, Now, Offset, Partition, ShardId, UnixMillis};
use crate::route::{Failure, Refused};
use crate::sse::{CatchUpId, Feed, FeedSettings};

use super::deferred::{Deferred, StepPlace, changed};
use super::message::{ChangesPiece, ChangesRequest, EdgeMessage, FeedMessage, Found, Incarnation};
use super::outbox::Outbox;
use super::topic_feed::{Route, TopicFeed};

/// The longest wait for the tombstone that expires first. Tombstones expire by the wall clock, and
/// that may be set while the shard waits.
const WALL_CHECK_EVERY: Duration = Duration::from_secs(60);

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

/// Whose slice a page is of, and how large it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageContext {
    pub(super) me: ShardId,
    /// The shard with the slice after this one.
    pub(super) following: Option<ShardId>,
    pub(super) limits: PageLimits,
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

impl Projection {
    /// An incarnation that begins to load. `past`: counters of the topic's earlier incarnations.
    pub(super) fn new(incarnation: Arc<Incarnation>, slice: Option<Slice>, past: Counted) -> Self {
        Self {
            past,
            incarnation,
            slice,
            feed: None,
            seq: Seq(0),
            cut: Cut::start(),
            time: UnixMillis(0),
            live: false,
            reported: Seq(0),
            reported_gaps: Gaps::default(),
            expire_at: None,
        }
    }

    /// The end of the log is reached.
    pub(super) const fn go_live(&mut self) {
        self.live = true;
    }

    /// From now on streams can subscribe. Their feed begins after the last step that was applied.
    pub(super) fn open_feed(&mut self, settings: FeedSettings, route: Route) {
        let (seq, cut, time) = (self.seq, self.cut.clone(), self.time);
        self.feed = Some(TopicFeed::new(settings, route, seq, cut, time));
    }

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

    /// The streams' way to the home and the slices, once the topic is live and if it has streams.
    pub(super) const fn topic_feed_mut(&mut self) -> Option<&mut TopicFeed> {
        self.feed.as_mut()
    }

    /// The streams, once the topic is live and if it has any.
    pub(super) fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref().map(TopicFeed::feed)
    }

    pub(super) fn feed_mut(&mut self) -> Option<&mut Feed> {
        self.feed.as_mut().map(TopicFeed::feed_mut)
    }

    /// A message to the streams.
    pub(super) fn on_feed_message(&mut self, message: FeedMessage, now: Now) {
        let slice = self.slice.as_ref();
        if let Some(feed) = &mut self.feed {
            feed.on_message(message, || slice.map_or_else(Vec::new, undecodable), now);
        }
    }

    /// Whether the topic can be used.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    /// The last step that was applied, in the order of all incarnations.
    pub(super) fn place(&self) -> StepPlace {
        (self.incarnation.number, self.seq)
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
    pub(super) fn expire(&mut self, now: Now, more: &mut bool) -> bool {
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
    pub(super) fn next_deadline(&self) -> Option<Instant> {
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
    fn scan(&self, after: Option<&(KeyHash, Box<[u8]>)>, page: PageLimits) -> Option<Page> {
        let slice = self.slice.as_ref().filter(|_| self.live)?;
        Some(slice.page(after.map(|(hash, key)| (*hash, &**key)), page))
    }

    /// A page of the slice's *changes*.
    fn changes(&self, request: &ChangesRequest, page: PageLimits) -> Option<Changes> {
        let slice = self.slice.as_ref().filter(|_| self.live)?;
        let key = request.key.as_ref().map(|(hash, key)| (*hash, &**key));
        Some(slice.changes(&request.since, &request.below, request.after, key, page))
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

impl Projection {
    /// Answers a request whose seq is applied.
    pub(super) fn answer(&mut self, request: Deferred, pages: PageContext, out: &mut Outbox) {
        match request {
            Deferred::Scan(exchange, after) => {
                let page = self.scan(after.as_ref(), pages.limits);
                out.to_edge(exchange, EdgeMessage::Scanned(page));
            }
            Deferred::Changes(topic, request) => {
                let question = request.question;
                let piece = self.changes(&request, pages.limits).map(|changes| {
                    let following = pages.following.filter(|_| request.key.is_none());
                    let next = match changes.next {
                        Some(cursor) => Some((pages.me, cursor)),
                        None => following.map(|shard| (shard, SLICE_START)),
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

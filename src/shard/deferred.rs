//! Requests that a projection can answer once it has applied a seq.

use std::ops::RangeInclusive;

use crate::log::{Cut, Seq};
use crate::model::{ExchangeId, Instant, KeyHash, u16_of};
use crate::sse::StreamQuestion;

use super::active::ActiveSet;
use super::message::{ChangesPiece, ChangesRequest, FeedMessage, ProjectionMessage};
use super::outbox::Outbox;
use super::snapshot::TopicId;
use super::wait_queue::WaitQueue;

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

/// A place in the order of a topic's steps: an incarnation and a step of it. Every step of an
/// earlier incarnation is before.
pub(super) type StepPlace = (u32, Seq);

/// The requests that wait, until their topic has reached a place. Those that are met are answered
/// one by one: an answer may be a page of 64 KiB, and thousands may wait for one step.
#[derive(Debug)]
pub(super) struct DeferredRequests {
    waiting: WaitQueue<DeferredFor, (TopicId, StepPlace), (u32, Deferred)>,
    /// Topics of which some request is met, in rotation.
    met: ActiveSet,
}

impl DeferredRequests {
    pub(super) fn new(waiters_max: usize) -> Self {
        Self {
            waiting: WaitQueue::new(waiters_max),
            met: ActiveSet::default(),
        }
    }

    /// Keeps a request until its topic is at `place`. Call [`Self::on_applied`] if it is already.
    ///
    /// # Errors
    /// Too many requests wait. Returns the request, to be rejected.
    pub(super) fn insert(
        &mut self,
        topic: TopicId,
        place: StepPlace,
        deadline: Instant,
        request: Deferred,
    ) -> Result<(), Deferred> {
        let (of, request) = (request.belongs_to(), (place.0, request));
        let inserted = self.waiting.insert(of, (topic, place), deadline, request);
        inserted.map_err(|(_, request)| request)
    }

    /// An exchange has ended: what it waits for is dropped.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.waiting.cancel(DeferredFor::Exchange(exchange));
    }

    /// A topic is at `place` now.
    pub(super) fn on_applied(&mut self, topic: TopicId, place: StepPlace) {
        if self.waiting.is_met(&up_to(topic, place)) {
            self.met.insert(usize::from(topic.0));
        }
    }

    /// Whether a request can be answered now.
    pub(super) fn has_met(&self) -> bool {
        !self.met.is_empty()
    }

    /// The next topic of which a request may be met.
    pub(super) fn next_topic(&mut self) -> Option<TopicId> {
        let index = self.met.pop()?;
        Some(TopicId(u16_of(index)))
    }

    /// The next request of a topic that is at `place`, with the incarnation that it is about.
    pub(super) fn next_met(&mut self, topic: TopicId, place: StepPlace) -> Option<(u32, Deferred)> {
        let request = self.waiting.next_met(&up_to(topic, place))?;
        self.on_applied(topic, place);
        Some(request)
    }

    /// The next request whose deadline has passed.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<Deferred> {
        let (_, request) = self.waiting.next_expired(now)?;
        Some(request)
    }

    /// When [`Self::next_expired`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.next_deadline()
    }
}

/// The conditions that are met once a topic is at `place`.
const fn up_to(topic: TopicId, place: StepPlace) -> RangeInclusive<(TopicId, StepPlace)> {
    (topic, (0, Seq(0)))..=(topic, place)
}

impl Deferred {
    const fn belongs_to(&self) -> DeferredFor {
        match self {
            Self::Scan(exchange, _) => DeferredFor::Exchange(*exchange),
            Self::Changes(_, request) => DeferredFor::Exchange(request.question.exchange),
            Self::CatchUpEnd(topic, catch_up, ..) => DeferredFor::CatchUp(*topic, *catch_up),
        }
    }
}

/// Answers a request for *changes*. `None`: there is no piece.
pub(super) fn changed(
    topic: TopicId,
    question: StreamQuestion,
    piece: Option<Box<ChangesPiece>>,
    out: &mut Outbox,
) {
    let changed = FeedMessage::Changed(question, piece);
    let shard = question.exchange.shard;
    out.to_projection(shard, topic, ProjectionMessage::Feed(changed));
}

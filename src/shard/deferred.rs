//! Requests that a projection can answer once it has applied a seq.

use crate::log::{Cut, Seq};
use crate::model::{ExchangeId, KeyHash};
use crate::sse::StreamQuestion;

use super::message::{ChangesPiece, ChangesRequest, EdgeMessage, FeedMessage, ProjectionMessage};
use super::outbox::Outbox;
use super::snapshot::TopicId;

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
pub(super) enum DeferredFor {
    Exchange(ExchangeId),
    CatchUp(TopicId, u32),
}

impl Deferred {
    pub(super) const fn belongs_to(&self) -> DeferredFor {
        match self {
            Self::Scan(exchange, _) => DeferredFor::Exchange(*exchange),
            Self::Changes(_, request) => DeferredFor::Exchange(request.question.exchange),
            Self::CatchUpEnd(topic, catch_up, ..) => DeferredFor::CatchUp(*topic, *catch_up),
        }
    }

    /// Notifies the exchange that there will be no answer.
    pub(super) fn reject(self, out: &mut Outbox) {
        match self {
            Self::Scan(exchange, _) => out.to_edge(exchange, EdgeMessage::Scanned(None)),
            Self::Changes(topic, request) => changed(topic, request.question, None, out),
            Self::CatchUpEnd(..) => {}
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

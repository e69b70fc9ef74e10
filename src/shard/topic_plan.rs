//! What is asked of one topic, by all routes that name it.

use crate::config::{Slow, Start, StreamRoute};
use crate::model::{ClusterId, ShardId, TopicName};
use crate::sse::{Encoding, Payload};

/// A topic and what it is for. What a snapshot adds stays in the plans of all later ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: TopicName,
    /// The shard that does its Kafka work.
    pub home: ShardId,
    /// Commands are produced to it.
    pub takes_commands: bool,
    /// Whether some of these records have no key.
    pub takes_keyless: bool,
    /// Replies are read from it, whole.
    pub holds_replies: bool,
    /// Its newest records are cached, over all slices.
    pub cached: bool,
    /// Queries are answered from it.
    pub queried: bool,
    /// Whether the topic has a collection.
    pub listed: bool,
    /// A route needs it compacted, for this reason.
    pub compacted_for: Option<&'static str>,
    /// The ways its events are written. Empty if no stream reads it. Messages name an encoding by
    /// its place.
    pub encodings: Vec<Encoding>,
}

impl TopicPlan {
    /// Whether every slice shard gets the topic's steps.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.cached || !self.encodings.is_empty()
    }

    /// A topic that nothing is asked of yet.
    pub(super) fn new(cluster: ClusterId, name: &TopicName) -> Self {
        Self {
            cluster,
            name: name.clone(),
            home: ShardId(0),
            takes_commands: false,
            takes_keyless: false,
            holds_replies: false,
            cached: false,
            queried: false,
            listed: false,
            compacted_for: None,
            encodings: Vec::new(),
        }
    }

    /// Adds what a stream asks. Returns the place of its encoding.
    pub(super) fn stream(&mut self, route: &StreamRoute, etag_header: &str) -> usize {
        if route.start == Start::Snapshot {
            self.compacted_for = Some("`start = \"snapshot\"`");
        }
        if route.slow == Slow::Conflate {
            self.compacted_for = Some("`slow = \"conflate\"`");
        }
        // *Changes* of a compacted topic are paged from its slices, with or without a query.
        self.cached |= self.compacted_for.is_some();
        let encoding = Encoding {
            event: route.event.clone(),
            payload: Payload::Auto,
            etag_header: etag_header.into(),
        };
        let known = self.encodings.iter().position(|known| *known == encoding);
        known.unwrap_or_else(|| {
            self.encodings.push(encoding);
            self.encodings.len() - 1
        })
    }

    /// What `next` asks of the topic that this plan does not. `None`: nothing.
    pub(super) fn lacks(&self, next: &Self) -> Option<&'static str> {
        let Self {
            cluster: _, // A number means one cluster and one topic, and a topic has one home.
            name: _,
            home: _,
            takes_commands,
            takes_keyless,
            holds_replies,
            cached,
            queried,
            listed,
            compacted_for,
            encodings,
        } = self;
        let asked = [
            (*takes_commands, next.takes_commands, "take commands"),
            (
                *takes_keyless,
                next.takes_keyless,
                "take records without a key",
            ),
            (*holds_replies, next.holds_replies, "hold replies"),
            (*cached, next.cached, "be cached"),
            (*queried, next.queried, "answer queries"),
            (*listed, next.listed, "have a collection"),
            (
                compacted_for.is_some(),
                next.compacted_for.is_some(),
                "be compacted",
            ),
            (
                encodings.len() >= next.encodings.len(),
                true,
                "write its events in another way",
            ),
        ];
        let lacking = asked.into_iter().find(|(has, asked, _)| asked & !has);
        lacking.map(|(_, _, what)| what)
    }
}

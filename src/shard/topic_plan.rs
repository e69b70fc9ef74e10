//! What is asked of one topic, by all routes that name it.

use crate::config::{Slow, Start, StreamRoute};
use crate::model::{ClusterId, ShardId, TopicId, TopicName};
use crate::sse::{Encoding, Payload};

/// What all routes ask of a topic. What one snapshot asks stays in the plans of all later ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// The number of the cluster that has the topic.
    pub cluster: ClusterId,
    /// The topic's name in that cluster.
    pub name: TopicName,
    /// The shard that does all Kafka work of the topic.
    pub home: ShardId,
    /// Whether commands are produced to the topic.
    pub takes_commands: bool,
    /// Whether some of these records have no key.
    pub takes_keyless: bool,
    /// Whether some of the commands get no reply.
    pub takes_one_way: bool,
    /// Whether replies are read from the topic, from its log start on.
    pub holds_replies: bool,
    /// Whether a route with `dedupe = "strict"` names the topic. Its home indexes the commands of
    /// such a topic that are not answered, and looks for their answers in its replies.
    pub strict: bool,
    /// Whether the slices keep the newest record of each key.
    pub cached: bool,
    /// Whether queries read the cached records.
    pub queried: bool,
    /// Whether a query route shows all cached records as a collection.
    pub listed: bool,
    /// Why the topic must be compacted, if a route needs that.
    pub compacted_for: Option<&'static str>,
    /// The ways in which its events are written. Empty if no stream reads the topic. Messages name
    /// an encoding by its place.
    pub encodings: Vec<Encoding>,
}

/// The topics of a command route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) commands: TopicId,
    pub(super) replies: Option<TopicId>,
}

impl TopicPlan {
    /// Whether every shard with a slice receives the topic's steps.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.cached || !self.encodings.is_empty()
    }

    /// Whether the home reads the topic. Otherwise commands are only produced to it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_shared() || self.holds_replies || self.is_indexed()
    }

    /// Whether the unanswered commands of the topic are indexed.
    #[must_use]
    pub const fn is_indexed(&self) -> bool {
        self.takes_commands && self.strict
    }

    /// The plan of a topic that no route has asked anything of yet.
    pub(super) fn new(cluster: ClusterId, name: &TopicName) -> Self {
        Self {
            cluster,
            name: name.clone(),
            home: ShardId(0),
            takes_commands: false,
            takes_keyless: false,
            takes_one_way: false,
            holds_replies: false,
            strict: false,
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
            takes_one_way,
            holds_replies,
            strict,
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
            (
                *takes_one_way,
                next.takes_one_way,
                "take commands without a reply",
            ),
            (*holds_replies, next.holds_replies, "hold replies"),
            (*strict, next.strict, "serve `dedupe = \"strict\"`"),
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

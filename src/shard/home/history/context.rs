//! What history needs of its topic and home for one call.

use crate::kafka::{Client, TopicHandle};
use crate::model::{Now, ShardId};
use crate::shard::home::order::Order;
use crate::shard::home::partitions::Part;
use crate::shard::message::{FeedMessage, ProjectionMessage};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::TopicId;

/// A topic with an order, the client of its cluster, the time and the outbox.
pub(in crate::shard::home) struct HistoryContext<'a> {
    pub(in crate::shard::home) topic: TopicId,
    /// The topic's name at the client.
    pub(in crate::shard::home) handle: TopicHandle,
    pub(in crate::shard::home) order: &'a Order,
    pub(in crate::shard::home) parts: &'a [Part],
    pub(in crate::shard::home) now: Now,
    pub(in crate::shard::home) client: &'a mut Client,
    pub(in crate::shard::home) out: &'a mut Outbox,
}

impl HistoryContext<'_> {
    /// Sends a message to the topic's streams on a shard.
    pub(super) fn to_feed(&mut self, shard: ShardId, message: FeedMessage) {
        let message = ProjectionMessage::Feed(message);
        self.out.to_projection(shard, self.topic, message);
    }
}

//! One request or stream of a connection, as other shards name it.

use super::ShardId;

/// An *exchange*: one request with its response, or one event stream. Other shards answer to an
/// exchange, never to a connection. A slot is used again with another generation, so an answer that
/// comes late reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    /// The shard that has the client.
    pub shard: ShardId,
    /// The place on that shard.
    pub slot: u32,
    /// Which of the exchanges that have used the slot.
    pub generation: u32,
}

const _: () = {
    // Every waiting command and every subscriber holds one.
    assert!(size_of::<ExchangeId>() <= 12);
};

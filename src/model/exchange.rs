//! The id by which other shards address one request or stream of a connection.

use super::ShardId;

/// Identifies an *exchange*: one request with its response, or one event stream. Other shards send
/// answers to an exchange, never to a connection. A slot is reused with another generation, so a
/// late answer reaches no other client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    /// The shard that has the client.
    pub shard: ShardId,
    /// The exchange's slot on that shard.
    pub slot: u32,
    /// Distinguishes the exchanges that have used the slot.
    pub generation: u32,
}

const _: () = {
    // Every waiting command and every subscriber stores one.
    assert!(size_of::<ExchangeId>() <= 12);
};

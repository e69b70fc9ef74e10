//! What the edge may touch while it works.

use crate::metrics::ShardMetrics;
use crate::model::Now;
use crate::shard::io::SocketId;
use crate::shard::outbox::Outbox;
use crate::shard::projections::Projections;

/// The turn's time and sockets, and the rest of the shard.
pub(in crate::shard) struct EdgeContext<'a, I> {
    pub(in crate::shard) now: Now,
    pub(in crate::shard) io: &'a mut I,
    pub(in crate::shard) projections: &'a mut Projections,
    pub(in crate::shard) out: &'a mut Outbox,
    pub(in crate::shard) close: &'a mut Vec<SocketId>,
    pub(in crate::shard) metrics: &'a mut ShardMetrics,
}

//! Server-Sent Events: events as bytes, made once at a topic's home, and their fan-out on each
//! shard.
//!
//! **Bytes.** The home's [`Encoder`] writes a step's records into a block: `event:`, `data:`,
//! `id:`, blank line. An id is a cut as text and an etag: whoever holds id V was offered, of each
//! partition p, all matching records below V\[p\] and none at or above. A server sends a
//! partition's frames in offset order and its own cut in each id, so this holds at every frame,
//! whatever the interleaving and whichever the peer.
//!
//! **Fan-out.** A [`Feed`] keeps the window of blocks and the subscribers of one topic instance on
//! one shard. A subscriber is *shared*, a cursor into the window, or *private*: it came with an id
//! V that is no cut of this peer (ahead in one partition, behind in another), so it is sent what is
//! at or above V, with max(V, cut) in its ids, until the cut has passed V everywhere; then it is
//! shared. One with nothing to read has no cursor: its position is what the shard has applied, so
//! it cannot lag. It hangs in the idle list of its *group* (same encoding, same filter), which a
//! frame for the group moves into the rotation as a whole.
//!
//! **History.** What the window does not reach back to comes from outside: on compacted topics by
//! pages of *changes(V, n)*, the newest record of each key from V to the cut at step n, then the
//! window from n; on others by *catch-up reads* of the log, shared by those who wait. Both end where the
//! window begins, and if it has moved on meanwhile, history goes on.
//!
//! **Slowness.** Nobody waits for a subscriber. A frame that was cut is copied out to it, so a
//! block can go whoever reads it; a cursor into what is gone has lagged. Then the stream is closed,
//! to be resumed by its id, or on a compacted topic *conflated*: changes(V, now).
//!
//! The driver's part, in a turn: [`Feed::on_step`] for each step; [`Feed::subscribe`],
//! [`Feed::on_writable`], [`Feed::unsubscribe`] as connections say; [`Feed::on_timeout`] when
//! [`Feed::next_deadline`] is past; then [`Feed::next_pending`] and [`Feed::deliver`] until the
//! turn's budget is spent; then [`Feed::next_need`] and [`Feed::next_credit`] until they are empty.

mod catch_up;
mod cursor;
mod deliver;
mod encode;
mod epochs;
mod feed;
mod heartbeat;
mod ids;
mod lines;
mod log_view;
mod offer;
mod plan;
mod progress;
mod questions;
mod request;
mod sink;
mod source;
mod splice;
mod subscriber;
mod subscriber_index;
mod trail;
mod unsent;

pub use encode::{Encoder, Encoding, Payload};
pub use feed::Feed;
pub use request::{
    CatchUpId, Credit, Delivery, ENCODINGS_MAX, FeedCounts, FeedSettings, Filter, Need, PageCursor,
    PageEntry, Slow, Start, StreamQuestion, Subscribe, WaitsAt,
};
pub use sink::{SINK_SLICES_MAX, Sink, Taken};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

//! Server-Sent Events: events as bytes, made once at a topic's home, and their fan-out on each
//! shard.
//!
//! **Bytes.** The home's [`Encoder`] writes a step's records into a block: `event:`, `data:`,
//! `id:`, blank line. An id is a cut as text and an etag. The cut is the client's *progress*: of
//! each partition, the client was offered all matching records below the progress and none at or
//! above it. A server sends a partition's frames in offset order and its own cut in each id, so
//! this holds at every frame, whatever the interleaving and whichever instance sends it.
//!
//! **Fan-out.** A [`Feed`] has the window of blocks and the subscribers of one topic incarnation on
//! one shard. A subscriber is *shared* or *private*. A shared subscriber is a cursor into the
//! window. A private subscriber came with a progress that is no cut of this instance (ahead in one
//! partition, behind in another). It is sent what is at or above its progress, with max(progress,
//! cut) in its ids, until the cut has passed its progress everywhere. Then it is shared. A
//! subscriber with nothing to read has no cursor: its position is what the shard has applied, so it
//! cannot lag. It is in the idle list of its *group* (same encoding, same filter). A frame for the
//! group moves the list as a whole into the rotation.
//!
//! **History.** What the window does not reach back to comes from outside. On compacted topics it
//! comes as pages of *changes(progress, seq)*: the newest record of each key from the progress to
//! the cut at step `seq`. Then the window continues from `seq`. On other topics it comes from
//! *catch-up reads* of the log, which subscribers share. Both end where the window begins. If the
//! window has moved on meanwhile, history continues. `source.rs` has the states of a subscriber,
//! one line per event.
//!
//! **Slowness.** Delivery waits for no subscriber. The rest of a frame that a socket took in part
//! is copied for its one client, so a block can leave the window while it is read. A cursor into an
//! evicted block has lagged. The stream is closed, to be resumed by its id, or on a compacted topic
//! *conflated*: the subscriber reads *changes* from its progress to the newest step.
//!
//! The shard calls, in a turn: [`Feed::on_step`] for each step; [`Feed::subscribe`],
//! [`Feed::on_writable`], [`Feed::unsubscribe`] as connections need it; [`Feed::on_timeout`] when
//! [`Feed::next_deadline`] has passed; then [`Feed::next_pending`] and [`Feed::deliver`] until the
//! turn's budget is spent; then [`Feed::next_need`] and [`Feed::next_credit`] until they are empty,
//! and [`Feed::next_page`] as long as the shard has memory for pages.

mod cursor;
mod deliver;
mod encode;
mod epoch_walk;
mod epochs;
mod feed;
mod heartbeat;
mod held_pages;
mod ids;
mod joined_catch_ups;
mod lines;
mod log_view;
mod offer;
mod pages;
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

pub use encode::{Encoder, Encoding, Payload, RECORD_BYTES_MAX, page_bytes_max};
pub use feed::Feed;
pub use held_pages::PAGE_PATIENCE;
pub use request::{
    CatchUpId, Credit, Delivery, ENCODINGS_MAX, FeedCounts, FeedSettings, Filter, Need, PageCursor,
    PageEntry, Slow, StartFrom, StreamQuestion, Subscribe, WaitsAt,
};
pub use sink::{SINK_SLICES_MAX, Sink, Taken};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

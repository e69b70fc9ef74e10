//! Server-Sent Events: events as bytes, made once at the home, and their fan-out on each shard.

mod beat;
mod deliver;
mod encode;
mod face;
mod feed;
mod history;
mod lines;
mod open;
mod request;
mod roster;
mod subscriber;

pub use encode::{Encoder, Encoding, EventName, Payload};
pub use face::{Face, Taken};
pub use feed::Feed;
pub use request::{
    Credit, Delivery, ENCODINGS_MAX, FeedCounts, FeedSettings, Filter, Need, PageCursor, PageEntry,
    PassId, Slow, Start, Subscribe, Ticket,
};

//! The newest record per key of one topic on one shard: a *slice*. A topic's keys are spread over
//! the shards by ranges of their hash; each shard applies the same steps in the same order and
//! copies what it owns, so every slice is at one known place of the topic's order.
//!
//! A slice has two orders. By (hash, key), for lookups and for collections: buckets by the hash's
//! place in the slice's range, each sorted, split one at a time as the slice grows, so a scan with
//! a cursor never meets a key twice. By offset within each partition, for *changes* and the log's
//! start.
//!
//! **What happens when it is full.** `bytes_max` is where a slice is marked *over*; it goes on. At
//! [`SliceSettings::bytes_stop`] it stops growing, and says so: a record's value is left out (its
//! key, position and etag stay; lookups say [`Lookup::Unheld`]), and when not even a new key fits,
//! the slice is *incomplete* for good: a key it does not have may exist, so lookups say
//! [`Lookup::Unknown`] and pages carry the mark. Nothing that was shown is dropped, nothing missing
//! is taken for absent. A newer, smaller record mends an unheld value; an incomplete slice is
//! mended by loading the topic again under a higher limit.

mod content_types;
mod entry;
mod ledger;
mod order;
mod page;
mod slice;
mod table;
#[cfg(test)]
mod tests;

pub use entry::{Entry, Lookup, Value};
pub use page::{ChangeCursor, Changes, Item, Page, PageLimits};
pub use slice::{Slice, SliceSettings, SliceStats};

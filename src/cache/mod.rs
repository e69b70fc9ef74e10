//! The newest record per key of one topic on one shard: a *slice*. A topic's keys are spread over
//! the shards by ranges of their hash; each shard applies the same steps in the same order and
//! copies what it owns, so every slice is at one known place of the topic's order.
//!
//! A slice has two orders. By (hash, key), for lookups and for collections: buckets by the hash's
//! place in the slice's range, each sorted, split one at a time as the slice grows, so a scan with
//! a cursor never meets a key twice. By offset within each partition, for *changes* and the log's
//! start.
//!
//! **What a slice lacks.** Two things keep a slice from holding every newest record, and neither
//! may look like a key that does not exist.
//!
//! *It is full.* At [`SliceSettings::bytes_stop`], a quarter above `bytes_max`, a slice stops
//! growing. A record's value is left out (its key, position and etag stay; lookups say
//! [`Lookup::Unheld`]). If not even a new key fits, its hash and position are kept, and lookups say
//! [`Lookup::Unknown`]: of this key, or of every key that the slice does not have if there were too
//! many to remember. Nothing that was shown is dropped. A newer record takes the place of what was
//! left out if it finds room. Once all that is left out would fit into `bytes_max`,
//! [`Gaps::reread`] says which records are wanted; they come again as
//! [`crate::log::Change::Again`].
//!
//! *A range of the log could not be decoded.* A key whose newest known record lies below the range
//! in the same partition may have a newer one in it, and so may every key that is not found: both
//! are [`Lookup::Unknown`] until the key is written above the range or the log start passes it.

mod content_types;
mod entry;
mod ledger;
mod order;
mod page;
mod refused;
mod slice;
mod table;
#[cfg(test)]
mod tests;

pub use entry::{Entry, Lookup, Value};
pub use page::{ChangeCursor, Changes, Item, Page, PageLimits};
pub use slice::{Gaps, LeftOut, Slice, SliceSettings, SliceStats};

//! A *slice*: the newest record per key of one topic on one shard. The keys of a topic are
//! distributed over the shards by ranges of their hash. Each shard applies the same steps in the
//! same order and copies the records that it owns, so every slice is at a known position of the
//! topic's order.
//!
//! A slice has two orders. The order by (hash, key) serves lookups and collections: buckets by the
//! hash's position in the slice's range, each sorted, split one at a time as the slice grows, so a
//! scan with a cursor never returns a key twice. The order by offset within each partition serves
//! *changes* and the log's start.
//!
//! **What a slice lacks.** There are two reasons why a slice may lack a newest record. Neither may
//! look like a key that does not exist.
//!
//! *It is full.* At [`SliceSettings::bytes_stop`], a quarter above `bytes_max`, a slice stops
//! growing. A record's value is omitted: its key, position and etag stay, and lookups return
//! [`Lookup::Unheld`]. If not even a new key fits, its hash and position are kept, and lookups of
//! the key return [`Lookup::Unknown`]. If there are too many such keys to remember, lookups of
//! every key that is not in the slice do. No record that was returned before is dropped. A newer
//! record replaces an omitted one if it fits. Once all omitted records would fit into `bytes_max`,
//! [`Gaps::reread`] names them, and they arrive again as [`crate::log::Change::Again`].
//!
//! *A range of the log could not be decoded.* A key may have a newer record in the range if its
//! newest known record lies below the range in the same partition, or if it is not found. Lookups
//! of both return [`Lookup::Unknown`] until the key is written after the range or the log start
//! passes the range.

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

//! The order of a topic's records. A topic has one order per process: its home shard gives each
//! step the next [`Seq`] and the [`Cut`] it leads to, and every shard applies the same [`Step`]s in
//! the same order. So a cut is one number inside the process, and the bytes of events ([`Block`])
//! are encoded once. This room knows neither Kafka's requests nor HTTP.

mod batch;
mod block;
mod cut;
mod event_id;
mod gap;
mod step;
#[cfg(test)]
pub(crate) mod testing;
mod undecodable;
mod window;

pub use batch::{Batch, BatchBuilder, Headers, Record, RecordParts};
pub use block::{Block, BlockBuilder, Frame, Notice};
pub use cut::{Cut, Next};
pub use event_id::{EventId, Progress, ProgressText, UnreadableId};
pub use gap::GapReason;
pub use step::{Change, Seq, Step};
pub use undecodable::{OffsetRange, Undecodable};
pub use window::{Window, WindowBudget};

//! The order of things. A topic has one order per process: its home shard gives each decoded batch
//! the next [`Seq`] and the [`Cut`] it leads to, and every shard sees the same [`Step`]s in the
//! same order. So a cut is one number inside the process, and event bytes ([`Block`]) are made
//! once. Neither Kafka's requests nor HTTP are known here.

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

//! The control thread: the one place with tokio. It serves the admin port from copies it asks of
//! the shards, listens for signals and creates topics. It owns no state of a shard: when it is
//! stuck, serving goes on; when a shard is stuck, `/livez` says so.

mod admin;
mod health;
mod process;
mod signal;
mod token;
mod topics;

pub use admin::{Admin, AdminSettings, AskShard, CONNECTIONS_MAX as ADMIN_CONNECTIONS_MAX};
pub use health::{ANSWER_WAIT, RouteNeeds, merged, standing};
pub use signal::{Signals, Stop};
pub use token::Tokens;
pub use topics::{EnsureError, Ensured, TopicSpec, ensure_topics};

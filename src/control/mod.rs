//! The control thread, the only thread that runs tokio. It serves the admin port from reports that
//! it requests from the shards and listens for signals. It owns no state of a
//! shard. If it is stuck, serving continues; if a shard is stuck, `/livez` reports it.

mod admin;
mod body_checks;
mod health;
mod process;
mod signal;
mod tls_status;
mod token;
#[cfg(feature = "demo")]
mod topics;
mod watched_files;

pub use admin::{
    Admin, AdminAccess, AdminSettings, AskShard, CONNECTIONS_MAX as ADMIN_CONNECTIONS_MAX,
};
pub use body_checks::BodyChecks;
pub use health::{ANSWER_WAIT, RouteNeeds, merged, route_state};
pub use signal::{Signals, Stop};
pub use tls_status::TlsStatus;
pub use token::Tokens;
#[cfg(feature = "demo")]
pub use topics::{EnsureError, Ensured, TopicSpec, ensure_topics};
pub use watched_files::{FileChange, WatchedFiles};

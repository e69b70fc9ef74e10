//! The control thread, the only thread that runs tokio. It serves the admin port from reports that
//! it requests from the shards and listens for signals. It owns no state of a
//! shard. If it is stuck, serving continues; if a shard is stuck, `/livez` reports it.

mod admin;
mod body_checks;
mod broker_connection;
mod health;
mod process;
mod signal;
mod survey;
mod tap;
mod tls_status;
mod token;
mod topic_needs;
mod topics;
mod watched_files;

pub use admin::{
    Admin, AdminAccess, AdminSettings, AskShard, CONNECTIONS_MAX as ADMIN_CONNECTIONS_MAX,
};
pub use body_checks::BodyChecks;
pub use broker_connection::{AskError, BrokerSecurity};
pub use health::{ANSWER_WAIT, RouteNeeds, merged, route_state};
pub use signal::{Signals, Stop};
pub use survey::{ClusterSurvey, TopicFacts, survey};
pub use tap::{Tap, TapError, TapFrom, TapItem, TapNext};
pub use tls_status::TlsStatus;
pub use token::Tokens;
pub use topic_needs::{Fit, TopicReport, report_json, report_text, topic_reports};
pub use topics::{EnsureError, Ensured, TopicSpec, ensure_topics};
pub use watched_files::{FileChange, WatchedFiles};

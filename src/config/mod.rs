//! The config: one TOML file for routes, one table of settings behind file keys, flags and
//! `SLUICEGATE_*`. It is read once, checked whole, and frozen: a [`Config`] that exists is right in
//! itself, and nobody reads text from it again.
//!
//! Precedence is flag, environment, file, default.

mod diagnose;
pub mod kind;
mod pattern;
mod routes;
mod settings;
mod template;

pub use kind::BrokerAddress;
pub use pattern::{PATTERN_BYTES_MAX, PathPattern, SEGMENTS_MAX, Segment, TextError};
pub use routes::{
    CommandMethod, CommandRoute, Filter, HeaderNames, Idempotency, QueryRoute, Slow, Start,
    StreamRoute,
};
pub use settings::{
    Admin, Apply, Auth, Cache, Command, Cors, Http, Kafka, Log, LogFormat, LogLevel, Setting,
    Settings, Stream, TABLE, Tls,
};
pub use template::{Part, Place, TEMPLATE_BYTES_MAX, Template};

/// Everything that was decided before the start. Checked: names are unique, templates fit their
/// paths, no route has two owners, the caps fit the memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Names of record headers.
    pub headers: HeaderNames,
    /// In the order of the file.
    pub commands: Vec<CommandRoute>,
    /// In the order of the file.
    pub queries: Vec<QueryRoute>,
    /// In the order of the file.
    pub streams: Vec<StreamRoute>,
    /// Everything that tunes: listeners, brokers, limits, timeouts.
    pub settings: Settings,
}

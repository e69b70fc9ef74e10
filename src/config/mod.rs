//! The config: one TOML file for routes, one table of settings behind file keys, flags and
//! `SLUICEGATE_*`. It is read once, checked whole, and frozen: a [`Config`] that exists is right in
//! itself, and nobody reads text from it again.
//!
//! Precedence is flag, environment, file, default; [`Origins`] remembers which it was.

mod cli;
mod clusters;
mod cross;
mod cross_kafka;
mod diagnose;
pub mod kind;
mod load;
mod memory;
mod origin;
mod page;
mod pattern;
mod read;
mod read_headers;
mod routes;
mod section;
mod settings;
mod show;
mod template;
#[cfg(test)]
mod tests;
mod topics;
pub mod unit;

pub use cli::{CommandLine, Invocation, Output, colours, command, short_help};
pub use clusters::{CLUSTERS_MAX, ClusterConfig, ClusterIndex, ClusterKeys};
pub use cross::{CORS_NAMES_BYTES_MAX, ENCODINGS_MAX, TOPICS_MAX};
pub use diagnose::{Finding, Report, Severity};
pub use kind::{BrokerAddress, SECRET_BYTES_MAX, SecretSource};
pub use load::{ConfigFile, FILE_BYTES_MAX, Loaded, Sources, load};
pub use memory::{Cap, memory_caps, memory_sum, memory_table};
pub use origin::{Origin, Origins};
pub use page::page;
pub use pattern::{PATTERN_BYTES_MAX, PathPattern, SEGMENTS_MAX, Segment, TextError};
pub use read::ROUTES_MAX;
pub use routes::{
    CommandMethod, CommandRoute, Filter, HeaderNames, Idempotency, Partitioner, QueryRoute, Slow,
    Start, StreamRoute,
};
pub use settings::{
    Admin, Apply, Auth, BATCH_BYTES_MAX, Cache, Commands, Cors, Http, Kafka, KafkaSasl, KafkaTls,
    Log, LogFormat, LogLevel, Mechanism, Setting, Settings, Streams, TABLE,
    TOPIC_IN_FLIGHT_BYTES_MIN, Tls,
};
pub use show::{
    routes_json, routes_text, settings_json, settings_text, verdict_json, verdict_text,
};
pub use template::{Part, Place, TEMPLATE_BYTES_MAX, Template};
pub use topics::TopicUse;
pub use unit::{show_size, show_time};

/// Everything that was decided before the start. Checked: names are unique, templates fit their
/// paths, no route has two owners, the caps fit the memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Names of record headers.
    pub headers: HeaderNames,
    /// Beside that of `settings.kafka`, in the order of the file.
    pub clusters: Vec<ClusterConfig>,
    /// In the order of the file.
    pub commands: Vec<CommandRoute>,
    /// In the order of the file.
    pub queries: Vec<QueryRoute>,
    /// In the order of the file.
    pub streams: Vec<StreamRoute>,
    /// Everything that tunes: listeners, brokers, limits, timeouts.
    pub settings: Settings,
}

//! The config: one TOML file for routes, and one table of settings that are also flags and
//! `SLUICEGATE_*` variables. It is read once, checked as a whole, and then never changes. A
//! [`Config`] that exists is valid by itself: syntax, references between routes, and limits are
//! checked, so no later code parses its text again.
//!
//! A flag overrides the environment, which overrides the file, which overrides the default.
//! [`Origins`] records which of them set each value.

mod certificates;
mod cli;
mod cluster_index;
mod clusters;
mod cross;
mod cross_cors;
mod cross_kafka;
mod cross_listen;
mod cross_tls;
mod curl;
mod diagnose;
pub mod kind;
mod listen;
mod load;
mod memory;
mod networks;
mod origin;
#[cfg(test)]
mod page;
mod params;
mod pattern;
mod read;
mod read_command;
mod read_edge;
mod read_headers;
mod read_params;
#[cfg(test)]
mod recipes;
mod route_edge;
mod routes;
mod section;
mod settings;
mod show;
mod sources;
mod template;
#[cfg(test)]
mod tests;
mod topic_commands;
mod topics;
pub mod unit;

pub use certificates::{CERTIFICATES_MAX, CertificateFiles};
pub use cli::{
    CommandLine, Invocation, NewTopics, Output, TapArgs, TopicsAction, colours, command, short_help,
};
pub use cluster_index::ClusterIndex;
pub use clusters::{CLUSTERS_MAX, ClusterConfig, ClusterKeys};
pub use cross::{ENCODINGS_MAX, TOPICS_MAX};
pub use cross_cors::CORS_NAMES_BYTES_MAX;
pub use curl::{CurlLine, curl_lines};
pub use diagnose::{Finding, Report, Severity};
pub use kind::{BrokerAddress, SECRET_BYTES_MAX, SecretSource};
pub use listen::{Listen, ListenOn};
pub use load::{Loaded, Reason, load};
pub use memory::{
    BARRIER_BYTES_MAX, BODY_CHECKS_MAX, CATCH_UP_PIECES_MAX, CLIENT_LIMITS_BYTES, Cap,
    GZIP_CACHE_BYTES_MAX, GZIP_COLLECTIONS_MAX, GZIP_ENCODER_BYTES, GZIP_JOB_BYTES_MAX,
    OPEN_COMMAND_BYTES, PAGES_BYTES_MAX, PENDING_PRODUCE_BYTES_MAX, PIECE_BYTES_MAX,
    STEP_BYTES_MAX, memory_caps, memory_sum, memory_table,
};
pub use origin::{Origin, Origins};
pub use params::{ParamKind, ParamPlace, ParamRule, QUERY_PARAMS_MAX};
pub use pattern::{PATTERN_BYTES_MAX, PathPattern, SEGMENTS_MAX, Segment, TextError};
pub use read::ROUTES_MAX;
pub use route_edge::{Rate, RouteCors, RouteEdge};
pub use routes::{
    CommandMethod, CommandRoute, Condition, Dedupe, Filter, HeaderNames, Idempotency, InFlight,
    OWN_SEGMENT, OneWayStatus, Partitioner, QueryRoute, SchemaFile, Slow, Start, StreamRoute,
};
pub use settings::{
    Admin, Apply, Auth, BATCH_BYTES_MAX, Cache, ClientAuth, Commands, Cors, HTTP2_STREAMS_MAX,
    Health, Http, Http2, Kafka, KafkaSasl, KafkaTls, Log, LogFormat, LogLevel, Mechanism,
    ProxyHeader, Setting, Settings, Streams, TABLE, TOPIC_IN_FLIGHT_BYTES_MIN, Tls,
};
pub use show::{
    route_lines, routes_json, routes_text, settings_json, settings_text, verdict_json, verdict_text,
};
pub use sources::{ConfigFile, FILE_BYTES_MAX, Sources};
pub use template::{Part, TEMPLATE_BYTES_MAX, Template, TemplateContext};
pub use topic_commands::topic_commands;
pub use topics::TopicUse;
pub use unit::{show_size, show_time};

/// A valid configuration. Names are unique, templates name only parameters of their paths, no two
/// routes match the same requests, and the limits fit `memory` if it is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Names of the record headers that the gateway writes and reads.
    pub headers: HeaderNames,
    /// Certificates besides the one of `settings.tls`, in the order of the file.
    pub certificates: Vec<CertificateFiles>,
    /// Clusters besides the one of `settings.kafka`, in the order of the file.
    pub clusters: Vec<ClusterConfig>,
    /// Routes of `[[command]]`, in the order of the file.
    pub commands: Vec<CommandRoute>,
    /// Routes of `[[query]]`, in the order of the file.
    pub queries: Vec<QueryRoute>,
    /// Routes of `[[stream]]`, in the order of the file.
    pub streams: Vec<StreamRoute>,
    /// Listeners, brokers, limits and timeouts.
    pub settings: Settings,
}

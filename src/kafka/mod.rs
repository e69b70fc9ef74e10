//! Kafka's protocol without I/O: what one home shard needs of one cluster. A [`Client`] takes
//! bytes, outcomes and `now`, and gives bytes, events and its next deadline; sockets, names and
//! clocks are the driver's.
//!
//! A client has five parts:
//! - the *directory*: topics, ids, configs, leaders;
//! - the *reader*: partitions from offsets to [`crate::log::Batch`]es;
//! - the *writer*: records to appended, refused or unknown;
//! - the *ends* of partitions, for barriers;
//! - the ends of *epochs*, which show that an unclean election has cut a log back.
//!
//! They share *links*. A link is one connection to one broker for one purpose, because Kafka
//! answers a connection in order, and a long poll blocks what is behind it.
//!
//! Order of calls in a turn: report what happened (`on_*`, `produce`, `read`, ...), then
//! [`Client::on_time`] once, then drain `next_open`, `next_writable`, `next_close`, `next_event`,
//! then arm a timer for [`Client::next_deadline`].
//!
//! Absent: consumer groups, transactions of our own, topic administration, message formats before
//! v2 (Kafka 4 has none), compression of what we write.

mod backlog;
mod backoff;
mod batch;
mod bounds;
mod brokers;
#[cfg(any(test, fuzzing))]
mod check;
mod client;
mod codes;
mod configs;
mod context;
mod directory;
mod due;
mod ends;
mod epochs;
mod error;
mod event;
mod fetch_session;
mod frames;
mod handshake;
mod link;
mod link_state;
mod links;
mod login;
mod metadata_schedule;
mod metric_event;
mod offsets;
mod pace;
mod partitioner;
mod produce_record;
mod producer;
mod read;
mod reader;
mod reads;
pub mod records;
mod request_tag;
mod requests;
mod sasl;
mod sasl_session;
mod scram;
mod settings;
mod shape;
mod silence;
mod stall;
mod start_offsets;
#[cfg(test)]
mod tests;
mod topics;
mod view;
mod wake;
mod watched_topic;
mod wire;
mod writer;

#[cfg(any(test, fuzzing))]
pub use check::check_any_response;
pub use client::{Client, DirectoryRole};
pub use codes::{BadRecord, CodeMeaning, Denial, Doing};
pub use epochs::EpochEnd;
pub use error::{Code, KafkaError, ProduceError, ProduceRefused, SaslError};
pub use event::{Event, Isolation, Lane, LinkId, Produced, ReadId, ReadKey, StartAt, TopicHandle};
pub use login::Login;
pub use metric_event::MetricEvent;
pub use partitioner::partition_of;
pub use produce_record::ProduceRecord;
pub use records::RecordError;
pub use sasl::{Entropy, Sasl};
pub use scram::{SaltRequest, Salted, ScramHash};
pub use settings::{Address, Settings};
pub use view::{
    BrokerId, BrokerView, ClusterView, Leader, MissingReason, TopicConfig, TopicEntry, TopicState,
    TopicView,
};

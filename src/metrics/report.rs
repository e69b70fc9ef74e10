//! The report that a shard sends to the control thread on request: readiness, metrics and status.
//! It is a copy made in one turn and shares no state.

use serde::Serialize;

use super::ShardMetrics;

/// The report of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Conditions of readiness. The process is ready if all conditions of all shards hold.
    pub checks: Vec<Check>,
    /// The shard's metrics at that turn.
    pub metrics: ShardMetrics,
    /// The shard's part of `/status`.
    pub status: ShardStatus,
}

/// One condition of readiness, as in `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked, such as "topic payments", "kafka", "listening".
    pub name: String,
    /// Whether the condition holds: routes that need it are served, if only from memory.
    pub ok: bool,
    /// The state of the condition in more detail.
    pub state: CheckState,
    /// The progress, or the problem and what to do. May be empty if the condition holds.
    pub detail: String,
}

/// The state of a condition, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// The condition holds without limits.
    Ready,
    /// Data in memory is served. Everything else waits for brokers, or for an operator.
    Degraded,
    /// The condition will hold without an operator.
    Loading,
    /// The condition cannot hold until an operator corrects what the detail names.
    Blocked,
}

impl Check {
    /// Creates a condition in this state.
    #[must_use]
    pub fn new(name: impl Into<String>, state: CheckState, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: state <= CheckState::Degraded,
            state,
            detail: detail.into(),
        }
    }
}

/// Status of one shard, for `/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardStatus {
    /// Number of turns so far.
    pub turns: u64,
    /// Connections of clients that are open.
    pub connections: u64,
    /// Streams of clients that are open.
    pub streams: u64,
    /// Commands in flight at this home.
    pub commands_open: u64,
    /// Exchanges that wait for one of these commands.
    pub commands_waiting: u64,
    /// Commands that wait at this home to be decided.
    pub barriers: BarrierStatus,
    /// Whether the shard rejects new work.
    pub draining: bool,
    /// The brokers that this home connects to.
    pub brokers: Vec<BrokerStatus>,
    /// The topics with their home on this shard.
    pub topics: Vec<TopicStatus>,
}

/// Commands that wait until their home has read what was readable when they arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BarrierStatus {
    /// Commands that wait now.
    pub waiting: u64,
    /// Bytes that they take, with their bodies.
    pub waiting_bytes: u64,
    /// How long the command has waited whose deadline is next, in milliseconds. At most 1 s.
    pub longest_wait_ms: u64,
    /// Questions to the leaders so far.
    pub rounds: u64,
    /// Commands that waited so far and could be decided.
    pub passed: u64,
    /// Commands that waited so far and could not be decided. They got 503.
    pub refused: u64,
}

/// One shard's view of a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BrokerStatus {
    /// The broker's address, or `other` for all beyond the first 64.
    pub broker: String,
    /// Connections to the broker that are open.
    pub connections: u64,
    /// Connections to the broker established so far.
    pub connected: u64,
    /// Connections that failed so far.
    pub failed: u64,
    /// Error of the last failed connection.
    pub last_failure: Option<String>,
    /// Failed requests, or failed partitions of requests.
    pub requests_failed: u64,
    /// Requests with a response, without fetches.
    pub requests: u64,
    /// Sum of their response times in microseconds.
    pub request_micros: u64,
}

/// A topic, as its home sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicStatus {
    /// The name of the topic.
    pub topic: String,
    /// Sequence number of the last step.
    pub seq: u64,
    /// Whether the topic has been read up to the end it had when loading started.
    pub loaded: bool,
    /// Bytes of encoded events in the window.
    pub window_bytes: u64,
    /// The commands whose replies are read from the topic. `None`: no route reads replies there.
    pub replies: Option<RepliesStatus>,
    /// The unanswered commands that routes with `dedupe = "strict"` do not append again. `None`:
    /// there is no such route, or the index belongs to another topic.
    pub unanswered: Option<UnansweredStatus>,
    /// Status of each partition. The gateway has no consumer group, so lag is shown here.
    pub partitions: Vec<PartitionStatus>,
}

/// The commands of one replies topic, as its home sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepliesStatus {
    /// Stored replies that retries can find.
    pub stored: u64,
    /// For how long a reply is recognised, in seconds. `None`: for as long as the memory lasts.
    pub window_seconds: Option<u64>,
    /// Whether memory makes that shorter than the topic's retention.
    pub cut: bool,
    /// Commands in flight.
    pub in_flight: u64,
    /// Clients that wait for one of them.
    pub waiting: u64,
    /// Clients with a command in flight.
    pub clients: u64,
}

/// The index of unanswered commands, as its home sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnansweredStatus {
    /// Commands without a reply, of all instances.
    pub commands: u64,
    /// For how long a command without a reply is known, in seconds.
    pub window_seconds: u64,
    /// Whether memory makes that shorter than `commands.open_limit`.
    pub cut: bool,
}

/// A partition, as its home sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// The number of the partition.
    pub partition: u32,
    /// The next offset that the home reads.
    pub next_offset: u64,
    /// One past the last record that no open transaction may abort, as far as known.
    pub last_stable_offset: u64,
    /// One past the last fully replicated record.
    pub high_watermark: u64,
    /// Records between the next offset and the last stable offset.
    pub lag: u64,
    /// Fetched bytes that the shards have not applied yet.
    pub in_flight_bytes: u64,
    /// How often the partition was paused.
    pub paused: u64,
    /// Errors in brokers' responses to fetches and produces of the partition.
    pub failed: u64,
}

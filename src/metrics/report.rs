//! What a shard tells the control thread when asked: is it ready, what has it counted, how does it
//! stand. A copy, made in one turn; nothing in it is shared.

use serde::Serialize;

use super::ShardMetrics;

/// One shard's answer.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// What must hold for the shard to be ready. All must, over all shards.
    pub checks: Vec<Check>,
    /// What was counted.
    pub metrics: ShardMetrics,
    /// How it stands.
    pub status: ShardStatus,
}

/// One condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked: "topic payments", "kafka", "listening".
    pub name: String,
    /// Whether it holds: what depends on it is served, if only from memory.
    pub ok: bool,
    /// The same in more words.
    pub state: CheckState,
    /// How far it is, or what is wrong and what to do. May be empty when it holds.
    pub detail: String,
}

/// How a condition stands, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It holds.
    Ready,
    /// What is in memory is served; the rest has to wait for brokers, or for an operator.
    Degraded,
    /// It will hold by itself.
    Loading,
    /// It can't hold until somebody mends what its detail names.
    Blocked,
}

impl Check {
    /// A condition that stands so.
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

/// How a shard stands, for `/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardStatus {
    /// Turns so far.
    pub turns: u64,
    /// Connections of clients.
    pub connections: u64,
    /// Streams.
    pub streams: u64,
    /// Commands without a reply, of the routes whose home this is.
    pub commands_open: u64,
    /// Whether it takes no new work.
    pub draining: bool,
    /// The brokers that its topics' home talks with.
    pub brokers: Vec<BrokerStatus>,
    /// The topics whose home this is.
    pub topics: Vec<TopicStatus>,
}

/// A broker, as a shard sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BrokerStatus {
    /// Where it listens; `other`: those beyond the first 64.
    pub broker: String,
    /// Connections that stand.
    pub connections: u64,
    /// Connections made so far.
    pub connected: u64,
    /// Connections that failed or broke.
    pub failed: u64,
    /// Why the last of them did.
    pub last_failure: Option<String>,
    /// Requests that failed, or partitions of them.
    pub requests_failed: u64,
    /// Requests answered, without fetches.
    pub requests: u64,
    /// How long they took, added up.
    pub request_micros: u64,
}

/// A topic at its home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicStatus {
    /// Its name.
    pub topic: String,
    /// The last step's number.
    pub seq: u64,
    /// Whether it has been read to where its end was when loading began.
    pub loaded: bool,
    /// Bytes of encoded events kept.
    pub window_bytes: u64,
    /// Each partition. There is no consumer group to ask for lag.
    pub partitions: Vec<PartitionStatus>,
}

/// A partition at its home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u32,
    /// The next offset to read.
    pub next_offset: u64,
    /// One past the last record that no open transaction may take back, as far as known.
    pub last_stable_offset: u64,
    /// One past the last replicated record.
    pub high_watermark: u64,
    /// Records between the next offset and the last stable one.
    pub lag: u64,
    /// Fetched bytes on their way to the shards.
    pub in_flight_bytes: u64,
    /// Times it was left out of fetches.
    pub paused: u64,
    /// Errors that brokers answered to fetches and produces of it.
    pub failed: u64,
}

//! Counters, gauges and histograms. Each shard has a set of plain integers. A reader gets a copy of
//! each set, adds them up, and writes them as Prometheus text. Labels come from enums and from
//! names of the config, so the number of time series is known before the start.

mod family;
mod histogram;
mod labels;
#[cfg(test)]
mod page;
mod report;
mod shard;
mod table;
mod text;

pub use family::{By, Counter, Gauge, Label, Seconds};
pub use histogram::{BOUNDS, Histogram};
pub use labels::{
    AcceptRefusal, BarrierFailure, CloseReason, CommandLimit, CommandOutcome, GoAwayCause,
    IgnoredReply, KafkaApi, KafkaFailure, ResetBy, RouteKind, StatusClass, StreamEnd,
    StreamRefusal,
};
pub use report::{
    BarrierStatus, BrokerStatus, Check, CheckState, PartitionStatus, RepliesStatus, ShardReport,
    ShardStatus, TopicStatus, UnansweredStatus,
};
pub use shard::{BROKERS_MAX, Names, PARTITIONS_MAX, ShardMetrics};
pub use table::{
    BrokerMetrics, CommandMetrics, General, KafkaMetrics, PartitionMetrics, ProcessMetrics,
    RouteMetrics, StreamMetrics, TopicMetrics,
};
pub use text::{CONTENT_TYPE, Exposition, Samples};

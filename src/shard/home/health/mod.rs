//! Whether a cluster and its topics work, and what keeps them from it: what `/readyz`, `/status`,
//! the log and clients learn about it.
//!
//! [`ClusterHealth`] knows which brokers fail. [`TopicHealth`] knows whether a topic exists, fits
//! its routes, is read without errors and is confirmed by brokers. Its [`WriteHealth`] knows
//! whether brokers accept what commands write. All of them receive events and return what to log.
//! None sends a message or asks a broker.

mod cluster;
mod line;
mod staleness;
mod stalls;
mod topic;
mod writes;

pub(super) use cluster::ClusterHealth;
pub(super) use line::Line;
pub(super) use topic::{ReadPosition, Shortcomings, TopicHealth, TopicReads, compacted};
pub(super) use writes::{WriteHealth, Written};

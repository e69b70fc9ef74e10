//! Sluicegate: a CQRS gateway that puts Kafka behind plain HTTP. `docs/ARCHITECTURE.md` is the map.
//!
//! Rooms import upwards only, and only what the table there names; `tests/it/tidy.rs` holds them to
//! it.

#![cfg_attr(
    test,
    allow(clippy::cast_possible_truncation, reason = "test data is small")
)]

pub mod auth;
pub mod boot;
#[cfg(feature = "demo")]
pub mod broker;
pub mod cache;
pub mod command;
pub mod config;
pub mod control;
#[cfg(feature = "demo")]
pub mod demo;
pub mod http;
pub mod kafka;
pub mod log;
pub mod metrics;
pub mod model;
pub mod reactor;
pub mod route;
pub mod schema;
pub mod shape;
pub mod shard;
pub mod sse;
#[allow(unsafe_code)]
pub mod sys;
pub mod tls;

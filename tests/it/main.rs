//! Integration tests, in one binary so that it is built once. The modules that `tests/run` names:
//!
//! - `edge::` the scenarios of `scenarios/` on the development broker, and what needs no cluster or a
//!   broken one: raw bytes, starts that fail, TLS, the soak
//! - `kafka::` the same scenarios on real Apache Kafka (`SLUICEGATE_TEST_BOOTSTRAP=host:port`: on any
//!   cluster), and what only real nodes can do: die; older releases, another fake, rskafka's defects
//! - `ledger::` three nodes, every fault, and a ledger: 0 lost, 0 doubled, 0 reordered
//! - `demo::` the demo in a real browser
//! - `dev::` `init`, `dev`, `topics` and the pages of documents with commands, as a new user runs them
//! - `fleet::` the simulated fleet
//! - `tidy::` the rules of the house, read from the source
//! - `alloc::` what the hot path may not do
//!
//! The rest are the tests' own instruments; none of them shares code with what it looks at.

#![allow(clippy::unwrap_used, unreachable_pub)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

mod admin;
mod alloc;
mod app;
mod chunks;
mod client;
mod cluster;
mod demo;
mod dev;
mod edge;
mod events;
mod figures;
mod fleet;
mod gateway;
mod ground;
mod kafka;
mod kcat;
mod ledger;
mod metrics_page;
mod process;
mod racks;
mod rdk;
mod scenarios;
mod service;
mod services;
mod tidy;
mod unclean;

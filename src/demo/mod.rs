//! `sluicegate demo`: a complete system in one command, offline.
//!
//! One parent process runs everything around a gateway: a Kafka-compatible broker (the development
//! broker behind a socket, in memory, not for production), a service that owns accounts and
//! payments, and a web page. The gateway is a *child* process, started as an operator would start
//! it (`sluicegate run --config …`), so that a button on the page can kill and restart it without
//! losing anything. This room is a client of the gateway: it knows its HTTP interface and its
//! config file, and nothing of its internals.

mod addresses;
mod child;
#[cfg(test)]
mod child_tests;
mod dev;
mod faults;
mod init;
pub mod listener;
mod outside;
mod page;
#[cfg(test)]
mod page_tests;
mod parent;
mod payments;
mod service;
mod topics;
mod watchers;

pub use child::GatewayError;
pub use dev::{DevBrokers, DevError, refusals as dev_refusals};
pub use init::{Example, InitArgs, InitError, Language, init};
pub use parent::{DemoArgs, DemoError, Output, run};

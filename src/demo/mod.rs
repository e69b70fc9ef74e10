//! `sluicegate demo`: the whole picture in one command, offline.
//!
//! One parent process holds what stands around a gateway in real life: a Kafka-compatible broker
//! (the development broker behind a socket, in memory, not for production), a service that owns
//! accounts and payments, and a web page. The gateway is the parent's *child*, started as anyone
//! would start it (`sluicegate run --config …`), so that it can be killed and restarted from a
//! button on the page with nothing lost. This room is a client of the gateway: it knows its HTTP
//! face and its config file, and nothing of its insides.

mod away;
mod child;
#[cfg(test)]
mod child_tests;
pub mod listener;
mod page;
#[cfg(test)]
mod page_tests;
mod parent;
mod payments;
mod places;
mod service;
mod topics;

pub use child::GatewayError;
pub use parent::{DemoArgs, DemoError, Output, run};

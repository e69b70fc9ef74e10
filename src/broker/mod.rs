//! The development broker: a whole Kafka-compatible cluster of 1 to N nodes as one pure struct, in
//! memory, bounded, **not for production**: nothing is on disk and nothing is replicated.
//!
//! Mental model: bytes of a connection come in ([`Broker::on_bytes`]), requests are answered one
//! after the other as Kafka does (a long poll holds what is behind it), answers wait to be written
//! ([`Broker::outgoing`]). Time comes in with every call; [`Broker::next_deadline`] says when the
//! broker must be called without bytes. The same seed and the same calls give the same bytes.
//!
//! Three users share it: the demo gives it a socket, the simulated fleet gives it faults and virtual
//! time, integration tests give it a socket and faults. Faults are methods (`move_leader`,
//! `unclean_election`, `freeze_node`, ...), named after what happens to a cluster.
//!
//! Left out on purpose: consumer groups, security, quotas by configuration, replication as a
//! process (followers are never behind).

mod batch;
mod codec;
mod face;
mod settings;

pub use face::{ConnectionId, DumpedRecord, NodeId, Refusal, Violation};
pub use settings::{Profile, Settings};

//! What a process asks of its reactor, in one struct, checked once.

use std::net::SocketAddr;
use std::time::Duration;

use super::ReactorError;
use crate::model::SHARDS_MAX;

/// Connections that wait in the kernel for one listening socket. Linux cuts it to
/// `net.core.somaxconn`, 4096 by default.
pub const BACKLOG: i32 = 4096;

/// The reactor's settings. Defaults are those of `docs/config.md`; tests shrink them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cpus to pin shards to, in turn; empty: shards float, which only tests want.
    pub cpus: Vec<usize>,
    /// Addresses to listen on; the place in this list is the
    /// [`ListenerId`](crate::shard::ListenerId). Port 0 is any free port, the same for all shards.
    pub listeners: Vec<SocketAddr>,
    /// Whether another process, such as the next version of this one, may share the ports. Then
    /// clients are refused until [`Running::accept`](super::Running::accept), because the kernel
    /// would give each process a share of them.
    pub reuse_port: bool,
    /// A client that acknowledges nothing for this time has vanished, and its connection is closed.
    pub vanished_after: Duration,
    /// A client whose descriptor has this number or a larger one is closed at once. The rest is
    /// reserved for brokers, the admin port and the next client that must be closed.
    pub client_descriptors_max: u64,
    /// The first so many shards take no clients (`--kafka-shards`). Fewer than there are shards.
    pub shards_without_clients: u16,
    /// Bytes of registered buffers glommio takes per executor; we use none of them.
    pub io_memory_bytes: usize,
    /// Depth of glommio's three rings and of ours, a power of two, at least 128.
    pub ring_depth: u32,
    /// Completions our ring holds, a power of two, at least twice `ring_depth`. Past it the kernel
    /// keeps them in a list of its own, so this is speed and not correctness.
    pub completions: u32,
    /// Sockets one shard may have, clients and brokers together. A client past it is closed at
    /// once.
    pub sockets_max: u32,
    /// Batches (one a peer and turn) that wait in a shard's inbox. A full inbox delays its senders'
    /// outboxes; nothing is dropped.
    pub inbox_batches_max: usize,
    /// Time for [`Part::BrokerReads`](crate::shard::Part::BrokerReads) in one turn.
    pub broker_reads_budget: Duration,
    /// Time for [`Part::Serve`](crate::shard::Part::Serve) in one turn.
    pub serve_budget: Duration,
    /// Time for [`Part::Ingest`](crate::shard::Part::Ingest) in one turn.
    pub ingest_budget: Duration,
    /// Time for [`Part::Deliver`](crate::shard::Part::Deliver) in one turn.
    pub deliver_budget: Duration,
    /// How long one address of an outgoing connection is tried.
    pub connect_timeout: Duration,
    /// A shard turns at least this often, so that the watchdog can tell it lives. At most 1 s.
    pub turn_every: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            cpus: Vec::new(),
            listeners: Vec::new(),
            reuse_port: false,
            vanished_after: Duration::from_secs(30),
            client_descriptors_max: u64::MAX,
            shards_without_clients: 0,
            io_memory_bytes: 512 << 10,
            ring_depth: 1024,
            completions: 16 << 10,
            sockets_max: 1 << 20,
            inbox_batches_max: 1024,
            broker_reads_budget: Duration::from_micros(250),
            serve_budget: Duration::from_micros(250),
            ingest_budget: Duration::from_micros(250),
            deliver_budget: Duration::from_micros(250),
            connect_timeout: Duration::from_secs(10),
            turn_every: Duration::from_millis(500),
        }
    }
}

impl Plan {
    /// Says what does not fit together, before a thread is started.
    pub(super) fn check(&self, shards: usize) -> Result<(), ReactorError> {
        let faults = [
            (shards == 0, "no shard"),
            (
                shards > usize::from(SHARDS_MAX),
                "more shards than a process may have",
            ),
            (
                usize::from(self.shards_without_clients) >= shards,
                "no shard is left for clients",
            ),
            (
                self.listeners.len() > 256,
                "more than 256 listening addresses",
            ),
            (
                !self.ring_depth.is_power_of_two() || self.ring_depth < 128,
                "a ring depth that is no power of two from 128",
            ),
            (
                !self.completions.is_power_of_two() || self.completions < 2 * self.ring_depth,
                "a completion queue that is no power of two from twice the ring depth",
            ),
            (
                self.sockets_max == 0 || self.sockets_max > crate::sys::SLOTS_MAX,
                "a limit of sockets outside 1 to 16 Mi",
            ),
            (self.inbox_batches_max == 0, "an inbox without room"),
            (
                self.turn_every.is_zero() || self.turn_every > Duration::from_secs(1),
                "turns further apart than a second",
            ),
        ];
        match faults.iter().find(|(broken, _)| *broken) {
            Some((_, why)) => Err(ReactorError::Plan(why)),
            None => Ok(()),
        }
    }
}

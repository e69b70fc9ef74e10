//! The settings of the reactor, checked once before a thread starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ReactorError;
use crate::model::SHARDS_MAX;

/// Most connections in the kernel's queue of one listening socket. Linux reduces it to
/// `net.core.somaxconn`, 4096 by default.
pub const BACKLOG: i32 = 4096;

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPlace {
    /// The path of its file.
    pub path: PathBuf,
    /// The permissions of its file.
    pub mode: u32,
}

/// Settings of the reactor. The defaults are those of `docs/config.md`; tests use smaller ones.
#[derive(Clone, Debug)]
pub struct Plan {
    /// CPUs to pin shards to, in turn. If empty, the kernel places the shards.
    pub cpus: Vec<usize>,
    /// Addresses to listen on. The index in this list is the
    /// [`ListenerId`](crate::shard::ListenerId). Port 0 is any free port, the same for all shards.
    pub listeners: Vec<SocketAddr>,
    /// Unix sockets to listen on. Their [`ListenerId`](crate::shard::ListenerId)s follow those of
    /// the addresses. All shards share the queue of each.
    pub unix: Vec<UnixPlace>,
    /// Whether another process, such as the next version of this one, may share the ports. Then
    /// clients are refused until [`Running::accept`](super::Running::accept), because the kernel
    /// would give each process a share of them.
    pub reuse_port: bool,
    /// A client that acknowledges nothing for this time has vanished, and its connection is closed.
    pub vanished_after: Duration,
    /// A client with this descriptor number or a larger one is closed at once. The rest is reserved
    /// for brokers, the admin port and the next client that must be closed.
    pub client_descriptors_max: u64,
    /// The first shards, this many, accept no clients (`--kafka-shards`). Fewer than there are
    /// shards.
    pub shards_without_clients: u16,
    /// Bytes of registered buffers that glommio allocates per executor. The reactor uses none of
    /// them.
    pub io_memory_bytes: usize,
    /// Depth of glommio's three rings and of the shard's ring: a power of two, at least 128.
    pub ring_depth: u32,
    /// Completions that the shard's ring holds: a power of two, at least twice `ring_depth`. Beyond
    /// it the kernel keeps completions in a list of its own, which is slower but loses none.
    pub completions: u32,
    /// Most sockets of one shard, clients and brokers together. A client beyond it is closed at
    /// once.
    pub sockets_max: u32,
    /// Most batches (one per sender and turn) in a shard's inbox. If it is full, messages wait in
    /// the senders' outboxes; none is dropped.
    pub inbox_batches_max: usize,
    /// Time budget of [`Part::Messages`](crate::shard::Part::Messages) in one turn.
    pub messages_budget: Duration,
    /// Time budget of [`Part::Serve`](crate::shard::Part::Serve) in one turn.
    pub serve_budget: Duration,
    /// Time budget of [`Part::Answer`](crate::shard::Part::Answer) in one turn.
    pub answer_budget: Duration,
    /// Time budget of [`Part::Kafka`](crate::shard::Part::Kafka) in one turn.
    pub kafka_budget: Duration,
    /// Time budget of [`Part::Deliver`](crate::shard::Part::Deliver) in one turn.
    pub deliver_budget: Duration,
    /// Longest time for one address of an outgoing connection. An address with others after it gets
    /// less.
    pub connect_timeout: Duration,
    /// Longest time between two turns of a shard, so that the watchdog can see that it runs. At
    /// most 1 s.
    pub turn_every: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            cpus: Vec::new(),
            listeners: Vec::new(),
            unix: Vec::new(),
            reuse_port: false,
            vanished_after: Duration::from_secs(30),
            client_descriptors_max: u64::MAX,
            shards_without_clients: 0,
            io_memory_bytes: 512 << 10,
            ring_depth: 1024,
            completions: 16 << 10,
            sockets_max: 1 << 20,
            inbox_batches_max: 1024,
            messages_budget: Duration::from_micros(250),
            serve_budget: Duration::from_micros(250),
            answer_budget: Duration::from_micros(250),
            kafka_budget: Duration::from_micros(250),
            deliver_budget: Duration::from_micros(250),
            connect_timeout: Duration::from_secs(10),
            turn_every: Duration::from_millis(500),
        }
    }
}

impl Plan {
    /// Rejects values that contradict each other, before a thread starts.
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
                self.listeners.len() + self.unix.len() > 256,
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

//! The development broker: a whole Kafka-compatible cluster of 1 to N nodes as one pure struct, in
//! memory, bounded, **not for production**: nothing is on disk and nothing is replicated.
//!
//! Mental model: the driver passes in the bytes of connections ([`Broker::on_bytes`]) and writes
//! out responses ([`Broker::outgoing`]). As in Kafka, the requests of a connection are answered one
//! after the other, so a long poll holds up the requests behind it. Every call brings the time;
//! [`Broker::next_deadline`] is when the broker must be called without bytes. The same seed and the
//! same calls give the same bytes.
//!
//! The cluster is made of parts that own their state: the nodes, the store of topics and
//! logs, the transaction coordinator, fetch sessions, planned faults. Each API borrows the parts
//! that it may touch.
//!
//! Three users share it: the demo gives it a socket, the simulated fleet gives it faults and
//! virtual time, integration tests give it a socket and faults. Faults are methods (`move_leader`,
//! `unclean_election`, `freeze_node`, ...), named after what happens to a cluster.
//!
//! It serves what librdkafka's, rskafka's and this product's own clients use: records with all
//! codecs, idempotent and transactional producers, both isolation levels, leader epochs, fetch
//! sessions, consumer groups of the classic protocol, retention, compaction, administration. Its
//! responses were compared with those of a real Kafka 4.3.1. Absent on purpose: groups of the
//! protocol of KIP-848, security, quotas by configuration, rack-aware reads, replication as a
//! process (no follower is ever behind, so the high watermark is the log's end).

mod aborted;
mod admin;
mod apis;
mod batch;
mod cluster;
mod codec;
mod compaction;
mod configs;
mod connections;
mod context;
mod coordinator;
mod faults;
mod fetch;
mod fetch_session;
mod group_members;
mod group_offsets;
mod groups;
mod log;
mod metadata;
mod nodes;
mod nouns;
mod offsets;
mod planned_faults;
mod produce;
mod producers;
mod settings;
mod shape;
mod store;
mod stored;
#[cfg(test)]
mod tests;
mod topic_admin;
mod topic_config;
mod topics;
mod transactions;
mod validation;

pub use faults::Failing;
pub use kafka_protocol::error::ResponseError;
pub use nouns::{ConnectionId, DumpedRecord, NodeId, Refusal, Violation};
pub use planned_faults::Right;
pub use settings::{Profile, Settings};

use cluster::Cluster;
use connections::Connections;

use crate::model::{Instant, Now};

/// A cluster and the connections to it.
#[derive(Debug)]
pub struct Broker {
    cluster: Cluster,
    connections: Connections,
    now: Now,
}

impl Broker {
    /// A cluster without topics. `seed` decides topic ids.
    ///
    /// # Panics
    /// If `settings.nodes` is not within 1 to [`Settings::NODES_MAX`].
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            cluster: Cluster::new(settings, seed),
            connections: Connections::default(),
            now: Now::default(),
        }
    }

    /// The nodes, running or not, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.cluster.settings.nodes).map(NodeId)
    }

    /// Sets the address of `node` that Metadata returns. Before, it is `127.0.0.1:0`.
    pub fn advertise(&mut self, node: NodeId, host: &str, port: u16) {
        self.cluster.nodes.advertise(node, host, port);
    }

    /// Opens a connection to `node`. Returns `None` if the node is stopped or there are too many
    /// connections: close the socket.
    pub fn on_connect(&mut self, node: NodeId) -> Option<ConnectionId> {
        let room = self.connections.len() < self.cluster.settings.connections_max;
        (room && self.cluster.nodes.is_running(node)).then(|| self.connections.open(node))
    }

    /// Ends a connection: its end was read, its socket failed, or the driver closed it.
    pub fn on_disconnect(&mut self, connection: ConnectionId) {
        self.connections.close(connection);
    }

    /// Whether the broker can use more bytes of a connection now. If not, leave them in the socket,
    /// and ask again after the next response was written or the next deadline passed.
    #[must_use]
    pub fn wants_bytes(&self, connection: ConnectionId) -> bool {
        self.connections.wants_bytes(connection, &self.cluster)
    }

    /// Takes bytes as they came from the client's socket, split anywhere.
    ///
    /// # Errors
    /// Close the connection, then call [`Self::on_disconnect`]. What [`Self::outgoing`] has may be
    /// written first.
    pub fn on_bytes(
        &mut self,
        connection: ConnectionId,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), Violation> {
        self.now = now;
        self.connections.push(connection, bytes, &self.cluster)?;
        let advanced = self.connections.advance(connection, &mut self.cluster, now);
        self.wake_polls();
        advanced
    }

    /// Bytes to write to a client.
    #[must_use]
    pub fn outgoing(&self, connection: ConnectionId) -> &[u8] {
        self.connections.outgoing(connection, &self.cluster)
    }

    /// The socket took the first `n` bytes of [`Self::outgoing`].
    pub fn on_written(&mut self, connection: ConnectionId, n: usize) {
        self.connections.on_written(connection, n);
        // A client that reads its responses again may have requests waiting.
        self.connections
            .advance_or_cut(connection, &mut self.cluster, self.now);
        self.wake_polls();
    }

    /// The next connection that has bytes to write since this last returned it.
    pub fn next_writable(&mut self) -> Option<ConnectionId> {
        self.connections.next_writable(&self.cluster)
    }

    /// The next connection that the broker has cut, because of a fault or of bytes behind a long
    /// poll that it can't answer. Close the socket; the id is no longer valid.
    pub fn next_cut(&mut self) -> Option<ConnectionId> {
        self.connections.next_cut()
    }

    /// When to call [`Self::on_time`] next. `None`: nothing waits for time to pass.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let cluster = self.cluster.next_deadline();
        [self.connections.next_deadline(), cluster]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due: long polls, throttles, timeouts of transactions, retention, compaction.
    pub fn on_time(&mut self, now: Now) {
        self.now = now;
        self.cluster.on_time(now);
        self.connections.on_time(&mut self.cluster, now);
        self.wake_polls();
    }

    /// Answers the polls that a change ended.
    fn wake_polls(&mut self) {
        self.connections.wake(&mut self.cluster, self.now);
        self.cluster.schedule_upkeep(self.now);
    }
}

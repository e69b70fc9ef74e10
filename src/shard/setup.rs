//! What a shard is made from; the rest comes with its first snapshot.

use std::sync::Arc;

use crate::kafka::{Entropy, Sasl};
use crate::model::ShardId;
use crate::tls::{Acceptor, Connector};

use super::random::RandomKey;
use super::totals::ClientTotals;

/// What a shard is made from. Everything else comes with its first snapshot.
#[derive(Debug)]
pub struct ShardSetup {
    /// The number of this shard in the process.
    pub me: ShardId,
    /// All its randomness: hash seeds, jitter, the idempotency hashes of commands without a key.
    pub key: RandomKey,
    /// How connections of each listener begin, by [`ListenerId`](super::ListenerId). Those of
    /// listeners that are not in the list begin with HTTP.
    pub listeners: Arc<[ListenerKind]>,
    /// What TLS listeners accept clients with.
    pub tls: Option<Acceptor>,
    /// What connections to each cluster need, by `ClusterId`.
    pub security: Vec<ClusterSecurity>,
    /// What clients use, summed over all shards of the process.
    pub totals: Arc<ClientTotals>,
}

/// How the connections of a listener begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerKind {
    /// With a TLS handshake.
    pub tls: bool,
    /// With a header of the PROXY protocol, before anything else.
    pub proxy_protocol: bool,
    /// The listener is a Unix socket: its clients are on this machine, and have the permission to
    /// connect.
    pub is_unix: bool,
}

/// What connections to one cluster need, read and ready: files are read before a shard is made.
#[derive(Clone, Debug)]
pub struct ClusterSecurity {
    /// How TLS connections are made. `None`: connections are plaintext.
    pub tls: Option<Connector>,
    /// How connections authenticate. `None`: without SASL.
    pub sasl: Option<Sasl>,
    /// For SASL's nonces; each shard's and each cluster's own.
    pub entropy: Entropy,
}

impl ClusterSecurity {
    /// Plaintext connections to the cluster, without authentication.
    #[must_use]
    pub const fn none() -> Self {
        let (tls, sasl, entropy) = (None, None, Entropy([0; 32]));
        Self { tls, sasl, entropy }
    }
}

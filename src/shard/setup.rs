//! What a shard is made from; the rest comes with its first snapshot.

use std::sync::Arc;

use crate::kafka::{Entropy, Sasl};
use crate::model::ShardId;
use crate::tls::{Acceptor, Connector};

use super::io::ListenerId;
use super::random::RandomKey;
use super::totals::ClientTotals;

/// What a shard is told when it is made; all else comes with its first snapshot.
#[derive(Debug)]
pub struct ShardSetup {
    /// Its place.
    pub me: ShardId,
    /// All its randomness: hash seeds, jitter, the idempotency hashes of commands without a key.
    pub key: RandomKey,
    /// The first listener that speaks TLS, and its certificate. Listeners before it are plain.
    pub tls: Option<(ListenerId, Acceptor)>,
    /// What connections to each cluster need, by `ClusterId`.
    pub security: Vec<ClusterSecurity>,
    /// What clients use, summed over all shards of the process.
    pub totals: Arc<ClientTotals>,
}

/// What connections to one cluster need to be let in, read and ready: files are read before a
/// shard is made.
#[derive(Clone, Debug)]
pub struct ClusterSecurity {
    /// `None`: plaintext.
    pub tls: Option<Connector>,
    /// `None`: nobody is asked who we are.
    pub sasl: Option<Sasl>,
    /// For SASL's nonces; each shard's and each cluster's own.
    pub entropy: Entropy,
}

impl ClusterSecurity {
    /// Plaintext, and nobody is asked.
    #[must_use]
    pub const fn none() -> Self {
        let (tls, sasl, entropy) = (None, None, Entropy([0; 32]));
        Self { tls, sasl, entropy }
    }
}

//! Record keys by hash, the same on every peer that shares the secret.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::ShardId;

/// The key of the ownership hash. Peers of one fleet must share it, or their cursors differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret([u8; 16]);

impl HashSecret {
    /// Takes the secret's bytes as they are.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The secret of a fleet that was given none: derived from what all its peers see, such as the
    /// cluster's id.
    #[must_use]
    pub fn derived_from(seen: &[u8]) -> Self {
        let half = |key: u64| {
            let mut hasher = SipHasher13::new_with_keys(key, 0);
            hasher.write(seen);
            hasher.finish().to_be_bytes()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half(1));
        bytes[8..].copy_from_slice(&half(2));
        Self(bytes)
    }

    /// The hash of a record key under this secret (SipHash-1-3, keyed: a client that can choose
    /// keys cannot choose the shard that owns them).
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(key);
        KeyHash(hasher.finish())
    }
}

impl std::fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// A record key's 64-bit hash: owner of the key, place in a collection, entry of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The shard that owns this hash: ranges, so a collection in hash order visits shards in order.
    /// `slices` is how many shards own keys, counted from `first`.
    #[must_use]
    pub fn owner(self, first: ShardId, slices: u16) -> ShardId {
        debug_assert!(slices > 0, "somebody owns the keys");
        let range = (u128::from(self.0) * u128::from(slices)) >> 64;
        ShardId(first.0 + range as u16)
    }
}

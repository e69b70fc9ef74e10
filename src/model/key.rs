//! Hashes of record keys, the same on every instance with the same secret.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::ShardId;
use super::narrow::{in_proportion, u16_of};

/// The secret of the key hash. Instances of one fleet must share it, or their collection cursors
/// differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret([u8; 16]);

impl HashSecret {
    /// Creates a secret from its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Derives the secret of a fleet without a configured one from `seen`, which all its instances
    /// know, such as the cluster's id.
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

    /// Hashes a record key (SipHash-1-3). The hash is keyed so that a client that chooses record
    /// keys cannot choose the shard that owns them.
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

/// The 64-bit hash of a record key. It selects the key's shard, its position in a collection and
/// its entry in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The shard that owns this hash. Each shard owns a range of hashes, so a collection in hash
    /// order visits shards in order. `slices` shards own keys, starting with `first`.
    #[must_use]
    pub fn owner(self, first: ShardId, slices: u16) -> ShardId {
        debug_assert!(slices > 0, "somebody owns the keys");
        let range = in_proportion(self.0, usize::from(slices));
        ShardId(first.0 + u16_of(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attacker that knows the hash but not the secret chooses keys that one shard would own
    /// under a secret of its own. Under the real one they are spread.
    #[test]
    fn keys_that_an_attacker_chose_are_spread_over_the_shards() {
        const SHARDS: u16 = 8;
        let theirs = HashSecret::derived_from(b"a guess");
        let ours = HashSecret::derived_from(b"what the topic's log says");
        let keys = (0_u32..).map(|n| format!("key-{n}"));
        let owner = |secret: &HashSecret, key: &str| {
            let owner = secret.hash(key.as_bytes()).owner(ShardId(0), SHARDS);
            usize::from(owner.0)
        };
        let chosen = keys.filter(|key| owner(&theirs, key) == 3).take(40_000);
        let mut load = [0_u32; SHARDS as usize];
        chosen.for_each(|key| load[owner(&ours, &key)] += 1);
        let (most, mean) = (
            load.iter().max().copied().unwrap_or(0),
            40_000 / u32::from(SHARDS),
        );
        println!("40,000 chosen keys over {SHARDS} shards: {most} at most, {mean} on average");
        assert!(most * 10 <= mean * 12, "{load:?}");
    }
}

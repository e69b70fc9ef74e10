//! The shard's secret randomness, all from one key given at start, so that the fleet repeats.

use ahash::RandomState;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

use crate::command::IdempotencyHash;

/// What a shard's randomness follows from. In production these are 32 bytes from the operating
/// system, drawn for each shard at each start. The fleet derives them from its seed: the same key
/// gives the same history.
#[derive(Clone)]
pub struct RandomKey([u8; 32]);

impl RandomKey {
    /// Takes the key's bytes as they are.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for RandomKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomKey")
    }
}

/// A cryptographic generator (ChaCha20, RFC 8439): a client that sees some of its numbers can
/// neither predict nor reconstruct the others. The generator keys hash tables whose keys come from
/// clients, and names commands that came without a key. Jitter is cheaper with
/// [`crate::model::FastRandom`].
#[derive(Debug)]
pub(super) struct SecureRandom(ChaCha20Rng);

impl SecureRandom {
    pub(super) fn new(key: &RandomKey) -> Self {
        Self(ChaCha20Rng::from_seed(key.0))
    }

    /// A hasher for tables whose keys clients choose: without the shard's key they can't be ground
    /// into one bucket.
    pub(super) fn hasher(&mut self) -> RandomState {
        let mut next = || self.0.next_u64();
        RandomState::with_seeds(next(), next(), next(), next())
    }

    /// The idempotency hash of a command that came without an idempotency key. No client may guess
    /// the hash, because it replaces the key that only the sender knows.
    pub(super) fn idempotency_hash(&mut self) -> IdempotencyHash {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        IdempotencyHash(bytes)
    }

    /// A seed for a [`crate::model::FastRandom`]. Its numbers reveal nothing about the secret ones.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(first_byte: u8) -> (Vec<IdempotencyHash>, u64, u64) {
        let mut key = [7; 32];
        key[0] = first_byte;
        let mut random = SecureRandom::new(&RandomKey::new(key));
        let table = random.hasher().hash_one("a command key");
        let seed = random.seed();
        let commands = (0..100).map(|_| random.idempotency_hash()).collect();
        (commands, table, seed)
    }

    #[test]
    fn equal_keys_give_equal_hashes_and_others_none_of_them() {
        let (commands, table, seed) = hashes(1);
        assert_eq!((commands.clone(), table, seed), hashes(1));
        let (other_commands, other_table, other_seed) = hashes(2);
        assert!(commands.iter().all(|hash| !other_commands.contains(hash)));
        assert_ne!(table, other_table);
        assert_ne!(seed, other_seed);
    }

    /// RFC 8439 A.1, test vector 1: the first block of the keystream under the key of zeros. The
    /// generator is the RFC's cipher and not a weaker relative.
    #[test]
    fn numbers_are_the_keystream_of_the_rfc() {
        let mut random = SecureRandom::new(&RandomKey::new([0; 32]));
        let keystream = [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86,
            0xbd, 0x28,
        ];
        assert_eq!(random.idempotency_hash(), IdempotencyHash(keystream));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", RandomKey::new([7; 32])), "RandomKey");
    }
}

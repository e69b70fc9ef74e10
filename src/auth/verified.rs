//! Tokens whose signature was checked, by their SHA-256, so that each is checked once. Never the
//! tokens themselves: a dump of the memory shows none.

use std::collections::HashMap;
use std::sync::Arc;

use super::grant::Grant;

/// Tokens of one generation. Two generations are kept: about 3 MiB a shard with long subjects.
const GENERATION_MAX: usize = 4096;

/// Verified tokens in two generations. When the young one is full, the old one is dropped. A token
/// that is used in every generation therefore stays, and nothing is searched for the oldest.
#[derive(Debug)]
pub(super) struct VerifiedTokens {
    young: HashMap<[u8; 32], Arc<Grant>, ahash::RandomState>,
    old: HashMap<[u8; 32], Arc<Grant>, ahash::RandomState>,
}

impl VerifiedTokens {
    /// The keys are SHA-256 of tokens with a right signature, so no client can choose them to
    /// collide: a fixed seed is enough.
    pub(super) fn new() -> Self {
        let empty = || HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (young, old) = (empty(), empty());
        Self { young, old }
    }

    pub(super) fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<Grant>> {
        if let Some(grant) = self.young.get(hash) {
            return Some(grant.clone());
        }
        let grant = self.old.remove(hash)?;
        self.insert(*hash, grant.clone());
        Some(grant)
    }

    pub(super) fn insert(&mut self, hash: [u8; 32], grant: Arc<Grant>) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::replace(
                &mut self.young,
                HashMap::with_hasher(self.old.hasher().clone()),
            );
        }
        self.young.insert(hash, grant);
    }

    /// Forgets tokens whose key is gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&Grant) -> bool) {
        self.young.retain(|_, grant| keep(grant));
        self.old.retain(|_, grant| keep(grant));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

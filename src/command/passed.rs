//! Replies that were passed on and not stored: the service applied nothing (`retry: true`). A
//! retry under the same key runs again, so the reply index must not have them. But the sender of
//! an asynchronous command asks for its reply later, and would wait in vain if the only reply were
//! forgotten at once.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use crate::model::{CorrelationId, Offset, Partition};

/// Replies that are remembered, per replies topic. Beyond it the oldest is forgotten, and its
/// location says 202 until the reply window ends.
const PASSED_MAX: usize = 4096;

/// The positions of the newest replies that were passed on. Built from the replies topic alone, so
/// every instance has the same.
#[derive(Debug)]
pub(super) struct PassedReplies {
    by_id: HashMap<CorrelationId, (Partition, Offset), RandomState>,
    /// Oldest first. An id that was removed, or is there again, may have another place in it.
    order: VecDeque<(CorrelationId, Offset)>,
}

impl PassedReplies {
    /// `hasher` is seeded by the shard, because clients choose the ids.
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            by_id: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
        }
    }

    /// A reply that was passed on, in the topic's order.
    pub(super) fn insert(&mut self, id: CorrelationId, partition: Partition, offset: Offset) {
        if self.order.len() >= PASSED_MAX
            && let Some((oldest, at)) = self.order.pop_front()
            && self.get(oldest).is_some_and(|(_, offset)| offset == at)
        {
            self.by_id.remove(&oldest);
        }
        self.by_id.insert(id, (partition, offset));
        self.order.push_back((id, offset));
    }

    /// Forgets the reply to a request that is sent again.
    pub(super) fn remove(&mut self, id: CorrelationId) {
        // Usually there is none, and the id need not be hashed.
        if !self.by_id.is_empty() {
            self.by_id.remove(&id);
        }
    }

    /// The position of the newest reply to a request.
    pub(super) fn get(&self, id: CorrelationId) -> Option<(Partition, Offset)> {
        self.by_id.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommandKey, Fingerprint};

    fn id(n: usize) -> CorrelationId {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(n as u64).to_be_bytes());
        CorrelationId {
            key: CommandKey(key),
            fingerprint: Fingerprint([2; 16]),
        }
    }

    #[test]
    fn the_newest_are_remembered_and_the_oldest_forgotten() {
        let mut passed = PassedReplies::new(RandomState::with_seeds(1, 2, 3, 4));
        let insert = |passed: &mut PassedReplies, n: usize, offset: usize| {
            passed.insert(id(n), Partition(0), Offset(offset as u64));
        };
        for n in 0..PASSED_MAX {
            insert(&mut passed, n, n);
        }
        // The second attempt at command 0 fails too: its newest reply counts.
        insert(&mut passed, 0, PASSED_MAX);
        assert_eq!(passed.get(id(0)), Some((Partition(0), Offset(4096))));
        insert(&mut passed, PASSED_MAX, PASSED_MAX + 1);
        assert_eq!(passed.get(id(1)), None, "the oldest");
        assert_eq!(passed.get(id(0)), Some((Partition(0), Offset(4096))));
        passed.remove(id(0));
        assert_eq!(passed.get(id(0)), None);
        for n in 0..3 * PASSED_MAX {
            insert(&mut passed, n, 2 * PASSED_MAX + n);
        }
        assert!(passed.by_id.len() <= PASSED_MAX && passed.order.len() <= PASSED_MAX);
    }
}

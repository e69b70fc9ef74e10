//! The bodies of the newest replies, as many as fit the memory. The others remain in the log.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use super::reply::ReplyResult;
use crate::model::CorrelationId;

/// The memory of a body beside its bytes: its rows in map and queue.
const ROW_BYTES: usize = 128;

#[derive(Debug)]
pub(super) struct Bodies {
    answers: HashMap<CorrelationId, ReplyResult, RandomState>,
    /// Ids in order of arrival. The id of an evicted answer stays until it reaches the front.
    arrivals: VecDeque<CorrelationId>,
    bytes: usize,
    bytes_max: usize,
}

impl Bodies {
    pub(super) fn new(bytes_max: usize, hasher: RandomState) -> Self {
        Self {
            answers: HashMap::with_hasher(hasher),
            arrivals: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn get(&self, id: CorrelationId) -> Option<&ReplyResult> {
        self.answers.get(&id)
    }

    /// Inserts an answer in place of an earlier one, if it fits at all. The oldest make room.
    pub(super) fn insert(&mut self, id: CorrelationId, answer: &ReplyResult) {
        self.remove(id);
        let bytes = bytes_of(answer);
        if bytes > self.bytes_max {
            return;
        }
        self.bytes += bytes;
        self.answers.insert(id, answer.clone());
        self.arrivals.push_back(id);
        while self.bytes > self.bytes_max {
            let oldest = self.arrivals.pop_front();
            self.remove(oldest.expect("what is held has arrived"));
        }
        self.forget_front();
    }

    pub(super) fn remove(&mut self, id: CorrelationId) {
        if let Some(answer) = self.answers.remove(&id) {
            self.bytes -= bytes_of(&answer);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget_front(&mut self) {
        while let Some(front) = self.arrivals.front() {
            if self.answers.contains_key(front) {
                return;
            }
            self.arrivals.pop_front();
        }
    }
}

fn bytes_of(answer: &ReplyResult) -> usize {
    ROW_BYTES + answer.as_ref().map_or(0, |reply| reply.bytes_held())
}

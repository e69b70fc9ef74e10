//! What clients held before blocks that have left the window. A subscriber that shares the window
//! keeps no progress of its own. Without this trail, a conflating subscriber that falls out of the
//! window could not say from where it lacks records.

use std::collections::VecDeque;

use super::progress::ClientProgress;
use crate::log::{Block, Seq};

/// Blocks remembered. A conflating subscriber that is further behind is disconnected.
const BLOCKS_MAX: usize = 256;

/// The progress before each of the last evicted blocks, kept while a subscriber conflates.
#[derive(Debug)]
pub(super) struct Trail {
    before: VecDeque<(Seq, ClientProgress)>,
    /// The newest step of which nothing is remembered.
    forgotten: Seq,
    /// Number of conflating subscribers. Without any, nothing is remembered.
    readers: usize,
}

impl Trail {
    /// An empty trail behind a window that begins after step `seq`.
    pub(super) const fn new(seq: Seq) -> Self {
        Self {
            before: VecDeque::new(),
            forgotten: seq,
            readers: 0,
        }
    }

    /// A conflating subscriber has subscribed: remember evicted blocks.
    pub(super) const fn on_reader(&mut self) {
        self.readers += 1;
    }

    /// A conflating subscriber has left the feed.
    pub(super) const fn on_reader_left(&mut self) {
        self.readers -= 1;
    }

    /// A block leaves the window.
    pub(super) fn on_evicted(&mut self, seq: Seq, block: &Block) {
        if self.readers == 0 {
            self.forget(seq);
            return;
        }
        if self.before.back().is_some_and(|(last, _)| *last == seq) {
            return; // Another encoding's block of the same step.
        }
        let Some(progress) = ClientProgress::before(block) else {
            self.forget(seq);
            return;
        };
        self.before.push_back((seq, progress));
        if self.before.len() > BLOCKS_MAX {
            let (seq, _) = self.before.pop_front().expect("len checked above");
            self.forgotten = seq;
        }
    }

    fn forget(&mut self, until: Seq) {
        self.before.clear();
        self.forgotten = until;
    }

    /// The client's progress before step `seq` or, if that step has no block, before the next step
    /// that has one. `None` if that is forgotten.
    pub(super) fn before(&self, seq: Seq) -> Option<ClientProgress> {
        if seq <= self.forgotten {
            return None;
        }
        let at = self.before.partition_point(|(s, _)| *s < seq);
        self.before.get(at).map(|(_, progress)| progress.clone())
    }
}

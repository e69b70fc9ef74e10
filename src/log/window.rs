//! The window: the last steps' blocks of a topic, from which subscribers that lag or reconnect are
//! served. The home alone decides what stays ([`WindowBudget`]); every shard keeps a [`Window`] of
//! the same `Arc`s and drops what a step names. Readers are not asked: a cursor holds no reference,
//! so one that pointed into a block now gone has lagged.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Block, Change, Cut, Seq, Step};

/// The home's side: how many bytes each step holds, and the oldest that still fits.
#[derive(Debug)]
pub struct WindowBudget {
    steps: VecDeque<(Seq, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl WindowBudget {
    /// Counted for a step beside its blocks, so that steps without blocks are bounded too.
    pub const STEP_BYTES: usize = 64;

    /// A budget over all encodings of a topic (`stream.window_bytes_max`).
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let (steps, bytes) = (VecDeque::new(), 0);
        Self {
            steps,
            bytes,
            bytes_max,
        }
    }

    /// Counts a step's blocks and says which step is now the oldest to keep: `Step::oldest`. The
    /// step itself always stays, however large.
    pub fn push(&mut self, seq: Seq, blocks: &[Option<Arc<Block>>]) -> Seq {
        let held: usize = blocks.iter().flatten().map(|b| b.bytes_held()).sum();
        self.steps.push_back((seq, held + Self::STEP_BYTES));
        self.bytes += held + Self::STEP_BYTES;
        while self.bytes > self.bytes_max && self.steps.len() > 1 {
            let (_, bytes) = self.steps.pop_front().expect("len checked above");
            self.bytes -= bytes;
        }
        self.steps[0].0
    }

    /// Forgets all before the next step: a truncation leaves no window before it.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.bytes = 0;
    }

    /// Bytes counted now.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

type Blocks = SmallVec<[Option<Arc<Block>>; 2]>;

/// The blocks one shard can still send.
#[derive(Debug)]
pub struct Window {
    /// Dense by seq from `first`; the front one has a block.
    steps: VecDeque<Blocks>,
    first: Seq,
    /// The newest step dropped that had a block.
    dropped: Seq,
    /// Who holds all below can be served from here: every record shown since is in `steps`.
    floor: Cut,
    cut: Cut,
}

impl Window {
    /// An empty window after step `seq`, which led to `cut`.
    #[must_use]
    pub fn new(seq: Seq, cut: Cut) -> Self {
        let (steps, first, dropped) = (VecDeque::new(), Seq(seq.0 + 1), Seq(0));
        let floor = cut.clone();
        Self {
            steps,
            first,
            dropped,
            floor,
            cut,
        }
    }

    /// The cut after the newest step.
    #[must_use]
    pub const fn cut(&self) -> &Cut {
        &self.cut
    }

    /// The newest step.
    #[must_use]
    pub fn newest(&self) -> Seq {
        Seq(self.first.0 + self.steps.len() as u64 - 1)
    }

    /// Takes the next step's blocks and drops what it names. `on_drop` sees every block that goes,
    /// with its step and encoding. A step with records but no block can't be shown to anybody, so
    /// nothing before it can be resumed from here either; the same holds for a truncation.
    ///
    /// # Panics
    /// If a step was left out: the order between home and shard is broken.
    pub fn push(&mut self, step: &Step, mut on_drop: impl FnMut(Seq, usize, &Block)) {
        assert_eq!(step.seq.0, self.newest().0 + 1, "steps come in order");
        let shown = step.blocks.iter().any(Option::is_some);
        let breaks = match &step.change {
            Change::Records(batch) => !shown && !batch.is_empty(),
            Change::Gap { .. } => !shown,
            Change::Truncate { .. } => true,
            Change::Nothing | Change::LogStart { .. } => false,
        };
        let keep = if breaks { step.seq } else { step.oldest };
        self.drop_below(keep, &mut on_drop);
        self.cut.clone_from(&step.cut);
        if breaks {
            self.floor.clone_from(&step.cut);
        }
        if breaks && !shown {
            self.dropped = step.seq;
        }
        if shown || !self.steps.is_empty() {
            self.steps.push_back(step.blocks.clone());
        } else {
            self.first = Seq(step.seq.0 + 1);
        }
    }

    fn drop_below(&mut self, keep: Seq, on_drop: &mut impl FnMut(Seq, usize, &Block)) {
        while let Some(blocks) = self.steps.front() {
            let shown = blocks.iter().any(Option::is_some);
            if shown && self.first >= keep {
                return;
            }
            for (encoding, block) in blocks.iter().enumerate() {
                if let Some(block) = block {
                    on_drop(self.first, encoding, block);
                    self.dropped = self.first;
                    raise_past(&mut self.floor, block);
                }
            }
            self.steps.pop_front();
            self.first = Seq(self.first.0 + 1);
        }
    }

    /// The first step at or after `from` that has a block under `encoding`, at most `last`.
    #[must_use]
    pub fn next_block(&self, encoding: usize, from: Seq, last: Seq) -> Option<(Seq, &Arc<Block>)> {
        let mut at = from.max(self.first);
        while at <= last {
            let blocks = self.steps.get((at.0 - self.first.0) as usize)?;
            if let Some(Some(block)) = blocks.get(encoding) {
                return Some((at, block));
            }
            at = Seq(at.0 + 1);
        }
        None
    }

    /// Whether a cursor at `seq` may have missed a block that was dropped.
    #[must_use]
    pub fn has_lost(&self, seq: Seq) -> bool {
        seq <= self.dropped
    }

    /// Where a client that holds `held` starts to read under `encoding` so that it misses nothing:
    /// the newest such step. `None`: the window does not reach back to it.
    #[must_use]
    pub fn start_for(&self, encoding: usize, held: &Cut) -> Option<Seq> {
        let newest = self.newest();
        if held.covers(&self.cut) {
            return Some(Seq(newest.0 + 1));
        }
        if !held.covers(&self.floor) {
            return None;
        }
        // Cuts grow along the window (a truncation empties it), so this is a binary search over
        // the steps; one without a block is as its next one with a block.
        let (mut known, mut low, mut high) = (self.first, 0, self.steps.len());
        while low < high {
            let middle = low.midpoint(high);
            let from = Seq(self.first.0 + middle as u64);
            match self.next_block(encoding, from, newest) {
                Some((seq, block)) if held.covers(block.before()) => {
                    known = seq;
                    low = (seq.0 - self.first.0) as usize + 1;
                }
                _ => high = middle,
            }
        }
        Some(known)
    }
}

/// A block's frames are in offset order within each partition, and of one partition if they come
/// from one batch: its last frame is its furthest.
fn raise_past(floor: &mut Cut, block: &Block) {
    floor.raise(block.before());
    if let Some(last) = block.frames().last() {
        floor.set(last.partition, last.next());
    }
}

//! The window: the last steps' blocks of a topic, from which subscribers that lag or reconnect are
//! served. The home alone decides what stays ([`WindowBudget`]). Every shard keeps a [`Window`] of
//! the same `Arc`s and drops what a step names. Readers are not asked: a cursor holds no reference,
//! so a cursor into a dropped block has lagged.

use crate::model::index_of;
use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Block, Change, Cut, Seq, Step};

/// The home's side of a window: the bytes of each step, and the oldest step that still fits.
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

    /// Counts a step's blocks and returns the oldest step to keep: `Step::oldest`. The step itself
    /// always stays, however large.
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

    /// Bytes of the steps that are kept.
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
    /// A client that holds all below this cut can be served: every later record is in `steps`.
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

    /// The seq of the newest step, whether or not it has blocks.
    #[must_use]
    pub fn newest(&self) -> Seq {
        Seq(self.first.0 + self.steps.len() as u64 - 1)
    }

    /// Takes the next step's blocks and drops what it names. `on_drop` sees every block that goes,
    /// with its step and encoding. A step with records but no block can't be shown to anybody, so
    /// nothing before it can be resumed from here either.
    ///
    /// # Panics
    /// If a step was left out: the order between home and shard is broken.
    pub fn push(&mut self, step: &Step, mut on_drop: impl FnMut(Seq, usize, &Block)) {
        assert_eq!(step.seq.0, self.newest().0 + 1, "steps come in order");
        let shown = step.blocks.iter().any(Option::is_some);
        let missing = match &step.change {
            Change::Records(batch) => !shown && !batch.is_empty(),
            Change::Gap { .. } => !shown,
            Change::Again(_) | Change::Nothing | Change::Stuck { .. } | Change::LogStart { .. } => {
                false
            }
        };
        let keep = if missing { step.seq } else { step.oldest };
        self.drop_below(keep, &mut on_drop);
        self.cut.clone_from(&step.cut);
        if missing {
            self.floor.clone_from(&step.cut);
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
                    self.floor.raise(&block.end_cut());
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
            let blocks = self.steps.get(index_of(at.0 - self.first.0))?;
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
        // Cuts grow along the window, so this is a binary search over the steps. A step without a
        // block counts as the next step with a block.
        let (mut known, mut low, mut high) = (self.first, 0, self.steps.len());
        while low < high {
            let middle = low.midpoint(high);
            let from = Seq(self.first.0 + middle as u64);
            match self.next_block(encoding, from, newest) {
                Some((seq, block)) if held.covers(block.before()) => {
                    known = seq;
                    low = index_of(seq.0 - self.first.0) + 1;
                }
                _ => high = middle,
            }
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{BatchBuilder, BlockBuilder, Frame, GapReason, Next};
    use crate::model::{LeaderEpoch, Offset, Partition, UnixMillis};

    const NO_EPOCH: LeaderEpoch = LeaderEpoch(None);

    fn cut(offsets: &[u64]) -> Cut {
        let mut cut = Cut::start();
        for (partition, &offset) in offsets.iter().enumerate() {
            set(&mut cut, partition as u32, offset);
        }
        cut
    }

    fn set(cut: &mut Cut, partition: u32, offset: u64) {
        let offset = Offset(offset);
        let epoch = NO_EPOCH;
        cut.set(Partition(partition), Next { offset, epoch });
    }

    fn block(before: &Cut, partition: u32) -> Arc<Block> {
        let offset = before.get(Partition(partition)).offset;
        let mut builder = BlockBuilder::new(before.clone());
        builder.bytes().extend_from_slice(&[b'x'; 100]);
        builder.frame(Frame::new(0, Partition(partition), offset, NO_EPOCH), None);
        Arc::new(builder.finish().expect("a frame"))
    }

    /// A home with its budget, and one shard's window.
    struct Log {
        window: Window,
        budget: WindowBudget,
        seq: u64,
        cut: Cut,
        dropped: Vec<u64>,
    }

    impl Log {
        fn new(bytes_max: usize, at: &[u64]) -> Self {
            Self {
                window: Window::new(Seq(0), cut(at)),
                budget: WindowBudget::new(bytes_max),
                seq: 0,
                cut: cut(at),
                dropped: Vec::new(),
            }
        }

        fn step(&mut self, change: Change, block: Option<Arc<Block>>) {
            self.seq += 1;
            let seq = Seq(self.seq);
            let blocks: Blocks = [block].into_iter().collect();
            let step = Step {
                seq,
                cut: self.cut.clone(),
                time: UnixMillis(0),
                oldest: self.budget.push(seq, &blocks),
                change,
                blocks,
            };
            let dropped = &mut self.dropped;
            self.window.push(&step, |seq, _, _| dropped.push(seq.0));
        }

        fn record(&mut self, partition: u32) {
            let block = block(&self.cut, partition);
            let next = self.cut.get(Partition(partition)).offset.0 + 1;
            set(&mut self.cut, partition, next);
            let batch = BatchBuilder::new(Partition(partition)).finish();
            self.step(Change::Records(batch), Some(block));
        }

        fn nothing(&mut self, at: &[u64]) {
            self.cut = cut(at);
            self.step(Change::Nothing, None);
        }

        fn start(&self, held: &[u64]) -> Option<u64> {
            self.window.start_for(0, &cut(held)).map(|seq| seq.0)
        }
    }

    #[test]
    fn the_budget_bounds_bytes_and_steps_and_keeps_the_newest() {
        let mut log = Log::new(2000, &[0]);
        for _ in 0..100 {
            log.record(0);
            assert!(log.budget.bytes() <= 2000);
        }
        let kept = 100 - log.dropped.len();
        assert!((2..10).contains(&kept), "{kept}");
        assert_eq!(log.dropped, (1..=100 - kept as u64).collect::<Vec<_>>());
        // Steps without blocks cost something too.
        for _ in 0..100 {
            log.nothing(&[100]);
        }
        assert_eq!(log.dropped.len(), 100);
        let mut log = Log::new(0, &[0]);
        log.record(0);
        assert_eq!(log.start(&[0]), Some(1));
    }

    #[test]
    fn a_window_covers_who_holds_all_below_it() {
        let mut log = Log::new(1 << 20, &[5, 5]);
        assert_eq!(log.start(&[5, 5]), Some(1)); // The live end of nothing.
        assert_eq!(log.start(&[4, 5]), None);
        assert_eq!(log.start(&[5]), None); // Nothing of partition 1 was seen.
        log.record(0); // 1: cut 6, 5
        log.record(1); // 2: cut 6, 6
        log.record(0); // 3: cut 7, 6
        assert_eq!(log.start(&[5, 5]), Some(1));
        assert_eq!(log.start(&[6, 5]), Some(2));
        assert_eq!(log.start(&[9, 5]), Some(2)); // Ahead in one, behind in the other.
        assert_eq!(log.start(&[6, 6]), Some(3));
        assert_eq!(log.start(&[5, 9]), Some(1));
        assert_eq!(log.start(&[7, 6]), Some(4));
        assert_eq!(log.start(&[9, 9]), Some(4));
        assert_eq!(log.start(&[5, 4]), None);
    }

    #[test]
    fn offsets_that_show_nothing_are_not_missed() {
        let mut log = Log::new(1 << 20, &[5]);
        log.nothing(&[8]);
        assert_eq!(log.start(&[5]), Some(2));
        log.record(0);
        assert_eq!(log.start(&[5]), Some(2));
        assert!(!log.window.has_lost(Seq(1)));
    }

    #[test]
    fn a_dropped_block_is_lost_to_cursors_at_or_before_it() {
        let mut log = Log::new(0, &[0]);
        log.record(0);
        log.nothing(&[1]);
        log.record(0);
        assert!(log.window.has_lost(Seq(1)) && !log.window.has_lost(Seq(2)));
        assert_eq!(log.start(&[0]), None);
        assert_eq!(log.start(&[1]), Some(3));
        let next = log.window.next_block(0, Seq(2), Seq(3)).expect("a block");
        assert_eq!(next.0, Seq(3));
        assert!(log.window.next_block(0, Seq(2), Seq(2)).is_none());
        assert!(log.window.next_block(1, Seq(2), Seq(3)).is_none());
    }

    #[test]
    fn a_gap_without_a_block_leaves_nothing_before_it() {
        let mut log = Log::new(1 << 20, &[0, 0]);
        log.record(0);
        log.record(1);
        set(&mut log.cut, 0, 3);
        let change = Change::Gap {
            partition: Partition(0),
            from: Offset(1),
            to: Offset(3),
            reason: GapReason::Undecodable,
        };
        log.step(change, None);
        assert_eq!(log.dropped, [1, 2]);
        assert!(log.window.has_lost(Seq(3)) && !log.window.has_lost(Seq(4)));
        assert_eq!(log.start(&[1, 1]), None);
        assert_eq!(log.start(&[3, 1]), Some(4));
    }

    #[test]
    #[should_panic(expected = "steps come in order")]
    fn a_step_left_out_is_a_broken_order() {
        let mut log = Log::new(0, &[0]);
        log.seq = 1;
        log.nothing(&[0]);
    }
}

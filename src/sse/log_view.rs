//! What one shard has of a topic's log: the window of blocks, where the log starts, and where its
//! epochs changed. It knows no subscriber.

use std::sync::Arc;

use super::epochs::{EpochChange, EpochHistory, Verdict};
use super::request::FeedSettings;
use super::trail::Trail;
use crate::log::{Block, Change, Cut, Next, Seq, Step, Window};
use crate::model::{LeaderEpoch, Partition, UnixMillis};

/// The log of one topic incarnation, as this shard has applied it.
#[derive(Debug)]
pub(super) struct LogView {
    window: Window,
    time: UnixMillis,
    log_start: Cut,
    epochs: EpochHistory,
}

impl LogView {
    /// The log after step `seq`, which led to `cut` at `time`.
    pub(super) fn new(settings: &FeedSettings, seq: Seq, cut: Cut, time: UnixMillis) -> Self {
        Self {
            window: Window::new(seq, cut),
            time,
            log_start: settings.log_start.clone(),
            epochs: EpochHistory::default(),
        }
    }

    /// Applies the next step. Returns the changes of epochs that it brings.
    pub(super) fn on_step(&mut self, step: &Arc<Step>, trail: &mut Trail) -> Vec<EpochChange> {
        let changed = self.epochs.on_cut(self.window.cut(), &step.cut);
        self.window
            .push(step, |seq, _, block| trail.on_evicted(seq, block));
        self.time = step.time;
        if let Change::LogStart { partition, offset } = step.change {
            let epoch = LeaderEpoch(None);
            self.log_start.set(partition, Next { offset, epoch });
        }
        changed
    }

    /// The cut after the newest step.
    pub(super) const fn cut(&self) -> &Cut {
        self.window.cut()
    }

    /// When the cut last equalled the log's end.
    pub(super) const fn time(&self) -> UnixMillis {
        self.time
    }

    /// The newest step that the shard has applied.
    pub(super) fn newest(&self) -> Seq {
        self.window.newest()
    }

    /// The first offset of each partition that the log still has.
    pub(super) const fn start(&self) -> &Cut {
        &self.log_start
    }

    /// The partitions in which retention has taken what a client lacks, and where each starts now.
    pub(super) fn lost(&self, held: &Cut) -> Vec<(Partition, Next)> {
        let is_lost = |(p, start): &(Partition, Next)| start.offset > held.get(*p).offset;
        self.log_start.iter().filter(is_lost).collect()
    }

    /// Whether what a client holds is in this log.
    pub(super) fn verdict(&self, held: &Cut) -> Verdict {
        self.epochs.verdict(self.window.cut(), held)
    }

    /// The positions of a client about which the leaders must be asked.
    pub(super) fn unknown(&self, held: &Cut) -> Vec<(Partition, Next)> {
        self.epochs.unknown(self.window.cut(), held)
    }

    /// The step from which the window serves a client, or `None` if it does not reach back so far.
    pub(super) fn start_for(&self, encoding: usize, held: &Cut) -> Option<Seq> {
        self.window.start_for(encoding, held)
    }

    /// Whether a cursor at `seq` may have missed a block that left the window.
    pub(super) fn has_evicted(&self, seq: Seq) -> bool {
        self.window.has_lost(seq)
    }

    /// The first step from `from` to `last` that has a block under `encoding`.
    pub(super) fn next_block(
        &self,
        encoding: usize,
        from: Seq,
        last: Seq,
    ) -> Option<(Seq, &Arc<Block>)> {
        self.window.next_block(encoding, from, last)
    }
}

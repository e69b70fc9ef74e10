//! The partitions of a topic as its home reads them, and what is counted of them.

use crate::log::{Cut, Next};
use crate::model::{Offset, Partition};

/// A partition as its reads show it.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Where loading ends; `None`: the read has not begun.
    pub(super) loaded_at: Option<Offset>,
    pub(super) stable_end: Offset,
    pub(super) high_watermark: Offset,
    pub(super) log_start: Offset,
    /// A broker has said where its log starts and ends.
    pub(super) known: bool,
}

/// What a topic has done so far, for metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) undecodable: u64,
    pub(super) paused: u64,
    /// By partition, as far as there is something to count.
    pub(super) parts: Vec<PartCounts>,
}

/// The same of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PartCounts {
    /// Times it was left out of fetches with its topic.
    pub(super) paused: u64,
    /// Errors that brokers answered for it.
    pub(super) failed: u64,
}

impl Counts {
    /// Those of a partition, which the topic has.
    pub(super) fn of(&mut self, partition: Partition) -> &mut PartCounts {
        let index = partition.0 as usize;
        if self.parts.len() <= index {
            self.parts.resize(index + 1, PartCounts::default());
        }
        &mut self.parts[index]
    }
}

/// The first offset of each partition that is still there.
pub(super) fn log_start(parts: &[Part]) -> Cut {
    let mut cut = Cut::start();
    for (p, part) in parts.iter().enumerate() {
        cut.set(
            Partition(p as u32),
            Next {
                offset: part.log_start,
                ..Next::default()
            },
        );
    }
    cut
}

//! What is counted of a topic's reads, over all incarnations.

use crate::log::Batch;
use crate::metrics::TopicMetrics;
use crate::model::{Partition, u32_of};

/// What a topic has done so far, for metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    records: u64,
    bytes: u64,
    undecodable: u64,
    paused: u64,
    /// By partition, up to the last one with a count.
    parts: Vec<PartCounts>,
}

/// What a partition has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PartCounts {
    /// How often the partition was paused with its topic.
    pub(super) paused: u64,
    /// Errors in responses of brokers about the partition.
    pub(super) failed: u64,
}

impl Counts {
    /// A read has brought records.
    pub(super) fn on_batch(&mut self, batch: &Batch) {
        self.records += batch.len() as u64;
        self.bytes += batch.record_bytes() as u64;
    }

    /// A read has met offsets that it can't decode.
    pub(super) const fn on_undecodable(&mut self) {
        self.undecodable += 1;
    }

    /// The topic was paused, with this many partitions.
    pub(super) fn on_paused(&mut self, partitions: usize) {
        self.paused += 1;
        for partition in (0..u32_of(partitions)).map(Partition) {
            self.of_mut(partition).paused += 1;
        }
    }

    /// A broker's response about a partition was an error.
    pub(super) fn on_failed(&mut self, partition: Partition) {
        self.of_mut(partition).failed += 1;
    }

    /// The counts of a partition.
    pub(super) fn of(&self, partition: Partition) -> PartCounts {
        let counts = self.parts.get(partition.0 as usize);
        counts.copied().unwrap_or_default()
    }

    /// Each partition up to the last one with a count.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Partition, PartCounts)> + '_ {
        (0..).map(Partition).zip(self.parts.iter().copied())
    }

    /// Updates the topic's counters.
    pub(super) const fn count(&self, topic: &mut TopicMetrics) {
        topic.fetched_records.0 = self.records;
        topic.fetched_bytes.0 = self.bytes;
        topic.undecodable.0 = self.undecodable;
        topic.paused.0 = self.paused;
    }

    fn of_mut(&mut self, partition: Partition) -> &mut PartCounts {
        let index = partition.0 as usize;
        if self.parts.len() <= index {
            self.parts.resize(index + 1, PartCounts::default());
        }
        &mut self.parts[index]
    }
}

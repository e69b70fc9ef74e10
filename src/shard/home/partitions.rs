//! The partitions of a topic as its home reads them, and what is counted of them.

use crate::log::{Cut, Next};
use crate::model::{Offset, Partition, u32_of};

use super::order::Order;

/// A partition as its reads show it.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// The offset at which loading ends. `None`: no read has begun.
    pub(super) loaded_at: Option<Offset>,
    /// The offset from which loading reads.
    pub(super) loaded_from: Offset,
    pub(super) stable_end: Offset,
    pub(super) high_watermark: Offset,
    pub(super) log_start: Offset,
    /// Whether a broker has reported the start and the end of the log.
    pub(super) known: bool,
}

/// The partitions of a topic, by number. A broker's reports change them, and readers see a slice.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    all: Vec<Part>,
}

impl std::ops::Deref for Partitions {
    type Target = [Part];

    fn deref(&self) -> &[Part] {
        &self.all
    }
}

impl Partitions {
    /// Adds the next partition. No read of it has begun.
    pub(super) fn add(&mut self) {
        self.all.push(Part::default());
    }

    /// A read has begun at `from`. `end`: the last stable offset.
    pub(super) fn on_started(&mut self, partition: Partition, from: Offset, end: Offset) {
        if let Some(part) = self.all.get_mut(partition.0 as usize) {
            part.loaded_from = from;
            part.loaded_at = Some(end);
            part.stable_end = end;
            part.high_watermark = part.high_watermark.max(end);
        }
    }

    /// A broker has reported where the log ends.
    pub(super) fn on_ends(
        &mut self,
        partition: Partition,
        stable_end: Offset,
        high_watermark: Offset,
    ) {
        if let Some(part) = self.all.get_mut(partition.0 as usize) {
            part.stable_end = stable_end;
            // A log that was cut back has no more to load than it has.
            part.loaded_at = part.loaded_at.map(|end| end.min(stable_end));
            part.high_watermark = high_watermark;
            part.known = true;
        }
    }

    /// A broker has reported where the log starts. Returns true if that is further than before.
    #[must_use]
    pub(super) fn on_log_start(&mut self, partition: Partition, log_start: Offset) -> bool {
        let part = self.all.get_mut(partition.0 as usize);
        let moved = part.filter(|part| log_start > part.log_start);
        moved.map(|part| part.log_start = log_start).is_some()
    }

    /// Whether every partition has been read to its end, if `partition` is read up to `next`.
    pub(super) fn are_at_end(&self, order: &Order, partition: Partition, next: Offset) -> bool {
        let at_end = |(p, part): (usize, &Part)| {
            if p == partition.0 as usize {
                next >= part.stable_end
            } else {
                part.loaded_at.is_some() && order.next(Partition(u32_of(p))) >= part.stable_end
            }
        };
        self.all.iter().enumerate().all(at_end)
    }

    /// Whether every partition has been read to its end.
    pub(super) fn are_all_at_end(&self, order: &Order) -> bool {
        let at_end = |(p, part): (usize, &Part)| {
            part.loaded_at.is_some() && order.next(Partition(u32_of(p))) >= part.stable_end
        };
        self.all.iter().enumerate().all(at_end)
    }

    /// Whether every partition is ordered up to the end that loading has to reach.
    pub(super) fn are_loaded(&self, order: &Order) -> bool {
        let loaded = |(p, part): (usize, &Part)| {
            let next = order.next(Partition(u32_of(p)));
            part.known && part.loaded_at.is_some_and(|end| next >= end)
        };
        !self.all.is_empty() && self.all.iter().enumerate().all(loaded)
    }
}

/// The first offset of each partition that is still there.
pub(super) fn log_start(parts: &[Part]) -> Cut {
    let mut cut = Cut::start();
    for (p, part) in parts.iter().enumerate() {
        cut.set(
            Partition(u32_of(p)),
            Next {
                offset: part.log_start,
                ..Next::default()
            },
        );
    }
    cut
}

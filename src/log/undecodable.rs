//! Offset ranges of a topic that could not be decoded. A projection lacks their records for as long
//! as the log may still have them. It must neither report a key as absent nor show a value if such
//! a range may contain a newer record of the key.
//!
//! The topic owner and every projection derive the same ranges from the same steps, so they agree
//! at every step.

use super::{Change, GapReason, Step};
use crate::model::{Offset, Partition};

/// Ranges kept separately in one partition. Beyond that, the newest range also covers the gap
/// before it, so too many offsets may count as undecodable but never too few.
const RANGES_MAX: usize = 16;

/// Offsets of one partition, from `from` to below `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// The partition of the offsets.
    pub partition: Partition,
    /// The first offset of the range.
    pub from: Offset,
    /// The first offset after the range. [`OffsetRange::OPEN`] if it is unknown, because the read
    /// of the partition is stuck at `from`.
    pub to: Offset,
}

impl OffsetRange {
    /// The end of a range at which a read is stuck.
    pub const OPEN: Offset = Offset(u64::MAX);

    /// Whether the read of the partition is stuck at the start of the range.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.to == Self::OPEN
    }
}

/// The undecodable ranges of one topic that the log may still have. At most 16 per partition.
#[derive(Clone, Debug, Default)]
pub struct Undecodable {
    /// By partition, then by offset. Empty in almost every topic.
    ranges: Vec<OffsetRange>,
}

impl Undecodable {
    /// Applies one step, in the topic's order.
    pub fn on_step(&mut self, step: &Step) {
        if !self.ranges.is_empty() {
            // A read that has resumed was only stuck for a while: its step reports what it found.
            self.ranges
                .retain(|it| !it.is_open() || step.cut.get(it.partition).offset <= it.from);
        }
        match step.change {
            Change::Gap {
                partition,
                from,
                to,
                reason: GapReason::Undecodable,
            } => self.add(OffsetRange {
                partition,
                from,
                to,
            }),
            Change::Stuck { partition, from } => self.add(OffsetRange {
                partition,
                from,
                to: OffsetRange::OPEN,
            }),
            Change::LogStart { partition, offset } => self
                .ranges
                .retain(|it| it.partition != partition || it.to > offset),
            Change::Records(_) | Change::Again(_) | Change::Nothing | Change::Gap { .. } => {}
        }
    }

    /// Whether no range is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `partition` has a range.
    #[must_use]
    pub fn is_in(&self, partition: Partition) -> bool {
        self.ranges.iter().any(|it| it.partition == partition)
    }

    /// Every range, by partition and offset.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = OffsetRange> + '_ {
        self.ranges.iter().copied()
    }

    /// Whether `partition` has an undecodable offset above `offset`. If so, it may hold a newer
    /// record of a key than the known one at `offset`.
    #[must_use]
    pub fn is_above(&self, partition: Partition, offset: Offset) -> bool {
        // Compare with the end, not the start: a record between two merged ranges is below the
        // range too.
        let mut ranges = self.ranges.iter();
        ranges.any(|it| it.partition == partition && it.to > offset)
    }

    fn add(&mut self, range: OffsetRange) {
        let end = self
            .ranges
            .partition_point(|it| it.partition <= range.partition);
        let first = self
            .ranges
            .partition_point(|it| it.partition < range.partition);
        if let Some(last) = self.ranges[first..end].last_mut()
            && (last.to >= range.from || end - first == RANGES_MAX)
        {
            last.to = last.to.max(range.to);
            return;
        }
        self.ranges.insert(end, range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{cut, step};

    fn gap(partition: u32, from: u64, to: u64) -> Change {
        Change::Gap {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
            reason: GapReason::Undecodable,
        }
    }

    fn after(changes: impl IntoIterator<Item = Change>) -> Undecodable {
        let mut all = Undecodable::default();
        for change in changes {
            all.on_step(&step(1, change));
        }
        all
    }

    fn shown(all: &Undecodable) -> Vec<(u32, u64, u64)> {
        let row = |it: OffsetRange| (it.partition.0, it.from.0, it.to.0);
        all.iter().map(row).collect()
    }

    #[test]
    fn a_range_hides_what_is_below_it_in_its_partition() {
        let all = after([gap(1, 5, 7), gap(0, 2, 3), gap(1, 9, 10)]);
        assert_eq!(shown(&all), [(0, 2, 3), (1, 5, 7), (1, 9, 10)]);
        for (partition, offset, hidden) in [
            (0, 1, true),
            (0, 3, false),
            (1, 4, true),
            (1, 7, true),
            (1, 10, false),
            (2, 0, false),
        ] {
            let is = all.is_above(Partition(partition), Offset(offset));
            assert_eq!(is, hidden, "partition {partition}, offset {offset}");
        }
    }

    #[test]
    fn the_log_start_ends_what_it_has_passed() {
        let start = |offset| Change::LogStart {
            partition: Partition(1),
            offset: Offset(offset),
        };
        let all = after([gap(0, 5, 7), gap(1, 5, 7), start(6)]);
        assert_eq!(shown(&all), [(0, 5, 7), (1, 5, 7)], "one offset is left");
        let all = after([gap(0, 5, 7), gap(1, 5, 7), start(7)]);
        assert_eq!(shown(&all), [(0, 5, 7)]);
    }

    #[test]
    fn a_stuck_read_hides_its_partition_until_the_read_moves_on() {
        let stuck = || Change::Stuck {
            partition: Partition(0),
            from: Offset(5),
        };
        let mut all = after([stuck(), stuck()]);
        assert_eq!(shown(&all), [(0, 5, u64::MAX)]);
        assert!(all.is_above(Partition(0), Offset(4)));
        let mut moved = step(2, Change::Nothing);
        moved.cut = cut(&[5]);
        all.on_step(&moved);
        assert!(!all.is_empty(), "it stands there");
        moved.cut = cut(&[6]);
        all.on_step(&moved);
        assert!(all.is_empty());
        // The read resumes after the undecodable range.
        let mut all = after([stuck()]);
        let mut past = step(2, gap(0, 5, 8));
        past.cut = cut(&[8]);
        all.on_step(&past);
        assert_eq!(shown(&all), [(0, 5, 8)]);
    }

    #[test]
    fn many_ranges_are_bounded_and_none_is_forgotten() {
        let many = (0..100).map(|n| gap(3, n * 10, n * 10 + 1));
        let all = after(many.chain([gap(4, 1, 2)]));
        assert_eq!(all.iter().len(), RANGES_MAX + 1);
        assert!((0..990).all(|offset| all.is_above(Partition(3), Offset(offset))));
        assert!(!all.is_above(Partition(3), Offset(991)));
        let all = after([gap(0, 1, 2), gap(0, 2, 3)]);
        assert_eq!(shown(&all), [(0, 1, 3)], "neighbours are one");
    }
}

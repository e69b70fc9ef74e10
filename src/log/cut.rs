//! A cut: for each partition of a topic, the offset after everything seen so far.

use crate::model::{LeaderEpoch, Offset, Partition, u32_of};

/// A place in one partition: the next offset to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// The first offset that was not read yet. 0: none was.
    pub offset: Offset,
    /// The epoch of the last record seen, for KIP-320's truncation check. `None`: not known, so it
    /// can't be checked.
    pub epoch: LeaderEpoch,
}

impl Next {
    /// A place of unknown epoch, which can't be checked for truncation.
    #[must_use]
    pub const fn at(offset: Offset) -> Self {
        let epoch = LeaderEpoch(None);
        Self { offset, epoch }
    }
}

/// The next offset of every partition, dense by partition number. A partition beyond the end is at
/// offset 0: it is new, or nothing of it was seen. Costs 16 bytes a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    next: Vec<Next>,
}

impl Cut {
    /// The cut at the start of every partition.
    #[must_use]
    pub const fn start() -> Self {
        Self { next: Vec::new() }
    }

    /// The next offset of `partition`.
    #[must_use]
    pub fn get(&self, partition: Partition) -> Next {
        self.next
            .get(partition.0 as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Sets the place of one partition. It may go back: a client's cut does, where the log was
    /// truncated.
    pub fn set(&mut self, partition: Partition, next: Next) {
        let index = partition.0 as usize;
        if index >= self.next.len() {
            self.next.resize(index + 1, Next::default());
        }
        self.next[index] = next;
    }

    /// Every partition up to the highest that was ever set, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Next)> + '_ {
        self.next
            .iter()
            .enumerate()
            .map(|(i, next)| (Partition(u32_of(i)), *next))
    }

    /// Memory held beside the cut itself.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.next.capacity() * size_of::<Next>()
    }

    /// Whether every partition of `self` is at or past its place in `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other
            .iter()
            .all(|(p, theirs)| self.get(p).offset >= theirs.offset)
    }

    /// The later of the two in each partition.
    pub fn raise(&mut self, other: &Self) {
        for (partition, theirs) in other.iter() {
            if theirs.offset > self.get(partition).offset {
                self.set(partition, theirs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(offsets: &[u64]) -> Cut {
        let mut cut = Cut::start();
        for (i, &offset) in offsets.iter().enumerate() {
            let next = Next {
                offset: Offset(offset),
                epoch: LeaderEpoch(None),
            };
            cut.set(Partition(u32_of(i)), next);
        }
        cut
    }

    #[test]
    fn an_absent_partition_is_at_offset_zero() {
        assert!(cut(&[]).covers(&cut(&[0, 0])));
        assert!(!cut(&[5]).covers(&cut(&[0, 1])));
    }

    #[test]
    fn raising_takes_the_later_of_each_partition() {
        let mut one = cut(&[1, 9]);
        one.raise(&cut(&[4, 2, 3]));
        assert_eq!(one, cut(&[4, 9, 3]));
        assert!(one.covers(&cut(&[4, 9, 3])) && !one.covers(&cut(&[5])));
    }
}

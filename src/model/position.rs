//! Where a record is: partition, offset, leader epoch.

/// A partition's number within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u32);

/// Position of one record in its partition. Kafka's negative sentinels are resolved in `kafka/`,
/// so an `Offset` always names a place where a record is, was, or will be. Bounded by 2^63 - 1,
/// since Kafka's own offsets are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u64);

impl Offset {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which leadership of a partition appended a record (KIP-101). Grows with each election. `None`
/// stands where the broker's log does not say (message formats before 0.11; never on Kafka 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaderEpoch(pub Option<u32>);

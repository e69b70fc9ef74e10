//! The position of a record: partition, offset, leader epoch.

/// A partition's number within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u32);

/// Position of one record in its partition. `kafka/` resolves Kafka's negative sentinels, so an
/// `Offset` always names a position where a record is, was, or will be. At most 2^63 - 1, because
/// Kafka's offsets are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u64);

impl Offset {
    /// Returns the offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The leader epoch in which a record was appended (KIP-101). It increases with each election.
/// `None` if the log has none (message formats before 0.11; never on Kafka 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaderEpoch(pub Option<u32>);

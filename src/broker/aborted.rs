//! The transactions that were aborted in a partition.

use super::batch::Header;

/// Aborted transactions remembered per partition. They are forgotten with the records they name.
const ABORTED_MAX: usize = 65_536;

/// An aborted transaction: `read_committed` readers must skip its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub producer_id: i64,
    pub first: i64,
    pub marker: i64,
}

/// The aborted transactions of a partition, in the order of their markers.
#[derive(Debug, Default)]
pub(super) struct AbortedTransactions(Vec<Aborted>);

impl AbortedTransactions {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Aborted> {
        self.0.iter()
    }

    pub(super) fn push(&mut self, aborted: Aborted) {
        self.0.push(aborted);
        if self.0.len() > ABORTED_MAX {
            self.0.remove(0);
        }
    }

    /// Forgets the transactions with markers below the log start.
    pub(super) fn forget_below(&mut self, start: i64) {
        self.0.retain(|aborted| aborted.marker >= start);
    }

    /// Whether a batch belongs to an aborted transaction.
    pub(super) fn cover(&self, header: &Header, base: i64) -> bool {
        let covers =
            |a: &Aborted| a.producer_id == header.producer_id && a.first <= base && base < a.marker;
        header.is_transactional() && self.0.iter().any(covers)
    }
}

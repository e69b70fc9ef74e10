//! The records of one partition that are not acknowledged: those that wait, and the one batch in
//! flight. One batch at a time keeps their order whatever fails, and lets later ones share a batch.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::Produced;
use super::produce_record::ProduceRecord;
use super::records::{self, Sequence};
use super::{Code, LinkId, ProduceError};
use crate::model::{Instant, Offset, Partition, i32_of};

/// A record without a known outcome yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: ProduceRecord,
    pub(super) ticket: u64,
    /// When `produce` accepted the record.
    pub(super) since: Instant,
    /// When it was first put into a batch.
    pub(super) tried: Option<Instant>,
    pub(super) deadline: Instant,
    /// The bytes that it counts for in limits.
    pub(super) bytes: usize,
}

/// A batch with its sequence. Every try sends the same bytes, by which the broker recognizes
/// duplicates.
#[derive(Debug)]
pub(super) struct SentBatch {
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    pub(super) records: Vec<Pending>,
    /// The link on which it waits for a response.
    pub(super) flight: Option<LinkId>,
    /// A try may have appended it. Such a batch is never taken back, because after that only the
    /// response that it *is* appended is certain.
    pub(super) doubtful: bool,
    /// Since when the batch, or one of its records in an earlier batch, is tried.
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) last_error: ProduceError,
}

/// A producer id and its epoch, as a broker gave it.
pub(super) type Identity = (i64, i16);

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Pending>,
    pub(super) sent: Option<SentBatch>,
    /// The producer of this partition's sequence. `None`: the next batch uses the newest one.
    pub(super) identity: Option<Identity>,
    next_sequence: i32,
    pub(super) not_before: Instant,
    pub(super) failures: u32,
    /// The leader's last answer, if it was an error that newer metadata does not resolve.
    pub(super) refused: Option<Code>,
    /// The number of waiting records that are sent in a batch of their own, because the broker
    /// rejected them together and one of them may be the cause.
    singly: usize,
}

impl Queue {
    /// Forms the next batch of the waiting records: `bytes_max` at most, and at least one record.
    pub(super) fn form(&mut self, newest: Identity, number: u64, bytes_max: usize, now: Instant) {
        debug_assert!(self.sent.is_none() && !self.waiting.is_empty());
        let identity = *self.identity.get_or_insert(newest);
        let mut bytes = 0;
        let fits = |pending: &&Pending| {
            bytes += pending.bytes;
            bytes <= bytes_max
        };
        let mut count = self.waiting.iter().take_while(fits).count().max(1);
        if self.singly > 0 {
            (count, self.singly) = (1, self.singly - 1);
        }
        let mut records: Vec<Pending> = self.waiting.drain(..count).collect();
        let tried = records.iter_mut().map(|it| *it.tried.get_or_insert(now));
        let since = tried.min().unwrap_or(now);
        let sequence = Sequence {
            producer_id: identity.0,
            producer_epoch: identity.1,
            first: self.next_sequence,
        };
        // Kafka's sequences wrap from 2^31 - 1 to 0.
        self.next_sequence = self.next_sequence.wrapping_add(i32_of(count)) & i32::MAX;
        let deadline = records.iter().map(|pending| pending.deadline).min();
        self.sent = Some(SentBatch {
            number,
            bytes: records::encode(records.iter().map(|pending| &pending.record), sequence),
            records,
            flight: None,
            doubtful: false,
            since,
            deadline: deadline.expect("a batch has a record"),
            last_error: ProduceError::Timeout,
        });
    }

    /// The batch was certainly not appended: its sequence numbers are free, and its records wait
    /// again, before the others.
    pub(super) fn take_back(&mut self, singly: bool) {
        let Some(sent) = self.sent.take() else { return };
        debug_assert!(!sent.doubtful);
        let count = sent.records.len();
        self.free_sequence(count);
        for pending in sent.records.into_iter().rev() {
            self.waiting.push_front(pending);
        }
        if singly {
            self.singly = self.singly.max(count);
        }
    }

    pub(super) fn free_sequence(&mut self, count: usize) {
        self.next_sequence = self.next_sequence.wrapping_sub(i32_of(count)) & i32::MAX;
    }

    /// The partition's sequence is unknown: the next batch begins a new one. Returns its producer.
    pub(super) fn forget_sequence(&mut self) -> Option<Identity> {
        self.next_sequence = 0;
        self.identity.take()
    }
}

impl SentBatch {
    /// The outcome of each record once the batch is appended at `base`.
    pub(super) fn appended(&self, partition: Partition, base: Option<Offset>) -> Vec<Produced> {
        let offset = |i: usize| base.map(|base| Offset(base.0 + i as u64));
        let each = 0..self.records.len();
        each.map(|i| Produced::At(partition, offset(i))).collect()
    }
}

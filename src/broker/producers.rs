//! What a partition remembers of its producers (KIP-98): the epoch; the last batches, by which a
//! retry is recognised; the open transaction, from which the last stable offset follows.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::error::ResponseError;

use super::batch::Header;

/// Batches remembered per producer, as many as a client may have in flight (Kafka's own number).
const RECENT_MAX: usize = 5;
/// Producers remembered per partition. The producer that has been idle longest is forgotten first,
/// unless its transaction is open. Kafka forgets by time (`producer.id.expiration.ms`).
const PRODUCERS_MAX: usize = 1_024;

/// The idempotent and transactional producers of one partition.
#[derive(Debug, Default)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// Open transactions by the offset of their first record.
    open: BTreeMap<i64, i64>,
    uses: u64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    recent: VecDeque<Written>,
    first_offset: Option<i64>,
    used: u64,
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    first_sequence: i32,
    last_sequence: i32,
    pub base_offset: i64,
    /// Set if the topic stamps records with their append time.
    pub append_time: Option<i64>,
}

/// What a producer's batch is by its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    /// The batch continues the sequence, or its producer is not idempotent: append the batch.
    Next,
    /// The batch was appended before: answer the retry, and do not append the batch again.
    Duplicate(Written),
    /// The batch is out of order or fenced: do not append it, and return this error.
    Rejected(ResponseError),
}

impl Producers {
    /// Decides what a client's batch is, before it is appended.
    pub(super) fn sequence(&self, header: &Header) -> Sequence {
        let Some(known) = self.by_id.get(&header.producer_id) else {
            return Sequence::Next; // Not idempotent or forgotten: any sequence may begin.
        };
        if header.producer_epoch < known.epoch {
            return Sequence::Rejected(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > known.epoch {
            return match header.base_sequence {
                0 => Sequence::Next,
                _ => Sequence::Rejected(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        let last = last_sequence(header);
        let same =
            |w: &&Written| w.first_sequence == header.base_sequence && w.last_sequence == last;
        if let Some(written) = known.recent.iter().find(same) {
            return Sequence::Duplicate(*written);
        }
        match known.recent.back() {
            Some(newest) if after(newest.last_sequence) != header.base_sequence => {
                Sequence::Rejected(ResponseError::OutOfOrderSequenceNumber)
            }
            _ => Sequence::Next,
        }
    }

    /// Remembers a batch that was appended at `base_offset`.
    pub(super) fn on_append(&mut self, header: &Header, base_offset: i64) {
        if header.producer_id < 0 || header.is_control() {
            return;
        }
        let producer = self.entry(header.producer_id, header.producer_epoch);
        let append_time = header.is_log_append_time().then_some(header.max_timestamp);
        producer.recent.push_back(Written {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header),
            base_offset,
            append_time,
        });
        if producer.recent.len() > RECENT_MAX {
            producer.recent.pop_front();
        }
        if header.is_transactional() && producer.first_offset.is_none() {
            producer.first_offset = Some(base_offset);
            self.open.insert(base_offset, header.producer_id);
        }
    }

    /// Ends the producer's transaction after its marker was appended. Returns the offset of the
    /// transaction's first record in this partition.
    pub(super) fn on_marker(&mut self, producer_id: i64, epoch: i16) -> Option<i64> {
        let producer = self.entry(producer_id, epoch);
        let first = producer.first_offset.take()?;
        self.open.remove(&first);
        Some(first)
    }

    /// The first offset of the oldest open transaction.
    pub(super) fn first_open(&self) -> Option<i64> {
        self.open.first_key_value().map(|(offset, _)| *offset)
    }

    fn entry(&mut self, producer_id: i64, epoch: i16) -> &mut Producer {
        self.uses += 1;
        if self.by_id.len() >= PRODUCERS_MAX && !self.by_id.contains_key(&producer_id) {
            self.forget_one();
        }
        let producer = self.by_id.entry(producer_id).or_insert(Producer {
            epoch,
            recent: VecDeque::new(),
            first_offset: None,
            used: 0,
        });
        producer.used = self.uses;
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.recent.clear(); // Sequences of a new epoch begin at 0.
        }
        producer
    }

    fn forget_one(&mut self) {
        let idle = self.by_id.iter().filter(|(_, p)| p.first_offset.is_none());
        let oldest = idle.min_by_key(|(_, p)| p.used).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.by_id.remove(&id);
        }
    }
}

/// The sequence number of a batch's last record; they wrap from 2^31 - 1 to 0.
fn last_sequence(header: &Header) -> i32 {
    let last = i64::from(header.base_sequence) + i64::from(header.count) - 1;
    (last % (1 << 31)) as i32
}

const fn after(sequence: i32) -> i32 {
    if sequence == i32::MAX {
        0
    } else {
        sequence + 1
    }
}

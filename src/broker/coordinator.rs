//! The transaction coordinator (KIP-98): producer ids and transactions. A commit or an abort writes
//! its markers before it is answered. Offsets of consumer groups that are part of a transaction
//! wait here until it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::batch;
use super::groups::{Committed, TopicPartition};
use super::store::Store;
use super::topics::TopicRef;
use crate::model::{Instant, Now};

/// Transactional ids remembered; a further one is refused (COORDINATOR_NOT_AVAILABLE).
const TRANSACTIONAL_IDS_MAX: usize = 1_024;
/// Offsets of groups in one transaction at most.
const OFFSETS_MAX: usize = 10_000;

/// A producer and its epoch, which fences older users of the same transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerEpoch {
    pub id: i64,
    pub epoch: i16,
}

/// A partition of a transaction. The topic's id keeps a re-created topic out of it.
pub(super) type Member = (Uuid, i32);

/// Producer ids handed out, and transactions by their id.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    transactions: BTreeMap<String, Transaction>,
    producer_ids: i64,
    /// Offsets of committed transactions, until their groups take them.
    committed: Vec<GroupOffset>,
}

/// An offset that a transaction commits for a group.
#[derive(Clone, Debug)]
pub(super) struct GroupOffset {
    pub group: String,
    pub partition: TopicPartition,
    pub committed: Committed,
}

#[derive(Debug)]
struct Transaction {
    producer: ProducerEpoch,
    timeout: Duration,
    partitions: BTreeSet<Member>,
    /// Groups whose offsets are part of the open transaction, and these offsets.
    groups: BTreeSet<String>,
    offsets: BTreeMap<(String, TopicPartition), Committed>,
    /// When it is aborted unless it ended before. Set while the transaction is open.
    deadline: Option<Instant>,
    /// How the last transaction ended, for a retried EndTxn.
    committed: Option<bool>,
}

impl Transaction {
    fn join(&mut self, partition: Member, now: Now) {
        self.partitions.insert(partition);
        self.begin(now);
    }

    fn begin(&mut self, now: Now) {
        self.committed = None;
        let deadline = now.mono.after(self.timeout);
        self.deadline.get_or_insert(deadline);
    }

    /// Moves to the next epoch. When all are used up, to epoch 0 of the producer id `fresh`.
    const fn next_epoch(&mut self, fresh: i64) {
        if self.producer.epoch >= i16::MAX - 1 {
            self.producer = ProducerEpoch {
                id: fresh,
                epoch: 0,
            };
        } else {
            self.producer.epoch += 1;
        }
    }

    /// Ends the transaction if it is open: appends its markers, under the next epoch if `fences`.
    /// Returns the offsets that count from now on.
    #[must_use]
    fn end(
        &mut self,
        committed: bool,
        fences: bool,
        now: Now,
        store: &mut Store,
    ) -> Vec<GroupOffset> {
        if self.deadline.take().is_none() {
            return Vec::new();
        }
        self.committed = Some(committed);
        if fences && self.producer.epoch < i16::MAX - 1 {
            self.producer.epoch += 1;
        }
        let ProducerEpoch { id, epoch } = self.producer;
        for (topic, index) in std::mem::take(&mut self.partitions) {
            let marker = batch::marker(id, epoch, committed, now.wall.0);
            // This fails only if the partition was deleted, and its records with it.
            let _deleted = store.append(&TopicRef::Id(topic), index, marker);
        }
        self.groups.clear();
        let offsets = std::mem::take(&mut self.offsets).into_iter();
        let offsets = offsets.filter(|_| committed);
        offsets
            .map(|((group, partition), committed)| GroupOffset {
                group,
                partition,
                committed,
            })
            .collect()
    }
}

impl Coordinator {
    /// A producer id that was never handed out.
    pub(super) fn next_producer_id(&mut self) -> i64 {
        self.producer_ids += 1;
        self.producer_ids
    }

    /// When [`Self::abort_overdue`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.transactions.values().filter_map(|t| t.deadline).min()
    }

    /// Takes a deleted topic out of all transactions.
    pub(super) fn forget_topic(&mut self, topic: Uuid) {
        for transaction in self.transactions.values_mut() {
            transaction.partitions.retain(|(id, _)| *id != topic);
        }
    }

    /// Makes a producer the only user of a transactional id. The next epoch fences the previous
    /// user, and the open transaction of that user is aborted. `named` is the id and epoch that the
    /// producer claims.
    pub(super) fn init(
        &mut self,
        id: &str,
        named: Option<ProducerEpoch>,
        timeout: Duration,
        now: Now,
        store: &mut Store,
    ) -> Result<ProducerEpoch, ResponseError> {
        let fresh = self.producer_ids + 1;
        let is_full = self.transactions.len() >= TRANSACTIONAL_IDS_MAX;
        let transaction = match self.transactions.get_mut(id) {
            Some(known) => {
                // KIP-360: a producer that names what it has must name the present epoch.
                if named.is_some_and(|named| named != known.producer) {
                    return Err(ResponseError::ProducerFenced);
                }
                let _none = known.end(false, true, now, store);
                known
            }
            None if is_full => return Err(ResponseError::CoordinatorNotAvailable),
            None => self
                .transactions
                .entry(id.to_owned())
                .or_insert(Transaction {
                    producer: ProducerEpoch {
                        id: fresh,
                        epoch: -1,
                    },
                    timeout,
                    partitions: BTreeSet::new(),
                    groups: BTreeSet::new(),
                    offsets: BTreeMap::new(),
                    deadline: None,
                    committed: None,
                }),
        };
        transaction.timeout = timeout;
        transaction.committed = None;
        transaction.next_epoch(fresh);
        self.producer_ids = fresh;
        Ok(transaction.producer)
    }

    fn find(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
    ) -> Result<&mut Transaction, ResponseError> {
        let known = self.transactions.get_mut(id);
        let transaction = known.ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer.id != producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if transaction.producer.epoch != producer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(transaction)
    }

    /// Adds a partition to a producer's transaction, which opens it.
    pub(super) fn join(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        partition: Member,
        now: Now,
    ) -> Result<(), ResponseError> {
        self.find(id, producer)?.join(partition, now);
        Ok(())
    }

    /// Adds a group's offsets to a producer's transaction, which opens it.
    pub(super) fn join_group(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        group: &str,
        now: Now,
    ) -> Result<(), ResponseError> {
        let transaction = self.find(id, producer)?;
        transaction.groups.insert(group.to_owned());
        transaction.begin(now);
        Ok(())
    }

    /// Adds an offset of a group that is part of the transaction.
    pub(super) fn add_offset(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        group: &str,
        partition: TopicPartition,
        committed: Committed,
    ) -> Result<(), ResponseError> {
        let transaction = self.find(id, producer)?;
        if !transaction.groups.contains(group) {
            return Err(ResponseError::InvalidTxnState);
        }
        if transaction.offsets.len() >= OFFSETS_MAX {
            return Err(ResponseError::InvalidCommitOffsetSize);
        }
        transaction
            .offsets
            .insert((group.to_owned(), partition), committed);
        Ok(())
    }

    /// Whether an open transaction has an offset of the group for the partition.
    pub(super) fn has_pending_offset(&self, group: &str, partition: &TopicPartition) -> bool {
        let key = (group.to_owned(), partition.clone());
        let mut open = self
            .transactions
            .values()
            .filter(|it| it.deadline.is_some());
        open.any(|transaction| transaction.offsets.contains_key(&key))
    }

    /// Offsets of transactions that were committed since the last call.
    pub(super) fn take_committed(&mut self) -> Vec<GroupOffset> {
        std::mem::take(&mut self.committed)
    }

    /// Checks that a partition is in a producer's transaction.
    pub(super) fn verify(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        partition: Member,
    ) -> Result<(), ResponseError> {
        let transaction = self.find(id, producer)?;
        let joined = transaction.partitions.contains(&partition);
        joined.then_some(()).ok_or(ResponseError::InvalidTxnState)
    }

    /// Ends a producer's transaction. Returns the producer's epoch from then on, which is the next
    /// one if `fences` (KIP-890).
    pub(super) fn end(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        end: EndOfTransaction,
        now: Now,
        store: &mut Store,
    ) -> Result<ProducerEpoch, ResponseError> {
        let transaction = self.find(id, producer)?;
        if transaction.deadline.is_none() {
            // The retry of an end that was answered is no error; any other is.
            return match transaction.committed {
                Some(committed) if committed == end.committed => Ok(producer),
                _ => Err(ResponseError::InvalidTxnState),
            };
        }
        let offsets = transaction.end(end.committed, end.fences, now, store);
        let producer = transaction.producer;
        self.committed.extend(offsets);
        Ok(producer)
    }

    /// Aborts transactions that have timed out, and fences their producers.
    pub(super) fn abort_overdue(&mut self, now: Now, store: &mut Store) {
        let is_due = |t: &Transaction| t.deadline.is_some_and(|deadline| deadline <= now.mono);
        for transaction in self.transactions.values_mut().filter(|t| is_due(t)) {
            let _none = transaction.end(false, true, now, store);
        }
    }
}

/// How EndTxn or a timeout closes a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndOfTransaction {
    /// True commits the transaction, false aborts it.
    pub committed: bool,
    /// The producer's epoch moves on with the end.
    pub fences: bool,
}

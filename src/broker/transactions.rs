//! The transaction coordinator (KIP-98), whole and instant: a commit or abort writes its markers
//! before it is answered. Offsets of consumer groups are not part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator as Found;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, BrokerId, EndTxnRequest, EndTxnResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::batch::{self, Header};
use super::cluster::{Cluster, Context};
use super::topics::TopicRef;
use crate::model::{Instant, Now};

/// Transactional ids remembered; a further one is refused (COORDINATOR_NOT_AVAILABLE).
const TRANSACTIONAL_IDS_MAX: usize = 1_024;
/// Kafka's `transaction.max.timeout.ms`.
const TIMEOUT_MS_MAX: i32 = 900_000;

/// Producer ids handed out and transactions by their id.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    transactions: BTreeMap<String, Transaction>,
    producer_ids: i64,
}

#[derive(Debug)]
struct Transaction {
    producer_id: i64,
    epoch: i16,
    timeout: Duration,
    partitions: BTreeSet<(Uuid, i32)>,
    /// When it is aborted unless it ended; set while it is open.
    deadline: Option<Instant>,
    /// How the last one ended, for a retried EndTxn.
    committed: Option<bool>,
}

impl Coordinator {
    fn next_producer_id(&mut self) -> i64 {
        self.producer_ids += 1;
        self.producer_ids
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.transactions.values().filter_map(|t| t.deadline).min()
    }

    pub(super) fn forget_topic(&mut self, topic: Uuid) {
        for transaction in self.transactions.values_mut() {
            transaction.partitions.retain(|(id, _)| *id != topic);
        }
    }

    fn find(
        &mut self,
        id: &str,
        producer_id: i64,
        epoch: i16,
    ) -> Result<&mut Transaction, ResponseError> {
        let known = self.transactions.get_mut(id);
        let transaction = known.ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer_id != producer_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if transaction.epoch != epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(transaction)
    }

    /// Whether a transactional batch may be appended to a partition. `joins`: the produce request
    /// itself adds the partition (KIP-890, Produce 12 and later).
    pub(super) fn admit(
        &mut self,
        id: Option<&str>,
        header: &Header,
        partition: (Uuid, i32),
        joins: bool,
        now: Now,
    ) -> Result<(), ResponseError> {
        let id = id.ok_or(ResponseError::TransactionalIdAuthorizationFailed)?;
        let found = self.find(id, header.producer_id, header.producer_epoch);
        let transaction = found.map_err(|error| match error {
            ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
            other => other,
        })?;
        if joins {
            transaction.open(partition, now);
        }
        if transaction.partitions.contains(&partition) {
            return Ok(());
        }
        // KIP-890: the producer shall abort, whatever it believes to have joined.
        Err(ResponseError::TransactionAbortable)
    }
}

impl Transaction {
    fn open(&mut self, partition: (Uuid, i32), now: Now) {
        self.partitions.insert(partition);
        self.committed = None;
        let deadline = now.mono.after(self.timeout);
        self.deadline.get_or_insert(deadline);
    }
}

impl Cluster {
    /// FindCoordinator: the controller, for transactions and for groups alike. There are no
    /// consumer groups here, but librdkafka looks for a coordinator even to read assigned
    /// partitions; whoever then joins or commits finds those APIs not offered, and says so.
    pub(super) fn find_coordinator(
        &mut self,
        ctx: &Context,
        request: &FindCoordinatorRequest,
    ) -> FindCoordinatorResponse {
        let node = self.controller();
        let address = node.and_then(|id| self.node(id).map(|node| (id, node)));
        let error = match address {
            Some(_) => 0,
            None => ResponseError::CoordinatorNotAvailable.code(),
        };
        let (id, host, port) = match address {
            Some((id, node)) => (i32::from(id.0), node.host.clone(), i32::from(node.port)),
            None => (-1, String::new(), -1),
        };
        let host = StrBytes::from(host);
        if ctx.version < 4 {
            return FindCoordinatorResponse::default()
                .with_error_code(error)
                .with_error_message(None)
                .with_node_id(BrokerId(id))
                .with_host(host)
                .with_port(port);
        }
        let found = |key: &StrBytes| {
            Found::default()
                .with_key(key.clone())
                .with_node_id(BrokerId(id))
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(error)
                .with_error_message(None)
        };
        let found = request.coordinator_keys.iter().map(found).collect();
        FindCoordinatorResponse::default().with_coordinators(found)
    }

    /// InitProducerId: a new id for an idempotent producer; for a transactional one its own id
    /// under the next epoch, which fences whoever used it before and aborts what that one left
    /// open.
    pub(super) fn init_producer_id(
        &mut self,
        ctx: &Context,
        request: &InitProducerIdRequest,
    ) -> InitProducerIdResponse {
        let granted = match &request.transactional_id {
            None => Ok((self.coordinator.next_producer_id(), 0)),
            Some(id) if id.0.is_empty() => Err(ResponseError::InvalidRequest),
            Some(id) => self.init_transactional(ctx, &id.0, request),
        };
        let response = InitProducerIdResponse::default();
        match granted {
            Ok((id, epoch)) => response
                .with_producer_id(id.into())
                .with_producer_epoch(epoch),
            Err(error) => response
                .with_error_code(fenced_as(error, ctx.version >= 4))
                .with_producer_id((-1).into())
                .with_producer_epoch(-1),
        }
    }

    fn init_transactional(
        &mut self,
        ctx: &Context,
        id: &str,
        request: &InitProducerIdRequest,
    ) -> Result<(i64, i16), ResponseError> {
        let timeout_ms = request.transaction_timeout_ms;
        if !(1..=TIMEOUT_MS_MAX).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        self.coordinator_here(ctx)?;
        let timeout = Duration::from_millis(timeout_ms as u64);
        let known = self.coordinator.transactions.get(id);
        if known.is_none() && self.coordinator.transactions.len() >= TRANSACTIONAL_IDS_MAX {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if let Some(known) = known {
            // KIP-360: a producer that names what it has must name the present.
            let named = request.producer_id.0;
            if named >= 0 && (named, request.producer_epoch) != (known.producer_id, known.epoch) {
                return Err(ResponseError::ProducerFenced);
            }
            self.end(id, false, true, ctx.now);
        } else {
            let transaction = Transaction {
                producer_id: self.coordinator.next_producer_id(),
                epoch: -1,
                timeout,
                partitions: BTreeSet::new(),
                deadline: None,
                committed: None,
            };
            self.coordinator
                .transactions
                .insert(id.to_owned(), transaction);
        }
        let fresh = self.coordinator.next_producer_id();
        let known = self.coordinator.transactions.get_mut(id);
        let transaction = known.expect("found or inserted above");
        transaction.timeout = timeout;
        transaction.committed = None;
        transaction.next_epoch(fresh);
        Ok((transaction.producer_id, transaction.epoch))
    }

    fn coordinator_here(&self, ctx: &Context) -> Result<(), ResponseError> {
        if self.controller() == Some(ctx.node) {
            return Ok(());
        }
        Err(ResponseError::NotCoordinator)
    }

    /// AddPartitionsToTxn, of one transaction (to version 3) or of several.
    pub(super) fn add_partitions(
        &mut self,
        ctx: &Context,
        request: &AddPartitionsToTxnRequest,
    ) -> AddPartitionsToTxnResponse {
        let response = AddPartitionsToTxnResponse::default();
        if ctx.version < 4 {
            let id = &request.v3_and_below_transactional_id.0;
            let producer = request.v3_and_below_producer_id.0;
            let epoch = request.v3_and_below_producer_epoch;
            let topics = &request.v3_and_below_topics;
            let results = self.add_to_one(ctx, id, producer, epoch, topics, false);
            return response.with_results_by_topic_v3_and_below(results);
        }
        let mut results = Vec::new();
        for one in &request.transactions {
            let (id, producer, epoch) =
                (&one.transactional_id, one.producer_id.0, one.producer_epoch);
            let topics = self.add_to_one(ctx, &id.0, producer, epoch, &one.topics, one.verify_only);
            let result = AddPartitionsToTxnResult::default()
                .with_transactional_id(id.clone())
                .with_topic_results(topics);
            results.push(result);
        }
        response.with_results_by_transaction(results)
    }

    fn add_to_one(
        &mut self,
        ctx: &Context,
        id: &str,
        producer: i64,
        epoch: i16,
        topics: &[AddPartitionsToTxnTopic],
        verify_only: bool,
    ) -> Vec<AddPartitionsToTxnTopicResult> {
        let mut all = Vec::new();
        for topic in topics {
            let name = TopicRef::Name(topic.name.0.to_string());
            let mut results = Vec::new();
            for &index in &topic.partitions {
                let added = self.add_one(ctx, id, producer, epoch, &name, index, verify_only);
                let code = added.map_or_else(|error| fenced_as(error, ctx.version >= 2), |()| 0);
                let result = AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(index)
                    .with_partition_error_code(code);
                results.push(result);
            }
            let result = AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(results);
            all.push(result);
        }
        all
    }

    #[allow(clippy::too_many_arguments)] // One partition of one topic of one transaction.
    fn add_one(
        &mut self,
        ctx: &Context,
        id: &str,
        producer: i64,
        epoch: i16,
        topic: &TopicRef,
        index: i32,
        verify_only: bool,
    ) -> Result<(), ResponseError> {
        self.coordinator_here(ctx)?;
        let topic_id = self.topics.partition(topic, index)?.0.id;
        let transaction = self.coordinator.find(id, producer, epoch)?;
        if verify_only {
            let inside = transaction.partitions.contains(&(topic_id, index));
            return inside.then_some(()).ok_or(ResponseError::InvalidTxnState);
        }
        transaction.open((topic_id, index), ctx.now);
        Ok(())
    }

    /// EndTxn: markers in every partition of the transaction, then the answer. From version 5 on
    /// the producer's epoch moves with each end (KIP-890).
    pub(super) fn end_txn(&mut self, ctx: &Context, request: &EndTxnRequest) -> EndTxnResponse {
        let response = EndTxnResponse::default();
        match self.end_checked(ctx, request) {
            Err(error) => response.with_error_code(fenced_as(error, ctx.version >= 2)),
            Ok(_) if ctx.version < 5 => response,
            Ok((id, epoch)) => response
                .with_producer_id(id.into())
                .with_producer_epoch(epoch),
        }
    }

    fn end_checked(
        &mut self,
        ctx: &Context,
        request: &EndTxnRequest,
    ) -> Result<(i64, i16), ResponseError> {
        self.coordinator_here(ctx)?;
        let id = &request.transactional_id.0;
        let (producer, epoch) = (request.producer_id.0, request.producer_epoch);
        let transaction = self.coordinator.find(id, producer, epoch)?;
        if transaction.deadline.is_none() {
            // A retry of the end that was answered is no error; any other is.
            return match transaction.committed {
                Some(committed) if committed == request.committed => Ok((producer, epoch)),
                _ => Err(ResponseError::InvalidTxnState),
            };
        }
        self.end(id, request.committed, ctx.version >= 5, ctx.now);
        let transaction = &self.coordinator.transactions[&**id];
        Ok((transaction.producer_id, transaction.epoch))
    }

    /// Ends an open transaction, if it is one: markers, and the next epoch if `fence`.
    fn end(&mut self, id: &str, committed: bool, fence: bool, now: Now) {
        let Some(transaction) = self.coordinator.transactions.get_mut(id) else {
            return;
        };
        if transaction.deadline.take().is_none() {
            return;
        }
        transaction.committed = Some(committed);
        let (producer_id, epoch) = (transaction.producer_id, transaction.epoch);
        let partitions = std::mem::take(&mut transaction.partitions);
        if fence && epoch < i16::MAX - 1 {
            transaction.epoch += 1;
        }
        let marker_epoch = transaction.epoch;
        for (topic, index) in partitions {
            let marker = batch::marker(producer_id, marker_epoch, committed, now.wall.0);
            // Fails only if the partition is gone, and its records with it.
            let _gone = self.append(&TopicRef::Id(topic), index, marker);
        }
    }

    /// Aborts the transactions whose timeout has passed and fences their producers.
    pub(super) fn abort_overdue(&mut self, now: Now) {
        let due = |t: &Transaction| t.deadline.is_some_and(|deadline| deadline <= now.mono);
        let transactions = &self.coordinator.transactions;
        let overdue = transactions.iter().filter(|(_, t)| due(t));
        let overdue: Vec<String> = overdue.map(|(id, _)| id.clone()).collect();
        for id in overdue {
            self.end(&id, false, true, now);
        }
    }
}

impl Transaction {
    /// The next epoch; when they are used up, epoch 0 of the `fresh` producer id.
    const fn next_epoch(&mut self, fresh: i64) {
        if self.epoch >= i16::MAX - 1 {
            self.producer_id = fresh;
            self.epoch = 0;
        } else {
            self.epoch += 1;
        }
    }
}

/// The code of an error; older versions do not know PRODUCER_FENCED (KIP-588).
const fn fenced_as(error: ResponseError, knows_fenced: bool) -> i16 {
    match error {
        ResponseError::ProducerFenced if !knows_fenced => {
            ResponseError::InvalidProducerEpoch.code()
        }
        other => other.code(),
    }
}

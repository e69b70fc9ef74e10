//! The requests of transactional and idempotent producers.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator as CoordinatorAddress;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, BrokerId, EndTxnRequest, EndTxnResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::context::RequestContext;
use super::coordinator::{Coordinator, EndOfTransaction, ProducerEpoch};
use super::nodes::Nodes;
use super::store::Store;
use super::topics::TopicRef;

/// The longest timeout a producer may ask for: Kafka's `transaction.max.timeout.ms`.
const TIMEOUT_MS_MAX: i32 = 900_000;

/// FindCoordinator, InitProducerId, AddPartitionsToTxn and EndTxn.
pub(super) struct TransactionApi<'a> {
    pub ctx: RequestContext,
    pub nodes: &'a Nodes,
    pub coordinator: &'a mut Coordinator,
    pub store: &'a mut Store,
}

/// A transaction that a request names, and the producer that says it owns it.
#[derive(Clone, Copy)]
struct Named<'a> {
    id: &'a str,
    producer: ProducerEpoch,
}

impl TransactionApi<'_> {
    /// Returns the controller, for transactions and for groups alike.
    pub(super) fn find_coordinator(
        &self,
        request: &FindCoordinatorRequest,
    ) -> FindCoordinatorResponse {
        let (error, id, host, port) = match self.nodes.controller() {
            Some((id, node)) => (0, i32::from(id.0), node.host().to_owned(), node.port()),
            None => {
                let error = ResponseError::CoordinatorNotAvailable.code();
                (error, -1, String::new(), -1)
            }
        };
        let host = StrBytes::from(host);
        if self.ctx.version < 4 {
            return FindCoordinatorResponse::default()
                .with_error_code(error)
                .with_error_message(None)
                .with_node_id(BrokerId(id))
                .with_host(host)
                .with_port(port);
        }
        let found = |key: &StrBytes| {
            CoordinatorAddress::default()
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

    /// Returns a new id for an idempotent producer. A transactional producer gets the id of its
    /// transactional id under the next epoch.
    pub(super) fn init_producer_id(
        &mut self,
        request: &InitProducerIdRequest,
    ) -> InitProducerIdResponse {
        let granted = match &request.transactional_id {
            None => Ok(ProducerEpoch {
                id: self.coordinator.next_producer_id(),
                epoch: 0,
            }),
            Some(id) if id.0.is_empty() => Err(ResponseError::InvalidRequest),
            Some(id) => self.init_transactional(&id.0, request),
        };
        let response = InitProducerIdResponse::default();
        match granted {
            Ok(producer) => response
                .with_producer_id(producer.id.into())
                .with_producer_epoch(producer.epoch),
            Err(error) => response
                .with_error_code(fenced_as(error, self.ctx.version >= 4))
                .with_producer_id((-1).into())
                .with_producer_epoch(-1),
        }
    }

    fn init_transactional(
        &mut self,
        id: &str,
        request: &InitProducerIdRequest,
    ) -> Result<ProducerEpoch, ResponseError> {
        let timeout_ms = request.transaction_timeout_ms;
        if !(1..=TIMEOUT_MS_MAX).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        self.check_coordinator()?;
        let timeout = Duration::from_millis(timeout_ms as u64);
        let named = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let named = (named.id >= 0).then_some(named);
        self.coordinator
            .init(id, named, timeout, self.ctx.now, self.store)
    }

    /// Rejects requests at a node that is not the coordinator.
    fn check_coordinator(&self) -> Result<(), ResponseError> {
        let controller = self.nodes.controller().map(|(id, _)| id);
        if controller == Some(self.ctx.node) {
            return Ok(());
        }
        Err(ResponseError::NotCoordinator)
    }

    /// Adds partitions to one transaction (up to version 3) or to several.
    pub(super) fn add_partitions(
        &mut self,
        request: &AddPartitionsToTxnRequest,
    ) -> AddPartitionsToTxnResponse {
        let response = AddPartitionsToTxnResponse::default();
        if self.ctx.version < 4 {
            let named = Named {
                id: &request.v3_and_below_transactional_id.0,
                producer: ProducerEpoch {
                    id: request.v3_and_below_producer_id.0,
                    epoch: request.v3_and_below_producer_epoch,
                },
            };
            let results = self.add_to_one(named, &request.v3_and_below_topics, false);
            return response.with_results_by_topic_v3_and_below(results);
        }
        let mut results = Vec::new();
        for one in &request.transactions {
            let named = Named {
                id: &one.transactional_id.0,
                producer: ProducerEpoch {
                    id: one.producer_id.0,
                    epoch: one.producer_epoch,
                },
            };
            let topics = self.add_to_one(named, &one.topics, one.verify_only);
            let result = AddPartitionsToTxnResult::default()
                .with_transactional_id(one.transactional_id.clone())
                .with_topic_results(topics);
            results.push(result);
        }
        response.with_results_by_transaction(results)
    }

    fn add_to_one(
        &mut self,
        named: Named<'_>,
        topics: &[AddPartitionsToTxnTopic],
        verify_only: bool,
    ) -> Vec<AddPartitionsToTxnTopicResult> {
        let mut all = Vec::new();
        for topic in topics {
            let name = TopicRef::Name(topic.name.0.to_string());
            let mut results = Vec::new();
            for &index in &topic.partitions {
                let added = self.add_one(named, &name, index, verify_only);
                let knows_fenced = self.ctx.version >= 2;
                let code = added.map_or_else(|error| fenced_as(error, knows_fenced), |()| 0);
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

    fn add_one(
        &mut self,
        Named { id, producer }: Named<'_>,
        topic: &TopicRef,
        index: i32,
        verify_only: bool,
    ) -> Result<(), ResponseError> {
        self.check_coordinator()?;
        let (topic, _) = self.store.topics().partition(topic, index)?;
        let partition = (topic.id, index);
        if verify_only {
            return self.coordinator.verify(id, producer, partition);
        }
        self.coordinator.join(id, producer, partition, self.ctx.now)
    }

    /// Appends markers to every partition of the transaction, then answers. From version 5 on, each
    /// end moves the producer to its next epoch (KIP-890).
    pub(super) fn end_transaction(&mut self, request: &EndTxnRequest) -> EndTxnResponse {
        let response = EndTxnResponse::default();
        let version = self.ctx.version;
        match self.end_checked(request) {
            Err(error) => response.with_error_code(fenced_as(error, version >= 2)),
            Ok(_) if version < 5 => response,
            Ok(producer) => response
                .with_producer_id(producer.id.into())
                .with_producer_epoch(producer.epoch),
        }
    }

    fn end_checked(&mut self, request: &EndTxnRequest) -> Result<ProducerEpoch, ResponseError> {
        self.check_coordinator()?;
        let producer = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let end = EndOfTransaction {
            committed: request.committed,
            fences: self.ctx.version >= 5,
        };
        let id = &request.transactional_id.0;
        self.coordinator
            .end(id, producer, end, self.ctx.now, self.store)
    }
}

/// The code of an error. Older versions do not know PRODUCER_FENCED (KIP-588).
const fn fenced_as(error: ResponseError, knows_fenced: bool) -> i16 {
    match error {
        ResponseError::ProducerFenced if !knows_fenced => {
            ResponseError::InvalidProducerEpoch.code()
        }
        other => other.code(),
    }
}

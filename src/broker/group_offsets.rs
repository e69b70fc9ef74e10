//! OffsetCommit and OffsetFetch, and the offsets that a transaction commits with its records.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::context::RequestContext;
use super::coordinator::{Coordinator, ProducerEpoch};
use super::groups::{Claim, Committed, Groups, METADATA_BYTES_MAX, TopicPartition};
use super::nodes::Nodes;
use super::topics::{TopicRef, Topics};

/// The requests about committed offsets.
pub(super) struct GroupOffsetsApi<'a> {
    pub ctx: RequestContext,
    pub nodes: &'a Nodes,
    pub topics: &'a Topics,
    pub groups: &'a mut Groups,
    pub coordinator: &'a mut Coordinator,
}

/// An offset of a partition, in a response of any version.
struct Found {
    index: i32,
    committed: Committed,
    error: i16,
}

impl GroupOffsetsApi<'_> {
    pub(super) fn commit(&mut self, request: &OffsetCommitRequest) -> OffsetCommitResponse {
        let claim = Claim {
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id_or_member_epoch,
        };
        let group = &request.group_id.0;
        let may = self
            .check_coordinator()
            .and_then(|()| self.groups.check_commit(group, claim));
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let place = (topic.name.0.to_string(), asked.partition_index);
                let committed = committed(
                    asked.committed_offset,
                    asked.committed_leader_epoch,
                    asked.committed_metadata.as_ref(),
                );
                let done = may
                    .and_then(|()| self.check_one(&place, &committed))
                    .and_then(|()| self.groups.commit(group, place, committed));
                partitions.push(
                    OffsetCommitResponsePartition::default()
                        .with_partition_index(asked.partition_index)
                        .with_error_code(code(done)),
                );
            }
            topics.push(
                OffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        OffsetCommitResponse::default().with_topics(topics)
    }

    pub(super) fn fetch(&self, request: &OffsetFetchRequest) -> OffsetFetchResponse {
        let response = OffsetFetchResponse::default();
        let stable = request.require_stable;
        if self.ctx.version >= 8 {
            let groups = request
                .groups
                .iter()
                .map(|group| self.fetch_group(group, stable));
            return response.with_groups(groups.collect());
        }
        if let Err(error) = self.check_coordinator() {
            return match self.ctx.version {
                ..2 => response,
                _ => response.with_error_code(error.code()),
            };
        }
        let named = request.topics.as_ref().map(|topics| {
            let each = topics.iter();
            each.map(|it| (it.name.0.to_string(), it.partition_indexes.clone()))
                .collect()
        });
        let found = self.find(&request.group_id.0, named, stable);
        let topics = found.into_iter().map(|(name, found)| {
            let partitions = found.into_iter().map(|found| {
                let partition = OffsetFetchResponsePartition::default()
                    .with_partition_index(found.index)
                    .with_committed_offset(found.committed.offset)
                    .with_metadata(Some(found.committed.metadata.into()))
                    .with_error_code(found.error);
                match self.ctx.version {
                    ..5 => partition,
                    _ => partition.with_committed_leader_epoch(found.committed.leader_epoch),
                }
            });
            OffsetFetchResponseTopic::default()
                .with_name(TopicName(name.into()))
                .with_partitions(partitions.collect())
        });
        response.with_topics(topics.collect())
    }

    fn fetch_group(
        &self,
        asked: &OffsetFetchRequestGroup,
        stable: bool,
    ) -> OffsetFetchResponseGroup {
        let response = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
        if let Err(error) = self.check_coordinator() {
            return response.with_error_code(error.code());
        }
        let named = asked.topics.as_ref().map(|topics| {
            let each = topics.iter();
            each.map(|it| (it.name.0.to_string(), it.partition_indexes.clone()))
                .collect()
        });
        let found = self.find(&asked.group_id.0, named, stable);
        let topics = found.into_iter().map(|(name, found)| {
            let partitions = found.into_iter().map(|found| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(found.index)
                    .with_committed_offset(found.committed.offset)
                    .with_committed_leader_epoch(found.committed.leader_epoch)
                    .with_metadata(Some(found.committed.metadata.into()))
                    .with_error_code(found.error)
            });
            OffsetFetchResponseTopics::default()
                .with_name(TopicName(name.into()))
                .with_partitions(partitions.collect())
        });
        response.with_topics(topics.collect())
    }

    /// The offsets of the named partitions, or of all that the group committed. `stable`: a
    /// partition with an open transaction's offset gets UNSTABLE_OFFSET_COMMIT (KIP-447).
    fn find(
        &self,
        group: &str,
        named: Option<Vec<(String, Vec<i32>)>>,
        stable: bool,
    ) -> Vec<(String, Vec<Found>)> {
        let named = named.unwrap_or_else(|| {
            let mut all: BTreeMap<String, Vec<i32>> = BTreeMap::new();
            for ((topic, index), _) in self.groups.offsets(group) {
                all.entry(topic.clone()).or_default().push(*index);
            }
            all.into_iter().collect()
        });
        let topics = named.into_iter().map(|(topic, indexes)| {
            let found = indexes.into_iter().map(|index| {
                let place = (topic.clone(), index);
                let unstable = stable && self.coordinator.has_pending_offset(group, &place);
                let known = self.groups.offset(group, &place).filter(|_| !unstable);
                Found {
                    index,
                    committed: known.cloned().unwrap_or_else(|| committed(-1, -1, None)),
                    error: match unstable {
                        true => ResponseError::UnstableOffsetCommit.code(),
                        false => 0,
                    },
                }
            });
            let found = found.collect();
            (topic, found)
        });
        topics.collect()
    }

    /// Adds a group's offsets to a producer's transaction, which opens it.
    pub(super) fn add_to_transaction(
        &mut self,
        request: &AddOffsetsToTxnRequest,
    ) -> AddOffsetsToTxnResponse {
        let producer = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let (id, group) = (&request.transactional_id.0, &request.group_id.0);
        let added = self.check_coordinator().and_then(|()| {
            self.coordinator
                .join_group(id, producer, group, self.ctx.now)
        });
        let code = added
            .err()
            .map_or(0, |error| fenced_as(error, self.ctx.version >= 2));
        AddOffsetsToTxnResponse::default().with_error_code(code)
    }

    /// Offsets that count once the transaction is committed.
    pub(super) fn commit_in_transaction(
        &mut self,
        request: &TxnOffsetCommitRequest,
    ) -> TxnOffsetCommitResponse {
        let producer = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        // Before version 3 the request does not name a member, and anyone may commit.
        let claim = Claim {
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        let group = &request.group_id.0;
        let names_member = self.ctx.version >= 3 && !request.member_id.is_empty();
        let may = self.check_coordinator().and_then(|()| {
            if names_member {
                self.groups.check_commit(group, claim)?;
            }
            Ok(())
        });
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let place = (topic.name.0.to_string(), asked.partition_index);
                let committed = committed(
                    asked.committed_offset,
                    asked.committed_leader_epoch,
                    asked.committed_metadata.as_ref(),
                );
                let id = &request.transactional_id.0;
                let done = may
                    .and_then(|()| self.check_one(&place, &committed))
                    .and_then(|()| {
                        self.coordinator
                            .add_offset(id, producer, group, place, committed)
                    });
                partitions.push(
                    TxnOffsetCommitResponsePartition::default()
                        .with_partition_index(asked.partition_index)
                        .with_error_code(code(done)),
                );
            }
            topics.push(
                TxnOffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        TxnOffsetCommitResponse::default().with_topics(topics)
    }

    fn check_one(
        &self,
        (topic, index): &TopicPartition,
        committed: &Committed,
    ) -> Result<(), ResponseError> {
        self.topics
            .partition(&TopicRef::Name(topic.clone()), *index)?;
        if committed.metadata.len() > METADATA_BYTES_MAX {
            return Err(ResponseError::OffsetMetadataTooLarge);
        }
        Ok(())
    }

    fn check_coordinator(&self) -> Result<(), ResponseError> {
        let controller = self.nodes.controller().map(|(id, _)| id);
        let here = controller == Some(self.ctx.node);
        here.then_some(()).ok_or(ResponseError::NotCoordinator)
    }
}

fn committed(offset: i64, leader_epoch: i32, metadata: Option<&StrBytes>) -> Committed {
    Committed {
        offset,
        leader_epoch,
        metadata: metadata.map(StrBytes::to_string).unwrap_or_default(),
    }
}

fn code(done: Result<(), ResponseError>) -> i16 {
    done.err().map_or(0, |error| error.code())
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

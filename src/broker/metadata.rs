//! Metadata: nodes, topics, leaders. With `Settings::auto_create_partitions`, a client that allows
//! it creates a topic by asking for it.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::NodeId;
use super::context::RequestContext;
use super::nodes::Nodes;
use super::planned_faults::{PlannedFaults, Right};
use super::topics::{PartitionState, Topic, Topics};
use crate::model;

/// Serves Metadata: nodes, topics and partition leaders.
pub(super) struct MetadataApi<'a> {
    pub ctx: RequestContext,
    pub cluster_id: &'a str,
    pub nodes: &'a Nodes,
    pub topics: &'a Topics,
    pub faults: &'a PlannedFaults,
}

impl MetadataApi<'_> {
    /// Describes the nodes, and all topics or those that are named or given by id.
    pub(super) fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let brokers = self.nodes.running().map(|(id, node)| {
            MetadataResponseBroker::default()
                .with_node_id(broker_id(Some(id)))
                .with_host(StrBytes::from(node.host().to_owned()))
                .with_port(node.port())
        });
        let all = || {
            let topics = self.topics.iter();
            topics
                .map(|(name, topic)| self.describe(name, topic))
                .collect()
        };
        let wants_operations = request.include_topic_authorized_operations;
        let topics: Vec<MetadataResponseTopic> = match &request.topics {
            None => all(),
            // Version 0 had no null: empty meant all.
            Some(asked) if asked.is_empty() && self.ctx.version == 0 => all(),
            Some(asked) => asked.iter().map(|one| self.describe_asked(one)).collect(),
        };
        let topics = topics.into_iter().map(|topic| match &topic.name {
            Some(name) if wants_operations => {
                let operations = self.operations(&name.0);
                topic.with_topic_authorized_operations(operations)
            }
            _ => topic,
        });
        let topics = topics.collect();
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(StrBytes::from(self.cluster_id.to_owned())))
            .with_controller_id(broker_id(self.nodes.controller().map(|(id, _)| id)))
            .with_topics(topics)
    }

    fn describe_asked(&self, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
        let by_name = asked.name.as_ref().map(|name| name.0.as_str());
        let name = by_name.or_else(|| self.topics.name_of_id(asked.topic_id));
        if let Some(name) = name.filter(|name| self.faults.denies(name, Right::Describe)) {
            // Do not reveal whether the topic exists.
            return MetadataResponseTopic::default()
                .with_error_code(ResponseError::TopicAuthorizationFailed.code())
                .with_name(Some(TopicName(StrBytes::from(name.to_owned()))));
        }
        let found = name.and_then(|name| self.topics.get(name).map(|topic| (name, topic)));
        if let Some((name, topic)) = found {
            return self.describe(name, topic);
        }
        let error = match by_name {
            Some(name) if model::TopicName::new(name).is_err() => {
                ResponseError::InvalidTopicException
            }
            Some(_) => ResponseError::UnknownTopicOrPartition,
            None => ResponseError::UnknownTopicId,
        };
        let unknown = MetadataResponseTopic::default().with_error_code(error.code());
        // A null name is only encodable since version 12, and so is asking by id alone.
        match &asked.name {
            Some(name) => unknown.with_name(Some(name.clone())),
            None => unknown.with_topic_id(asked.topic_id).with_name(None),
        }
    }

    /// The operations that clients may do on a topic (KIP-430), among those that this broker
    /// checks.
    fn operations(&self, name: &str) -> i32 {
        let bits = [
            (Right::Read, 3),
            (Right::Write, 4),
            (Right::Describe, 8),
            (Right::DescribeConfigs, 10),
        ];
        let allowed = bits
            .into_iter()
            .filter(|(right, _)| !self.faults.denies(name, *right));
        allowed.map(|(_, bit)| 1 << bit).sum()
    }

    fn describe(&self, name: &str, topic: &Topic) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter().zip(0..);
        let partitions = partitions.map(|(p, index)| self.describe_partition(p, index));
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from(name.to_owned()))))
            .with_topic_id(topic.id)
            .with_partitions(partitions.collect())
    }

    fn describe_partition(
        &self,
        partition: &PartitionState,
        index: i32,
    ) -> MetadataResponsePartition {
        let ids = |keep: bool| -> Vec<BrokerId> {
            let replicas = partition.replicas.iter();
            let kept = replicas.filter(|&&node| self.nodes.is_running(node) == keep);
            kept.map(|&node| broker_id(Some(node))).collect()
        };
        let error = match partition.leader {
            Some(_) => 0,
            None => ResponseError::LeaderNotAvailable.code(),
        };
        let replicas = partition.replicas.iter().map(|&node| broker_id(Some(node)));
        MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(broker_id(partition.leader))
            .with_leader_epoch(partition.epoch)
            .with_replica_nodes(replicas.collect())
            .with_isr_nodes(ids(true))
            .with_offline_replicas(ids(false))
    }
}

/// A node's id on the wire; -1 for none.
fn broker_id(node: Option<NodeId>) -> BrokerId {
    BrokerId(node.map_or(-1, |node| i32::from(node.0)))
}

//! The requests that create, grow, trim and delete topics.

use crate::model::i32_of;
use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::configs::source;
use super::context::RequestContext;
use super::topic_admin::{NewTopic, TopicAdmin};
use super::topic_config::{KEYS, TopicConfig};
use super::topics::TopicRef;
use super::{NodeId, Refusal};

/// The offset that means "all records" in DeleteRecords.
const TO_HIGH_WATERMARK: i64 = -1;

/// CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords.
pub(super) struct AdminApi<'a> {
    pub ctx: RequestContext,
    pub admin: TopicAdmin<'a>,
}

impl AdminApi<'_> {
    pub(super) fn create_topics(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut response = CreateTopicsResponse::default();
        let mut named = BTreeMap::new();
        for topic in &request.topics {
            *named.entry(&topic.name).or_insert(0) += 1;
        }
        for topic in &request.topics {
            let made = match named.insert(&topic.name, 0) {
                Some(1) => self.create_one(topic, request.validate_only),
                Some(0) => continue, // Answered once, as Kafka does.
                _ => Err(Refusal::new(
                    ResponseError::InvalidRequest,
                    "Duplicate topic name.",
                )),
            };
            let result = CreatableTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_message(None);
            response.topics.push(match made {
                Err(refusal) => result
                    .with_error_code(refusal.error.code())
                    .with_error_message(Some(StrBytes::from(refusal.message)))
                    .with_num_partitions(-1)
                    .with_replication_factor(-1),
                Ok(()) => self.describe_created(result),
            });
        }
        response
    }

    fn create_one(&mut self, topic: &CreatableTopic, validate_only: bool) -> Result<(), Refusal> {
        let entries = topic.configs.iter().filter_map(|config| {
            let value = config.value.as_ref()?;
            Some((config.name.as_str(), value.as_str()))
        });
        let config = TopicConfig::new(entries)?;
        let partitions = match topic.num_partitions {
            -1 => 1, // Kafka's default `num.partitions`.
            n => u32::try_from(n).unwrap_or(0),
        };
        let replication = match topic.replication_factor {
            -1 => 0,
            n => u16::try_from(n).ok().filter(|n| *n > 0).unwrap_or(u16::MAX),
        };
        let topic = NewTopic {
            name: topic.name.0.to_string(),
            partitions,
            replication,
            assignment: assignment(topic)?,
            config,
        };
        if validate_only {
            return self.admin.plan(&topic).map(|_replicas| ());
        }
        self.admin.create(topic)
    }

    fn describe_created(&self, result: CreatableTopicResult) -> CreatableTopicResult {
        let Some(topic) = self.admin.store.topics().get(&result.name.0) else {
            return result; // Validated only.
        };
        if self.ctx.version < 5 {
            return result;
        }
        let config = |key| {
            let (value, set) = topic.config.value(key);
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(Some(StrBytes::from(value.to_owned())))
                .with_config_source(source(set))
        };
        let result = result
            .with_num_partitions(i32_of(topic.partitions.len()))
            .with_replication_factor(topic.replication as i16)
            .with_configs(Some(KEYS.iter().map(config).collect()));
        match self.ctx.version {
            ..7 => result,
            _ => result.with_topic_id(topic.id),
        }
    }

    /// Deletes topics by name or, from version 6 on, by id.
    pub(super) fn delete_topics(&mut self, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut response = DeleteTopicsResponse::default();
        let ctx = self.ctx;
        if ctx.version < 6 {
            for name in &request.topic_names {
                let deleted = self.admin.delete(&name.0);
                response
                    .responses
                    .push(deleted_result(ctx, Some(name.clone()), deleted));
            }
            return response;
        }
        for topic in &request.topics {
            let topics = self.admin.store.topics();
            let known = topics.name_of_id(topic.topic_id).map(str::to_owned);
            let known = known.map(|name| TopicName(StrBytes::from(name)));
            let name = topic.name.clone().or(known);
            let deleted = match &name {
                Some(name) => self.admin.delete(&name.0),
                None => Err(Refusal::new(
                    ResponseError::UnknownTopicId,
                    "no topic has this id",
                )),
            };
            let result = deleted_result(ctx, name, deleted);
            response
                .responses
                .push(result.with_topic_id(topic.topic_id));
        }
        response
    }

    pub(super) fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        let mut response = CreatePartitionsResponse::default();
        for topic in &request.topics {
            let total = u32::try_from(topic.count).unwrap_or(0);
            let name = &topic.name.0;
            let grown = if request.validate_only {
                self.admin.plan_growth(name, total).map(|_replicas| ())
            } else {
                self.admin.grow(name, total)
            };
            let mut result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            if let Err(refusal) = grown {
                result.error_code = refusal.error.code();
                result.error_message = Some(StrBytes::from(refusal.message));
            }
            response.results.push(result);
        }
        response
    }

    /// DeleteRecords: raises log start offsets, so that older records can no longer be read.
    pub(super) fn delete_records(
        &mut self,
        request: &DeleteRecordsRequest,
    ) -> DeleteRecordsResponse {
        let mut response = DeleteRecordsResponse::default();
        for topic in &request.topics {
            let name = TopicRef::Name(topic.name.0.to_string());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let trimmed = self.delete_before(&name, asked.partition_index, asked.offset);
                let code = trimmed.err().map_or(0, |error| error.code());
                let result = DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(trimmed.unwrap_or(-1))
                    .with_error_code(code);
                partitions.push(result);
            }
            let result = DeleteRecordsTopicResult::default().with_name(topic.name.clone());
            response.topics.push(result.with_partitions(partitions));
        }
        response
    }

    fn delete_before(
        &mut self,
        topic: &TopicRef,
        index: i32,
        offset: i64,
    ) -> Result<i64, ResponseError> {
        let store = &mut *self.admin.store;
        let (described, _) = store.topics().led(self.ctx.node, topic, index, -1)?;
        if !described.config.delete {
            return Err(ResponseError::PolicyViolation);
        }
        store.trim(topic, index, |end| match offset {
            TO_HIGH_WATERMARK => end,
            offset => offset,
        })
    }
}

fn deleted_result(
    ctx: RequestContext,
    name: Option<TopicName>,
    deleted: Result<(), Refusal>,
) -> DeletableTopicResult {
    let result = DeletableTopicResult::default().with_name(name);
    match deleted {
        Ok(()) => result,
        Err(refusal) => {
            let result = result.with_error_code(refusal.error.code());
            match ctx.version {
                ..5 => result,
                _ => result.with_error_message(Some(StrBytes::from(refusal.message))),
            }
        }
    }
}

fn assignment(topic: &CreatableTopic) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let given = topic.num_partitions != -1 || topic.replication_factor != -1;
    if given && !topic.assignments.is_empty() {
        let text = "with an assignment, partitions and replication factor must be -1";
        return Err(Refusal::new(ResponseError::InvalidRequest, text));
    }
    let mut by_index: Vec<_> = topic.assignments.iter().collect();
    by_index.sort_by_key(|a| a.partition_index);
    let mut all = Vec::with_capacity(by_index.len());
    for (one, expected) in by_index.into_iter().zip(0..) {
        if one.partition_index != expected {
            let text = "the assigned partitions are not 0, 1, 2, ...";
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, text));
        }
        let node =
            |id: &kafka_protocol::messages::BrokerId| NodeId(u16::try_from(id.0).unwrap_or(0));
        all.push(one.broker_ids.iter().map(node).collect());
    }
    Ok(all)
}

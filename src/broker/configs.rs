//! Configurations described and altered: of topics all, of brokers a few that clients ask for.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Replaced;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Refusal;
use super::cluster::{Cluster, Context, Right};
use super::topic_config::{KEYS, Kind, TopicConfig};
use super::topics::no_topic;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

/// DescribeConfigs' `config_source`: set on the topic, or the default.
pub(super) const fn source(set: bool) -> i8 {
    if set { SOURCE_TOPIC } else { SOURCE_DEFAULT }
}

impl Cluster {
    /// DescribeConfigs.
    pub(super) fn describe_configs(
        &mut self,
        ctx: &Context,
        request: &DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        let result = |resource: &DescribeConfigsResource| {
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match self.configs_of(ctx, resource) {
                Ok(configs) => result.with_configs(configs).with_error_message(None),
                Err(refusal) => result
                    .with_error_code(refusal.error.code())
                    .with_error_message(Some(StrBytes::from(refusal.message))),
            }
        };
        let results = request.resources.iter().map(result).collect();
        DescribeConfigsResponse::default().with_results(results)
    }

    fn configs_of(
        &self,
        ctx: &Context,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let name = resource.resource_name.as_str();
        let asked = |key: &str| match &resource.configuration_keys {
            None => true,
            Some(keys) => keys.iter().any(|k| k.as_str() == key),
        };
        match resource.resource_type {
            TOPIC if self.faults.denies(name, Right::DescribeConfigs) => {
                let error = ResponseError::TopicAuthorizationFailed;
                Err(Refusal::new(error, "a planned fault"))
            }
            TOPIC => {
                let topic = self.topics.get(name).ok_or_else(|| no_topic(name))?;
                let keys = KEYS.iter().filter(|key| asked(key.name));
                let shown = keys.map(|key| {
                    let (value, set) = topic.config.value(key);
                    shown(ctx, key.name, value.to_owned(), key.kind, set)
                });
                Ok(shown.collect())
            }
            BROKER => {
                let frame = self.settings.frame_bytes_max;
                let values = [
                    (
                        "auto.create.topics.enable",
                        "false".to_owned(),
                        Kind::Boolean,
                    ),
                    (
                        "message.max.bytes",
                        "1048588".to_owned(),
                        Kind::Int { min: 0 },
                    ),
                    (
                        "socket.request.max.bytes",
                        frame.to_string(),
                        Kind::Int { min: 1 },
                    ),
                ];
                let values = values.into_iter().filter(|(key, ..)| asked(key));
                Ok(values
                    .map(|(key, value, kind)| shown(ctx, key, value, kind, false))
                    .collect())
            }
            _ => {
                let text = "only topics and brokers have configurations here";
                Err(Refusal::new(ResponseError::InvalidRequest, text))
            }
        }
    }

    /// IncrementalAlterConfigs: set, delete, append, subtract.
    pub(super) fn alter_configs_incrementally(
        &mut self,
        _ctx: &Context,
        request: &IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let mut response = IncrementalAlterConfigsResponse::default();
        for resource in &request.resources {
            let altered = self.altered(resource);
            let kept = self.keep(&resource.resource_name, altered, request.validate_only);
            let mut answer = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_message(None);
            if let Err(refusal) = kept {
                answer.error_code = refusal.error.code();
                answer.error_message = Some(StrBytes::from(refusal.message));
            }
            response.responses.push(answer);
        }
        response
    }

    fn altered(&self, resource: &AlterConfigsResource) -> Result<TopicConfig, Refusal> {
        let mut config = self.topic_config(resource.resource_type, &resource.resource_name)?;
        for change in &resource.configs {
            let name = change.name.as_str();
            let value = change.value.as_ref().map(StrBytes::as_str);
            let given = || {
                let text = format!("Null value not supported for: {name}");
                value.ok_or_else(|| Refusal::new(ResponseError::InvalidConfig, text))
            };
            config = match change.config_operation {
                0 => config.with(name, Some(given()?))?,
                1 => config.with(name, None)?,
                2 => config.with_words(name, given()?, true)?,
                3 => config.with_words(name, given()?, false)?,
                _ => {
                    let text = "the operation is none of set, delete, append, subtract";
                    return Err(Refusal::new(ResponseError::InvalidRequest, text));
                }
            };
        }
        Ok(config)
    }

    /// AlterConfigs: replaces all that is set.
    pub(super) fn alter_configs(
        &mut self,
        _ctx: &Context,
        request: &AlterConfigsRequest,
    ) -> AlterConfigsResponse {
        let mut response = AlterConfigsResponse::default();
        for resource in &request.resources {
            let entries = resource.configs.iter().filter_map(|config| {
                let value = config.value.as_ref()?;
                Some((config.name.as_str(), value.as_str()))
            });
            let known = self.topic_config(resource.resource_type, &resource.resource_name);
            let replaced = known.and_then(|_| TopicConfig::new(entries));
            let kept = self.keep(&resource.resource_name, replaced, request.validate_only);
            let mut answer = Replaced::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_message(None);
            if let Err(refusal) = kept {
                answer.error_code = refusal.error.code();
                answer.error_message = Some(StrBytes::from(refusal.message));
            }
            response.responses.push(answer);
        }
        response
    }

    fn topic_config(&self, kind: i8, name: &str) -> Result<TopicConfig, Refusal> {
        if kind != TOPIC {
            let text = "only topics can be altered here";
            return Err(Refusal::new(ResponseError::InvalidRequest, text));
        }
        let topic = self.topics.get(name).ok_or_else(|| no_topic(name))?;
        Ok(topic.config.clone())
    }

    fn keep(
        &mut self,
        name: &str,
        config: Result<TopicConfig, Refusal>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let config = config?;
        if !validate_only {
            self.topics.named_mut(name)?.config = config;
        }
        Ok(())
    }
}

fn shown(
    ctx: &Context,
    name: &'static str,
    value: String,
    kind: Kind,
    set: bool,
) -> DescribeConfigsResourceResult {
    let shown = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from(value)))
        .with_config_source(source(set));
    match ctx.version {
        ..3 => shown,
        _ => shown.with_config_type(kind.code()),
    }
}

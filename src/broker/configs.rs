//! The requests that describe and alter configurations: those of topics, and the few of brokers
//! that clients ask for.

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

use super::context::RequestContext;
use super::planned_faults::{PlannedFaults, Right};
use super::store::Store;
use super::topic_config::{KEYS, Kind, TopicConfig};
use super::{Refusal, Settings};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

/// DescribeConfigs' `config_source`: set on the topic, or the default.
pub(super) const fn source(set: bool) -> i8 {
    if set { SOURCE_TOPIC } else { SOURCE_DEFAULT }
}

/// Serves DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.
pub(super) struct ConfigsApi<'a> {
    pub ctx: RequestContext,
    pub settings: &'a Settings,
    pub store: &'a mut Store,
    pub faults: &'a PlannedFaults,
}

impl ConfigsApi<'_> {
    pub(super) fn describe_configs(
        &self,
        request: &DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        let result = |resource: &DescribeConfigsResource| {
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match self.configs_of(resource) {
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
                let topic = self.store.topics().named(name)?;
                let keys = KEYS.iter().filter(|key| asked(key.name));
                let described = keys.map(|key| {
                    let (value, set) = topic.config.value(key);
                    self.describe(key.name, value.to_owned(), key.kind, set)
                });
                Ok(described.collect())
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
                    .map(|(key, value, kind)| self.describe(key, value, kind, false))
                    .collect())
            }
            _ => {
                let text = "only topics and brokers have configurations here";
                Err(Refusal::new(ResponseError::InvalidRequest, text))
            }
        }
    }

    fn describe(
        &self,
        name: &'static str,
        value: String,
        kind: Kind,
        set: bool,
    ) -> DescribeConfigsResourceResult {
        let described = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from(value)))
            .with_config_source(source(set));
        match self.ctx.version {
            ..3 => described,
            _ => described.with_config_type(kind.code()),
        }
    }

    /// Sets, resets, appends to and subtracts from single keys.
    pub(super) fn alter_configs_incrementally(
        &mut self,
        request: &IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let mut response = IncrementalAlterConfigsResponse::default();
        for resource in &request.resources {
            let altered = self.altered(resource);
            let configured =
                self.configure(&resource.resource_name, altered, request.validate_only);
            let mut answer = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_message(None);
            if let Err(refusal) = configured {
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

    /// Replaces all keys that a topic sets.
    pub(super) fn alter_configs(&mut self, request: &AlterConfigsRequest) -> AlterConfigsResponse {
        let mut response = AlterConfigsResponse::default();
        for resource in &request.resources {
            let entries = resource.configs.iter().filter_map(|config| {
                let value = config.value.as_ref()?;
                Some((config.name.as_str(), value.as_str()))
            });
            let known = self.topic_config(resource.resource_type, &resource.resource_name);
            let replaced = known.and_then(|_| TopicConfig::new(entries));
            let configured =
                self.configure(&resource.resource_name, replaced, request.validate_only);
            let mut answer = Replaced::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_message(None);
            if let Err(refusal) = configured {
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
        Ok(self.store.topics().named(name)?.config.clone())
    }

    fn configure(
        &mut self,
        name: &str,
        config: Result<TopicConfig, Refusal>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let config = config?;
        if validate_only {
            return Ok(());
        }
        self.store.configure(name, config)
    }
}

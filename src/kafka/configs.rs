//! DescribeConfigs: when to ask, and which parts of the response matter.

use std::time::Duration;

use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::protocol::StrBytes;

use super::KafkaError;
use super::context::Context;
use super::view::TopicConfig;
use crate::model::{Instant, TopicName};

const CLEANUP: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";
const DELETE_RETENTION: &str = "delete.retention.ms";
const BATCH_BYTES: &str = "max.message.bytes";

/// When to ask: at once for a new topic, otherwise as often as for metadata.
#[derive(Debug, Default)]
pub(super) struct Configs {
    asking: bool,
    due: Instant,
    failures: u32,
}

impl Configs {
    /// A topic was found or re-created.
    pub(super) fn hurry(&mut self) {
        self.due = Instant::ZERO;
        self.failures = 0;
    }

    /// Whether the configs are to be asked for now. Looks at no topic: this is called in each turn.
    pub(super) fn is_due(&self, cx: &mut Context<'_>) -> bool {
        if self.asking {
            return false;
        }
        let due = self.due <= cx.now.mono;
        if !due {
            cx.wake.at(self.due);
        }
        due
    }

    pub(super) fn asked(&mut self, sent: Result<(), KafkaError>) {
        self.asking = sent.is_ok();
    }

    pub(super) fn answered(&mut self, cx: &Context<'_>) {
        self.asking = false;
        self.failures = 0;
        self.due = cx.now.mono.after(cx.settings.metadata_refresh);
    }

    /// The request failed, or the config of some topic is still unknown.
    pub(super) fn failed(&mut self, cx: &mut Context<'_>) {
        self.asking = false;
        self.failures += 1;
        self.due = cx.retry_at(self.failures);
    }
}

pub(super) fn request(topics: &[TopicName]) -> DescribeConfigsRequest {
    const TOPIC: i8 = 2;
    let keys = [CLEANUP, RETENTION, DELETE_RETENTION, BATCH_BYTES];
    let keys: Vec<_> = keys.into_iter().map(StrBytes::from_static_str).collect();
    let resource = |name: &TopicName| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string(name.as_str().to_owned()))
            .with_configuration_keys(Some(keys.clone()))
    };
    DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect())
}

/// The config of one topic in a response. `Some(None)`: the cluster does not let the gateway read
/// it. `None`: ask again.
pub(super) fn parse_config(result: &DescribeConfigsResult) -> Option<Option<TopicConfig>> {
    match result.error_code {
        0 => {}
        // TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED.
        29 | 31 => return Some(None),
        _ => return None,
    }
    let value = |name: &str| {
        let found = result.configs.iter().find(|config| &*config.name == name);
        found.and_then(|config| config.value.as_deref())
    };
    let number = |name, default: i64| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let cleanup = value(CLEANUP).unwrap_or("delete");
    let millis = |ms: i64| u64::try_from(ms).ok().map(Duration::from_millis);
    Some(Some(TopicConfig {
        compacted: cleanup.contains("compact"),
        deleted: cleanup.contains("delete"),
        retention: millis(number(RETENTION, 604_800_000)), // -1 means no limit.
        delete_retention: millis(number(DELETE_RETENTION, 86_400_000)).unwrap_or(Duration::MAX),
        batch_bytes_max: u32::try_from(number(BATCH_BYTES, 1_048_588)).unwrap_or(u32::MAX),
    }))
}

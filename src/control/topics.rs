//! Creates topics, for `sluicegate topics --create`, tests and benches.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, MetadataRequest, MetadataResponse, TopicName as WireName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep};

use super::broker_connection::{AskError, BrokerConnection, BrokerSecurity};
use crate::config::BrokerAddress;
use crate::model::TopicName;

/// A topic to create if it does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name of the topic.
    pub name: TopicName,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Number of replicas of each partition. 0: the cluster's default.
    pub replication: u16,
    /// Topic configs as key and value, such as `cleanup.policy` and `compact`.
    pub configs: Vec<(String, String)>,
}

/// Whether [`ensure_topics`] created a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// The topic did not exist before.
    Created,
    /// The topic existed and is unchanged. Its partitions and configs are not compared.
    Existed,
}

/// Why topics could not be created.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// No broker answers.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The cluster rejected one of the topics.
    #[error("the cluster refused to create topic `{topic}`: {detail}")]
    Refused {
        /// The topic that was rejected.
        topic: TopicName,
        /// The broker's error and message.
        detail: String,
    },
    /// A topic exists, but some of its partitions had no leader in time.
    #[error("topic `{topic}` has partitions without a leader")]
    NoLeader {
        /// The topic that has such partitions.
        topic: TopicName,
    },
}

/// Wait between metadata requests until all partitions have leaders.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Creates the topics that do not exist, and waits until all partitions of all topics have leaders.
/// The result is in the order of `topics`. It gives up after `patience`; calling it again is safe.
///
/// # Errors
/// See [`EnsureError`]. Topics that were created before the error remain.
pub async fn ensure_topics(
    bootstrap: &[BrokerAddress],
    security: &BrokerSecurity,
    topics: &[TopicSpec],
    patience: Duration,
) -> Result<Vec<Ensured>, EnsureError> {
    let until = Instant::now() + patience;
    let names = || topics.iter().map(|topic| &topic.name);
    let mut any = BrokerConnection::open_any(bootstrap, security, until).await?;
    let controller = controller(&metadata(&mut any, names()).await?);
    let mut ensured = Vec::new();
    // With KRaft, any broker forwards the request (KIP-590). Before it, only the controller creates
    // topics.
    let answers = match controller {
        Some(address) if address != any.broker => {
            let mut controller = BrokerConnection::open(&address, security, until).await?;
            create(&mut controller, topics, until).await?
        }
        _ => create(&mut any, topics, until).await?,
    };
    for (topic, answer) in topics.iter().zip(answers) {
        ensured.push(answer.map_err(|detail| EnsureError::Refused {
            topic: topic.name.clone(),
            detail,
        })?);
    }
    loop {
        let metadata = metadata(&mut any, names()).await?;
        let Some(leaderless) = topics.iter().find(|topic| !has_leaders(&metadata, topic)) else {
            return Ok(ensured);
        };
        if Instant::now() + LEADER_PAUSE >= until {
            let topic = leaderless.name.clone();
            return Err(EnsureError::NoLeader { topic });
        }
        sleep(LEADER_PAUSE).await;
    }
}

fn controller(metadata: &MetadataResponse) -> Option<BrokerAddress> {
    let is_it = |id| id == metadata.controller_id;
    let broker = metadata
        .brokers
        .iter()
        .find(|broker| is_it(broker.node_id))?;
    let port = u16::try_from(broker.port).ok()?;
    let host = broker.host.to_string();
    Some(BrokerAddress { host, port })
}

fn has_leaders(metadata: &MetadataResponse, wanted: &TopicSpec) -> bool {
    let named =
        |name: &Option<WireName>| name.as_ref().is_some_and(|n| **n == *wanted.name.as_str());
    metadata.topics.iter().any(|topic| {
        named(&topic.name)
            && topic.error_code == 0
            && !topic.partitions.is_empty()
            && topic
                .partitions
                .iter()
                .all(|it| it.error_code == 0 && it.leader_id.0 >= 0)
    })
}

/// Metadata of the topics of these names. None is created.
pub(super) async fn metadata<'n>(
    connection: &mut BrokerConnection,
    names: impl Iterator<Item = &'n TopicName>,
) -> Result<MetadataResponse, AskError> {
    let named = |name: &TopicName| MetadataRequestTopic::default().with_name(Some(wire(name)));
    // From version 4 on, asking for a topic does not have to create it.
    let version = connection.version::<MetadataRequest>(4, 9)?;
    let request = MetadataRequest::default()
        .with_topics(Some(names.map(named).collect()))
        .with_allow_auto_topic_creation(false);
    connection.ask(request, version).await
}

/// Sends CreateTopics. The result has one entry per topic, in their order.
async fn create(
    connection: &mut BrokerConnection,
    topics: &[TopicSpec],
    until: Instant,
) -> Result<Vec<Result<Ensured, String>>, AskError> {
    let version = connection.version::<CreateTopicsRequest>(2, 5)?;
    let left = until.saturating_duration_since(Instant::now());
    let creatable = topics.iter().map(|topic| creatable(topic, version));
    let request = CreateTopicsRequest::default()
        .with_topics(creatable.collect())
        .with_timeout_ms(i32::try_from(left.as_millis()).unwrap_or(i32::MAX));
    let response = connection.ask(request, version).await?;
    let outcome = |topic: &TopicSpec| {
        let answers = &mut response.topics.iter();
        let Some(answer) = answers.find(|it| it.name == wire(&topic.name)) else {
            return Err("the answer does not name it".to_owned());
        };
        match answer.error_code.err() {
            None => Ok(Ensured::Created),
            Some(ResponseError::TopicAlreadyExists) => Ok(Ensured::Existed),
            Some(error) => Err(match &answer.error_message {
                Some(message) => format!("{error}: {message}"),
                None => error.to_string(),
            }),
        }
    };
    Ok(topics.iter().map(outcome).collect())
}

pub(super) fn wire(name: &TopicName) -> WireName {
    WireName(StrBytes::from_string(name.as_str().to_owned()))
}

fn creatable(topic: &TopicSpec, version: i16) -> CreatableTopic {
    let text = |text: &String| StrBytes::from_string(text.clone());
    let config = |(name, value): &(String, String)| {
        let config = CreatableTopicConfig::default();
        config.with_name(text(name)).with_value(Some(text(value)))
    };
    let replication = match topic.replication {
        // The cluster's default, which a request can ask for from version 4 on (KIP-464).
        0 if version >= 4 => -1,
        0 => 1,
        replicas => i16::try_from(replicas).unwrap_or(i16::MAX),
    };
    CreatableTopic::default()
        .with_name(wire(&topic.name))
        .with_num_partitions(i32::try_from(topic.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(replication)
        .with_configs(topic.configs.iter().map(config).collect())
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;

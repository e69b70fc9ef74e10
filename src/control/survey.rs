//! Asks a cluster what it has of the topics that a config names, and what this user may do with
//! them. Rights are found by trying: a Fetch at the end of a topic, which returns nothing, and a
//! Produce without records, which a broker rejects only after it has checked the right. Nothing is
//! written.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, DescribeConfigsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataResponse, ProduceRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::broker_connection::{AskError, BrokerConnection, BrokerSecurity};
use super::topics::{metadata, wire};
use crate::config::{BrokerAddress, TopicUse};
use crate::model::TopicName;

/// `config_resource_type` of a topic in DescribeConfigs.
const TOPIC_RESOURCE: i8 = 2;
/// The timestamp in ListOffsets that asks for the end of a partition.
const LATEST: i64 = -1;

/// What a cluster has of the topics of a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSurvey {
    /// Number of brokers that the cluster reports.
    pub brokers: usize,
    /// The topics that were asked for.
    pub topics: BTreeMap<TopicName, TopicFacts>,
}

/// What a cluster reports of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// Whether the topic does not exist, as far as this user may know.
    pub is_missing: bool,
    /// Number of partitions.
    pub partitions: usize,
    /// Number of partitions without a leader.
    pub leaderless: usize,
    /// Topic configs by name. `None`: the broker does not return them.
    pub configs: Option<BTreeMap<String, String>>,
    /// Operations that this user may not do, by the names of Kafka's ACLs.
    pub denied: Vec<&'static str>,
    /// Another error of the broker.
    pub error: Option<String>,
}

impl TopicFacts {
    /// A topic config, if the broker returns it.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<&str> {
        self.configs.as_ref()?.get(name).map(String::as_str)
    }
}

/// Asks the cluster at `bootstrap` for the topics of `uses`. Gives up after `patience`.
///
/// # Errors
/// The cluster does not answer, or refuses the login.
pub async fn survey(
    bootstrap: &[BrokerAddress],
    security: &BrokerSecurity,
    uses: &[TopicUse],
    patience: Duration,
) -> Result<ClusterSurvey, AskError> {
    let until = Instant::now() + patience;
    let mut any = BrokerConnection::open_any(bootstrap, security, until).await?;
    let names = uses.iter().map(|topic| &topic.topic);
    let metadata = metadata(&mut any, names).await?;
    let mut survey = ClusterSurvey {
        brokers: metadata.brokers.len(),
        topics: BTreeMap::new(),
    };
    for one in uses {
        let described = metadata.topics.iter();
        let mut described = described.filter(|it| it.name.as_ref() == Some(&wire(&one.topic)));
        let facts = described.next().map(facts).unwrap_or_default();
        survey.topics.insert(one.topic.clone(), facts);
    }
    configs(&mut any, &mut survey).await?;
    let mut leaders = Leaders {
        metadata: &metadata,
        security,
        until,
        open: BTreeMap::new(),
    };
    for one in uses {
        if let Some(facts) = survey.topics.get_mut(&one.topic) {
            try_rights(&mut leaders, one, facts).await?;
        }
    }
    Ok(survey)
}

/// What Metadata reports of a topic.
fn facts(topic: &MetadataResponseTopic) -> TopicFacts {
    let leaderless = topic.partitions.iter().filter(|it| it.leader_id.0 < 0);
    let mut facts = TopicFacts {
        partitions: topic.partitions.len(),
        leaderless: leaderless.count(),
        ..TopicFacts::default()
    };
    match topic.error_code.err() {
        None | Some(ResponseError::LeaderNotAvailable) => {}
        Some(ResponseError::UnknownTopicOrPartition) => facts.is_missing = true,
        Some(ResponseError::TopicAuthorizationFailed) => facts.denied.push("Describe"),
        Some(error) => facts.error = Some(error.to_string()),
    }
    facts
}

/// Whether there is a topic to ask more about.
fn is_known(facts: &TopicFacts) -> bool {
    !facts.is_missing && facts.denied.is_empty() && facts.error.is_none()
}

/// Asks for the configs of the known topics.
async fn configs(any: &mut BrokerConnection, survey: &mut ClusterSurvey) -> Result<(), AskError> {
    let known = survey.topics.iter().filter(|(_, facts)| is_known(facts));
    let resources = known.map(|(name, _)| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(StrBytes::from_string(name.to_string()))
            .with_configuration_keys(None)
    });
    let resources: Vec<_> = resources.collect();
    if resources.is_empty() {
        return Ok(());
    }
    let version = any.version::<DescribeConfigsRequest>(1, 4)?;
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let response = any.ask(request, version).await?;
    for result in response.results {
        let mut topics = survey.topics.iter_mut();
        let found = topics.find(|(name, _)| name.as_str() == &*result.resource_name);
        let Some((_, facts)) = found else { continue };
        match result.error_code.err() {
            None => {
                let pairs = result.configs.into_iter();
                let pairs = pairs.map(|it| (it.name.to_string(), it.value.unwrap_or_default()));
                let pairs = pairs.map(|(name, value)| (name, value.to_string()));
                facts.configs = Some(pairs.collect());
            }
            Some(ResponseError::TopicAuthorizationFailed) => facts.denied.push("DescribeConfigs"),
            Some(error) => facts.error = Some(error.to_string()),
        }
    }
    Ok(())
}

/// Tries what the gateway will do with a topic, at the leader of one partition.
async fn try_rights(
    leaders: &mut Leaders<'_>,
    topic: &TopicUse,
    facts: &mut TopicFacts,
) -> Result<(), AskError> {
    if facts.is_missing || facts.denied.contains(&"Describe") || facts.error.is_some() {
        return Ok(());
    }
    let Some((partition, leader)) = leaders.of(&topic.topic) else {
        return Ok(()); // Without any leader nothing can be tried; `leaderless` says so.
    };
    let connection = leaders.connect(leader).await?;
    if topic.is_read() && !may_read(connection, &topic.topic, partition).await? {
        facts.denied.push("Read");
    }
    if topic.commands {
        if !may_write(connection, &topic.topic, partition).await? {
            facts.denied.push("Write");
        } else if !may_write_once(connection).await? {
            facts.denied.push("IdempotentWrite");
        }
    }
    Ok(())
}

/// Fetches at the end of a partition, where nothing is.
async fn may_read(
    connection: &mut BrokerConnection,
    topic: &TopicName,
    partition: i32,
) -> Result<bool, AskError> {
    let version = connection.version::<ListOffsetsRequest>(1, 5)?;
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(LATEST);
    let asked = ListOffsetsTopic::default()
        .with_name(wire(topic))
        .with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![asked]);
    let response = connection.ask(request, version).await?;
    let ends = response.topics.iter().flat_map(|it| &it.partitions);
    let end = ends.map(|it| it.offset).next().unwrap_or(0).max(0);

    let version = connection.version::<FetchRequest>(4, 11)?;
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(end)
        .with_partition_max_bytes(1);
    let asked = FetchTopic::default()
        .with_topic(wire(topic))
        .with_partitions(vec![asked]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(1)
        .with_session_epoch(-1)
        .with_topics(vec![asked]);
    let response = connection.ask(request, version).await?;
    let partitions = response.responses.iter().flat_map(|it| &it.partitions);
    let mut codes = partitions.map(|it| it.error_code);
    Ok(!codes.any(|code| code == ResponseError::TopicAuthorizationFailed.code()))
}

/// Produces no record. A broker that would accept records rejects the request as invalid.
async fn may_write(
    connection: &mut BrokerConnection,
    topic: &TopicName,
    partition: i32,
) -> Result<bool, AskError> {
    let version = connection.version::<ProduceRequest>(3, 9)?;
    let nothing = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(Bytes::new()));
    let nothing = TopicProduceData::default()
        .with_name(wire(topic))
        .with_partition_data(vec![nothing]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![nothing]);
    let response = connection.ask(request, version).await?;
    let partitions = response.responses.iter();
    let partitions = partitions.flat_map(|it| &it.partition_responses);
    let mut codes = partitions.map(|it| it.error_code);
    Ok(!codes.any(|code| code == ResponseError::TopicAuthorizationFailed.code()))
}

/// Asks for a producer id, as idempotent producers do. Brokers before 2.8 need a right for it.
async fn may_write_once(connection: &mut BrokerConnection) -> Result<bool, AskError> {
    let version = connection.version::<InitProducerIdRequest>(0, 4)?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let response = connection.ask(request, version).await?;
    Ok(response.error_code != ResponseError::ClusterAuthorizationFailed.code())
}

/// Connections to the leaders of partitions, one per broker.
struct Leaders<'a> {
    metadata: &'a MetadataResponse,
    security: &'a BrokerSecurity,
    until: Instant,
    open: BTreeMap<BrokerId, BrokerConnection>,
}

impl Leaders<'_> {
    /// A partition of a topic that has a leader, and the leader.
    fn of(&self, topic: &TopicName) -> Option<(i32, BrokerId)> {
        let mut topics = self.metadata.topics.iter();
        let topic = topics.find(|it| it.name.as_ref() == Some(&wire(topic)))?;
        let mut led = topic.partitions.iter().filter(|it| it.leader_id.0 >= 0);
        led.next().map(|it| (it.partition_index, it.leader_id))
    }

    async fn connect(&mut self, leader: BrokerId) -> Result<&mut BrokerConnection, AskError> {
        if !self.open.contains_key(&leader) {
            let mut brokers = self.metadata.brokers.iter();
            let broker = brokers.find(|it| it.node_id == leader);
            let address = broker.map_or_else(BrokerAddress::default, |it| BrokerAddress {
                host: it.host.to_string(),
                port: u16::try_from(it.port).unwrap_or(0),
            });
            let opened = BrokerConnection::open(&address, self.security, self.until).await?;
            self.open.insert(leader, opened);
        }
        let connection = self.open.get_mut(&leader);
        Ok(connection.expect("inserted above"))
    }
}

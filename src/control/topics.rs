//! Creates topics, for tests and benches: a production build does not have it. Plaintext clusters
//! only.
//!
//! It sends CreateTopics by `kafka-protocol` on a socket of its own. rskafka's `create_topic`
//! always sends an empty list of topic configs, and a query needs a topic with
//! `cleanup.policy=compact`.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, MetadataRequest,
    MetadataResponse, RequestHeader, ResponseHeader, TopicName as WireName,
};
use kafka_protocol::protocol::{
    Decodable, Encodable as _, HeaderVersion, Message, Request, StrBytes, VersionRange,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::BrokerAddress;
use crate::model::TopicName;

/// A topic to create if it does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name of the topic.
    pub name: TopicName,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Number of replicas of each partition, at least 1.
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
    /// No broker of the bootstrap list responds.
    #[error("no broker of {brokers} answers: {last}")]
    Unreachable {
        /// The brokers that were tried, separated by commas.
        brokers: String,
        /// The error of the last broker.
        last: std::io::Error,
    },
    /// The connection failed, or the time was up.
    #[error("the broker {broker} did not answer: {source}")]
    Broken {
        /// The broker of the connection.
        broker: BrokerAddress,
        /// The error of the connection.
        source: std::io::Error,
    },
    /// The broker and this code have no common version of a request, or its response cannot be
    /// decoded.
    #[error("the broker does not speak our {api}: {detail}")]
    Protocol {
        /// Type name of the request.
        api: &'static str,
        /// What is wrong, in a few words.
        detail: String,
    },
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

/// Most bytes of a response. The metadata of a few topics is far smaller.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Time for one broker of the bootstrap list to answer its first request.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Wait between metadata requests until all partitions have leaders.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Creates the topics that do not exist, and waits until all partitions of all topics have leaders.
/// The result is in the order of `topics`. It gives up after `patience`; calling it again is safe.
///
/// # Errors
/// See [`EnsureError`]. Topics that were created before the error remain.
pub async fn ensure_topics(
    bootstrap: &[BrokerAddress],
    topics: &[TopicSpec],
    patience: Duration,
) -> Result<Vec<Ensured>, EnsureError> {
    let until = Instant::now() + patience;
    let mut any = connect_any(bootstrap, until).await?;
    let controller = controller(&any.metadata(topics).await?);
    let mut ensured = Vec::new();
    // With KRaft, any broker forwards the request (KIP-590). Before it, only the controller creates
    // topics.
    let answers = match controller {
        Some(address) if address != any.broker => {
            Connection::open(&address, until)
                .await?
                .create(topics, until)
                .await?
        }
        _ => any.create(topics, until).await?,
    };
    for (topic, answer) in topics.iter().zip(answers) {
        ensured.push(answer.map_err(|detail| EnsureError::Refused {
            topic: topic.name.clone(),
            detail,
        })?);
    }
    loop {
        let metadata = any.metadata(topics).await?;
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

async fn connect_any(
    bootstrap: &[BrokerAddress],
    until: Instant,
) -> Result<Connection, EnsureError> {
    let mut last = std::io::Error::from(std::io::ErrorKind::InvalidInput);
    for address in bootstrap {
        // An unresponsive broker must not use up the time for the others.
        let mine = until.min(Instant::now() + CONNECT_WAIT);
        match Connection::open(address, mine).await {
            Ok(connection) => {
                return Ok(Connection {
                    until,
                    ..connection
                });
            }
            Err(EnsureError::Broken { source, .. }) => last = source,
            Err(other) => return Err(other),
        }
    }
    let brokers: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
    let brokers = brokers.join(", ");
    Err(EnsureError::Unreachable { brokers, last })
}

/// One connection with one request at a time.
struct Connection {
    broker: BrokerAddress,
    stream: TcpStream,
    until: Instant,
    versions: ApiVersionsResponse,
    correlation: i32,
}

impl Connection {
    async fn open(broker: &BrokerAddress, until: Instant) -> Result<Self, EnsureError> {
        let target = (broker.host.as_str(), broker.port);
        let stream = in_time(broker, until, TcpStream::connect(target)).await?;
        let mut connection = Self {
            broker: broker.clone(),
            stream,
            until,
            versions: ApiVersionsResponse::default(),
            correlation: 0,
        };
        // Every broker answers version 0, even one that supports no other version of ours.
        connection.versions = connection.ask(ApiVersionsRequest::default(), 0).await?;
        Ok(connection)
    }

    async fn metadata(&mut self, topics: &[TopicSpec]) -> Result<MetadataResponse, EnsureError> {
        let named =
            |topic: &TopicSpec| MetadataRequestTopic::default().with_name(Some(wire(topic)));
        // From version 4 on, asking for a topic does not have to create it.
        let version = self.version::<MetadataRequest>(4, 9)?;
        let request = MetadataRequest::default()
            .with_topics(Some(topics.iter().map(named).collect()))
            .with_allow_auto_topic_creation(false);
        self.ask(request, version).await
    }

    /// Sends CreateTopics. The result has one entry per topic, in their order.
    async fn create(
        &mut self,
        topics: &[TopicSpec],
        until: Instant,
    ) -> Result<Vec<Result<Ensured, String>>, EnsureError> {
        let version = self.version::<CreateTopicsRequest>(2, 5)?;
        let left = until.saturating_duration_since(Instant::now());
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(creatable).collect())
            .with_timeout_ms(i32::try_from(left.as_millis()).unwrap_or(i32::MAX));
        let response = self.ask(request, version).await?;
        let outcome = |topic: &TopicSpec| {
            let answers = &mut response.topics.iter();
            let Some(answer) = answers.find(|it| it.name == wire(topic)) else {
                return Err("the answer does not name it".to_owned());
            };
            use kafka_protocol::ResponseError;
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

    /// The highest version from `min` to `max` that the broker supports.
    fn version<R: Request + Message>(&self, min: i16, max: i16) -> Result<i16, EnsureError> {
        let keys = &mut self.versions.api_keys.iter();
        let theirs = keys.find(|it| it.api_key == R::KEY).map(|it| VersionRange {
            min: it.min_version,
            max: it.max_version,
        });
        let theirs = theirs.unwrap_or(VersionRange { min: 1, max: 0 });
        let common = theirs.intersect(&VersionRange { min, max });
        if common.is_empty() {
            let detail = format!("it has versions {theirs}, we {min} to {max}");
            return Err(protocol::<R>(detail));
        }
        Ok(common.max)
    }

    async fn ask<R: Request>(
        &mut self,
        request: R,
        version: i16,
    ) -> Result<R::Response, EnsureError> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("sluicegate-admin")));
        let frame = encode(&header, &request, version).map_err(protocol::<R>)?;
        let answer = in_time(&self.broker, self.until, exchange(&mut self.stream, &frame)).await?;
        let (correlation, response) = decode::<R>(answer, version).map_err(protocol::<R>)?;
        if correlation == self.correlation {
            Ok(response)
        } else {
            Err(protocol::<R>("it answered another request".into()))
        }
    }
}

fn wire(topic: &TopicSpec) -> WireName {
    WireName(StrBytes::from_string(topic.name.as_str().to_owned()))
}

fn creatable(topic: &TopicSpec) -> CreatableTopic {
    let text = |text: &String| StrBytes::from_string(text.clone());
    let config = |(name, value): &(String, String)| {
        let config = CreatableTopicConfig::default();
        config.with_name(text(name)).with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(wire(topic))
        .with_num_partitions(i32::try_from(topic.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(topic.replication).unwrap_or(i16::MAX))
        .with_configs(topic.configs.iter().map(config).collect())
}

fn encode<R: Request>(
    header: &RequestHeader,
    request: &R,
    version: i16,
) -> Result<BytesMut, String> {
    let mut frame = BytesMut::zeroed(4);
    header
        .encode(&mut frame, R::header_version(version))
        .and_then(|()| request.encode(&mut frame, version))
        .map_err(|error| error.to_string())?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| "too long".to_owned())?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn decode<R: Request>(mut answer: Bytes, version: i16) -> Result<(i32, R::Response), String> {
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(&mut answer, header_version);
    let header = header.map_err(|error| error.to_string())?;
    let response = R::Response::decode(&mut answer, version);
    let response = response.map_err(|error| error.to_string())?;
    if answer.has_remaining() {
        Err(format!("{} bytes are left over", answer.remaining()))
    } else {
        Ok((header.correlation_id, response))
    }
}

async fn exchange(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<Bytes> {
    stream.write_all(frame).await?;
    let length = stream.read_u32().await? as usize;
    if length > ANSWER_BYTES_MAX {
        let detail = format!("an answer of {length} bytes; is this a Kafka port?");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, detail));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer.into())
}

async fn in_time<T>(
    broker: &BrokerAddress,
    until: Instant,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, EnsureError> {
    let timed_out = || Err(std::io::ErrorKind::TimedOut.into());
    let result = timeout_at(until, work)
        .await
        .unwrap_or_else(|_| timed_out());
    let broker = broker.clone();
    result.map_err(|source| EnsureError::Broken { broker, source })
}

fn protocol<R: Request>(detail: String) -> EnsureError {
    let api = std::any::type_name::<R>();
    let api = api.rsplit("::").next().unwrap_or(api);
    EnsureError::Protocol { api, detail }
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;

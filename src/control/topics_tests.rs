//! Tests against a small broker that answers with the codec's other half. Tests against real
//! brokers are in `tests/it/`.

use super::*;
use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, CreateTopicsResponse, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Decodable as _, Encodable, HeaderVersion, Request as _};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Name, number of partitions, and configs of a topic.
type Created = (String, i32, Vec<(String, String)>);

/// A broker that records what it was asked to create.
#[derive(Default)]
struct Broker {
    created: Vec<Created>,
    existing: Vec<String>,
    create_error: i16,
    metadata_asked: usize,
    /// Number of metadata responses without leaders before the first with them.
    leaderless: usize,
}

const HIGHEST: [(ApiKey, i16); 2] = [(ApiKey::Metadata, 12), (ApiKey::CreateTopics, 7)];

fn key_of(key: ApiKey) -> i16 {
    key as i16
}

impl Broker {
    fn answer(&mut self, port: u16, mut frame: Bytes) -> BytesMut {
        let (key, version) = (frame.slice(0..2).get_i16(), frame.slice(2..4).get_i16());
        if key == ApiVersionsRequest::KEY {
            let header = RequestHeader::decode(&mut frame, 1).expect("a header");
            let version = |(key, max): (ApiKey, i16)| {
                let it = ApiVersion::default().with_api_key(key_of(key));
                it.with_min_version(0).with_max_version(max)
            };
            let keys = HIGHEST.into_iter().map(version).collect();
            let response = ApiVersionsResponse::default().with_api_keys(keys);
            return framed(header.correlation_id, &response, 0);
        }
        let header_version = match key {
            key if key == MetadataRequest::KEY => MetadataRequest::header_version(version),
            _ => CreateTopicsRequest::header_version(version),
        };
        let header = RequestHeader::decode(&mut frame, header_version).expect("a header");
        if key == MetadataRequest::KEY {
            let request = MetadataRequest::decode(&mut frame, version).expect("a request");
            assert!(!request.allow_auto_topic_creation);
            framed(
                header.correlation_id,
                &self.metadata(port, &request),
                version,
            )
        } else {
            let request = CreateTopicsRequest::decode(&mut frame, version).expect("a request");
            framed(header.correlation_id, &self.create(&request), version)
        }
    }

    fn metadata(&mut self, port: u16, request: &MetadataRequest) -> MetadataResponse {
        self.metadata_asked += 1;
        // The first request comes before anything is created.
        let leader = if self.metadata_asked > 1 + self.leaderless {
            BrokerId(7)
        } else {
            BrokerId(-1)
        };
        let topic = |wanted: &MetadataRequestTopic| {
            let partition = MetadataResponsePartition::default().with_leader_id(leader);
            let topic = MetadataResponseTopic::default().with_name(wanted.name.clone());
            topic.with_partitions(vec![partition])
        };
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(7))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(i32::from(port));
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(BrokerId(7))
            .with_topics(request.topics.iter().flatten().map(topic).collect())
    }

    fn create(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut results = Vec::new();
        for topic in &request.topics {
            let name = topic.name.to_string();
            let error = if self.existing.contains(&name) {
                // TOPIC_ALREADY_EXISTS
                36
            } else {
                self.create_error
            };
            let text = |text: &StrBytes| text.to_string();
            let configs = topic.configs.iter();
            let configs = configs.map(|it| {
                (
                    text(&it.name),
                    it.value.as_ref().map_or_else(String::new, text),
                )
            });
            self.created
                .push((name, topic.num_partitions, configs.collect()));
            let result = CreatableTopicResult::default().with_name(topic.name.clone());
            results.push(result.with_error_code(error));
        }
        CreateTopicsResponse::default().with_topics(results)
    }
}

fn framed<R: Encodable + HeaderVersion>(correlation: i32, response: &R, version: i16) -> BytesMut {
    let mut frame = BytesMut::zeroed(4);
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header
        .encode(&mut frame, R::header_version(version))
        .expect("a header");
    response.encode(&mut frame, version).expect("a response");
    let length = u32::try_from(frame.len() - 4).expect("short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

async fn serve(listener: TcpListener, broker: Arc<Mutex<Broker>>) {
    let port = listener.local_addr().expect("bound").port();
    loop {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u32().await {
                let mut frame = vec![0; length as usize];
                stream.read_exact(&mut frame).await.expect("a whole frame");
                let answer = broker
                    .lock()
                    .expect("no panic before")
                    .answer(port, frame.into());
                stream.write_all(&answer).await.expect("room");
            }
        });
    }
}

fn topic(name: &str) -> TopicSpec {
    TopicSpec {
        name: TopicName::new(name).expect("a name"),
        partitions: 3,
        replication: 1,
        configs: vec![("cleanup.policy".into(), "compact".into())],
    }
}

fn ensure(broker: Broker, topics: &[TopicSpec]) -> (Result<Vec<Ensured>, EnsureError>, Broker) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let broker = Arc::new(Mutex::new(broker));
        let served = tokio::spawn(serve(listener, Arc::clone(&broker)));
        let host = "127.0.0.1".to_owned();
        let bootstrap = [BrokerAddress { host, port }];
        let plaintext = BrokerSecurity::default();
        let result =
            ensure_topics(&bootstrap, &plaintext, topics, Duration::from_millis(500)).await;
        served.abort();
        let broker = std::mem::take(&mut *broker.lock().expect("no panic before"));
        (result, broker)
    })
}

#[test]
fn topics_are_made_with_their_configs_and_waited_for() {
    let broker = Broker {
        existing: vec!["b".into()],
        leaderless: 2,
        ..Broker::default()
    };
    let (result, broker) = ensure(broker, &[topic("a"), topic("b")]);
    assert_eq!(result.expect("made"), [Ensured::Created, Ensured::Existed]);
    let compact = vec![("cleanup.policy".to_owned(), "compact".to_owned())];
    assert_eq!(broker.created[0], ("a".into(), 3, compact));
    assert_eq!(broker.metadata_asked, 4);
}

#[test]
fn a_refusal_names_the_topic_and_the_brokers_reason() {
    let broker = Broker {
        // INVALID_REPLICATION_FACTOR
        create_error: 38,
        ..Broker::default()
    };
    let (result, _) = ensure(broker, &[topic("a")]);
    let text = result.expect_err("refused").to_string();
    assert!(
        text.contains("`a`") && text.to_lowercase().contains("replication"),
        "{text}"
    );
}

#[test]
fn a_partition_that_never_gets_a_leader_is_an_error_in_time() {
    let broker = Broker {
        leaderless: usize::MAX - 1,
        ..Broker::default()
    };
    let (result, _) = ensure(broker, &[topic("a")]);
    assert!(
        matches!(result, Err(EnsureError::NoLeader { .. })),
        "{result:?}"
    );
}

#[test]
fn brokers_that_are_not_there_are_all_named() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let broker = |port| BrokerAddress {
        host: "127.0.0.1".into(),
        port,
    };
    // Privileged ports without a server.
    let brokers = [broker(1), broker(2)];
    let topics = [topic("a")];
    let plaintext = BrokerSecurity::default();
    let work = ensure_topics(&brokers, &plaintext, &topics, Duration::from_millis(500));
    let error = runtime
        .expect("a runtime")
        .block_on(work)
        .expect_err("nobody there");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1, 127.0.0.1:2"), "{text}");
}

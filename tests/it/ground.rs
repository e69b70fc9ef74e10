//! The cluster that a scenario runs on, known by its bootstrap addresses. Scenarios are written
//! once. They run on the development broker (in this process, fast) and on real Kafka;
//! `SLUICEGATE_TEST_BOOTSTRAP=host:port` replaces the second by any cluster.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, RequestHeader,
};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, StrBytes};
use sluicegate::broker::{Profile, Settings};
use sluicegate::config::BrokerAddress;
use sluicegate::control::{BrokerSecurity, TopicSpec, ensure_topics};
use sluicegate::demo::listener::BrokerHandle;
use sluicegate::model::TopicName;

use super::cluster::{Cluster, VERSION};

/// A cluster that all tests of this process share. Each test has topics of its own.
#[derive(Debug)]
pub struct Ground {
    bootstrap: String,
    /// Number of replicas of each topic.
    replication: u16,
    _keeps: Keeps,
}

#[derive(Debug)]
#[allow(dead_code)] // They are kept for what happens when they are dropped.
enum Keeps {
    Broker(BrokerHandle),
    Cluster(Cluster),
    Nothing,
}

/// The development broker of this process.
pub fn development() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| embedded(Profile::Kafka43))
}

/// The development broker behaving like Redpanda up to 25.2.
pub fn redpanda() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| embedded(Profile::Redpanda))
}

fn embedded(profile: Profile) -> Ground {
    let settings = Settings {
        profile,
        ..Settings::default()
    };
    let broker = BrokerHandle::start(settings, random(), ([127, 0, 0, 1], 0).into());
    let broker = broker.expect("a free port");
    let bootstrap = broker.bootstrap();
    Ground {
        bootstrap,
        replication: 1,
        _keeps: Keeps::Broker(broker),
    }
}

/// Real Kafka: one node that the tests start, or the cluster that the environment names.
pub fn real() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| match std::env::var("SLUICEGATE_TEST_BOOTSTRAP") {
        Ok(bootstrap) => Ground {
            bootstrap,
            replication: 1,
            _keeps: Keeps::Nothing,
        },
        Err(_) => Ground::of_version(VERSION),
    })
}

impl Ground {
    /// One node of a release of Kafka.
    pub fn of_version(version: &str) -> Self {
        let cluster = Cluster::start_version(version, 1);
        Self {
            bootstrap: cluster.bootstrap(),
            replication: 1,
            _keeps: Keeps::Cluster(cluster),
        }
    }

    /// A cluster that only one test uses.
    pub fn at(bootstrap: &str) -> Self {
        Self::replicated(bootstrap, 1)
    }

    /// A cluster that only one test uses, with this many replicas of each topic.
    pub fn replicated(bootstrap: &str, replication: u16) -> Self {
        let bootstrap = bootstrap.to_owned();
        Self {
            bootstrap,
            replication,
            _keeps: Keeps::Nothing,
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Creates a topic with a unique name, and returns the name.
    pub fn topic(&self, stem: &str, partitions: u32, configs: &[(&str, &str)]) -> String {
        let name = unique(stem);
        self.named_topic(&name, partitions, configs);
        name
    }

    /// Creates a topic with exactly this name.
    pub fn named_topic(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let spec = TopicSpec {
            name: TopicName::new(name).expect("a name Kafka takes"),
            partitions,
            replication: self.replication,
            configs: configs.iter().map(owned).collect(),
        };
        let bootstrap: Vec<_> = self.bootstrap.split(',').map(broker_address).collect();
        let specs = [spec];
        let plaintext = BrokerSecurity::default();
        let made = ensure_topics(&bootstrap, &plaintext, &specs, Duration::from_secs(30));
        block_on(made).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Sets one of a topic's configs while the topic is in use (IncrementalAlterConfigs).
    pub fn alter(&self, topic: &str, key: &'static str, value: &'static str) {
        use std::io::{Read as _, Write as _};
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let header = RequestHeader::default()
            .with_request_api_key(ApiKey::IncrementalAlterConfigs as i16)
            .with_request_api_version(0)
            .with_client_id(Some(text("tests")));
        let mut frame = vec![0; 4];
        header.encode(&mut frame, 1).expect("a header");
        request.encode(&mut frame, 0).expect("a request");
        let len = (frame.len() as u32 - 4).to_be_bytes();
        frame[..4].copy_from_slice(&len);
        let first = self.bootstrap.split(',').next().expect("an address");
        let mut broker = std::net::TcpStream::connect(first).expect("a broker");
        broker.write_all(&frame).expect("it reads");
        let mut len = [0; 4];
        broker.read_exact(&mut len).expect("it answers");
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        broker.read_exact(&mut answer).expect("a whole answer");
        let mut answer = bytes::Bytes::from(answer).split_off(4);
        let answer = IncrementalAlterConfigsResponse::decode(&mut answer, 0).expect("an answer");
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// Creates a compacted topic with a unique name.
    pub fn compacted(&self, stem: &str, partitions: u32) -> String {
        self.topic(stem, partitions, &[("cleanup.policy", "compact")])
    }
}

/// A name that no other test and no earlier run on the same cluster uses.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}-{n}-{:08x}", random() as u32)
}

/// `host:port` as the product's config holds it.
pub fn broker_address(text: &str) -> BrokerAddress {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    let (host, port) = (host.to_owned(), port.parse().expect("a port"));
    BrokerAddress { host, port }
}

/// Runs a future to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// A random number for names and ports, so that runs do not use each other's.
pub fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one((std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

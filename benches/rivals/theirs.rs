//! The same with rskafka: one task fetches without end, another produces.

use std::time::{Duration, Instant};

use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::record::Record;
use sluicegate::config::BrokerAddress;
use sluicegate::control::{BrokerSecurity, TopicSpec, ensure_topics};
use sluicegate::model::TopicName;

use crate::{RECORDS, WARM_UP};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// Creates a topic with one partition.
pub(crate) fn create_topic(bootstrap: &str, topic: &str) {
    let (host, port) = bootstrap.rsplit_once(':').expect("host:port");
    let broker = BrokerAddress {
        host: host.to_owned(),
        port: port.parse().expect("a port"),
    };
    let spec = TopicSpec {
        name: TopicName::new(topic).expect("a name"),
        partitions: 1,
        replication: 1,
        configs: Vec::new(),
    };
    let (brokers, specs) = ([broker], [spec]);
    let plaintext = BrokerSecurity::default();
    let made = ensure_topics(&brokers, &plaintext, &specs, Duration::from_secs(30));
    block_on(made).expect("a topic");
}

/// The time from `produce` to the fetched record, of each record after the warm-up.
pub(crate) fn run(bootstrap: &str, topic: &str, size: usize) -> Vec<Duration> {
    block_on(async {
        let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await;
        let client = client.expect("a client");
        let partition = || client.partition_client(topic, 0, UnknownTopicHandling::Retry);
        let writer = partition().await.expect("a partition");
        let reader = partition().await.expect("a partition");
        let mut next = reader.get_offset(OffsetAt::Latest).await.expect("an end");
        let (tell, mut seen) = tokio::sync::mpsc::channel(16);
        let reading = tokio::spawn(async move {
            loop {
                let fetched = reader.fetch_records(next, 1..4 << 20, 500).await;
                for record in fetched.expect("a fetch").0 {
                    next = record.offset + 1;
                    let value = record.record.value.expect("a value");
                    if tell.send((value.len(), Instant::now())).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut times = Vec::with_capacity(RECORDS);
        for n in 0..WARM_UP + RECORDS {
            let record = Record {
                key: None,
                value: Some(vec![b'a' + (n % 23) as u8; size]),
                headers: std::collections::BTreeMap::new(),
                timestamp: rskafka::chrono::DateTime::from_timestamp_millis(n as i64)
                    .expect("a time"),
            };
            let asked = Instant::now();
            let produced = writer.produce(vec![record], Compression::NoCompression);
            let (produced, came) = tokio::join!(produced, seen.recv());
            produced.expect("an offset");
            let (len, at) = came.expect("the reader lives");
            assert_eq!(len, size);
            if n >= WARM_UP {
                times.push(at - asked);
            }
        }
        reading.abort();
        times
    })
}

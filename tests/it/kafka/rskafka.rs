//! Why rskafka is not in the data path: each defect that docs/dependencies.md lists, shown with the
//! published release on real Kafka. These tests pass while the defects exist. If one fails, the
//! defect is fixed: revise that page and the workarounds of the demo's service.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rskafka::BackoffConfig;
use rskafka::chrono::DateTime;
use rskafka::client::error::Error;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};

use crate::admin::Admin;
use crate::client::PATIENCE;
use crate::cluster::Cluster;
use crate::ground::{Ground, block_on, real, unique};
use crate::kcat;
use crate::rdk::{Producer, ToWrite};

const MENDED: &str = "mended: look at docs/dependencies.md again";
/// A delayed acknowledgement takes 40 ms on Linux.
const STALL: Duration = Duration::from_millis(35);
/// Wait for requests that never end: longer than any request timeout here.
const LONG: Duration = Duration::from_secs(12);

#[test]
fn defect_1_produce_requests_of_8_to_64_kib_stall() {
    let topic = real().topic("stall", 1, &[]);
    let (small, large) = block_on(async {
        let partition = partition(&connect(real().bootstrap()).await, &topic).await;
        let mut counts = [0, 0];
        for (count, bytes) in counts.iter_mut().zip([1 << 10, 32 << 10]) {
            for n in 0..25 {
                let began = Instant::now();
                produce(&partition, vec![b'x'; bytes]).await;
                // Skip the first requests, during which Java loads classes.
                *count += usize::from(n >= 5 && began.elapsed() >= STALL);
            }
        }
        (counts[0], counts[1])
    });
    // A time is asserted only here, because the defect is a delay.
    eprintln!("rskafka: of 20 requests, {large} of 32 KiB and {small} of 1 KiB took {STALL:?}");
    assert!(large >= 10, "{large} of 20 took {STALL:?}: {MENDED}");
}

#[test]
fn defect_2_what_a_transaction_wrote_can_not_be_read() {
    let topic = real().topic("committed", 1, &[]);
    let mut producer = transactional(&topic);
    producer.begin();
    producer.write_value(0, "committed");
    producer.commit();
    assert_eq!(kcat::read(real().bootstrap(), &topic).len(), 1);
    let read = fetch(&topic, 0, 1 << 20);
    assert!(read.is_err(), "{read:?}: {MENDED}");
}

#[test]
fn defect_3_a_null_header_makes_the_partition_unreadable() {
    let topic = real().topic("null-header", 1, &[]);
    let mut producer = Producer::start(real().bootstrap(), &topic, &[]);
    let tag = producer.write(&ToWrite {
        value: Some(b"fine"),
        headers: &[("nothing", None)],
        ..ToWrite::default()
    });
    producer.wait(tag).expect("it is written");
    producer.write_value(0, "behind it");
    assert_eq!(kcat::read(real().bootstrap(), &topic).len(), 2);
    let read = fetch(&topic, 0, 1 << 20);
    assert!(read.is_err(), "{read:?}: {MENDED}");
}

#[test]
fn defect_4_a_throttled_produce_is_sent_again() {
    let topic = real().topic("throttled", 1, &[]);
    let admin = Admin::of(real().bootstrap());
    let id = unique("throttled-rskafka");
    admin.produce_quota(&id, Some(2000.0));
    let copies = block_on(async {
        let client = ClientBuilder::new(brokers(real().bootstrap())).client_id(id.as_str());
        let client = in_time(client.build()).await.expect("a client");
        let partition = partition(&client, &topic).await;
        // Below the size at which it stalls. A second burst exceeds the quota that the first used
        // up.
        for n in 0..6 {
            let value = format!("{n} {}", "x".repeat(6000));
            let produced = partition.produce(vec![record(value.into())], NO);
            // Throttle times grow, and the request does not end while they arrive.
            if tokio::time::timeout(LONG, produced).await.is_err() {
                break;
            }
        }
        copies(&topic)
    });
    admin.produce_quota(&id, None);
    eprintln!("rskafka: copies of each of 6 throttled records: {copies:?}");
    let most = copies.iter().max().copied().unwrap_or_default();
    assert!(most > 1, "{copies:?}: {MENDED}");
}

#[test]
fn defect_5_aborted_records_are_shown() {
    let topic = real().topic("aborted", 1, &[]);
    let mut producer = transactional(&topic);
    producer.begin();
    producer.write_value(0, "aborted");
    producer.abort();
    assert_eq!(kcat::read(real().bootstrap(), &topic), []);
    // Fetch one batch only: the marker after it cannot be read at all.
    let read = fetch(&topic, 0, 1);
    let shown = read.map(|records| {
        let values = records.into_iter().map(|it| it.record.value);
        values.collect::<Vec<_>>()
    });
    let aborted = Some(b"aborted".to_vec());
    assert!(
        shown.as_ref().is_ok_and(|it| it.contains(&aborted)),
        "{shown:?}: {MENDED}"
    );
}

#[test]
fn defect_6_it_sticks_to_a_leader_that_has_moved() {
    let cluster = two_nodes();
    let topic = Ground::replicated(&cluster.bootstrap(), 2).topic("moved", 1, &[]);
    let admin = Admin::of(&cluster.bootstrap());
    block_on(async {
        // The client has read the cluster's metadata once.
        let client = connect(&cluster.bootstrap()).await;
        admin.move_leader(&topic, 0, 3 - admin.leader(&topic, 0));
        let found = client.partition_client(topic.as_str(), 0, UnknownTopicHandling::Retry);
        let found = tokio::time::timeout(LONG, found).await;
        // A new client is not affected.
        let partition = partition(&connect(&cluster.bootstrap()).await, &topic).await;
        produce(&partition, b"x".to_vec()).await;
        assert!(found.is_err(), "{MENDED}");
    });
}

#[test]
fn defect_7_a_frozen_broker_hangs_it() {
    let cluster = two_nodes();
    let topic = Ground::replicated(&cluster.bootstrap(), 2).topic("frozen", 1, &[]);
    let leader = Admin::of(&cluster.bootstrap()).leader(&topic, 0) as usize;
    let hung = block_on(async {
        let partition = partition(&connect(&cluster.bootstrap()).await, &topic).await;
        produce(&partition, b"x".to_vec()).await;
        cluster.freeze(leader);
        let produced = partition.produce(vec![record(b"y".to_vec())], NO);
        tokio::time::timeout(LONG, produced).await
    });
    cluster.thaw(leader);
    assert!(hung.is_err(), "{hung:?}: {MENDED}");
}

#[test]
fn defect_8_log_append_times_are_wrong() {
    let configs = [("message.timestamp.type", "LogAppendTime")];
    let topic = real().topic("append-time", 1, &configs);
    block_on(async {
        let partition = partition(&connect(real().bootstrap()).await, &topic).await;
        produce(&partition, b"x".to_vec()).await;
    });
    let read = fetch(&topic, 0, 1 << 20).expect("it can be read");
    // rskafka returns the producer's timestamp instead of the log's.
    assert_eq!(read[0].record.timestamp, long_ago(), "{MENDED}");
}

#[test]
fn defect_9_repeated_headers_become_one() {
    let topic = real().topic("repeated", 1, &[]);
    let mut producer = Producer::start(real().bootstrap(), &topic, &[]);
    let tag = producer.write(&ToWrite {
        value: Some(b"x"),
        headers: &[("a", Some(b"1")), ("b", Some(b"2")), ("a", Some(b"3"))],
        ..ToWrite::default()
    });
    producer.wait(tag).expect("it is written");
    let read = fetch(&topic, 0, 1 << 20).expect("it can be read");
    assert_eq!(read[0].record.headers.len(), 2, "{MENDED}");
}

const NO: Compression = Compression::NoCompression;

fn two_nodes() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Mutex::new(Cluster::start(2)));
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.heal();
    cluster
}

fn brokers(bootstrap: &str) -> Vec<String> {
    bootstrap.split(',').map(str::to_owned).collect()
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("rskafka is not asked for more than it can")
}

async fn connect(bootstrap: &str) -> Client {
    // A long backoff, to show that it does not cause the defects.
    let backoff = BackoffConfig {
        max_backoff: Duration::from_millis(500),
        ..BackoffConfig::default()
    };
    let client = ClientBuilder::new(brokers(bootstrap)).backoff_config(backoff);
    in_time(client.build()).await.expect("a client")
}

async fn partition(client: &Client, topic: &str) -> PartitionClient {
    let found = client.partition_client(topic, 0, UnknownTopicHandling::Retry);
    in_time(found).await.expect("the partition")
}

async fn produce(partition: &PartitionClient, value: Vec<u8>) {
    let produced = in_time(partition.produce(vec![record(value)], NO)).await;
    produced.expect("it is written");
}

/// Sends one Fetch for a topic's first partition.
fn fetch(topic: &str, offset: i64, bytes_max: i32) -> Result<Vec<RecordAndOffset>, Error> {
    block_on(async {
        let partition = partition(&connect(real().bootstrap()).await, topic).await;
        let fetched = in_time(partition.fetch_records(offset, 1..bytes_max + 1, 500)).await;
        fetched.map(|(records, _)| records)
    })
}

fn transactional(topic: &str) -> Producer {
    let id = format!("transactional.id={}", unique("rskafka"));
    Producer::start(real().bootstrap(), topic, &[&id])
}

fn long_ago() -> DateTime<rskafka::chrono::Utc> {
    DateTime::from_timestamp_millis(1_000_000_000_000).expect("a time")
}

fn record(value: Vec<u8>) -> Record {
    Record {
        key: None,
        value: Some(value),
        headers: [].into(),
        timestamp: long_ago(),
    }
}

/// Counts how often each value is in a topic.
fn copies(topic: &str) -> Vec<usize> {
    let mut counts = std::collections::BTreeMap::new();
    for record in kcat::read(real().bootstrap(), topic) {
        *counts.entry(record.value).or_insert(0) += 1;
    }
    counts.into_values().collect()
}

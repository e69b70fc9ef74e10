//! librdkafka in parallel with the gateways. One client writes the events and another reads them as
//! the streams' readers do. A third writes into the commands topic, to the same leaders in the same
//! faults as the gateways.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::book::InLog;
use super::felt::{Wait, millis};
use super::world::{PARTITIONS, Shared, lock};
use crate::kcat::Record;
use crate::rdk::{Consumer, Producer, ToWrite};

/// Pause between events. Clients send about as many commands.
const EVENTS_PAUSE: Duration = Duration::from_millis(15);
/// Pause between librdkafka's records in the commands topic, which go to each partition in turn.
const BESIDE_PAUSE: Duration = Duration::from_millis(20);
/// The key of librdkafka's records in the commands topic, which are not commands.
const BESIDE: &str = "beside";

/// Whether librdkafka wrote the record, and not a gateway.
pub fn is_beside(record: &Record) -> bool {
    record.key.as_deref() == Some(BESIDE)
}

/// Writes events with librdkafka's idempotent producer, one at a time, each with a unique name.
pub fn write_events(mut producer: Producer, shared: Arc<Shared>) -> JoinHandle<Vec<InLog>> {
    std::thread::spawn(move || {
        let mut written = Vec::new();
        while !shared.quiet.load(Ordering::Relaxed) {
            let n = written.len();
            let (key, value) = (format!("k{}", n % 16), format!("k{} {n}", n % 16));
            let tag = producer.write(&ToWrite {
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..ToWrite::default()
            });
            written.push((tag, value));
            std::thread::sleep(EVENTS_PAUSE);
        }
        let deliveries = producer.finish();
        let known = written.into_iter().filter_map(|(tag, name)| {
            let (partition, offset) = deliveries[&tag].clone().ok()?;
            Some(InLog {
                partition,
                offset,
                name,
            })
        });
        known.collect()
    })
}

/// An event that librdkafka's consumer received.
#[derive(Debug)]
pub struct Received {
    pub at: Instant,
    pub partition: u32,
    pub name: String,
}

/// Reads the same events with librdkafka's consumer.
pub fn read_events(
    bootstrap: &str,
    topic: &str,
    shared: &Arc<Shared>,
    received: &Arc<Mutex<Vec<Received>>>,
) -> JoinHandle<()> {
    let consumer = Consumer::start(bootstrap, topic, &[]);
    let (shared, received) = (shared.clone(), received.clone());
    std::thread::spawn(move || {
        while !shared.over.load(Ordering::Relaxed) {
            if let Some((at, record)) = consumer.next_within(Duration::from_millis(100)) {
                lock(&received).push(Received {
                    at,
                    partition: record.partition,
                    name: record.value.expect("events have values"),
                });
            }
        }
    })
}

/// Times at which the records were written, in order of their values.
pub type Written = JoinHandle<Vec<u64>>;

/// Writes numbered records into the commands topic.
pub fn write_beside(mut producer: Producer, shared: Arc<Shared>) -> Written {
    std::thread::spawn(move || {
        let mut written = Vec::new();
        while !shared.quiet.load(Ordering::Relaxed) {
            let value = written.len().to_string();
            written.push(millis());
            producer.write(&ToWrite {
                partition: Some(written.len() as u32 % PARTITIONS),
                key: Some(BESIDE.as_bytes()),
                value: Some(value.as_bytes()),
                ..ToWrite::default()
            });
            std::thread::sleep(BESIDE_PAUSE);
        }
        for (tag, delivery) in producer.finish() {
            assert!(delivery.is_ok(), "beside, {tag}: {delivery:?}");
        }
        written
    })
}

/// How long each record waited, by the log's clock, and how many librdkafka wrote twice.
pub fn waits(written: &[u64], log: &[Record]) -> (Vec<Wait>, usize) {
    let mut first: BTreeMap<usize, u64> = BTreeMap::new();
    for record in log {
        let value = record.value.as_deref().unwrap_or_default();
        let number = value.parse().expect("its number");
        let at = first.entry(number).or_insert(record.time);
        *at = record.time.min(*at);
    }
    let wait = |(number, &at): (usize, &u64)| {
        let there = first.get(&number);
        (
            at,
            *there.expect("what librdkafka was acknowledged is there"),
        )
    };
    let waits = written.iter().enumerate().map(wait).collect();
    (waits, log.len() - first.len())
}

//! Changes of topics while they are read and written (R4): partitions added, topics deleted and
//! re-created, retention, compaction, transactions, quotas.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::book::{self, InLog};
use super::world::World;
use super::{admin, cluster, ground, rounds};
use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::unique;
use crate::kcat;
use crate::rdk::{Producer, ToWrite};
use crate::service::Reply;

/// Long enough for an unexpected event to have arrived.
const QUIET: Duration = Duration::from_millis(300);

/// Writes values `stem n` to partitions in turn. Returns them as the log has them.
fn write(bootstrap: &str, topic: &str, stem: &str, partitions: &[u32], count: usize) -> Vec<InLog> {
    let mut producer = Producer::start(bootstrap, topic, &[]);
    let names: Vec<_> = (0..count).map(|n| format!("{stem} {n}")).collect();
    for (n, name) in names.iter().enumerate() {
        producer.write(&ToWrite {
            partition: Some(partitions[n % partitions.len()]),
            value: Some(name.as_bytes()),
            ..ToWrite::default()
        });
    }
    let deliveries = producer.finish();
    let places = deliveries
        .into_values()
        .map(|it| it.expect("it is written"));
    let in_log = |((partition, offset), name)| InLog {
        partition,
        offset,
        name,
    };
    places.zip(names).map(in_log).collect()
}

/// The data of the next events, all of which are records.
fn gather(stream: &mut Events, count: usize) -> Vec<String> {
    let next = |_| {
        let event = stream.next();
        assert_eq!(event.name, "message", "{event:?}");
        event.data
    };
    (0..count).map(next).collect()
}

#[track_caller]
fn exactly(given: &[String], log: &[InLog]) {
    let anomalies = book::deliveries("the reader", given, log);
    let shown: Vec<_> = anomalies.iter().take(10).collect();
    assert!(
        anomalies.is_empty(),
        "{} anomalies: {shown:#?}",
        anomalies.len()
    );
}

#[test]
fn added_partitions_are_found_and_read_from_their_start() {
    const AGE: Duration = Duration::from_secs(10);
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let app = App::new(&ground);
    let flags = ["--kafka-metadata-age-max=10s"];
    let gateways = [1, 2].map(|shards| Gateway::launch_with(&app.config(shards, ""), &flags));
    gateways.iter().for_each(Gateway::wait_serving);
    let [gateway, peer] = &gateways;
    let mut live = Events::open(gateway.address(), "/events/live");
    let start = live.wait_for_id();
    let mut log = write(app.bootstrap(), &app.events, "old", &[0, 1, 2], 30);
    let mut given = gather(&mut live, 30);
    admin.add_partitions(&app.events, 5);
    admin.add_partitions(&app.commands, 5);
    let added = Instant::now();
    // Before the gateway can have seen the new partitions.
    log.extend(write(app.bootstrap(), &app.events, "new", &[3, 4, 0], 60));
    given.extend(gather(&mut live, 60));
    exactly(&given, &log);
    let found = added.elapsed();
    eprintln!("  partitions added: found and read after {found:?}, asked for within {AGE:?}");
    // An id from before does not cover the new partitions, at either gateway. One from after covers
    // them.
    for gateway in [gateway, peer] {
        let mut stream = Events::resume(gateway.address(), "/events/live", &start);
        exactly(&gather(&mut stream, 90), &log);
        assert_eq!(stream.next_within(QUIET), None);
    }
    let id = live.last_event_id().to_owned();
    let more = write(app.bootstrap(), &app.events, "more", &[0, 1, 2, 3, 4], 50);
    let mut stream = Events::resume(peer.address(), "/events/live", &id);
    exactly(&gather(&mut stream, 50), &more);
    partitions_of_keys(&app, gateway);
}

/// Commands are in the partitions that Java's partitioner chooses, including the new ones.
fn partitions_of_keys(app: &App, gateway: &Gateway) {
    let keys: Vec<_> = (0..40).map(|n| format!("key {n} \u{e4}")).collect();
    let mut connection = gateway.connect();
    for key in &keys {
        let path = key.replace(' ', "%20").replace('\u{e4}', "%C3%A4");
        let answer = connection.ask(&Request::post(&format!("/hasty/{path}"), "{}"));
        assert_eq!(answer.status, 504, "nobody answers: {answer:?}");
    }
    let settings = ["partitioner=murmur2_random"];
    let mut producer = Producer::start(app.bootstrap(), &app.commands, &settings);
    for key in &keys {
        producer.write(&ToWrite {
            key: Some(key.as_bytes()),
            value: Some(b"librdkafka"),
            ..ToWrite::default()
        });
    }
    producer.finish();
    let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    for record in app.commands_in_log() {
        let place = match record.value.as_deref() {
            Some("librdkafka") => &mut theirs,
            _ => &mut ours,
        };
        place.insert(record.key.expect("a key"), record.partition);
    }
    assert_eq!(ours.len(), keys.len());
    assert_eq!(ours, theirs);
    assert!(ours.values().any(|&partition| partition >= 3), "{ours:?}");
}

#[test]
fn a_topic_made_again_is_told_and_read_anew() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let app = App::new(&ground);
    let gateway = app.gateway(2);
    for round in 0..2 {
        let log = write(
            app.bootstrap(),
            &app.events,
            &format!("old {round}"),
            &[0, 1, 2],
            30,
        );
        let value = format!("old {round}");
        app.produce(&app.items).keyed([("a", value.as_str())]);
        gateway.wait_until(&Request::get("/items/a"), |it| it.text() == value);
        let mut stream = match round {
            0 => Events::open(gateway.address(), "/events/all"),
            _ => Events::resume_when_ready(gateway.address(), "/events/live", ""),
        };
        if round == 0 {
            exactly(&gather(&mut stream, 30), &log);
        }
        let id = match round {
            0 => stream.last_event_id().to_owned(),
            _ => stream.wait_for_id(),
        };
        for topic in [&app.events, &app.items, &app.commands] {
            admin.delete_topic(topic);
        }
        ground.named_topic(&app.events, 3, &[]);
        ground.named_topic(&app.items, 3, &[("cleanup.policy", "compact")]);
        ground.named_topic(&app.commands, 3, &[]);
        let new = write(
            app.bootstrap(),
            &app.events,
            &format!("new {round}"),
            &[0, 1, 2],
            20,
        );
        // The stream is closed. Every event it sent, of either log, is covered by its id.
        while stream.next_within(PATIENCE).is_some() {}
        assert!(stream.ended(), "it is closed");
        // While the topic is loaded again, new streams get `retry:` and are closed.
        let (mut stream, gap) = loop {
            let mut stream = Events::resume_when_ready(gateway.address(), "/events/all", &id);
            if let Some(first) = stream.next_within(PATIENCE) {
                break (stream, first);
            }
            assert!(stream.ended(), "neither an event nor an end");
        };
        assert_eq!(
            (gap.name.as_str(), gap.data.as_str()),
            ("gap", r#"{"reason":"recreated"}"#)
        );
        exactly(&gather(&mut stream, 20), &new);
        assert_eq!(stream.next_within(QUIET), None);
        // Records of the old log are no longer returned, and those of the new one are.
        gateway.wait_until(&Request::get("/items/a"), |it| it.status == 404);
        app.produce(&app.items).keyed([("b", "new")]);
        gateway.wait_until(&Request::get("/items/b"), |it| it.text() == "new");
        let service = app.service(|_| Some(Reply::new(200, "answered")));
        let answer = gateway.ask(&Request::post("/items/a/orders", "{}"));
        assert_eq!((answer.status, answer.text()), (200, "answered"));
        drop(service);
    }
}

#[test]
fn retention_under_a_reader_is_told_and_nothing_else_is_missing() {
    const RECORDS: usize = 30_000;
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let app = App::new(&ground);
    let old = app.gateway(2);
    let mut live = Events::open(old.address(), "/events/live");
    let start = live.wait_for_id();
    let log = write(
        app.bootstrap(),
        &app.events,
        &"x".repeat(100),
        &[0, 1, 2],
        RECORDS,
    );
    let each = (RECORDS / 3) as i64;
    // A live reader is ahead of retention.
    exactly(&gather(&mut live, RECORDS), &log);
    // Readers of history are overtaken by retention, some of them before they start.
    let peer = app.gateway(1);
    let mut late = Events::resume(peer.address(), "/events/all", &start);
    let mut reader = Overtaken::default();
    while reader.given.len() < 50 {
        reader.on(&mut late);
    }
    for partition in 0..3 {
        admin.delete_records(&app.events, partition, each - 100);
    }
    let newest = write(app.bootstrap(), &app.events, "newest", &[0, 1, 2], 30);
    let all: Vec<_> = log.into_iter().chain(newest).collect();
    let end = all.iter().map(|it| (it.partition, it.offset + 1)).collect();
    reader.check(&mut late, &end, &all);
    let fresh = app.gateway(2);
    let mut late = Events::resume(fresh.address(), "/events/all", &start);
    let mut reader = Overtaken::default();
    reader.check(&mut late, &end, &all);
    let told: Vec<_> = reader.gaps.iter().map(|it| it["to"].as_i64()).collect();
    assert_eq!(
        told,
        [Some(each - 100); 3],
        "what is gone is told by partition"
    );
}

/// A reader that receives gaps for deleted records.
#[derive(Default)]
struct Overtaken {
    given: Vec<String>,
    gaps: Vec<Value>,
}

impl Overtaken {
    fn on(&mut self, stream: &mut Events) {
        let event = stream.next();
        match event.name.as_str() {
            "message" => self.given.push(event.data),
            "gap" => self
                .gaps
                .push(serde_json::from_str(&event.data).expect("JSON")),
            _ => panic!("what is {event:?}"),
        }
    }

    /// Reads to the ends. Then each record must have been received or reported as deleted.
    fn check(&mut self, stream: &mut Events, end: &BTreeMap<u32, u64>, log: &[InLog]) {
        let missing = |gaps: &[Value]| -> u64 {
            let size = |gap: &Value| gap["to"].as_u64().zip(gap["from"].as_u64());
            gaps.iter()
                .filter_map(size)
                .map(|(to, from)| to - from)
                .sum()
        };
        let all: u64 = end.values().sum();
        while self.given.len() as u64 + missing(&self.gaps) < all {
            self.on(stream);
        }
        assert_eq!(stream.next_within(QUIET), None);
        for gap in &self.gaps {
            assert_eq!(gap["reason"], json!("retention"), "{gap}");
        }
        let told = |record: &&InLog| {
            self.gaps.iter().any(|gap| {
                let here = gap["partition"] == json!(record.partition);
                let from = gap["from"].as_u64().is_some_and(|it| it <= record.offset);
                here && from && gap["to"].as_u64().is_some_and(|it| record.offset < it)
            })
        };
        let left: Vec<_> = log.iter().filter(|it| !told(it)).cloned().collect();
        exactly(&self.given, &left);
        let (given, gaps) = (self.given.len(), self.gaps.len());
        eprintln!(
            "  retention: {given} given, {} told in {gaps} gaps",
            missing(&self.gaps)
        );
    }
}

#[test]
fn compaction_under_snapshots_shows_the_newest_of_each_key() {
    const KEYS: usize = 40;
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let app = App::new(&ground);
    let configs = [
        ("segment.ms", "300"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "300"),
        ("delete.retention.ms", "60000"),
    ];
    admin.set_configs(&app.items, &configs);
    let gateways = [app.gateway(1), app.gateway(2)];
    let mut producer = Producer::start(app.bootstrap(), &app.items, &[]);
    let (mut written, mut readers) = (0, Vec::new());
    let snapshots = 12 * rounds();
    for round in 0..snapshots {
        for _ in 0..50 {
            let key = format!("k{}", (written * 7 + round) % KEYS);
            let value = format!("{key} {written}");
            // Every ninth record is a tombstone.
            let value = (written % 9 != 8).then_some(value.as_bytes());
            producer.write(&ToWrite {
                key: Some(key.as_bytes()),
                value,
                ..ToWrite::default()
            });
            written += 1;
            std::thread::sleep(Duration::from_millis(3));
        }
        let address = gateways[round % 2].address();
        let stream = Events::open(address, "/items-now");
        readers.push((stream, Held::default()));
        for (stream, held) in &mut readers {
            while let Some(event) = stream.next_within(Duration::from_millis(1)) {
                held.on(&event.name, &event.data);
            }
        }
    }
    producer.finish();
    // The cleaner must have run meanwhile, or the test shows nothing.
    let until = Instant::now() + PATIENCE;
    let left = loop {
        let left = kcat::read(app.bootstrap(), &app.items);
        if left.len() < written / 2 {
            break left;
        }
        assert!(
            Instant::now() < until,
            "not compacted: {} records",
            left.len()
        );
        std::thread::sleep(QUIET);
    };
    eprintln!("  compaction: {} of {written} records left", left.len());
    let mut truth = BTreeMap::new();
    for record in left {
        let key = record.key.expect("a compacted topic has keys");
        match record.value {
            Some(value) => truth.insert(key, value),
            None => truth.remove(&key),
        };
    }
    readers.push((
        Events::open(gateways[0].address(), "/items-now"),
        Held::default(),
    ));
    for (number, (stream, held)) in readers.iter_mut().enumerate() {
        let until = Instant::now() + PATIENCE;
        while held.state != truth && Instant::now() < until {
            if let Some(event) = stream.next_within(QUIET) {
                held.on(&event.name, &event.data);
            }
        }
        // Deletes of keys that it never had may follow, and change nothing.
        while let Some(event) = stream.next_within(Duration::from_millis(20)) {
            held.on(&event.name, &event.data);
        }
        assert_eq!(held.state, truth, "snapshot {number}");
    }
    let page = gateways[1].get("/items").json();
    assert_eq!(
        page.as_array().map(Vec::len),
        Some(0),
        "values that are no JSON are left out"
    );
}

/// The state that one reader of a snapshot has built.
#[derive(Debug, Default)]
struct Held {
    state: BTreeMap<String, String>,
    /// The newest record of each key. No event repeats one or is older.
    newest: BTreeMap<String, u64>,
}

impl Held {
    fn on(&mut self, name: &str, data: &str) {
        match name {
            "message" => {
                let (key, number) = data.split_once(' ').expect("key and number");
                let number = number.parse().expect("a number");
                let before = self.newest.insert(key.to_owned(), number);
                assert!(
                    before.is_none_or(|it| it < number),
                    "{before:?}, then {data}"
                );
                self.state.insert(key.to_owned(), data.to_owned());
            }
            "delete" => {
                let told: Value = serde_json::from_str(data).expect("JSON");
                self.state.remove(told["key"].as_str().expect("a key"));
            }
            _ => panic!("no {name} is due: {data}"),
        }
    }
}

#[test]
fn of_transactions_only_what_was_committed_is_shown_and_only_then() {
    let cluster = cluster();
    let ground = ground(&cluster);
    let app = App::new(&ground);
    let gateway = app.gateway(2);
    let mut live = Events::open(gateway.address(), "/events/live");
    live.wait_for_id();
    let transactional = |n: usize| {
        let id = format!("transactional.id={}", unique("suite"));
        let settings = [id.as_str(), "transaction.timeout.ms=60000"];
        let mut producer = Producer::start(app.bootstrap(), &app.events, &settings);
        producer.begin();
        producer.write_value(0, &format!("first of {n}"));
        producer.commit();
        producer
    };
    let mut producers = [transactional(0), transactional(1)];
    let mut plain = Producer::start(app.bootstrap(), &app.events, &[]);
    // Two transactions at a time, alternately committed and aborted, with plain records between.
    for round in 0..10 * rounds() {
        producers.iter_mut().for_each(Producer::begin);
        for n in 0..5 {
            for (number, producer) in producers.iter_mut().enumerate() {
                let partition = (round + n) as u32 % 3;
                let fate = ["commits", "aborts"][(round + number) % 2];
                producer.write_value(partition, &format!("{fate} {number} {round} {n}"));
            }
            plain.write_value(n as u32 % 3, &format!("plain {round} {n}"));
        }
        for (number, producer) in producers.iter_mut().enumerate() {
            match (round + number) % 2 {
                0 => producer.commit(),
                _ => producer.abort(),
            }
        }
    }
    let log = super::world::in_log(&kcat::read(app.bootstrap(), &app.events), |it| {
        it.value.clone()
    });
    assert!(log.iter().all(|it| !it.name.starts_with("aborts")));
    assert_eq!(log.len(), 2 + 10 * rounds() * 10);
    let mut given = gather(&mut live, log.len());
    exactly(&given, &log);
    let peer = app.gateway(1);
    let mut history = Events::open(peer.address(), "/events/all");
    exactly(&gather(&mut history, log.len()), &log);
    // An open transaction delays all later records of its partition until its end.
    producers[0].begin();
    producers[0].write_value(1, "open");
    plain.write_value(1, "behind it");
    plain.write_value(2, "elsewhere");
    assert_eq!(live.next().data, "elsewhere");
    assert_eq!(live.next_within(Duration::from_secs(1)), None);
    producers[0].commit();
    given = gather(&mut live, 2);
    assert_eq!(given, ["open", "behind it"]);
    producers[1].begin();
    producers[1].write_value(1, "aborts");
    plain.write_value(1, "behind that");
    assert_eq!(live.next_within(QUIET), None);
    producers[1].abort();
    assert_eq!(live.next().data, "behind that");
}

#[test]
fn throttled_commands_are_not_sent_again() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let id = unique("throttled");
    let flag = format!("--kafka-client-id={id}");
    let mut world = World::start_with(&ground, &[&flag]);
    for _ in 0..rounds() {
        world.event("quota of 1 kB/s for 6 s", |_| {
            admin.produce_quota(&id, Some(1000.0));
            std::thread::sleep(Duration::from_secs(6));
            admin.produce_quota(&id, None);
        });
    }
    world.finish("quota throttling");
}

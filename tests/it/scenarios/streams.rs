//! Streams: the events that subscribers receive. A reader that resumes by id at any instance misses
//! no event and gets none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::events::{Event, Events};
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat::{self, Produce};

/// Long enough for an unexpected event to have arrived.
const QUIET: Duration = Duration::from_millis(300);

pub fn a_live_stream_begins_now(ground: &Ground) {
    let app = App::new(ground);
    app.produce(&app.events).keyed([("a", "before")]);
    let gateway = app.gateway(2);
    let mut stream = Events::open(gateway.address(), "/events/live");
    // The stream's position is sent before the first event, so that a reader that is cut now loses
    // nothing.
    let place = stream.wait_for_id();
    assert_eq!(stream.positions(), 1, "also for readers that need an event");
    assert!(stream.retry().is_some_and(|millis| millis > 0));
    app.produce(&app.events).keyed([("a", "one"), ("b", "two")]);
    let mut got: Vec<_> = (0..2).map(|_| stream.next()).collect();
    assert!(got.iter().all(|event| event.name == "message"));
    assert_ne!(got[0].id, got[1].id);
    got.sort_by(|a, b| a.data.cmp(&b.data));
    assert_eq!([&got[0].data, &got[1].data], ["one", "two"]);
    assert_eq!(stream.next_within(QUIET), None);
    let again = Events::resume(gateway.address(), "/events/live", &place);
    assert_eq!(data(again, 2), set(["one", "two"]));
    // Browsers can't set the header on a first connection, so the query parameter is equivalent.
    for name in [
        "lastEventId",
        "last_event_id",
        "lastEventID",
        "Last-Event-ID",
    ] {
        let target = format!("/events/live?{name}={place}");
        let again = Events::open(gateway.address(), &target);
        assert_eq!(data(again, 2), set(["one", "two"]), "{name}");
    }
}

pub fn an_earliest_stream_begins_with_the_log(ground: &Ground) {
    const RECORDS: usize = 1000;
    let app = App::new(ground);
    let values: Vec<String> = (0..RECORDS).map(|n| format!("event {n}")).collect();
    app.produce(&app.events)
        .values(values.iter().map(String::as_str));
    let gateway = app.gateway(2);
    app.produce(&app.events).keyed([("late", "live")]);
    let mut stream = Events::open(gateway.address(), "/events/all");
    let mut got = BTreeSet::new();
    while got.len() <= RECORDS {
        let event = stream.next();
        assert!(got.insert(event.data.clone()), "twice: {event:?}");
    }
    let wanted: BTreeSet<String> = values.into_iter().chain(["live".into()]).collect();
    assert_eq!(got, wanted);
    assert_eq!(stream.next_within(QUIET), None);
}

pub fn a_snapshot_is_the_newest_of_each_key(ground: &Ground) {
    let app = App::new(ground);
    app.produce(&app.items)
        .keyed([("a", "1"), ("b", "1"), ("gone", "1"), ("a", "2")]);
    app.produce(&app.items).keyed([("gone", "")]);
    let gateway = app.gateway(4);
    let mut stream = Events::open(gateway.address(), "/items-now");
    let state = read_snapshot_until(&mut stream, |state| state.len() == 2);
    assert_eq!(state, map([("1", 1), ("2", 1)]));
    assert_eq!(stream.positions(), 1, "it ends with its position");
    app.produce(&app.items).keyed([("c", "3"), ("b", "")]);
    let (first, second) = (stream.next(), stream.next());
    let both: BTreeSet<_> = [first, second]
        .into_iter()
        .map(|it| (it.name, it.data))
        .collect();
    let message = ("message".to_owned(), "3".to_owned());
    let delete = ("delete".to_owned(), r#"{"key":"b"}"#.to_owned());
    assert_eq!(both, BTreeSet::from([message, delete]));
    let mut one = Events::open(gateway.address(), "/items-now/a");
    assert_eq!(one.next().data, "2");
    app.produce(&app.items).keyed([("c", "4"), ("a", "5")]);
    assert_eq!(one.next().data, "5");
}

pub fn a_filter_lets_one_key_through(ground: &Ground) {
    let app = App::new(ground);
    let records = (0..200).map(|n| (format!("k{}", n % 20), format!("old {n}")));
    let records: Vec<_> = records.collect();
    app.produce(&app.events)
        .keyed(records.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let gateway = app.gateway_with(2, "[streams]\nheartbeat = \"200ms\"\n");
    let mut stream = Events::open(gateway.address(), "/events/of/k7");
    let old: Vec<_> = (0..10).map(|_| stream.next().data).collect();
    let wanted: Vec<_> = (7..200).step_by(20).map(|n| format!("old {n}")).collect();
    assert_eq!(old, wanted, "in the order of the log");
    app.produce(&app.events)
        .keyed([("k8", "not for it"), ("k7", "new"), ("K7", "nor this")]);
    assert_eq!(stream.next().data, "new");
    assert_eq!(stream.next_within(QUIET), None);
    // The position of a quiet stream advances with the topic, so its reader resumes from now.
    let quiet = stream.last_event_id().to_owned();
    app.produce(&app.events)
        .keyed([("k8", "x"), ("k9", "y"), ("k10", "z")]);
    let until = Instant::now() + PATIENCE;
    while stream.last_event_id() == quiet {
        assert_eq!(stream.next_within(QUIET), None, "nothing is for it");
        assert!(Instant::now() < until, "heartbeats carry ids");
    }
}

pub fn records_of_every_codec(ground: &Ground) {
    const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
    let app = App::new(ground);
    let gateway = app.gateway(2);
    let mut live = Events::open(gateway.address(), "/events/live");
    live.wait_for_id();
    let mut wanted = BTreeSet::new();
    for codec in CODECS {
        // Long and similar values, so that producers compress them.
        let values: Vec<_> = (0..50)
            .map(|n| format!("{codec} {n} {}", "la".repeat(200)))
            .collect();
        app.produce(&app.events)
            .codec(codec)
            .values(values.iter().map(String::as_str));
        let keyed = [(codec, codec)];
        app.produce(&app.items).codec(codec).keyed(keyed);
        wanted.extend(values);
    }
    assert_eq!(data(live, wanted.len()), wanted);
    let history = Events::open(gateway.address(), "/events/all");
    assert_eq!(data(history, wanted.len()), wanted);
    for codec in CODECS {
        let target = format!("/items/{codec}");
        gateway.wait_until(&Request::get(&target), |it| it.text() == codec);
    }
}

pub fn records_without_key_or_value(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(2);
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    app.produce(&app.events).values(["no key"]);
    assert_eq!(stream.next().data, "no key");
    app.produce(&app.events).keyed([("a \"b\"", "")]);
    let event = stream.next();
    assert_eq!(
        (event.name.as_str(), event.data.as_str()),
        ("delete", r#"{"key":"a \"b\""}"#)
    );
    app.produce(&app.events)
        .header("nothing", None)
        .header("x", Some("y"))
        .values(["headers"]);
    assert_eq!(stream.next().data, "headers");
    app.produce(&app.events).bytes(b"\xff\xfe\x00");
    let event = stream.next();
    assert_eq!(
        (event.name.as_str(), event.data.as_str()),
        ("base64", "//4A")
    );
    // A record with a null key in a compacted topic has no effect. (Kafka rejects such records, and
    // the development broker does too, so this is not tested.)
}

pub fn every_line_end_of_a_value_is_a_line(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(1);
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    let cases: [(&[u8], &str); 6] = [
        (b"a\nb", "a\nb"),
        (b"a\rb", "a\nb"),
        (b"a\r\nb", "a\nb"),
        (b"\r\r\n\n", "\n\n\n"),
        (
            b"id: forged\n\nevent: gap\ndata: x",
            "id: forged\n\nevent: gap\ndata: x",
        ),
        (b" led by a space", " led by a space"),
    ];
    for (value, wanted) in cases {
        app.produce(&app.events).partition(0).bytes(value);
        let event = stream.next();
        assert_eq!(
            (event.name.as_str(), event.data.as_str()),
            ("message", wanted)
        );
        assert!(!event.id.contains("forged"));
    }
}

pub fn an_unreadable_id_is_told_and_starts_over(ground: &Ground) {
    let app = App::new(ground);
    app.produce(&app.events).keyed([("a", "one")]);
    let gateway = app.gateway(2);
    for id in ["nonsense", "AAAA.", &"A".repeat(4000), "%2e"] {
        let mut stream = Events::resume(gateway.address(), "/events/all", id);
        let gap = stream.next();
        assert_eq!(
            (gap.name.as_str(), gap.data.as_str()),
            ("gap", r#"{"reason":"unreadable"}"#)
        );
        assert_eq!(stream.next().data, "one");
    }
    // A well-formed id of another log is not valid here.
    let other = App::new(ground);
    other.produce(&other.events).keyed([("a", "other")]);
    let elsewhere = other.gateway(1);
    let foreign = Events::open(elsewhere.address(), "/events/all").next().id;
    let mut stream = Events::resume(gateway.address(), "/events/all", &foreign);
    let gap = stream.next();
    assert_eq!(
        (gap.name.as_str(), gap.data.as_str()),
        ("gap", r#"{"reason":"recreated"}"#)
    );
    assert_eq!(stream.next().data, "one");
}

pub fn what_can_not_be_decoded_is_a_gap(ground: &Ground) {
    let app = App::new(ground);
    let settings = "--kafka-batch-bytes-max=1MiB";
    let gateway = Gateway::launch_with(&app.config(2, ""), &[settings]);
    gateway.wait_serving();
    let mut live = Events::open(gateway.address(), "/events/live");
    let start = live.wait_for_id();
    let to = || app.produce(&app.events).partition(1);
    to().values(["before"]);
    // A batch of a few KiB in the log that exceeds this gateway's limit when unpacked.
    to().codec("gzip")
        .option("message.max.bytes=8000000")
        .bytes(&vec![b'x'; 4 << 20]);
    to().values(["after"]);
    let check = |stream: &mut Events| {
        assert_eq!(stream.next().data, "before");
        let gap = stream.next();
        assert_eq!(gap.name, "gap");
        let told: serde_json::Value = serde_json::from_str(&gap.data).expect("JSON");
        let wanted =
            serde_json::json!({"partition": 1, "from": 1, "to": 2, "reason": "undecodable"});
        assert_eq!(told, wanted);
        assert_eq!(stream.next().data, "after");
        gap.id
    };
    let id = check(&mut live);
    assert!(gateway.metric("sluicegate_kafka_undecodable_total", &app.events) >= 1.0);
    // A reader of the same records from the log receives the same gap, and a reader that has
    // received it does not receive it again.
    let peer = Gateway::launch_with(&app.config(1, ""), &[settings]);
    peer.wait_serving();
    check(&mut Events::open(peer.address(), "/events/all"));
    let mut resumed = Events::resume(peer.address(), "/events/all", &id);
    assert_eq!(resumed.next().data, "after");
    // A client that resumes by an id receives it too: from the log at the other instance, where the
    // window begins later, or from memory at this gateway. Also with a filter that matches nothing
    // else.
    for gateway in [&peer, &gateway] {
        check(&mut Events::resume(
            gateway.address(),
            "/events/live",
            &start,
        ));
        let mut filtered = Events::resume(gateway.address(), "/events/of/none", &start);
        assert_eq!(filtered.next().name, "gap");
    }
    assert_eq!(gateway.get("/items/none").status, 404, "it serves on");
}

pub fn a_stream_goes_on_at_another_peer(ground: &Ground) {
    let app = App::new(ground);
    let writing = write_all_the_while(&app, 60);
    let peers = [app.gateway(1), app.gateway(2), app.gateway(4)];
    let mut reader = Reader::default();
    let mut stream = Events::open(peers[0].address(), "/events/all");
    for round in 0..30 {
        // Some disconnect during a burst, some before their first event, some after the last one.
        for _ in 0..(round * 7) % 40 {
            match stream.next_within(QUIET) {
                Some(event) => reader.on(&event),
                None => break,
            }
        }
        let id = stream.last_event_id().to_owned();
        let peer = &peers[round % peers.len()];
        stream = if id.is_empty() {
            Events::open(peer.address(), "/events/all")
        } else {
            Events::resume(peer.address(), "/events/all", &id)
        };
    }
    let written = writing.join().expect("kcat writes");
    while reader.seen.len() < written {
        reader.on(&stream.next());
    }
    assert_eq!(stream.next_within(QUIET), None, "nothing is left");
    reader.check(&app);
}

pub fn a_stream_survives_kill_9(ground: &Ground) {
    let app = App::new(ground);
    let mut first = app.gateway(2);
    let mut stream = Events::open(first.address(), "/events/live");
    stream.wait_for_id();
    let writing = write_all_the_while(&app, 40);
    let mut reader = Reader::default();
    while reader.seen.len() < 50 {
        reader.on(&stream.next());
    }
    first.kill_9();
    while let Some(event) = stream.next_within(PATIENCE) {
        reader.on(&event); // What was on its way.
    }
    assert!(stream.ended(), "the kernel closes what a dead process held");
    assert!(!stream.ended_whole(), "a reader can tell it from an end");
    let second = app.gateway(4);
    let id = stream.last_event_id().to_owned();
    let mut stream = Events::resume(second.address(), "/events/live", &id);
    let written = writing.join().expect("kcat writes");
    while reader.seen.len() < written {
        reader.on(&stream.next());
    }
    assert_eq!(stream.next_within(QUIET), None, "nothing is left");
    reader.check(&app);
}

pub fn a_snapshot_goes_on_at_another_peer(ground: &Ground) {
    let app = App::new(ground);
    let old: Vec<_> = (0..300)
        .map(|n| (format!("k{n}"), format!("k{n}=0")))
        .collect();
    app.produce(&app.items)
        .keyed(old.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let peers = [app.gateway(2), app.gateway(4)];
    let mut held: BTreeMap<String, String> = BTreeMap::new();
    let apply = |held: &mut BTreeMap<String, String>, event: Event| match event.name.as_str() {
        "message" => {
            let (key, _) = event.data.split_once('=').expect("key=value");
            held.insert(key.to_owned(), event.data.clone());
        }
        "delete" => {
            let told: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            held.remove(told["key"].as_str().expect("a key"));
        }
        other => panic!("no {other} is due: {event:?}"),
    };
    let mut stream = Events::open(peers[0].address(), "/items-now");
    for round in 1..8 {
        for _ in 0..(round * 37) % 200 {
            match stream.next_within(QUIET) {
                Some(event) => apply(&mut held, event),
                None => break,
            }
        }
        let id = stream.last_event_id().to_owned();
        drop(stream);
        // While the reader is disconnected, keys change and keys are deleted.
        let news: Vec<_> = (0..40)
            .map(|n| (format!("k{}", (n * 7 + round) % 300), n % 4 == 0))
            .map(|(key, gone)| {
                if gone {
                    (key, String::new())
                } else {
                    (key.clone(), format!("{key}={round}"))
                }
            })
            .collect();
        app.produce(&app.items)
            .keyed(news.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let peer = &peers[round % 2];
        stream = if id.is_empty() {
            Events::open(peer.address(), "/items-now")
        } else {
            Events::resume(peer.address(), "/items-now", &id)
        };
    }
    let mut truth = BTreeMap::new();
    for record in kcat::read(app.bootstrap(), &app.items) {
        let key = record.key.expect("all have keys");
        match record.value {
            Some(value) => truth.insert(key, value),
            None => truth.remove(&key),
        };
    }
    // Then the stream is quiet, and deletes of keys that the reader never had have changed nothing.
    let until = Instant::now() + PATIENCE;
    loop {
        match stream.next_within(QUIET) {
            Some(event) => apply(&mut held, event),
            None if held == truth => break,
            None => assert!(
                Instant::now() < until,
                "it holds {held:?}, and not {truth:?}"
            ),
        }
    }
}

pub fn one_fetch_however_many_clients(ground: &Ground) {
    const CLIENTS: usize = 40;
    const RECORDS: usize = 300;
    let app = App::new(ground);
    let gateway = app.gateway(4);
    let streams = (0..CLIENTS).map(|_| {
        let mut stream = Events::open(gateway.address(), "/events/live");
        stream.wait_for_id();
        stream
    });
    let streams: Vec<_> = streams.collect();
    let fetched = || gateway.metric("sluicegate_kafka_fetched_records_total", &app.events);
    assert_eq!(fetched(), 0.0);
    let values: Vec<_> = (0..RECORDS).map(|n| n.to_string()).collect();
    app.produce(&app.events)
        .values(values.iter().map(String::as_str));
    let wanted: BTreeSet<_> = values.into_iter().collect();
    for stream in streams {
        assert_eq!(data(stream, RECORDS), wanted);
    }
    assert_eq!(
        fetched(),
        RECORDS as f64,
        "each record once, not once a client or shard"
    );
    let sent = gateway.metric("sluicegate_stream_events_total", &app.events);
    assert_eq!(sent, (CLIENTS * RECORDS) as f64);
}

/// The events that a reader has received, over all its connections.
#[derive(Debug, Default)]
struct Reader {
    seen: BTreeSet<String>,
    ids: BTreeSet<String>,
    last_of_key: BTreeMap<String, u64>,
}

impl Reader {
    fn on(&mut self, event: &Event) {
        assert_eq!(event.name, "message", "{event:?}");
        assert!(self.seen.insert(event.data.clone()), "twice: {event:?}");
        assert!(
            self.ids.insert(event.id.clone()),
            "an id that stood before: {event:?}"
        );
        let (key, n) = event.data.split_once(' ').expect("key and number");
        let n = n.parse().expect("a number");
        let last = self.last_of_key.insert(key.to_owned(), n);
        assert!(
            last.is_none_or(|last| last < n),
            "out of order: {last:?}, {event:?}"
        );
    }

    /// Compares the events with the log, as another client reads it.
    fn check(&self, app: &App) {
        let truth = kcat::read(app.bootstrap(), &app.events);
        let truth: BTreeSet<_> = truth
            .into_iter()
            .filter_map(|record| record.value)
            .collect();
        assert_eq!(self.seen, truth);
    }
}

/// Writes until there are `batches` batches. Returns the number of records.
fn write_all_the_while(app: &App, batches: usize) -> JoinHandle<usize> {
    let (bootstrap, topic) = (app.bootstrap().to_owned(), app.events.clone());
    std::thread::spawn(move || {
        let mut written = 0;
        for batch in 0..batches {
            let records: Vec<_> = (0..1 + batch % 9)
                .map(|n| (format!("k{}", (batch + n) % 12), written + n))
                .map(|(key, n)| (key.clone(), format!("{key} {n}")))
                .collect();
            written += records.len();
            let codec = ["none", "lz4", "zstd"][batch % 3];
            let records = records.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            Produce::to(&bootstrap, &topic).codec(codec).keyed(records);
        }
        written
    })
}

/// The data of the next `count` events, none of them twice.
fn data(mut stream: Events, count: usize) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..count {
        let event = stream.next();
        assert!(all.insert(event.data.clone()), "twice: {event:?}");
    }
    assert_eq!(
        stream.next_within(Duration::from_millis(20)),
        None,
        "and no more"
    );
    all
}

/// Reads a snapshot until it has the wanted values. Deletes of keys that a reader never had are
/// ignored: a snapshot may have them.
fn read_snapshot_until(
    stream: &mut Events,
    enough: impl Fn(&BTreeMap<String, usize>) -> bool,
) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    while let Some(event) = stream.next_within(if enough(&all) { QUIET } else { PATIENCE }) {
        match event.name.as_str() {
            "message" => *all.entry(event.data).or_default() += 1,
            "delete" => assert_eq!(event.data, r#"{"key":"gone"}"#),
            _ => panic!("no {event:?} is due"),
        }
    }
    all
}

fn set<const N: usize>(all: [&str; N]) -> BTreeSet<String> {
    all.into_iter().map(str::to_owned).collect()
}

fn map<const N: usize>(all: [(&str, usize); N]) -> BTreeMap<String, usize> {
    all.into_iter()
        .map(|(key, n)| (key.to_owned(), n))
        .collect()
}

//! Records of every kind on three nodes (R4): large ones, null or repeated headers, timestamps set
//! by the log, codecs. Some are scenarios of `scenarios/`, with three replicas.

use super::{admin, cluster, ground};
use crate::app::App;
use crate::client::Request;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::kcat::Record;
use crate::rdk::{Consumer, Headers, Producer, ToWrite};
use crate::scenarios::{commands, queries, streams};
use crate::service::Reply;

const MIB: usize = 1 << 20;

#[test]
fn every_codec_header_and_value_with_three_replicas() {
    let ground = ground(&cluster());
    streams::records_of_every_codec(&ground);
    streams::records_without_key_or_value(&ground);
    streams::what_can_not_be_decoded_is_a_gap(&ground);
    streams::every_line_end_of_a_value_is_a_line(&ground);
    queries::a_write_becomes_visible(&ground);
    commands::commands_of_many_clients_each_get_their_own_reply(&ground);
}

#[test]
fn records_of_one_mebibyte_pass_and_larger_ones_are_refused() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let app = App::new(&ground);
    for topic in [&app.commands, &app.items, &app.events] {
        admin.set_configs(topic, &[("max.message.bytes", "1200000")]);
    }
    let _service = app.service(|command| {
        let size = command.value.as_ref().map_or(0, String::len);
        Some(Reply::new(200, &size.to_string()))
    });
    let flags = [
        "--kafka-produce-bytes-max=4MiB",
        "--http-body-bytes-max=2MiB",
    ];
    let gateway = Gateway::launch_with(&app.config(2, ""), &flags);
    gateway.wait_serving();
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    let value: String = (0..MIB)
        .map(|n| char::from(b'a' + (n % 23) as u8))
        .collect();
    let to = |topic: &str| app.produce(topic).option("message.max.bytes=1300000");
    to(&app.events).partition(1).values([value.as_str()]);
    let event = stream.next();
    assert!(event.data == value, "{} bytes came", event.data.len());
    to(&app.items).keyed([("large", value.as_str())]);
    let answer = gateway.wait_until(&Request::get("/items/large"), |it| it.status == 200);
    assert!(answer.text() == value, "{} bytes came", answer.body.len());

    let put = |key: &str, size: usize| {
        let body = format!("\"{}\"", "y".repeat(size - 2));
        gateway.ask(&Request::new("PUT", &format!("/items/{key}")).json(&body))
    };
    let answer = put("fits", MIB);
    assert_eq!((answer.status, answer.text()), (200, "1048576"));
    // Larger than the topic accepts but not than the gateway accepts, and larger than the gateway
    // accepts.
    for size in [1_250_000, 2 * MIB + 1] {
        let answer = put("too-large", size);
        assert_eq!(answer.status, 413, "{size}: {answer:?}");
    }
    // A record that is too large does not affect others in the same request.
    std::thread::scope(|scope| {
        for n in 0..12 {
            scope.spawn(move || {
                let (size, wanted) = if n % 3 == 0 {
                    (1_250_000, 413)
                } else {
                    (1000, 200)
                };
                assert_eq!(put(&format!("many-{n}"), size).status, wanted);
            });
        }
    });
    let in_log = app.commands_in_log();
    let large = |record: &&Record| record.value.as_ref().is_some_and(|it| it.len() > MIB);
    assert_eq!(in_log.iter().filter(large).count(), 0);
    assert_eq!(in_log.len(), 1 + 8, "each that was answered, once");
}

#[test]
fn null_and_repeated_headers_pass_and_break_nothing() {
    let ground = ground(&cluster());
    let app = App::new(&ground);
    let gateway = app.gateway(2);
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    let mut events = Producer::start(app.bootstrap(), &app.events, &[]);
    let strange: [Headers<'_>; 4] = [
        &[("a", None), ("a", None)],
        &[
            ("a", Some(b"1")),
            ("b", Some(b"")),
            ("a", Some(b"\xff\x00")),
        ],
        &[("", Some(b"no name")), ("", None)],
        &[("etag", Some(b"first")), ("etag", Some(b"second"))],
    ];
    for (n, headers) in strange.into_iter().enumerate() {
        let value = format!("event {n}");
        let tag = events.write(&ToWrite {
            value: Some(value.as_bytes()),
            headers,
            ..ToWrite::default()
        });
        events.wait(tag).expect("it is written");
        let event = stream.next();
        assert_eq!((event.name.as_str(), event.data), ("message", value));
        if n == 3 {
            assert!(
                event.id.ends_with(".second"),
                "the last counts: {}",
                event.id
            );
        }
    }
    // A service that replies with such headers.
    let commands = Consumer::start(app.bootstrap(), &app.commands, &[]);
    let mut replies = Producer::start(app.bootstrap(), &app.replies, &[]);
    let mut client = gateway.connect();
    client.send(&Request::post("/items/i/orders", "{}").bytes());
    let (_, command) = commands
        .next_within(crate::client::PATIENCE)
        .expect("a command");
    let correlation = command.header("correlation-id").expect("it has one");
    // Two ids that differ are ambiguous: this reply answers nobody.
    replies.write(&ToWrite {
        value: Some(b"ambiguous"),
        headers: &[
            ("correlation-id", Some(b"another's")),
            ("correlation-id", Some(correlation.as_bytes())),
            (":status", Some(b"200")),
        ],
        ..ToWrite::default()
    });
    replies.write(&ToWrite {
        value: Some(b"done"),
        headers: &[
            ("correlation-id", Some(correlation.as_bytes())),
            ("correlation-id", Some(correlation.as_bytes())),
            (":status", Some(b"500")),
            (":status", Some(b"201")),
            ("x-null", None),
            ("x-many", Some(b"1")),
            ("x-many", Some(b"2")),
            ("content-type", Some(b"text/css")),
            ("content-type", Some(b"text/plain")),
        ],
        ..ToWrite::default()
    });
    let answer = client.response(false);
    assert_eq!((answer.status, answer.text()), (201, "done"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("x-null"), None);
    let many: Vec<_> = answer
        .headers
        .iter()
        .filter(|it| it.0 == "x-many")
        .collect();
    assert_eq!(many.len(), 2, "{many:?}");
}

/// The log replaces the producers' timestamps (LogAppendTime): retries still find replies, and ids
/// of compacted topics keep their age.
#[test]
fn times_that_the_log_sets() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let app = App::new(&ground);
    for topic in [&app.commands, &app.replies, &app.items, &app.events] {
        admin.set_configs(topic, &[("message.timestamp.type", "LogAppendTime")]);
    }
    let service = app.service(|_| Some(Reply::new(201, "once")));
    let first = app.gateway(1);
    let order = Request::post("/items/i/orders", "{}").header("idempotency-key", "\"k\"");
    assert_eq!(first.ask(&order).status, 201);
    let mut snapshot = Events::open(first.address(), "/items-now");
    let mut live = Events::open(first.address(), "/events/live");
    live.wait_for_id();
    app.produce(&app.items).keyed([("a", "1"), ("b", "2")]);
    app.produce(&app.events)
        .codec("lz4")
        .keyed([("a", "event")]);
    assert_eq!(live.next().data, "event");
    let both = [snapshot.next().data, snapshot.next().data];
    assert!(both.contains(&"1".to_owned()) && both.contains(&"2".to_owned()));
    // A later subscriber reads the same from the log.
    let peer = app.gateway(2);
    let again = peer.ask(&order);
    assert_eq!((again.status, again.text()), (201, "once"));
    assert_eq!(service.seen().len(), 1, "the reply was found");
    let id = snapshot.wait_for_id();
    app.produce(&app.items).keyed([("a", "3"), ("b", "")]);
    let mut resumed = Events::resume(peer.address(), "/items-now", &id);
    let mut told = [resumed.next(), resumed.next()].map(|it| (it.name, it.data));
    told.sort();
    let delete = ("delete".to_owned(), r#"{"key":"b"}"#.to_owned());
    assert_eq!(told, [delete, ("message".to_owned(), "3".to_owned())]);
}

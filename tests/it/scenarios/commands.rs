//! Commands: a request becomes a record, the correlated reply becomes the response, and a retry
//! gets the stored reply.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::app::App;
use crate::client::{Connection, Request};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat;
use crate::service::{Reply, reply_to};

fn order(id: &str, body: &str, key: &str) -> Request {
    Request::post(&format!("/items/{id}/orders"), body).header("idempotency-key", key)
}

pub fn a_reply_becomes_the_response(ground: &Ground) {
    let app = App::new(ground);
    let service = app.service(|_| {
        let reply = Reply::new(201, r#"{"order":7}"#);
        let reply = reply.header("content-type", "application/vnd.shop+json");
        let reply = reply.header("location", "/orders/7").header("etag", "v7");
        // A service must not set any of these headers.
        let reply = reply
            .header("connection", "close")
            .header("content-length", "3");
        Some(
            reply
                .header("x-shelf", "B")
                .header("transfer-encoding", "chunked"),
        )
    });
    let gateway = app.gateway(2);
    let body = r#"{"count":2,"note":"\u00e4 "}"#;
    let answer = gateway.ask(
        &order("i1", body, "\"k1\"")
            .header("if-match", "\"v6\"")
            .header("authorization", "Bearer secret")
            .header("cookie", "session=secret"),
    );
    assert_eq!((answer.status, answer.text()), (201, r#"{"order":7}"#));
    assert_eq!(answer.header("location"), Some("/orders/7"));
    assert_eq!(answer.header("x-shelf"), Some("B"));
    assert_eq!(
        answer.header("content-type"),
        Some("application/vnd.shop+json")
    );
    assert_eq!(answer.header("etag"), Some("\"v7\""));
    assert_eq!(answer.header("connection"), None);
    assert_eq!(answer.header("idempotent-replayed"), None);

    let records = app.commands_in_log();
    let [record] = &records[..] else {
        panic!("one command: {records:?}")
    };
    assert_eq!(record.key.as_deref(), Some("i1"));
    assert_eq!(record.value.as_deref(), Some(body));
    let header = |name| {
        record
            .header(name)
            .unwrap_or_else(|| panic!("{name}: {record:?}"))
    };
    assert_eq!(header(":method"), "POST");
    assert_eq!(header(":path"), "/items/i1/orders");
    assert_eq!(header("operation"), "order");
    assert_eq!(header("if-match"), "v6");
    assert_eq!(header("idempotency-key"), "k1");
    assert_eq!(header("reply-to"), app.replies);
    assert_eq!(header("content-type"), "application/json");
    assert!(
        header("correlation-id").len() >= 40,
        "K and F: {}",
        header("correlation-id")
    );
    let text = format!("{record:?}");
    assert!(!text.contains("secret"), "credentials stay here: {text}");
    assert_eq!(service.seen().len(), 1);
}

pub fn every_method_reaches_the_service(ground: &Ground) {
    let app = App::new(ground);
    let _service = app.service(|command| {
        let operation = command.header("operation").unwrap_or_default().to_owned();
        let body = command.value.clone().unwrap_or_else(|| "null".into());
        Some(match operation.as_str() {
            "put" => Reply::new(204, ""),
            "patch" => Reply::new(409, r#"{"title":"Sold out"}"#)
                .header("content-type", "application/problem+json"),
            other => Reply::new(200, &format!("{other} {body}")),
        })
    });
    let gateway = app.gateway(1);
    // Use one connection for all of them.
    let mut connection = gateway.connect();
    let answer = connection.ask(&Request::new("PUT", "/items/a%20b").json("{}"));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("content-length"), None);
    let answer = connection.ask(&Request::new("PATCH", "/items/p?why=x%26y").json("[1]"));
    assert_eq!(
        (answer.status, answer.text()),
        (409, r#"{"title":"Sold out"}"#)
    );
    let answer = connection.ask(&Request::new("DELETE", "/items/d"));
    assert_eq!(
        (answer.status, answer.text().split(' ').next()),
        (200, Some("delete"))
    );
    let answer = connection.ask(&Request::post("/items/o/orders", "{\"n\":1}"));
    assert_eq!((answer.status, answer.text()), (200, "order {\"n\":1}"));

    let mut records = app.commands_in_log();
    records.sort_by_key(|record| record.header("operation").map(str::to_owned));
    let shown: Vec<_> = records
        .iter()
        .map(|r| (r.header(":method"), r.key.as_deref(), r.header(":path")))
        .collect();
    assert_eq!(
        shown,
        [
            (Some("DELETE"), Some("d"), Some("/items/d")),
            (Some("POST"), Some("o"), Some("/items/o/orders")),
            (Some("PATCH"), Some("p"), Some("/items/p?why=x%26y")),
            (Some("PUT"), Some("a b"), Some("/items/a%20b")),
        ]
    );
}

pub fn a_retry_at_a_peer_started_later_gets_the_same_reply(ground: &Ground) {
    let app = App::new(ground);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let service = app.service(move |_| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        Some(Reply::new(201, &format!("effect {n}")).header("x-effect", &n.to_string()))
    });
    let mut first = app.gateway(1);
    let request = order("i", "{}", "\"retry-me\"");
    let original = first.ask(&request);
    assert_eq!((original.status, original.text()), (201, "effect 0"));
    // The same process knows the reply. So does a process that never saw the request, after the
    // first process has died.
    let again = first.ask(&request);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    first.kill_9();
    for shards in [2, 4] {
        let later = app.gateway(shards);
        let replayed = later.ask(&request);
        assert_eq!(
            (replayed.status, replayed.text()),
            (201, "effect 0"),
            "{shards} shards"
        );
        assert_eq!(replayed.header("x-effect"), Some("0"));
        assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
        // A key without quotes is the same key.
        let bare = later.ask(&order("i", "{}", "retry-me"));
        assert_eq!(bare.text(), "effect 0");
    }
    assert_eq!(service.seen().len(), 1, "one effect");
    assert_eq!(app.commands_in_log().len(), 1, "one record");
}

pub fn equal_requests_at_once_are_one_command(ground: &Ground) {
    const CLIENTS: usize = 10;
    let app = App::new(ground);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "once"))
    });
    let gateway = app.gateway(4);
    let address = gateway.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            std::thread::spawn(move || {
                Connection::open(address).ask(&order("i", "{\"n\":1}", "\"together\""))
            })
        })
        .collect();
    // All of them have arrived before the service answers any.
    gateway.wait_admin("/status", |_| {
        gateway.status_sum("connections") >= CLIENTS as u64
            && gateway.status_sum("commands_open") == 1
    });
    std::thread::sleep(Duration::from_millis(200));
    release.send(()).expect("the service waits for it");
    for client in clients {
        let answer = client.join().expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "once"));
    }
    assert_eq!(app.commands_in_log().len(), 1, "one record");
}

pub fn another_request_under_the_same_key_is_refused(ground: &Ground) {
    let app = App::new(ground);
    let service = app.service(|_| Some(Reply::new(200, "done")));
    let gateway = app.gateway(2);
    assert_eq!(gateway.ask(&order("i", "{\"n\":1}", "\"k\"")).status, 200);
    let others = [
        order("i", "{\"n\":2}", "\"k\""),
        order("j", "{\"n\":1}", "\"k\""),
        order("i", "{\"n\":1}", "\"k\"").header("if-match", "\"v1\""),
    ];
    for other in &others {
        let refused = gateway.ask(other);
        assert_eq!(refused.status, 422, "{other:?}");
        assert_eq!(refused.problem(), "idempotency-key-reused");
        assert!(
            !refused.text().contains("done"),
            "it does not show the first one's answer"
        );
    }
    // Keys of another route are different commands.
    let elsewhere = Request::post("/careful/i", "{}").header("idempotency-key", "\"k\"");
    assert_eq!(gateway.ask(&elsewhere).status, 200);
    assert_eq!(service.seen().len(), 2);
}

pub fn a_key_is_required_where_the_route_says_so(ground: &Ground) {
    let app = App::new(ground);
    let service = app.service(|_| Some(Reply::new(200, "done")));
    let gateway = app.gateway(1);
    let without = gateway.ask(&Request::post("/careful/i", "{}"));
    assert_eq!(
        (without.status, without.problem().as_str()),
        (400, "idempotency-key-required")
    );
    for bad in ["", "\"\"", "\"a", &"x".repeat(300)] {
        let request = Request::post("/careful/i", "{}").header("idempotency-key", bad);
        let refused = gateway.ask(&request);
        assert_eq!(refused.status, 400, "{bad:?}");
        refused.problem();
    }
    let with = Request::post("/careful/i", "{}").header("idempotency-key", "k");
    assert_eq!(gateway.ask(&with).status, 200);
    assert_eq!(service.seen().len(), 1);
}

pub fn a_silent_service_is_an_unknown_outcome_and_the_retry_learns_it(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(2);
    let request = Request::post("/hasty/i", "{}").header("idempotency-key", "\"slow\"");
    let unknown = gateway.ask(&request);
    assert_eq!(
        (unknown.status, unknown.problem().as_str()),
        (504, "outcome-unknown")
    );
    // A retry joins the command in flight: there is no second record, and still no reply.
    assert_eq!(gateway.ask(&request).status, 504);
    let records = kcat::read_until(app.bootstrap(), &app.commands, 1);
    let [command] = &records[..] else {
        panic!("one command: {records:?}")
    };
    reply_to(
        app.bootstrap(),
        &app.replies,
        command,
        Reply::new(201, "late"),
    );
    let learned = gateway.wait_until(&request, |it| it.status == 201);
    assert_eq!(learned.text(), "late");
    assert_eq!(app.commands_in_log().len(), 1, "one record");
    // So does another instance that never saw the command.
    let peer = app.gateway(1);
    let replayed = peer.ask(&request);
    assert_eq!((replayed.status, replayed.text()), (201, "late"));
    assert_eq!(app.commands_in_log().len(), 1, "one record");
}

pub fn a_service_that_applied_nothing_lets_the_key_be_tried_again(ground: &Ground) {
    let app = App::new(ground);
    let mut first = true;
    let service = app.service(move |_| {
        Some(if std::mem::take(&mut first) {
            Reply::new(503, "not now").header("retry", "true")
        } else {
            Reply::new(200, "now")
        })
    });
    let gateway = app.gateway(2);
    let request = order("i", "{}", "\"again\"");
    let refused = gateway.ask(&request);
    assert_eq!((refused.status, refused.text()), (503, "not now"));
    let done = gateway.ask(&request);
    assert_eq!((done.status, done.text()), (200, "now"));
    let replayed = gateway.ask(&request);
    assert_eq!((replayed.status, replayed.text()), (200, "now"));
    assert_eq!(service.seen().len(), 2);
}

pub fn a_reply_that_is_no_response_is_a_bad_gateway(ground: &Ground) {
    let app = App::new(ground);
    let bad = [Reply::new(99, "no status"), Reply::new(1000, "no status")];
    let replies = Arc::new(Mutex::new(bad.clone().into_iter()));
    let _service = app.service(move |_| replies.lock().expect("one user").next());
    let gateway = app.gateway(1);
    let mut connection = gateway.connect();
    for (n, what) in bad.iter().enumerate() {
        let answer = connection.ask(&order("i", "{}", &format!("\"bad-{n}\"")));
        assert_eq!(answer.status, 502, "{what:?}");
        assert_eq!(answer.problem(), "bad-reply");
    }
}

/// A service that sets one header wrongly does so in every reply. That header is omitted, the log
/// names it, and the rest of each reply reaches its client.
pub fn a_header_that_http_can_not_carry_is_left_out_of_the_reply(ground: &Ground) {
    let app = App::new(ground);
    let _service = app.service(|_| {
        let reply = Reply::new(201, "{}").header("x-split", "a\r\nset-cookie: b");
        let reply = reply.header("etag", "a b").header("x-fine", "1");
        Some(reply.header("idempotent-replayed", "true"))
    });
    let gateway = app.gateway(1);
    let answer = gateway.ask(&order("i", "{}", "\"k\""));
    assert_eq!((answer.status, answer.text()), (201, "{}"));
    assert_eq!(answer.header("x-fine"), Some("1"));
    for name in ["x-split", "set-cookie", "etag", "idempotent-replayed"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let metric = "sluicegate_reply_headers_left_out_total";
    assert_eq!(gateway.metric(metric, &app.replies), 2.0);
    gateway.wait_said_text("clients do not get header");
    let said = gateway.said();
    let line = said.lines().find(|it| it.contains("clients do not get"));
    let line = line.expect("it was said");
    assert!(
        line.contains("WARN") && line.contains(&app.replies),
        "{line}"
    );
}

/// A reply without a command would otherwise have no visible effect but a 504.
pub fn a_reply_that_answers_no_command_is_named_and_counted(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(2);
    let request = Request::post("/hasty/i", "{}").header("idempotency-key", "\"k\"");
    let unknown = gateway.ask(&request);
    assert_eq!(unknown.problem(), "outcome-unknown");
    let detail = unknown.json()["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains(&app.replies), "names the topic: {detail}");
    let waited = detail
        .split_once(" in ")
        .and_then(|(_, it)| it.split_once(" s:"));
    let waited: f64 = waited.expect("the time").0.parse().expect("a number");
    assert!(waited >= 0.3, "and the time waited: {detail}");
    assert!(detail.contains("same Idempotency-Key"), "{detail}");
    let ignored = |reason: &str| {
        let labels = format!("topic=\"{}\",reason=\"{reason}\"", app.replies);
        gateway.metric("sluicegate_replies_ignored_total", &labels)
    };
    let replies = app.produce(&app.replies).header("correlationId", Some("x"));
    replies.header("x-shelf", Some("B")).values(["misspelt"]);
    let replies = app.produce(&app.replies);
    replies
        .header("correlation-id", Some("42"))
        .values(["no id of ours"]);
    let id = format!("{0}.{0}", "A".repeat(22));
    let replies = app.produce(&app.replies);
    replies
        .header("correlation-id", Some(&id))
        .values(["another instance's"]);
    gateway.wait_admin("/metrics", |_| ignored("not_in_flight") == 1.0);
    assert_eq!(ignored("no_correlation_id"), 1.0);
    assert_eq!(ignored("malformed_correlation_id"), 1.0);
    let with = |values: &[Option<&str>]| {
        let mut replies = app.produce(&app.replies);
        for value in values {
            replies = replies.header("correlation-id", *value);
        }
        replies.values(["another"]);
    };
    with(&[None]);
    gateway.wait_admin("/metrics", |_| ignored("no_correlation_id") == 2.0);
    with(&[Some(&id), Some("42")]);
    gateway.wait_admin("/metrics", |_| ignored("ambiguous_correlation_id") == 1.0);
    with(&[Some(&id), Some(&id)]);
    gateway.wait_admin("/metrics", |_| ignored("repeated") == 1.0);
    assert_eq!(ignored("not_in_flight"), 1.0, "the first reply only");
    gateway.wait_said_text("there is no header `correlation-id`");
    let said = gateway.said();
    let lines: Vec<&str> = said
        .lines()
        .filter(|it| it.contains("answers no command"))
        .collect();
    let [line] = lines[..] else {
        panic!("one line a topic and minute: {lines:?}")
    };
    for part in [
        "WARN",
        &app.replies,
        "partition ",
        "offset 0",
        "correlationId, x-shelf",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// A reply that the gateway can't read counts as none. A large one that it can read is no problem.
pub fn a_reply_that_is_too_large_is_counted_and_its_client_gets_504(ground: &Ground) {
    let app = App::new(ground);
    let gateway = Gateway::launch_with(&app.config(1, ""), &["--kafka-batch-bytes-max=1MiB"]);
    gateway.wait_serving();
    let request = |key: &str| Request::post("/hasty/i", "{}").header("idempotency-key", key);
    let answer = |n: usize, key: &str, bytes: usize| {
        assert_eq!(gateway.ask(&request(key)).problem(), "outcome-unknown");
        let commands = kcat::read_until(app.bootstrap(), &app.commands, n + 1);
        let id = commands.iter().find_map(|it| {
            let own = it.header("idempotency-key") == Some(key.trim_matches('"'));
            own.then(|| it.header("correlation-id")).flatten()
        });
        let body = vec![b'x'; bytes];
        let replies = app.produce(&app.replies).codec("gzip");
        let replies = replies.option("message.max.bytes=8000000");
        replies.header("correlation-id", id).bytes(&body);
        body
    };
    let body = answer(0, "\"large\"", 900_000);
    let large = gateway.wait_until(&request("\"large\""), |it| it.status == 200);
    assert_eq!(large.text().as_bytes(), body);
    let undecodable = || gateway.metric("sluicegate_kafka_undecodable_total", &app.replies);
    assert_eq!(undecodable(), 0.0);
    answer(1, "\"too large\"", 4 << 20);
    gateway.wait_admin("/metrics", |_| undecodable() == 1.0);
    gateway.wait_said_text("kafka.batch_bytes_max");
    // The command stays in flight, so no second record is appended.
    assert_eq!(gateway.ask(&request("\"too large\"")).status, 504);
    assert_eq!(app.commands_in_log().len(), 2);
}

/// A client's command on its own thread, which waits for the reply.
fn in_flight(
    gateway: &Gateway,
    request: Request,
) -> std::thread::JoinHandle<crate::client::Response> {
    let address = gateway.address();
    std::thread::spawn(move || Connection::open(address).ask(&request))
}

/// Two gateways that do not know of each other's command append both. Each client must get the
/// reply to its own request, whichever arrives first.
pub fn two_requests_under_one_key_at_two_gateways_each_get_their_own_reply(ground: &Ground) {
    let app = App::new(ground);
    let gateways = [app.gateway(2), app.gateway(1)];
    // Different record keys, so that the records may be in different partitions.
    let requests = [1, 2].map(|n| order(&format!("i{n}"), &format!("{{\"n\":{n}}}"), "\"k\""));
    let clients: Vec<_> = (0..2)
        .map(|n| in_flight(&gateways[n], requests[n].clone()))
        .collect();
    let commands = kcat::read_until(app.bootstrap(), &app.commands, 2);
    assert_eq!(commands.len(), 2, "both are appended: {commands:?}");
    let command = |n: usize| {
        let of = |it: &&kcat::Record| it.key.as_deref() == Some(&format!("i{}", n + 1));
        commands.iter().find(of).expect("one of each")
    };
    let reply = |n: usize| {
        let reply = Reply::new(201, &format!("reply {}", n + 1));
        reply_to(app.bootstrap(), &app.replies, command(n), reply);
    };
    // The second is answered first. The first one's gateway reads that reply, and continues to
    // wait.
    reply(1);
    let learned = gateways[0].wait_until(&requests[1], |it| it.status == 201);
    assert_eq!(learned.text(), "reply 2");
    assert_eq!(learned.header("idempotent-replayed"), Some("true"));
    assert!(!clients[0].is_finished(), "it waits for its own reply");
    reply(0);
    for (n, client) in clients.into_iter().enumerate() {
        let answer = client.join().expect("an answer");
        let text = format!("reply {}", n + 1);
        assert_eq!((answer.status, answer.text()), (201, text.as_str()));
        // Every retry gets the same reply, at either gateway.
        for gateway in &gateways {
            let again = gateway.wait_until(&requests[n], |it| it.status == 201);
            assert_eq!(again.text(), text);
        }
    }
    // A third request under the key has neither a reply nor a record.
    let third = gateways[0].ask(&order("i3", "{}", "\"k\""));
    assert_eq!(
        (third.status, third.problem().as_str()),
        (422, "idempotency-key-reused")
    );
    assert_eq!(app.commands_in_log().len(), 2);
}

/// The same with one gateway, which is killed between the two requests.
pub fn two_requests_under_one_key_with_a_kill_between_each_get_their_own_reply(ground: &Ground) {
    let app = App::new(ground);
    let mut gateway = app.gateway(1);
    let requests = [1, 2].map(|n| order("i", &format!("{{\"n\":{n}}}"), "\"k\""));
    let mut client = gateway.connect();
    client.send(&requests[0].bytes());
    assert_eq!(kcat::read_until(app.bootstrap(), &app.commands, 1).len(), 1);
    gateway.kill_9();
    let gateway = app.gateway(2);
    let second = in_flight(&gateway, requests[1].clone());
    let commands = kcat::read_until(app.bootstrap(), &app.commands, 2);
    assert_eq!(
        commands.len(),
        2,
        "it knows nothing of the first: {commands:?}"
    );
    for n in [1, 2] {
        let value = format!("{{\"n\":{n}}}");
        let command = commands.iter().find(|it| it.value.as_ref() == Some(&value));
        let reply = Reply::new(200, &format!("reply {n}"));
        reply_to(
            app.bootstrap(),
            &app.replies,
            command.expect("one of each"),
            reply,
        );
    }
    let answer = second.join().expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "reply 2"));
    let learned = gateway.wait_until(&requests[0], |it| it.status == 200);
    assert_eq!(
        learned.text(),
        "reply 1",
        "the client of the dead gateway learns its own"
    );
}

/// An entity tag is the service's: clients receive what it wrote, and it receives the same back.
pub fn a_tag_goes_to_clients_and_back_byte_for_byte(ground: &Ground) {
    const TAGS: [&str; 8] = [
        "7", "1.2", "a.b.c-4", "Zm9v/+==", "=2E", "W/7", "a,b;c", "x.y=7A",
    ];
    let app = App::new(ground);
    let tags = Arc::new(Mutex::new(TAGS.iter()));
    let _service = app.service(move |command| {
        let reply = Reply::new(200, "{}");
        Some(match command.header("operation") {
            Some("put") => {
                let tag = tags.lock().expect("one user").next().expect("a put each");
                reply.header("etag", tag)
            }
            _ => reply,
        })
    });
    let gateway = app.gateway(2);
    let mut events = Events::open(gateway.address(), "/events/live");
    let _place = events.wait_for_id();
    for tag in TAGS {
        let records = app.produce(&app.items).header("etag", Some(tag));
        records.keyed([("a", tag)]);
        let shown = format!("\"{tag}\"");
        let read = gateway.wait_until(&Request::get("/items/a"), |it| it.text() == tag);
        assert_eq!(read.header("etag"), Some(shown.as_str()), "a GET shows it");
        let known = Request::get("/items/a").header("if-none-match", &shown);
        assert_eq!(gateway.ask(&known).status, 304, "{tag}");
        let put = gateway.ask(&Request::new("PUT", "/items/a").json("{}"));
        assert_eq!(
            put.header("etag"),
            Some(shown.as_str()),
            "and so does a reply"
        );
        let event = app.produce(&app.events).header("etag", Some(tag));
        event.keyed([("a", tag)]);
        let id = events.next().id;
        let part = id.split_once('.').expect("a dot").1;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-=".contains(&b);
        assert!(part.bytes().all(plain), "an id escapes it: {id}");
        for value in [&shown, &id, &format!("\"{id}\"")] {
            for name in ["if-match", "if-none-match"] {
                let request = Request::new("DELETE", "/items/a").header(name, value);
                assert_eq!(gateway.ask(&request).status, 200);
            }
        }
    }
    let records = app.commands_in_log();
    let deletes = records
        .iter()
        .filter(|it| it.header("operation") == Some("delete"));
    let carried: Vec<_> = deletes
        .map(|it| it.header("if-match").or(it.header("if-none-match")))
        .collect();
    let expected: Vec<_> = TAGS.iter().flat_map(|tag| [Some(*tag); 6]).collect();
    assert_eq!(carried, expected);
}

/// `If-None-Match: *` on a command means "create only". The service decides.
pub fn if_none_match_reaches_the_service(ground: &Ground) {
    let app = App::new(ground);
    let service = app.service(|command| {
        Some(match command.header("if-none-match") {
            None => Reply::new(200, "overwritten"),
            Some(_) => Reply::new(412, "it is there"),
        })
    });
    let gateway = app.gateway(1);
    let put = |key: &str| {
        let request = Request::new("PUT", "/items/a").json("{}");
        request.header("idempotency-key", key)
    };
    let create = gateway.ask(&put("k").header("if-none-match", "*"));
    assert_eq!((create.status, create.text()), (412, "it is there"));
    // Under the same key, the request without the condition, or with another one, is another
    // request.
    assert_eq!(gateway.ask(&put("k")).status, 422);
    let other = put("k").header("if-none-match", "\"7\"");
    assert_eq!(gateway.ask(&other).status, 422);
    let both = put("l")
        .header("if-match", "\"6\"")
        .header("if-none-match", "\"7\", W/\"8\"");
    assert_eq!(gateway.ask(&both).status, 412);
    let malformed = gateway.ask(&put("m").header("if-none-match", "\"7"));
    assert_eq!(malformed.problem(), "malformed-header");
    let seen = service.seen();
    let carried: Vec<_> = seen
        .iter()
        .map(|it| (it.header("if-match"), it.header("if-none-match")))
        .collect();
    let list = "\"7\", W/\"8\"";
    assert_eq!(carried, [(None, Some("*")), (Some("6"), Some(list))]);
}

pub fn commands_of_many_clients_each_get_their_own_reply(ground: &Ground) {
    const CLIENTS: usize = 16;
    const EACH: usize = 10;
    let app = App::new(ground);
    let service = app.service(|command| {
        let value = command.value.clone().unwrap_or_default();
        Some(Reply::new(200, &format!("reply to {value}")))
    });
    let gateway = app.gateway(4);
    let address = gateway.address();
    let clients = (0..CLIENTS).map(|client| {
        std::thread::spawn(move || {
            let mut connection = Connection::open(address);
            for n in 0..EACH {
                let body = format!("{{\"client\":{client},\"n\":{n}}}");
                let target = format!("/items/{client}/orders");
                let answer = connection.ask(&Request::post(&target, &body));
                assert_eq!(answer.text(), format!("reply to {body}"));
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().expect("each got its own");
    }
    assert_eq!(service.seen().len(), CLIENTS * EACH);
    // A client's commands of one key are in the order in which it sent them.
    let mut of_client = [0; CLIENTS];
    for record in app.commands_in_log() {
        let value: serde_json::Value =
            serde_json::from_str(record.value.as_deref().expect("a body")).expect("JSON");
        let client = value["client"].as_u64().expect("a number") as usize;
        assert_eq!(value["n"], of_client[client]);
        of_client[client] += 1;
    }
}

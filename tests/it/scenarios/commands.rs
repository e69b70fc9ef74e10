//! Commands: a request becomes a record, the correlated reply becomes the response, and a retry is
//! answered by what is known.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::app::App;
use crate::client::{Connection, Request};
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
        // None of these is the service's to say.
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
    // One connection for all of them.
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
    // The same process knows it, and so does one that never saw the request, when the first is dead.
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
        // Bare or quoted, it is one key.
        let bare = later.ask(&order("i", "{}", "retry-me"));
        assert_eq!(bare.text(), "effect 0");
    }
    assert_eq!(service.seen().len(), 1, "one effect");
    assert_eq!(app.commands_in_log().len(), 1, "one record");
}

pub fn equal_requests_at_once_are_one_command(ground: &Ground) {
    const CLIENTS: usize = 10;
    let app = App::new(ground);
    let (release, released) = std::sync::mpsc::channel::<()>();
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
    // All of them have come before the service answers any.
    let route = "route=\"order\"";
    gateway.wait_admin("/metrics", |_| {
        gateway.metric("sluicegate_connections_open", "") >= CLIENTS as f64
            && gateway.metric("sluicegate_commands_open", route) >= 1.0
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
    // Another route has keys of its own.
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
    // A retry joins what is open: no second record, and still no answer.
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
    // So does a peer that never saw it.
    let peer = app.gateway(1);
    let replayed = peer.ask(&request);
    assert_eq!((replayed.status, replayed.text()), (201, "late"));
    assert_eq!(app.commands_in_log().len(), 1, "one record");
}

pub fn a_service_that_applied_nothing_lets_the_key_be_tried_again(ground: &Ground) {
    let app = App::new(ground);
    let mut first = true;
    let service = app.service(move |_| {
        Some(match std::mem::take(&mut first) {
            true => Reply::new(503, "not now").header("retry", "true"),
            false => Reply::new(200, "now"),
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
    let bad = [
        Reply::new(99, "no status"),
        Reply::new(1000, "no status"),
        Reply::new(200, "").header("x-split", "a\r\nset-cookie: b"),
    ];
    let replies = Arc::new(Mutex::new(bad.to_vec().into_iter()));
    let _service = app.service(move |_| replies.lock().expect("one user").next());
    let gateway = app.gateway(1);
    let mut connection = gateway.connect();
    for (n, what) in bad.iter().enumerate() {
        let answer = connection.ask(&order("i", "{}", &format!("\"bad-{n}\"")));
        assert_eq!(answer.status, 502, "{what:?}");
        assert_eq!(answer.problem(), "bad-reply");
        assert_eq!(answer.header("set-cookie"), None);
    }
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
    let mut of_client = vec![0; CLIENTS];
    for record in app.commands_in_log() {
        let value: serde_json::Value =
            serde_json::from_str(record.value.as_deref().expect("a body")).expect("JSON");
        let client = value["client"].as_u64().expect("a number") as usize;
        assert_eq!(value["n"], of_client[client]);
        of_client[client] += 1;
    }
}

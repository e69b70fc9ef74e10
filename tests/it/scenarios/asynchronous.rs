//! Asynchronous commands: the gateway answers 202 once the record is committed, and any instance
//! returns the reply at the location.

use std::time::Duration;

use crate::app::App;
use crate::client::{Connection, Request, Response};
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat;
use crate::service::{Reply, reply_to};

const KEY: &str = "\"0f8fad5b-d9cb-469f-a165-70867728950e\"";

/// A command whose client does not wait.
fn asynchronous(key: Option<&str>) -> Request {
    let request = Request::post("/items/i/orders", "{}").header("prefer", "respond-async");
    match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    }
}

/// The location of a command that is in flight.
fn location(accepted: &Response) -> String {
    assert_eq!(
        (accepted.status, accepted.text()),
        (202, ""),
        "{accepted:?}"
    );
    let applied = accepted.header("preference-applied");
    assert_eq!(applied, Some("respond-async"));
    assert_eq!(accepted.header("retry-after"), Some("1"));
    let location = accepted.header("location").expect("a location");
    assert!(
        location.starts_with("/_sluicegate/commands/order/"),
        "{location}"
    );
    location.to_owned()
}

fn poll(gateway: &Gateway, location: &str) -> Response {
    let answer = gateway.ask(&Request::get(location));
    private(&answer);
    answer
}

/// No cache may keep what one client reads at a location.
fn private(answer: &Response) {
    let cached = answer.header("cache-control");
    assert_eq!(cached, Some("private, no-store"), "{answer:?}");
    assert_eq!(answer.header("vary"), Some("authorization"));
}

/// A long poll on its own thread.
fn waits(gateway: &Gateway, location: &str) -> std::thread::JoinHandle<Response> {
    let (address, request) = (gateway.address(), Request::get(location));
    let request = request.header("prefer", "wait=30");
    std::thread::spawn(move || Connection::open(address).ask(&request))
}

pub fn an_asynchronous_command_is_read_at_any_instance(ground: &Ground) {
    let app = App::new(ground);
    let gateways = [app.gateway(2), app.gateway(1)];
    for (n, key) in [Some(KEY), None].into_iter().enumerate() {
        let request = asynchronous(key);
        let location = location(&gateways[0].ask(&request));
        // 202 says that the record is committed, so it is there now.
        let records = app.commands_in_log();
        assert_eq!(records.len(), n + 1, "{records:?}");
        let command = records
            .iter()
            .find(|it| it.header("idempotency-key").is_some() == key.is_some());
        for gateway in &gateways {
            let due = poll(gateway, &location);
            assert_eq!((due.status, due.header("retry-after")), (202, Some("1")));
        }
        let waiting: Vec<_> = gateways.iter().map(|it| waits(it, &location)).collect();
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            waiting.iter().all(|it| !it.is_finished()),
            "they wait for the reply"
        );
        let reply = Reply::new(201, "{\"order\":7}").header("etag", "v7");
        let reply = reply.header("cache-control", "max-age=60");
        reply_to(app.bootstrap(), &app.replies, command.expect("it"), reply);
        let late = app.gateway(1);
        let polled = gateways.iter().map(|it| poll(it, &location));
        let answers = waiting.into_iter().map(|it| it.join().expect("an answer"));
        for answer in answers.chain(polled).chain([poll(&late, &location)]) {
            assert_eq!((answer.status, answer.text()), (201, "{\"order\":7}"));
            assert_eq!(answer.header("etag"), Some("\"v7\""));
            assert_eq!(answer.header("location"), None);
            private(&answer);
        }
        let head = gateways[1].ask(&Request::new("HEAD", &location));
        assert_eq!(
            (head.status, head.header("content-length")),
            (201, Some("11"))
        );
        // A retry of the command gets the stored reply, not 202.
        if key.is_some() {
            let again = late.ask(&request);
            assert_eq!((again.status, again.text()), (201, "{\"order\":7}"));
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
        }
    }
    assert_eq!(app.commands_in_log().len(), 2, "one record each");
}

/// With `wait`, the client gets the reply itself if it comes in time.
pub fn an_asynchronous_command_waits_as_long_as_its_client_prefers(ground: &Ground) {
    let app = App::new(ground);
    let service = app.service(|command| {
        let slow = command.value.as_deref() == Some("slow");
        (!slow).then(|| Reply::new(200, "quick"))
    });
    let gateway = app.gateway(1);
    let order = |body: &str| {
        let request = Request::post("/items/i/orders", body).header("idempotency-key", KEY);
        request.header("prefer", "respond-async, wait=1")
    };
    let slow = order("slow");
    let began = std::time::Instant::now();
    let first = location(&gateway.ask(&slow));
    assert!(began.elapsed() >= Duration::from_secs(1), "it waited");
    // A retry joins: the same command, another time.
    let second = location(&gateway.ask(&slow));
    assert_eq!(app.commands_in_log().len(), 1, "one record");
    for location in [&first, &second] {
        assert_eq!(poll(&gateway, location).status, 202);
    }
    let quick = gateway
        .ask(&Request::post("/items/j/orders", "quick").header("prefer", "respond-async, wait=30"));
    assert_eq!((quick.status, quick.text()), (200, "quick"));
    assert_eq!(quick.header("preference-applied"), None);
    assert_eq!(service.seen().len(), 2);
}

/// What is not the location of a command of this client is a 404, whatever is wrong with it.
pub fn a_location_is_read_by_its_sender_only(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(2);
    // Another client could guess this key, and an anonymous client has no identity to prove.
    let request = Request::post("/hasty/i", "{}").header("prefer", "respond-async");
    let short = gateway.ask(&request.clone().header("idempotency-key", "lunch-1"));
    assert_eq!(
        (short.status, short.problem().as_str()),
        (504, "outcome-unknown")
    );
    assert_eq!(short.header("preference-applied"), None);
    let accepted = gateway.ask(&request);
    let location = accepted.header("location").expect("one").to_owned();
    let token = location.rsplit('/').next().expect("a token");
    let mut changed = token.to_owned();
    changed.replace_range(30..31, if token[30..31] == *"A" { "B" } else { "A" });
    for path in [
        format!("/_sluicegate/commands/hasty/{changed}"),
        format!("/_sluicegate/commands/order/{token}"),
        "/_sluicegate/commands/hasty/x".to_owned(),
    ] {
        let answer = poll(&gateway, &path);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (404, "no-such-command"),
            "{path}"
        );
    }
    let unknown = gateway.ask(&Request::get(&format!(
        "/_sluicegate/commands/none/{token}"
    )));
    assert_eq!(unknown.problem(), "no-such-route");
    let posted = gateway.ask(&Request::post(&location, "{}"));
    assert_eq!(
        (posted.status, posted.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

/// The service applied nothing. Its reply is not stored, but the client must be able to read it.
pub fn a_reply_that_is_not_stored_is_read_at_its_location(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(2);
    let request = asynchronous(Some(KEY));
    let first = location(&gateway.ask(&request));
    let command = kcat::read_until(app.bootstrap(), &app.commands, 1).remove(0);
    let refused = Reply::new(503, "not now").header("retry", "true");
    reply_to(app.bootstrap(), &app.replies, &command, refused);
    let read = gateway.wait_until(&Request::get(&first), |it| it.status != 202);
    assert_eq!((read.status, read.text()), (503, "not now"));
    let late = app.gateway(1);
    assert_eq!(poll(&late, &first).text(), "not now");
    // The key may be tried again, and both locations name the same command.
    let second = location(&gateway.ask(&request));
    assert_eq!(app.commands_in_log().len(), 2);
    assert_eq!(poll(&gateway, &first).status, 202);
    reply_to(
        app.bootstrap(),
        &app.replies,
        &command,
        Reply::new(201, "now"),
    );
    for location in [&first, &second] {
        let read = gateway.wait_until(&Request::get(location), |it| it.status == 201);
        assert_eq!(read.text(), "now");
    }
}

/// SIGTERM does not cut a client that waits at a location: it may ask another instance.
pub fn a_poll_ends_with_202_when_the_gateway_drains(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(2);
    let location = location(&gateway.ask(&asynchronous(None)));
    let waiting = waits(&gateway, &location);
    std::thread::sleep(Duration::from_millis(300));
    gateway.terminate();
    let answer = waiting.join().expect("an answer");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (202, Some("close"))
    );
    private(&answer);
}

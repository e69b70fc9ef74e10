//! How streams are framed on real sockets and where they begin, for readers other than browsers.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::development;

/// A gateway that ends its streams within a second of SIGTERM.
fn short_drain(app: &App, settings: &str) -> Gateway {
    let gateway = Gateway::launch_with(&app.config(1, settings), &["--drain=1s"]);
    gateway.wait_serving();
    gateway
}

/// Reads to the end. The last chunk has arrived, so no event was cut.
fn read_to_the_end(stream: &mut Events) {
    let event = stream.next_within(PATIENCE);
    assert_eq!(event, None, "nothing more is due");
    assert!(stream.ended_whole(), "an end in order is told");
}

/// RFC 9112 7.1: the reader of these tests checks each chunk.
#[test]
fn a_stream_is_chunked_and_ends_with_its_last_chunk() {
    let app = App::new(development());
    let gateway = short_drain(&app, "");
    let mut streams = ["/events/live", "/events/of/k", "/items-now"]
        .map(|target| Events::open(gateway.address(), target));
    for stream in &mut streams {
        stream.wait_for_id();
    }
    let values: Vec<String> = (0..30).map(|n| format!("value {n}")).collect();
    app.produce(&app.events)
        .partition(0)
        .values(values.iter().map(String::as_str));
    for value in &values {
        assert_eq!(&streams[0].next().data, value);
    }
    assert!(streams[0].chunks() > 1);
    gateway.terminate();
    streams.iter_mut().for_each(read_to_the_end);
}

#[test]
fn a_frame_over_16_kib_is_a_chunk_of_its_own() {
    let app = App::new(development());
    let large = "x".repeat(100_000);
    let values: Vec<&str> = (0..40)
        .map(|n| if n % 8 == 3 { &large } else { "small" })
        .collect();
    app.produce(&app.events).partition(0).values(values.clone());
    let keys: Vec<String> = (0..3000).map(|n| format!("k{n}")).collect();
    let keyed = keys.iter().map(|key| (key.as_str(), "a value of a page"));
    app.produce(&app.items).keyed(keyed);
    let gateway = app.gateway(2);
    // From a catch-up read, from memory, and from pages.
    let mut first = Events::open(gateway.address(), "/events/all");
    let id = first.wait_for_id();
    let mut again = Events::resume(gateway.address(), "/events/all", &id);
    for stream in [&mut first, &mut again] {
        for value in &values {
            assert_eq!(stream.next().data, **value);
        }
    }
    let mut live = Events::open(gateway.address(), "/events/live");
    live.wait_for_id();
    app.produce(&app.events).partition(0).values(values.clone());
    for value in &values {
        assert_eq!(live.next().data, **value);
    }
    let mut snapshot = Events::open(gateway.address(), "/items-now");
    (0..keys.len()).for_each(|_| drop(snapshot.next()));
}

/// RFC 9112 6.3: HTTP/1.0 knows no chunks.
#[test]
fn a_stream_over_http_1_0_ends_with_the_connection() {
    let app = App::new(development());
    let gateway = short_drain(&app, "");
    app.produce(&app.events).values(["one", "two"]);
    let mut connection = Connection::open(gateway.address());
    connection.send(b"GET /events/all HTTP/1.0\r\nHost: test\r\n\r\n");
    let until = Instant::now() + PATIENCE;
    let (status, headers) = connection.head(until).expect("a head");
    assert_eq!(status, 200);
    let value = |name: &str| {
        let header = headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.as_str())
    };
    assert_eq!(value("transfer-encoding"), None);
    assert_eq!(value("connection"), Some("close"));
    assert_eq!(value("cache-control"), Some("no-store, no-transform"));
    let mut body = String::new();
    while body.matches("\ndata: ").count() < 3 {
        assert!(connection.more(until), "closed early: {body}");
        body.push_str(&String::from_utf8(connection.take_ahead()).expect("events are UTF-8"));
    }
    gateway.terminate();
    while connection.more(until) {}
    body.push_str(&String::from_utf8(connection.take_ahead()).expect("events are UTF-8"));
    assert!(
        body.starts_with("retry: ") && body.ends_with("\n\n"),
        "{body}"
    );
    let fields = ["retry", "event", "data", "id", ""];
    for line in body.lines() {
        let field = line.split(':').next().unwrap_or_default();
        assert!(fields.contains(&field), "{line:?} in {body}");
    }
}

/// A native `EventSource` gives up after anything but 200.
#[test]
fn one_stream_too_many_is_answered_in_whole_and_comes_back() {
    let app = App::new(development());
    let gateway = app.gateway_with(1, "[streams]\nstreams_max = 1\n");
    let mut first = Events::open(gateway.address(), "/events/live");
    first.wait_for_id();
    let mut second = Events::open(gateway.address(), "/events/live");
    read_to_the_end(&mut second);
    assert!(second.retry().is_some_and(|millis| millis > 0));
    assert_eq!((second.chunks(), second.last_event_id()), (1, ""));
    let head = gateway.ask(&Request::new("HEAD", "/events/live"));
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn positions_are_ids_without_events_where_the_config_says_so() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    for (settings, events) in [("", 1), ("[streams]\nposition_events = false\n", 0)] {
        let gateway = app.gateway_with(1, settings);
        for target in ["/events/live", "/events/all"] {
            let mut stream = Events::open(gateway.address(), target);
            assert!(!stream.wait_for_id().starts_with('-'), "{target}");
            assert_eq!(stream.positions(), events, "{target}");
        }
        let mut snapshot = Events::open(gateway.address(), "/items-now");
        assert!(
            snapshot.next().id.starts_with('-'),
            "cut here, it begins again"
        );
        let until = Instant::now() + PATIENCE;
        while snapshot.last_event_id().starts_with('-') {
            assert_eq!(snapshot.next_within(Duration::from_millis(20)), None);
            assert!(Instant::now() < until, "a snapshot ends with a position");
        }
        assert_eq!(snapshot.positions(), events);
    }
}

#[test]
fn two_ids_for_one_stream_are_refused() {
    let app = App::new(development());
    let gateway = app.gateway(1);
    let get = |target: &str| Request::get(&format!("/events/live{target}"));
    for (request, problem) in [
        (
            get("")
                .header("last-event-id", "A.")
                .header("Last-Event-ID", "A."),
            "malformed-header",
        ),
        (get("?lastEventId=A.&Last-Event-ID=B."), "ambiguous-target"),
    ] {
        let answer = gateway.ask(&request);
        assert_eq!((answer.status, &*answer.problem()), (400, problem));
    }
}

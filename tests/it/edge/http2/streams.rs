//! Event streams over HTTP/2: many on one connection, each with its own flow control.

use h2::Reason;

use super::client::Client;
use crate::app::App;
use crate::client::Request;
use crate::ground::development;

#[test]
fn many_streams_share_a_connection() {
    const STREAMS: usize = 50;
    let app = App::new(development());
    app.produce(&app.events).keyed([("a", "before")]);
    let gateway = app.gateway(2);
    let mut client = Client::open(gateway.address());
    let mut streams: Vec<_> = (0..STREAMS)
        .map(|_| client.stream(&Request::get("/events/all")))
        .collect();
    for stream in &mut streams {
        assert_eq!(stream.status, 200);
        let kind = ("content-type".to_owned(), "text/event-stream".to_owned());
        assert!(stream.headers.contains(&kind), "{:?}", stream.headers);
        client.read_to(stream, "data: before\n");
    }
    assert_eq!(
        gateway.metric("sluicegate_streams_open", ""),
        STREAMS as f64
    );
    assert_eq!(gateway.status_sum("streams"), STREAMS as u64);
    // A request passes between the streams.
    assert_eq!(client.get("/items/none").status, 404);
    app.produce(&app.events).keyed([("a", "one"), ("b", "two")]);
    let mut ids = Vec::new();
    for stream in &mut streams {
        client.read_to(stream, "data: ");
        let event = client.read_to(stream, "\n\n");
        assert!(
            event.starts_with("one") || event.starts_with("two"),
            "{event}"
        );
        let (_, id) = event.split_once("id: ").expect("every event has an id");
        ids.push(id.trim().to_owned());
    }
    // A client that closes some of them keeps the others.
    drop(streams.split_off(10));
    gateway.wait_admin("/metrics", |page| {
        let open = page
            .text()
            .lines()
            .filter(|line| line.starts_with("sluicegate_streams_open{"));
        let open: f64 = open
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        open == 10.0
    });
    let resume = Request::get("/events/all").header("last-event-id", &ids[0]);
    let mut resumed = client.stream(&resume);
    let rest = client.read_to(&mut resumed, "data: ");
    assert!(!rest.contains("before"));
    let event = client.read_to(&mut resumed, "\n");
    assert!(event == "one\n" || event == "two\n", "{event}");
}

/// A page that reads one stream and not another: the other waits in its own window, and is reset
/// when its time is over.
#[test]
fn a_stalled_stream_holds_up_nobody_else() {
    const WINDOW: u32 = 4096;
    let app = App::new(development());
    let gateway = app.gateway_with(1, "[http]\nwrite_timeout = \"1s\"\n");
    let mut client = Client::with_windows(gateway.address(), WINDOW, 1 << 24);
    let stalled = client.stream(&Request::get("/events/all"));
    let mut read = client.stream(&Request::get("/events/all"));
    let values: Vec<String> = (0..100)
        .map(|n| format!("{n} {}", "x".repeat(1000)))
        .collect();
    let values = values.iter().map(|value| ("a", value.as_str()));
    app.produce(&app.events).keyed(values);
    client.read_to(&mut read, "data: 99 ");
    // Its time is over: the stream is reset, and the connection stays.
    gateway.wait_admin("/metrics", |page| {
        let mut lines = page.text().lines();
        lines.any(|line| {
            line.starts_with("sluicegate_streams_ended_total{")
                && line.contains("/events/all")
                && line.contains("reason=\"slow\"")
                && line.ends_with(" 1")
        })
    });
    let end = client.read_to_end(stalled).expect_err("it was reset");
    assert_eq!(end, Some(Reason::CANCEL));
    app.produce(&app.events).keyed([("a", "last")]);
    client.read_to(&mut read, "data: last");
}

/// An event that is larger than the window of its stream comes in parts.
#[test]
fn an_event_larger_than_the_window_comes_in_parts() {
    let app = App::new(development());
    let gateway = app.gateway(1);
    let mut client = Client::with_windows(gateway.address(), 1000, 1 << 16);
    let mut streams: Vec<_> = (0..3)
        .map(|_| client.stream(&Request::get("/events/live")))
        .collect();
    for stream in &mut streams {
        client.read_to(stream, "event: position");
    }
    let large = "y".repeat(100_000);
    app.produce(&app.events)
        .keyed([("a", large.as_str()), ("a", "small")]);
    for stream in &mut streams {
        let text = client.read_to(stream, "data: small");
        assert!(text.contains(&large));
    }
}

#[test]
fn a_drain_tells_the_client_and_ends_its_streams() {
    let app = App::new(development());
    let mut gateway = app.gateway(2);
    let mut client = Client::open(gateway.address());
    let mut stream = client.stream(&Request::get("/events/live"));
    client.read_to(&mut stream, "id: ");
    gateway.terminate();
    let rest = client.read_to_end(stream).expect("an orderly end");
    assert!(!rest.contains("data: x"));
    assert!(!client.is_open(), "GOAWAY was received");
    client.wait_closed().expect("an orderly end");
    assert!(gateway.wait().success());
}

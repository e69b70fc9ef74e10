//! The places of commands in flight, over HTTP: clients at two addresses share them, and what the
//! operator sees of it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request, Response};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground;
use crate::service::Reply;

/// A connection from an address of its own: all of 127.0.0.0/8 is this machine.
fn from_address(last: u8, to: SocketAddr) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&from.into()).expect("a local address");
    socket.connect(&to.into()).expect("the gateway listens");
    Connection::over(Box::new(TcpStream::from(socket)))
}

fn order(n: u32) -> Request {
    let key = format!("\"limits-{n}\"");
    Request::post("/items/i/orders", "{}").header("idempotency-key", &key)
}

fn is_overloaded(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.problem(), "overloaded");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

/// The state of the replies topic's commands.
fn replies_status(gateway: &Gateway) -> serde_json::Value {
    let status = gateway.admin_get("/status").json();
    let shards = status["shards"].as_array().expect("a list of shards");
    let topics = shards.iter().flat_map(|shard| {
        let topics = shard["status"]["topics"].as_array();
        topics.cloned().unwrap_or_default()
    });
    let mut replies = topics.map(|topic| topic["replies"].clone());
    replies.find(|it| !it.is_null()).expect("a replies topic")
}

#[test]
fn a_client_with_unlimited_demand_leaves_places_to_another_address() {
    let app = App::new(ground::development());
    let (release, released) = sync_channel::<()>(16);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "done"))
    });
    let gateway = app.gateway_with(2, "\n[commands]\nopen_max = 4\n");
    let address = gateway.address();
    let opened = |wanted: u64| {
        gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == wanted);
    };

    let mut greedy: Vec<Connection> = (0..2).map(|_| from_address(2, address)).collect();
    for (n, connection) in (0..).zip(&mut greedy) {
        connection.send(&order(n).bytes());
    }
    opened(2);
    is_overloaded(&from_address(2, address).ask(&order(2)));
    let limited = "limit=\"client_commands\"";
    let count = gateway.metric("sluicegate_commands_limited_total", limited);
    assert!((count - 1.0).abs() < 0.1, "{count}");

    let mut other = from_address(3, address);
    other.send(&order(10).bytes());
    opened(3);
    let status = replies_status(&gateway);
    assert_eq!(
        (&status["in_flight"], &status["clients"]),
        (&3.into(), &2.into())
    );
    assert_eq!(status["cut"], false);

    // The state ends with the replies.
    for _ in 0..4 {
        release.send(()).expect("the service waits for it");
    }
    for connection in greedy.iter_mut().chain([&mut other]) {
        assert_eq!(connection.response(false).status, 200);
    }
    assert_eq!(from_address(2, address).ask(&order(2)).status, 200);
    assert_eq!(
        app.commands_in_log().len(),
        4,
        "what was rejected is not in the log"
    );
    assert_eq!(replies_status(&gateway)["stored"], 4);
}

/// RFC 7239 and `X-Forwarded-For`: a proxy's clients are different clients, and nobody else can
/// claim another address.
#[test]
fn the_clients_of_a_listed_proxy_are_told_apart_and_only_those() {
    let app = App::new(ground::development());
    let (release, released) = sync_channel::<()>(16);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "done"))
    });
    let config = app.config(2, "\n[commands]\nopen_max = 4\n");
    let gateway = Gateway::launch_with(&config, &["--proxies=127.0.0.2"]);
    gateway.wait_serving();
    let address = gateway.address();
    let ask = |from: u8, forwarded: &str, n: u32| {
        let mut connection = from_address(from, address);
        connection.send(&order(n).header("x-forwarded-for", forwarded).bytes());
        connection
    };
    let opened = |wanted: u64| {
        gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == wanted);
    };
    // Half of the four places, for the address that the proxy has appended.
    let mut waiting = vec![
        ask(2, "203.0.113.1, 192.0.2.1", 0),
        ask(2, "203.0.113.2, 192.0.2.1", 1),
    ];
    opened(2);
    is_overloaded(&ask(2, "203.0.113.3, 192.0.2.1", 2).response(false));
    waiting.push(ask(2, "192.0.2.2", 3));
    opened(3);
    // 127.0.0.3 is no proxy. Were its claim believed, it would have its share already.
    waiting.push(ask(3, "192.0.2.1", 4));
    opened(4);
    for _ in 0..4 {
        release.send(()).expect("the service waits for it");
    }
    for connection in &mut waiting {
        assert_eq!(connection.response(false).status, 200);
    }
    assert_eq!(app.commands_in_log().len(), 4);
}

/// A config whose route has a rate.
fn with_rate(app: &App, route: &str, rate: &str) -> String {
    let config = app.config(2, "");
    let line = format!("route = \"{route}\"\n");
    assert!(config.contains(&line), "{route}");
    config.replace(&line, &format!("{line}rate = {{ {rate} }}\n"))
}

fn number(answer: &Response, name: &str) -> u64 {
    let value = answer
        .header(name)
        .unwrap_or_else(|| panic!("{name}: {answer:?}"));
    value.parse().expect("a number")
}

#[test]
fn an_address_has_its_connections_and_another_has_its_own() {
    let app = App::new(ground::development());
    app.produce(&app.items).keyed([("a", "1")]);
    let config = app.config(2, "[http]\naddress_connections_max = 2\n");
    let gateway = Gateway::launch_with(&config, &["--proxies=127.0.0.9"]);
    gateway.wait_serving();
    let address = gateway.address();
    let get = Request::get("/items/a");
    let mut served: Vec<_> = (0..2).map(|_| from_address(2, address)).collect();
    for connection in &mut served {
        assert!(matches!(connection.ask(&get).status, 200 | 404 | 503));
    }
    for _ in 0..5 {
        from_address(2, address).expect_close();
    }
    let refused = gateway.metric("sluicegate_connections_refused_total", "address");
    assert!((refused - 5.0).abs() < 0.1, "{refused}");
    let mut other = from_address(3, address);
    assert_ne!(other.ask(&get).status, 0);
    // A proxy has the connections of all its clients.
    let mut proxied: Vec<_> = (0..5).map(|_| from_address(9, address)).collect();
    for connection in &mut proxied {
        assert_ne!(connection.ask(&get).status, 0);
    }
    // The place of a connection that ends is free again.
    served.clear();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut again = from_address(2, address);
        again.send(&get.bytes());
        if let Ok(true) = again.try_more(Instant::now() + Duration::from_secs(5)) {
            break;
        }
        assert!(Instant::now() < until, "its places are not given back");
    }
}

/// A native `EventSource` gives up after anything but 200.
#[test]
fn a_client_has_its_streams_and_comes_back_for_more() {
    let app = App::new(ground::development());
    let gateway = app.gateway_with(2, "[streams]\nclient_streams_max = 2\n");
    let open = || Events::open(gateway.address(), "/events/live");
    let mut streams = vec![open(), open()];
    for stream in &mut streams {
        stream.wait_for_id();
    }
    let mut third = open();
    assert_eq!(third.next_within(PATIENCE), None);
    assert!(third.ended_whole() && third.retry().is_some_and(|wait| wait > 0));
    let refused = gateway.metric("sluicegate_streams_refused_total", "client_streams");
    assert!((refused - 1.0).abs() < 0.1, "{refused}");
    // A stream of another address is another client's.
    let mut other = from_address(3, gateway.address());
    other.send(&Request::get("/events/live").bytes());
    other.head(Instant::now() + PATIENCE).expect("a head");
    gateway.wait_admin("/status", |_| gateway.status_sum("streams") == 3);
    // The state ends with a stream.
    streams.truncate(1);
    gateway.wait_admin("/status", |_| gateway.status_sum("streams") == 2);
    open().wait_for_id();
}

// draft-ietf-httpapi-ratelimit-headers-09; RFC 6585 4.
#[test]
fn a_client_beyond_the_rate_of_a_route_is_told_when_to_come_back() {
    let app = App::new(ground::development());
    app.produce(&app.items).keyed([("a", "1")]);
    let config = with_rate(&app, "GET /items/{id}", "requests = 3, per = \"60s\"");
    let gateway = Gateway::start(&config);
    gateway.wait_until(&Request::get("/items"), |it| it.text() == "[1]\n");
    let address = gateway.address();
    let get = Request::get("/items/a");
    let mut client = from_address(2, address);
    for left in [2, 1, 0] {
        let answer = client.ask(&get);
        assert_eq!((answer.status, answer.text()), (200, "1"));
        let policy = answer.header("ratelimit-policy");
        assert_eq!(policy, Some("\"client\";q=3;w=60"));
        let limit = answer.header("ratelimit").expect("what is left");
        assert!(
            limit.starts_with(&format!("\"client\";r={left};t=")),
            "{limit}"
        );
    }
    // On another connection, and so perhaps another shard.
    for mut connection in [client, from_address(2, address), from_address(2, address)] {
        let answer = connection.ask(&get);
        assert_eq!(
            (answer.status, &*answer.problem()),
            (429, "too-many-requests")
        );
        let wait = number(&answer, "retry-after");
        assert!((15..=20).contains(&wait), "a third of a minute: {wait}");
        assert!(answer.header("ratelimit").expect("none").contains(";r=0;"));
        // The rate is one route's.
        assert_eq!(connection.ask(&Request::get("/items")).status, 200);
    }
    assert_eq!(
        from_address(3, address).ask(&get).status,
        200,
        "another client"
    );
    let refused = gateway.metric("sluicegate_http_rate_limited_total", "");
    assert!((refused - 3.0).abs() < 0.1, "{refused}");
}

#[test]
fn a_command_beyond_the_rate_is_not_produced() {
    let app = App::new(ground::development());
    let rate = "requests = 1, per = \"60s\"";
    let gateway = Gateway::start(&with_rate(&app, "POST /hasty/{id}", rate));
    let post = Request::post("/hasty/a", "{}");
    let answer = gateway.ask(&post);
    assert_eq!(answer.status, 504, "no service answers");
    assert!(
        answer
            .header("ratelimit")
            .expect("a rate")
            .contains(";r=0;")
    );
    assert_eq!(gateway.ask(&post).status, 429);
    // A client that asks first is refused before it sends its body.
    let expects = gateway.ask(&post.header("expect", "100-continue"));
    assert_eq!(expects.status, 429);
    assert_eq!(app.commands_in_log().len(), 1);
    let shed = gateway.metric("sluicegate_commands_total", "outcome=\"shed\"");
    assert!((shed - 2.0).abs() < 0.1, "{shed}");
}

#[test]
fn a_stream_beyond_the_rate_waits_as_long_as_it_is_told() {
    let app = App::new(ground::development());
    let rate = "requests = 1, per = \"30s\"";
    let gateway = Gateway::start(&with_rate(&app, "GET /events/live", rate));
    let mut first = Events::open(gateway.address(), "/events/live");
    first.wait_for_id();
    let mut second = Events::open(gateway.address(), "/events/live");
    assert_eq!(second.next_within(PATIENCE), None);
    assert!(second.ended_whole());
    let wait = second.retry().expect("a time to wait");
    assert!((25_000..40_000).contains(&wait), "{wait} ms");
    let refused = gateway.metric("sluicegate_streams_refused_total", "cause=\"rate\"");
    assert!((refused - 1.0).abs() < 0.1, "{refused}");
}

/// A stream of a topic that does not exist: its clients come back no sooner than may help.
#[test]
fn a_stream_of_a_missing_topic_is_refused_for_a_while_and_counted() {
    let app = App::new(ground::development());
    let config = app.config(1, "");
    let config = config.replace(
        &format!("topic = \"{}\"", app.events),
        "topic = \"not-there\"",
    );
    let gateway = Gateway::launch(&config);
    gateway.wait_said_text("listening");
    let address = gateway.addresses_said("listening")[0];
    let until = Instant::now() + PATIENCE;
    loop {
        let mut stream = Events::open(address, "/events/live");
        assert_eq!(stream.next_within(PATIENCE), None);
        assert!(stream.ended_whole());
        let wait = stream.retry().expect("a time to wait");
        let refused = gateway.metric("sluicegate_streams_refused_total", "topic_unavailable");
        if refused > 0.0 {
            assert!((5000..10_000).contains(&wait), "{wait} ms");
            break;
        }
        // Before the brokers have said that there is no such topic.
        let waiting = gateway.metric("sluicegate_streams_refused_total", "not_ready");
        assert!(waiting > 0.0 && wait >= 2000, "{wait} ms");
        assert!(Instant::now() < until, "{}", gateway.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

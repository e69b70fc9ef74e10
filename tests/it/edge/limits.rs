//! The places of commands in flight, over HTTP: clients at two addresses share them, and what the
//! operator sees of it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::sync_channel;

use socket2::{Domain, Socket, Type};

use crate::app::App;
use crate::client::{Connection, Request, Response};
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

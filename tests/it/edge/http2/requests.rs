//! Commands and queries over HTTP/2 get the answers that they get over HTTP/1.1.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::client::Client;
use crate::app::App;
use crate::client::{Request, Response};
use crate::ground::development;
use crate::service::Reply;

/// A response without what may differ between two of them.
fn comparable(mut response: Response) -> Response {
    let framing = ["date", "connection", "transfer-encoding"];
    response
        .headers
        .retain(|(name, _)| !framing.contains(&&**name));
    response.headers.sort();
    response
}

#[test]
fn every_answer_is_the_one_of_http1() {
    let app = App::new(development());
    let records = [("a", "{\"n\":1}"), ("b", "{\"n\":2}"), ("gone", "{}")];
    app.produce(&app.items).keyed(records);
    app.produce(&app.items).keyed([("gone", "")]);
    let settings = "[cors]\norigins = [\"https://shop.example\"]\n";
    let gateway = app.gateway_with(3, settings);
    let etag = gateway.get("/items/a");
    let etag = etag.header("etag").expect("a validator");
    let foreign = |request: Request| request.header("origin", "https://shop.example");
    let mut client = Client::open(gateway.address());
    let requests = [
        Request::get("/items/a"),
        Request::get("/items/b"),
        Request::get("/items/gone"),
        Request::get("/items/never"),
        Request::get("/items"),
        Request::new("HEAD", "/items/a"),
        Request::new("HEAD", "/items"),
        Request::get("/items/a").header("if-none-match", etag),
        Request::get("/items/a").header("if-none-match", "\"unclosed"),
        Request::get("/no/such/route"),
        Request::get("/items/../items/a"),
        Request::get("/items/%2e%2e/a"),
        Request::new("POST", "/items/a"),
        Request::new("OPTIONS", "/items/a"),
        Request::new("TRACE", "/items/a"),
        Request::get("/items/a").header("x_y", "1"),
        Request::post("/careful/a", "{}"),
        Request::post("/items/a/orders", "{}").header("content-encoding", "gzip"),
        foreign(Request::get("/items/a")),
        foreign(Request::new("OPTIONS", "/items/a")).header("access-control-request-method", "PUT"),
        foreign(Request::get("/no/such/route")),
    ];
    for request in requests {
        let (one, two) = (gateway.ask(&request), client.ask(&request));
        assert_eq!(comparable(two), comparable(one), "{request:?}");
    }
    // Too large by its announced length, and by its bytes.
    let large = vec![b'x'; 1 << 20];
    let answer = client.ask(&Request::new("PUT", "/items/a").body(&large));
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (413, "body-too-large")
    );
    assert_eq!(client.get("/items/a").status, 200, "the connection goes on");
    assert_eq!(gateway.metric("sluicegate_http2_connections_open", ""), 1.0);
    assert_eq!(gateway.status_sum("connections"), 1);
    drop(client);
    gateway.wait_admin("/metrics", |page| {
        page.text().contains("sluicegate_http2_connections_open 0")
    });
}

#[test]
fn commands_are_made_and_retried_on_streams_of_one_connection() {
    let app = App::new(development());
    let service = app.service(|record| {
        let body = format!("{{\"order\":{}}}", record.value.clone().unwrap_or_default());
        Some(Reply::new(201, &body).header("location", "/orders/7"))
    });
    let gateway = app.gateway(2);
    let mut client = Client::open(gateway.address());
    let order = |n: usize, key: &str| {
        Request::post(&format!("/items/i{n}/orders"), &n.to_string()).header("idempotency-key", key)
    };
    let sent: Vec<_> = (0..50)
        .map(|n| client.send(&order(n, &format!("\"k{n}\""))))
        .collect();
    for (n, response) in sent.into_iter().enumerate() {
        let answer = client.finish(response).expect("an answer");
        assert_eq!(
            (answer.status, answer.text()),
            (201, &*format!("{{\"order\":{n}}}"))
        );
        assert_eq!(answer.header("location"), Some("/orders/7"));
        assert_eq!(answer.header("idempotent-replayed"), None);
    }
    let again = client.ask(&order(7, "\"k7\""));
    assert_eq!((again.status, again.text()), (201, "{\"order\":7}"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = client.ask(&order(8, "\"k7\""));
    assert_eq!(other.problem(), "idempotency-key-reused");
    let hasty = client.ask(&Request::post("/hasty/x", "1").header("prefer", "respond-async"));
    assert_eq!(hasty.status, 202, "a location");
    let location = hasty.header("location").expect("a location");
    let reply = client.ask(&Request::get(location).header("prefer", "wait=20"));
    assert_eq!((reply.status, reply.text()), (201, "{\"order\":1}"));
    assert_eq!(service.seen().len(), 51);
}

#[test]
fn a_reset_stream_frees_its_place_and_its_command_stays() {
    let app = App::new(development());
    let gateway = app.gateway(1);
    let mut client = Client::open(gateway.address());
    let key = "\"once\"";
    let order = Request::post("/items/a/orders", "1").header("idempotency-key", key);
    let response = client.send(&order);
    gateway.wait_admin("/metrics", |page| {
        page.text().contains("sluicegate_commands_open 1")
    });
    drop(response);
    gateway.wait_admin("/metrics", |page| {
        let text = page.text();
        text.contains("sluicegate_commands_waiting 0")
            && text.contains("sluicegate_http2_resets_total{by=\"client\"} 1")
    });
    // The record was produced, so the retry joins the command and gets its reply.
    let response = client.send(&order);
    let _service = app.service(|_| Some(Reply::new(200, "{}")));
    assert_eq!(client.finish(response).expect("the reply").status, 200);
    assert_eq!(app.commands_in_log().len(), 1);
}

#[test]
fn curl_speaks_it_too() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "{\"n\":1}")]);
    let gateway = app.gateway(1);
    let url = format!("http://{}/items/a", gateway.address());
    let curl = Command::new("curl")
        .args([
            "-sS",
            "--http2-prior-knowledge",
            "-w",
            " %{http_version}",
            &url,
        ])
        .output()
        .expect("curl, which tests/setup installs");
    let said = String::from_utf8_lossy(&curl.stdout).into_owned();
    // One request only: curl 7.88 cannot use such a connection again (curl's issue 10634).
    assert_eq!(said, "{\"n\":1} 2", "{curl:?}");
}

/// The preface is recognised however its bytes arrive, and what only begins like it is HTTP/1.1.
#[test]
fn the_preface_may_come_byte_by_byte() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let app = App::new(development());
    let gateway = app.gateway(1);
    let mut socket = TcpStream::connect(gateway.address()).expect("connect");
    socket.set_nodelay(true).expect("no delay");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for byte in PREFACE.iter().chain(&settings) {
        socket.write_all(&[*byte]).expect("written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut head = [0; 9];
    socket.read_exact(&mut head).expect("a frame");
    assert_eq!(head[3], 4, "SETTINGS come first: {head:?}");
    for begin in 1..PREFACE.len() {
        let mut socket = TcpStream::connect(gateway.address()).expect("connect");
        socket.write_all(&PREFACE[..begin]).expect("written");
        std::thread::sleep(Duration::from_millis(2));
        socket.write_all(b"x\r\n\r\n\r\n").expect("written");
        let mut answer = Vec::new();
        socket
            .read_to_end(&mut answer)
            .expect("an answer and the end");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 "), "{begin}: {answer:?}");
    }
    let mut post = TcpStream::connect(gateway.address()).expect("connect");
    post.write_all(b"P").expect("written");
    std::thread::sleep(Duration::from_millis(20));
    post.write_all(
        b"UT /items/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: x\r\n\r\n",
    )
    .expect("written");
    let mut answer = Vec::new();
    post.read_to_end(&mut answer)
        .expect("an answer and the end");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.contains("Content-Length is not a number"),
        "{answer:?}"
    );
}

#[test]
fn it_can_be_switched_off_and_is_limited() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let off = app.gateway_with(1, "[http2]\nenabled = false\n");
    let mut socket = TcpStream::connect(off.address()).expect("connect");
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .expect("written");
    let mut answer = Vec::new();
    socket
        .read_to_end(&mut answer)
        .expect("an answer and the end");
    assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
    let one = app.gateway_with(1, "[http2]\nconnections_max = 1\nstreams_max = 2\n");
    let mut first = Client::open(one.address());
    assert_eq!(first.get("/items/a").status, 200);
    let second = Client::open(one.address());
    let error = second.wait_closed().expect_err("GOAWAY");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert_eq!(
        one.metric("sluicegate_connections_refused_total", "limit=\"http2\""),
        1.0
    );
    // Two streams at a time: the client waits with the third.
    let sent: Vec<_> = (0..5)
        .map(|_| first.send(&Request::get("/items/a")))
        .collect();
    for response in sent {
        assert_eq!(first.finish(response).expect("an answer").status, 200);
    }
}

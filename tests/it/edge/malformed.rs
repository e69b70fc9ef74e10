//! Raw bytes on real sockets: what is no request, what is too large, what comes in pieces. The
//! contract is docs/http.md.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request};
use crate::gateway::Gateway;
use crate::ground::development;
use crate::service::{Reply, Service};

/// One gateway for all tests here: whatever they send, it must serve the next.
fn gateway() -> &'static Gateway {
    static GATEWAY: OnceLock<(Gateway, Service)> = OnceLock::new();
    let (gateway, _) = GATEWAY.get_or_init(|| {
        let app = App::new(development());
        app.produce(&app.items).keyed([("a", "1")]);
        let service = app.service(|command| {
            let length = command.value.as_ref().map_or(0, String::len);
            Some(Reply::new(200, &format!("{length} bytes")))
        });
        let settings = "[cors]\norigins = [\"https://shop.example\"]\n\
                        allow_headers = [\"X-Listed\"]\nexpose_headers = [\"X-Shelf\"]\n\
                        [http]\nbody_bytes_max = \"64KiB\"\n";
        let gateway = app.gateway_with(2, settings);
        (gateway, service)
    });
    gateway
}

/// Sends bytes, expects a problem of that kind, and the close.
fn refused(bytes: &[u8], status: u16, problem: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut connection = gateway().connect();
    connection.send(bytes);
    let until = Instant::now() + PATIENCE;
    let answer = connection.response_until(false, until);
    let answer = answer.unwrap_or_else(|| panic!("no answer to {shown:?}"));
    assert_eq!(answer.status, status, "{shown:?}: {}", answer.text());
    assert_eq!(answer.problem(), problem, "{shown:?}: {}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
    connection.expect_close();
}

#[test]
fn what_is_no_request_is_refused_and_closed() {
    let heads: [&[u8]; 31] = [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /items/a\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a:http\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a%zz\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: [[[\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a\r\nx_y: z\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a\r\nx: y\x00z\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a\r\nx: y\rz\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nHost: a\r\n: z\r\n\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST /items/a/orders HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\nx\r\n",
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;bad[=x\r\n",
        b"GET /items/a HTTP/1.2\r\nx: y\r\n\r\n",
    ];
    for bytes in heads {
        refused(bytes, 400, "malformed-request");
    }
    refused(
        b"GET /items/a HTTP/2.0\r\nHost: a\r\n\r\n",
        505,
        "version-not-supported",
    );
    refused(
        b"BREW /items/a HTTP/1.1\r\nHost: a\r\n\r\n",
        501,
        "method-not-implemented",
    );
    assert_eq!(gateway().get("/items/a").text(), "1", "it serves on");
}

/// RFC 9112 3.2, RFC 9110 2.5: addresses, and a later minor version.
#[test]
fn a_host_may_be_an_address_and_http_1_2_is_read_as_1_1() {
    let mut connection = gateway().connect();
    for head in [
        "GET /items/a HTTP/1.1\r\nHost: [::1]:8080",
        "GET /items/a HTTP/1.1\r\nHost: [v1.a:b]",
        "GET /items/a HTTP/1.1\r\nHost: a:",
        "GET http://[2001:db8::1]/items/a HTTP/1.1\r\nHost: a",
        "GET /items/a HTTP/1.2\r\nHost: a",
        "GET /items/a HTTP/1.9\r\nHost: a",
    ] {
        connection.send(format!("{head}\r\n\r\n").as_bytes());
        let answer = connection.response(false);
        assert_eq!((answer.status, answer.text()), (200, "1"), "{head}");
        assert_eq!(answer.header("connection"), None, "it goes on: {head}");
    }
}

/// Browsers do not encode these bytes in a query (WHATWG URL, query percent-encode set).
#[test]
fn a_query_may_have_what_browsers_leave_in_it() {
    for byte in "!$&'()*+,-./:;=?@[\\]^_`{|}~".chars() {
        let answer = gateway().get(&format!("/items/a?x={byte}"));
        assert_eq!(answer.status, 200, "{byte}");
    }
    for bad in ["\"", "<", ">", "#x", "%zz", "\u{fc}"] {
        let answer = gateway().get(&format!("/items/a?x={bad}"));
        assert_eq!(answer.status, 400, "{bad}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for path in [
        "//",
        "/items/../x",
        "/items/%2e%2E/x",
        "/items/a%2Fb",
        "/a%5Cb",
        "/%zz",
        "/%ff",
    ] {
        let answer = gateway().get(path);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "ambiguous-target"),
            "{path}"
        );
    }
    assert_eq!(gateway().get("/items/a/").status, 404, "another path");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let long = "x".repeat(100_000);
    let head = format!("GET /items/a HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n");
    refused(head.as_bytes(), 431, "head-too-large");
    let many = "x: y\r\n".repeat(100);
    let head = format!("GET /items/a HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    refused(head.as_bytes(), 431, "head-too-large");
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000));
    refused(head.as_bytes(), 414, "uri-too-long");
    let line = "POST /items/a/orders HTTP/1.1\r\nHost: a\r\n";
    // Announced: not a byte of it is waited for.
    let head = format!("{line}Content-Length: 65537\r\n\r\n");
    refused(head.as_bytes(), 413, "body-too-large");
    let head = format!("{line}Content-Length: 99999999999999999999999\r\n\r\n");
    let mut connection = gateway().connect();
    connection.send(head.as_bytes());
    assert!([400, 413].contains(&connection.response(false).status));
    connection.expect_close();
    // Not announced: cut as soon as it is over.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let body = format!(
        "{line}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(3)
    );
    refused(body.as_bytes(), 413, "body-too-large");
    // At the limit it is taken.
    let most = gateway().ask(&Request::post("/items/a/orders", &"x".repeat(65_536)));
    assert_eq!((most.status, most.text()), (200, "65536 bytes"));
}

#[test]
fn an_early_answer_arrives_though_the_body_still_comes() {
    // The answer is given after the head; a reset must not eat it while the client still writes.
    for _ in 0..20 {
        let socket = TcpStream::connect(gateway().address()).expect("connect");
        let mut writer = socket.try_clone().expect("a second handle");
        let mut connection = Connection::over(Box::new(socket));
        let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
        connection.send(head.as_bytes());
        let sent = std::thread::spawn(move || {
            for _ in 0..60 {
                if writer.write_all(&[b'x'; 1000]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let answer = connection.response(false);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (404, "no-such-route")
        );
        sent.join().expect("it writes or is told to stop");
    }
}

#[test]
fn nothing_behind_a_refused_request_is_read_as_one() {
    // What follows a refusal may be its body: a second answer would be request smuggling.
    let inner = "GET /items/a HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = format!(
        "POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n{inner}{inner}"
    );
    refused(bytes.as_bytes(), 413, "body-too-large");
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let request = Request::post("/items/a/orders", "{\"n\":12345}").bytes();
    let mut connection = gateway().connect();
    for size in [1, 2, 3, 7, 50] {
        for piece in request.chunks(size) {
            connection.send(piece);
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(
            connection.response(false).text(),
            "11 bytes",
            "pieces of {size}"
        );
    }
    let chunked = b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;ext=1\r\nhello\r\n006\r\n world\r\n0\r\ntrailer: x\r\n\r\n";
    for piece in chunked.chunks(3) {
        connection.send(piece);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(connection.response(false).text(), "11 bytes");
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let mut connection = gateway().connect();
    connection.send(
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(connection.response(false).status, 100);
    connection.send(b"hello");
    assert_eq!(connection.response(false).text(), "5 bytes");
    connection.send(
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n",
    );
    assert_eq!(connection.response(false).problem(), "expectation-failed");
}

/// RFC 9110 10.1.1: the body of a refused request is not asked for.
#[test]
fn a_client_that_asks_first_is_refused_before_it_sends() {
    let asks = |head: &str| {
        let mut connection = gateway().connect();
        let rest = "Host: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        connection.send(format!("{head}\r\n{rest}").as_bytes());
        let answer = connection.response(false);
        if answer.status == 100 {
            return (100, String::new());
        }
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        connection.expect_close();
        (answer.status, answer.problem())
    };
    for (head, status, problem) in [
        ("POST /items/a/orders HTTP/1.1", 100, ""),
        ("POST /careful/a HTTP/1.1\r\nIdempotency-Key: k", 100, ""),
        ("POST /nowhere HTTP/1.1", 404, "no-such-route"),
        ("POST /items HTTP/1.1", 405, "method-not-allowed"),
        ("POST /careful/a HTTP/1.1", 400, "idempotency-key-required"),
        (
            "POST /careful/a HTTP/1.1\r\nIdempotency-Key: ",
            400,
            "malformed-header",
        ),
        (
            "POST /items/a/orders HTTP/1.1\r\nIf-Match: W/\"1\"",
            412,
            "precondition-failed",
        ),
        (
            "POST /items/a/orders HTTP/1.1\r\nIf-None-Match: \"",
            400,
            "malformed-header",
        ),
    ] {
        assert_eq!(asks(head), (status, problem.to_owned()), "{head}");
    }
    let long = format!("Content-Type: {}", "x".repeat(5000));
    let head = format!("POST /items/a/orders HTTP/1.1\r\n{long}");
    assert_eq!(asks(&head), (431, "head-too-large".to_owned()));
}

#[test]
fn old_clients_and_those_who_say_so_are_closed() {
    let mut connection = gateway().connect();
    connection.send(b"GET /items/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = connection.response(false);
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("1", Some("close"))
    );
    connection.expect_close();
    let mut connection = gateway().connect();
    connection.send(b"GET /items/a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response(false).text(), "1");
    connection.expect_close();
    let mut connection = gateway().connect();
    connection.send(b"GET /items HTTP/1.0\r\n\r\n");
    let answer = connection.response(false);
    assert_eq!(
        (answer.text().trim(), answer.header("transfer-encoding")),
        ("[1]", None)
    );
}

#[test]
fn a_path_that_is_there_says_what_it_takes() {
    let answer = gateway().ask(&Request::new("DELETE", "/items"));
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (405, "method-not-allowed")
    );
    let mut allowed: Vec<_> = answer.header("allow").expect("Allow").split(", ").collect();
    allowed.sort_unstable();
    allowed.retain(|method| *method != "OPTIONS");
    assert_eq!(allowed, ["GET", "HEAD"]);
    let answer = gateway().get("/nowhere");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (404, "no-such-route")
    );
    assert!(
        !answer.text().contains("nowhere"),
        "what was sent is not repeated"
    );
}

#[test]
fn pages_of_listed_origins_may_ask() {
    let preflight = |origin: &str, method: &str| {
        let request = Request::new("OPTIONS", "/items/a/orders").header("origin", origin);
        let request = request.header("access-control-request-method", method);
        let headers = "content-type,idempotency-key,if-match";
        gateway().ask(&request.header("access-control-request-headers", headers))
    };
    let ours = "https://shop.example";
    let answer = preflight(ours, "POST");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some(ours));
    let methods = answer
        .header("access-control-allow-methods")
        .expect("methods");
    assert!(
        methods.split(", ").any(|method| method == "POST"),
        "{methods}"
    );
    let headers = answer
        .header("access-control-allow-headers")
        .expect("headers");
    let headers = headers.to_ascii_lowercase();
    for name in [
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "traceparent",
        "tracestate",
        "baggage",
        "x-listed",
    ] {
        assert!(
            headers.split(", ").any(|it| it == name),
            "{name}: {headers}"
        );
    }
    for other in [
        "https://shop.example.evil",
        "http://shop.example",
        "null",
        "https://Shop.example",
    ] {
        let answer = preflight(other, "POST");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{other}"
        );
    }
    // Answers carry it too, also refusals, and say that they depend on it.
    for target in ["/items/a", "/items/none", "/nowhere"] {
        let answer = gateway().ask(&Request::get(target).header("origin", ours));
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(ours),
            "{target}"
        );
        let vary = answer.header("vary").unwrap_or_default();
        assert!(vary.eq_ignore_ascii_case("origin"), "{target}: {vary}");
        let exposed = answer.header("access-control-expose-headers");
        let exposed = exposed.expect("a list").to_ascii_lowercase();
        for name in ["etag", "idempotent-replayed", "retry-after", "x-shelf"] {
            assert!(
                exposed.split(", ").any(|it| it == name),
                "{name}: {exposed}"
            );
        }
        let other = Request::get(target).header("origin", "https://evil.example");
        let answer = gateway().ask(&other);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{target}"
        );
    }
}

/// A page must be able to read why its request was refused, even before routing. If the head was
/// read, its origin counts. Otherwise the answer varies by origin, for caches.
#[test]
fn refusals_of_the_connection_carry_cors_headers() {
    let ours = "https://shop.example";
    let ask = |origin: &str, rest: &str| {
        let mut connection = gateway().connect();
        let head = format!("POST /items/a/orders HTTP/1.1\r\nOrigin: {origin}\r\n");
        connection.send(format!("{head}{rest}").as_bytes());
        let answer = connection.response(false);
        let vary = answer.header("vary").unwrap_or_default().to_owned();
        assert!(vary.eq_ignore_ascii_case("origin"), "{rest:?}: {answer:?}");
        let allowed = answer.header("access-control-allow-origin");
        (answer.status, allowed.map(str::to_owned))
    };
    let long = "x: ".to_owned() + &"y".repeat(100_000) + "\r\n";
    let many = "x: y\r\n".repeat(100);
    for (status, read, rest) in [
        (400, true, "\r\n"),
        (400, true, "Host: a b\r\n\r\n"),
        (
            400,
            true,
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ),
        (400, true, "Host: a\r\nTransfer-Encoding: chunked\r\n\r\nx"),
        (413, true, "Host: a\r\nContent-Length: 65537\r\n\r\n"),
        (
            413,
            true,
            "Host: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        ),
        (
            415,
            true,
            "Host: a\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\n",
        ),
        (417, true, "Host: a\r\nExpect: tea\r\n\r\n"),
        (400, false, "Host : a\r\n\r\n"),
        (431, false, &long),
        (431, false, &format!("{many}\r\n")),
    ] {
        let allowed = read.then(|| ours.to_owned());
        assert_eq!(ask(ours, rest), (status, allowed), "{rest:?}");
        assert_eq!(
            ask("https://evil.example", rest),
            (status, None),
            "{rest:?}"
        );
    }
}

#[test]
fn who_never_finishes_a_request_is_closed() {
    let app = App::new(development());
    let settings = "[http]\nhead_timeout = \"300ms\"\nbody_timeout = \"300ms\"\n\
                    idle_timeout = \"300ms\"\n[cors]\norigins = [\"https://shop.example\"]\n";
    let gateway = app.gateway_with(1, settings);
    let mut head = gateway.connect();
    head.send(b"GET /items/a HTTP/1.1\r\nHo");
    let mut body = gateway.connect();
    body.send(
        b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\n\
          Content-Length: 5\r\n\r\nhe",
    );
    for (mut connection, origin) in [(head, None), (body, Some("https://shop.example"))] {
        let answer = connection.response(false);
        assert_eq!(answer.header("vary"), Some("origin"));
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (408, "request-timeout")
        );
        connection.expect_close();
    }
    let mut idle = gateway.connect();
    assert_eq!(idle.ask(&Request::get("/items/a")).status, 404);
    idle.expect_close();
    let mut silent = gateway.connect();
    silent.expect_close();
}

//! Tests of the receiving side as a whole: clauses and attack vectors.

use super::check::{Reading, Seen, read_pieces, small_limits};
use super::*;

/// A head with the given headers, for tests of what reads them.
pub(super) struct HeadersOf(Vec<u8>, HeaderTable);

pub(super) fn headers_of(headers: &[(&str, &str)]) -> HeadersOf {
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for (name, value) in headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let mut table = HeaderTable::new();
    let parsed = head::parse(&head, &Limits::default(), &mut table);
    parsed.map_err(|it| it.refusal).expect("a test's own head");
    HeadersOf(head, table)
}

impl HeadersOf {
    pub(super) fn headers(&self) -> Headers<'_> {
        self.1.headers(&self.0)
    }
}

fn read(bytes: &[u8]) -> Reading {
    read_pieces(&[bytes], &Limits::default())
}

/// The one request in `bytes`.
fn one(bytes: &[u8]) -> Seen {
    let mut reading = read(bytes);
    assert_eq!(reading.refused, None, "{}", bytes.escape_ascii());
    assert_eq!(reading.requests.len(), 1, "{}", bytes.escape_ascii());
    reading.requests.remove(0)
}

/// How `bytes` are refused, which must happen before any request is read.
fn fault(bytes: &[u8]) -> Fault {
    let reading = read(bytes);
    assert_eq!(reading.requests, [], "{}", bytes.escape_ascii());
    let (refusal, _) = reading.refused.expect("refused, since no request was read");
    refusal.fault
}

/// A request around what a vector is about.
fn get(headers: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n").into_bytes()
}

pub(super) fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}").into_bytes()
}

#[test]
fn a_request_is_read_in_its_parts() {
    let seen = one(
        b"POST /a%20b/c?x=1&y=%2F HTTP/1.1\r\nHost: api.example:8080\r\nX-A: 1\r\n\
        x-a:\t2 \r\nEmpty:\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_eq!(seen.method, Method::Post);
    assert_eq!(
        (seen.path.as_str(), seen.raw.as_str()),
        ("/a b/c", "/a%20b/c")
    );
    assert_eq!(
        seen.query,
        [("x".into(), "1".into()), ("y".into(), "/".into())]
    );
    assert_eq!(
        seen.headers[1..3],
        [("X-A".into(), b"1".into()), ("x-a".into(), b"2".into())]
    );
    assert_eq!(seen.headers[3], ("Empty".into(), Vec::new()));
    assert_eq!(seen.body, b"body");
    assert_eq!(seen.host, "api.example:8080");
    assert!(seen.keep_alive && seen.version == Version::Http11);
}

#[test]
fn headers_are_found_in_any_case() {
    let head = headers_of(&[("X-One", "a, B"), ("x-ONE", "c"), ("Alone", "\u{fc}")]);
    let headers = head.headers();
    assert_eq!(headers.get("x-one"), Some(&b"a, B"[..]));
    assert_eq!(headers.get_all("X-ONE").count(), 2);
    assert_eq!(headers.get("x-on"), None);
    assert!(headers.one("x-one").is_err());
    assert_eq!(headers.one("alone"), Ok(Some("\u{fc}".as_bytes())));
    assert!(headers.lists("x-one", "b") && headers.lists("x-one", "C"));
    assert!(!headers.lists("x-one", "a, b"));
    assert_eq!(headers.len(), 4);
    assert!(
        !format!("{headers:?}").contains("a, B"),
        "values may be secret"
    );
}

/// RFC 9110 2.5: a later minor version is read as the highest that is known.
#[test]
fn a_later_minor_version_is_read_as_1_1() {
    for minor in 2..=9 {
        let text = format!(
            "POST /a%20b?x=1 HTTP/1.{minor}\r\nHost: x\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nab"
        );
        let seen = one(text.as_bytes());
        assert_eq!(seen.version, Version::Http11);
        assert!(seen.keep_alive && seen.body == b"ab" && seen.path == "/a b");
        assert_eq!(seen.headers[1], ("X-A".into(), b"1".into()));
        // A later version follows the same rules as any other.
        for (bad, expected) in [
            (text.replace("Host: x\r\n", ""), Fault::MalformedRequest),
            (text.replace("X-A: 1", "X_A: 1"), Fault::MalformedRequest),
            (text.replace("X-A: 1", "X-A : 1"), Fault::MalformedRequest),
            (text.replace("X-A: 1", "X-A: \0"), Fault::MalformedRequest),
            (
                text.replace("X-A: 1", "Transfer-Encoding: chunked"),
                Fault::MalformedRequest,
            ),
            (text.replace("/a%20b", "/a//b"), Fault::AmbiguousTarget),
            (text.replace("/a%20b", "/\u{fc}"), Fault::MalformedRequest),
            (text.replace(" HTTP", "  HTTP"), Fault::MalformedRequest),
            (text.replace("\r\nHost", "\rHHost"), Fault::MalformedRequest),
            (
                text.replace("\r\nHost", "\r\rHost"),
                Fault::MalformedRequest,
            ),
            (
                text.replace("\r\nHost", " \r\nHost"),
                Fault::MalformedRequest,
            ),
            (
                text.replace("X-A: 1", "X-A: 1\r\n b"),
                Fault::MalformedRequest,
            ),
            (text.replace("X-A: 1", "X-A"), Fault::MalformedRequest),
            (text.replace("POST", "BREW"), Fault::MethodNotImplemented),
            (
                text.replace("X-A: 1", &["X: y"; 64].join("\r\n")),
                Fault::HeadTooLarge,
            ),
        ] {
            assert_eq!(fault(bad.as_bytes()), expected, "{bad}");
        }
    }
}

/// The answer to a refused request tells the browser whether a page may read it.
#[test]
fn a_refused_request_keeps_its_origin_where_its_head_was_read() {
    let mut table = HeaderTable::new();
    let origin = |bytes: &[u8]| {
        let reading = read(bytes);
        assert!(reading.refused.is_some(), "{}", bytes.escape_ascii());
        reading
            .origin
            .map(|it| String::from_utf8(it.into()).expect("text"))
    };
    let ours = "Origin: https://a.example\r\n";
    for rest in [
        "Host: a b",
        "Host: x\r\nContent-Length: 99999999",
        "Host: x\r\nContent-Encoding: br\r\nContent-Length: 1",
        "Host: x\r\nExpect: tea",
        "Host: x\r\nX_A: 1",
        "Host: x\r\nTransfer-Encoding: chunked\r\n\r\nx",
        "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
    ] {
        let bytes = format!("POST /a HTTP/1.1\r\n{ours}{rest}\r\n\r\n");
        assert_eq!(
            origin(bytes.as_bytes()).as_deref(),
            Some("https://a.example"),
            "{rest}"
        );
        let two = bytes.replace(ours, &ours.repeat(2));
        assert_eq!(origin(two.as_bytes()), None, "two are none: {rest}");
    }
    for unread in [
        format!("POST /a HTTP/1.1\r\n{ours}X : y\r\n\r\n"),
        format!("POST /a HTTP/2.0\r\n{ours}\r\n"),
        format!("POST /a HTTP/1.1\n{ours}\r\n"),
        format!("POST /a HTTP/1.1\r\n{ours}{}\r\n", "X: y\r\n".repeat(64)),
    ] {
        assert_eq!(origin(unread.as_bytes()), None, "{unread}");
    }
    // An origin is known while the body is awaited, but not while the head is incomplete.
    let limits = Limits::default();
    let mut connection = Connection::new();
    let head = format!("POST /a HTTP/1.1\r\nHost: x\r\n{ours}Content-Length: 5\r\n\r\nab");
    for (bytes, expected) in [
        (&head[..30], None),
        (&head[30..], Some(&b"https://a.example"[..])),
    ] {
        assert!(matches!(
            connection.receive(bytes.as_bytes(), &limits, &mut table),
            Received::More
        ));
        assert_eq!(connection.origin(&limits).as_deref(), expected);
    }
}

/// RFC 9112 3.2: the four forms of a target.
#[test]
fn targets_have_three_forms_here() {
    let seen = one(b"GET http://B.example:81/p?q HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (seen.host.as_str(), seen.path.as_str()),
        ("B.example:81", "/p")
    );
    let seen = one(b"GET https://b?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((seen.host.as_str(), seen.path.as_str()), ("b", "/"));
    assert_eq!(seen.query, [("q".into(), "1".into())]);
    assert_eq!(one(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path, "*");
    assert_eq!(one(b"GET / HTTP/1.0\r\n\r\n").host, "");
    for target in [
        "*",
        "a",
        "a:80",
        "ftp://b/",
        "http:/b",
        "http:///p",
        "http://u@b/",
        "http://:80/",
        "//b/p",
        "/a//b",
        "/a/../b",
        "/%2e%2e",
        "/a%2fb",
        "/a#f",
        "/?%zz",
        "http://b#f",
        "?q",
        "/a\\b",
        "http://b/a/./b",
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(fault(bytes.as_bytes()), Fault::AmbiguousTarget, "{target}");
    }
}

#[test]
fn other_faults_have_answers_of_their_own() {
    for (bytes, expected) in [
        (
            &b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            Fault::MethodNotImplemented,
        ),
        (
            b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
            Fault::MethodNotImplemented,
        ),
        (
            b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
            Fault::MethodNotImplemented,
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Fault::VersionNotSupported,
        ),
        (
            b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
            Fault::VersionNotSupported,
        ),
        (
            b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
            Fault::VersionNotSupported,
        ),
        (
            &post("Expect: 200-ok\r\nContent-Length: 1", ""),
            Fault::ExpectationFailed,
        ),
        (&get("Expect: 100-continue, x"), Fault::ExpectationFailed),
        (
            &post("Content-Encoding: gzip\r\nContent-Length: 1", "x"),
            Fault::ContentCoding,
        ),
        (
            &post("Content-Encoding: br\r\nTransfer-Encoding: chunked", ""),
            Fault::ContentCoding,
        ),
        (&post("Content-Length: 1048577", ""), Fault::BodyTooLarge),
        (
            &post("Content-Length: 9999999999999999999", ""),
            Fault::BodyTooLarge,
        ),
        (
            &post("Transfer-Encoding: chunked", "100001\r\n"),
            Fault::BodyTooLarge,
        ),
    ] {
        assert_eq!(fault(bytes), expected, "{}", bytes.escape_ascii());
    }
    // Without a body a coding means nothing; `identity` never does.
    one(&get("Content-Encoding: gzip"));
    one(&post(
        "Content-Encoding: identity\r\nContent-Length: 1",
        "x",
    ));
}

/// RFC 9112 9.3: persistence by version and option.
#[test]
fn a_connection_goes_on_as_the_client_asks() {
    for (version, headers, keep_alive) in [
        ("1.1", "X: y", true),
        ("1.1", "Connection: close", false),
        ("1.1", "Connection: upgrade, Close", false),
        ("1.1", "Connection: x\r\nConnection: close", false),
        ("1.1", "Connection: keep-alive", true),
        ("1.1", "Connection: disclose", true),
        ("1.0", "X: y", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
        ("1.0", "Keep-Alive: timeout=5", false),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: x\r\n{headers}\r\n\r\n");
        assert_eq!(
            one(bytes.as_bytes()).keep_alive,
            keep_alive,
            "{version} {headers}"
        );
    }
}

/// RFC 9112 9.3.2, and CVE-2026-2833: an upgrade that is not taken leaves plain requests.
#[test]
fn pipelined_requests_are_read_in_order() {
    let bytes = [
        &post("Content-Length: 3", "abc")[..],
        b"\r\n",
        &get("Connection: upgrade\r\nUpgrade: h2c"),
        &post("Transfer-Encoding: chunked", "2\r\nde\r\n0\r\n\r\n"),
        &post("Content-Length: 1", "f"),
        &get("X: y"),
        b"GET / HT",
    ]
    .concat();
    for pieces in [
        &[&bytes[..]][..],
        &bytes.chunks(1).collect::<Vec<_>>(),
        &[b"", &bytes],
    ] {
        let reading = read_pieces(pieces, &Limits::default());
        let bodies: Vec<_> = reading.requests.iter().map(|r| r.body.as_slice()).collect();
        assert_eq!(bodies, [&b"abc"[..], b"", b"de", b"f", b""]);
        assert!(reading.started && reading.refused.is_none());
    }
}

/// RFC 9110 10.1.1: 100 (Continue) is sent for an expectation, once.
#[test]
fn an_expecting_client_is_told_to_go_on_once() {
    let mut table = HeaderTable::new();
    let limits = Limits::default();
    for (framing, body) in [
        ("Content-Length: 2", &b"ab"[..]),
        ("Transfer-Encoding: chunked", b"2\r\nab\r\n0\r\n\r\n"),
    ] {
        let head = post(&format!("Expect: 100-Continue\r\n{framing}"), "");
        let mut connection = Connection::new();
        assert!(matches!(
            connection.receive(&head, &limits, &mut table),
            Received::Continue(request) if request.path.as_str() == "/" && request.body.is_empty()
        ));
        assert!(connection.awaits_body() && connection.started());
        assert!(matches!(
            connection.receive(&body[..1], &limits, &mut table),
            Received::More
        ));
        match connection.receive(&body[1..], &limits, &mut table) {
            Received::Request(request, used) => {
                assert_eq!((request.body, used), (&b"ab"[..], body.len() - 1));
            }
            other => panic!("{other:?}"),
        }
        assert!(!connection.started() && !connection.awaits_body());
        // A body that has arrived with its head needs no 100 (Continue), nor does a body that will
        // not be sent.
        let whole = [&head[..], body].concat();
        let received = connection.receive(&whole, &limits, &mut table);
        assert!(matches!(received, Received::Request(_, used) if used == whole.len()));
        let part = &whole[..head.len() + 1];
        assert!(matches!(
            connection.receive(part, &limits, &mut table),
            Received::More
        ));
    }
    let none = post("Expect: 100-continue\r\nContent-Length: 0", "");
    assert!(matches!(
        Connection::new().receive(&none, &limits, &mut table),
        Received::Request(..)
    ));
    let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert!(matches!(
        Connection::new().receive(old, &limits, &mut table),
        Received::More
    ));
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = small_limits();
    let reading = |bytes: &[u8]| {
        let whole = read_pieces(&[bytes], &limits);
        let bytewise = read_pieces(&bytes.chunks(1).collect::<Vec<_>>(), &limits);
        assert_eq!(whole, bytewise);
        match whole.refused {
            Some((refusal, _)) => Err(refusal.fault),
            None => Ok(whole.requests.len()),
        }
    };
    let head = |len: usize| {
        let start = "GET / HTTP/1.1\r\nHost: x\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(len - start.len() - 4)).into_bytes()
    };
    assert_eq!(reading(&head(512)), Ok(1));
    assert_eq!(reading(&head(513)), Err(Fault::HeadTooLarge));
    assert_eq!(reading(&head(513)[..511]), Ok(0));
    assert_eq!(reading(&head(513)[..512]), Err(Fault::HeadTooLarge));

    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(len - 1));
    assert_eq!(reading(target(64).as_bytes()), Ok(1));
    assert_eq!(reading(target(65).as_bytes()), Err(Fault::UriTooLong));
    assert_eq!(reading(target(2000).as_bytes()), Err(Fault::UriTooLong));

    let headers = |count: usize| get(&vec!["X: y"; count - 1].join("\r\n"));
    assert_eq!(reading(&headers(8)), Ok(1));
    assert_eq!(reading(&headers(9)), Err(Fault::HeadTooLarge));

    let body = |len: usize| post(&format!("Content-Length: {len}"), &"b".repeat(len));
    assert_eq!(reading(&body(128)), Ok(1));
    assert_eq!(reading(&body(129)), Err(Fault::BodyTooLarge));
    let chunk = |len: usize| format!("{len:x}\r\n{}\r\n", "b".repeat(len));
    let chunked = |a, b| {
        post(
            "Transfer-Encoding: chunked",
            &(chunk(a) + &chunk(b) + "0\r\n\r\n"),
        )
    };
    assert_eq!(reading(&chunked(100, 28)), Ok(1));
    assert_eq!(reading(&chunked(100, 29)), Err(Fault::BodyTooLarge));
}

#[test]
fn a_refused_connection_stays_refused() {
    let mut table = HeaderTable::new();
    let limits = Limits::default();
    let mut connection = Connection::new();
    for _ in 0..2 {
        // The second would be a fine request, were it not the smuggled one.
        for bytes in [&b"GET /\r\n\r\n"[..], &get("X: y"), b""] {
            let received = connection.receive(bytes, &limits, &mut table);
            assert!(matches!(received, Received::Refused(..)));
        }
        connection.keep(b"rest");
        assert!(!connection.started());
    }
}

#[test]
fn a_refusal_of_head_says_so() {
    let reading = read(b"HEAD /a//b HTTP/1.0\r\n\r\n");
    let (_, context) = reading.refused.expect("an empty segment");
    assert!(context.head_only && context.version == Version::Http10);
}

/// The idle connection of DESIGN: a few hundred bytes in all, so no buffer and a small struct.
#[test]
fn an_idle_connection_holds_nothing() {
    let mut table = HeaderTable::new();
    const { assert!(size_of::<Connection>() <= 104) };
    let limits = Limits::default();
    let mut connection = Connection::new();
    let bytes = post("Content-Length: 3", "abc");
    assert!(matches!(
        connection.receive(&bytes[..20], &limits, &mut table),
        Received::More
    ));
    assert!(connection.started() && connection.kept() == 20);
    assert!(matches!(
        connection.receive(&bytes[20..], &limits, &mut table),
        Received::Request(..)
    ));
    assert!(!connection.started() && connection.kept() == 0);
    assert!(matches!(
        connection.receive(b"\r\n", &limits, &mut table),
        Received::More
    ));
    assert!(
        !connection.started(),
        "an empty line before a request is no request"
    );
    assert!(matches!(
        connection.receive(&bytes, &limits, &mut table),
        Received::Request(..)
    ));
    assert!(matches!(
        connection.receive(b"", &limits, &mut table),
        Received::More
    ));
    assert_eq!(
        format!("{connection:?}"),
        format!("{:?}", Connection::new())
    );
}

/// Sending byte by byte costs as much as sending all at once, but for the calls: the head is
/// scanned once.
#[test]
fn a_slow_client_costs_no_more_than_a_fast_one() {
    let mut table = HeaderTable::new();
    let limits = Limits::default();
    let body = "1;x\r\nb\r\n".repeat(1000) + "0\r\n\r\n";
    let bytes = post(
        &format!("X: {}\r\nTransfer-Encoding: chunked", "y".repeat(30_000)),
        &body,
    );
    let mut connection = Connection::new();
    for byte in &bytes[..bytes.len() - 1] {
        let received = connection.receive(std::slice::from_ref(byte), &limits, &mut table);
        assert!(matches!(received, Received::More));
        assert!(connection.kept() <= 30_100 + 1000, "framing is not kept");
    }
    let last = connection.receive(&bytes[bytes.len() - 1..], &limits, &mut table);
    assert!(matches!(last, Received::Request(request, 1) if request.body.len() == 1000));
}

//! Answers before the request is complete: the client sees the answer and the end at once, whatever
//! it still sends.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{Connection, PATIENCE};
use crate::gateway::Gateway;
use crate::ground::development;

/// The longest time from the answer to the end. A gateway that waited for the client first would
/// take a second, for which it discards input.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Number of tries. At least a single try must be in time: the machine is busy with other work.
const TRIES: usize = 5;

/// Requests that are refused before they are complete, and their status.
fn early() -> Vec<(&'static str, Vec<u8>, u16)> {
    let post = |more: &str| {
        let head = format!("POST /items/a/orders HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        head.into_bytes()
    };
    let headers = "x: y\r\n".repeat(100);
    vec![
        ("no request", b"nonsense\r\n\r\n".to_vec(), 400),
        ("two hosts", post("Host: b\r\n"), 400),
        ("a body too large", post("Content-Length: 1000000\r\n"), 413),
        (
            "a chunk too large",
            [
                post("Transfer-Encoding: chunked\r\n"),
                b"fffff\r\n".to_vec(),
            ]
            .concat(),
            413,
        ),
        (
            "no chunk",
            [post("Transfer-Encoding: chunked\r\n"), b"-1\r\n".to_vec()].concat(),
            400,
        ),
        ("too many headers", post(&headers), 431),
        (
            "a long target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)).into_bytes(),
            414,
        ),
        (
            "a coded body",
            post("Content-Length: 50000\r\nContent-Encoding: gzip\r\n"),
            415,
        ),
        (
            "another expectation",
            post("Content-Length: 50000\r\nExpect: cake\r\n"),
            417,
        ),
        (
            "no such route, before the body",
            b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\
              Expect: 100-continue\r\n\r\n"
                .to_vec(),
            404,
        ),
        (
            "no method of the route, before the body",
            b"POST /items-now HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\
              Expect: 100-continue\r\n\r\n"
                .to_vec(),
            405,
        ),
        (
            "another method",
            b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            501,
        ),
        (
            "another version",
            b"GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_vec(),
            505,
        ),
        ("half a head", b"GET /items/a HTT".to_vec(), 408),
        ("half a body", post("Content-Length: 9\r\n"), 408),
    ]
}

fn gateway() -> Gateway {
    let app = App::new(development());
    app.produce(&app.items)
        .keyed([("secret", "a smuggled answer"), ("next", "the next answer")]);
    let settings = "[http]\nbody_bytes_max = \"64KiB\"\nhead_timeout = \"100ms\"\n\
                    body_timeout = \"100ms\"\n";
    app.gateway_with(1, settings)
}

/// Reads to the end. Returns the time from the answer to the end.
fn end_after_the_answer(connection: &mut Connection, what: &str, status: u16) -> Duration {
    let answer = connection.response_until(false, Instant::now() + PATIENCE);
    let answered = Instant::now();
    let answer = answer.unwrap_or_else(|| panic!("{what}: no answer"));
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{what}");
    let end = connection.try_more(Instant::now() + PATIENCE);
    assert_eq!(end, Ok(false), "{what}: an end and no reset");
    answered.elapsed()
}

#[test]
fn the_end_comes_with_the_answer() {
    let gateway = gateway();
    for (what, request, status) in early() {
        let mut times = Vec::new();
        while times.iter().all(|time| *time > AT_ONCE) {
            assert!(times.len() < TRIES, "{what}: {times:?}");
            let mut connection = gateway.connect();
            connection.send(&request);
            times.push(end_after_the_answer(&mut connection, what, status));
        }
    }
}

#[test]
fn what_is_sent_behind_an_early_answer_does_not_destroy_it() {
    let gateway = gateway();
    let body = vec![b'x'; 40_000];
    for (what, request, status) in early().into_iter().filter(|(.., status)| *status != 408) {
        // The body comes with the request, and after it. A body that has arrived is not asked for:
        // its request is answered when it is complete.
        if !what.contains("before the body") {
            let mut connection = gateway.connect();
            connection.send(&[&request[..], &body[..]].concat());
            end_after_the_answer(&mut connection, what, status);
        }
        let mut connection = gateway.connect();
        connection.send(&request);
        std::thread::sleep(Duration::from_millis(20));
        connection.send(&body[..20_000]);
        std::thread::sleep(Duration::from_millis(20));
        connection.send(&body[..20_000]);
        end_after_the_answer(&mut connection, what, status);
    }
}

/// A client that ends its side after the answer is closed at once, any other after a second.
#[test]
fn a_connection_with_an_early_answer_does_not_stay() {
    let gateway = gateway();
    let mut connection = gateway.connect();
    connection.send(b"nonsense\r\n\r\n");
    end_after_the_answer(&mut connection, "no request", 400);
    gateway.wait_admin("/status", |_| gateway.status_sum("connections") == 0);
    drop(connection);
}

/// Reads all answers to the end of the connection.
fn answers(connection: &mut Connection, what: &str) -> Vec<(u16, String)> {
    let mut all = Vec::new();
    loop {
        match connection.try_more(Instant::now() + PATIENCE) {
            Ok(true) => {}
            Ok(false) => break,
            // Behind the answer, a reset is an end.
            Err(said) => {
                assert!(said.contains("reset"), "{what}: {said}");
                break;
            }
        }
    }
    let bytes = connection.take_ahead();
    let text = String::from_utf8(bytes).expect("answers are text here");
    for part in text.split("HTTP/1.1 ").skip(1) {
        let status = part.get(..3).and_then(|it| it.parse().ok());
        all.push((status.expect("a status"), part.to_owned()));
    }
    all
}

/// RFC 9112 9.3 and 11.2, Pingora's CVE-2025-4366: whatever the body is and however it was cut, a
/// byte of it is never read as a request, and nothing behind an early answer is served.
#[test]
fn no_byte_behind_an_early_answer_is_read_as_a_request() {
    let gateway = gateway();
    let smuggled = b"GET /items/secret HTTP/1.1\r\nHost: a\r\n\r\n";
    let next = b"GET /items/next HTTP/1.1\r\nHost: a\r\n\r\n";
    let bodies: [(&str, Vec<u8>); 3] = [
        ("no body", Vec::new()),
        ("a request as the body", smuggled.to_vec()),
        ("many requests as the body", smuggled.repeat(500)),
    ];
    let mut runs = 0;
    // A request that asks before it sends its body is answered like any other if the body comes
    // without being asked for.
    let early = early().into_iter();
    let early = early.filter(|(what, _, status)| *status != 408 && !what.contains("before"));
    for (what, request, status) in early {
        for (kind, body) in &bodies {
            let all = [&request[..], body, next].concat();
            // Whole, then cut at every position of the request and just behind it.
            let cuts =
                (0..request.len() + 4).filter(|at| *at == 0 || request.len() < 400 || at % 97 == 0);
            for at in cuts {
                let mut connection = gateway.connect();
                let (one, two) = all.split_at(at);
                connection.send(one);
                connection.send(two);
                let what = format!("{what}, {kind}, cut at {at}");
                let answers = answers(&mut connection, &what);
                let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
                assert_eq!(statuses, [status], "{what}: {answers:?}");
                assert!(!answers[0].1.contains("smuggled"), "{what}");
                runs += 1;
            }
        }
    }
    println!("early answers x unread bodies x a pipelined request x cuts: {runs} connections");
}

//! Clients that mean no good, beside one that does: its requests are answered as on a quiet
//! gateway, and everything that the others used is free afterwards.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::tls::Identity;
use crate::app::App;
use crate::client::{Connection, PATIENCE, Request};
use crate::gateway::Gateway;
use crate::ground::development;

/// Sockets of a Slowloris.
const SLOW: usize = 500;

/// The longest p99 of a GET beside hostile clients. Far above what it is, because the machine is
/// busy with other tests; a GET that waits for a hostile client would take their timeout, 2 s.
const P99_MAX: Duration = Duration::from_millis(500);

/// Handshakes and bombs of each kind.
fn rounds() -> usize {
    let set = std::env::var("SLUICEGATE_HANDSHAKES").ok();
    set.and_then(|it| it.parse().ok()).unwrap_or(300)
}

fn ready(app: &App, settings: &str) -> Gateway {
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = app.gateway_with(2, settings);
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    gateway
}

/// The p99 of GETs on one connection, one after the other.
fn p99(connection: &mut Connection, count: usize) -> Duration {
    let get = Request::get("/items/a");
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(connection.ask(&get).text(), "1");
            let took = began.elapsed();
            std::thread::sleep(Duration::from_millis(1));
            took
        })
        .collect();
    times.sort_unstable();
    times[count * 99 / 100 - 1]
}

/// Measures a GET quiet, and beside `attack` while it lasts.
fn beside(gateway: &Gateway, what: &str, attack: impl FnOnce() + Send) {
    let mut normal = gateway.connect();
    let quiet = p99(&mut normal, 300);
    let over = AtomicBool::new(false);
    let worst = std::thread::scope(|scope| {
        scope.spawn(|| {
            attack();
            over.store(true, Ordering::Relaxed);
        });
        let mut worst = Duration::ZERO;
        while !over.load(Ordering::Relaxed) {
            worst = worst.max(p99(&mut normal, 100));
        }
        worst
    });
    let ratio = worst.as_secs_f64() / quiet.as_secs_f64();
    println!("{what}: p99 of a GET {quiet:?} quiet, {worst:?} at worst beside it ({ratio:.1} x)");
    assert!(worst < P99_MAX, "{what}: {worst:?}");
}

fn descriptors(gateway: &Gateway) -> usize {
    let folder = format!("/proc/{}/fd", gateway.pid());
    std::fs::read_dir(folder)
        .expect("a process of ours")
        .count()
}

/// Waits until no client is connected and the process has as many descriptors as before.
fn all_is_free(gateway: &Gateway, before: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let (open, now) = (gateway.status_sum("connections"), descriptors(gateway));
        // The admin port's own connection may be one of them.
        if open == 0 && now <= before + 1 {
            break;
        }
        assert!(
            Instant::now() < until,
            "{open} connections, {now} of {before} descriptors"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Slowloris: a byte of a header now and then. Each socket gets 408 at `http.head_timeout`, however
/// it behaves.
#[test]
fn five_hundred_slow_clients_delay_nobody() {
    let app = App::new(development());
    let gateway = ready(&app, "[http]\nhead_timeout = \"2s\"\n");
    let before = descriptors(&gateway);
    let refused = || gateway.metric("sluicegate_http_unrouted_requests_total", "4xx");
    beside(&gateway, "500 slow clients", || {
        let began = Instant::now();
        let mut sockets: Vec<TcpStream> = (0..SLOW)
            .map(|_| {
                let mut socket = TcpStream::connect(gateway.address()).expect("connect");
                let head = b"GET /items/a HTTP/1.1\r\nHost: a\r\nX: ";
                socket.write_all(head).expect("room");
                socket
            })
            .collect();
        while began.elapsed() < Duration::from_secs(4) {
            for socket in &mut sockets {
                // Those that were closed are no longer written to.
                let _closed = socket.write_all(b"x");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let refused = refused();
    assert!(refused >= SLOW as f64, "each got 408: {refused}");
    all_is_free(&gateway, before);
}

/// A body that trickles, at less than the least rate, gets 408 before its time is over. One that
/// is faster is received.
#[test]
fn a_body_that_trickles_is_refused_early() {
    let app = App::new(development());
    let settings = "[http]\nbody_rate_min = \"1000B\"\nbody_timeout = \"60s\"\n";
    let gateway = ready(&app, settings);
    let head = b"POST /hasty/a HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n";
    let [mut slow, mut fast] = [(); 2].map(|()| gateway.connect());
    let began = Instant::now();
    slow.send(head);
    fast.send(head);
    let mut refused = None;
    for _ in 0..80 {
        if refused.is_none() {
            slow.send(&[b'x'; 10]);
            if slow.try_more(Instant::now() + Duration::from_millis(1)) == Ok(true) {
                refused = Some(began.elapsed());
            }
        }
        fast.send(&[b'x'; 250]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        fast.response(false).status,
        504,
        "received; no service answers"
    );
    assert_eq!(slow.response(false).status, 408);
    let refused = refused.expect("it was refused meanwhile");
    assert!(refused >= Duration::from_secs(5), "{refused:?}");
    assert!(refused < Duration::from_secs(10), "{refused:?}");
}

/// Handshakes that are begun and dropped, heads and cookies that are too large, bodies that are too
/// long.
#[test]
fn handshakes_and_bombs_delay_nobody() {
    let identity = Identity::new();
    let app = App::new(development());
    let gateway = ready(&app, &identity.settings("handshake_timeout = \"2s\"\n"));
    let before = descriptors(&gateway);
    let rounds = rounds();
    let hello = identity.client_hello();
    beside(&gateway, &format!("{rounds} handshakes"), || {
        for n in 0..rounds {
            let mut socket = TcpStream::connect(gateway.tls_address()).expect("connect");
            // Whole hellos, and some that stop within.
            let sent = if n % 4 == 0 {
                hello.len() / 2
            } else {
                hello.len()
            };
            socket.write_all(&hello[..sent]).expect("room");
        }
    });
    let line = |name: &str, len: usize| format!("{name}: {}\r\n", "x".repeat(len));
    let bombs = [
        ("headers", "X: y\r\n".repeat(5000), 431),
        ("one header", line("X", 40_000), 431),
        ("cookies", line("Cookie", 3000).repeat(20), 431),
        ("a cookie", line("Cookie", 50_000), 431),
        (
            "a length",
            "Content-Length: 99999999999\r\n".to_owned(),
            413,
        ),
    ];
    for (what, headers, status) in bombs {
        let bomb = format!("POST /items/a/orders HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        beside(&gateway, &format!("{rounds} x {what}"), || {
            for _ in 0..rounds {
                let mut connection = gateway.connect();
                connection.send(bomb.as_bytes());
                let answer = connection.response_until(false, Instant::now() + PATIENCE);
                assert_eq!(answer.map(|it| it.status), Some(status), "{what}");
            }
        });
    }
    all_is_free(&gateway, before);
}

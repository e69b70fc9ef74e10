//! Clients that use more than their share of resources, or behave in unusual ways.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request};
use crate::events::Events;
use crate::ground::development;

/// Many clients send half a body. The memory for partial bodies is limited, a client that exceeds
/// it gets 503, and requests without a body are served meanwhile.
#[test]
fn halves_of_bodies_are_bounded_and_cost_nobody_else() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let settings = "[http]\nbodies_bytes_max = \"1MiB\"\n";
    let gateway = app.gateway_with(1, settings);
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let half = vec![b'x'; 200_000];
    let mut halves: Vec<Connection> = (0..12)
        .map(|_| {
            let mut connection = gateway.connect();
            connection.send(
                b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n",
            );
            connection.send(&half);
            connection
        })
        .collect();
    let mut refused = 0;
    for connection in &mut halves {
        // A rejection arrives at once. Without one, the half is kept in memory.
        let quiet = Instant::now() + Duration::from_millis(300);
        if connection.try_more(quiet) == Ok(true) {
            let answer = connection.response(false);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (503, "overloaded")
            );
            refused += 1;
        }
        assert_eq!(
            gateway.get("/items/a").text(),
            "1",
            "a client that asks for nothing is served"
        );
    }
    assert!(
        refused >= 12 - 6,
        "{refused} of 12 halves of 200 kB were refused, 1 MiB is allowed"
    );
    drop(halves);
    // Their memory is free again.
    let _service = app.service(|_| Some(crate::service::Reply::new(200, "done")));
    let order = Request::post("/items/a/orders", &"x".repeat(400_000));
    assert_eq!(gateway.ask(&order).text(), "done");
}

/// The time limit of a pipelined request starts when the one before it is answered, and not when
/// its bytes arrive.
#[test]
fn a_request_behind_one_that_waits_is_not_late() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    // Without a service, the command waits 300 ms: three times the limit for a head.
    let gateway = app.gateway_with(2, "[http]\nhead_timeout = \"100ms\"\n");
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let mut connection = gateway.connect();
    let mut both = Request::post("/hasty/i", "{}").bytes();
    both.extend(Request::get("/items/a").bytes());
    connection.send(&both);
    assert_eq!(connection.response(false).problem(), "outcome-unknown");
    let second = connection.response(false);
    assert_eq!((second.status, second.text()), (200, "1"));
}

/// A client may close its side and still read the responses.
#[test]
fn a_client_that_ends_its_side_still_gets_its_answers() {
    let app = App::new(development());
    let value = "v".repeat(900_000);
    app.produce(&app.items).keyed([("big", value.as_str())]);
    let gateway = app.gateway(2);
    gateway.wait_until(&Request::get("/items/big"), |it| it.status == 200);
    for _ in 0..4 {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..8 {
            socket
                .write_all(&Request::get("/items/big").bytes())
                .unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        let bodies = all.iter().filter(|byte| **byte == b'v').count();
        assert!(
            bodies >= 8 * value.len(),
            "8 answers of 900 kB, {} bytes came",
            all.len()
        );
    }
}

/// A reader is disconnected if it reads nothing, not if it reads slowly.
#[test]
fn a_slow_reader_that_reads_is_not_cut() {
    let app = App::new(development());
    let value = "v".repeat(900_000);
    app.produce(&app.items).keyed([("big", value.as_str())]);
    let gateway = app.gateway_with(1, "[http]\nwrite_timeout = \"1s\"\n");
    gateway.wait_until(&Request::get("/items/big"), |it| it.status == 200);
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = 12;
    for _ in 0..asked {
        socket
            .write_all(&Request::get("/items/big").bytes())
            .unwrap();
    }
    let (mut got, mut buffer) = (0, vec![0; 512 * 1024]);
    let began = Instant::now();
    while got < asked * value.len() {
        // About 4 MB/s: in total three times the timeout.
        std::thread::sleep(Duration::from_millis(120));
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "cut after {got} bytes in {:?}", began.elapsed());
        got += buffer[..count].iter().filter(|byte| **byte == b'v').count();
    }
}

/// The limit applies to the process. The kernel spreads connections over shards by chance, and none
/// is refused while the process has room.
#[test]
fn as_many_connections_as_are_allowed_are_served_wherever_they_land() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = app.gateway_with(4, "[http]\nconnections_max = 16\n");
    for round in 0..4 {
        let mut all: Vec<Connection> = (0..16).map(|_| gateway.connect()).collect();
        for connection in &mut all {
            let answer = connection.ask(&Request::get("/items/a"));
            assert_eq!(answer.text(), "1", "round {round}");
        }
        let mut surplus = gateway.connect();
        surplus.expect_close();
        assert!(gateway.metric("sluicegate_connections_closed_total", "refused") > 0.0);
        drop((all, surplus));
        let free = |page: &crate::client::Response| {
            page.text()
                .lines()
                .any(|line| line == "sluicegate_connections_open 0")
        };
        gateway.wait_admin("/metrics", free);
    }
}

#[test]
fn as_many_streams_as_are_allowed_are_open_wherever_they_land() {
    let app = App::new(development());
    let gateway = app.gateway_with(4, "[streams]\nstreams_max = 8\n");
    for round in 0..4 {
        let mut all: Vec<Events> = (0..8)
            .map(|_| Events::open(gateway.address(), "/events/live"))
            .collect();
        for stream in &mut all {
            stream.wait_for_id();
        }
        let open = gateway.metric("sluicegate_streams_open", "");
        assert_eq!(open, 8.0, "round {round}");
        // A further connection gets 503 with `Retry-After`, and is closed.
        let mut surplus = gateway.connect();
        let told = surplus.ask(&Request::get("/events/live"));
        assert!(told.text().starts_with("retry: "), "{told:?}");
        surplus.expect_close();
        drop((all, surplus));
        let free = |page: &crate::client::Response| {
            let mut lines = page.text().lines();
            lines.all(|line| !line.starts_with("sluicegate_streams_open") || line.ends_with(" 0"))
        };
        gateway.wait_admin("/metrics", free);
    }
}

/// Bytes that are not part of a request do not keep a connection open: an empty line may precede a
/// request.
#[test]
fn empty_lines_do_not_keep_an_idle_connection() {
    let app = App::new(development());
    let gateway = app.gateway_with(1, "[http]\nidle_timeout = \"500ms\"\n");
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    assert!(is_closed_under(&mut socket, b"\r\n"), "it is kept for ever");
}

/// Whether a gateway closes a connection on which bytes arrive one by one.
pub(super) fn is_closed_under(socket: &mut TcpStream, bytes: &[u8]) -> bool {
    let pause = Duration::from_millis(50);
    socket.set_read_timeout(Some(pause)).unwrap();
    let until = Instant::now() + PATIENCE;
    let mut bytes = bytes.iter().cycle();
    while Instant::now() < until {
        let byte = bytes.next().copied();
        if socket.write_all(&[byte.expect("endless")]).is_err() {
            return true;
        }
        match socket.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
            Ok(_) => {}
        }
    }
    false
}

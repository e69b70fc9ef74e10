//! Clients that disconnect while their command waits, and clients that only end their own side.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::gateway::Gateway;
use crate::ground::development;
use crate::service::Reply;

/// A command with a key, so that each of its requests waits for the same reply.
fn order() -> Request {
    Request::post("/items/i/orders", "{}").header("idempotency-key", "the-same")
}

fn ask(gateway: &Gateway, request: &Request) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("option");
    socket.write_all(&request.bytes()).expect("sent");
    socket
}

fn wait_connections(gateway: &Gateway, count: u64) {
    gateway.wait_admin("/status", |_| gateway.status_sum("connections") == count);
}

#[test]
fn a_client_that_leaves_while_its_command_waits_gives_its_place_up() {
    let app = App::new(development());
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "answered"))
    });
    // The client may be on another shard than the command's home.
    let gateway = app.gateway(2);
    for round in 0..4 {
        let impatient: Vec<TcpStream> = (0..16).map(|_| ask(&gateway, &order())).collect();
        wait_connections(&gateway, 16);
        gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 1);
        if round % 2 == 1 {
            // A reset, as from a killed process with unread bytes.
            for socket in &impatient {
                let now = Some(Duration::ZERO);
                socket2::SockRef::from(socket)
                    .set_linger(now)
                    .expect("option");
            }
        }
        drop(impatient);
        wait_connections(&gateway, 0);
    }
    let mut patient = ask(&gateway, &order());
    wait_connections(&gateway, 1);
    release.send(()).expect("the service waits for it");
    let mut answer = [0; 15];
    patient.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(
        app.commands_in_log().len(),
        1,
        "one command for all requests"
    );
}

/// RFC 9112 9.6: a client may end its side after its request, and still reads the answer.
#[test]
fn a_client_that_ends_its_side_gets_the_answer_to_its_command() {
    let app = App::new(development());
    let (release, released) = std::sync::mpsc::sync_channel::<()>(8);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "answered"))
    });
    let gateway = app.gateway(2);
    let post = |n: u32| Request::post("/items/i/orders", &n.to_string());
    // The end comes at once, later, and with another command after the first.
    let at_once = ask(&gateway, &post(1));
    at_once.shutdown(Shutdown::Write).expect("its side ends");
    let later = ask(&gateway, &post(2));
    let mut two = ask(&gateway, &post(3));
    two.write_all(&post(4).bytes()).expect("sent");
    two.shutdown(Shutdown::Write).expect("its side ends");
    gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 3);
    later.shutdown(Shutdown::Write).expect("its side ends");
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..4 {
        release.send(()).expect("the service waits for it");
    }
    for (mut socket, count) in [(at_once, 1), (later, 1), (two, 2)] {
        let mut all = String::new();
        socket.read_to_string(&mut all).expect("to the end");
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
        assert_eq!(all.matches("HTTP/1.1 200 OK\r\n").count(), count, "{all}");
        assert_eq!(all.matches("\r\n\r\nanswered").count(), count, "{all}");
    }
    wait_connections(&gateway, 0);
}

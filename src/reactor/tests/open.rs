//! Tests of outgoing connections of shards.

use std::io::{ErrorKind, Read as _};
use std::net::TcpListener;
use std::time::Duration;

use super::super::Plan;
use super::echo::Message;
use super::{Fixture, plan};
use crate::shard::{Open, OpenTicket, SocketEvent};

const TICKET: OpenTicket = OpenTicket(41);

fn open(host: &str, port: u16) -> Message {
    Message::Open(Open {
        ticket: TICKET,
        host: host.to_owned(),
        port,
    })
}

/// The event that the shard receives.
fn outcome(fixture: &Fixture) -> SocketEvent {
    match fixture.next().1.as_slice() {
        [Message::Saw(event)] => *event,
        other => panic!("{other:?}"),
    }
}

fn failure(fixture: &Fixture) -> ErrorKind {
    match outcome(fixture) {
        SocketEvent::OpenFailed { ticket, error } => {
            assert_eq!(ticket, TICKET);
            error
        }
        other => panic!("{other:?}"),
    }
}

fn a_connection_to(host: &str) {
    let server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let fixture = Fixture::start(1, plan());
    let port = server.local_addr().expect("address").port();
    fixture.send(0, open(host, port));
    let (mut peer, _) = server.accept().expect("it connects");
    let opened = outcome(&fixture);
    assert!(
        matches!(opened, SocketEvent::Opened { ticket: TICKET, .. }),
        "{opened:?}"
    );
    let mut greeting = [0; 5];
    peer.read_exact(&mut greeting).expect("greeted");
    super::ask(&mut peer, b"and it echoes!");
    assert_eq!(peer.read(&mut [0]).expect("ended"), 0);
}

#[test]
fn an_address_is_reached() {
    a_connection_to("127.0.0.1");
}

/// `localhost` may have an address without a listener (`::1`). Then the next address is tried.
#[test]
fn a_name_is_resolved_and_reached() {
    a_connection_to("localhost");
}

#[test]
fn a_refused_port_is_said() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = server.local_addr().expect("address").port();
    drop(server);
    let fixture = Fixture::start(1, plan());
    fixture.send(0, open("127.0.0.1", port));
    assert_eq!(failure(&fixture), ErrorKind::ConnectionRefused);
    fixture.send(0, open("localhost", port));
    assert_eq!(failure(&fixture), ErrorKind::ConnectionRefused);
}

#[test]
fn a_name_that_does_not_resolve_is_not_found() {
    let fixture = Fixture::start(1, plan());
    // RFC 6761 6.4: `.invalid` never resolves.
    fixture.send(0, open("broker.invalid", 9092));
    assert_eq!(failure(&fixture), ErrorKind::NotFound);
    fixture.send(0, open("no name at all", 9092));
    assert_eq!(failure(&fixture), ErrorKind::NotFound);
}

#[test]
fn an_address_that_says_nothing_times_out() {
    let hasty = Plan {
        connect_timeout: Duration::from_millis(100),
        ..plan()
    };
    // A listener with a full queue drops new connections, so the attempt is never answered.
    let deaf = crate::sys::Listener::bind_alone("127.0.0.1:0".parse().expect("address"), 0);
    let deaf = deaf.expect("bound");
    let address = deaf.address().expect("address");
    let _full: Vec<_> = (0..4)
        .map(|_| crate::sys::Socket::connect(address).expect("begun"))
        .collect();
    let fixture = Fixture::start(1, hasty);
    fixture.send(0, open("127.0.0.1", address.port()));
    assert_eq!(failure(&fixture), ErrorKind::TimedOut);
}

#[test]
fn a_flood_of_names_is_bounded() {
    let fixture = Fixture::start(1, plan());
    let names = 300;
    for _ in 0..names {
        fixture.send(0, open("broker.invalid", 9092));
    }
    let mut answers = 0;
    while answers < names {
        for message in fixture.next().1 {
            let Message::Saw(SocketEvent::OpenFailed { error, .. }) = message else {
                panic!("{message:?}");
            };
            assert!(matches!(
                error,
                ErrorKind::NotFound | ErrorKind::ResourceBusy
            ));
            answers += 1;
        }
    }
}

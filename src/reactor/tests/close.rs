//! Tests of closing connections and listeners.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::echo::{ANSWER, Message};
use super::{Fixture, ask, eventually, plan};
use crate::model::ShardId;

#[test]
fn the_client_sees_our_close() {
    let fixture = Fixture::start(1, plan());
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..50 {
        let mut client = fixture.connect();
        ask(&mut client, b"bye!");
        let start = Instant::now();
        assert_eq!(client.read(&mut [0]).expect("an end, no reset"), 0);
        slowest = slowest.max(start.elapsed());
    }
    println!("slowest end: {slowest:?} (100 ms is the promise)");
    eventually("all slots free", || {
        (fixture.running.vitals(ShardId(0)).sockets == 0).then_some(())
    });
}

#[test]
fn a_clients_end_is_seen_and_its_slot_freed() {
    let fixture = Fixture::start(1, plan());
    let mut clients: Vec<TcpStream> = (0..20).map(|_| fixture.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        ask(client, b"hello");
        match number % 3 {
            0 => client.shutdown(Shutdown::Write).expect("socket"),
            // The FIN arrives together with bytes.
            1 => {
                client.write_all(b"last words").expect("sent");
                client.shutdown(Shutdown::Write).expect("socket");
                let mut rest = String::new();
                client
                    .read_to_string(&mut rest)
                    .expect("echo, then the end");
                assert_eq!(rest, "last words");
            }
            _ => {
                let reset = std::time::Duration::ZERO;
                let socket = socket2::SockRef::from(&*client);
                socket.set_linger(Some(reset)).expect("socket");
            }
        }
    }
    drop(clients);
    eventually("all slots free", || {
        (fixture.running.vitals(ShardId(0)).sockets == 0).then_some(())
    });
}

#[test]
fn an_answer_before_the_request_was_read_arrives() {
    let fixture = Fixture::start(1, plan());
    fixture.send(0, Message::BeRude);
    for size in [1, 1000, 100_000] {
        let mut client = fixture.connect();
        client.write_all(&vec![b'x'; size]).expect("sent");
        let mut got = vec![0; ANSWER.len()];
        client.read_exact(&mut got).expect("the answer comes first");
        assert_eq!(got, ANSWER);
        match client.read(&mut [0]) {
            Ok(0) => {}
            // More than one buffer was left unread. Reading that much is the shard's task.
            Err(error) if size > 65_536 => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            other => panic!("{other:?} after {size} bytes"),
        }
    }
}

#[test]
fn reused_slots_never_meet_old_events() {
    let fixture = Fixture::start(1, plan());
    // The echo asserts that each event finds its client. Four threads open, use and close
    // connections in every way, so that slots are reused while earlier completions are pending.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..200 {
                    let mut client = fixture.connect();
                    let text = format!("thread {thread} round {round}");
                    match round % 4 {
                        0 => ask(&mut client, text.as_bytes()),
                        1 => ask(&mut client, format!("{text}!").as_bytes()),
                        2 => client.write_all(text.as_bytes()).expect("sent"),
                        _ => {}
                    }
                }
            });
        }
    });
    eventually("all slots free", || {
        (fixture.running.vitals(ShardId(0)).sockets == 0).then_some(())
    });
}

#[test]
fn a_client_that_waits_in_the_queue_is_served_before_the_port_closes() {
    for _ in 0..20 {
        let fixture = Fixture::start(2, plan());
        let mut clients: Vec<_> = (0..50).map(|_| fixture.connect()).collect();
        fixture.running.stop_accepting();
        fixture.running.stop_accepting();
        for client in &mut clients {
            ask(client, b"in time");
        }
        eventually("both listeners closed", || {
            let open = |shard| fixture.running.vitals(ShardId(shard)).listening;
            (open(0) + open(1) == 0).then_some(())
        });
        let late = TcpStream::connect(fixture.address).expect_err("closed");
        assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
        ask(&mut clients[0], b"connections stay");
    }
}

#[test]
fn an_ended_shard_ends_its_connections() {
    let fixture = Fixture::start(1, plan());
    let mut client = fixture.connect();
    ask(&mut client, b"hello");
    fixture.send(0, Message::End);
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
}

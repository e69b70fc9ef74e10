//! Tests with real threads, rings and sockets that run an echo. Shards of these tests sleep for an
//! hour unless something wakes them, so a lost wake is a hang and a failed test.

mod child;
mod close;
mod echo;
mod messages;
mod open;
mod soak;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use echo::{Echo, Message};

use super::running::launch;
use super::{Clock, Plan, ReactorError, Running};
use crate::model::ShardId;

/// Time after which a test fails. It limits hangs and says nothing about speed.
const PATIENCE: Duration = Duration::from_secs(20);

fn plan() -> Plan {
    Plan {
        listeners: vec!["127.0.0.1:0".parse().expect("address")],
        sockets_max: 1 << 14,
        turn_every: Duration::from_secs(3600),
        ..Plan::default()
    }
}

/// Shards that run an echo each. They end on drop.
struct Fixture {
    running: Running<Message, Message>,
    address: SocketAddr,
}

impl Fixture {
    fn start(shards: u16, plan: Plan) -> Self {
        let makers = (0..shards).map(|_| Echo::default).collect();
        let running = launch(plan, Clock::start(), makers, Box::new(|| {})).expect("started");
        let address = running.bind().expect("bound")[0];
        running.accept().expect("listening");
        Self { running, address }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    fn send(&self, to: u16, message: Message) {
        let sent = self.running.send(ShardId(to), message);
        assert!(sent.is_ok(), "room in the inbox");
    }

    /// Waits for the next message to the control thread.
    fn next(&self) -> (ShardId, Vec<Message>) {
        eventually("a message to control", || self.running.take())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for shard in 0..self.running.shards() as u16 {
            let _ = self.running.send(ShardId(shard), Message::End);
        }
        if !std::thread::panicking() {
            self.running.join();
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("socket");
    stream
}

/// Sends one request and reads its echo.
fn ask(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).expect("sent");
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer).expect("answered");
    assert!(answer == request, "the echo of another");
}

/// Calls `ask` until it returns a value.
fn eventually<R>(what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn an_echo_over(shards: u16) {
    let fixture = Fixture::start(shards, plan());
    let mut clients: Vec<_> = (0..40).map(|_| fixture.connect()).collect();
    for round in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            ask(
                client,
                format!("round {round} of client {number}").as_bytes(),
            );
        }
    }
    let vitals = |shard| fixture.running.vitals(ShardId(shard));
    eventually("all sockets", || {
        let sockets: u64 = (0..shards).map(|shard| vitals(shard).sockets).sum();
        (sockets == 40).then_some(())
    });
    assert!((0..shards).all(|shard| vitals(shard).turns > 0 && vitals(shard).listening == 1));
}

#[test]
fn an_echo_over_one_shard() {
    an_echo_over(1);
}

#[test]
fn an_echo_over_two_shards() {
    an_echo_over(2);
}

#[test]
fn an_echo_over_four_shards_on_fewer_cores() {
    an_echo_over(4);
}

#[test]
fn pinned_shards_share_the_cpus_given() {
    let cpus = crate::sys::allowed_cpus().expect("mask");
    let fixture = Fixture::start(3, Plan { cpus, ..plan() });
    ask(&mut fixture.connect(), b"pinned");
}

#[test]
fn more_than_the_sockets_hold_arrives_whole() {
    let fixture = Fixture::start(1, plan());
    let mut client = fixture.connect();
    let mut writer = client.try_clone().expect("clone");
    // Do not send the byte that closes the connection.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|i| 40 + (i % 211) as u8).collect();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&bytes).expect("sent"));
    // Both directions fill up before the first byte is read.
    std::thread::sleep(Duration::from_millis(100));
    let mut got = vec![0; sent.len()];
    client.read_exact(&mut got).expect("all of it");
    assert!(got == sent, "bytes changed on the way");
    writing.join().expect("no panic");
}

#[test]
fn shards_without_clients_get_none() {
    let without = Plan {
        shards_without_clients: 1,
        ..plan()
    };
    let fixture = Fixture::start(2, without);
    let mut clients: Vec<_> = (0..10).map(|_| fixture.connect()).collect();
    clients.iter_mut().for_each(|client| ask(client, b"hello"));
    // A shard publishes its numbers after the pass that answered the last client.
    let other = eventually("the sockets", || {
        let vitals = fixture.running.vitals(ShardId(1));
        (vitals.sockets == 10).then_some(vitals)
    });
    let home = fixture.running.vitals(ShardId(0));
    assert_eq!((home.listening, home.sockets), (0, 0));
    assert_eq!(other.listening, 1);
}

#[test]
fn a_client_past_the_limit_is_closed_at_once() {
    let few = Plan {
        sockets_max: 2,
        ..plan()
    };
    let fixture = Fixture::start(1, few);
    let mut first = [fixture.connect(), fixture.connect()];
    first.iter_mut().for_each(|client| ask(client, b"in"));
    let mut third = fixture.connect();
    assert_eq!(third.read(&mut [0]).expect("closed"), 0);
    eventually("the count", || {
        (fixture.running.vitals(ShardId(0)).refused == 1).then_some(())
    });
    ask(&mut first[1], b"still in");
}

#[test]
fn a_port_in_use_is_named_and_nothing_stays_bound() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = other.local_addr().expect("address");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let listeners = vec![free.local_addr().expect("address"), taken];
    let wanted = Plan {
        listeners: listeners.clone(),
        ..plan()
    };
    drop(free);
    let running =
        launch(wanted, Clock::start(), vec![Echo::default], Box::new(|| {})).expect("started");
    let error = running.bind().expect_err("taken");
    assert!(matches!(&error, ReactorError::Bind { address, .. } if *address == taken));
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    std::net::TcpListener::bind(listeners[0]).expect("the first was let go");
    running.accept().expect_err("nothing is bound");
    assert!(running.send(ShardId(0), Message::End).is_ok());
    running.join();
}

#[test]
fn a_plan_that_contradicts_itself_is_refused() {
    for (what, broken) in [
        (
            "no shard is left",
            Plan {
                shards_without_clients: 1,
                ..Plan::default()
            },
        ),
        (
            "completion queue",
            Plan {
                completions: 1024,
                ..Plan::default()
            },
        ),
        (
            "a second",
            Plan {
                turn_every: Duration::from_secs(2),
                ..Plan::default()
            },
        ),
    ] {
        let started = super::start(broken, Clock::start(), vec![Echo::default], Box::new(|| {}));
        let error = started.expect_err("refused").to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_cpu_that_is_not_there_stops_the_start() {
    let cpus = vec![crate::sys::allowed_cpus().expect("mask")[0], 1000];
    let nowhere = Plan { cpus, ..plan() };
    let makers = vec![Echo::default, Echo::default];
    let error = launch(nowhere, Clock::start(), makers, Box::new(|| {})).expect_err("no such cpu");
    assert!(
        matches!(
            error,
            ReactorError::Shard {
                shard: ShardId(1),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_shard_turns_when_its_deadline_comes_and_at_least_that_often() {
    let often = Plan {
        turn_every: Duration::from_millis(20),
        ..plan()
    };
    let fixture = Fixture::start(1, often);
    let turns = || fixture.running.vitals(ShardId(0)).turns;
    let before = turns();
    eventually("idle turns", || (turns() > before + 10).then_some(()));

    let rare = Fixture::start(1, plan());
    let start = Instant::now();
    rare.send(0, Message::Alarm(Duration::from_millis(30)));
    assert_eq!(rare.next(), (ShardId(0), vec![Message::Rang]));
    assert!(start.elapsed() >= Duration::from_millis(30));
}

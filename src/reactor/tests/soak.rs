//! When load stops, the next request must be answered. A lost wake, a poll that is not armed again,
//! or an executor that sleeps with work left shows in this test and in hardly any other.
//!
//! `SLUICEGATE_SOAK=host:port` tests a running gateway (`GET /livez`) instead of the echo.
//! `SLUICEGATE_SOAK_ROUNDS` sets the number of rounds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Fixture, connect, plan};

/// A request, and how to recognise the end of its response.
#[derive(Clone, Copy)]
struct Question {
    bytes: &'static [u8],
    answered: fn(&[u8]) -> bool,
}

const ECHO: Question = Question {
    bytes: b"sixteen bytes..!.",
    answered: |got| got.len() == 17,
};

const LIVEZ: Question = Question {
    bytes: b"GET /livez HTTP/1.1\r\nhost: soak\r\n\r\n",
    answered: has_whole_response,
};

/// Whether a response is complete: a head, and as many bytes as its `content-length` says.
fn has_whole_response(got: &[u8]) -> bool {
    let text = String::from_utf8_lossy(got).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |length| length.trim().parse().expect("a length"))
}

fn ask(stream: &mut TcpStream, question: Question) -> Duration {
    let start = Instant::now();
    stream.write_all(question.bytes).expect("sent");
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while !(question.answered)(&got) {
        let bytes = stream
            .read(&mut buffer)
            .expect("the request after a load is answered");
        assert_ne!(bytes, 0, "closed on us");
        got.extend_from_slice(&buffer[..bytes]);
    }
    start.elapsed()
}

/// Runs `rounds` rounds: 2 × 32 clients send requests for about 10 ms and stop; after a pause of
/// some milliseconds one of them sends one more request. Returns the slowest response time of
/// those.
fn soak(address: SocketAddr, question: Question, rounds: u32) -> Duration {
    let mut groups: Vec<Vec<TcpStream>> = (0..2)
        .map(|_| (0..32).map(|_| connect(address)).collect())
        .collect();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for clients in &mut groups {
                scope.spawn(move || load(clients, question));
            }
        });
        std::thread::sleep(Duration::from_micros(u64::from(round * 389 % 9_000)));
        let clients = &mut groups[round as usize % 2];
        let count = clients.len();
        slowest = slowest.max(ask(&mut clients[round as usize % count], question));
    }
    slowest
}

/// All clients send, then all read, repeatedly, so that the shard sees bursts.
fn load(clients: &mut [TcpStream], question: Question) {
    let until = Instant::now() + Duration::from_millis(10);
    while Instant::now() < until {
        for client in &mut *clients {
            client.write_all(question.bytes).expect("sent");
        }
        for client in &mut *clients {
            let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
            while !(question.answered)(&got) {
                let bytes = client.read(&mut buffer).expect("answered under load");
                assert_ne!(bytes, 0, "closed on us");
                got.extend_from_slice(&buffer[..bytes]);
            }
        }
    }
}

#[test]
fn after_a_load_the_next_request_is_answered() {
    let rounds =
        std::env::var("SLUICEGATE_SOAK_ROUNDS").map_or(500, |n| n.parse().expect("a number"));
    let slowest = match std::env::var("SLUICEGATE_SOAK") {
        Ok(address) => soak(address.parse().expect("an address"), LIVEZ, rounds),
        Err(_) => {
            let fixture = Fixture::start(1, plan());
            soak(fixture.address, ECHO, rounds)
        }
    };
    println!("slowest first answer after a load: {slowest:?}");
}

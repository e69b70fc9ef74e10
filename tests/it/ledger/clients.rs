//! Clients of the gateways in a run: lanes of commands, readers of the stream, and the service that
//! answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::beside::is_beside;
use super::book::{Attempt, Outcome};
use super::felt::millis;
use super::world::{Shared, Topics};
use crate::client::{Connection, PATIENCE, Request};
use crate::events::Events;
use crate::ground::random;
use crate::rdk::{Consumer, Producer, ToWrite};

/// Number of lanes: clients that send one command after the other.
const LANES: usize = 8;
/// Readers per gateway. One stays connected; the others are cut and reconnect to each gateway in
/// turn.
const READERS: usize = 2;
/// Pause between the commands of a lane.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause before a rejected command is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a lane retries after the end of the load to learn a command's result.
const LEARN_WITHIN: Duration = Duration::from_secs(60);

/// Starts the lanes of commands.
pub fn lanes(peers: &[SocketAddr], shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let start = |lane| {
        let lane = Lane {
            number: lane,
            connections: peers.iter().map(|_| None).collect(),
            peers: peers.to_vec(),
            shared: shared.clone(),
            run: random() as u32,
        };
        std::thread::spawn(move || lane.run())
    };
    (0..LANES).map(start).collect()
}

struct Lane {
    number: usize,
    peers: Vec<SocketAddr>,
    connections: Vec<Option<Connection>>,
    shared: Arc<Shared>,
    /// Makes the keys of this run differ from those of another run on the same topics.
    run: u32,
}

impl Lane {
    fn run(mut self) {
        let mut number = 0;
        while !self.shared.quiet.load(Ordering::Relaxed) {
            self.command(number);
            number += 1;
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends one command until it is answered or abandoned. After an unknown result, half of the
    /// lanes retry at the other gateway and half at the same one. Some do not retry after a
    /// rejection.
    fn command(&mut self, number: usize) {
        let key = format!("{:08x}-{}-{number}", self.run, self.number);
        let (quick, wanders) = (self.number % 2 == 1, self.number % 4 >= 2);
        let route = if quick { "quick" } else { "patient" };
        let request = Request::post(&format!("/{route}/lane-{}", self.number), "{}");
        let request = request.header("idempotency-key", &format!("\"{key}\""));
        let mut peer = (self.number + number) % self.peers.len();
        let mut over: Option<Instant> = None;
        loop {
            let asked = (millis(), self.number, key.clone());
            self.shared.lock().asked.push(asked);
            let outcome = self.ask(peer, &request);
            let attempt = Attempt {
                key: key.clone(),
                lane: self.number,
                number,
                peer,
                outcome: outcome.clone(),
            };
            self.shared.lock().attempts.push((Instant::now(), attempt));
            match outcome {
                Outcome::Done(_) => return,
                Outcome::Refused(_) if number.is_multiple_of(2) && over.is_none() => return,
                Outcome::Refused(_) => std::thread::sleep(RETRY_PAUSE),
                Outcome::Unknown(_) => {}
            }
            // From here on the command may be in the log, so retry until its result is known.
            let over = *over.get_or_insert_with(Instant::now);
            if self.shared.quiet.load(Ordering::Relaxed) && over.elapsed() > LEARN_WITHIN {
                return;
            }
            if wanders {
                peer = (peer + 1) % self.peers.len();
            }
        }
    }

    fn ask(&mut self, peer: usize, request: &Request) -> Outcome {
        let address = self.peers[peer];
        let place = &mut self.connections[peer];
        let connection = place.get_or_insert_with(|| Connection::open(address));
        connection.send(&request.bytes());
        let Some(answer) = connection.response_until(false, Instant::now() + PATIENCE) else {
            *place = None;
            return Outcome::Unknown(0);
        };
        match answer.status {
            200 => Outcome::Done(answer.text().to_owned()),
            // The command was executed before, but its reply can't be read now.
            503 if answer.problem() == "reply-unavailable" => Outcome::Unknown(503),
            503 => Outcome::Refused(503),
            504 => {
                assert_eq!(answer.problem(), "outcome-unknown");
                Outcome::Unknown(504)
            }
            _ => panic!("no such answer is due: {answer:?}"),
        }
    }
}

/// Starts the readers of the streams.
pub fn readers(peers: &[SocketAddr], shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let start = |reader| {
        shared.lock().given.push(Vec::new());
        let (peers, shared) = (peers.to_vec(), shared.clone());
        std::thread::spawn(move || read(reader, &peers, &shared))
    };
    (0..READERS * peers.len()).map(start).collect()
}

fn read(reader: usize, peers: &[SocketAddr], shared: &Shared) {
    let stays = reader < peers.len();
    let mut peer = reader % peers.len();
    let mut id = String::new();
    while !shared.over.load(Ordering::Relaxed) {
        let address = peers[peer];
        let mut stream = if id.is_empty() {
            Events::open(address, "/events")
        } else {
            Events::resume(address, "/events", &id)
        };
        // Some streams are cut at once, some after some events, some after a long time.
        let cut = if stays { u64::MAX } else { random() % 150 };
        let mut count = 0;
        while count < cut && !stream.ended() && !shared.over.load(Ordering::Relaxed) {
            let Some(event) = stream.next_within(Duration::from_millis(200)) else {
                continue;
            };
            count += 1;
            let mut happened = shared.lock();
            match event.name.as_str() {
                "message" => happened.given[reader].push((Instant::now(), event.data)),
                _ => happened.gaps.push(format!("{reader}: {event:?}")),
            }
        }
        if stream.ended() {
            shared.lock().closed += 1;
            std::thread::sleep(RETRY_PAUSE);
        }
        stream.last_event_id().clone_into(&mut id);
        if !stays {
            peer = (peer + 1) % peers.len();
        }
    }
}

/// The service as the contract requires it: it applies the first record of a correlation id and
/// answers later ones with the same reply. Its reply names the command.
pub fn service(bootstrap: &str, topics: &Topics, shared: Arc<Shared>) -> JoinHandle<()> {
    let commands = Consumer::start(bootstrap, &topics.commands, &[]);
    let mut replies = Producer::start(bootstrap, &topics.replies, &[]);
    std::thread::spawn(move || {
        let mut applied: BTreeMap<String, String> = BTreeMap::new();
        while !shared.over.load(Ordering::Relaxed) {
            let Some((_, command)) = commands.next_within(Duration::from_millis(100)) else {
                continue;
            };
            let Some(correlation) = command.header("correlation-id") else {
                assert!(is_beside(&command), "a command names itself: {command:?}");
                continue;
            };
            let key = command.header("idempotency-key").unwrap_or_default();
            let effect = applied.len();
            let reply = applied
                .entry(correlation.to_owned())
                .or_insert_with(|| format!("{key} effect {effect}"));
            replies.write(&ToWrite {
                partition: None,
                key: Some(correlation.as_bytes()),
                value: Some(reply.as_bytes()),
                headers: &[
                    ("correlation-id", Some(correlation.as_bytes())),
                    (":status", Some(b"200")),
                    ("content-type", Some(b"text/plain")),
                ],
            });
        }
    })
}

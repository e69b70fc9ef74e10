//! R8: every broker is unavailable. Queries are answered from memory with their age, commands are
//! rejected within a second and with certainty, streams stay open, and everything works again soon
//! after the first leader is back. Brokers are frozen (no connection fails) on three nodes and
//! killed on one, on real Kafka. A ledger shows that no record was lost.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{PATIENCE, Request, Response};
use crate::cluster::Cluster;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat;
use crate::rdk::{Consumer, Producer, ToWrite};

/// R8: a command is rejected within this time, from the start of the outage.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// R8: a command is in the log within this time after the first leader, which exists when kcat's
/// record is acknowledged.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// The log's clock stamps records, so that it shows when each was appended.
const LOG_TIME: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

/// Commands and their responses, for the ledger.
#[derive(Debug, Default)]
struct Ledger {
    refused: BTreeSet<String>,
    unknown: BTreeSet<String>,
    answered: BTreeSet<String>,
    longest_refusal: Duration,
}

impl Ledger {
    /// Sends one command. Its body is its name.
    fn command(&mut self, gateway: &Gateway, path: &str, name: &str) -> Response {
        let began = Instant::now();
        let answer = gateway.ask(&Request::post(path, &format!("\"{name}\"")));
        match answer.status {
            200 => drop(self.answered.insert(name.to_owned())),
            503 => {
                assert_eq!(answer.problem(), "broker-unavailable", "{answer:?}");
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                let took = began.elapsed();
                assert!(took <= REFUSED_WITHIN, "{name} was refused after {took:?}");
                self.longest_refusal = self.longest_refusal.max(took);
                self.refused.insert(name.to_owned());
            }
            504 => drop(self.unknown.insert(name.to_owned())),
            _ => panic!("{answer:?}"),
        }
        answer
    }

    /// Compares with the log as librdkafka reads it: an answered command is there once, a rejected
    /// one never, an unknown one at most once.
    fn check(&self, app: &App) {
        let log = app.commands_in_log();
        let times = |name: &str| {
            let value = format!("\"{name}\"");
            let same = |record: &&kcat::Record| record.value.as_deref() == Some(value.as_str());
            log.iter().filter(same).count()
        };
        for name in &self.answered {
            assert_eq!(times(name), 1, "{name} was answered");
        }
        for name in &self.refused {
            assert_eq!(times(name), 0, "{name} was refused");
        }
        for name in &self.unknown {
            assert!(times(name) <= 1, "{name} is there {} times", times(name));
        }
        println!(
            "ledger: {} answered, {} refused, {} unknown, 0 lost, 0 doubled",
            self.answered.len(),
            self.refused.len(),
            self.unknown.len()
        );
    }
}

/// Produces with kcat repeatedly until the first record is acknowledged.
fn kcat_acknowledged(bootstrap: &str, topic: &str) {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let mut kcat = Command::new("kcat")
            .args(["-P", "-b", bootstrap, "-t", topic, "-X", "acks=all"])
            .args(["-X", "message.timeout.ms=1000"])
            .args(["-X", "reconnect.backoff.max.ms=200"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kcat");
        let stdin = kcat.stdin.take().expect("piped above");
        std::io::Write::write_all(&mut &stdin, b"probe\n").expect("kcat reads");
        drop(stdin);
        if kcat.wait().expect("kcat ends").success() {
            return;
        }
    }
    panic!("the brokers are not back");
}

/// The service, with librdkafka, which survives the outage. kcat and rskafka may give up on brokers
/// that have just restarted and lead nothing yet.
struct Service {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Service {
    fn start(app: &App) -> Self {
        // Reconnect as fast as possible: these clients are not what is measured.
        let quick = ["reconnect.backoff.max.ms=200"];
        let commands = Consumer::start(app.bootstrap(), &app.commands, &quick);
        let mut replies = Producer::start(app.bootstrap(), &app.replies, &quick);
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let Some((_, command)) = commands.next_within(Duration::from_millis(100)) else {
                    continue;
                };
                let correlation = command.header("correlation-id").expect("a command has one");
                replies.write(&ToWrite {
                    partition: Some(0),
                    key: None,
                    value: Some(b"done"),
                    headers: &[
                        ("correlation-id", Some(correlation.as_bytes())),
                        (":status", Some(b"200")),
                    ],
                });
            }
        });
        Self { over, thread }
    }

    /// Ends the service, which must not have failed.
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the service has not failed");
    }
}

struct Outage {
    app: App,
    gateway: Gateway,
    ledger: Ledger,
    stream: Events,
    service: Service,
    probe: String,
}

impl Outage {
    fn ready(ground: &Ground) -> Self {
        let app = App::new(ground);
        ground.alter(&app.commands, LOG_TIME.0, LOG_TIME.1);
        let config = app.config(2, "[streams]\nheartbeat = \"1s\"\n");
        let gateway = Gateway::start(&config);
        app.produce(&app.items).keyed([("a", "1")]);
        gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
        let mut stream = Events::open(gateway.address(), "/events/live");
        stream.wait_for_id();
        let mut ledger = Ledger::default();
        let service = Service::start(&app);
        // The gateway's connections are open, so the first command is sent.
        let answer = ledger.command(&gateway, "/items/first/orders", "before");
        assert_eq!(answer.status, 200, "{answer:?}");
        Self {
            probe: ground.topic("probe", 1, &[LOG_TIME]),
            service,
            app,
            gateway,
            ledger,
            stream,
        }
    }

    /// Checks the promises for `time` while every broker is unavailable.
    fn during(&mut self, time: Duration) {
        let began = Instant::now();
        // Sent before the outage is detected: at most one per partition, with an unknown result.
        self.ledger.command(&self.gateway, "/hasty/first", "first");
        // After it, and certainly not sent. Its own deadline is far, as for all that follow.
        let path = "/items/first/orders";
        let answer = self.ledger.command(&self.gateway, path, "behind");
        assert_eq!(answer.status, 503, "{answer:?}");
        println!(
            "the one behind the first: after {:?}",
            self.ledger.longest_refusal
        );
        std::thread::sleep(Duration::from_secs(2).saturating_sub(began.elapsed()));
        let (mut n, mut age) = (0, 0);
        let mut heartbeats = 0;
        while began.elapsed() < time {
            let name = format!("during-{n}");
            let path = format!("/items/{n}/orders");
            let answer = self.ledger.command(&self.gateway, &path, &name);
            assert_eq!(answer.status, 503, "{name}: {answer:?}");
            let read = self.gateway.get("/items/a");
            assert_eq!((read.status, read.text()), (200, "1"));
            if began.elapsed() > Duration::from_secs(4) {
                let said = read.header("age").unwrap_or_else(|| panic!("{read:?}"));
                let said: u64 = said.parse().expect("seconds");
                assert!(
                    said >= age && said <= began.elapsed().as_secs() + 3,
                    "{said}"
                );
                age = said;
                assert!(self.gateway.get("/items").header("age").is_some());
                let ready = self.gateway.admin_get("/readyz");
                assert_eq!(ready.status, 200, "what is in memory is served: {ready:?}");
                assert!(ready.text().contains("\"degraded\":true"), "{ready:?}");
                assert!(ready.text().contains("has not answered for"), "{ready:?}");
            }
            assert_eq!(self.gateway.admin_get("/livez").status, 200);
            let event = self.stream.next_within(Duration::from_millis(300));
            assert_eq!(event, None);
            assert!(!self.stream.ended(), "streams stay open");
            heartbeats = self.stream.comments();
            n += 1;
        }
        assert!(
            heartbeats as u64 >= time.as_secs() / 3,
            "{heartbeats} heartbeats"
        );
        println!(
            "away {time:?}: {n} commands, longest refusal {:?}; age {age} s; {heartbeats} heartbeats",
            self.ledger.longest_refusal
        );
    }

    /// Measures the recovery once the brokers are `back`, compared with kcat: by the log's clock,
    /// from the first record of any producer to the first command.
    fn recovers(&mut self, back: Instant) {
        let theirs = {
            let (bootstrap, probe) = (self.app.bootstrap().to_owned(), self.probe.clone());
            std::thread::spawn(move || kcat_acknowledged(&bootstrap, &probe))
        };
        let mut tries = Vec::new();
        let answered = loop {
            let name = format!("after-{}", tries.len());
            let answer = self.ledger.command(&self.gateway, "/items/x/orders", &name);
            tries.push((back.elapsed(), answer.status));
            if answer.status == 200 {
                break back.elapsed();
            }
            if back.elapsed() >= PATIENCE {
                let status = self.gateway.admin_get("/status");
                let log = self.app.commands_in_log();
                let told = (tries, log, status.text());
                panic!("it is not back: {answer:?}, tries, log, status: {told:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        theirs.join().expect("kcat is acknowledged");
        let theirs = kcat::read(self.app.bootstrap(), &self.probe)[0].time;
        let commands = self.app.commands_in_log();
        let ours = commands.iter().filter(|it| {
            let value = it.value.as_deref();
            value.is_some_and(|value| value.starts_with("\"after-"))
        });
        let ours = ours.map(|it| it.time).min().expect("it was answered");
        let behind = Duration::from_millis(ours.saturating_sub(theirs));
        println!(
            "back: the gateway's first command in the log {behind:?} after kcat's first record; \
             answered {answered:?} after the thaw or start, of {} tries",
            tries.len()
        );
        assert!(behind <= BACK_WITHIN, "{behind:?}: {tries:?}");
        self.app.produce(&self.app.events).values(["after"]);
        assert_eq!(self.stream.next().data, "after", "the same stream goes on");
        self.gateway
            .wait_until(&Request::get("/items/a"), |it| it.header("age").is_none());
        self.gateway.wait_admin("/readyz", |answer| {
            answer.status == 200 && answer.text().contains("\"degraded\":false")
        });
    }

    /// Compares the ledger with the log.
    fn finish(self) {
        self.service.end();
        self.ledger.check(&self.app);
    }
}

#[test]
fn all_brokers_frozen_for_a_minute() {
    let cluster = Cluster::start(3);
    let mut outage = Outage::ready(&Ground::replicated(&cluster.bootstrap(), 3));
    (1..=3).for_each(|node| cluster.freeze(node));
    outage.during(Duration::from_secs(60));
    (1..=3).for_each(|node| cluster.thaw(node));
    outage.recovers(Instant::now());
    outage.finish();
}

#[test]
fn all_brokers_killed_and_started_again() {
    let mut cluster = Cluster::start(1);
    let mut outage = Outage::ready(&Ground::at(&cluster.bootstrap()));
    cluster.kill(1);
    outage.during(Duration::from_secs(15));
    cluster.start_node(1);
    outage.recovers(Instant::now());
    outage.finish();
}

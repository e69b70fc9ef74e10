//! Unclean elections on real Apache Kafka. The log is truncated below records that clients
//! received, and grows past that offset again. Every client that received a lost record is
//! informed, and receives the new records.
//!
//! Three nodes for the quorum. A topic has replicas on two of them: one is down and lacks the
//! newest records when the other, which has them, dies. A marker topic shows when the first becomes
//! leader.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use sluicegate::control::{BrokerSecurity, TopicSpec, ensure_topics};
use sluicegate::model::TopicName;

use crate::client::{PATIENCE, Request};
use crate::cluster::Cluster;
use crate::events::{Event, Events};
use crate::gateway::{self, Gateway};
use crate::ground::{block_on, broker_address, unique};
use crate::kcat::{self, Produce};

/// Elections take the session's 3 s and the start of a JVM.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

/// A cluster of three nodes with one topic on two of them.
struct Ground {
    cluster: Cluster,
    topic: String,
}

impl Ground {
    fn new(policy: &str) -> Self {
        let cluster = Cluster::start(3);
        let topic = unique("branched");
        let configs = [
            ("cleanup.policy", policy),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
        ];
        let owned = configs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let specs = [TopicSpec {
            name: TopicName::new(&topic).expect("a name"),
            partitions: 1,
            replication: 2,
            configs: owned.to_vec(),
        }];
        let bootstrap = cluster.bootstrap();
        let brokers: Vec<_> = bootstrap.split(',').map(broker_address).collect();
        let plaintext = BrokerSecurity::default();
        let made = ensure_topics(&brokers, &plaintext, &specs, Duration::from_secs(30));
        block_on(made).expect("the topic is made");
        Self { cluster, topic }
    }

    fn gateway(&self) -> Gateway {
        let topic = &self.topic;
        let mut config = gateway::settings(&self.cluster.bootstrap(), 2);
        config.push_str("[streams]\nretry = \"100ms\"\n");
        for start in ["live", "earliest"] {
            config.push_str(&format!(
                "\n[[stream]]\nroute = \"GET /{start}\"\ntopic = \"{topic}\"\nstart = \"{start}\"\n"
            ));
        }
        config.push_str(&format!(
            "\n[[query]]\nroute = \"GET /items/{{id}}\"\ntopic = \"{topic}\"\nkey = \"{{path.id}}\"\n"
        ));
        Gateway::start(&config)
    }

    /// The partition's leader and its in-sync replicas.
    fn leader_and_isr(&self) -> (i64, Vec<i64>) {
        let done = Command::new("kcat")
            .args(["-L", "-J", "-m", "5", "-b", &self.cluster.bootstrap()])
            .args(["-t", &self.topic])
            .output()
            .expect("kcat, which tests/setup installs");
        let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        let partition = &said["topics"][0]["partitions"][0];
        let isrs = partition["isrs"].as_array().into_iter().flatten();
        let isrs = isrs.filter_map(|isr| isr["id"].as_i64()).collect();
        (partition["leader"].as_i64().unwrap_or(-1), isrs)
    }

    fn wait_for(&self, what: &str, wanted: impl Fn(i64, &[i64]) -> bool) -> (i64, Vec<i64>) {
        let until = Instant::now() + ELECTED_WITHIN;
        loop {
            let (leader, isrs) = self.leader_and_isr();
            if wanted(leader, &isrs) {
                return (leader, isrs);
            }
            assert!(Instant::now() < until, "{what}: {leader} {isrs:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn write<'a>(&self, records: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let produce = Produce::to(&self.cluster.bootstrap(), &self.topic);
        produce.option("acks=1").keyed(records);
    }

    /// Writes `lost` records that the log loses, and `after` records instead.
    fn branch(&mut self, lost: &[(&str, &str)], seen: impl FnOnce(), after: &[(&str, &str)]) {
        let (leader, isrs) = self.wait_for("two in sync", |_, isrs| isrs.len() == 2);
        let other = isrs.into_iter().find(|isr| *isr != leader);
        let other = other.expect("two are in sync");
        self.cluster.kill(other as usize);
        // Otherwise the high watermark would wait for the node that is down.
        self.wait_for("one in sync", |_, isrs| isrs == [leader]);
        self.write(lost.iter().copied());
        seen();
        self.cluster.kill(leader as usize);
        self.cluster.start_node(other as usize);
        self.wait_for("an unclean election", |leader, _| leader == other);
        self.write(after.iter().copied());
        self.cluster.start_node(leader as usize);
        self.wait_for("the old leader follows", |_, isrs| isrs.len() == 2);
    }
}

/// Reads as a browser does, which reconnects with its last id whenever the stream is closed, until
/// the record `last`.
fn read_on(gateway: &Gateway, path: &str, stream: Events, last: &str) -> Vec<Event> {
    let ended = |got: &[Event]| got.last().is_some_and(|event| event.data == last);
    read_until(gateway, path, stream, ended)
}

fn read_until(
    gateway: &Gateway,
    path: &str,
    mut stream: Events,
    ended: impl Fn(&[Event]) -> bool,
) -> Vec<Event> {
    let until = Instant::now() + 3 * PATIENCE;
    let mut got: Vec<Event> = Vec::new();
    while !ended(&got) {
        match stream.next_within(Duration::from_secs(1)) {
            Some(event) => got.push(event),
            None if stream.ended() => {
                let id = stream.last_event_id().to_owned();
                std::thread::sleep(Duration::from_millis(100));
                stream = Events::resume(gateway.address(), path, &id);
            }
            None => {}
        }
        assert!(Instant::now() < until, "it does not end: {got:?}");
    }
    got
}

fn said(events: &[Event]) -> Vec<(&str, &str)> {
    let said = events
        .iter()
        .map(|event| (&*event.name, event.data.as_str()));
    said.collect()
}

const TOLD: (&str, &str) = (
    "gap",
    r#"{"partition":0,"from":2,"to":4,"reason":"truncated"}"#,
);

/// Lost records are reported as a gap. The log's new records are sent, even those below the old
/// end.
#[test]
fn a_log_that_was_cut_back_and_has_grown_again_is_told() {
    let mut ground = Ground::new("delete");
    ground.write([("a", "one"), ("b", "two")]);
    let gateway = ground.gateway();
    let mut connected = Events::open(gateway.address(), "/earliest");
    assert_eq!(
        [&*connected.next().data, &*connected.next().data],
        ["one", "two"]
    );
    let mut left = Events::open(gateway.address(), "/earliest");
    let mut id = String::new();
    let lost = [("a", "lost 1"), ("b", "lost 2")];
    let after = [("a", "x"), ("b", "y"), ("c", "z"), ("d", "end")];
    let seen = || {
        for want in ["lost 1", "lost 2"] {
            assert_eq!(connected.next().data, want);
        }
        let seen: Vec<_> = (0..4).map(|_| left.next().data).collect();
        assert_eq!(seen, ["one", "two", "lost 1", "lost 2"]);
        left.last_event_id().clone_into(&mut id);
        drop(left);
    };
    ground.branch(&lost, seen, &after);
    let got = read_on(&gateway, "/earliest", connected, "end");
    let mut want = vec![TOLD];
    want.extend(after.map(|(_, value)| ("message", value)));
    assert_eq!(said(&got), want, "connected all the time");
    let resumed = Events::resume(gateway.address(), "/earliest", &id);
    let got = read_on(&gateway, "/earliest", resumed, "end");
    assert_eq!(said(&got), want, "back with an id of what is gone");
    // A gateway that never read the lost records detects it too.
    let fresh = ground.gateway();
    let resumed = Events::resume(fresh.address(), "/live", &id);
    let got = read_on(&fresh, "/live", resumed, "end");
    assert_eq!(said(&got), want, "at another gateway");
    let log = kcat::read(&ground.cluster.bootstrap(), &ground.topic);
    let log: Vec<_> = log.iter().filter_map(|it| it.value.as_deref()).collect();
    assert_eq!(
        log,
        ["one", "two", "x", "y", "z", "end"],
        "the surviving log"
    );
}

/// A query returns the record that the log has now, even if it is older than one returned before.
#[test]
fn a_cached_key_is_what_the_log_has_after_an_unclean_election() {
    let mut ground = Ground::new("compact");
    ground.write([("a", "one"), ("b", "two")]);
    let gateway = ground.gateway();
    let shows = |key: &str, value: &str| {
        let request = Request::get(&format!("/items/{key}"));
        gateway.wait_until(&request, |it| it.text() == value);
    };
    shows("a", "one");
    let mut stream = Events::open(gateway.address(), "/live");
    stream.wait_for_id();
    let seen = || {
        shows("a", "lost 1");
        shows("gone", "lost 2");
        assert_eq!(
            [&*stream.next().data, &*stream.next().data],
            ["lost 1", "lost 2"]
        );
    };
    let lost = [("a", "lost 1"), ("gone", "lost 2")];
    ground.branch(&lost, seen, &[("b", "x"), ("c", "y"), ("c", "end")]);
    shows("a", "one");
    shows("b", "x");
    shows("c", "end");
    assert_eq!(gateway.get("/items/gone").status, 404);
    // Each slice has a part of a snapshot, so the last record written may be sent before others.
    let got = read_until(&gateway, "/live", stream, |got| got.len() == 4);
    assert_eq!((&*got[0].name, &*got[0].data), TOLD);
    let newest: BTreeSet<&str> = said(&got[1..]).into_iter().map(|(_, it)| it).collect();
    assert_eq!(newest, BTreeSet::from(["one", "x", "end"]));
}

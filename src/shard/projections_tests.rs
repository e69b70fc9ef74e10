//! Requests that wait for a seq, each until one of the ways in which a wait ends.

use super::*;
use crate::config::{ConfigFile, Sources, load};
use crate::log::Change;
use crate::log::testing::step;
use crate::model::{HashSecret, LogTag, TopicId};
use crate::shard::message::Message;
use crate::shard::registry::Registry;

const CONFIG: &str = "kafka.bootstrap = [\"localhost:9092\"]\n[[query]]\n\
                      route = \"GET /balances\"\ntopic = \"balances\"\n";
const TOPIC: TopicId = TopicId(0);

/// The projections of a shard, and the exchanges of another one that wait for it.
struct World {
    projections: Projections,
    out: Outbox,
    seq: u64,
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn exchange(slot: u32) -> ExchangeId {
    ExchangeId {
        shard: ShardId(1),
        slot,
        generation: 0,
    }
}

impl World {
    /// With one topic that is live and has no step yet.
    fn new() -> Self {
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text: CONFIG.into(),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 2,
            ..Sources::default()
        };
        let loaded = load(sources).map_err(|report| report.render(false));
        let layout = Layout {
            shards: 2,
            kafka_shards: 0,
        };
        let config = Arc::new(loaded.expect("a correct config").config);
        let snapshot = Snapshot::new(1, config, layout, &mut Registry::default());
        let snapshot = Arc::new(snapshot.expect("one topic has a number"));
        let mut world = Self {
            projections: Projections::new(ShardId(0), snapshot, 1),
            out: Outbox::new(ShardId(0)),
            seq: 0,
        };
        world.open(1);
        world
    }

    /// An incarnation of the topic begins and is live.
    fn open(&mut self, number: u32) {
        let incarnation = Incarnation {
            number,
            tag: LogTag([0; 4]),
            secret: HashSecret::new([0; 16]),
            compacted: false,
            cached: true,
            partitions: 1,
            streamed: false,
            delete_retention_ms: 1000,
        };
        self.seq = 0;
        let incarnation = Arc::new(incarnation);
        self.projections.on_open(TOPIC, incarnation, &mut self.out);
        self.projections.on_live(TOPIC, Cut::start());
    }

    /// An exchange asks for a page of the collection at a seq, and gives up at a time.
    fn scan(&mut self, slot: u32, incarnation: u32, seq: u64, deadline: u64) {
        let request = Deferred::Scan(exchange(slot), None);
        let place = (incarnation, Seq(seq));
        let out = &mut self.out;
        self.projections
            .answer_at(TOPIC, place, at(deadline), request, out);
    }

    fn step(&mut self) {
        self.seq += 1;
        let step = Arc::new(step(self.seq, Change::Nothing));
        let now = Now::default();
        assert!(self.projections.apply(TOPIC, &step, now, &mut self.out));
    }

    /// The exchanges that were answered since the last call, and whether with a page.
    fn answers(&mut self) -> Vec<(u32, bool)> {
        let answer = |(_, message)| match message {
            Message::Edge(exchange, EdgeMessage::Scanned(page)) => (exchange.slot, page.is_some()),
            other => panic!("an unexpected {other:?}"),
        };
        self.out.drain().into_iter().map(answer).collect()
    }
}

#[test]
fn a_request_is_answered_once_its_seq_is_applied() {
    let mut world = World::new();
    world.scan(1, 1, 2, 50);
    world.scan(2, 1, 0, 50);
    assert_eq!(world.answers(), [(2, true)]);
    world.step();
    assert_eq!(world.answers(), []);
    world.step();
    assert_eq!(world.answers(), [(1, true)]);
    assert_eq!(world.projections.deferred.next_deadline(), None);
}

#[test]
fn a_wait_ends_at_its_deadline_or_with_its_incarnation() {
    let mut world = World::new();
    world.scan(1, 1, 5, 50);
    world.scan(2, 1, 5, 90);
    world.scan(3, 2, 5, 90);
    assert_eq!(world.answers(), [(3, false)], "another incarnation");
    assert_eq!(world.projections.deferred.next_deadline(), Some(at(50)));
    world.projections.end_waits(at(49), &mut world.out);
    assert_eq!(world.answers(), []);
    world.projections.end_waits(at(50), &mut world.out);
    assert_eq!(world.answers(), [(1, false)]);
    world.open(2);
    assert_eq!(world.answers(), [(2, false)]);
    assert_eq!(world.projections.deferred.next_deadline(), None);
}

#[test]
fn a_cancelled_exchange_waits_for_nothing() {
    let mut world = World::new();
    world.scan(1, 1, 1, 50);
    world.projections.cancel(exchange(1));
    assert_eq!(world.projections.deferred.next_deadline(), None);
    world.step();
    assert_eq!(world.answers(), []);
}

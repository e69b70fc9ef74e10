//! Requests that wait for a seq, each until one of the ways in which a wait ends.

use super::*;
use crate::cache::Changes;
use crate::config::{ConfigFile, Sources, load};
use crate::log::testing::step;
use crate::log::{Change, Next, Progress, Seq};
use crate::model::{HashSecret, LogTag, Offset, Partition, TopicId, UnixMillis};
use crate::shard::message::ChangesPiece;
use crate::shard::message::{Message, ProjectionMessage};
use crate::shard::projection::SLICE_START;
use crate::shard::registry::Registry;
use crate::shard::snapshot::Layout;
use crate::sse::{Delivery, Filter, Need, Sink, Slow, StartFrom, StreamQuestion, Subscribe, Taken};

/// Few connections, so that the limit of waiting requests is reached.
const CONFIG: &str = "http.connections_max = 16\nkafka.bootstrap = [\"localhost:9092\"]\n\
                      [[query]]\nroute = \"GET /balances\"\ntopic = \"balances\"\n\
                      [[stream]]\nroute = \"GET /balances/events\"\ntopic = \"balances\"\n";
const TOPIC: TopicId = TopicId(0);
/// Requests that may wait: one per connection, and one per topic.
const WAITERS_MAX: u32 = 16 + 1;
const TAG: LogTag = LogTag([0; 4]);

/// The projections of a shard, and the exchanges of another one that wait for it.
struct World {
    projections: Projections,
    out: Outbox,
    seq: u64,
    compacted: bool,
}

/// A socket that takes so many bytes of each offer.
struct Nowhere(usize);

impl Sink for Nowhere {
    fn room(&self) -> usize {
        self.0
    }

    fn take(&mut self, slices: &[std::io::IoSlice<'_>]) -> Taken {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        Taken::Bytes(bytes.min(self.0))
    }
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
        let mut world = Self::loading();
        world.projections.on_live(TOPIC, Cut::start());
        world
    }

    /// With one topic that begins to load.
    fn loading() -> Self {
        Self::loading_with(false)
    }

    /// With one topic that begins to load, and memory for one page of *changes*.
    fn loading_with(compacted: bool) -> Self {
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
        let mut snapshot = snapshot.expect("one topic has a number");
        snapshot.work.pages_bytes_max = PAGE_BYTES_MAX;
        let snapshot = Arc::new(snapshot);
        let mut world = Self {
            projections: Projections::new(ShardId(0), snapshot, 1),
            out: Outbox::new(ShardId(0)),
            seq: 0,
            compacted,
        };
        world.open(1);
        world
    }

    /// An incarnation of the topic begins to load.
    fn open(&mut self, number: u32) {
        let incarnation = Incarnation {
            number,
            tag: TAG,
            secret: HashSecret::new([0; 16]),
            compacted: self.compacted,
            cached: true,
            partitions: 1,
            streamed: true,
            delete_retention_ms: 1000,
        };
        self.seq = 0;
        let incarnation = Arc::new(incarnation);
        self.projections.on_open(TOPIC, incarnation);
    }

    /// An exchange asks for a page of the collection at a seq, and gives up at a time.
    fn scan(&mut self, slot: u32, incarnation: u32, seq: u64, deadline: u64) {
        let request = Deferred::Scan(exchange(slot), None);
        let place = (incarnation, Seq(seq));
        let out = &mut self.out;
        self.projections
            .answer_at(TOPIC, place, at(deadline), request, out);
    }

    /// A stream subscribes. Its client lacks what the window has not. Its socket takes `room`
    /// bytes.
    fn subscribe(&mut self, slot: u32, room: usize) -> ExchangeId {
        let mut held = Cut::start();
        held.set(Partition(0), Next::at(Offset(1)));
        let (tag, time, cut) = (TAG, UnixMillis(0), held);
        let id = Progress { tag, time, cut }.encode() + ".";
        let exchange = ExchangeId {
            shard: ShardId(0),
            slot,
            generation: 0,
        };
        let request = Subscribe {
            encoding: 0,
            filter: Filter::default(),
            start: StartFrom::Live,
            last_event_id: Some(id.as_bytes()),
            slow: Slow::Disconnect,
        };
        let feed = self.projections.feed_mut(TOPIC).expect("it is live");
        feed.subscribe(exchange, &request, Now::default());
        while let Some(stream) = feed.next_pending() {
            feed.deliver(stream, &mut Nowhere(room), Now::default());
        }
        exchange
    }

    /// A stream becomes a member of a catch-up read.
    fn join_catch_up(&mut self, catch_up: u32) -> ExchangeId {
        let exchange = self.subscribe(0, usize::MAX);
        let feed = self.projections.feed_mut(TOPIC).expect("it is live");
        assert!(matches!(feed.next_need(), Some(Need::CatchUp { .. })));
        let question = StreamQuestion {
            exchange,
            number: 1,
        };
        feed.on_catch_up_joined(CatchUpId(catch_up), &[question], &Cut::start());
        exchange
    }

    fn step(&mut self) {
        self.step_to(0);
    }

    /// A step after which the partition continues at an offset.
    fn step_to(&mut self, offset: u64) {
        self.seq += 1;
        let mut step = step(self.seq, Change::Nothing);
        step.cut.set(Partition(0), Next::at(Offset(offset)));
        let step = Arc::new(step);
        let now = Now::default();
        assert!(self.projections.apply(TOPIC, &step, now));
    }

    /// The exchanges that are answered in a turn without a budget, and whether with a page.
    fn answers(&mut self) -> Vec<(u32, bool)> {
        while self.projections.has_answers() {
            self.projections.answer_next(&mut self.out);
        }
        self.answered()
    }

    /// The exchanges that were answered since the last call.
    fn answered(&mut self) -> Vec<(u32, bool)> {
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

/// Thousands may wait for one step, and each answer is a page.
#[test]
fn requests_that_are_met_together_are_answered_one_by_one() {
    let mut world = World::new();
    for slot in [1, 2, 3] {
        world.scan(slot, 1, 1, 50);
    }
    world.step();
    assert_eq!(world.answered(), []);
    for slot in [1, 2, 3] {
        assert!(world.projections.has_work());
        world.projections.answer_next(&mut world.out);
        assert_eq!(world.answered(), [(slot, true)]);
    }
    assert!(!world.projections.has_answers());
}

/// Its members wait for the end and nothing else. If it were dropped, they would wait for ever.
#[test]
fn a_catch_up_read_whose_end_finds_no_place_counts_as_stalled() {
    let mut world = World::loading();
    world.step_to(5);
    world.projections.on_live(TOPIC, Cut::start());
    for slot in 0..WAITERS_MAX {
        world.scan(slot, 1, 9, 90);
    }
    assert_eq!(world.answers(), [], "all of them wait");
    world.scan(WAITERS_MAX, 1, 9, 90);
    assert_eq!(world.answers(), [(WAITERS_MAX, false)], "the queue is full");
    let stream = world.join_catch_up(7);
    let end = FeedMessage::CatchUpEnd {
        incarnation: 1,
        catch_up: 7,
        seq: Seq(9),
        cut: Cut::start(),
    };
    let (now, out) = (Now::default(), &mut world.out);
    world.projections.on_feed_message(TOPIC, end, now, out);
    let feed = world.projections.feed_mut(TOPIC).expect("it is live");
    assert_eq!(feed.next_pending(), Some(stream), "it looks for another");
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

/// The streams that asked a slice for a page since the last call.
fn pages_asked(world: &mut World) -> Vec<StreamQuestion> {
    let asked = |(_, message)| match message {
        Message::Projection(TOPIC, ProjectionMessage::Changes(request)) => request.question,
        other => panic!("an unexpected {other:?}"),
    };
    world.out.drain().into_iter().map(asked).collect()
}

/// A page arrives, without records, and another one follows it.
fn page(world: &mut World, question: StreamQuestion, now: Now) {
    let changes = Changes {
        next: Some(SLICE_START),
        ..Changes::default()
    };
    let next = Some((ShardId(1), SLICE_START));
    let piece = Some(Box::new(ChangesPiece { changes, next }));
    let message = FeedMessage::Changed(question, piece);
    let out = &mut world.out;
    world.projections.on_feed_message(TOPIC, message, now, out);
}

/// What a stream that is pending is sent.
fn deliver(world: &mut World, now: Now) -> Option<(ExchangeId, Delivery)> {
    let feed = world.projections.feed_mut(TOPIC).expect("it is live");
    let stream = feed.next_pending()?;
    Some((stream, feed.deliver(stream, &mut Nowhere(0), now)))
}

/// There is memory for one page, and the client that has it does not read. Nothing happens to it
/// until another stream has waited for the memory.
#[test]
fn a_client_that_does_not_take_its_page_is_closed_while_others_wait() {
    let seconds = |seconds: u64| Now {
        mono: at(seconds * 1000),
        ..Now::default()
    };
    let mut world = World::loading_with(true);
    world.step_to(5);
    world.projections.on_live(TOPIC, Cut::start());
    let first = world.subscribe(0, 0);
    world.projections.pump_feeds(at(0), &mut world.out);
    let asked = pages_asked(&mut world);
    assert_eq!(asked[..].len(), 1);
    page(&mut world, asked[0], seconds(0));
    world.projections.pump_feeds(at(0), &mut world.out);
    // No other stream waits.
    let _ = world.projections.on_time(seconds(20), &mut world.out);
    world.projections.pump_feeds(at(20_000), &mut world.out);
    assert_eq!(deliver(&mut world, seconds(20)), None);

    world.subscribe(1, usize::MAX);
    world.projections.pump_feeds(at(20_000), &mut world.out);
    assert!(pages_asked(&mut world).is_empty(), "there is no memory");
    let used = world.projections.pages().0;
    assert_eq!(world.projections.next_deadline(), Some(at(21_000)));
    let _ = world.projections.on_time(seconds(20), &mut world.out);
    assert_eq!(world.projections.pages().0, used);
    let _ = world.projections.on_time(seconds(21), &mut world.out);
    let ended = deliver(&mut world, seconds(21));
    assert_eq!(ended, Some((first, Delivery::Stalled)));
    world.projections.pump_feeds(at(21_000), &mut world.out);
    let asked = pages_asked(&mut world);
    assert_eq!(asked[0].exchange.slot, 1, "the page of the other");
    assert_eq!(world.projections.pages(), (PAGE_BYTES_MAX, 0));
}

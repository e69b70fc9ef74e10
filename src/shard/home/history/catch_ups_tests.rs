//! Which streams share a catch-up read while partitions have no leader. The client knows no broker;
//! what a read brings is given by hand.

use super::super::catch_up::STALL_CHECK_EVERY;
use super::*;
use crate::kafka::{DirectoryRole, Lane, ReadId, ReadKey, Settings};
use crate::log::Next;
use crate::log::testing::{Draft, batch};
use crate::model::{HashSecret, LogTag, Now, Offset, UnixMillis};
use crate::shard::home::order::{Limits, Order, STEP_BYTES_MAX};
use crate::shard::home::partitions::Part;
use crate::shard::message::{FeedMessage, Message, ProjectionMessage};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::TopicId;

const TOPIC: TopicHandle = TopicHandle(0);

/// The catch-up reads of a topic with two partitions that both end at 10, and their messages.
struct Ground {
    order: Order,
    parts: Vec<Part>,
    client: Client,
    catch_ups: CatchUps,
    now: Now,
    out: Outbox,
}

fn secret() -> HashSecret {
    HashSecret::derived_from(b"c")
}

fn cut(p0: u64, p1: u64) -> Cut {
    let mut cut = Cut::start();
    cut.set(Partition(0), Next::at(Offset(p0)));
    cut.set(Partition(1), Next::at(Offset(p1)));
    cut
}

impl Ground {
    fn new() -> Self {
        let limits = Limits {
            window_bytes_max: 1 << 20,
            in_flight_bytes_max: 1 << 20,
            step_bytes_max: STEP_BYTES_MAX,
        };
        let (tag, encodings) = (LogTag([1; 4]), vec![Encoding::default(); 2]);
        let shards = [ShardId(1)].into_iter();
        let mut order = Order::new(tag, secret(), limits, &encodings, shards, UnixMillis(0));
        order.go_live();
        for partition in [0, 1] {
            let record = Draft::new(9, "k", Some("v"));
            let next = Next::at(Offset(10));
            order.push(batch(partition, &[record], &secret()), next);
            let _step = order.next_step(None);
        }
        let client = Client::new(Settings::default(), 1, DirectoryRole::Fed, Now::default());
        Self {
            order,
            parts: vec![Part::default(); 2],
            client,
            catch_ups: CatchUps::new(encodings, 1000),
            now: Now::default(),
            out: Outbox::new(ShardId(0)),
        }
    }

    fn with(&mut self, act: impl FnOnce(&mut CatchUps, &mut HistoryContext<'_>)) {
        let mut at = HistoryContext {
            topic: TopicId(0),
            handle: TOPIC,
            order: &self.order,
            parts: &self.parts,
            now: self.now,
            client: &mut self.client,
            out: &mut self.out,
        };
        act(&mut self.catch_ups, &mut at);
    }

    fn join(&mut self, slot: u32, from: Cut) {
        self.join_in(0, slot, from);
    }

    fn question(slot: u32) -> StreamQuestion {
        StreamQuestion {
            exchange: ExchangeId {
                shard: ShardId(1),
                slot,
                generation: 0,
            },
            number: 1,
        }
    }

    /// A stream joins, for events of this encoding.
    fn join_in(&mut self, encoding: usize, slot: u32, from: Cut) {
        let question = Self::question(slot);
        self.with(|catch_ups, at| catch_ups.join(question, encoding, from, at));
    }

    /// A read brings the record before `next`.
    fn reads(&mut self, partition: u32, next: u64) {
        let id = ReadId(self.catch_ups.last);
        self.reads_of(id, partition, &[Draft::new(next - 1, "k", Some("v"))], next);
    }

    /// A read brings these records before `next`.
    fn reads_records(&mut self, partition: u32, records: &[Draft], next: u64) {
        self.reads_of(ReadId(self.catch_ups.last), partition, records, next);
    }

    /// The same of any read of the partition.
    fn reads_of(&mut self, id: ReadId, partition: u32, records: &[Draft], next: u64) {
        let read = ReadKey {
            lane: Lane::History,
            topic: TOPIC,
            partition: Partition(partition),
            id,
        };
        let event = Event::Batch {
            read,
            batch: batch(partition, records, &secret()),
            next: Next::at(Offset(next)),
            log_start: Offset(0),
            high_watermark: Offset(10),
            stable_end: Offset(10),
        };
        self.with(|catch_ups, at| catch_ups.on_read(event, at));
    }

    /// The blocks that were sent since: the offsets of each, and its bytes.
    fn blocks(&mut self) -> Vec<(Vec<u64>, usize)> {
        let block = |(_, message)| match message {
            Message::Projection(
                _,
                ProjectionMessage::Feed(FeedMessage::CatchUpBlock { block, .. }),
            ) => {
                let offsets = block.frames().iter().map(|frame| frame.offset.0);
                Some((offsets.collect(), block.bytes_held()))
            }
            _ => None,
        };
        self.out.drain().into_iter().filter_map(block).collect()
    }

    /// The same, and the shard's members take it.
    fn brings(&mut self, partition: u32, next: u64) {
        self.reads(partition, next);
        let number = self.catch_ups.last;
        self.with(|catch_ups, at| catch_ups.on_taken(ShardId(1), number, 1, at));
    }

    /// Lets the time until the next stall check expire.
    fn wait(&mut self) {
        self.now.mono = self.now.mono.after(STALL_CHECK_EVERY);
        self.with(CatchUps::on_timeout);
    }

    /// The catch-up reads that streams joined since, and how many in one message.
    fn joined(&mut self) -> Vec<(u32, usize)> {
        let joined = |(_, message)| match message {
            Message::Projection(
                _,
                ProjectionMessage::Feed(FeedMessage::CatchUpJoined {
                    catch_up, members, ..
                }),
            ) => Some((catch_up, members.len())),
            _ => None,
        };
        self.out.drain().into_iter().filter_map(joined).collect()
    }

    /// The messages since: which streams joined a catch-up read, which one ended and how.
    fn told(&mut self) -> Vec<String> {
        let tell = |message| match message {
            FeedMessage::CatchUpJoined {
                catch_up, members, ..
            } => {
                let slots: Vec<_> = members.iter().map(|it| it.exchange.slot).collect();
                Some(format!("{catch_up}: {slots:?}"))
            }
            FeedMessage::CatchUpEnd { catch_up, .. } => Some(format!("{catch_up} met")),
            FeedMessage::CatchUpStalled { catch_up, .. } => Some(format!("{catch_up} short")),
            _ => None,
        };
        let feed = |(_, message)| match message {
            Message::Projection(_, ProjectionMessage::Feed(message)) => Some(message),
            _ => None,
        };
        self.out
            .drain()
            .into_iter()
            .filter_map(feed)
            .filter_map(tell)
            .collect()
    }
}

#[test]
fn a_partition_without_a_leader_stalls_only_streams_that_lack_it() {
    let mut ground = Ground::new();
    ground.join(1, cut(5, 10));
    ground.join(2, cut(10, 5));
    assert_eq!(ground.told(), ["1: [1]"]);
    ground.wait();
    assert_eq!(ground.told(), ["1 short", "2: [2]"]);
    ground.join(1, cut(5, 10));
    ground.join(3, cut(10, 7));
    ground.brings(1, 10);
    assert_eq!(ground.told(), ["2 met", "3: [1]"], "they take turns");
    ground.wait();
    ground.join(1, cut(5, 10));
    assert_eq!(ground.told(), ["3 short", "4: [3]"]);
    ground.brings(1, 10);
    assert_eq!(ground.told(), ["4 met", "5: [1]"]);
    ground.brings(0, 10);
    assert_eq!(ground.told(), ["5 met"]);
    ground.join(1, cut(5, 10));
    ground.join(2, cut(10, 5));
    ground.join(3, cut(5, 5));
    ground.brings(0, 10);
    assert_eq!(ground.told(), ["6: [1]", "6 met", "7: [2, 3]"], "forgotten");
}

#[test]
fn a_stream_that_lacks_more_than_the_stalled_partition_gets_the_rest() {
    let mut ground = Ground::new();
    ground.join(1, cut(5, 5));
    ground.brings(1, 10);
    assert_eq!(ground.told(), ["1: [1]"]);
    ground.now.mono = ground.now.mono.after(STALL_CHECK_EVERY / 2);
    ground.with(CatchUps::on_timeout);
    assert_eq!(ground.told(), [""; 0], "an election may take a moment");
    ground.wait();
    assert_eq!(ground.told(), ["1 short"]);
    assert_eq!(ground.catch_ups.next_deadline(), None, "nothing runs");
}

#[test]
fn a_block_that_is_not_taken_yet_is_no_stall() {
    let mut ground = Ground::new();
    ground.join(1, cut(5, 5));
    ground.reads(1, 8);
    ground.wait();
    assert_eq!(ground.told(), ["1: [1]"]);
}

#[test]
fn a_stream_that_ends_while_it_waits_joins_no_catch_up_read() {
    let mut ground = Ground::new();
    ground.join(1, cut(5, 5));
    ground.join(2, cut(5, 5));
    let exchange = Ground::question(2).exchange;
    ground.with(|catch_ups, _| catch_ups.cancel(exchange));
    assert!(!ground.catch_ups.waiting.is_met(&(0..=u64::MAX)));
    ground.brings(0, 10);
    ground.brings(1, 10);
    assert_eq!(ground.told(), ["1: [1]", "1 met"]);
}

#[test]
fn the_other_encoding_is_not_starved() {
    let mut ground = Ground::new();
    ground.join(1, cut(5, 5));
    ground.join_in(1, 900, cut(5, 5));
    let mut told = ground.told();
    for n in 0..50 {
        // Another stream of encoding 0 arrives while the catch-up read runs.
        ground.join(2 + n % 2, cut(5, 5));
        ground.brings(0, 10);
        ground.brings(1, 10);
        told.extend(ground.told());
    }
    assert!(told.iter().any(|t| t.contains("[900]")), "{told:?}");
}

/// The rest of a piece is sent when the members have taken what fitted the block before.
#[test]
fn a_block_is_no_larger_than_a_step() {
    let mut ground = Ground::new();
    ground.join(1, cut(0, 10));
    let value = "v".repeat(STEP_BYTES_MAX / 4);
    let larger = "v".repeat(2 * STEP_BYTES_MAX);
    let mut records: Vec<_> = (0..9).map(|n| Draft::new(n, "k", Some(&value))).collect();
    records.push(Draft::new(9, "k", Some(&larger)));
    ground.reads_records(0, &records, 10);
    let (mut sent, mut blocks) = (Vec::<u64>::new(), 0);
    loop {
        let taken = ground.blocks();
        let [(offsets, bytes)] = &taken[..] else {
            assert!(taken.is_empty(), "one block is in flight at a time");
            break;
        };
        assert!(*bytes <= STEP_BYTES_MAX || offsets.len() == 1, "{bytes}");
        sent.extend(offsets);
        blocks += 1;
        let number = ground.catch_ups.last;
        ground.with(|catch_ups, at| catch_ups.on_taken(ShardId(1), number, 1, at));
    }
    assert_eq!(sent, (0..10).collect::<Vec<u64>>());
    assert_eq!(blocks, 4, "three records fit, and the large one goes alone");
    assert!(ground.catch_ups.running.is_none(), "it has met the window");
}

#[test]
fn an_event_of_an_earlier_catch_up_read_brings_nothing() {
    let mut ground = Ground::new();
    ground.join(1, cut(5, 10));
    ground.wait();
    ground.join(1, cut(5, 10));
    assert_eq!(ground.told(), ["1: [1]", "1 short", "2: [1]"]);
    ground.reads_of(ReadId(1), 0, &[Draft::new(9, "k", Some("v"))], 10);
    assert_eq!(ground.told(), [""; 0]);
    ground.brings(0, 10);
    assert_eq!(ground.told(), ["2 met"]);
}

/// A thousand clients that return at once cost one read, and no long turn.
#[test]
fn many_streams_join_one_catch_up_read_over_several_turns() {
    let mut ground = Ground::new();
    ground.join(0, cut(5, 10));
    assert_eq!(ground.joined(), [(1, 1)]);
    for slot in 1..=1200 {
        // Every third waits for the other encoding, and so for another catch-up read.
        let encoding = usize::from(slot % 3 == 0);
        ground.join_in(encoding, slot, cut(5, 10));
    }
    ground.brings(0, 10);
    let mut turns = 1;
    while ground.catch_ups.next_deadline() == Some(Instant::ZERO) {
        assert_eq!(ground.joined(), [], "it starts with its last member");
        // A stream that comes now joins the next one.
        ground.join(2000 + turns, cut(5, 10));
        ground.with(CatchUps::on_timeout);
        turns += 1;
    }
    assert_eq!(turns, 3, "512 in each turn");
    assert_eq!(ground.joined(), [(2, 512), (2, 288)]);
    ground.brings(0, 10);
    assert_eq!(ground.joined(), [(3, 400)], "the oldest waiter selects");
    ground.brings(0, 10);
    assert_eq!(ground.joined(), [(4, 2)]);
}

#[test]
fn a_stream_that_finds_no_place_asks_again() {
    let mut ground = Ground::new();
    ground.catch_ups = CatchUps::new(vec![Encoding::default(); 2], 1);
    for slot in 1..=4 {
        ground.join(slot, cut(5, 10));
    }
    assert_eq!(ground.told(), ["1: [1]", "2: [4]", "2 short"]);
}

//! Produced records: appended, refused or unknown, and never twice.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::records::RecordBatchDecoder;
use uuid::Uuid;

use super::*;
use crate::model::UnixMillis;

fn record(value: &str) -> ProduceRecord {
    ProduceRecord {
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from(value.to_owned())),
        headers: vec![(Bytes::from_static(b"h"), None)],
        timestamp: UnixMillis(5),
    }
}

fn produce(world: &mut World, topic: TopicHandle, tickets: std::ops::Range<u64>) {
    for ticket in tickets {
        let record = record(&ticket.to_string());
        let taken = world
            .client
            .produce(topic, Partition(0), record, ticket, world.now);
        taken.unwrap();
    }
    world.settle();
}

fn outcomes(world: &mut World) -> Vec<(u64, Produced)> {
    let events = world.take();
    let outcome = |event| match event {
        Event::Produced { ticket, outcome } => Some((ticket, outcome)),
        _ => None,
    };
    events.into_iter().filter_map(outcome).collect()
}

fn appended(offset: u64) -> Produced {
    Produced::At(Partition(0), Some(Offset(offset)))
}

/// (producer id, first sequence, values) of a batch.
fn read(batch: &Bytes) -> (i64, i32, Vec<String>) {
    let records = RecordBatchDecoder::decode(&mut batch.clone())
        .unwrap()
        .records;
    let value = |r: &kafka_protocol::records::Record| {
        String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap()
    };
    let values = records.iter().map(value).collect();
    (records[0].producer_id, records[0].sequence, values)
}

#[test]
fn records_gather_while_a_batch_is_in_flight() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..2);
    produce(&mut world, topic, 2..5);
    let first = world.produces.pop_front().unwrap();
    assert!(world.produces.is_empty(), "one batch in flight a partition");
    assert_eq!(read(&first.batch()), (501, 0, vec!["0".into(), "1".into()]));
    world.produced(&first, 0, 40, 0);
    assert_eq!(outcomes(&mut world), [(0, appended(40)), (1, appended(41))]);
    let second = world.produces.pop_front().unwrap();
    let (producer, sequence, values) = read(&second.batch());
    assert_eq!((producer, sequence, values.len()), (501, 2, 3));
    world.produced(&second, 0, 42, 0);
    let all = [(2, appended(42)), (3, appended(43)), (4, appended(44))];
    assert_eq!(outcomes(&mut world), all);
}

/// A broker or a balancer would close the idle connection, maybe under the next command.
#[test]
fn a_connection_that_nobody_needs_is_closed_after_three_minutes() {
    let (mut world, topic) = known(&[(2, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, 0, 40, 0);
    world.take();
    world.pass(Duration::from_secs(179));
    assert!(world.is_open(first.link));
    world.pass(Duration::from_secs(2));
    assert!(!world.is_open(first.link));
    let down = |event: &Event| matches!(event, Event::BrokerDown { .. });
    assert!(!world.take().iter().any(down), "that is no failure");
    produce(&mut world, topic, 1..2);
    let second = world.produces.pop_front().unwrap();
    assert_ne!(second.link, first.link);
    world.produced(&second, 0, 41, 0);
    assert_eq!(outcomes(&mut world), [(1, appended(41))]);
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_bytes() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.cut(first.link);
    produce(&mut world, topic, 1..2);
    world.pass(Duration::from_millis(200));
    let again = world.produces.pop_front().unwrap();
    assert_ne!(again.link, first.link);
    assert_eq!(
        again.batch(),
        first.batch(),
        "the broker tells duplicates by the sequence"
    );
    world.produced(&again, 0, 7, 0);
    assert_eq!(outcomes(&mut world), [(0, appended(7))]);
    let next = world.produces.pop_front().unwrap();
    assert_eq!(read(&next.batch()).1, 1);
}

#[test]
fn a_duplicate_is_appended_though_nobody_knows_where() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, 46, -1, 0);
    assert_eq!(
        outcomes(&mut world),
        [(0, Produced::At(Partition(0), None))]
    );
}

#[test]
fn a_moved_leader_gets_the_same_batch() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.pass(Duration::from_secs(1));
    world.topics[0].leaders[0] = (2, 1);
    world.produced(&first, 6, -1, 0);
    world.settle();
    let again = world.produces.pop_front().unwrap();
    assert_eq!((again.node, again.batch()), (2, first.batch()));
}

/// A record that was never sent is refused. A record that may have arrived is unknown, and its
/// sequence is given up.
#[test]
fn the_delivery_timeout_tells_refused_from_unknown() {
    let (mut world, topic) = known(&[(1, 0)]);
    world.kill(1);
    produce(&mut world, topic, 0..1);
    world.pass(Duration::from_millis(899));
    assert!(outcomes(&mut world).is_empty());
    world.pass(Duration::from_millis(2));
    let (timeout, away) = (ProduceError::Timeout, ProduceError::Unreachable);
    assert_eq!(outcomes(&mut world), [(0, Produced::Refused(away))]);
    world.down.clear();
    world.pass(Duration::from_secs(2));
    produce(&mut world, topic, 1..2);
    let first = world.produces.pop_front().unwrap();
    assert_eq!(read(&first.batch()), (501, 0, vec!["1".into()]));
    world.kill(1);
    world.pass(Duration::from_secs(31));
    assert_eq!(outcomes(&mut world), [(1, Produced::Unknown(timeout))]);
    world.down.clear();
    world.pass(Duration::from_secs(2));
    produce(&mut world, topic, 2..3);
    let next = world.produces.pop_front().unwrap();
    assert_eq!(
        read(&next.batch()),
        (502, 0, vec!["2".into()]),
        "another producer id"
    );
}

/// If the socket took no byte of a request, the broker can't have acted on it.
#[test]
fn a_request_that_was_never_written_is_refused() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, 0, 0, 0);
    outcomes(&mut world);
    world.writes = false;
    produce(&mut world, topic, 1..2);
    let link = first.link;
    assert!(!world.client.outgoing(link).is_empty());
    world.kill(1);
    world.writes = true;
    world.pass(Duration::from_secs(1));
    let refused = Produced::Refused(ProduceError::Unreachable);
    assert_eq!(outcomes(&mut world), [(1, refused)]);
    world.down.clear();
    world.pass(Duration::from_secs(2));
    produce(&mut world, topic, 2..3);
    let next = world.produces.pop_front().unwrap();
    assert_eq!(
        read(&next.batch()),
        (501, 1, vec!["2".into()]),
        "its sequence is free again"
    );
}

fn try_produce(
    world: &mut World,
    topic: TopicHandle,
    partition: u32,
) -> Result<(), ProduceRefused> {
    let (partition, record, now) = (Partition(partition), record("x"), world.now);
    let taken = world.client.produce(topic, partition, record, 9, now);
    world.settle();
    taken
}

/// R8: while a leader is unavailable, records are refused without a wait. Refused records make the
/// client look for the leader again.
#[test]
fn a_leader_that_is_away_is_refused_at_once_until_it_is_back() {
    let (mut world, topic) = known(&[(1, 0)]);
    world.kill(1);
    produce(&mut world, topic, 0..1);
    world.pass(Duration::from_millis(950));
    outcomes(&mut world);
    let (mut refused, tried) = (0, world.opened.len());
    for _ in 0..100 {
        if let Err(error) = try_produce(&mut world, topic, 0) {
            assert_eq!(error, ProduceRefused::Unreachable);
            refused += 1;
        }
        world.pass(Duration::from_millis(100));
    }
    let away = Produced::Refused(ProduceError::Unreachable);
    let told = outcomes(&mut world);
    assert!(told.iter().all(|(_, outcome)| *outcome == away), "{told:?}");
    assert!(refused > 50, "{refused} of 100 are refused at once");
    let tried = world.opened.len() - tried;
    assert!(
        tried >= 10,
        "{tried} times it was looked whether it is back"
    );
    world.down.clear();
    world.pass(Duration::from_millis(1_100));
    outcomes(&mut world);
    try_produce(&mut world, topic, 0).unwrap();
    world.pass(Duration::from_millis(10));
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, 0, 7, 0);
    assert_eq!(outcomes(&mut world), [(9, appended(7))]);
}

/// R2: nothing reads from that leader, so only the refused records make the client look for
/// another.
#[test]
fn who_is_refused_is_served_soon_after_an_election() {
    for elected in (10..40).map(|it| it * 100) {
        let (mut world, topic) = known(&[(2, 0)]);
        world.kill(2);
        produce(&mut world, topic, 0..1);
        let ask = |world: &mut World, ms: u64| {
            for _ in 0..ms / 50 {
                let _refused = try_produce(world, topic, 0);
                world.pass(Duration::from_millis(50));
            }
        };
        ask(&mut world, elected);
        assert!(world.produces.is_empty());
        world.topics[0].leaders[0] = (1, 1);
        ask(&mut world, 300);
        let batch = world.produces.pop_front();
        let batch = batch.unwrap_or_else(|| panic!("elected after {elected} ms"));
        assert_eq!(batch.node, 1);
    }
}

/// A frozen broker sends nothing. The outcome of sent records stays unknown, nothing is sent behind
/// them, and unsent records are refused within a second.
#[test]
fn nothing_is_sent_behind_an_answer_that_is_owed() {
    let (mut world, topic) = known(&[(1, 0), (1, 0)]);
    produce(&mut world, topic, 0..1);
    assert_eq!(world.produces.len(), 1, "and it is not answered");
    produce(&mut world, topic, 1..2);
    world.pass(Duration::from_millis(600));
    try_produce(&mut world, topic, 1).unwrap();
    world.pass(Duration::from_millis(290));
    assert_eq!(outcomes(&mut world), []);
    world.pass(Duration::from_millis(20));
    let away = Produced::Refused(ProduceError::Unreachable);
    assert_eq!(outcomes(&mut world), [(1, away)]);
    for partition in [0, 1] {
        let refused = try_produce(&mut world, topic, partition);
        assert_eq!(refused, Err(ProduceRefused::Unreachable));
    }
    world.pass(Duration::from_millis(600));
    assert_eq!(outcomes(&mut world), [(9, away)]);
    let first = world.produces.pop_front().unwrap();
    assert!(world.produces.is_empty(), "no other partition's either");
    world.produced(&first, 0, 3, 0);
    assert_eq!(outcomes(&mut world), [(0, appended(3))]);
    try_produce(&mut world, topic, 0).unwrap();
    assert_eq!(world.produces.len(), 1, "it goes on");
}

#[test]
fn a_partition_without_a_leader_refuses_after_a_moment() {
    let (mut world, topic) = known(&[(-1, 0)]);
    produce(&mut world, topic, 0..1);
    world.pass(Duration::from_millis(910));
    let away = Produced::Refused(ProduceError::Unreachable);
    assert_eq!(outcomes(&mut world), [(0, away)]);
    produce(&mut world, topic, 1..2);
    world.topics[0].leaders[0] = (2, 1);
    world.pass(Duration::from_millis(800));
    let batch = world.produces.pop_front().unwrap();
    assert_eq!((batch.node, read(&batch.batch()).1), (2, 0));
}

/// Each response says for certain that nothing was appended. So the final outcome may be a refusal.
#[test]
fn too_few_replicas_refuse_after_a_moment() {
    const NOT_ENOUGH_REPLICAS: i16 = 19;
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let mut tries = 0;
    for _ in 0..20 {
        while let Some(asked) = world.produces.pop_front() {
            world.produced(&asked, NOT_ENOUGH_REPLICAS, -1, 0);
            tries += 1;
        }
        world.pass(Duration::from_millis(50));
    }
    let refused = Produced::Refused(ProduceError::Broker(Code(NOT_ENOUGH_REPLICAS)));
    assert_eq!(outcomes(&mut world), [(0, refused)], "after {tries} tries");
    assert!(tries > 1);
    world.pass(Duration::from_secs(1));
    produce(&mut world, topic, 1..2);
    let batch = world.produces.pop_front().unwrap();
    assert_eq!(read(&batch.batch()), (501, 0, vec!["1".into()]));
}

/// A broker that acknowledges after a delay, the requests of a connection in turn.
struct Slow {
    after: Duration,
    next_at: Option<crate::model::Instant>,
}

impl Slow {
    fn new(ms: u64) -> Self {
        let after = Duration::from_millis(ms);
        let next_at = None;
        Self { after, next_at }
    }

    /// Advances the clock by 10 ms and answers the requests that are due.
    fn pass(&mut self, world: &mut World) {
        world.pass(Duration::from_millis(10));
        if world.produces.is_empty() {
            self.next_at = None;
            return;
        }
        let due = *self.next_at.get_or_insert(world.now.mono.after(self.after));
        if due <= world.now.mono {
            let asked = world.produces.pop_front().unwrap();
            world.produced(&asked, 0, 0, 0);
            self.next_at = None;
        }
    }

    /// Sends a command every 40 ms for this time, over three partitions. Returns how many were
    /// refused, before or after they were accepted.
    fn load(&mut self, world: &mut World, topic: TopicHandle, seconds: u64) -> usize {
        let mut refused = 0;
        for n in 0..seconds * 25 {
            refused += usize::from(try_produce(world, topic, n as u32 % 3).is_err());
            (0..4).for_each(|_| self.pass(world));
        }
        let told = outcomes(world);
        let lost = |it: &&(u64, Produced)| matches!(it.1, Produced::Refused(_));
        refused + told.iter().filter(lost).count()
    }
}

/// Responses that always take a second are no outage. The second of them sets the limit.
#[test]
fn a_slow_leader_is_not_taken_for_a_dead_one() {
    let (mut world, topic) = known(&[(1, 0), (1, 0), (1, 0)]);
    let mut slow = Slow::new(1_000);
    let refused = slow.load(&mut world, topic, 9);
    assert!(refused < 25, "{refused} of 225 were refused");
    assert_eq!(slow.load(&mut world, topic, 9), 0, "its pace is known");
}

/// At a slow leader a missing response counts as an outage later, and at 3 s at the latest.
#[test]
fn a_slow_leader_that_falls_silent_is_refused_after_stall_max() {
    let (mut world, topic) = known(&[(1, 0), (1, 0), (1, 0)]);
    Slow::new(1_000).load(&mut world, topic, 5);
    while let Some(asked) = world.produces.pop_front() {
        world.produced(&asked, 0, 0, 0);
    }
    outcomes(&mut world);
    try_produce(&mut world, topic, 0).unwrap();
    world.pass(Duration::from_millis(2_900));
    try_produce(&mut world, topic, 1).unwrap();
    world.pass(Duration::from_millis(200));
    let refused = try_produce(&mut world, topic, 2);
    assert_eq!(refused, Err(ProduceRefused::Unreachable));
}

/// A failing connection is not a slow response.
#[test]
fn a_slow_leader_whose_connection_fails_is_refused_within_a_second() {
    let (mut world, topic) = known(&[(1, 0), (1, 0), (1, 0)]);
    Slow::new(1_000).load(&mut world, topic, 5);
    while let Some(asked) = world.produces.pop_front() {
        world.produced(&asked, 0, 0, 0);
    }
    outcomes(&mut world);
    world.kill(1);
    try_produce(&mut world, topic, 0).unwrap();
    world.pass(Duration::from_millis(950));
    let away = Produced::Refused(ProduceError::Unreachable);
    assert_eq!(outcomes(&mut world), [(9, away)]);
    let refused = try_produce(&mut world, topic, 1);
    assert_eq!(refused, Err(ProduceRefused::Unreachable));
}

/// KIP-219: the response comes at once, the records are appended, and the link then sends nothing
/// for the throttle time.
#[test]
fn a_throttled_link_is_silent_and_nothing_is_sent_twice() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, 0, 0, 8_000);
    assert_eq!(outcomes(&mut world), [(0, appended(0))]);
    produce(&mut world, topic, 1..2);
    world.pass(Duration::from_millis(7_900));
    assert!(world.produces.is_empty());
    world.pass(Duration::from_millis(200));
    assert_eq!(read(&world.produces.pop_front().unwrap().batch()).2, ["1"]);
    world.pass(Duration::from_secs(1));
    assert!(world.produces.is_empty());
}

#[test]
fn one_bad_record_does_not_refuse_its_neighbours() {
    const INVALID_RECORD: i16 = 87;
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..3);
    let all = world.produces.pop_front().unwrap();
    world.produced(&all, INVALID_RECORD, -1, 0);
    let mut seen = Vec::new();
    for (code, base) in [(0, 10), (INVALID_RECORD, -1), (0, 11)] {
        let one = world.produces.pop_front().unwrap();
        let (_, sequence, values) = read(&one.batch());
        seen.push((sequence, values.concat()));
        world.produced(&one, code, base, 0);
    }
    assert_eq!(seen, [(0, "0".into()), (1, "1".into()), (1, "2".into())]);
    let bad = Produced::Refused(ProduceError::Broker(Code(INVALID_RECORD)));
    assert_eq!(
        outcomes(&mut world),
        [(0, appended(10)), (1, bad), (2, appended(11))]
    );
}

#[test]
fn a_sequence_the_broker_forgot_begins_anew_where_that_is_certain() {
    const OUT_OF_ORDER: i16 = 45;
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..1);
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, OUT_OF_ORDER, -1, 0);
    world.pass(Duration::from_millis(60));
    let again = world.produces.pop_front().unwrap();
    assert_eq!(read(&again.batch()), (502, 0, vec!["0".into()]));
    // Now the batch may have arrived, so only unknown is a true outcome.
    world.cut(again.link);
    world.pass(Duration::from_millis(200));
    let third = world.produces.pop_front().unwrap();
    world.produced(&third, OUT_OF_ORDER, -1, 0);
    let error = ProduceError::Broker(Code(OUT_OF_ORDER));
    assert_eq!(outcomes(&mut world), [(0, Produced::Unknown(error))]);
}

#[test]
fn what_can_not_be_taken_is_refused_at_once() {
    let (mut world, topic) = known(&[(1, 0)]);
    let now = world.now;
    let huge = record(&"x".repeat(2_000)); // The topic's max.message.bytes is 1,000.
    let taken = world.client.produce(topic, Partition(0), huge, 0, now);
    assert!(matches!(
        taken,
        Err(ProduceRefused::TooLarge { max: 1000, .. })
    ));
    let taken = world
        .client
        .produce(topic, Partition(1), record("x"), 0, now);
    assert_eq!(taken, Err(ProduceRefused::UnknownTopic));
    let settings = Settings {
        pending_produce_bytes_max: 150,
        ..super::peer::settings()
    };
    let topics = [super::topic(&[(1, 0)])];
    let mut world = World::with(settings, DirectoryRole::Own, &topics);
    let topic = world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    produce(&mut world, topic, 0..1);
    let taken = world
        .client
        .produce(topic, Partition(0), record("x"), 1, now);
    assert_eq!(taken, Err(ProduceRefused::Full));
    let first = world.produces.pop_front().unwrap();
    world.produced(&first, 0, 0, 0);
    produce(&mut world, topic, 1..2);
}

#[test]
fn a_batch_is_no_larger_than_the_topic_takes() {
    let (mut world, topic) = known(&[(1, 0)]);
    produce(&mut world, topic, 0..50);
    let mut values = Vec::new();
    while let Some(asked) = world.produces.pop_front() {
        let batch = asked.batch();
        assert!(batch.len() <= 1000, "{} bytes", batch.len());
        values.extend(read(&batch).2);
        world.produced(&asked, 0, 0, 0);
    }
    let expected: Vec<_> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(values, expected);
}

#[test]
fn partitions_do_not_wait_for_one_another() {
    let (mut world, topic) = known(&[(1, 0), (1, 0)]);
    produce(&mut world, topic, 0..1);
    let now = world.now;
    let taken = world
        .client
        .produce(topic, Partition(1), record("x"), 1, now);
    taken.unwrap();
    world.settle();
    assert_eq!(world.produces.len(), 2);
    let (first, second) = (&world.produces[0], &world.produces[1]);
    assert_eq!(first.link, second.link, "pipelined");
}

/// A frozen broker does not keep other brokers' partitions without a producer id.
#[test]
fn a_producer_id_is_had_of_a_broker_that_answers() {
    let (mut world, topic) = known(&[(1, 0), (2, 0)]);
    produce(&mut world, topic, 0..1);
    let _stuck = world.produces.pop_front().unwrap();
    world.frozen.insert(1);
    world.pass(Duration::from_secs(6)); // The connection is given up, and the batch retried.
    let taken = world
        .client
        .produce(topic, Partition(1), record("1"), 1, world.now);
    taken.unwrap();
    world.pass(Duration::from_millis(100));
    let to_2 = world.produces.iter().position(|it| it.node == 2).unwrap();
    let first = world.produces.remove(to_2).unwrap();
    // OUT_OF_ORDER_SEQUENCE_NUMBER: the sequence must restart, which needs a new producer id.
    let refused = PartitionProduceResponse::default()
        .with_index(1)
        .with_error_code(45);
    let refused = TopicProduceResponse::default()
        .with_topic_id(Uuid::from_u128(77))
        .with_partition_responses(vec![refused]);
    let response = ProduceResponse::default().with_responses(vec![refused]);
    world.answer::<ProduceRequest>(&first, &response);
    world.pass(Duration::from_secs(3));
    assert!(world.produces.iter().any(|it| it.node == 2));
}

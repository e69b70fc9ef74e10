//! Fetch sessions (KIP-227): which partitions a request names, and what an unnamed one means.

use std::time::Duration;

use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use uuid::Uuid;

use super::peer::{Asked, settings};
use super::reading::{data, refused};
use super::*;

/// The content of a Fetch: session and epoch, partitions with offsets, forgotten partitions.
type Said = (i32, i32, Vec<(i32, i64)>, Vec<i32>);

fn said(asked: &Asked) -> Said {
    let request = asked.fetch();
    let topics = request.topics.iter().flat_map(|topic| &topic.partitions);
    let mut wanted: Vec<_> = topics.map(|p| (p.partition, p.fetch_offset)).collect();
    wanted.sort_unstable();
    let gone = request.forgotten_topics_data.iter();
    let gone = gone.flat_map(|topic| topic.partitions.clone()).collect();
    (request.session_id, request.session_epoch, wanted, gone)
}

fn answer(world: &mut World, asked: &Asked, id: i32, code: i16, partitions: Vec<PartitionData>) {
    throttled(world, asked, (id, code, 0), partitions);
}

fn throttled(
    world: &mut World,
    asked: &Asked,
    (id, code, throttle_ms): (i32, i16, i32),
    partitions: Vec<PartitionData>,
) {
    let topic = FetchableTopicResponse::default().with_partitions(partitions);
    let topic = match asked.version {
        13.. => topic.with_topic_id(Uuid::from_u128(77)),
        _ => topic.with_topic(kafka_protocol::messages::TopicName("t".to_owned().into())),
    };
    let topics = (!topic.partitions.is_empty()).then_some(topic);
    let response = FetchResponse::default()
        .with_session_id(id)
        .with_error_code(code)
        .with_throttle_time_ms(throttle_ms)
        .with_responses(topics.into_iter().collect());
    world.answer::<FetchRequest>(asked, &response);
    world.settle();
}

/// Some partitions are read from 0. The broker has opened session 9 and reported their ends.
fn begun(partitions: u32) -> (World, TopicHandle) {
    let (mut world, handle) = known(&vec![(1, 0); partitions as usize]);
    for partition in 0..partitions {
        world.client.read(key(handle, partition), at(0));
    }
    let fetch = world.next_fetch();
    let (id, epoch, wanted, gone) = said(&fetch);
    assert_eq!((id, epoch, wanted.len()), (0, 0, partitions as usize));
    assert!(gone.is_empty());
    let all = (0..partitions as i32).map(|p| data(p, 0, &[])).collect();
    answer(&mut world, &fetch, 9, 0, all);
    world.take();
    (world, handle)
}

/// Two reads of one partition share its entry in the session. The broker receives the other offset,
/// and never a request that names the partition and forgets it too.
#[test]
fn reads_of_one_partition_share_its_entry() {
    let (mut world, handle) = begun(1);
    let other = ReadKey {
        id: ReadId(1),
        ..key(handle, 0)
    };
    world.client.read(other, at(7));
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![]);
    let fetch = world.next_fetch();
    assert_eq!(
        said(&fetch),
        (9, 2, vec![(0, 7)], vec![]),
        "the other's turn"
    );
    answer(&mut world, &fetch, 9, 0, vec![data(0, 8, &[7])]);
    assert_eq!(offsets_of(&world.take()), [7]);
    let fetch = world.next_fetch();
    assert_eq!(said(&fetch), (9, 3, vec![(0, 0)], vec![]), "and back");
}

#[test]
fn only_changes_are_named() {
    let (mut world, handle) = begun(3);
    let fetch = world.next_fetch();
    assert_eq!(said(&fetch), (9, 1, vec![], vec![]));
    answer(&mut world, &fetch, 9, 0, vec![data(1, 2, &[0, 1])]);
    assert_eq!(offsets_of(&world.take()), [0, 1]);
    let fetch = world.next_fetch();
    assert_eq!(
        said(&fetch),
        (9, 2, vec![(1, 2)], vec![]),
        "moved by records"
    );
    world.client.pause(key(handle, 0));
    world.client.stop(key(handle, 2));
    answer(&mut world, &fetch, 9, 0, vec![]);
    let fetch = world.next_fetch();
    assert_eq!(said(&fetch), (9, 3, vec![], vec![0, 2]));
    world.client.resume(key(handle, 0));
    answer(&mut world, &fetch, 9, 0, vec![]);
    assert_eq!(said(&world.next_fetch()), (9, 4, vec![(0, 0)], vec![]));
}

#[test]
fn what_is_not_named_is_as_it_was() {
    let (mut world, handle) = begun(3);
    let fetch = world.next_fetch();
    let before = world.now.mono;
    answer(&mut world, &fetch, 9, 0, vec![data(0, 1, &[0])]);
    assert_eq!(world.take().len(), 1, "of the partition that has changed");
    // The others are confirmed. Otherwise a topic without news would take its leader for
    // unavailable.
    for p in [1, 2] {
        assert!(world.client.confirmed(key(handle, p)) >= Some(before));
    }
    world.pass(Duration::from_secs(3));
    assert!(world.take().is_empty(), "no read has failed");
}

/// A read is confirmed by responses to requests that ask for it, and by no earlier one. What was
/// confirmed outlives the connection.
#[test]
fn a_response_confirms_the_reads_that_its_request_asked_for() {
    let (mut world, handle) = begun(2);
    let fetch = world.next_fetch();
    world.client.pause(key(handle, 1));
    answer(&mut world, &fetch, 9, 0, vec![]);
    let paused_at = world.client.confirmed(key(handle, 1));
    assert!(paused_at.is_some());
    world.pass(Duration::from_millis(50));
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![data(0, 1, &[0])]);
    world.pass(Duration::from_millis(50));
    world.client.resume(key(handle, 1));
    let without_it = world.next_fetch();
    answer(&mut world, &without_it, 9, 0, vec![]);
    assert_eq!(world.client.confirmed(key(handle, 1)), paused_at);
    let with_it = world.next_fetch();
    assert_eq!(said(&with_it).2, [(1, 0)]);
    assert_eq!(world.client.confirmed(key(handle, 1)), paused_at);
    answer(&mut world, &with_it, 9, 0, vec![]);
    let last = world.client.confirmed(key(handle, 1));
    assert!(last > paused_at);
    let fetch = world.next_fetch();
    world.cut(fetch.link);
    assert_eq!(world.client.confirmed(key(handle, 1)), last);
}

/// Ten records of one partition while 49 are idle. The idle ones emit no event, no request names
/// them, and each response confirms them.
#[test]
fn idle_partitions_stay_in_flight_and_cost_no_event() {
    let (mut world, handle) = begun(50);
    for offset in 0..10 {
        let fetch = world.next_fetch();
        let moved = (0..1).map(|p| (p, offset as i64)).filter(|_| offset > 0);
        assert_eq!(
            said(&fetch),
            (9, offset as i32 + 1, moved.collect(), vec![])
        );
        let before = world.now.mono;
        answer(&mut world, &fetch, 9, 0, vec![data(0, 10, &[offset])]);
        let events = world.take();
        assert_eq!(events.len(), 1, "{events:?}");
        let confirmed = |p| world.client.confirmed(key(handle, p)) >= Some(before);
        assert!((1..50).all(confirmed));
        world.pass(Duration::from_millis(1));
    }
}

/// An idle partition stays in flight from Fetch to Fetch. It follows its leader all the same.
#[test]
fn an_idle_partition_follows_its_leader() {
    let (mut world, _) = begun(3);
    for offset in 0..3 {
        let fetch = world.next_fetch();
        answer(&mut world, &fetch, 9, 0, vec![data(0, 3, &[offset])]);
    }
    let fetch = world.next_fetch();
    world.topics[0].leaders[2] = (2, 1);
    world.client.refresh();
    world.pass(Duration::from_millis(200));
    answer(&mut world, &fetch, 9, 0, vec![]);
    let (a, b) = (world.next_fetch(), world.next_fetch());
    let (old, new) = if a.node == 1 { (a, b) } else { (b, a) };
    assert_eq!((old.node, new.node), (1, 2));
    assert_eq!(said(&old), (9, 5, vec![], vec![2]));
    assert_eq!(said(&new), (0, 0, vec![(2, 0)], vec![]));
}

/// Idle partitions are read on after their connection has broken.
#[test]
fn idle_partitions_are_asked_for_on_another_connection() {
    let (mut world, _) = begun(3);
    for offset in 0..3 {
        let fetch = world.next_fetch();
        answer(&mut world, &fetch, 9, 0, vec![data(0, 3, &[offset])]);
    }
    let fetch = world.next_fetch();
    world.cut(fetch.link);
    world.pass(Duration::from_secs(1));
    let fetch = world.next_fetch();
    let (_, epoch, wanted, gone) = said(&fetch);
    assert_eq!((epoch, wanted.len(), gone.len()), (0, 3, 0));
}

/// The broker reported its ends to an earlier read of the key, and does not report them twice.
#[test]
fn a_read_that_restarts_gets_the_bounds_reported_before() {
    let (mut world, handle) = begun(1);
    world.client.read(key(handle, 0), at(0));
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![]);
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![]);
    let events = world.take();
    assert!(
        matches!(
            &events[..],
            [Event::Started { end: Offset(0), .. }, Event::Batch { batch, .. }, ..]
                if batch.is_empty()
        ),
        "{events:?}"
    );
}

/// The failed partition leaves the session until its retry. Within the session the broker would
/// answer at once with the same error.
#[test]
fn a_partition_that_failed_leaves_and_comes_back() {
    let (mut world, _) = begun(2);
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![refused(0, 56)]);
    let fetch = world.next_fetch();
    assert_eq!(said(&fetch), (9, 2, vec![], vec![0]));
    world.pass(Duration::from_millis(400));
    answer(&mut world, &fetch, 9, 0, vec![]);
    assert_eq!(said(&world.next_fetch()), (9, 3, vec![(0, 0)], vec![]));
}

/// The partition had records that were not read, because the response's budget was used up. The
/// broker received no other offset, and returns the records again.
#[test]
fn what_was_not_read_is_not_moved() {
    let mut few = settings();
    // The limit is used up by the first batch. A batch's header has 61 bytes.
    few.decompressed_bytes_max = super::reading::batches(&[0]).len() as u32 - 61;
    let mut world = World::with(few, DirectoryRole::Own, &[topic(&[(1, 0), (1, 0)])]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    for partition in [0, 1] {
        world.client.read(key(handle, partition), at(0));
    }
    let fetch = world.next_fetch();
    let both = vec![data(0, 1, &[0]), data(1, 1, &[0])];
    answer(&mut world, &fetch, 9, 0, both);
    // A new session begins. Within the old one the broker would send the same partition first for
    // ever.
    let (_, epoch, moved, gone) = said(&world.next_fetch());
    assert_eq!(epoch, 0);
    assert_eq!((moved, gone), (vec![(0, 1), (1, 0)], vec![]));
}

#[test]
fn a_session_that_has_ended_is_replaced_at_once_without_a_failure() {
    // FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, INCONSISTENT_TOPIC_ID,
    // FETCH_SESSION_TOPIC_ID_ERROR.
    for code in [70, 71, 103, 106] {
        let (mut world, _) = begun(2);
        let fetch = world.next_fetch();
        answer(&mut world, &fetch, 0, code, vec![]);
        assert!(world.take().is_empty());
        let named = if code == 70 { 0 } else { 9 };
        let all = vec![(0, 0), (1, 0)];
        assert_eq!(said(&world.next_fetch()), (named, 0, all, vec![]), "{code}");
    }
}

/// If the request began a session, the same error counts as a failure.
#[test]
fn a_broker_that_refuses_every_session_is_not_asked_in_a_circle() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    let mut asked = 0;
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        while let Some(fetch) = world.fetches.pop_front() {
            asked += 1;
            answer(&mut world, &fetch, 0, 70, vec![]);
        }
    }
    assert!((8..30).contains(&asked), "{asked} in 10 s");
}

#[test]
fn a_broker_that_grants_none_is_asked_for_all_each_time() {
    let (mut world, handle) = known(&[(1, 0), (1, 0)]);
    for partition in [0, 1] {
        world.client.read(key(handle, partition), at(0));
    }
    for _ in 0..3 {
        let fetch = world.next_fetch();
        assert_eq!(said(&fetch), (0, 0, vec![(0, 0), (1, 0)], vec![]));
        answer(
            &mut world,
            &fetch,
            0,
            0,
            vec![data(0, 0, &[]), data(1, 0, &[])],
        );
    }
}

#[test]
fn old_brokers_and_clients_without_the_setting_get_none() {
    for (newest, wanted) in [(6, true), (16, false)] {
        let mut with = settings();
        with.fetch_sessions = wanted;
        let mut world = World::with(with, DirectoryRole::Own, &[topic(&[(1, 0)])]);
        world.newest.0 = newest;
        let handle = world.client.watch(&TopicName::new("t").unwrap());
        world.client.read(key(handle, 0), at(0));
        for _ in 0..2 {
            let fetch = world.next_fetch();
            assert_eq!(said(&fetch), (0, -1, vec![(0, 0)], vec![]));
            answer(&mut world, &fetch, 0, 0, vec![data(0, 0, &[])]);
        }
    }
}

#[test]
fn a_lost_connection_ends_the_session() {
    let (mut world, _) = begun(2);
    let fetch = world.next_fetch();
    world.cut(fetch.link);
    world.pass(Duration::from_millis(200));
    // The request names the old session, so that the broker can drop it.
    let (id, epoch, ..) = said(&world.next_fetch());
    assert_eq!((id, epoch), (9, 0));
}

#[test]
fn a_moved_leader_is_forgotten_here_and_named_there() {
    let (mut world, _) = begun(2);
    let fetch = world.next_fetch();
    world.pass(Duration::from_secs(1));
    world.topics[0].leaders[1] = (2, 1);
    answer(&mut world, &fetch, 9, 0, vec![refused(1, 6)]);
    world.settle();
    let mut both: Vec<_> = world.fetches.drain(..).collect();
    both.sort_by_key(|fetch| fetch.node);
    let (here, there) = (&both[0], &both[1]);
    assert_eq!((here.node, there.node), (1, 2));
    assert_eq!(said(here), (9, 2, vec![], vec![1]));
    assert_eq!(said(there), (0, 0, vec![(1, 0)], vec![]));
}

/// The broker sees other partitions, although their numbers are the same.
#[test]
fn another_log_under_the_name_is_forgotten_by_its_old_id() {
    let (mut world, handle) = begun(2);
    world.topics[0].id = 78;
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![refused(0, 100)]); // UNKNOWN_TOPIC_ID
    world.pass(Duration::from_secs(1));
    for partition in [0, 1] {
        world.client.read(key(handle, partition), at(0));
    }
    let fetch = world.next_fetch();
    answer(&mut world, &fetch, 9, 0, vec![]);
    let request = world.next_fetch().fetch();
    assert_eq!(request.session_id, 9);
    let added = &request.topics[0];
    assert_eq!((added.topic_id.as_u128(), added.partitions.len()), (78, 2));
    let gone = &request.forgotten_topics_data[0];
    assert_eq!(
        (gone.topic_id.as_u128(), &gone.partitions[..]),
        (77, &[1][..])
    );
}

/// KIP-219: a broker answers a client over its quota at once, with no records. The client then
/// sends nothing for the throttle time. The broker reports later what it left out.
#[test]
fn a_throttled_answer_is_no_failure_and_no_news() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    let fetch = world.next_fetch();
    throttled(&mut world, &fetch, (0, 0, 700), vec![]);
    world.pass(Duration::from_millis(690));
    assert!(world.fetches.is_empty(), "it is to be silent");
    world.pass(Duration::from_millis(20));
    let fetch = world.next_fetch();
    assert_eq!(said(&fetch), (0, 0, vec![(0, 0)], vec![]), "once");
    answer(&mut world, &fetch, 9, 0, vec![data(0, 1, &[0])]);
    let fetch = world.next_fetch();
    world.take();
    throttled(&mut world, &fetch, (9, 0, 700), vec![]);
    world.pass(Duration::from_millis(710));
    assert!(world.take().is_empty());
    assert_eq!(said(&world.next_fetch()), (9, 2, vec![], vec![]));
    assert!(world.fetches.is_empty(), "nothing was asked twice");
}

/// A response that uses up its budget does not fail partitions that it does not name.
#[test]
fn partitions_without_news_have_not_failed() {
    let mut few = settings();
    few.decompressed_bytes_max = 1;
    let mut world = World::with(few, DirectoryRole::Own, &[topic(&[(1, 0), (1, 0), (1, 0)])]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    for partition in [0, 1, 2] {
        world.client.read(key(handle, partition), at(0));
    }
    let fetch = world.next_fetch();
    answer(
        &mut world,
        &fetch,
        9,
        0,
        (0..3).map(|p| data(p, 0, &[])).collect(),
    );
    world.take();
    let fetch = world.next_fetch();
    assert_eq!(said(&fetch).1, 1, "within the session");
    answer(
        &mut world,
        &fetch,
        9,
        0,
        vec![data(0, 1, &[0]), data(1, 1, &[0])],
    );
    let failed = |e: &Event| matches!(e, Event::ReadFailed { .. });
    let events = world.take();
    assert!(!events.iter().any(failed), "{events:?}");
}

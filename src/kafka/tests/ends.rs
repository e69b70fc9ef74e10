//! Where logs end, as their leaders say, and reads that begin at a time.

use std::time::Duration;

use super::peer::{World, settings};
use super::*;
use crate::kafka::{DirectoryRole, KafkaError};
use crate::model::UnixMillis;

/// The end of a log by its timestamp in ListOffsets.
const LATEST: i64 = -1;

fn ask(world: &mut World, topic: TopicHandle, ticket: u64) {
    let now = world.now;
    world.client.ends(topic, Isolation::Committed, ticket, now);
    world.settle();
}

/// The answered questions, and why the others failed.
fn answers(world: &mut World) -> Vec<(u64, Result<Vec<u64>, KafkaError>)> {
    let answer = |event| match event {
        Event::Ends { ticket, ends, .. } => {
            Some((ticket, Ok(ends.into_iter().map(|it| it.0).collect())))
        }
        Event::EndsFailed { ticket, error, .. } => Some((ticket, Err(error))),
        _ => None,
    };
    world.take().into_iter().filter_map(answer).collect()
}

/// A client that is fed its views, and the owner of the directory. Only the owner asks for
/// metadata, so that a held answer to ListOffsets delays no other answer.
fn fed(leaders: &[(i32, i32)]) -> (World, TopicHandle, World) {
    let (mut owner, _) = known(leaders);
    let mut world = World::with(settings(), DirectoryRole::Fed, &[]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    feed(&mut owner, &mut world);
    world.take();
    (world, handle, owner)
}

fn feed(owner: &mut World, world: &mut World) {
    owner.client.refresh();
    owner.topics[0].leaders[0].1 += 1; // Only a changed view is an event.
    owner.pass(Duration::from_secs(1));
    let views = owner.take().into_iter().filter_map(|event| match event {
        Event::View(view) => Some(view),
        _ => None,
    });
    let view = views.last().expect("the view has changed");
    world.client.on_view(view, world.now);
    world.settle();
}

#[test]
fn all_leaders_are_asked_and_asked_again_until_they_know_the_end() {
    let (mut world, handle) = known(&[(1, 0), (2, 0)]);
    world.offsets = (0, 9, 0);
    ask(&mut world, handle, 5);
    assert_eq!(answers(&mut world), [(5, Ok(vec![9, 9]))]);
    // OFFSET_NOT_AVAILABLE (KIP-207): a new leader does not know the end yet.
    world.offsets = (0, 9, 78);
    ask(&mut world, handle, 6);
    world.pass(Duration::from_millis(300));
    assert_eq!(answers(&mut world), []);
    world.offsets = (0, 10, 0);
    world.pass(Duration::from_millis(300));
    assert_eq!(answers(&mut world), [(6, Ok(vec![10, 10]))]);
    // The last error is the cause of a failure.
    world.offsets = (0, 9, 78);
    ask(&mut world, handle, 7);
    world.pass(Duration::from_millis(900));
    assert_eq!(answers(&mut world), []);
    world.pass(Duration::from_millis(100));
    assert_eq!(
        answers(&mut world),
        [(7, Err(KafkaError::Broker(Code(78))))]
    );
}

/// A leader gets one request of a turn, whatever the number of partitions, topics and questions.
#[test]
fn questions_of_one_turn_share_a_request_per_leader() {
    let other = Topic {
        name: "u",
        id: 78,
        leaders: vec![(2, 4)],
    };
    let mut world = World::new(&[topic(&[(1, 0), (2, 1), (1, 2)]), other]);
    let watch = |world: &mut World, name| world.client.watch(&TopicName::new(name).unwrap());
    let (t, u) = (watch(&mut world, "t"), watch(&mut world, "u"));
    world.settle();
    world.take();
    world.offsets = (0, 3, 0);
    let now = world.now;
    for (ticket, topic) in [(1, t), (2, u), (3, t)] {
        world.client.ends(topic, Isolation::Committed, ticket, now);
    }
    world.settle();
    let mut asked = std::mem::take(&mut world.offsets_asked);
    asked.sort_unstable();
    assert_eq!(
        asked,
        [
            (1, vec![(0, 0, LATEST), (2, 2, LATEST)]),
            (2, vec![(1, 1, LATEST), (0, 4, LATEST)]),
        ]
    );
    let mut all = answers(&mut world);
    all.sort_by_key(|(ticket, _)| *ticket);
    let three = Ok(vec![3, 3, 3]);
    assert_eq!(all, [(1, three.clone()), (2, Ok(vec![3])), (3, three)]);
}

/// An answer is true of a moment after the question. A request in flight is not shared by a later
/// question.
#[test]
fn a_later_question_has_a_request_of_its_own() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.holds_offsets = true;
    ask(&mut world, handle, 1);
    ask(&mut world, handle, 2);
    assert_eq!(world.offsets_asked.len(), 2);
    world.offsets.1 = 5;
    let first = world.held_offsets.pop_front().unwrap();
    world.list_offsets(&first);
    world.settle();
    assert_eq!(answers(&mut world), [(1, Ok(vec![5]))]);
    world.offsets.1 = 6;
    let second = world.held_offsets.pop_front().unwrap();
    world.list_offsets(&second);
    world.settle();
    assert_eq!(answers(&mut world), [(2, Ok(vec![6]))]);
}

/// The leader moves while it is asked. The old leader's answer is discarded, and the new one is
/// asked at once, whether the old one ever answers or not.
#[test]
fn a_deposed_leader_is_not_believed() {
    let (mut world, handle, mut owner) = fed(&[(1, 3)]);
    world.holds_offsets = true;
    ask(&mut world, handle, 1);
    owner.topics[0].leaders[0] = (2, 4);
    feed(&mut owner, &mut world);
    let asked: Vec<_> = world.held_offsets.drain(..).collect();
    let [old, new] = &asked[..] else {
        panic!("both leaders are asked: {asked:?}");
    };
    assert_eq!((old.node, new.node), (1, 2));
    world.offsets.1 = 7;
    world.list_offsets(old);
    world.settle();
    assert_eq!(answers(&mut world), []);
    world.offsets.1 = 8;
    world.list_offsets(new);
    world.settle();
    assert_eq!(answers(&mut world), [(1, Ok(vec![8]))]);
    assert_eq!(world.offsets_asked[1].1, [(0, 5, LATEST)]);
}

/// A frozen leader costs its first question the time until it counts as unavailable. Then questions
/// fail at once, until the leader answers again.
#[test]
fn a_leader_that_is_silent_fails_questions_early_and_ends_by_itself() {
    let (mut world, handle) = known(&[(1, 0), (2, 0)]);
    ask(&mut world, handle, 1);
    assert_eq!(answers(&mut world).len(), 1);
    world.frozen.insert(2);
    ask(&mut world, handle, 2);
    world.pass(Duration::from_millis(850));
    assert_eq!(answers(&mut world), []);
    world.pass(Duration::from_millis(50));
    assert!(matches!(answers(&mut world)[..], [(2, Err(_))]));
    let asked = world.offsets_asked.len();
    ask(&mut world, handle, 3);
    assert!(matches!(answers(&mut world)[..], [(3, Err(_))]));
    let to_frozen = world.offsets_asked[asked..].iter().filter(|it| it.0 == 2);
    assert_eq!(to_frozen.count(), 0, "nothing more is sent to it");
    // The connection is given up after `request_timeout`, and a later one answers.
    world.pass(Duration::from_secs(10));
    world.frozen.clear();
    world.offsets.1 = 4;
    let mut ends = Vec::new();
    for ticket in 4..40 {
        ask(&mut world, handle, ticket);
        world.pass(Duration::from_millis(100));
        ends.extend(answers(&mut world));
        if ends.iter().any(|(_, ends)| ends.is_ok()) {
            break;
        }
    }
    assert!(
        ends.iter().any(|(_, ends)| *ends == Ok(vec![4, 4])),
        "{ends:?}"
    );
}

#[test]
fn a_topic_that_was_made_again_has_no_answer_to_the_old_question() {
    let (mut world, handle, mut owner) = fed(&[(1, 0)]);
    world.holds_offsets = true;
    ask(&mut world, handle, 1);
    owner.topics[0].id = 99;
    feed(&mut owner, &mut world);
    assert_eq!(answers(&mut world), [(1, Err(KafkaError::NoLeader))]);
    let held = world.held_offsets.pop_front().unwrap();
    world.list_offsets(&held);
    world.settle();
    assert_eq!(answers(&mut world), []);
}

/// A read since a time asks for the end first. Otherwise a record that is appended between the two
/// answers would be below the end, and not found by its time.
#[test]
fn a_read_begins_at_a_time_or_at_the_end_before() {
    for (of_time, expected) in [(4, 4), (-1, 9)] {
        let (mut world, handle) = known(&[(1, 6)]);
        world.offsets = (0, 9, 0);
        world.offset_of_time = of_time;
        let since = StartAt::Since(UnixMillis(1_234));
        world.client.read(key(handle, 0), since);
        let fetch = world.next_fetch().fetch();
        let asked: Vec<_> = world.offsets_asked.iter().flat_map(|it| &it.1).collect();
        assert_eq!(asked, [&(0, 6, LATEST), &(0, 6, 1_234)]);
        let from = &fetch.topics[0].partitions[0];
        assert_eq!(from.fetch_offset, expected);
    }
}

//! Checks positions against the ends of leader epochs: KIP-320.

use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::reading::refused;
use super::*;
use crate::log::Next;
use crate::model::LeaderEpoch;

fn place(offset: u64, epoch: u32) -> Next {
    Next {
        offset: Offset(offset),
        epoch: LeaderEpoch(Some(epoch)),
    }
}

/// The question in flight: the epoch that the client believes the leader has, and the epoch with
/// the wanted end.
fn question(world: &World) -> (i32, i32) {
    let asked = world.epochs.front().expect("a question");
    let request: OffsetForLeaderEpochRequest = asked.decode();
    assert_eq!(request.replica_id.0, -1, "a consumer asks");
    let partition = &request.topics[0].partitions[0];
    (partition.current_leader_epoch, partition.leader_epoch)
}

fn answer(world: &mut World, code: i16, epoch: i32, end: i64) {
    let asked = world.epochs.pop_front().expect("a question");
    let request: OffsetForLeaderEpochRequest = asked.decode();
    let found = EpochEndOffset::default()
        .with_partition(request.topics[0].partitions[0].partition)
        .with_error_code(code)
        .with_leader_epoch(epoch)
        .with_end_offset(end);
    let topic = OffsetForLeaderTopicResult::default()
        .with_topic(request.topics[0].topic.clone())
        .with_partitions(vec![found]);
    let response = OffsetForLeaderEpochResponse::default().with_topics(vec![topic]);
    world.answer::<OffsetForLeaderEpochRequest>(&asked, &response);
    world.settle();
}

fn fetched_from(world: &World) -> i64 {
    let fetch = world.fetches.front().expect("a fetch").fetch();
    fetch.topics[0].partitions[0].fetch_offset
}

#[test]
fn a_place_that_was_cut_off_is_told_and_left() {
    let (mut world, handle) = known(&[(1, 5)]);
    let read = key(handle, 0);
    world.client.read(read, StartAt::At(place(100, 3)));
    world.settle();
    assert_eq!(question(&world), (5, 3));
    assert!(world.fetches.is_empty(), "nothing is read before");
    answer(&mut world, 0, 2, 90);
    let told = world.take().into_iter().find_map(|event| match event {
        Event::Truncated { wanted, end, .. } => Some((wanted, end)),
        _ => None,
    });
    assert_eq!(told, Some((Offset(100), place(90, 2))));
    assert_eq!(fetched_from(&world), 90);
}

/// The read asks again even if the log has grown past its position, because another leader may have
/// another answer.
#[test]
fn a_read_asks_again_under_another_leader() {
    let (mut world, handle) = known(&[(1, 5)]);
    world
        .client
        .read(key(handle, 0), StartAt::At(place(100, 3)));
    world.settle();
    answer(&mut world, 0, 3, 100);
    assert_eq!(fetched_from(&world), 100);
    let fetch = world.fetches.pop_front().unwrap();
    world.pass(std::time::Duration::from_secs(1));
    world.topics[0].leaders[0] = (2, 6);
    world.fetched(&fetch, vec![refused(0, 6)]);
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!(question(&world), (6, 3));
    // A leader that is fenced itself (FENCED_LEADER_EPOCH) has no valid answer.
    answer(&mut world, 74, -1, -1);
    world.pass(std::time::Duration::from_secs(1));
    answer(&mut world, 0, 3, 80);
    let told = world.take();
    let cut = |event: &Event| matches!(event, Event::Truncated { .. });
    assert_eq!(told.iter().filter(|event| cut(event)).count(), 1);
    assert_eq!(fetched_from(&world), 80);
}

#[test]
fn the_leaders_own_epoch_and_newer_ones_are_not_asked_for() {
    let (mut world, handle) = known(&[(1, 5)]);
    let ask = |world: &mut World, epoch| {
        let epoch = LeaderEpoch(epoch);
        let end = world
            .client
            .epoch_end(handle, Partition(0), epoch, world.now);
        world.settle();
        end
    };
    assert_eq!(ask(&mut world, Some(5)), EpochEnd::Open);
    assert_eq!(ask(&mut world, None), EpochEnd::Open);
    let before = world.metadata_asked;
    assert_eq!(ask(&mut world, Some(7)), EpochEnd::Pending);
    world.pass(std::time::Duration::from_secs(1));
    assert!(world.epochs.is_empty() && world.metadata_asked > before);
    world.topics[0].leaders[0] = (1, 7);
    world.pass(std::time::Duration::from_secs(1));
    let told = world.take();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::EpochEnds(_)))
    );
    assert_eq!(ask(&mut world, Some(7)), EpochEnd::Open);
    // An older epoch is asked for once, however many callers want it.
    assert_eq!(ask(&mut world, Some(5)), EpochEnd::Pending);
    assert_eq!(ask(&mut world, Some(5)), EpochEnd::Pending);
    answer(&mut world, 0, 5, 40);
    assert_eq!(ask(&mut world, Some(5)), EpochEnd::Ended(place(40, 5)));
    assert!(world.epochs.is_empty());
}

#[test]
fn a_broker_that_can_not_tell_is_read_from_all_the_same() {
    let mut world = World::new(&[topic(&[(1, 5)])]);
    world.tells_epochs = false;
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    world
        .client
        .read(key(handle, 0), StartAt::At(place(100, 3)));
    world.pass(std::time::Duration::from_millis(1));
    assert_eq!(fetched_from(&world), 100);
}

/// Clients choose the epochs that they ask about. Many such questions must not stop a read.
#[test]
fn questions_of_clients_stop_no_read() {
    let (mut world, handle) = known(&[(1, 5)]);
    world
        .client
        .read(key(handle, 0), StartAt::At(place(100, 5)));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    let ask_all = |world: &mut World| {
        for epoch in 1000..1000 + 4096 {
            let epoch = LeaderEpoch(Some(epoch));
            let _asked = world
                .client
                .epoch_end(handle, Partition(0), epoch, world.now);
        }
    };
    ask_all(&mut world);
    world.pass(std::time::Duration::from_secs(1));
    world.topics[0].leaders[0] = (2, 6);
    world.fetched(&fetch, vec![refused(0, 6)]);
    for _ in 0..10 {
        ask_all(&mut world);
        world.pass(std::time::Duration::from_secs(2));
    }
    assert!(!world.epochs.is_empty(), "nobody asks the new leader");
}

/// An answer belongs to the leader that was asked, not to the broker that leads when the answer
/// comes.
#[test]
fn a_late_answer_is_not_the_new_leaders() {
    let mut long = super::peer::settings();
    long.request_timeout = std::time::Duration::from_secs(60);
    let mut world = World::with(long, DirectoryRole::Own, &[topic(&[(1, 5)])]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    let end = |world: &mut World| {
        let epoch = LeaderEpoch(Some(3));
        let end = world
            .client
            .epoch_end(handle, Partition(0), epoch, world.now);
        world.settle();
        end
    };
    assert_eq!(end(&mut world), EpochEnd::Pending);
    let of_old = world.epochs.pop_front().expect("asked of broker 1");
    world.topics[0].leaders[0] = (2, 6); // Elected uncleanly; broker 1 is frozen.
    world.client.refresh();
    world.pass(std::time::Duration::from_secs(12));
    assert_eq!(end(&mut world), EpochEnd::Pending);
    world.pass(std::time::Duration::from_millis(10));
    let of_new = world.epochs.pop_front().expect("asked of broker 2");
    assert_eq!((of_old.node, of_new.node), (1, 2));
    world.epochs.push_front(of_old);
    answer(&mut world, 0, 3, 100); // The end of broker 1, in its own branch of the log.
    assert_eq!(
        end(&mut world),
        EpochEnd::Pending,
        "broker 2 has not said it"
    );
}

//! Rack-aware reads (KIP-392): the leader names a replica in the gateway's rack. The client asks
//! this replica, and returns to the leader as soon as the replica fails.

use std::time::Duration;

use kafka_protocol::messages::BrokerId as NodeId;
use kafka_protocol::messages::fetch_response::PartitionData;

use super::peer::settings;
use super::reading::{data, refused};
use super::*;

fn sent_to(node: i32, end: i64) -> PartitionData {
    data(0, end, &[]).with_preferred_read_replica(NodeId(node))
}

fn in_rack() -> (World, TopicHandle) {
    let mut with = settings();
    with.rack = "r2".into();
    let mut world = World::with(with, DirectoryRole::Own, &[topic(&[(1, 0)])]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.client.read(key(handle, 0), at(0));
    (world, handle)
}

/// The leader has sent the read to broker 2, and one record was read there.
fn at_replica() -> (World, TopicHandle) {
    let (mut world, handle) = in_rack();
    let fetch = world.next_fetch();
    assert_eq!((fetch.node, &*fetch.fetch().rack_id), (1, "r2"));
    world.fetched(&fetch, vec![sent_to(2, 5)]);
    let fetch = world.next_fetch();
    assert_eq!(fetch.node, 2);
    world.fetched(&fetch, vec![data(0, 4, &[0])]);
    let events = world.take();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Started { end: Offset(5), .. }))
    );
    assert_eq!(offsets_of(&events), [0]);
    (world, handle)
}

/// Some seconds without records, with every Fetch at the same broker.
fn quiet(world: &mut World, seconds: u64, node: i32) {
    for _ in 0..seconds {
        let fetch = world.next_fetch();
        assert_eq!(fetch.node, node);
        world.pass(Duration::from_secs(1));
        world.fetched(&fetch, vec![data(0, 4, &[])]);
    }
}

#[test]
fn the_broker_that_the_leader_names_is_read_until_metadata_is_old() {
    let (mut world, _) = at_replica();
    quiet(&mut world, 29, 2);
    let fetch = world.next_fetch();
    world.pass(Duration::from_millis(1_200));
    world.fetched(&fetch, vec![data(0, 4, &[])]);
    let fetch = world.next_fetch();
    assert_eq!((fetch.node, &*fetch.fetch().rack_id), (1, "r2"));
}

#[test]
fn a_client_without_a_rack_names_none() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    assert_eq!(&*world.next_fetch().fetch().rack_id, "");
}

/// The Fetch names no rack, or the leader would send the read back at once.
#[test]
fn an_error_leads_back_to_the_leader_for_a_while() {
    let (mut world, _) = at_replica();
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![refused(0, 6)]);
    let fetch = world.next_fetch();
    assert_eq!((fetch.node, &*fetch.fetch().rack_id), (1, ""));
    let wanted = fetch.fetch().topics[0].partitions[0].fetch_offset;
    assert_eq!(wanted, 1, "where the other one was");
    world.fetched(&fetch, vec![data(0, 5, &[1, 2])]);
    assert_eq!(offsets_of(&world.take()), [1, 2]);
    quiet(&mut world, 31, 1);
    assert_eq!(&*world.next_fetch().fetch().rack_id, "r2");
}

#[test]
fn a_broker_that_dies_leads_back_to_the_leader() {
    let (mut world, _) = at_replica();
    world.next_fetch();
    world.kill(2);
    let fetch = world.next_fetch();
    assert_eq!((fetch.node, &*fetch.fetch().rack_id), (1, ""));
    let events = world.take();
    let failed = |e: &Event| matches!(e, Event::ReadFailed { .. });
    assert!(!events.iter().any(failed), "{events:?}");
}

/// The broker does not respond and its connection stays open. The leader has the same records.
#[test]
fn a_broker_that_falls_silent_leads_back_to_the_leader_soon() {
    let (mut world, _) = at_replica();
    let silent = world.next_fetch();
    assert_eq!(silent.node, 2);
    // The broker may hold the fetch for half a second, and its response may then be 0.9 s late.
    world.pass(Duration::from_millis(1_350));
    assert!(world.fetches.is_empty());
    world.pass(Duration::from_millis(100));
    let fetch = world.next_fetch();
    assert_eq!((fetch.node, &*fetch.fetch().rack_id), (1, ""));
    let events = world.take();
    let failed = |e: &Event| matches!(e, Event::ReadFailed { .. });
    assert!(!events.iter().any(failed), "{events:?}");
    // Its late response is ignored.
    world.fetched(&fetch, vec![data(0, 4, &[1])]);
    world.fetched(&silent, vec![data(0, 4, &[1])]);
    assert_eq!(offsets_of(&world.take()), [1]);
    assert_eq!(world.next_fetch().node, 1);
}

/// The broker is silent before the first request: its port is open, but no process answers.
#[test]
fn a_broker_that_greets_nobody_leads_back_to_the_leader_soon() {
    let (mut world, _) = in_rack();
    let fetch = world.next_fetch();
    world.frozen.insert(2);
    world.fetched(&fetch, vec![sent_to(2, 5)]);
    world.pass(Duration::from_millis(1_000));
    let fetch = world.next_fetch();
    assert_eq!((fetch.node, &*fetch.fetch().rack_id), (1, ""));
}

/// The broker dies between two requests, when nothing is in flight that could be lost.
#[test]
fn a_broker_that_can_not_be_reached_leads_back_to_the_leader() {
    let (mut world, handle) = at_replica();
    let fetch = world.next_fetch();
    world.client.pause(key(handle, 0));
    world.fetched(&fetch, vec![data(0, 4, &[])]);
    world.kill(2);
    world.client.resume(key(handle, 0));
    world.pass(Duration::from_millis(100));
    assert_eq!(world.next_fetch().node, 1);
}

#[test]
fn a_broker_that_left_the_cluster_leads_back_to_the_leader() {
    let (mut world, _) = at_replica();
    world.next_fetch();
    world.nodes = vec![1];
    world.pass(Duration::from_secs(31));
    assert_eq!(world.next_fetch().node, 1);
}

/// A follower may lag, or have a later log start. So the leader is asked before the client believes
/// an offset to be gone.
#[test]
fn only_the_leader_can_report_an_offset_as_out_of_range() {
    let (mut world, _) = at_replica();
    world.offsets = (3, 9, 0);
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![refused(0, 1)]);
    assert!(world.take().is_empty());
    let fetch = world.next_fetch();
    assert_eq!(fetch.node, 1);
    world.fetched(&fetch, vec![refused(0, 1)]);
    let events = world.take();
    assert!(
        matches!(
            events[..],
            [Event::OutOfRange {
                wanted: Offset(1),
                log_start: Offset(3),
                ..
            }]
        ),
        "{events:?}"
    );
}

/// Where the log begins and ends, according to the batches among `events`.
fn ends(events: &[Event]) -> Vec<(u64, u64, u64)> {
    let of_batch = |event: &Event| match event {
        Event::Batch {
            log_start,
            stable_end,
            high_watermark,
            ..
        } => Some((log_start.0, stable_end.0, high_watermark.0)),
        _ => None,
    };
    events.iter().filter_map(of_batch).collect()
}

/// A follower lags, and has its own retention. If a topic took the follower's ends for the log's,
/// it would become live without records that were committed before the read.
#[test]
fn the_ends_of_the_log_are_the_leaders() {
    let (mut world, _) = in_rack();
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![sent_to(2, 5).with_log_start_offset(0)]);
    assert_eq!(
        ends(&world.take()),
        [(0, 5, 5)],
        "before a follower is asked"
    );
    let fetch = world.next_fetch();
    assert_eq!(fetch.node, 2);
    let lagging = data(0, 2, &[0, 1]).with_log_start_offset(1);
    world.fetched(&fetch, vec![lagging.with_last_stable_offset(1)]);
    assert_eq!(ends(&world.take()), [(0, 5, 5)]);
    // The follower may know more than the leader knew when it was asked.
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![data(0, 9, &[])]);
    assert_eq!(ends(&world.take()), [(0, 9, 9)]);
}

/// An unclean election while a follower is read. A reader that waits for the end receives the new
/// end, even if the follower has no news.
#[test]
fn a_log_that_was_cut_back_ends_where_the_leader_says() {
    let (mut world, _) = at_replica();
    quiet(&mut world, 29, 2);
    let fetch = world.next_fetch();
    world.pass(Duration::from_millis(1_200));
    world.fetched(&fetch, vec![data(0, 4, &[])]);
    let fetch = world.next_fetch();
    assert_eq!(fetch.node, 1);
    assert_eq!(ends(&world.take()).last(), Some(&(0, 5, 5)));
    world.fetched(&fetch, vec![sent_to(2, 3)]);
    assert_eq!(ends(&world.take()), [(0, 3, 3)]);
    let fetch = world.next_fetch();
    assert_eq!(fetch.node, 2);
    world.fetched(&fetch, vec![data(0, 2, &[])]);
    assert_eq!(ends(&world.take()), [(0, 3, 3)]);
}

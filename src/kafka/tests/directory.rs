//! Finding brokers and topics, and finding them again.

use std::sync::Arc;
use std::time::Duration;

use super::peer::{World, settings};
use super::reading::{data, refused};
use super::*;
use crate::kafka::{DirectoryRole, KafkaError, MissingReason};

fn topics_told(events: &[Event]) -> Vec<Arc<TopicView>> {
    let each = events.iter().filter_map(|event| match event {
        Event::Topic(_, view) => Some(Arc::clone(view)),
        _ => None,
    });
    each.collect()
}

fn is_down(event: &&Event) -> bool {
    matches!(event, Event::BrokerDown { .. })
}

#[test]
fn it_finds_a_topic_with_its_config() {
    let mut world = World::new(&[topic(&[(1, 0), (2, 3)])]);
    world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    let events = world.take();
    let [view] = &topics_told(&events)[..] else {
        panic!("told once: {events:?}");
    };
    assert_eq!((view.name.as_str(), view.partitions), ("t", 2));
    assert_eq!(view.id.unwrap().0, 77_u128.to_be_bytes());
    let config = view.config.unwrap();
    assert!(config.compacted && config.deleted && config.retention.is_none());
    assert_eq!(config.batch_bytes_max, 1000);
    assert_eq!(config.delete_retention, Duration::from_secs(86_400));
    // Nothing changes, so no event is emitted. The client still asks the cluster twice a minute.
    let asked = world.metadata_asked;
    world.pass(Duration::from_secs(300));
    assert!(world.take().is_empty());
    assert_eq!(world.metadata_asked - asked, 10);
}

#[test]
fn a_missing_topic_is_named_once_and_found_when_it_is_made() {
    let mut world = World::new(&[]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.pass(Duration::from_secs(20));
    let missing = world.take();
    let told = missing.iter().filter(|e| matches!(e, Event::Missing(..)));
    assert_eq!(told.count(), 1);
    assert!(
        missing
            .iter()
            .any(|e| matches!(e, Event::Missing(h, MissingReason::Unknown) if *h == handle))
    );
    world.topics.push(topic(&[(1, 0)]));
    world.pass(Duration::from_millis(1_100));
    assert_eq!(topics_told(&world.take()).len(), 1);
    world.topics.clear();
    world.pass(Duration::from_secs(31));
    assert!(world.take().iter().any(|e| matches!(e, Event::Missing(..))));
}

#[test]
fn new_partitions_are_told_within_the_refresh_and_read_when_they_are_there() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 1), at(0));
    world.pass(Duration::from_secs(1));
    assert!(world.fetches.is_empty());
    world.topics[0].leaders.push((2, 0));
    world.pass(Duration::from_secs(31));
    let events = world.take();
    assert_eq!(topics_told(&events)[0].partitions, 2);
    assert_eq!(
        world.fetches[0].fetch().topics[0].partitions[0].partition,
        1
    );
}

#[test]
fn a_topic_made_again_is_another_log() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(40));
    world.settle();
    let old = world.fetches.pop_front().unwrap();
    // The topic disappears for a while, then exists again.
    let mut again = world.topics.remove(0);
    world.client.refresh();
    world.pass(Duration::from_secs(2));
    again.id = 78;
    world.topics.push(again);
    world.pass(Duration::from_secs(2));
    let events = world.take();
    assert_eq!(topics_told(&events)[0].id.unwrap().0, 78_u128.to_be_bytes());
    world.fetched(&old, vec![reading::data(0, 40, &[40])]);
    world.pass(Duration::from_secs(2));
    assert!(offsets_of(&world.take()).is_empty(), "the read has ended");
    assert!(world.fetches.is_empty());
}

#[test]
fn a_broker_that_is_not_there_is_tried_again_within_a_second_and_named_once() {
    let mut world = World::new(&[topic(&[(1, 0)])]);
    world.client.watch(&TopicName::new("t").unwrap());
    world.down.insert(1);
    world.pass(Duration::from_secs(60));
    let downs = world.take().iter().filter(is_down).count();
    assert_eq!(downs, 1);
    // After the first few, tries are half a second to a second apart.
    let tries = world.opened.len();
    assert!((60..140).contains(&tries), "{tries} tries");
    world.down.clear();
    world.pass(Duration::from_millis(1_100));
    let events = world.take();
    assert!(events.iter().any(|e| matches!(e, Event::BrokerUp { .. })));
    assert_eq!(topics_told(&events).len(), 1);
}

#[test]
fn when_every_known_broker_is_gone_it_begins_again_at_the_bootstrap_address() {
    let (mut world, _) = known(&[(2, 0)]);
    // The cluster moves: brokers 1 and 2 fail. The bootstrap address now leads to broker 1 of a
    // cluster of brokers 1 and 3.
    world.nodes = vec![2];
    world.client.refresh();
    world.pass(Duration::from_secs(1));
    world.kill(2);
    world.nodes = vec![1, 3];
    world.topics[0].leaders[0] = (3, 1);
    world.pass(Duration::from_secs(40));
    assert!(world.opened.contains(&1));
    let view = world.take().into_iter().rev().find_map(|e| match e {
        Event::View(view) => Some(view),
        _ => None,
    });
    let ids: Vec<_> = view.unwrap().brokers.iter().map(|b| b.id.0).collect();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn a_frozen_broker_is_left_after_the_request_timeout() {
    let (mut world, handle) = known(&[(2, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.frozen.insert(2);
    world.pass(Duration::from_millis(9_900));
    assert!(world.is_open(fetch.link));
    world.pass(Duration::from_millis(200));
    assert!(!world.is_open(fetch.link));
    let downs = |world: &mut World| world.take().iter().filter(is_down).count();
    assert_eq!(downs(&mut world), 1);
    // Another broker leads. Refreshes continue at a broker that responds, and find the leader.
    world.topics[0].leaders[0] = (1, 1);
    world.pass(Duration::from_millis(1_100));
    let fetch = world.fetches.pop_front().unwrap();
    assert_eq!(fetch.node, 1);
    assert_eq!(
        fetch.fetch().topics[0].partitions[0].current_leader_epoch,
        1
    );
}

/// A frozen broker sends nothing, and Metadata may be in flight to that very broker. Then no
/// response would name the new leader before the request timeout. In one of the two cases the
/// frozen broker is asked.
#[test]
fn another_broker_is_asked_long_before_the_request_timeout() {
    for (frozen, other) in [(1, 2), (2, 1)] {
        let (mut world, handle) = known(&[(frozen, 0)]);
        world.client.read(key(handle, 0), at(0));
        world.settle();
        world.take();
        world.frozen.insert(frozen);
        world.topics[0].leaders[0] = (other, 1);
        world.client.refresh();
        world.pass(Duration::from_millis(1_100));
        let moved = |event: &Event| matches!(event, Event::View(_));
        assert!(world.take().iter().any(moved), "{frozen} is frozen");
    }
}

/// R2: an election takes a cluster seconds. The client finds the new leader soon after the
/// election, however long the election took.
#[test]
fn a_new_leader_is_found_soon_after_its_election() {
    for elected in (1_000..6_000).step_by(90) {
        let (mut world, handle) = known(&[(2, 0)]);
        world.client.read(key(handle, 0), at(0));
        world.settle();
        world.fetches.clear();
        let asked = world.metadata_asked;
        world.kill(2);
        world.pass(Duration::from_millis(elected));
        let asked = world.metadata_asked - asked;
        assert!(asked < 10 + elected as usize / 200, "{asked} questions");
        world.topics[0].leaders[0] = (1, 1);
        world.pass(Duration::from_millis(250));
        let fetch = world.fetches.pop_front();
        let node = fetch
            .unwrap_or_else(|| panic!("elected after {elected} ms"))
            .node;
        assert_eq!(node, 1);
    }
}

#[test]
fn an_older_broker_is_greeted_in_its_version() {
    let mut world = World::new(&[topic(&[(1, 0)])]);
    (world.old, world.newest) = (true, (11, 8));
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.client.read(key(handle, 0), at(5));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    assert_eq!(fetch.version, 11);
    let request = fetch.fetch();
    assert_eq!(&*request.topics[0].topic.0, "t");
    assert_eq!(request.isolation_level, 1);
    world.fetched(&fetch, vec![reading::data(0, 6, &[5])]);
    assert_eq!(offsets_of(&world.take()), [5]);
    let record = ProduceRecord {
        key: None,
        value: None,
        headers: vec![],
        timestamp: crate::model::UnixMillis(0),
    };
    let taken = world
        .client
        .produce(handle, Partition(0), record, 9, world.now);
    taken.unwrap();
    world.settle();
    let produce = world.produces.pop_front().unwrap();
    assert_eq!(produce.version, 8);
    world.produced(&produce, 0, 6, 0);
    let at = Produced::At(Partition(0), Some(Offset(6)));
    assert!(
        world
            .take()
            .iter()
            .any(|e| matches!(e, Event::Produced { ticket: 9, outcome } if *outcome == at))
    );
}

#[test]
fn a_response_longer_than_allowed_ends_the_connection() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let link = world.fetches.pop_front().unwrap().link;
    world.client.on_bytes(link, b"HTTP/1.1 400", world.now);
    world.settle();
    assert!(world.closed.contains(&link));
    let expected = KafkaError::Frame {
        bytes: 0x4854_5450,
        max: settings().frame_bytes_max,
    };
    let events = world.take();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::BrokerDown { error, .. } if *error == expected))
    );
    // A response without a request closes the connection too.
    world.pass(Duration::from_secs(1));
    let link = world.fetches.pop_front().unwrap().link;
    world
        .client
        .on_bytes(link, &[0, 0, 0, 4, 9, 9, 9, 9], world.now);
    world.settle();
    assert!(world.closed.contains(&link));
}

#[test]
fn a_fed_client_asks_nobody_for_metadata_and_says_when_its_view_is_stale() {
    let (mut owner, _) = known(&[(1, 4)]);
    let mut fed = World::with(settings(), DirectoryRole::Fed, &[]);
    let handle = fed.client.watch(&TopicName::new("t").unwrap());
    fed.client.read(key(handle, 0), at(0));
    fed.pass(Duration::from_secs(10));
    assert!(fed.opened.is_empty(), "it knows no broker");
    owner.client.refresh();
    owner.topics[0].leaders[0] = (2, 5);
    owner.pass(Duration::from_secs(1));
    let events = owner.take();
    let Some(Event::View(view)) = events.iter().find(|e| matches!(e, Event::View(_))) else {
        panic!("{events:?}");
    };
    fed.client.on_view(Arc::clone(view), fed.now);
    fed.settle();
    assert_eq!(topics_told(&fed.take()).len(), 1);
    let fetch = fed.fetches.pop_front().unwrap();
    fed.fetched(&fetch, vec![reading::refused(0, 6)]);
    fed.pass(Duration::from_secs(1));
    let wanted = fed.take();
    let count = wanted
        .iter()
        .filter(|e| matches!(e, Event::RefreshWanted))
        .count();
    assert!((1..=11).contains(&count), "{count} in a second");
    assert_eq!(fed.metadata_asked, 0);
}

#[test]
fn what_was_asked_and_what_broke_is_told_as_facts() {
    let (mut world, _) = known(&[(1, 0)]);
    let metric_events: Vec<_> = std::iter::from_fn(|| world.client.next_metric_event()).collect();
    assert!(
        metric_events
            .iter()
            .any(|it| matches!(it, MetricEvent::Connected(_)))
    );
    let answered =
        |metric_event: &&MetricEvent| matches!(metric_event, MetricEvent::Answered { api: 3, .. });
    assert!(
        metric_events.iter().any(|it| answered(&it)),
        "{metric_events:?}"
    );
    let failed = |metric_event: &MetricEvent| matches!(metric_event, MetricEvent::Failed { .. });
    assert!(!metric_events.iter().any(failed), "{metric_events:?}");
}

/// What a Fetch returned, how long the broker was allowed to wait, and which broker rejected a
/// request.
#[test]
fn fetches_and_refusals_are_facts_of_their_broker() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let metric_events = |world: &mut World| -> Vec<MetricEvent> {
        let all = std::iter::from_fn(|| world.client.next_metric_event());
        all.filter(|it| matches!(it, MetricEvent::Fetched { .. } | MetricEvent::Failed { .. }))
            .collect()
    };
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![data(0, 1, &[0])]);
    let told = metric_events(&mut world);
    let [
        MetricEvent::Fetched {
            broker,
            wait,
            records: true,
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(*wait, Duration::ZERO, "the first does not wait");
    let broker = broker.clone();
    let fetch = world.next_fetch();
    world.pass(Duration::from_millis(507));
    world.fetched(&fetch, vec![data(0, 1, &[])]);
    let expected = MetricEvent::Fetched {
        broker: broker.clone(),
        took: Duration::from_millis(507),
        wait: Duration::from_millis(500),
        records: false,
    };
    assert_eq!(metric_events(&mut world), [expected]);
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![refused(0, 6)]);
    let told = metric_events(&mut world);
    let [
        ..,
        MetricEvent::Failed {
            api: 1,
            broker: whose,
            partition,
            error,
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(
        (whose, *partition),
        (&Some(broker), Some((handle, Partition(0))))
    );
    assert_eq!(*error, KafkaError::Broker(Code(6)));
}

/// Without topic ids only an older epoch shows that the topic is another log. A lagging broker
/// reports an older epoch for a moment too.
#[test]
fn without_topic_ids_an_epoch_that_stays_back_is_believed() {
    let mut made = topic(&[(1, 7)]);
    made.id = 0;
    let mut world = World::new(&[made]);
    world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    let name = TopicName::new("t").unwrap();
    let told = |world: &mut World| {
        let events = world.take();
        let view = |event: &Event| match event {
            Event::View(view) => view.topic(&name)?.leader(Partition(0)),
            _ => None,
        };
        events
            .iter()
            .filter_map(view)
            .next_back()
            .map(|(_, epoch)| epoch.0)
    };
    assert_eq!(told(&mut world), Some(Some(7)));
    world.topics[0].leaders = vec![(1, 2)];
    world.client.refresh();
    world.settle();
    assert_eq!(told(&mut world), None, "it may lag");
    world.pass(Duration::from_secs(200));
    assert_eq!(told(&mut world), Some(Some(2)));
}

/// A broker that is cut off from the controllers, but not from the client, knows no new leader.
#[test]
fn a_broker_that_lags_is_not_believed_for_ever() {
    let mut world = World::new(&[topic(&[(4, 0)])]);
    world.nodes = vec![1, 2, 3, 4];
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    world.client.read(key(handle, 0), at(0));
    world.pass(Duration::from_secs(31));
    let lags = *world.metadata_by.last().unwrap();
    let fit = (1..4).find(|n| *n != lags).unwrap();
    world.lagging = Some((lags, vec![(4, 0)]));
    world.topics[0].leaders = vec![(fit, 1)];
    world.down.insert(4);
    world.kill(4);
    let before = world.metadata_by.len();
    world.pass(Duration::from_secs(600));
    let by: std::collections::BTreeSet<i32> = world.metadata_by[before..].iter().copied().collect();
    let asked = world.metadata_by.len() - before;
    let found = world.fetches.iter().any(|f| f.node == fit);
    assert!(found, "lags {lags}, fit {fit}, {asked} questions to {by:?}");
}

/// Another cluster at the same address: its metadata is ignored. Nothing is fetched from it or
/// written to it until the first cluster is back.
#[test]
fn another_cluster_at_the_same_address_gets_nothing_and_gives_nothing() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![data(0, 1, &[0])]);
    world.take();
    world.fetches.clear();
    world.cluster_id = "d";
    world.topics[0].id = 78;
    world.kill(1);
    world.kill(2);
    world.down.clear();
    let record = ProduceRecord {
        key: None,
        value: None,
        headers: Vec::new(),
        timestamp: crate::model::UnixMillis(1),
    };
    for ticket in 0..200 {
        let _refused =
            world
                .client
                .produce(handle, Partition(0), record.clone(), ticket, world.now);
        world.pass(Duration::from_millis(100));
    }
    assert!(world.fetches.is_empty() && world.produces.is_empty());
    let events = world.take();
    assert!(topics_told(&events).is_empty(), "its topics are not ours");
    let other = KafkaError::OtherCluster {
        ours: "c".into(),
        theirs: "d".into(),
    };
    let named = |event: &Event| matches!(event, Event::BrokerDown { error, .. } if *error == other);
    assert!(events.iter().any(named), "{events:?}");
    let refused = Produced::Refused(ProduceError::Unreachable);
    for event in &events {
        if let Event::Produced { outcome, .. } = event {
            assert_eq!(*outcome, refused, "nothing left us");
        }
    }
    assert!(world.opened.len() < 200, "{} tries", world.opened.len());
    world.cluster_id = "c";
    world.topics[0].id = 77;
    world.pass(Duration::from_millis(1_500));
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![data(0, 2, &[1])]);
    assert_eq!(offsets_of(&world.take()), [1], "where it was");
}

/// An election takes seconds. A partition without a leader after that may have none for hours.
#[test]
fn a_partition_without_a_leader_is_looked_for_fast_at_first_and_then_seldom() {
    let (mut world, topic) = known(&[(-1, 0), (1, 0)]);
    world.pass(Duration::from_secs(5));
    let record = || ProduceRecord {
        key: None,
        value: None,
        headers: Vec::new(),
        timestamp: crate::model::UnixMillis(1),
    };
    let mut ticket = 0;
    let mut asked = |world: &mut World, seconds: u64| {
        let before = world.metadata_asked;
        for _ in 0..seconds * 10 {
            ticket += 1;
            let _refused = world
                .client
                .produce(topic, Partition(0), record(), ticket, world.now);
            world.pass(Duration::from_millis(100));
        }
        world.metadata_asked - before
    };
    let first = asked(&mut world, 10);
    assert!((45..65).contains(&first), "{first} in the first 10 s");
    asked(&mut world, 10);
    let later = asked(&mut world, 60);
    assert!((60..=130).contains(&later), "{later} in a minute");
    // An occasional command does not restart the fast pace.
    let before = world.metadata_asked;
    for _ in 0..20 {
        asked(&mut world, 1);
        world.pass(Duration::from_secs(2));
    }
    let seldom = world.metadata_asked - before;
    assert!(seldom <= 130, "{seldom} in a minute");
    world.topics[0].leaders[0] = (2, 1);
    world.pass(Duration::from_millis(1_100));
    assert_eq!(world.client.leaderless(topic).count(), 0, "it is found");
}

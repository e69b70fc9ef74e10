//! Reading: limits, long polls, positions, epochs.

use super::*;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, OffsetForLeaderEpochRequest};

fn limited(from: i64, max_bytes: i32, partition_max_bytes: i32) -> FetchRequest {
    let mut request = fetch_request(from, false).with_max_bytes(max_bytes);
    request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
    request
}

#[test]
fn the_first_batch_is_whole_and_the_last_may_be_cut() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let one = Batch::one("0123456789").bytes();
    for _ in 0..4 {
        rig.produce(c, one.clone());
    }
    let len = one.len();
    let records = rig.fetch_with(c, 11, limited(0, 1, 1)).records.unwrap();
    assert_eq!(batches(&records), (vec![(0, 0)], 0), "KIP-74");
    let max = (2 * len + 10) as i32;
    let records = rig
        .fetch_with(c, 11, limited(1, max, 1 << 20))
        .records
        .unwrap();
    assert_eq!(batches(&records), (vec![(1, 1), (2, 2)], 10));
    let settings = Settings {
        cut_responses: false,
        ..Settings::default()
    };
    rig.broker.cluster.settings = settings;
    let records = rig
        .fetch_with(c, 11, limited(1, 1 << 20, max))
        .records
        .unwrap();
    assert_eq!(batches(&records), (vec![(1, 1), (2, 2)], 0));
}

#[test]
fn an_offset_inside_a_batch_gives_the_batch() {
    let (mut rig, c) = Rig::with_topic(&[]);
    rig.append(c, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    let data = rig.fetch(c, 2, false);
    assert_eq!(batches(&data.records.unwrap()).0, [(0, 2)]);
    assert_eq!(
        (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset
        ),
        (3, 3, 0)
    );
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    assert_eq!(rig.fetch(c, 4, false).error_code, out_of_range);
    assert_eq!(rig.fetch(c, -1, false).error_code, out_of_range);
}

#[test]
fn partitions_share_the_limit() {
    let mut rig = Rig::new(1);
    rig.broker.create_topic("t", 3, &[]).unwrap();
    let c = rig.connect(1);
    let one = Batch::one("x").bytes();
    for partition in 0..3 {
        rig.produce_to(c, "t", partition, None, one.clone());
    }
    let mut request = fetch_request(0, false).with_max_bytes(one.len() as i32 + 5);
    let asked = request.topics[0].partitions[0].clone();
    for partition in [2, 1] {
        request.topics[0]
            .partitions
            .push(asked.clone().with_partition(partition));
    }
    let response = rig.ask(c, 11, &request);
    let partitions = &response.responses[0].partitions;
    let given: Vec<_> = partitions
        .iter()
        .map(|p| (p.partition_index, p.records.as_ref().unwrap().len()))
        .collect();
    assert_eq!(
        given,
        [(0, one.len()), (2, 0), (1, 0)],
        "what does not fit is empty, not cut"
    );
}

#[test]
fn a_long_poll_waits_for_its_bytes_its_time_or_an_error() {
    let (mut rig, writer) = Rig::with_topic(&[]);
    let reader = rig.connect(1);
    let one = Batch::one("x").bytes();
    let request = fetch_request(0, false)
        .with_max_wait_ms(500)
        .with_min_bytes(one.len() as i32 + 1);
    rig.send(reader, 11, &request);
    assert!(rig.answer::<FetchRequest>(reader, 11).is_none());
    rig.produce(writer, one.clone());
    assert!(
        rig.answer::<FetchRequest>(reader, 11).is_none(),
        "not enough bytes yet"
    );
    rig.produce(writer, one.clone());
    while rig.broker.next_writable() != Some(reader) {}
    let response = rig.answer::<FetchRequest>(reader, 11).expect("woken");
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(batches(&records).0.len(), 2);

    let far = fetch_request(2, false).with_max_wait_ms(500);
    rig.send(reader, 11, &far);
    let due = rig.now.mono.after(std::time::Duration::from_millis(500));
    assert_eq!(rig.broker.next_deadline(), Some(due));
    rig.pass(499);
    assert!(rig.answer::<FetchRequest>(reader, 11).is_none());
    rig.pass(1);
    let response = rig
        .answer::<FetchRequest>(reader, 11)
        .expect("its time is up");
    assert_eq!(
        response.responses[0].partitions[0].records.clone().unwrap(),
        ""
    );

    rig.send(reader, 11, &far);
    rig.broker.delete_topic("t").unwrap();
    let response = rig
        .answer::<FetchRequest>(reader, 11)
        .expect("the topic is gone");
    let code = response.responses[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::UnknownTopicOrPartition.code());
}

#[test]
fn what_is_behind_a_long_poll_waits_and_is_answered_in_order() {
    let (mut rig, c) = Rig::with_topic(&[]);
    rig.send(c, 11, &fetch_request(0, false).with_max_wait_ms(2_000));
    rig.send(c, 12, &MetadataRequest::default());
    assert_eq!(rig.broker.outgoing(c), b"");
    rig.pass(2_000);
    assert!(rig.answer::<FetchRequest>(c, 11).is_some());
    assert!(rig.answer::<MetadataRequest>(c, 12).is_some());
}

#[test]
fn offsets_are_listed_by_place_and_by_time() {
    let (mut rig, c) = Rig::with_topic(&[]);
    assert_eq!(rig.list(c, -1, false), (0, -1, 0));
    assert_eq!(rig.list(c, 5, false), (0, -1, -1), "nothing is that late");
    for (i, value) in ["a", "b", "c"].into_iter().enumerate() {
        let batch = Batch::of(&[("k", Some(value)), ("l", Some(value))]);
        let batch = batch.each(|r| r.timestamp = START_MS + 10 * i as i64 + r.offset);
        rig.produce(c, batch.bytes());
    }
    assert_eq!(rig.list(c, -1, false), (0, -1, 6));
    assert_eq!(rig.list(c, -2, false), (0, -1, 0));
    assert_eq!(rig.list(c, START_MS + 1, false), (0, START_MS + 1, 1));
    assert_eq!(rig.list(c, START_MS + 2, false), (0, START_MS + 10, 2));
    assert_eq!(rig.list(c, -3, false), (0, START_MS + 21, 5), "KIP-734");
    rig.broker.trim("t", P0, Offset(3)).unwrap();
    assert_eq!(rig.list(c, -2, false), (0, -1, 3));
    assert_eq!(
        rig.list(c, START_MS, false),
        (0, START_MS + 11, 3),
        "below the start is gone"
    );
    let data = rig.fetch(c, 3, false);
    assert_eq!(batches(&data.records.unwrap()).0, [(2, 3), (4, 5)]);
    assert_eq!(data.log_start_offset, 3);
}

#[test]
fn leader_epochs_are_checked_both_ways() {
    let mut rig = Rig::new(2);
    rig.broker.create_topic("t", 1, &[]).unwrap();
    let (one, two) = (rig.connect(1), rig.connect(2));
    rig.broker.move_leader("t", P0, NodeId(2)).unwrap();
    let with = |epoch| {
        let mut request = fetch_request(0, false);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request
    };
    let fenced = rig.fetch_with(one, 12, with(0));
    assert_eq!(fenced.error_code, ResponseError::FencedLeaderEpoch.code());
    assert_eq!(fenced.current_leader.leader_id, BrokerId(2));
    assert_eq!(fenced.current_leader.leader_epoch, 1);
    let unknown = rig.fetch_with(two, 12, with(2));
    assert_eq!(unknown.error_code, ResponseError::UnknownLeaderEpoch.code());
    assert_eq!(rig.fetch_with(two, 12, with(1)).error_code, 0);
    // KIP-392: from version 11 on a follower serves, before it does not.
    assert_eq!(rig.fetch_with(one, 11, with(-1)).error_code, 0);
    let not_leader = ResponseError::NotLeaderOrFollower.code();
    assert_eq!(rig.fetch_with(one, 10, with(-1)).error_code, not_leader);
    assert_eq!(rig.list(one, -1, false).0, not_leader);
    let produced = rig.produce(one, Batch::one("x").bytes());
    assert_eq!(produced.error_code, not_leader);
    assert_eq!(produced.current_leader.leader_id, BrokerId(2));
}

fn epoch_end(rig: &mut Rig, c: ConnectionId, epoch: i32) -> (i32, i64) {
    let partition = OffsetForLeaderPartition::default().with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(name("t"));
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic.with_partitions(vec![partition])]);
    let response = rig.ask(c, 4, &request);
    let answer = &response.topics[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    (answer.leader_epoch, answer.end_offset)
}

#[test]
fn epochs_end_where_the_next_begins() {
    let (mut rig, c) = Rig::with_topic(&[]);
    for _ in 0..3 {
        rig.append(c, &[("k", Some("x"))]);
    }
    rig.broker.move_leader("t", P0, NodeId(1)).unwrap(); // Epoch 1, nothing appended.
    rig.broker.move_leader("t", P0, NodeId(1)).unwrap();
    rig.append(c, &[("k", Some("y"))]);
    assert_eq!(epoch_end(&mut rig, c, 0), (0, 3));
    assert_eq!(epoch_end(&mut rig, c, 1), (0, 3), "the largest epoch below");
    assert_eq!(epoch_end(&mut rig, c, 2), (2, 4));
    assert_eq!(
        epoch_end(&mut rig, c, 3),
        (-1, -1),
        "a future epoch is not known"
    );
}

#[test]
fn a_reader_of_what_was_lost_learns_where_it_diverged() {
    let (mut rig, c) = Rig::with_topic(&[]);
    for _ in 0..5 {
        rig.append(c, &[("k", Some("x"))]);
    }
    let end = rig.broker.unclean_election("t", P0, 2).unwrap();
    assert_eq!(end, Offset(3));
    rig.append(c, &[("k", Some("y"))]);
    let mut request = fetch_request(5, false);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let data = rig.fetch_with(c, 12, request);
    assert_eq!(data.error_code, 0);
    assert_eq!(
        (data.diverging_epoch.epoch, data.diverging_epoch.end_offset),
        (0, 3)
    );
    assert_eq!(data.records.unwrap(), "");
    assert_eq!(
        rig.fetch(c, 5, false).error_code,
        ResponseError::OffsetOutOfRange.code()
    );
    assert_eq!(epoch_end(&mut rig, c, 0), (0, 3));
}

#[test]
fn a_session_names_partitions_once_and_answers_with_news() {
    let mut rig = Rig::new(2);
    rig.broker.create_topic("t", 3, &[]).unwrap();
    for partition in [1, 2] {
        rig.broker
            .move_leader("t", Partition(partition), NodeId(1))
            .unwrap();
    }
    let c = rig.connect(1);
    let mut full = fetch_request(0, false).with_session_epoch(0);
    let asked = full.topics[0].partitions[0].clone();
    for partition in [1, 2] {
        full.topics[0]
            .partitions
            .push(asked.clone().with_partition(partition));
    }
    let response = rig.ask(c, 12, &full);
    let id = response.session_id;
    assert!(id > 0);
    assert_eq!(
        response.responses[0].partitions.len(),
        3,
        "a full answer names all"
    );
    let next = |epoch| {
        FetchRequest::default()
            .with_session_id(id)
            .with_session_epoch(epoch)
    };
    assert_eq!(rig.ask(c, 12, &next(1)).responses, [], "no news");
    for partition in [1, 2] {
        rig.produce_to(c, "t", partition, None, Batch::one("x").bytes());
    }
    let first_only = next(2).with_max_bytes(1);
    let news = |response: &kafka_protocol::messages::FetchResponse| {
        let partitions = &response.responses[0].partitions;
        let given =
            |p: &PartitionData| (p.partition_index, !p.records.as_ref().unwrap().is_empty());
        partitions.iter().map(given).collect::<Vec<_>>()
    };
    let response = rig.ask(c, 12, &first_only);
    assert_eq!(
        news(&response),
        [(1, true), (2, false)],
        "a new high watermark is news"
    );
    let response = rig.ask(c, 12, &next(3).with_max_bytes(1));
    assert_eq!(news(&response), [(2, true)], "the one that waited is first");
    let mut moved = next(4);
    moved.topics = vec![full.topics[0].clone()];
    moved.topics[0].partitions = vec![asked.clone().with_partition(1).with_fetch_offset(1)];
    moved.forgotten_topics_data = vec![
        kafka_protocol::messages::fetch_request::ForgottenTopic::default()
            .with_topic(name("t"))
            .with_partitions(vec![2]),
    ];
    assert_eq!(rig.ask(c, 12, &moved).responses, []);
    let code = |response: kafka_protocol::messages::FetchResponse| response.error_code;
    let wrong_epoch = ResponseError::InvalidFetchSessionEpoch.code();
    assert_eq!(code(rig.ask(c, 12, &next(4))), wrong_epoch);
    let other = rig.connect(2);
    let not_found = ResponseError::FetchSessionIdNotFound.code();
    assert_eq!(
        code(rig.ask(other, 12, &next(5))),
        not_found,
        "a session is one node's"
    );
    rig.broker.delete_topic("t").unwrap();
    let response = rig.ask(c, 12, &next(5));
    let codes: Vec<_> = response.responses[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(
        codes,
        [ResponseError::UnknownTopicOrPartition.code(); 2],
        "errors are news"
    );
    rig.ask(
        c,
        12,
        &fetch_request(0, false)
            .with_session_id(id)
            .with_session_epoch(-1),
    );
    assert_eq!(
        code(rig.ask(c, 12, &next(6))),
        not_found,
        "a full request ends it"
    );
}

#[test]
fn sessions_can_be_refused() {
    let mut rig = Rig::of(Settings {
        fetch_sessions: false,
        ..Settings::default()
    });
    rig.broker.create_topic("t", 1, &[]).unwrap();
    let c = rig.connect(1);
    let asks = fetch_request(0, false).with_session_epoch(0);
    assert_eq!(rig.ask(c, 12, &asks).session_id, 0);
    let claims = fetch_request(0, false)
        .with_session_id(9)
        .with_session_epoch(1);
    let response = rig.ask(c, 12, &claims);
    assert_eq!(
        response.error_code,
        ResponseError::FetchSessionIdNotFound.code()
    );
}

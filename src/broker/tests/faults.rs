//! Faults: each does what happens to a real cluster, and a client notices it as it would there.

use super::*;
use kafka_protocol::messages::MetadataRequest;

#[test]
fn an_unclean_election_loses_whole_batches_and_what_they_meant() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let at = |sequence| Batch::one("x").of_producer(1, 0, sequence).bytes();
    rig.produce(c, at(0));
    rig.append(c, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    rig.produce(c, at(1));
    let end = rig.broker.unclean_election("t", P0, 2).unwrap();
    assert_eq!(end, Offset(1), "half a batch is no batch");
    assert_eq!(
        rig.broker.leader("t", P0).unwrap().1,
        crate::model::LeaderEpoch(Some(1))
    );
    let retry = rig.produce(c, at(1));
    assert_eq!(
        (retry.error_code, retry.base_offset),
        (0, 1),
        "no duplicate of what is lost"
    );
    let still = rig.produce(c, at(0));
    assert_eq!((still.error_code, still.base_offset), (0, 0));
    assert_eq!(rig.values().len(), 2);
    let bytes: usize = rig.fetch(c, 0, false).records.unwrap().len();
    assert_eq!(rig.broker.cluster.store.bytes(), bytes);
}

#[test]
fn a_lost_answer_is_an_appended_batch_and_a_cut_connection() {
    let (mut rig, c) = Rig::with_topic(&[]);
    rig.broker.lose_next_produce_responses(1);
    let request = produce_request("t", 0, None, Batch::one("x").bytes().into());
    rig.send(c, 11, &request);
    assert_eq!(rig.broker.outgoing(c), b"");
    assert_eq!(rig.broker.next_cut(), Some(c));
    assert_eq!(rig.values().len(), 1);
    let gone = rig.broker.on_bytes(c, b"", rig.now);
    assert_eq!(gone, Err(Violation::Gone));
    let c = rig.connect(1);
    assert_eq!(rig.produce(c, Batch::one("y").bytes()).base_offset, 1);
}

#[test]
fn a_throttle_is_answered_at_once_and_mutes() {
    let (mut rig, c) = Rig::with_topic(&[]);
    rig.broker.throttle_next_produces(1, 300);
    let request = produce_request("t", 0, None, Batch::one("x").bytes().into());
    let response = rig.ask(c, 11, &request);
    assert_eq!(response.throttle_time_ms, 300);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    rig.send(c, 11, &request);
    rig.pass(299);
    assert_eq!(rig.values().len(), 1);
    rig.pass(1);
    let response = rig
        .answer::<ProduceRequest>(c, 11)
        .expect("no longer muted");
    assert_eq!(response.throttle_time_ms, 0);
}

#[test]
fn a_frozen_node_is_silent_and_answers_all_when_it_thaws() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let poll = rig.connect(1);
    rig.send(poll, 11, &fetch_request(0, false).with_max_wait_ms(100));
    rig.broker.freeze_node(NodeId(1));
    let request = produce_request("t", 0, None, Batch::one("x").bytes().into());
    rig.send(c, 11, &request);
    rig.pass(10_000);
    assert_eq!(rig.broker.next_writable(), None);
    assert!(rig.broker.outgoing(c).is_empty() && rig.broker.outgoing(poll).is_empty());
    assert!(
        rig.broker
            .next_deadline()
            .is_none_or(|at| at > rig.now.mono),
        "no busy waiting"
    );
    rig.broker.thaw_node(NodeId(1));
    assert!(rig.answer::<ProduceRequest>(c, 11).is_some());
    assert!(rig.answer::<FetchRequest>(poll, 11).is_some());
}

#[test]
fn a_stopped_node_s_partitions_are_led_by_others() {
    let mut rig = Rig::new(3);
    rig.broker
        .create_topic("t", 3, &[("min.insync.replicas", "2")])
        .unwrap();
    let (one, two) = (rig.connect(1), rig.connect(2));
    rig.broker.stop_node(NodeId(1));
    assert_eq!(rig.broker.next_cut(), Some(one));
    assert_eq!(rig.broker.on_connect(NodeId(1)), None);
    let metadata = rig.ask(two, 12, &MetadataRequest::default().with_topics(None));
    let brokers: Vec<_> = metadata
        .brokers
        .iter()
        .map(|b| (b.node_id.0, b.port))
        .collect();
    assert_eq!(brokers, [(2, 9_002), (3, 9_003)]);
    let first = &metadata.topics[0].partitions[0];
    assert_eq!((first.leader_id.0, first.leader_epoch), (2, 1));
    assert_eq!(first.isr_nodes.len(), 2);
    assert_eq!(first.offline_replicas, [1]);
    assert_eq!(rig.produce(two, Batch::one("x").bytes()).error_code, 0);
    rig.broker.stop_node(NodeId(3));
    let refused = rig.produce(two, Batch::one("x").bytes()).error_code;
    assert_eq!(refused, ResponseError::NotEnoughReplicas.code());
    rig.broker.stop_node(NodeId(2));
    assert_eq!(rig.broker.leader("t", P0).unwrap().0, None);
    rig.broker.start_node(NodeId(3));
    assert_eq!(rig.broker.leader("t", P0).unwrap().0, Some(NodeId(3)));
    assert_eq!(rig.values().len(), 1);
}

#[test]
fn planned_errors_come_and_go() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let after = ResponseError::NotEnoughReplicasAfterAppend;
    rig.broker.fail_next(Failing::ProduceAfterAppend, after, 1);
    assert_eq!(
        rig.produce(c, Batch::one("x").bytes()).error_code,
        after.code()
    );
    assert_eq!(rig.values().len(), 1, "appended all the same");
    rig.broker
        .fail_next(Failing::Produce, ResponseError::RequestTimedOut, 1);
    let failed = rig.produce(c, Batch::one("x").bytes()).error_code;
    assert_eq!(failed, ResponseError::RequestTimedOut.code());
    assert_eq!(rig.produce(c, Batch::one("x").bytes()).base_offset, 1);
    rig.broker
        .fail_next(Failing::ListOffsets, ResponseError::OffsetNotAvailable, 2);
    let unavailable = ResponseError::OffsetNotAvailable.code();
    assert_eq!(rig.list(c, -1, true).0, unavailable);
    assert_eq!(rig.list(c, -1, true).0, unavailable);
    assert_eq!(rig.list(c, -1, true), (0, -1, 2));
    let poll = rig.connect(1);
    rig.send(poll, 11, &fetch_request(2, false).with_max_wait_ms(60_000));
    rig.broker
        .fail_next(Failing::Fetch, ResponseError::KafkaStorageError, 1);
    let response = rig
        .answer::<FetchRequest>(poll, 11)
        .expect("an error ends the poll");
    let code = response.responses[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::KafkaStorageError.code());
}

#[test]
fn a_topic_made_again_is_another() {
    let (mut rig, c) = Rig::with_topic(&[("retention.ms", "5000")]);
    rig.append(c, &[("a", Some("1"))]);
    let before = rig.broker.cluster.store.topics().get("t").unwrap().id;
    rig.broker.delete_and_recreate("t").unwrap();
    let topic = rig.broker.cluster.store.topics().get("t").unwrap();
    assert_ne!(topic.id, before);
    assert_eq!(topic.config.retention_ms, 5_000);
    assert_eq!(
        (rig.values().len(), rig.broker.cluster.store.bytes()),
        (0, 0)
    );
}

//! Transactions: what `read_committed` readers get, and which producers are fenced.

use super::*;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
};

fn id() -> TransactionalId {
    TransactionalId(StrBytes::from_static_str("tx"))
}

fn init(rig: &mut Rig, c: ConnectionId) -> (i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(10_000);
    let response = rig.ask(c, 4, &request);
    assert_eq!(response.error_code, 0);
    (response.producer_id.0, response.producer_epoch)
}

fn join(rig: &mut Rig, c: ConnectionId, (producer, epoch): (i64, i16)) -> i16 {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![0]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(producer.into())
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(vec![topic]);
    let response = rig.ask(c, 3, &request);
    response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
}

fn end(rig: &mut Rig, c: ConnectionId, (producer, epoch): (i64, i16), committed: bool) -> i16 {
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(producer.into())
        .with_producer_epoch(epoch)
        .with_committed(committed);
    rig.ask(c, 3, &request).error_code
}

fn write(
    rig: &mut Rig,
    c: ConnectionId,
    (producer, epoch): (i64, i16),
    sequence: i32,
) -> PartitionProduceResponse {
    let batch = Batch::one(&format!("tx {sequence}")).of_producer(producer, epoch, sequence);
    rig.produce_to(c, "t", 0, Some("tx"), batch.transactional().bytes())
}

#[test]
fn a_commit_takes_one_offset_and_an_abort_is_listed() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let producer = init(&mut rig, c);
    for (sequence, committed) in [(0, true), (1, false), (2, true)] {
        assert_eq!(join(&mut rig, c, producer), 0);
        let base = 2 * i64::from(sequence);
        assert_eq!(write(&mut rig, c, producer, sequence).base_offset, base);
        assert_eq!(end(&mut rig, c, producer, committed), 0);
    }
    let bounds = rig.broker.bounds("t", P0).unwrap();
    assert_eq!(bounds, [Offset(0), Offset(6), Offset(6)]);
    assert_eq!(
        rig.values(),
        [(0, "tx 0".to_owned()), (4, "tx 2".to_owned())]
    );
    let data = rig.fetch(c, 0, true);
    let aborted: Vec<_> = data.aborted_transactions.unwrap();
    let aborted: Vec<_> = aborted
        .iter()
        .map(|a| (a.producer_id.0, a.first_offset))
        .collect();
    assert_eq!(aborted, [(producer.0, 2)]);
    let all = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)];
    assert_eq!(batches(&data.records.unwrap()).0, all);
    assert_eq!(rig.fetch(c, 4, true).aborted_transactions, Some(Vec::new()));
    assert_eq!(rig.fetch(c, 0, false).aborted_transactions, None);
}

#[test]
fn an_open_transaction_holds_committed_readers_only() {
    let (mut rig, c) = Rig::with_topic(&[]);
    rig.append(c, &[("k", Some("before"))]);
    let producer = init(&mut rig, c);
    join(&mut rig, c, producer);
    write(&mut rig, c, producer, 0);
    rig.append(c, &[("k", Some("after"))]);
    let data = rig.fetch(c, 0, true);
    assert_eq!((data.high_watermark, data.last_stable_offset), (3, 1));
    assert_eq!(batches(&data.records.unwrap()).0, [(0, 0)]);
    assert_eq!(rig.list(c, -1, true), (0, -1, 1));
    assert_eq!(rig.list(c, -1, false), (0, -1, 3));
    assert_eq!(batches(&rig.fetch(c, 0, false).records.unwrap()).0.len(), 3);
    let reader = rig.connect(1);
    rig.send(reader, 11, &fetch_request(1, true).with_max_wait_ms(1_000));
    assert_eq!(rig.broker.outgoing(reader), b"");
    end(&mut rig, c, producer, true);
    let response = rig
        .answer::<FetchRequest>(reader, 11)
        .expect("the commit wakes it");
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(batches(&records).0, [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_second_producer_fences_the_first_and_aborts_its_transaction() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let old = init(&mut rig, c);
    join(&mut rig, c, old);
    write(&mut rig, c, old, 0);
    let new = init(&mut rig, c);
    assert_eq!(new.0, old.0);
    assert!(new.1 > old.1);
    assert_eq!(rig.values(), []);
    let fenced = write(&mut rig, c, old, 1).error_code;
    assert_eq!(fenced, ResponseError::InvalidProducerEpoch.code());
    assert_eq!(join(&mut rig, c, old), ResponseError::ProducerFenced.code());
    assert_eq!(
        end(&mut rig, c, old, true),
        ResponseError::ProducerFenced.code()
    );
    assert_eq!(join(&mut rig, c, new), 0);
    assert_eq!(write(&mut rig, c, new, 0).error_code, 0);
    assert_eq!(end(&mut rig, c, new, true), 0);
    assert_eq!(rig.values(), [(2, "tx 0".to_owned())]);
}

#[test]
fn a_transaction_has_states() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let producer = init(&mut rig, c);
    let invalid = ResponseError::InvalidTxnState.code();
    let abortable = ResponseError::TransactionAbortable.code();
    assert_eq!(
        write(&mut rig, c, producer, 0).error_code,
        abortable,
        "the partition did not join"
    );
    assert_eq!(end(&mut rig, c, producer, true), invalid, "nothing began");
    join(&mut rig, c, producer);
    write(&mut rig, c, producer, 0);
    assert_eq!(end(&mut rig, c, producer, true), 0);
    assert_eq!(end(&mut rig, c, producer, true), 0, "a retry");
    assert_eq!(end(&mut rig, c, producer, false), invalid);
    assert_eq!(
        rig.broker.bounds("t", P0).unwrap()[2],
        Offset(2),
        "one marker"
    );
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let producer = init(&mut rig, c);
    join(&mut rig, c, producer);
    write(&mut rig, c, producer, 0);
    rig.pass(9_999);
    assert_eq!(rig.broker.bounds("t", P0).unwrap()[1], Offset(0));
    rig.pass(1);
    assert_eq!(rig.broker.bounds("t", P0).unwrap()[1], Offset(2));
    assert_eq!(rig.values(), []);
    assert_eq!(
        end(&mut rig, c, producer, true),
        ResponseError::ProducerFenced.code()
    );
}

#[test]
fn the_newer_protocol_joins_by_producing_and_moves_the_epoch() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let producer = init(&mut rig, c);
    let batch = Batch::one("x")
        .of_producer(producer.0, producer.1, 0)
        .transactional();
    let request = produce_request("t", 0, Some("tx"), batch.bytes().into());
    let response = rig.ask(c, 12, &request);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_committed(true);
    let response = rig.ask(c, 5, &request);
    assert_eq!(response.error_code, 0);
    assert_eq!(response.producer_epoch, producer.1 + 1);
    assert_eq!(rig.values().len(), 1);
}

#[test]
fn producer_ids_are_new_and_a_coordinator_is_found() {
    let mut rig = Rig::new(2);
    let c = rig.connect(2);
    let plain = InitProducerIdRequest::default().with_transactional_id(None);
    let ids: Vec<_> = (0..3)
        .map(|_| rig.ask(c, 4, &plain).producer_id.0)
        .collect();
    assert!(ids[0] < ids[1] && ids[1] < ids[2]);
    let empty = rig.ask(c, 4, &InitProducerIdRequest::default());
    assert_eq!(
        empty.error_code,
        ResponseError::InvalidRequest.code(),
        "an empty name is no name"
    );
    let request = FindCoordinatorRequest::default()
        .with_key(StrBytes::from_static_str("tx"))
        .with_key_type(1);
    let found = rig.ask(c, 2, &request);
    assert_eq!(
        (found.error_code, found.node_id.0, found.port),
        (0, 1, 9_001)
    );
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(10_000);
    let elsewhere = rig.ask(c, 4, &request);
    assert_eq!(elsewhere.error_code, ResponseError::NotCoordinator.code());
    let keys = vec![
        StrBytes::from_static_str("a"),
        StrBytes::from_static_str("b"),
    ];
    let groups = FindCoordinatorRequest::default().with_coordinator_keys(keys);
    let found = rig.ask(c, 4, &groups);
    let found: Vec<_> = found
        .coordinators
        .iter()
        .map(|f| (f.error_code, f.node_id.0))
        .collect();
    assert_eq!(found, [(0, 1), (0, 1)]);
}

//! Which batches are appended, which are rejected, and with which error.

use super::*;

#[test]
fn a_batch_is_stored_as_it_came_but_for_offset_and_epoch() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let first = Batch::one("a").bytes();
    assert_eq!(rig.produce(c, first.clone()).base_offset, 0);
    let second = Batch::of(&[("k", Some("b")), ("l", None)]).bytes();
    let answer = rig.produce(c, second.clone());
    assert_eq!(
        (
            answer.base_offset,
            answer.log_append_time_ms,
            answer.log_start_offset
        ),
        (1, -1, 0)
    );
    let records = rig.fetch(c, 0, false).records.unwrap();
    let (one, two) = records.split_at(first.len());
    assert_eq!(one[8..12], first[8..12]);
    assert_eq!(one[16..], first[16..]);
    assert_eq!(two[..8], 1_i64.to_be_bytes());
    assert_eq!(two[12..16], [0; 4]);
    assert_eq!(two[16..], second[16..]);
}

#[test]
fn every_codec_is_taken_and_dumped() {
    let (mut rig, c) = Rig::with_topic(&[]);
    for codec in 1..=4 {
        let bytes = compress(&Batch::one(&format!("codec {codec}")).bytes(), codec);
        assert_eq!(rig.produce(c, bytes).error_code, 0, "codec {codec}");
    }
    let values = rig.values();
    assert_eq!(values[3], (3, "codec 4".to_owned()));
    let dumped = rig.broker.dump("t", P0).unwrap();
    assert_eq!(dumped[0].headers, [(Bytes::from_static(b"h"), None)]);
}

#[test]
fn what_is_no_batch_is_refused() {
    let good = Batch::of(&[("k", Some("a")), ("k", Some("b"))]).bytes();
    let change = |at: usize, value: u8, seal: bool| {
        let mut bytes = good.clone();
        bytes[at] = value;
        if seal {
            reseal(&mut bytes);
        }
        bytes
    };
    let cases = [
        ("empty", Vec::new(), ResponseError::InvalidRecord),
        (
            "no header",
            good[..60].to_vec(),
            ResponseError::InvalidRecord,
        ),
        (
            "short",
            good[..good.len() - 1].to_vec(),
            ResponseError::InvalidRecord,
        ),
        (
            "two",
            [&good[..], &good].concat(),
            ResponseError::InvalidRecord,
        ),
        (
            "checksum",
            change(70, 0xff, false),
            ResponseError::CorruptMessage,
        ),
        (
            "magic 1",
            change(16, 1, false),
            ResponseError::InvalidRecord,
        ),
        (
            "codec 5",
            change(22, 5, true),
            ResponseError::UnsupportedCompressionType,
        ),
        (
            "not gzip",
            change(22, 1, true),
            ResponseError::CorruptMessage,
        ),
        (
            "control",
            change(22, 0x20, true),
            ResponseError::InvalidRecord,
        ),
        (
            "base offset",
            change(7, 1, false),
            ResponseError::InvalidRecord,
        ),
        ("count", change(60, 3, true), ResponseError::InvalidRecord),
        (
            "last offset delta",
            change(26, 2, true),
            ResponseError::InvalidRecord,
        ),
        (
            "record length",
            change(61, 0x7f, true),
            ResponseError::InvalidRecord,
        ),
    ];
    let (mut rig, c) = Rig::with_topic(&[]);
    for (what, bytes, error) in cases {
        let answer = rig.produce(c, bytes);
        assert_eq!(
            answer.error_code,
            error.code(),
            "{what}: {:?}",
            answer.error_message
        );
        assert_eq!(answer.base_offset, -1);
    }
    assert_eq!(rig.produce(c, good).base_offset, 0);
}

#[test]
fn a_topic_says_what_it_takes() {
    let (mut rig, c) = Rig::with_topic(&[("max.message.bytes", "200")]);
    let large = Batch::one(&"x".repeat(200)).bytes();
    let too_large = ResponseError::MessageTooLarge.code();
    assert_eq!(rig.produce(c, large).error_code, too_large);
    let hour = 3_600_000;
    let late = Batch::one("x").at(START_MS + hour + 1).bytes();
    assert_eq!(
        rig.produce(c, late).error_code,
        ResponseError::InvalidTimestamp.code()
    );
    let keyless = Batch::one("x").each(|r| r.key = None).bytes();
    assert_eq!(rig.produce(c, keyless.clone()).error_code, 0);
    rig.broker
        .configure("t", "cleanup.policy", Some("compact"))
        .unwrap();
    assert_eq!(
        rig.produce(c, keyless).error_code,
        ResponseError::InvalidRecord.code()
    );
}

#[test]
fn log_append_time_is_the_batch_s_and_its_checksum_right() {
    let (mut rig, c) = Rig::with_topic(&[("message.timestamp.type", "LogAppendTime")]);
    let answer = rig.produce(c, Batch::one("x").at(1_000).bytes());
    assert_eq!(answer.log_append_time_ms, START_MS);
    let records = rig.fetch(c, 0, false).records.unwrap();
    let (header, _) = batch::Header::read(&records).unwrap();
    assert!(header.is_log_append_time());
    assert_eq!(
        (header.max_timestamp, header.base_timestamp),
        (START_MS, 1_000)
    );
    assert_eq!(header.crc, batch::checksum(&records));
    assert_eq!(
        rig.broker.dump("t", P0).unwrap()[0].timestamp,
        UnixMillis(START_MS)
    );
}

#[test]
fn an_idempotent_producer_s_retry_is_answered_and_not_appended() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let at = |sequence| Batch::one("x").of_producer(1, 0, sequence).bytes();
    for sequence in 0..7 {
        assert_eq!(
            rig.produce(c, at(sequence)).base_offset,
            i64::from(sequence)
        );
    }
    for sequence in 2..7 {
        let again = rig.produce(c, at(sequence));
        assert_eq!(
            (again.error_code, again.base_offset),
            (0, i64::from(sequence))
        );
    }
    let out_of_order = ResponseError::OutOfOrderSequenceNumber.code();
    assert_eq!(
        rig.produce(c, at(1)).error_code,
        out_of_order,
        "the sixth last is forgotten"
    );
    assert_eq!(rig.produce(c, at(8)).error_code, out_of_order, "a gap");
    assert_eq!(rig.values().len(), 7);
}

#[test]
fn a_producer_s_epoch_fences_and_begins_at_zero() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let batch = |epoch, sequence| Batch::one("x").of_producer(1, epoch, sequence).bytes();
    assert_eq!(
        rig.produce(c, batch(0, 40)).error_code,
        0,
        "an unknown producer may begin anywhere"
    );
    let out_of_order = ResponseError::OutOfOrderSequenceNumber.code();
    assert_eq!(rig.produce(c, batch(1, 41)).error_code, out_of_order);
    assert_eq!(rig.produce(c, batch(1, 0)).error_code, 0);
    let fenced = ResponseError::InvalidProducerEpoch.code();
    assert_eq!(rig.produce(c, batch(0, 41)).error_code, fenced);
}

#[test]
fn sequences_wrap_to_zero() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let two = |sequence| {
        let records = [("k", Some("a")), ("k", Some("b"))];
        Batch::of(&records).of_producer(1, 0, sequence).bytes()
    };
    assert_eq!(rig.produce(c, two(i32::MAX - 1)).error_code, 0);
    assert_eq!(rig.produce(c, two(0)).error_code, 0);
    let across = Batch::of(&[("k", Some("a")), ("k", Some("b"))]).of_producer(2, 0, i32::MAX);
    assert_eq!(rig.produce(c, across.bytes()).error_code, 0);
    assert_eq!(
        rig.produce(c, Batch::one("x").of_producer(2, 0, 1).bytes())
            .error_code,
        0
    );
}

#[test]
fn acks_zero_gets_no_answer_and_an_error_closes() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let request = produce_request("t", 0, None, Batch::one("x").bytes().into()).with_acks(0);
    rig.send(c, 11, &request);
    assert_eq!(rig.broker.outgoing(c), b"");
    assert_eq!(rig.values().len(), 1);
    let wrong = produce_request("nowhere", 0, None, Batch::one("x").bytes().into()).with_acks(0);
    rig.send(c, 11, &wrong);
    assert_eq!(rig.broker.next_cut(), Some(c));
    let c = rig.connect(1);
    let two = produce_request("t", 0, None, Batch::one("x").bytes().into()).with_acks(2);
    let response = rig.ask(c, 11, &two);
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::InvalidRequiredAcks.code());
}

#[test]
fn topics_are_named_by_id_from_version_13_on() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let id = rig.broker.cluster.store.topics().get("t").unwrap().id;
    let mut request = produce_request("t", 0, None, Batch::one("x").bytes().into());
    request.topic_data[0].name = TopicName::default();
    request.topic_data[0].topic_id = id;
    let response = rig.ask(c, 13, &request);
    assert_eq!(response.responses[0].topic_id, id);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    rig.broker.delete_and_recreate("t").unwrap();
    let response = rig.ask(c, 13, &request);
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::UnknownTopicId.code());
}

#[test]
fn a_full_broker_drops_the_oldest_or_refuses() {
    let settings = Settings {
        bytes_max: 10_000,
        ..Settings::default()
    };
    let mut rig = Rig::of(settings);
    rig.broker.create_topic("t", 1, &[]).unwrap();
    let c = rig.connect(1);
    for _ in 0..200 {
        rig.append(c, &[("k", Some("0123456789"))]);
    }
    let [start, _, end] = rig.broker.bounds("t", P0).unwrap();
    assert_eq!(end, Offset(200));
    assert!(start > Offset(70) && start < Offset(150), "{start:?}");
    assert!(rig.broker.cluster.store.bytes() <= 10_000);
    rig.broker
        .create_topic("kept", 1, &[("retention.ms", "-1")])
        .unwrap();
    rig.broker
        .configure("t", "cleanup.policy", Some("compact"))
        .unwrap();
    rig.broker
        .configure("kept", "cleanup.policy", Some("compact"))
        .unwrap();
    // Compaction frees what it can, then nothing is left to drop.
    let mut refused = 0;
    for i in 0..300 {
        let batch = Batch::of(&[(&i.to_string(), Some("0123456789"))]).bytes();
        let answer = rig.produce_to(c, "kept", 0, None, batch);
        if answer.error_code == ResponseError::KafkaStorageError.code() {
            refused += 1;
        }
    }
    assert!((1..300).contains(&refused), "{refused}");
    assert!(rig.broker.cluster.store.bytes() <= 10_000);
}

//! The wire itself: every version of every API, frames split anywhere, random bytes, and the same
//! history twice.

use super::*;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AlterConfigsRequest, ApiKey, ApiVersionsRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, EndTxnRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, MetadataRequest, OffsetForLeaderEpochRequest,
    alter_configs_request as replace, incremental_alter_configs_request as incremental,
};
use proptest::prelude::*;

fn text(text: &str) -> StrBytes {
    StrBytes::from(text.to_owned())
}

/// Every offered API in every version, with every array filled, encoded.
fn one_of_each() -> Vec<(ApiKey, i16, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add =
        |api: ApiKey, versions: std::ops::RangeInclusive<i16>, each: &dyn Fn(i16) -> Vec<u8>| {
            for version in versions {
                all.push((api, version, each(version)));
            }
        };
    add(ApiKey::ApiVersions, 0..=4, &|v| {
        let request = ApiVersionsRequest::default();
        if v < 3 {
            return encode(v, 5, &request);
        }
        let request = request.with_client_software_name(text("n"));
        encode(v, 5, &request.with_client_software_version(text("1")))
    });
    add(ApiKey::Produce, 3..=13, &|v| {
        let request = produce_request("t", 0, None, Batch::one("x").bytes().into());
        encode(v, 5, &request)
    });
    add(ApiKey::Fetch, 4..=18, &|v| {
        let mut request = fetch_request(0, true);
        if v >= 7 {
            let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
            request.forgotten_topics_data = vec![forgotten];
        }
        if v >= 18 {
            request.topics[0].partitions[0].high_watermark = 4;
        }
        encode(v, 5, &request)
    });
    add(ApiKey::ListOffsets, 1..=10, &|v| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(name("t"));
        let topics = vec![topic.with_partitions(vec![partition.clone(), partition])];
        encode(v, 5, &ListOffsetsRequest::default().with_topics(topics))
    });
    add(ApiKey::Metadata, 0..=13, &|v| {
        let topics = ["t", "x"].map(|t| MetadataRequestTopic::default().with_name(Some(name(t))));
        encode(
            v,
            5,
            &MetadataRequest::default().with_topics(Some(topics.into())),
        )
    });
    add(ApiKey::FindCoordinator, 0..=6, &|v| {
        let request = FindCoordinatorRequest::default();
        let request = if v == 0 {
            request
        } else {
            request.with_key_type(1)
        };
        if v < 4 {
            return encode(v, 5, &request.with_key(text("tx")));
        }
        encode(
            v,
            5,
            &request.with_coordinator_keys(vec![text("tx"), text("y")]),
        )
    });
    add(ApiKey::CreateTopics, 2..=7, &|v| {
        let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()]);
        let config = CreatableTopicConfig::default().with_name(text("retention.ms"));
        let topic = CreatableTopic::default()
            .with_name(name(&format!("new{v}")))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment])
            .with_configs(vec![config.with_value(Some(text("5")))]);
        encode(
            v,
            5,
            &CreateTopicsRequest::default().with_topics(vec![topic]),
        )
    });
    add(ApiKey::DeleteTopics, 1..=6, &|v| {
        let request = DeleteTopicsRequest::default();
        if v < 6 {
            return encode(
                v,
                5,
                &request.with_topic_names(vec![name("new2"), name("x")]),
            );
        }
        let topic = DeleteTopicState::default().with_name(Some(name("new3")));
        encode(
            v,
            5,
            &request.with_topics(vec![topic, DeleteTopicState::default()]),
        )
    });
    add(ApiKey::DeleteRecords, 0..=2, &|v| {
        let topic = DeleteRecordsTopic::default().with_name(name("t"));
        let topic = topic.with_partitions(vec![DeleteRecordsPartition::default(); 2]);
        encode(
            v,
            5,
            &DeleteRecordsRequest::default().with_topics(vec![topic]),
        )
    });
    add(ApiKey::InitProducerId, 0..=5, &|v| {
        let request = InitProducerIdRequest::default().with_transaction_timeout_ms(10);
        let id = TransactionalId(text("tx"));
        encode(v, 5, &request.with_transactional_id(Some(id)))
    });
    add(ApiKey::OffsetForLeaderEpoch, 2..=4, &|v| {
        let topic = OffsetForLeaderTopic::default().with_topic(name("t"));
        let topic = topic.with_partitions(vec![OffsetForLeaderPartition::default(); 2]);
        encode(
            v,
            5,
            &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]),
        )
    });
    add(ApiKey::AddPartitionsToTxn, 0..=5, &|v| {
        let topic = AddPartitionsToTxnTopic::default().with_name(name("t"));
        let topics = vec![topic.with_partitions(vec![0, 1])];
        let id = TransactionalId(text("tx"));
        let request = AddPartitionsToTxnRequest::default();
        if v < 4 {
            let request = request.with_v3_and_below_transactional_id(id);
            return encode(v, 5, &request.with_v3_and_below_topics(topics));
        }
        let transaction = AddPartitionsToTxnTransaction::default().with_transactional_id(id);
        encode(
            v,
            5,
            &request.with_transactions(vec![transaction.with_topics(topics)]),
        )
    });
    add(ApiKey::EndTxn, 0..=5, &|v| {
        let id = TransactionalId(text("tx"));
        encode(v, 5, &EndTxnRequest::default().with_transactional_id(id))
    });
    add(ApiKey::DescribeConfigs, 1..=4, &|v| {
        let resources = [(2, "t"), (4, "1"), (2, "x"), (9, "")].map(|(kind, resource)| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(resource))
                .with_configuration_keys((kind == 4).then(|| vec![text("message.max.bytes")]))
        });
        encode(
            v,
            5,
            &DescribeConfigsRequest::default().with_resources(resources.into()),
        )
    });
    add(ApiKey::AlterConfigs, 0..=2, &|v| {
        let config = replace::AlterableConfig::default().with_name(text("retention.ms"));
        let resource = replace::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config.with_value(Some(text("5")))]);
        encode(
            v,
            5,
            &AlterConfigsRequest::default().with_resources(vec![resource]),
        )
    });
    add(ApiKey::IncrementalAlterConfigs, 0..=1, &|v| {
        let config = incremental::AlterableConfig::default().with_name(text("retention.ms"));
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config.with_value(Some(text("-1")))]);
        encode(
            v,
            5,
            &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
        )
    });
    add(ApiKey::CreatePartitions, 0..=3, &|v| {
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![1.into()]);
        let topic = CreatePartitionsTopic::default()
            .with_name(name("t"))
            .with_count(2 + i32::from(v))
            .with_assignments(Some(vec![assignment]));
        encode(
            v,
            5,
            &CreatePartitionsRequest::default().with_topics(vec![topic]),
        )
    });
    groups::one_of_each(&mut add);
    all
}

#[test]
fn every_version_of_every_api_is_answered() {
    for nodes in [1, 2] {
        let mut rig = Rig::new(nodes);
        rig.broker.create_topic("t", 1, &[]).unwrap();
        if nodes == 2 {
            // Then the responses name leaders, too.
            rig.broker.move_leader("t", P0, NodeId(2)).unwrap();
        }
        for (api, version, bytes) in one_of_each() {
            let c = rig.connect(1);
            let served = rig.broker.on_bytes(c, &bytes, rig.now);
            assert_eq!(served, Ok(()), "{api:?} {version}");
            let out = rig.broker.outgoing(c);
            assert!(out.len() > 8, "{api:?} {version} has no answer");
            assert_eq!(out[4..8], 5_i32.to_be_bytes(), "{api:?} {version}");
            rig.broker.on_disconnect(c);
        }
    }
}

#[test]
fn the_shapes_are_those_of_the_codec_crate() {
    for (api, version, bytes) in one_of_each() {
        // A frame: length, API, version, correlation id, client id (2 + 4), tags if flexible.
        let tags = usize::from(api.request_header_version(version) >= 2);
        let body = &bytes[4 + 8 + 6 + tags..];
        assert!(shape::is_decodable(api, version, body), "{api:?} {version}");
        let short = &body[..body.len().saturating_sub(1)];
        if !body.is_empty() {
            assert!(
                !shape::is_decodable(api, version, short),
                "{api:?} {version}: not to the end"
            );
        }
    }
}

#[test]
fn a_count_that_the_bytes_can_t_hold_is_refused_before_it_is_allocated() {
    let mut rig = Rig::new(1);
    let c = rig.connect(1);
    // Metadata 1 with 2^31 - 1 topics.
    let body = [
        &[0, 3, 0, 1, 0, 0, 0, 5, 255, 255][..],
        &[127, 255, 255, 255],
    ]
    .concat();
    let bytes = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    let violation = rig.broker.on_bytes(c, &bytes, rig.now);
    assert_eq!(violation, Err(Violation::Malformed { api: 3, version: 1 }));
}

#[test]
fn frames_have_a_limit_and_so_has_what_is_pushed() {
    let settings = Settings {
        frame_bytes_max: 1_000,
        connections_max: 2,
        ..Settings::default()
    };
    let mut rig = Rig::of(settings);
    let c = rig.connect(1);
    let violation = rig.broker.on_bytes(c, &1_001_u32.to_be_bytes(), rig.now);
    assert_eq!(violation, Err(Violation::FrameLength(1_001)));
    rig.broker.on_disconnect(c);
    let c = rig.connect(1);
    rig.broker.create_topic("t", 1, &[]).unwrap();
    rig.send(c, 11, &fetch_request(0, false).with_max_wait_ms(1_000));
    assert!(rig.broker.wants_bytes(c));
    let metadata = encode(9, 5, &MetadataRequest::default());
    let mut pushed = 0;
    while rig.broker.wants_bytes(c) {
        rig.broker.on_bytes(c, &metadata, rig.now).unwrap();
        pushed += 1;
    }
    assert!(rig.broker.outgoing(c).is_empty());
    let flood = rig.broker.on_bytes(c, &vec![0; 100_000], rig.now);
    assert_eq!(flood, Err(Violation::Flood));
    rig.pass(1_000);
    assert!(rig.answer::<FetchRequest>(c, 11).is_some());
    for _ in 0..pushed {
        assert!(
            rig.answer::<MetadataRequest>(c, 9).is_some(),
            "a slow reader gets all in the end"
        );
    }
    assert!(rig.broker.on_connect(NodeId(1)).is_some());
    assert!(
        rig.broker.on_connect(NodeId(1)).is_none(),
        "connections_max"
    );
    assert!(rig.broker.on_connect(NodeId(9)).is_none());
}

/// Plays the requests and faults that `script` picks. Returns all bytes that the broker sent.
fn play(seed: u64, script: &[u8], cut: usize) -> Vec<u8> {
    let mut broker = Broker::new(
        Settings {
            nodes: 3,
            ..Settings::default()
        },
        seed,
    );
    broker.create_topic("t", 2, &[]).unwrap();
    let requests = one_of_each();
    let mut connections: Vec<_> = (1..=3)
        .map(|n| broker.on_connect(NodeId(n)).unwrap())
        .collect();
    let mut now = Now {
        mono: Instant::ZERO,
        wall: UnixMillis(START_MS),
    };
    let mut given = Vec::new();
    for (i, &step) in script.iter().enumerate() {
        let node = NodeId(u16::from(step) % 3 + 1);
        let at = Partition(u32::from(step) % 2);
        // The error of a fault is part of the history: the topic may have been deleted.
        match step % 16 {
            0 => drop(broker.move_leader("t", at, node)),
            1 => drop(broker.unclean_election("t", at, 2)),
            2 => broker.freeze_node(node),
            3 => broker.thaw_node(node),
            4 => broker.stop_node(node),
            5 => broker.start_node(node),
            6 => drop(broker.compact("t")),
            7 => broker.lose_next_produce_responses(1),
            _ => {
                let slot = usize::from(step) % 3;
                let (_, _, bytes) = &requests[(i * 31 + usize::from(step)) % requests.len()];
                for part in bytes.chunks(cut) {
                    // `next_cut` reports a cut connection below.
                    let _gone = broker.on_bytes(connections[slot], part, now);
                }
            }
        }
        now.mono = now
            .mono
            .after(std::time::Duration::from_millis(u64::from(step)));
        now.wall.0 += i64::from(step);
        broker.on_time(now);
        while let Some(cut) = broker.next_cut() {
            let slot = connections.iter().position(|c| *c == cut).unwrap();
            connections[slot] = broker.on_connect(NodeId(slot as u16 + 1)).unwrap_or(cut);
            given.push(255);
        }
        while let Some(c) = broker.next_writable() {
            let bytes = broker.outgoing(c).to_vec();
            broker.on_written(c, bytes.len());
            given.extend_from_slice(&bytes);
        }
    }
    given
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The fleet relies on this: a seed determines the whole history.
    #[test]
    fn the_same_seed_and_calls_give_the_same_bytes(
        seed: u64,
        script in proptest::collection::vec(any::<u8>(), 0..60),
        cut in 1_usize..200,
    ) {
        let once = play(seed, &script, usize::MAX);
        prop_assert_eq!(&once, &play(seed, &script, usize::MAX));
        prop_assert_eq!(&once, &play(seed, &script, cut), "where TCP cut the bytes shows");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Random bytes are answered or rejected. The broker never panics, and still serves others.
    #[test]
    fn any_body_under_any_header_is_answered_or_refused(
        api in 0_i16..70,
        version in 0_i16..20,
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut rig = Rig::new(1);
        let c = rig.connect(1);
        let mut frame = [&api.to_be_bytes()[..], &version.to_be_bytes(), &[0; 4]].concat();
        frame.extend_from_slice(&[255, 255, 0]);
        frame.extend_from_slice(&body);
        let len = (frame.len() as u32).to_be_bytes();
        let _refused = rig.broker.on_bytes(c, &len, rig.now);
        let _refused = rig.broker.on_bytes(c, &frame, rig.now);
        prop_assert!(serves_others(&mut rig));
    }

    /// A valid request with some bytes changed reaches deeper code than random bytes.
    #[test]
    fn a_damaged_request_is_answered_or_refused(
        which: prop::sample::Index,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        thread_local! {
            static REQUESTS: Vec<(ApiKey, i16, Vec<u8>)> = one_of_each();
        }
        let (mut rig, c) = Rig::with_topic(&[]);
        let mut bytes = REQUESTS.with(|all| all[which.index(all.len())].2.clone());
        let len = bytes.len();
        for (at, value) in damage {
            bytes[4 + at.index(len - 4)] = value;
        }
        let _refused = rig.broker.on_bytes(c, &bytes, rig.now);
        rig.pass(60_000);
        prop_assert!(serves_others(&mut rig));
    }
}

/// Whether another client is still answered.
fn serves_others(rig: &mut Rig) -> bool {
    thread_local! {
        static GREETING: Vec<u8> = one_of_each()
            .into_iter()
            .find_map(|(api, _, bytes)| (api == ApiKey::ApiVersions).then_some(bytes))
            .expect("it is one of each");
    }
    let c = rig.connect(1);
    let greeted = GREETING.with(|bytes| rig.broker.on_bytes(c, bytes, rig.now));
    greeted.is_ok() && !rig.broker.outgoing(c).is_empty()
}

/// Redpanda's ranges are narrower, and each of their versions is answered.
#[test]
fn redpanda_answers_its_own_versions_and_no_others() {
    for profile in [Profile::Redpanda, Profile::RedpandaWithIds] {
        let settings = Settings {
            profile,
            ..Settings::default()
        };
        let mut rig = Rig::of(settings);
        rig.broker.create_topic("t", 1, &[]).unwrap();
        let mut served = 0;
        for (api, version, bytes) in one_of_each() {
            let c = rig.connect(1);
            let told = rig.broker.on_bytes(c, &bytes, rig.now);
            let max = match api {
                ApiKey::Metadata if profile == Profile::Redpanda => 8,
                ApiKey::Metadata => 12,
                ApiKey::Produce => 7,
                ApiKey::Fetch if profile == Profile::Redpanda => 11,
                ApiKey::Fetch => 13,
                ApiKey::ListOffsets => 4,
                _ => continue,
            };
            served += usize::from(told.is_ok());
            assert_eq!(told.is_ok(), version <= max, "{api:?} {version}");
        }
        assert!(served > 10);
    }
}

//! The requests that create, change and describe topics and configurations.

use super::*;
use kafka_protocol::messages::alter_configs_request as replace;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, MetadataRequest,
};

fn topic(topic: &str, partitions: i32, replication: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from(text.to_owned())
}

#[test]
fn topics_are_created_or_refused_one_by_one() {
    let mut rig = Rig::of(Settings {
        nodes: 3,
        partitions_max: 10,
        ..Settings::default()
    });
    rig.broker.create_topic("there", 1, &[]).unwrap();
    let c = rig.connect(1);
    let config = |key: &str, value: &str| {
        let config = CreatableTopicConfig::default().with_name(text(key));
        vec![config.with_value(Some(text(value)))]
    };
    let topics = vec![
        topic("good", 2, 2).with_configs(config("cleanup.policy", "compact")),
        topic("there", 1, 1),
        topic("twice", 1, 1),
        topic("twice", 1, 1),
        topic("a/b", 1, 1),
        topic("none", 0, 1),
        topic("wide", 1, 4),
        topic("many", 8, 1),
        topic("odd", 1, 1).with_configs(config("cleanup.policy", "shred")),
        topic("default", -1, -1),
    ];
    let request = CreateTopicsRequest::default().with_topics(topics);
    let response = rig.ask(c, 7, &request);
    let codes: Vec<_> = response.topics.iter().map(|t| t.error_code).collect();
    let expected = [
        0,
        ResponseError::TopicAlreadyExists.code(),
        ResponseError::InvalidRequest.code(),
        ResponseError::InvalidTopicException.code(),
        ResponseError::InvalidPartitions.code(),
        ResponseError::InvalidReplicationFactor.code(),
        ResponseError::PolicyViolation.code(),
        ResponseError::InvalidConfig.code(),
        0,
    ];
    assert_eq!(codes, expected);
    let good = &response.topics[0];
    assert_eq!((good.num_partitions, good.replication_factor), (2, 2));
    assert!(!good.topic_id.is_nil());
    let dry = CreateTopicsRequest::default()
        .with_topics(vec![topic("dry", 1, 1)])
        .with_validate_only(true);
    assert_eq!(rig.ask(c, 7, &dry).topics[0].error_code, 0);
    assert!(rig.broker.cluster.store.topics().get("dry").is_none());
}

#[test]
fn metadata_tells_by_name_by_id_and_of_all() {
    let mut rig = Rig::new(2);
    rig.broker.create_topic("a", 2, &[]).unwrap();
    rig.broker.create_topic("b", 1, &[]).unwrap();
    let c = rig.connect(2);
    let all = rig.ask(
        c,
        0,
        &MetadataRequest::default().with_topics(Some(Vec::new())),
    );
    assert_eq!(all.topics.len(), 2, "version 0 has no null");
    let none = rig.ask(
        c,
        1,
        &MetadataRequest::default().with_topics(Some(Vec::new())),
    );
    assert_eq!(none.topics.len(), 0);
    let all = rig.ask(c, 9, &MetadataRequest::default().with_topics(None));
    assert_eq!(all.topics[0].partitions[1].leader_id.0, 2);
    let id = rig.broker.cluster.store.topics().get("b").unwrap().id;
    let by = |name: Option<&str>, id| {
        let name = name.map(|name| TopicName(text(name)));
        MetadataRequestTopic::default()
            .with_name(name)
            .with_topic_id(id)
    };
    let nobody = uuid::Uuid::from_u128(5);
    let asked = vec![
        by(None, id),
        by(Some("x"), uuid::Uuid::nil()),
        by(None, nobody),
    ];
    let request = MetadataRequest::default().with_topics(Some(asked));
    let response = rig.ask(c, 12, &request);
    assert_eq!(response.topics[0].name, Some(name("b")));
    let codes: Vec<_> = response.topics.iter().map(|t| t.error_code).collect();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [0, unknown, ResponseError::UnknownTopicId.code()]);
    assert!(
        rig.broker.cluster.store.topics().get("x").is_none(),
        "asking creates nothing"
    );
}

#[test]
fn topics_grow_shrink_and_go() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let grow = |count| {
        let topic = CreatePartitionsTopic::default()
            .with_name(name("t"))
            .with_count(count);
        let topic = topic.with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    };
    assert_eq!(rig.ask(c, 3, &grow(3)).results[0].error_code, 0);
    let smaller = rig.ask(c, 3, &grow(3)).results[0].error_code;
    assert_eq!(smaller, ResponseError::InvalidPartitions.code());
    rig.append(c, &[("a", Some("1"))]);
    rig.append(c, &[("a", Some("2"))]);
    let mut trim = |offset| {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name("t"));
        let topics = vec![topic.with_partitions(vec![partition])];
        let response = rig.ask(c, 2, &DeleteRecordsRequest::default().with_topics(topics));
        let result = &response.topics[0].partitions[0];
        (result.error_code, result.low_watermark)
    };
    assert_eq!(trim(3), (ResponseError::OffsetOutOfRange.code(), -1));
    assert_eq!(trim(1), (0, 1));
    assert_eq!(trim(-1), (0, 2));
    let id = rig.broker.cluster.store.topics().get("t").unwrap().id;
    let by_id = vec![
        DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id),
    ];
    let request = DeleteTopicsRequest::default().with_topics(by_id);
    let response = rig.ask(c, 6, &request);
    assert_eq!(response.responses[0].name, Some(name("t")));
    assert_eq!(response.responses[0].error_code, 0);
    let again = rig.ask(c, 6, &request);
    assert_eq!(
        again.responses[0].error_code,
        ResponseError::UnknownTopicId.code()
    );
    let by_name = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    let gone = rig.ask(c, 5, &by_name).responses[0].error_code;
    assert_eq!(gone, ResponseError::UnknownTopicOrPartition.code());
}

fn described(rig: &mut Rig, c: ConnectionId, key: &str) -> (String, i8) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let response = rig.ask(c, 4, &request);
    let config = &response.results[0].configs[0];
    (
        config.value.clone().unwrap().to_string(),
        config.config_source,
    )
}

#[test]
fn configurations_are_described_and_altered() {
    let (mut rig, c) = Rig::with_topic(&[("retention.ms", "1000")]);
    assert_eq!(described(&mut rig, c, "retention.ms"), ("1000".into(), 1));
    assert_eq!(
        described(&mut rig, c, "cleanup.policy"),
        ("delete".into(), 5)
    );
    let change = |operation: i8, key: &str, value: Option<&str>| {
        let config = incremental::AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(text));
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    let append = change(2, "cleanup.policy", Some("compact"));
    assert_eq!(rig.ask(c, 1, &append).responses[0].error_code, 0);
    assert_eq!(
        described(&mut rig, c, "cleanup.policy"),
        ("delete,compact".into(), 1)
    );
    assert_eq!(
        rig.ask(c, 1, &change(1, "retention.ms", None)).responses[0].error_code,
        0
    );
    assert_eq!(
        described(&mut rig, c, "retention.ms"),
        ("604800000".into(), 5)
    );
    let unknown = rig.ask(c, 1, &change(0, "retention.hours", Some("1")));
    assert_eq!(
        unknown.responses[0].error_code,
        ResponseError::InvalidConfig.code()
    );
    let config = replace::AlterableConfig::default()
        .with_name(text("retention.bytes"))
        .with_value(Some(text("7")));
    let resource = replace::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(rig.ask(c, 2, &request).responses[0].error_code, 0);
    assert_eq!(described(&mut rig, c, "retention.bytes"), ("7".into(), 1));
    assert_eq!(
        described(&mut rig, c, "cleanup.policy"),
        ("delete".into(), 5),
        "replaced as a whole"
    );
}

#[test]
fn a_version_from_the_future_is_answered_in_version_0() {
    // KIP-511.
    let mut rig = Rig::new(1);
    let c = rig.connect(1);
    let mut bytes = encode(3, 5, &ApiVersionsRequest::default());
    bytes[7] = 9;
    rig.broker.on_bytes(c, &bytes, rig.now).unwrap();
    let response = rig.answer::<ApiVersionsRequest>(c, 0).expect("answered");
    assert_eq!(
        response.error_code,
        ResponseError::UnsupportedVersion.code()
    );
    let response = rig.ask(c, 4, &ApiVersionsRequest::default());
    assert_eq!(response.error_code, 0);
    let fetch = response
        .api_keys
        .iter()
        .find(|k| k.api_key == ApiKey::Fetch as i16)
        .unwrap();
    assert_eq!((fetch.min_version, fetch.max_version), (4, 18));
    // Groups of KIP-848 are not offered, and clients that ask for them say so.
    let not_offered = encode(
        0,
        5,
        &kafka_protocol::messages::ConsumerGroupHeartbeatRequest::default(),
    );
    let violation = rig.broker.on_bytes(c, &not_offered, rig.now);
    assert!(matches!(
        violation,
        Err(Violation::NotOffered { api: 68, .. })
    ));
}

/// In `sluicegate dev`, an ordinary client may create a topic by asking for it, as with Kafka's
/// `auto.create.topics.enable`.
#[test]
fn a_client_that_allows_it_creates_a_topic_by_asking_for_it() {
    let mut rig = Rig::of(Settings {
        auto_create_partitions: Some(3),
        topics_max: 2,
        ..Settings::default()
    });
    let c = rig.connect(1);
    let mut partitions = |names: &[&str], allow: bool| -> Vec<(i16, usize)> {
        let asked = |one: &&str| MetadataRequestTopic::default().with_name(Some(name(one)));
        let request = MetadataRequest::default()
            .with_topics(Some(names.iter().map(asked).collect()))
            .with_allow_auto_topic_creation(allow);
        let topics = rig.ask(c, 9, &request).topics.into_iter();
        let row = |topic: metadata_response::MetadataResponseTopic| {
            (topic.error_code, topic.partitions.len())
        };
        topics.map(row).collect()
    };
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(partitions(&["a"], false), [(unknown, 0)]);
    assert_eq!(partitions(&["a", "b"], true), [(0, 3), (0, 3)]);
    assert_eq!(partitions(&["a"], false), [(0, 3)], "it stays");
    // Neither a bad name nor a full broker is answered with a topic.
    let invalid = ResponseError::InvalidTopicException.code();
    assert_eq!(
        partitions(&["a/b", "c"], true),
        [(invalid, 0), (unknown, 0)]
    );
}

//! The schemas of responses against the codec crate, and inputs that fuzzing found.

use bytes::Bytes;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::api_versions_response::{ApiVersion, SupportedFeatureKey};
use kafka_protocol::messages::describe_configs_response as configs;
use kafka_protocol::messages::fetch_response as fetch;
use kafka_protocol::messages::list_offsets_response as offsets;
use kafka_protocol::messages::metadata_response as metadata;
use kafka_protocol::messages::offset_for_leader_epoch_response as epochs;
use kafka_protocol::messages::produce_response as produce;
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use proptest::prelude::*;

use crate::kafka::{KafkaError, check_any_response, shape, wire};

/// Walks the response of `build` in each version. The walk must end at its last byte, and must fail
/// when that byte is missing.
fn whole<R: Request>(build: impl Fn(i16) -> R::Response) {
    for version in R::VERSIONS.min..=R::VERSIONS.max {
        let mut bytes = Vec::new();
        let encoded = build(version).encode(&mut bytes, version);
        encoded.unwrap_or_else(|error| panic!("{} {version}: {error}", R::KEY));
        let name = format!("{} {version}", R::KEY);
        let after = shape::after(R::KEY, version, &bytes);
        assert_eq!(after, Some(&[][..]), "{name}");
        let short = &bytes[..bytes.len() - 1];
        assert_eq!(shape::after(R::KEY, version, short), None, "{name}");
        assert!(
            wire::decode::<R>(in_frame::<R>(version, &bytes), version).is_ok(),
            "{name}"
        );
    }
}

/// A body after the rest of its response header: a flexible header has tags after the correlation
/// id.
fn in_frame<R: Request>(version: i16, body: &[u8]) -> Bytes {
    use kafka_protocol::protocol::HeaderVersion as _;
    let header: &[u8] = match R::Response::header_version(version) {
        0 => &[],
        _ => &[0],
    };
    Bytes::from([header, body].concat())
}

fn text() -> StrBytes {
    StrBytes::from_static_str("text")
}

#[test]
fn the_schemas_of_reading_are_those_of_the_codec_crate() {
    whole::<kp::FetchRequest>(|version| {
        let mut partition = fetch::PartitionData::default()
            .with_aborted_transactions(Some(vec![fetch::AbortedTransaction::default()]))
            .with_records(Some(Bytes::from_static(b"records")));
        if version >= 12 {
            partition.current_leader.leader_epoch = 3;
            partition.diverging_epoch.epoch = 3;
            partition.snapshot_id.epoch = 3;
        }
        let topic = fetch::FetchableTopicResponse::default().with_partitions(vec![partition]);
        let topic = match version {
            ..13 => topic.with_topic(kp::TopicName(text())),
            _ => topic.with_topic_id(uuid::Uuid::from_u128(7)),
        };
        let response = kp::FetchResponse::default().with_responses(vec![topic]);
        match version {
            ..16 => response,
            _ => {
                let node = fetch::NodeEndpoint::default().with_host(text());
                response.with_node_endpoints(vec![node])
            }
        }
    });
    whole::<kp::ListOffsetsRequest>(|_| {
        let partition = offsets::ListOffsetsPartitionResponse::default();
        let topic = offsets::ListOffsetsTopicResponse::default()
            .with_name(kp::TopicName(text()))
            .with_partitions(vec![partition]);
        kp::ListOffsetsResponse::default().with_topics(vec![topic])
    });
    whole::<kp::OffsetForLeaderEpochRequest>(|_| {
        let topic = epochs::OffsetForLeaderTopicResult::default()
            .with_topic(kp::TopicName(text()))
            .with_partitions(vec![epochs::EpochEndOffset::default()]);
        kp::OffsetForLeaderEpochResponse::default().with_topics(vec![topic])
    });
}

#[test]
fn the_schemas_of_writing_are_those_of_the_codec_crate() {
    whole::<kp::ProduceRequest>(|version| {
        let mut partition = produce::PartitionProduceResponse::default();
        if version >= 8 {
            let error = produce::BatchIndexAndErrorMessage::default()
                .with_batch_index_error_message(Some(text()));
            partition.record_errors = vec![error];
            partition.error_message = Some(text());
        }
        if version >= 10 {
            partition.current_leader.leader_epoch = 3;
        }
        let topic =
            produce::TopicProduceResponse::default().with_partition_responses(vec![partition]);
        let topic = match version {
            ..13 => topic.with_name(kp::TopicName(text())),
            _ => topic.with_topic_id(uuid::Uuid::from_u128(7)),
        };
        let response = kp::ProduceResponse::default().with_responses(vec![topic]);
        match version {
            ..10 => response,
            _ => {
                let node = produce::NodeEndpoint::default().with_host(text());
                response.with_node_endpoints(vec![node])
            }
        }
    });
    whole::<kp::InitProducerIdRequest>(|_| kp::InitProducerIdResponse::default());
}

#[test]
fn the_schemas_of_asking_are_those_of_the_codec_crate() {
    whole::<kp::MetadataRequest>(|version| {
        let mut partition = metadata::MetadataResponsePartition::default()
            .with_replica_nodes(vec![kp::BrokerId(1), kp::BrokerId(2)])
            .with_isr_nodes(vec![kp::BrokerId(1)]);
        if version >= 5 {
            partition.offline_replicas = vec![kp::BrokerId(2)];
        }
        let topic = metadata::MetadataResponseTopic::default()
            .with_name(Some(kp::TopicName(text())))
            .with_partitions(vec![partition]);
        let broker = metadata::MetadataResponseBroker::default().with_host(text());
        kp::MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic])
    });
    whole::<kp::ApiVersionsRequest>(|version| {
        let mut response =
            kp::ApiVersionsResponse::default().with_api_keys(vec![ApiVersion::default()]);
        if version >= 3 {
            let feature = SupportedFeatureKey::default().with_name(text());
            response.supported_features = vec![feature];
            response.finalized_features_epoch = 7;
            response.zk_migration_ready = true;
        }
        response
    });
    whole::<kp::DescribeConfigsRequest>(|_| {
        let synonym = configs::DescribeConfigsSynonym::default().with_name(text());
        let config = configs::DescribeConfigsResourceResult::default()
            .with_name(text())
            .with_value(Some(text()))
            .with_synonyms(vec![synonym]);
        let result = configs::DescribeConfigsResult::default()
            .with_resource_name(text())
            .with_configs(vec![config]);
        kp::DescribeConfigsResponse::default().with_results(vec![result])
    });
    whole::<kp::SaslHandshakeRequest>(|_| {
        kp::SaslHandshakeResponse::default().with_mechanisms(vec![text()])
    });
    whole::<kp::SaslAuthenticateRequest>(|_| {
        kp::SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from_static(b"proof"))
    });
}

/// Found by fuzzing: a length of 2^31 - 1 in a dozen bytes. The decoder would have requested
/// gigabytes, and the process would have ended.
#[test]
fn a_length_that_the_bytes_can_t_hold_is_refused_before_it_is_allocated() {
    let lying = |body: &[u8]| Bytes::copy_from_slice(body);
    let refused =
        KafkaError::Protocol("a response with more elements than its bytes hold, or than 262144");
    // Plain lengths: brokers of Metadata 4, topics of Fetch 4, keys of ApiVersions 0.
    let body = lying(&[0, 0, 0, 0, 127, 255, 255, 255]);
    let told = wire::decode::<kp::MetadataRequest>(body.clone(), 4);
    assert_eq!(told, Err(refused.clone()));
    let told = wire::decode::<kp::FetchRequest>(body, 4);
    assert_eq!(told, Err(refused.clone()));
    let told = wire::decode::<kp::ApiVersionsRequest>(lying(&[0, 0, 127, 255, 255, 255]), 0);
    assert_eq!(told, Err(refused.clone()));
    // Flexible lengths: topics of ListOffsets 8, and the supported features in a tag of ApiVersions
    // 3.
    let body = lying(&[0, 0, 0, 0, 0, 255, 255, 255, 255, 15]);
    let told = wire::decode::<kp::ListOffsetsRequest>(body, 8);
    assert_eq!(told, Err(refused.clone()));
    let body = lying(&[0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 255, 255, 255, 255, 15]);
    let told = wire::decode::<kp::ApiVersionsRequest>(body, 3);
    assert_eq!(told, Err(refused));
}

/// A million elements are rejected even if the response has as many bytes.
#[test]
fn more_elements_than_anybody_needs_are_refused() {
    let keys = |n: usize| {
        let mut body = vec![0, 0];
        body.extend_from_slice(&(n as u32).to_be_bytes());
        body.resize(body.len() + n * 6, 0);
        wire::decode::<kp::ApiVersionsRequest>(Bytes::from(body), 0)
    };
    assert!(keys(shape::ELEMENTS_MAX).is_ok());
    assert!(keys(shape::ELEMENTS_MAX + 1).is_err());
}

/// The reason for the cap: a decoded response takes at most twice the limit of its bytes.
#[test]
fn the_cap_bounds_memory() {
    let largest = [
        size_of::<fetch::FetchableTopicResponse>(),
        size_of::<fetch::PartitionData>(),
        size_of::<produce::TopicProduceResponse>(),
        size_of::<produce::PartitionProduceResponse>(),
        size_of::<metadata::MetadataResponseTopic>(),
        size_of::<metadata::MetadataResponsePartition>(),
        size_of::<configs::DescribeConfigsResult>(),
        size_of::<configs::DescribeConfigsResourceResult>(),
    ]
    .into_iter()
    .max();
    let most = shape::ELEMENTS_MAX * largest.expect("a list");
    let frame = crate::kafka::Settings::default().frame_bytes_max as usize;
    assert!(most <= 2 * frame, "{largest:?} bytes each");
}

proptest! {
    #[test]
    fn any_response_is_safe(
        head in (0..10_u8, any::<u8>()),
        body in proptest::collection::vec(prop_oneof![3 => 0..4_u8, 1 => any::<u8>()], 0..120),
    ) {
        check_any_response(&[&[head.0, head.1][..], &body].concat());
    }
}

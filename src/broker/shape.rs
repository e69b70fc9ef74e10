//! The schemas of the offered requests, by which their bytes are checked before they are decoded.

use kafka_protocol::messages::ApiKey;

use crate::shape::Field::{Bytes, Fixed, Numbers, Struct, Structs, Text, Texts};
use crate::shape::{Schema, Shape, all, between, shape, since};

/// Elements that one request may have over all its arrays: more than any client of a development
/// broker needs.
const ELEMENTS_MAX: usize = 20_000;

const PRODUCE: Shape = shape(&[all(Text), all(Fixed(2 + 4)), all(Structs(&PRODUCE_TOPIC))]);
const PRODUCE_TOPIC: Shape = shape(&[
    between(0, 12, Text),
    since(13, Fixed(16)),
    all(Structs(&PRODUCE_PARTITION)),
]);
const PRODUCE_PARTITION: Shape = shape(&[all(Fixed(4)), all(Bytes)]);

const FETCH: Shape = Shape {
    fields: &[
        between(0, 14, Fixed(4)),
        all(Fixed(4 + 4 + 4 + 1)),
        since(7, Fixed(4 + 4)),
        all(Structs(&FETCH_TOPIC)),
        since(7, Structs(&FORGOTTEN_TOPIC)),
        since(11, Text),
    ],
    tags: &[(0, Text), (1, Struct(&REPLICA_STATE))],
};
const REPLICA_STATE: Shape = shape(&[all(Fixed(4 + 8))]);
const FETCH_TOPIC: Shape = shape(&[
    between(0, 12, Text),
    since(13, Fixed(16)),
    all(Structs(&FETCH_PARTITION)),
]);
const FETCH_PARTITION: Shape = Shape {
    fields: &[
        all(Fixed(4)),
        since(9, Fixed(4)),
        all(Fixed(8)),
        since(12, Fixed(4)),
        since(5, Fixed(8)),
        all(Fixed(4)),
    ],
    tags: &[(0, Fixed(16)), (1, Fixed(8))],
};
const FORGOTTEN_TOPIC: Shape =
    shape(&[between(0, 12, Text), since(13, Fixed(16)), all(Numbers(4))]);

const LIST_OFFSETS: Shape = shape(&[
    all(Fixed(4)),
    since(2, Fixed(1)),
    all(Structs(&LIST_OFFSETS_TOPIC)),
    since(10, Fixed(4)),
]);
const LIST_OFFSETS_TOPIC: Shape = shape(&[all(Text), all(Structs(&LIST_OFFSETS_PARTITION))]);
const LIST_OFFSETS_PARTITION: Shape = shape(&[all(Fixed(4)), since(4, Fixed(4)), all(Fixed(8))]);

const METADATA: Shape = shape(&[
    all(Structs(&METADATA_TOPIC)),
    since(4, Fixed(1)),
    between(8, 10, Fixed(1)),
    since(8, Fixed(1)),
]);
const METADATA_TOPIC: Shape = shape(&[since(10, Fixed(16)), all(Text)]);

const FIND_COORDINATOR: Shape = shape(&[between(0, 3, Text), since(1, Fixed(1)), since(4, Texts)]);

const API_VERSIONS: Shape = shape(&[since(3, Text), since(3, Text)]);

const CREATE_TOPICS: Shape = shape(&[all(Structs(&CREATE_TOPIC)), all(Fixed(4 + 1))]);
const CREATE_TOPIC: Shape = shape(&[
    all(Text),
    all(Fixed(4 + 2)),
    all(Structs(&CREATE_ASSIGNMENT)),
    all(Structs(&NAME_VALUE)),
]);
const CREATE_ASSIGNMENT: Shape = shape(&[all(Fixed(4)), all(Numbers(4))]);
const NAME_VALUE: Shape = shape(&[all(Text), all(Text)]);

const DELETE_TOPICS: Shape = shape(&[
    since(6, Structs(&DELETE_TOPIC)),
    between(0, 5, Texts),
    all(Fixed(4)),
]);
const DELETE_TOPIC: Shape = shape(&[all(Text), all(Fixed(16))]);

const DELETE_RECORDS: Shape = shape(&[all(Structs(&DELETE_RECORDS_TOPIC)), all(Fixed(4))]);
const DELETE_RECORDS_TOPIC: Shape = shape(&[all(Text), all(Structs(&DELETE_RECORDS_PARTITION))]);
const DELETE_RECORDS_PARTITION: Shape = shape(&[all(Fixed(4 + 8))]);

const INIT_PRODUCER_ID: Shape = shape(&[all(Text), all(Fixed(4)), since(3, Fixed(8 + 2))]);

const OFFSETS_FOR_EPOCHS: Shape = shape(&[since(3, Fixed(4)), all(Structs(&EPOCHS_TOPIC))]);
const EPOCHS_TOPIC: Shape = shape(&[all(Text), all(Structs(&EPOCHS_PARTITION))]);
const EPOCHS_PARTITION: Shape = shape(&[all(Fixed(4 + 4 + 4))]);

const ADD_PARTITIONS: Shape = shape(&[
    since(4, Structs(&ADD_TRANSACTION)),
    between(0, 3, Text),
    between(0, 3, Fixed(8 + 2)),
    between(0, 3, Structs(&ADD_TOPIC)),
]);
const ADD_TRANSACTION: Shape = shape(&[all(Text), all(Fixed(8 + 2 + 1)), all(Structs(&ADD_TOPIC))]);
const ADD_TOPIC: Shape = shape(&[all(Text), all(Numbers(4))]);

const END_TXN: Shape = shape(&[all(Text), all(Fixed(8 + 2 + 1))]);

const JOIN_GROUP: Shape = shape(&[
    all(Text),
    all(Fixed(4)),
    since(1, Fixed(4)),
    all(Text),
    since(5, Text),
    all(Text),
    all(Structs(&GROUP_PROTOCOL)),
    since(8, Text),
]);
const GROUP_PROTOCOL: Shape = shape(&[all(Text), all(Bytes)]);

const SYNC_GROUP: Shape = shape(&[
    all(Text),
    all(Fixed(4)),
    all(Text),
    since(3, Text),
    since(5, Text),
    since(5, Text),
    all(Structs(&GROUP_PROTOCOL)),
]);

const HEARTBEAT: Shape = shape(&[all(Text), all(Fixed(4)), all(Text), since(3, Text)]);

const LEAVE_GROUP: Shape = shape(&[
    all(Text),
    between(0, 2, Text),
    since(3, Structs(&LEAVING_MEMBER)),
]);
const LEAVING_MEMBER: Shape = shape(&[all(Text), all(Text), since(5, Text)]);

const OFFSET_COMMIT: Shape = shape(&[
    all(Text),
    since(1, Fixed(4)),
    since(1, Text),
    since(7, Text),
    between(2, 4, Fixed(8)),
    all(Structs(&COMMIT_TOPIC)),
]);
const COMMIT_TOPIC: Shape = shape(&[all(Text), all(Structs(&COMMIT_PARTITION))]);
const COMMIT_PARTITION: Shape = shape(&[all(Fixed(4 + 8)), since(6, Fixed(4)), all(Text)]);

const OFFSET_FETCH: Shape = shape(&[
    between(0, 7, Text),
    between(0, 7, Structs(&OFFSET_TOPIC)),
    since(8, Structs(&OFFSET_GROUP)),
    since(7, Fixed(1)),
]);
const OFFSET_TOPIC: Shape = shape(&[all(Text), all(Numbers(4))]);
const OFFSET_GROUP: Shape = shape(&[
    all(Text),
    since(9, Text),
    since(9, Fixed(4)),
    all(Structs(&OFFSET_TOPIC)),
]);

const ADD_OFFSETS: Shape = shape(&[all(Text), all(Fixed(8 + 2)), all(Text)]);

const TXN_OFFSET_COMMIT: Shape = shape(&[
    all(Text),
    all(Text),
    all(Fixed(8 + 2)),
    since(3, Fixed(4)),
    since(3, Text),
    since(3, Text),
    all(Structs(&TXN_COMMIT_TOPIC)),
]);
const TXN_COMMIT_TOPIC: Shape = shape(&[all(Text), all(Structs(&TXN_COMMIT_PARTITION))]);
const TXN_COMMIT_PARTITION: Shape = shape(&[all(Fixed(4 + 8)), since(2, Fixed(4)), all(Text)]);

const DESCRIBE_GROUPS: Shape = shape(&[all(Texts), since(3, Fixed(1))]);
const LIST_GROUPS: Shape = shape(&[since(4, Texts), since(5, Texts)]);
const DELETE_GROUPS: Shape = shape(&[all(Texts)]);

const DESCRIBE_CONFIGS: Shape = shape(&[
    all(Structs(&DESCRIBE_RESOURCE)),
    all(Fixed(1)),
    since(3, Fixed(1)),
]);
const DESCRIBE_RESOURCE: Shape = shape(&[all(Fixed(1)), all(Text), all(Texts)]);

const ALTER_CONFIGS: Shape = shape(&[all(Structs(&ALTER_RESOURCE)), all(Fixed(1))]);
const ALTER_RESOURCE: Shape = shape(&[all(Fixed(1)), all(Text), all(Structs(&NAME_VALUE))]);

const INCREMENTAL_ALTER: Shape = shape(&[all(Structs(&INCREMENTAL_RESOURCE)), all(Fixed(1))]);
const INCREMENTAL_RESOURCE: Shape =
    shape(&[all(Fixed(1)), all(Text), all(Structs(&INCREMENTAL_CONFIG))]);
const INCREMENTAL_CONFIG: Shape = shape(&[all(Text), all(Fixed(1)), all(Text)]);

const CREATE_PARTITIONS: Shape = shape(&[all(Structs(&GROW_TOPIC)), all(Fixed(4 + 1))]);
const GROW_TOPIC: Shape = shape(&[all(Text), all(Fixed(4)), all(Structs(&GROW_ASSIGNMENT))]);
const GROW_ASSIGNMENT: Shape = shape(&[all(Numbers(4))]);

/// The schema of an offered API and the version its encoding became flexible in (KIP-482).
fn schema(api: ApiKey) -> Option<(&'static Shape, i16)> {
    Some(match api {
        ApiKey::Produce => (&PRODUCE, 9),
        ApiKey::Fetch => (&FETCH, 12),
        ApiKey::ListOffsets => (&LIST_OFFSETS, 6),
        ApiKey::Metadata => (&METADATA, 9),
        ApiKey::FindCoordinator => (&FIND_COORDINATOR, 3),
        ApiKey::ApiVersions => (&API_VERSIONS, 3),
        ApiKey::CreateTopics => (&CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (&DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (&DELETE_RECORDS, 2),
        ApiKey::InitProducerId => (&INIT_PRODUCER_ID, 2),
        ApiKey::OffsetForLeaderEpoch => (&OFFSETS_FOR_EPOCHS, 4),
        ApiKey::AddPartitionsToTxn => (&ADD_PARTITIONS, 3),
        ApiKey::EndTxn => (&END_TXN, 3),
        ApiKey::DescribeConfigs => (&DESCRIBE_CONFIGS, 4),
        ApiKey::AlterConfigs => (&ALTER_CONFIGS, 2),
        ApiKey::IncrementalAlterConfigs => (&INCREMENTAL_ALTER, 1),
        ApiKey::CreatePartitions => (&CREATE_PARTITIONS, 2),
        ApiKey::JoinGroup => (&JOIN_GROUP, 6),
        ApiKey::SyncGroup => (&SYNC_GROUP, 4),
        ApiKey::Heartbeat => (&HEARTBEAT, 4),
        ApiKey::LeaveGroup => (&LEAVE_GROUP, 4),
        ApiKey::OffsetCommit => (&OFFSET_COMMIT, 8),
        ApiKey::OffsetFetch => (&OFFSET_FETCH, 6),
        ApiKey::AddOffsetsToTxn => (&ADD_OFFSETS, 3),
        ApiKey::TxnOffsetCommit => (&TXN_OFFSET_COMMIT, 3),
        ApiKey::DescribeGroups => (&DESCRIBE_GROUPS, 5),
        ApiKey::ListGroups => (&LIST_GROUPS, 3),
        ApiKey::DeleteGroups => (&DELETE_GROUPS, 2),
        _ => return None,
    })
}

/// Whether a request's body may be decoded.
pub(super) fn is_decodable(api: ApiKey, version: i16, body: &[u8]) -> bool {
    let schema = schema(api).map(|(body, flexible_from)| Schema {
        body,
        flexible_from,
    });
    schema.is_some_and(|schema| schema.walk(version, body, ELEMENTS_MAX).is_some())
}

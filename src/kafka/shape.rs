//! The schemas of the responses that the client reads, to check them before they are decoded.
//! Brokers are trusted with data, but not with the gateway's memory.

use crate::shape::Field::{Bytes, Fixed, Numbers, Struct, Structs, Text, Texts};
use crate::shape::{NEVER, Schema, Shape, all, between, shape, since};

/// Elements one response may have, over all its arrays. The largest have some 300 bytes in memory,
/// so decoded elements take about as much memory as `Settings::frame_bytes_max` allows for the
/// bytes. A Fetch of 10,000 partitions, or their Metadata, has 26 times fewer elements.
pub(super) const ELEMENTS_MAX: usize = 1 << 18;

const PRODUCE: Shape = Shape {
    fields: &[all(Structs(&PRODUCE_TOPIC)), all(Fixed(4))],
    tags: &[(0, Structs(&NODE_ENDPOINT))],
};
const PRODUCE_TOPIC: Shape = shape(&[
    between(0, 12, Text),
    since(13, Fixed(16)),
    all(Structs(&PRODUCE_PARTITION)),
]);
const PRODUCE_PARTITION: Shape = Shape {
    fields: &[
        all(Fixed(4 + 2 + 8 + 8)),
        since(5, Fixed(8)),
        since(8, Structs(&RECORD_ERROR)),
        since(8, Text),
    ],
    tags: &[(0, Struct(&LEADER))],
};
const RECORD_ERROR: Shape = shape(&[all(Fixed(4)), all(Text)]);
const NODE_ENDPOINT: Shape = shape(&[all(Fixed(4)), all(Text), all(Fixed(4)), all(Text)]);
const LEADER: Shape = shape(&[all(Fixed(4 + 4))]);

const FETCH: Shape = Shape {
    fields: &[
        all(Fixed(4)),
        since(7, Fixed(2 + 4)),
        all(Structs(&FETCH_TOPIC)),
    ],
    tags: &[(0, Structs(&NODE_ENDPOINT))],
};
const FETCH_TOPIC: Shape = shape(&[
    between(0, 12, Text),
    since(13, Fixed(16)),
    all(Structs(&FETCH_PARTITION)),
]);
const FETCH_PARTITION: Shape = Shape {
    fields: &[
        all(Fixed(4 + 2 + 8 + 8)),
        since(5, Fixed(8)),
        all(Structs(&ABORTED)),
        since(11, Fixed(4)),
        all(Bytes),
    ],
    // Where the logs part, the leader, a snapshot's place.
    tags: &[
        (0, Struct(&EPOCH_AND_END)),
        (1, Struct(&LEADER)),
        (2, Struct(&EPOCH_AND_END)),
    ],
};
const ABORTED: Shape = shape(&[all(Fixed(8 + 8))]);
const EPOCH_AND_END: Shape = shape(&[all(Fixed(4 + 8))]);

const LIST_OFFSETS: Shape = shape(&[since(2, Fixed(4)), all(Structs(&LIST_OFFSETS_TOPIC))]);
const LIST_OFFSETS_TOPIC: Shape = shape(&[all(Text), all(Structs(&LIST_OFFSETS_PARTITION))]);
const LIST_OFFSETS_PARTITION: Shape =
    shape(&[all(Fixed(4 + 2)), all(Fixed(8 + 8)), since(4, Fixed(4))]);

const METADATA: Shape = shape(&[
    since(3, Fixed(4)),
    all(Structs(&METADATA_BROKER)),
    since(2, Text),
    since(1, Fixed(4)),
    all(Structs(&METADATA_TOPIC)),
    between(8, 10, Fixed(4)),
    since(13, Fixed(2)),
]);
const METADATA_BROKER: Shape = shape(&[all(Fixed(4)), all(Text), all(Fixed(4)), since(1, Text)]);
const METADATA_TOPIC: Shape = shape(&[
    all(Fixed(2)),
    all(Text),
    since(10, Fixed(16)),
    since(1, Fixed(1)),
    all(Structs(&METADATA_PARTITION)),
    since(8, Fixed(4)),
]);
const METADATA_PARTITION: Shape = shape(&[
    all(Fixed(2 + 4 + 4)),
    since(7, Fixed(4)),
    all(Numbers(4)),
    all(Numbers(4)),
    since(5, Numbers(4)),
]);

const SASL_HANDSHAKE: Shape = shape(&[all(Fixed(2)), all(Texts)]);
const SASL_AUTHENTICATE: Shape = shape(&[all(Fixed(2)), all(Text), all(Bytes), since(1, Fixed(8))]);

const API_VERSIONS: Shape = Shape {
    fields: &[
        all(Fixed(2)),
        all(Structs(&API_VERSION)),
        since(1, Fixed(4)),
    ],
    // Features: those supported, their epoch, those in force, and whether ZooKeeper may be left.
    tags: &[
        (0, Structs(&FEATURE)),
        (1, Fixed(8)),
        (2, Structs(&FEATURE)),
        (3, Fixed(1)),
    ],
};
const API_VERSION: Shape = shape(&[all(Fixed(2 + 2 + 2))]);
const FEATURE: Shape = shape(&[all(Text), all(Fixed(2 + 2))]);

const INIT_PRODUCER_ID: Shape = shape(&[all(Fixed(4 + 2)), all(Fixed(8 + 2)), since(6, Fixed(10))]);

const OFFSETS_FOR_EPOCHS: Shape = shape(&[since(2, Fixed(4)), all(Structs(&EPOCHS_TOPIC))]);
const EPOCHS_TOPIC: Shape = shape(&[all(Text), all(Structs(&EPOCHS_PARTITION))]);
const EPOCHS_PARTITION: Shape = shape(&[all(Fixed(2 + 4)), since(1, Fixed(4)), all(Fixed(8))]);

const DESCRIBE_CONFIGS: Shape = shape(&[all(Fixed(4)), all(Structs(&CONFIG_RESOURCE))]);
const CONFIG_RESOURCE: Shape = shape(&[
    all(Fixed(2)),
    all(Text),
    all(Fixed(1)),
    all(Text),
    all(Structs(&CONFIG)),
]);
const CONFIG: Shape = shape(&[
    all(Text),
    all(Text),
    all(Fixed(1 + 1 + 1)),
    since(1, Structs(&CONFIG_SYNONYM)),
    since(3, Fixed(1)),
    since(3, Text),
]);
const CONFIG_SYNONYM: Shape = shape(&[all(Text), all(Text), all(Fixed(1))]);

/// The schema of the responses of an API, by its key.
fn schema(key: i16) -> Option<Schema> {
    let (body, flexible_from) = match key {
        0 => (&PRODUCE, 9),
        1 => (&FETCH, 12),
        2 => (&LIST_OFFSETS, 6),
        3 => (&METADATA, 9),
        17 => (&SASL_HANDSHAKE, NEVER),
        18 => (&API_VERSIONS, 3),
        22 => (&INIT_PRODUCER_ID, 2),
        23 => (&OFFSETS_FOR_EPOCHS, 4),
        32 => (&DESCRIBE_CONFIGS, 4),
        36 => (&SASL_AUTHENTICATE, 2),
        _ => return None,
    };
    Some(Schema {
        body,
        flexible_from,
    })
}

/// The bytes after the body of a response in `bytes`. `None`: the body must not be decoded.
pub(super) fn after(key: i16, version: i16, bytes: &[u8]) -> Option<&[u8]> {
    schema(key)?.walk(version, bytes, ELEMENTS_MAX)
}

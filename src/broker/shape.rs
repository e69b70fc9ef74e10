//! A look at a request's arrays before it is decoded.
//!
//! `kafka-protocol` allocates an array as long as its length field says before it reads the first
//! element, so twelve bytes could ask for gigabytes. This walks the request by its schema and
//! refuses counts that the bytes can't hold or that no client of a development broker needs. It
//! judges nothing else: the decoder does.

use kafka_protocol::messages::ApiKey;

/// Array elements one request may have, over all its arrays.
const ELEMENTS_MAX: usize = 20_000;

/// A struct of a request: its fields in order, and the tagged fields the decoder knows (tag, length
/// it must have; `None`: refused, since it nests).
#[derive(Debug)]
struct Shape {
    fields: &'static [Entry],
    tags: &'static [(u32, Option<usize>)],
}

/// A field and the versions that have it.
#[derive(Debug)]
struct Entry {
    from: i16,
    to: i16,
    field: Field,
}

#[derive(Debug)]
enum Field {
    /// Of this many bytes.
    Fixed(usize),
    /// A string: i16 length, or an unsigned varint in flexible versions.
    Text,
    /// Bytes: i32 length, or an unsigned varint.
    Bytes,
    /// An array of structs.
    Structs(&'static Shape),
    /// An array of integers of this many bytes.
    Numbers(usize),
    /// An array of strings.
    Texts,
}

use Field::{Bytes, Fixed, Numbers, Structs, Text, Texts};

const fn all(field: Field) -> Entry {
    since(0, field)
}

const fn since(from: i16, field: Field) -> Entry {
    between(from, i16::MAX, field)
}

const fn between(from: i16, to: i16, field: Field) -> Entry {
    Entry { from, to, field }
}

const fn shape(fields: &'static [Entry]) -> Shape {
    Shape { fields, tags: &[] }
}

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
    // Cluster id and replica state: what followers send, and there are none.
    tags: &[(0, None), (1, None)],
};
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
    tags: &[(0, Some(16)), (1, Some(8))],
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
        _ => return None,
    })
}

/// Whether a request's body may be decoded.
pub(super) fn is_decodable(api: ApiKey, version: i16, body: &[u8]) -> bool {
    let Some((shape, flexible_from)) = schema(api) else {
        return false;
    };
    let mut walk = Walk {
        rest: body,
        version,
        flexible: version >= flexible_from,
        elements: ELEMENTS_MAX,
    };
    walk.structure(shape).is_some()
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, shape: &Shape) -> Option<()> {
        for entry in shape.fields {
            if (entry.from..=entry.to).contains(&self.version) {
                self.field(&entry.field)?;
            }
        }
        if self.flexible {
            self.tags(shape)
        } else {
            Some(())
        }
    }

    fn field(&mut self, field: &Field) -> Option<()> {
        match field {
            Fixed(len) => self.skip(*len),
            Text => self.text(),
            Bytes => {
                let len = self.length(4)?;
                self.skip(len)
            }
            Structs(shape) => {
                for _ in 0..self.count()? {
                    self.structure(shape)?;
                }
                Some(())
            }
            Numbers(size) => {
                let bytes = self.count()? * size;
                self.skip(bytes)
            }
            Texts => {
                for _ in 0..self.count()? {
                    self.text()?;
                }
                Some(())
            }
        }
    }

    fn text(&mut self) -> Option<()> {
        let len = self.length(2)?;
        self.skip(len)
    }

    /// An array's length: null counts as empty, and no element is shorter than a byte.
    fn count(&mut self) -> Option<usize> {
        let count = self.length(4)?;
        if count > self.rest.len() {
            return None;
        }
        self.elements = self.elements.checked_sub(count)?;
        Some(count)
    }

    /// A length of `size` bytes, or in flexible versions an unsigned varint that is one more. Null
    /// is 0 bytes.
    fn length(&mut self, size: usize) -> Option<usize> {
        if self.flexible {
            return Some((self.varint()? as usize).saturating_sub(1));
        }
        let (bytes, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        let negative = bytes[0] & 0x80 != 0;
        let length = bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b));
        Some(if negative { 0 } else { length })
    }

    fn tags(&mut self, shape: &Shape) -> Option<()> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let len = self.varint()? as usize;
            let known = shape.tags.iter().find(|(known, _)| *known == tag);
            if known.is_some_and(|(_, must)| *must != Some(len)) {
                return None;
            }
            self.skip(len)?;
        }
        Some(())
    }

    /// As the decoder reads it: at most five bytes, what exceeds 32 bits falls away.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for i in 0..5 {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f) << (i * 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(value)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }
}

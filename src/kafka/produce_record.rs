//! A record on its way to a broker.

use bytes::Bytes;

use crate::model::UnixMillis;

/// A record to append to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRecord {
    /// `None` is Kafka's null, which differs from empty.
    pub key: Option<Bytes>,
    /// `None` is a tombstone: compaction deletes the key.
    pub value: Option<Bytes>,
    /// Ordered, with repeated names kept. Names are UTF-8 by Kafka's rule.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The record's time. The topic's `message.timestamp.type` may replace it.
    pub timestamp: UnixMillis,
}

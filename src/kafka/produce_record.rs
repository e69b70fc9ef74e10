//! A record on its way to a broker.

use bytes::Bytes;

use crate::model::UnixMillis;

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRecord {
    /// `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order; repeats are kept. Names are UTF-8 by Kafka's rule.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The record's time; the topic's `message.timestamp.type` may replace it.
    pub timestamp: UnixMillis,
}

//! A command as a record: what the service gets to see of a request. Names the gateway sets can't
//! come from a client, in no spelling.

use crate::model::{CorrelationId, Identity};

/// The names of the record headers the gateway sets on a command (a preset of the config).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// `K.F`.
    pub correlation_id: Box<str>,
    /// The replies topic.
    pub reply_to: Box<str>,
    /// Issuer and subject; empty for anonymous.
    pub identity: Box<str>,
    /// The `If-Match` value.
    pub if_match: Box<str>,
    /// The client's idempotency key.
    pub idempotency_key: Box<str>,
    /// The request's method.
    pub method: Box<str>,
    /// The request's path and query.
    pub path: Box<str>,
}

/// A header of the request: name as received, value.
pub type ClientHeader<'a> = (&'a str, &'a [u8]);

/// What a command record is made of.
#[derive(Clone, Copy, Debug)]
pub struct CommandParts<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The request's path and query.
    pub path_and_query: &'a str,
    /// All headers of the request; those the route allows pass.
    pub headers: &'a [ClientHeader<'a>],
    /// Names that pass, in lower case.
    pub allowed: &'a [Box<str>],
    /// Headers the route sets, evaluated.
    pub route_headers: &'a [(&'a str, &'a [u8])],
    /// Who sent it.
    pub identity: &'a Identity,
    /// The `If-Match` value.
    pub if_match: Option<&'a [u8]>,
    /// The client's idempotency key.
    pub idempotency_key: Option<&'a [u8]>,
    /// Whose reply to wait for.
    pub correlation: CorrelationId,
    /// The replies topic.
    pub reply_to: &'a str,
    /// The trace context to hand on.
    pub traceparent: Option<&'a [u8]>,
    /// The record's key, evaluated; `None`: the route has none.
    pub key: Option<&'a [u8]>,
}

/// What a command's partition comes from. Duplicates of a command must meet in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionBy {
    /// murmur2 of the record's key, as Java's producer.
    RecordKey,
    /// murmur2 of K's 16 bytes: the record has no key.
    CommandKey,
}

/// Key and headers of the record to produce; its value is the request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRecord {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's headers in order: ours, the route's, the client's.
    pub headers: Vec<(Box<str>, Vec<u8>)>,
    /// Where it goes.
    pub partition_by: PartitionBy,
}

impl CommandRecord {
    /// Makes the record.
    #[must_use]
    pub fn new(names: &HeaderNames, parts: &CommandParts<'_>) -> Self {
        todo!()
    }
}

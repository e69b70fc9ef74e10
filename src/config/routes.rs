//! Routes as the config file declares them: which request becomes which record, and which topic
//! answers which path. Everything is parsed, so no later code parses these texts again.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::{ClusterIndex, ParamRule, PathPattern, RouteEdge, Template};
use crate::model::{EventName, TopicName};

/// The first segment of paths that the gateway serves itself. No route may begin with it.
pub const OWN_SEGMENT: &str = "_sluicegate";

/// A request that becomes a record. The correlated reply becomes the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRoute {
    /// Unique over all routes. It is part of the command key, so renaming a route forgets its
    /// commands.
    pub name: String,
    /// Line of the config file that declares the route, counted from 1. Messages show it.
    pub line: usize,
    /// The HTTP method that the route matches.
    pub method: CommandMethod,
    /// The pattern of the paths that the route matches.
    pub path: PathPattern,
    /// The cluster of the commands topic and the replies topic.
    pub cluster: ClusterIndex,
    /// The topic that commands are written to.
    pub topic: TopicName,
    /// The topic that replies are read from. `None`: the route is one-way, and a command is
    /// answered as soon as its record is appended.
    pub replies: Option<TopicName>,
    /// The record's key. `None`: the command key chooses the partition, so that duplicate records
    /// of a command share a partition.
    pub key: Option<Template>,
    /// Record headers to add, in order of name. No name is one of [`HeaderNames`].
    pub headers: Vec<(String, Template)>,
    /// Whether the client must send an `Idempotency-Key`.
    pub idempotency: Idempotency,
    /// How long a client waits for the reply before it gets 504. The command stays in flight after
    /// that.
    pub timeout: Duration,
    /// Request headers that are copied to the record, in lower case. Never credentials.
    pub forward: Vec<String>,
    /// The JSON Schema that bodies must match. `None`: any bytes are a body.
    pub schema: Option<SchemaFile>,
    /// Types of path and query parameters.
    pub params: Vec<ParamRule>,
    /// How the gateway finds out whether a command was sent before.
    pub dedupe: Dedupe,
    /// What happens to a request whose command is in flight.
    pub in_flight: InFlight,
    /// Whether the client must send `If-Match` or `If-None-Match`.
    pub condition: Condition,
    /// Whether the record's value is null. Only a `DELETE` may have it.
    pub tombstone: bool,
    /// The status of a command that was appended, if the route has no replies.
    pub one_way_status: OneWayStatus,
    /// What the route says about its clients.
    pub edge: RouteEdge,
}

/// HTTP methods that a command route may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandMethod {
    /// Command with method `POST`, such as "submit a payment".
    Post,
    /// Command with method `PUT`, such as "replace the address".
    Put,
    /// Command with method `PATCH`, such as "change the limit".
    Patch,
    /// Command with method `DELETE`, such as "close the account".
    Delete,
}

impl CommandMethod {
    /// Every method, in the order that `Allow` lists them.
    pub const ALL: [Self; 4] = [Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// The method's token in a request line (RFC 9110 9.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Whether a command needs an `Idempotency-Key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idempotency {
    /// The header may be absent. Then a retry is a new command.
    #[default]
    Optional,
    /// A request without the header is answered with 400.
    Required,
}

/// A file with a JSON Schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFile {
    /// The path as the file system knows it: the config's is relative to the config file.
    pub path: PathBuf,
    /// Byte range of the path in the config file, for findings.
    pub at: Range<usize>,
}

/// How the gateway finds out whether a command with an idempotency key was sent before, possibly to
/// another instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dedupe {
    /// By its reply: the gateway asks Kafka how far the replies topic reaches, and reads it to
    /// there.
    #[default]
    Replies,
    /// By its reply, or by its record in the commands topic if it is not answered yet.
    Strict,
    /// By the replies that the gateway has read. It does not ask Kafka first.
    Local,
}

/// What happens to a request whose command is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InFlight {
    /// It waits for the reply of the command.
    #[default]
    Join,
    /// It is answered with 409 at once.
    Conflict,
}

/// Whether a command needs a condition: `If-Match` or `If-None-Match`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Both headers may be absent.
    #[default]
    Optional,
    /// A request without a condition is answered with 428 (RFC 6585 3).
    Required,
}

/// The status of a command of a route without replies, once its record is appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OneWayStatus {
    /// 202: the service has not read the command yet.
    #[default]
    Accepted,
    /// 204: to append the record is all that the client asked for.
    NoContent,
}

/// A `GET` answered from the newest records of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRoute {
    /// Unique over all routes. The default is `GET` and the path.
    pub name: String,
    /// Line of the config file that declares the route, counted from 1. Messages show it.
    pub line: usize,
    /// The pattern of the paths that the route matches.
    pub path: PathPattern,
    /// The cluster that has the topic.
    pub cluster: ClusterIndex,
    /// The topic that is served: the newest record of each key.
    pub topic: TopicName,
    /// The key of the one record. `None`: the route returns the collection of all records.
    pub key: Option<Template>,
    /// How producers choose a key's partition. Set it only if all producers agree and the number of
    /// partitions has never changed. `None`: a key's records may be in any partition.
    pub partitioner: Option<Partitioner>,
    /// What the route says about its clients.
    pub edge: RouteEdge,
}

/// A way to choose the partition of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// The default of Kafka's Java clients: murmur2 of the key, modulo the number of partitions.
    Murmur2,
}

/// A `GET` answered by an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRoute {
    /// Unique over all routes. The default is `GET` and the path.
    pub name: String,
    /// Line of the config file that declares the route, counted from 1. Messages show it.
    pub line: usize,
    /// The pattern of the paths that the route matches.
    pub path: PathPattern,
    /// The cluster that has the topic.
    pub cluster: ClusterIndex,
    /// The topic that is streamed: each record becomes an event.
    pub topic: TopicName,
    /// Which records of the topic are sent.
    pub filter: Filter,
    /// Where the stream begins for a client without an event id.
    pub start: Start,
    /// What happens to a client that falls behind the window.
    pub slow: Slow,
    /// The `event:` field of data events. `None`: no field, so that browsers deliver the events to
    /// `onmessage`.
    pub event: Option<EventName>,
    /// What the route says about its clients.
    pub edge: RouteEdge,
}

/// Which records of a topic a stream sends. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The record's key must equal this template's value.
    pub key: Option<Template>,
}

/// Where a stream without an event id begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Start {
    /// With the next record that arrives.
    #[default]
    Live,
    /// With the oldest record that the topic still has.
    Earliest,
    /// With the newest record of each key, then live. Compacted topics only.
    Snapshot,
}

/// What happens to a client that falls behind the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Slow {
    /// The stream ends. The client resumes by its last event id.
    #[default]
    Disconnect,
    /// The stream skips to the newest record of each key. Compacted topics only.
    Conflate,
}

/// Names of the record headers that the gateway writes and reads. They are configurable so that a
/// service written for another gateway works unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// On commands and replies: matches a reply with its command.
    pub correlation_id: String,
    /// On commands: the name of the replies topic.
    pub reply_to: String,
    /// On commands: issuer and subject, if the client is known.
    pub identity: String,
    /// On commands: the `If-Match` condition of the request.
    pub if_match: String,
    /// On commands: the `If-None-Match` condition of the request.
    pub if_none_match: String,
    /// On commands: the client's `Idempotency-Key`.
    pub idempotency_key: String,
    /// On commands: the method of the request.
    pub method: String,
    /// On commands: path and query of the request.
    pub path: String,
    /// On replies: the HTTP status of the response.
    pub status: String,
    /// On replies: `true` means that nothing was applied, so a retry may be executed.
    pub retry: String,
    /// On events and replies: the entity's validator (its `ETag`).
    pub etag: String,
}

impl HeaderNames {
    /// Returns a preset by its name: `default`, `zilla` or `spring`.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let (correlation_id, reply_to, identity) = match name {
            "default" => ("correlation-id", "reply-to", "identity"),
            "zilla" => ("zilla:correlation-id", "zilla:reply-to", "zilla:identity"),
            "spring" => ("kafka_correlationId", "kafka_replyTopic", "identity"),
            _ => return None,
        };
        Some(Self {
            correlation_id: correlation_id.into(),
            reply_to: reply_to.into(),
            identity: identity.into(),
            if_match: "if-match".into(),
            if_none_match: "if-none-match".into(),
            idempotency_key: "idempotency-key".into(),
            method: ":method".into(),
            path: ":path".into(),
            status: ":status".into(),
            retry: "retry".into(),
            etag: "etag".into(),
        })
    }

    /// Every name, mutable, with its key in `[kafka.headers]`.
    pub(super) fn by_key(&mut self) -> [(&'static str, &mut String); 11] {
        [
            ("correlation_id", &mut self.correlation_id),
            ("reply_to", &mut self.reply_to),
            ("identity", &mut self.identity),
            ("if_match", &mut self.if_match),
            ("if_none_match", &mut self.if_none_match),
            ("idempotency_key", &mut self.idempotency_key),
            ("method", &mut self.method),
            ("path", &mut self.path),
            ("status", &mut self.status),
            ("retry", &mut self.retry),
            ("etag", &mut self.etag),
        ]
    }

    /// Names of the headers on commands, including `traceparent` (W3C Trace Context).
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let names = [
            &self.correlation_id,
            &self.reply_to,
            &self.identity,
            &self.if_match,
            &self.if_none_match,
            &self.idempotency_key,
            &self.method,
            &self.path,
        ];
        names.into_iter().map(String::as_str).chain(["traceparent"])
    }

    /// Names that [`preset`](Self::preset) accepts, the default first.
    pub const PRESETS: [&str; 3] = ["default", "zilla", "spring"];
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self::preset("default").expect("the first preset")
    }
}

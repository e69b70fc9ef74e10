//! Routes as the config file declares them: which request becomes which record, and which topic
//! answers which path. Everything is parsed: no text here needs a second look.

use std::time::Duration;

use super::{ClusterIndex, PathPattern, Template};
use crate::model::{EventName, TopicName};

/// A request that becomes a record, whose correlated reply becomes the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRoute {
    /// Unique over all routes; part of K, so a new name forgets the commands of the old one.
    pub name: String,
    /// Line of the config file that declares the route, from 1; for messages.
    pub line: usize,
    /// The method it answers.
    pub method: CommandMethod,
    /// The path it answers.
    pub path: PathPattern,
    /// The cluster of both topics.
    pub cluster: ClusterIndex,
    /// Where commands go.
    pub topic: TopicName,
    /// Where their replies come from.
    pub replies: TopicName,
    /// The record's key; `None` = the partition follows K, so that duplicates meet in one.
    pub key: Option<Template>,
    /// Record headers to add, in order of name. None collides with a name of [`HeaderNames`].
    pub headers: Vec<(String, Template)>,
    /// Whether the client must send an `Idempotency-Key`.
    pub idempotency: Idempotency,
    /// How long a client waits for the reply before it gets 504. The command outlives it.
    pub timeout: Duration,
    /// Request headers put on the record under their own names, lower case. Never credentials.
    pub forward: Vec<String>,
}

/// Methods of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandMethod {
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl CommandMethod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// The method as it stands in a request line.
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
    /// Without one, nothing ties a retry to its first attempt.
    #[default]
    Optional,
    /// Without one: 400.
    Required,
}

/// A `GET` answered from the newest records of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRoute {
    /// Unique over all routes; `GET` and the path unless the file says otherwise.
    pub name: String,
    /// Line of the config file that declares the route, from 1; for messages.
    pub line: usize,
    /// The path it answers.
    pub path: PathPattern,
    /// The topic's cluster.
    pub cluster: ClusterIndex,
    /// Whose newest records.
    pub topic: TopicName,
    /// Which record; `None` = the collection of all.
    pub key: Option<Template>,
    /// How producers choose a key's partition. Set it only if all producers agree and the topic has
    /// never had another number of partitions. `None`: a key's records may be in any partition.
    pub partitioner: Option<Partitioner>,
}

/// A way to choose the partition of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// The choice of Java's clients: murmur2 of the key, modulo the number of partitions.
    Murmur2,
}

/// A `GET` answered by an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRoute {
    /// Unique over all routes; `GET` and the path unless the file says otherwise.
    pub name: String,
    /// Line of the config file that declares the route, from 1; for messages.
    pub line: usize,
    /// The path it answers.
    pub path: PathPattern,
    /// The topic's cluster.
    pub cluster: ClusterIndex,
    /// Whose records.
    pub topic: TopicName,
    /// Which of them.
    pub filter: Filter,
    /// Where a client begins that brings no event id.
    pub start: Start,
    /// What becomes of a client that falls out of the window.
    pub slow: Slow,
    /// The `event:` of data events; `None` = none, which browsers hand to `onmessage`.
    pub event: Option<EventName>,
}

/// Which records of a topic a stream shows: all its conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The record's key equals this.
    pub key: Option<Template>,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Start {
    /// With the next record.
    #[default]
    Live,
    /// With the oldest record the topic has.
    Earliest,
    /// With the newest record of each key, then live. Compacted topics only.
    Snapshot,
}

/// What becomes of a slow client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Slow {
    /// Its stream ends; it resumes by id.
    #[default]
    Disconnect,
    /// It skips to the newest record of each key. Compacted topics only.
    Conflate,
}

/// Names of the record headers this product writes and reads, so that a service written for
/// another gateway works unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// On commands and replies: ties them together.
    pub correlation_id: String,
    /// On commands: the replies topic.
    pub reply_to: String,
    /// On commands: issuer and subject, if the client is known.
    pub identity: String,
    /// On commands: the `If-Match` condition of the request.
    pub if_match: String,
    /// On commands: the `If-None-Match` condition of the request.
    pub if_none_match: String,
    /// On commands: the client's `Idempotency-Key`.
    pub idempotency_key: String,
    /// On commands: the method.
    pub method: String,
    /// On commands: path and query.
    pub path: String,
    /// On replies: the HTTP status.
    pub status: String,
    /// On replies: `true` = nothing was applied, a retry may run.
    pub retry: String,
    /// On events and replies: the validator of the entity.
    pub etag: String,
}

impl HeaderNames {
    /// A preset by name: `default`, `zilla` or `spring`.
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

    /// Each name with its key in `[kafka.headers]`.
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

    /// The names that commands carry, `traceparent` (W3C Trace Context) among them.
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

    /// Names of the presets.
    pub const PRESETS: [&str; 3] = ["default", "zilla", "spring"];
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self::preset("default").expect("the first preset")
    }
}

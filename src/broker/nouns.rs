//! The nouns of the room's interface: nodes, connections, what was refused, what a checker reads.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use crate::model::{LeaderEpoch, Offset, UnixMillis};

/// A node of the cluster, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// One client's connection to one node. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// Why a connection must be closed: its bytes can't be answered. What was answered before may still
/// be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A request longer than [`super::Settings::frame_bytes_max`], or of negative length.
    #[error("a request announces {0} bytes")]
    FrameLength(i32),
    /// Bytes were pushed although [`super::Broker::wants_bytes`] said no, until the limit.
    #[error("more bytes were pushed than the broker asked for")]
    Flood,
    /// Bytes that are no request of the API and version they name.
    #[error("a request of API {api} version {version} can't be read")]
    Malformed {
        /// The API key.
        api: i16,
        /// The request's version.
        version: i16,
    },
    /// An API or a version that is not offered (Kafka closes the connection, too).
    #[error("API {api} version {version} is not offered")]
    NotOffered {
        /// The API key.
        api: i16,
        /// The request's version.
        version: i16,
    },
    /// The connection is unknown or was cut.
    #[error("the connection is gone")]
    Gone,
}

/// A call or request that the broker refuses, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error:?}: {message}")]
pub struct Refusal {
    /// Kafka's error.
    pub error: ResponseError,
    /// What is wrong, in a sentence.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }
}

/// A record as a `read_committed` reader that decodes everything would see it: the truth for
/// checkers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedRecord {
    /// Its position.
    pub offset: Offset,
    /// The epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// Its time: the producer's, or the broker's if the topic says LogAppendTime.
    pub timestamp: UnixMillis,
    /// The key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order, repeats kept, null values told from empty ones.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

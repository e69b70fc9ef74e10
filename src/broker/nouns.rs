//! The nouns of the room's interface: nodes, connections, errors, and the records of a dump.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use crate::model::{LeaderEpoch, Offset, UnixMillis};

/// A node's number in the cluster, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// A client's connection to a node. An id is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// Why a connection must be closed: its bytes can't be answered. Earlier responses may still be
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A request longer than [`super::Settings::frame_bytes_max`], or of negative length.
    #[error("a request announces {0} bytes")]
    FrameLength(i32),
    /// More bytes than the limit, though [`super::Broker::wants_bytes`] was false.
    #[error("more bytes were pushed than the broker asked for")]
    Flood,
    /// The bytes of a request don't have the form of its API and version.
    #[error("a request of API {api} version {version} can't be read")]
    Malformed {
        /// The API key in the request's header.
        api: i16,
        /// The API version in the request's header.
        version: i16,
    },
    /// An API or a version that is not offered. Kafka closes the connection, too.
    #[error("API {api} version {version} is not offered")]
    NotOffered {
        /// The API key in the request's header.
        api: i16,
        /// The API version in the request's header.
        version: i16,
    },
    /// The connection is unknown or was cut.
    #[error("the connection is gone")]
    Gone,
}

/// A call or a request that the broker rejects with an error of Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error:?}: {message}")]
pub struct Refusal {
    /// The error code that a response carries.
    pub error: ResponseError,
    /// The explanation that a response carries beside the code.
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

/// A record as a `read_committed` reader reads it, for tests that compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedRecord {
    /// The record's position in its partition.
    pub offset: Offset,
    /// The epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// The producer's time, or the time of the append if the topic says LogAppendTime.
    pub timestamp: UnixMillis,
    /// The key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order, repeated names included. A null value is `None`, an empty one is not.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

//! The errors of this room.

use kafka_protocol::error::ResponseError;

use super::records::RecordError;

/// A broker's error code. Its text is the name in the protocol guide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub i16);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match ResponseError::try_from_code(self.0) {
            None => f.write_str("no error"),
            Some(error) => write!(f, "{error} ({})", self.0),
        }
    }
}

/// Why something with a broker failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// The broker responded with an error.
    #[error("the broker answered {0}")]
    Broker(Code),
    /// The connection leads to another cluster than the first one.
    #[error("it belongs to cluster `{theirs}`, and not to `{ours}`")]
    OtherCluster {
        /// The id of the cluster that this client serves.
        ours: String,
        /// The id that the broker reports.
        theirs: String,
    },
    /// The connection could not be established.
    #[error("can't connect: {}", connect_error(*.0))]
    Connect(std::io::ErrorKind),
    /// The connection ended with requests in flight, or before the first response.
    #[error("the broker closed the connection")]
    Closed,
    /// The connection ended before any response. Kafka does so with bytes that are not of the
    /// protocol that its listener speaks.
    #[error("the broker closed the connection before it answered anything")]
    ClosedEarly,
    /// The connection ended after the response to ApiVersions, at the first request. Kafka does so
    /// with clients that skip SASL on a port that requires it.
    #[error("the broker closed the connection at the first question")]
    SaslWanted,
    /// The connection was not established in time.
    #[error("no connection came to stand in time")]
    ConnectTimeout,
    /// No response came in time.
    #[error("the broker did not answer in time")]
    Timeout,
    /// TLS failed, for the reason that the driver gives.
    #[error("TLS: {0}")]
    Tls(String),
    /// The broker responds in TLS to a plaintext request.
    #[error("the broker speaks TLS on this port")]
    TlsWanted,
    /// Authentication by SASL did not succeed.
    #[error("SASL: {0}")]
    Sasl(#[from] SaslError),
    /// The first bytes are no response of Kafka.
    #[error("what listens there does not speak Kafka's protocol")]
    NotKafka,
    /// The endpoint speaks Kafka's protocol without offering Metadata, as a controller does.
    #[error("it offers no usable version of Metadata")]
    NoMetadata,
    /// The response violates the protocol, or has a version that the client does not speak.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// A response longer than allowed.
    #[error("a response of {bytes} bytes, where {max} are allowed")]
    Frame {
        /// The length that the broker announced.
        bytes: i64,
        /// The limit in bytes, `Settings::frame_bytes_max`.
        max: u32,
    },
    /// The partition has no leader now, or the topic is missing.
    #[error("the partition has no leader")]
    NoLeader,
    /// Too many questions are open.
    #[error("too many questions are open")]
    Busy,
    /// Records that can't be decoded.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Describes the reason. `QuotaExceeded` here means that no descriptor is left: the standard
/// library has no kind for EMFILE.
fn connect_error(kind: std::io::ErrorKind) -> String {
    match kind {
        std::io::ErrorKind::QuotaExceeded => {
            "this process has no file descriptor left (EMFILE); raise its hard limit of open files"
                .into()
        }
        other => other.to_string(),
    }
}

/// Bytes of a broker's text that are kept.
const SHOWN_BYTES_MAX: usize = 300;

/// Makes a broker's text safe for a log line: short, and without control characters.
pub(super) fn sanitize(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut plain: String = plain.take(SHOWN_BYTES_MAX).collect();
    plain.truncate(plain.floor_char_boundary(SHOWN_BYTES_MAX));
    plain.trim().to_owned()
}

/// Why authentication by SASL did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The broker offers other mechanisms only.
    #[error("it does not offer {wanted}; it has {offered}")]
    Mechanism {
        /// The mechanism that the gateway is configured to use.
        wanted: &'static str,
        /// The mechanisms of the broker.
        offered: String,
    },
    /// The port does not use SASL.
    #[error("it asks for no SASL on this port")]
    NotAsked,
    /// The broker rejects the credentials.
    #[error("it refuses {mechanism}{}: {message}", of(user))]
    Refused {
        /// The mechanism of the rejected credentials.
        mechanism: &'static str,
        /// The user. Empty for tokens, which name their user themselves.
        user: String,
        /// The broker's explanation, sanitized for logs.
        message: String,
    },
    /// The broker rejects the credentials, by SCRAM's own error message.
    #[error("it refuses SCRAM: {0}")]
    Server(String),
    /// A message that violates SCRAM.
    #[error("its SCRAM message has {0}")]
    Scram(&'static str),
    /// An iteration count out of bounds.
    #[error("it asks for {iterations} iterations of SCRAM, where {min} to {max} are allowed")]
    Iterations {
        /// The count that the broker asks for.
        iterations: u32,
        /// The lowest count that keeps the password hard to guess.
        min: u32,
        /// The highest count that does not take too long.
        max: u32,
    },
    /// The broker did not prove that it knows the password.
    #[error("it does not know the password either: this is not the broker that keeps it")]
    Impostor,
    /// The broker continues after the mechanism's last message.
    #[error("it goes on asking after {0} is over")]
    Endless(&'static str),
}

fn of(user: &str) -> String {
    match user {
        "" => String::new(),
        user => format!(" for user `{user}`"),
    }
}

/// Why `produce` took no record. Nothing was sent, so a retry is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceRefused {
    /// `pending_produce_bytes_max` is reached: brokers are slower than clients.
    #[error("too many records wait for the brokers")]
    Full,
    /// The record alone exceeds `produce_bytes_max` or the topic's `max.message.bytes`.
    #[error("the record has {bytes} bytes, the topic takes {max}")]
    TooLarge {
        /// Its size as a batch of its own.
        bytes: usize,
        /// The limit in bytes: the topic's, or `Settings::produce_bytes_max` if that is smaller.
        max: usize,
    },
    /// The topic is missing or not looked up yet, or it has no such partition.
    #[error("no such topic or partition")]
    UnknownTopic,
    /// The partition's leader fails, or a response of it is overdue (`pace.rs`).
    #[error("the partition's leader does not answer")]
    Unreachable,
}

/// Why a record was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The broker responded with an error.
    #[error("the broker answered {0}")]
    Broker(Code),
    /// `delivery_timeout` has passed. Other events name the last cause.
    #[error("not acknowledged within the delivery timeout")]
    Timeout,
    /// The topic was deleted or re-created meanwhile.
    #[error("the topic is gone")]
    TopicGone,
    /// The partition has no leader that responds. The record was not sent.
    #[error("the partition has no leader that answers")]
    Unreachable,
}

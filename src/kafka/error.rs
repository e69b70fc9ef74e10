//! What can go wrong, in this room's words.

use kafka_protocol::error::ResponseError;

use super::records::RecordError;

/// A broker's error code. Shows as its name in the protocol guide.
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
    /// The broker said so.
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
    /// No connection came to stand.
    #[error("can't connect: {}", connect_error(*.0))]
    Connect(std::io::ErrorKind),
    /// The connection ended with requests open, or before the first answer.
    #[error("the broker closed the connection")]
    Closed,
    /// The connection ended before anything was answered: Kafka does so with bytes that are not of
    /// the protocol its listener speaks.
    #[error("the broker closed the connection before it answered anything")]
    ClosedEarly,
    /// Versions were answered, and the connection ended at the first question: Kafka does so with
    /// who does not say first who it is.
    #[error("the broker closed the connection at the first question")]
    SaslWanted,
    /// It did not come to stand in time.
    #[error("no connection came to stand in time")]
    ConnectTimeout,
    /// Nothing came in time.
    #[error("the broker did not answer in time")]
    Timeout,
    /// TLS failed, in the words of whoever speaks it.
    #[error("TLS: {0}")]
    Tls(String),
    /// It answers in TLS where we spoke without.
    #[error("the broker speaks TLS on this port")]
    TlsWanted,
    /// It and we do not trust each other.
    #[error("SASL: {0}")]
    Sasl(#[from] SaslError),
    /// The first bytes are no answer of any Kafka.
    #[error("what listens there does not speak Kafka's protocol")]
    NotKafka,
    /// It speaks the protocol and knows nothing of topics.
    #[error("it offers no usable version of Metadata")]
    NoMetadata,
    /// Not Kafka's protocol, or a version we do not speak.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// A response longer than allowed.
    #[error("a response of {bytes} bytes, where {max} are allowed")]
    Frame {
        /// What the broker announced.
        bytes: i64,
        /// `Settings::frame_bytes_max`.
        max: u32,
    },
    /// The partition has no leader now, or the topic is missing.
    #[error("the partition has no leader")]
    NoLeader,
    /// More is asked at once than is allowed.
    #[error("too many questions are open")]
    Busy,
    /// Records that can't be read.
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

/// Bytes of a broker's own words that are shown.
const SHOWN_BYTES_MAX: usize = 300;

/// A broker's words as they may stand in a log: short, and on one line.
pub(super) fn sanitize(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut plain: String = plain.take(SHOWN_BYTES_MAX).collect();
    plain.truncate(plain.floor_char_boundary(SHOWN_BYTES_MAX));
    plain.trim().to_owned()
}

/// Why a broker and we did not come to trust each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The broker knows other mechanisms.
    #[error("it does not offer {wanted}; it has {offered}")]
    Mechanism {
        /// Ours.
        wanted: &'static str,
        /// Its.
        offered: String,
    },
    /// The broker does not want to know.
    #[error("it asks for no SASL on this port")]
    NotAsked,
    /// The broker does not believe us.
    #[error("it refuses {mechanism}{}: {message}", of(user))]
    Refused {
        /// How we tried.
        mechanism: &'static str,
        /// As whom; empty for tokens, which say it themselves.
        user: String,
        /// In its words.
        message: String,
    },
    /// The same, by SCRAM's own means.
    #[error("it refuses SCRAM: {0}")]
    Server(String),
    /// A message that is none of SCRAM's.
    #[error("its SCRAM message has {0}")]
    Scram(&'static str),
    /// An iteration count that nobody should use.
    #[error("it asks for {iterations} iterations of SCRAM, where {min} to {max} are allowed")]
    Iterations {
        /// How many.
        iterations: u32,
        /// The fewest that are safe.
        min: u32,
        /// The most that are bearable.
        max: u32,
    },
    /// The broker could not show that it knows the password.
    #[error("it does not know the password either: this is not the broker that keeps it")]
    Impostor,
    /// More was asked than the mechanism has.
    #[error("it goes on asking after {0} is over")]
    Endless(&'static str),
}

fn of(user: &str) -> String {
    match user {
        "" => String::new(),
        user => format!(" for user `{user}`"),
    }
}

/// Why `produce` took no record. Nothing was sent: free to refuse, free to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceRefused {
    /// `pending_produce_bytes_max` is reached: brokers are slower than the clients.
    #[error("too many records wait for the brokers")]
    Full,
    /// The record alone exceeds `produce_bytes_max` or the topic's `max.message.bytes`.
    #[error("the record has {bytes} bytes, the topic takes {max}")]
    TooLarge {
        /// As a batch of its own.
        bytes: usize,
        /// The limit.
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
    /// The broker said so.
    #[error("the broker answered {0}")]
    Broker(Code),
    /// `delivery_timeout` passed; the last thing that went wrong is named by other events.
    #[error("not acknowledged within the delivery timeout")]
    Timeout,
    /// The topic was deleted, or made again, meanwhile.
    #[error("the topic is gone")]
    TopicGone,
    /// The partition has no leader that answers; the record was not sent.
    #[error("the partition has no leader that answers")]
    Unreachable,
}

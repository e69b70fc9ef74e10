//! What each error code of a broker means, in one table. The outcome of the batch that it answers,
//! what a client receives ([`crate::route::Refused::of_code`]), what `/readyz` lists and what the
//! log reports follow from the meaning.

use super::Code;

/// The meaning of a broker's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeMeaning {
    /// The request succeeded, now or in an earlier try.
    Success,
    /// The error ends by itself: a leader moves, replicas lag, a broker is busy.
    Passing {
        /// Whether a batch that is answered so may have been appended.
        doubtful: bool,
    },
    /// The broker has lost the partition's sequence. The batch is not in the log.
    SequenceLost,
    /// The broker received other bytes than were sent. The batch is not in the log.
    Corrupt,
    /// One record of the batch is rejected. The batch is not in the log.
    BadRecord(BadRecord),
    /// Every request of the kind for the topic is rejected, until an operator acts.
    Denied(Denial),
    /// The table does not have the code. A batch that is answered so may have been appended.
    Unknown,
}

/// What is wrong with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadRecord {
    /// The record is larger than the topic or the broker takes.
    TooLarge,
    /// The record's time is too far from the broker's clock.
    Timestamp,
    /// The broker finds the record invalid.
    Invalid,
}

/// Why brokers refuse every request of a kind for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The user lacks a right on the topic.
    TopicRight,
    /// The user lacks a right on the cluster.
    ClusterRight,
    /// A policy of the brokers.
    Policy,
    /// The brokers do not support what is sent.
    Unsupported,
    /// The brokers reject the topic's name as invalid.
    TopicName,
    /// The topic is compacted, and the records have no key. No error code means exactly this.
    NoKey,
}

/// What the gateway asks of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Read the topic's metadata: partitions and leaders.
    Describe,
    /// Read the topic's records by Fetch.
    Read,
    /// Append records to the topic by Produce.
    Write,
}

/// What a broker's answer to a Produce means for its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The batch is in the log.
    Appended,
    /// Retry with the same sequence. `doubtful`: the batch may be in the log already.
    Again { doubtful: bool },
    /// The batch is not in the log. `apart`: retry record by record, since one of them may be the
    /// cause.
    Refused { apart: bool },
    /// The batch is not in the log, and the broker has lost the partition's sequence: begin a new
    /// one.
    NewSequence,
    /// The batch may be in the log, and a retry would not resolve that.
    Unknown,
}

/// The table of all codes that the client can tell apart.
const fn meaning(code: i16) -> CodeMeaning {
    use CodeMeaning::{Corrupt, Denied, Passing, SequenceLost, Success, Unknown};
    match code {
        // DUPLICATE_SEQUENCE_NUMBER: an earlier try appended it, too long ago for the broker to
        // know the offset.
        0 | 46 => Success,
        // NOT_ENOUGH_REPLICAS is checked before the append. LEADER_NOT_AVAILABLE,
        // BROKER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH
        // and THROTTLING_QUOTA_EXCEEDED are returned instead of an append.
        5 | 8 | 9 | 19 | 74 | 75 | 89 => Passing { doubtful: false },
        // NOT_LEADER_OR_FOLLOWER and UNKNOWN_TOPIC_OR_PARTITION (UNKNOWN_TOPIC_ID,
        // INCONSISTENT_TOPIC_ID) may also come from a leader that appended and then lost its
        // leadership, or the partition, while it waited for replicas. REQUEST_TIMED_OUT and
        // NOT_ENOUGH_REPLICAS_AFTER_APPEND: appended, not replicated. KAFKA_STORAGE_ERROR,
        // NETWORK_EXCEPTION: either is possible.
        3 | 6 | 7 | 13 | 20 | 56 | 100 | 103 => Passing { doubtful: true },
        // OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID,
        // INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED: the broker's sequence differs from this
        // client's (records deleted, an unclean election).
        45 | 47 | 49 | 59 | 90 => SequenceLost,
        // CORRUPT_MESSAGE: the broker received other bytes than were sent.
        2 => Corrupt,
        // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE.
        10 | 18 => CodeMeaning::BadRecord(BadRecord::TooLarge),
        // INVALID_TIMESTAMP.
        32 => CodeMeaning::BadRecord(BadRecord::Timestamp),
        // INVALID_RECORD.
        87 => CodeMeaning::BadRecord(BadRecord::Invalid),
        // INVALID_TOPIC_EXCEPTION.
        17 => Denied(Denial::TopicName),
        // TOPIC_AUTHORIZATION_FAILED.
        29 => Denied(Denial::TopicRight),
        // CLUSTER_AUTHORIZATION_FAILED, TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
        31 | 53 => Denied(Denial::ClusterRight),
        // POLICY_VIOLATION.
        44 => Denied(Denial::Policy),
        // INVALID_REQUIRED_ACKS, UNSUPPORTED_VERSION, INVALID_REQUEST,
        // UNSUPPORTED_FOR_MESSAGE_FORMAT, UNSUPPORTED_COMPRESSION_TYPE.
        21 | 35 | 42 | 43 | 76 => Denied(Denial::Unsupported),
        _ => Unknown,
    }
}

/// What the response to a Produce means for its batch. `doubtful`: an earlier try may have appended
/// the batch. Then only success is certain, because a refusal is about the last try alone.
pub(super) const fn verdict(code: Code, doubtful: bool) -> Verdict {
    match code.meaning() {
        CodeMeaning::Success => Verdict::Appended,
        CodeMeaning::Passing { doubtful } => Verdict::Again { doubtful },
        CodeMeaning::Unknown => Verdict::Unknown,
        _ if doubtful => Verdict::Unknown,
        CodeMeaning::SequenceLost => Verdict::NewSequence,
        // One record may be the cause, so each is tried alone.
        CodeMeaning::Corrupt | CodeMeaning::BadRecord(_) => Verdict::Refused { apart: true },
        CodeMeaning::Denied(_) => Verdict::Refused { apart: false },
    }
}

impl Code {
    /// What the code means for the request that it answers.
    #[must_use]
    pub const fn meaning(self) -> CodeMeaning {
        meaning(self.0)
    }

    /// Why all requests of the kind for the topic fail, if the code says that they do.
    #[must_use]
    pub const fn denial(self) -> Option<Denial> {
        match self.meaning() {
            CodeMeaning::Denied(denial) => Some(denial),
            _ => None,
        }
    }
}

impl Doing {
    /// The refused operation, for the client and for the operator.
    #[must_use]
    pub const fn refused(self) -> &'static str {
        match self {
            Self::Describe => "the brokers do not describe the route's topic",
            Self::Read => "the brokers do not let the route's topic be read",
            Self::Write => "the brokers refuse what the route writes",
        }
    }
}

impl BadRecord {
    /// What is wrong, for the client and for the log.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::TooLarge => "the record is larger than its topic takes",
            Self::Timestamp => {
                "the record's time is further from the broker's clock than its topic takes"
            }
            Self::Invalid => "the broker finds the record invalid",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::TooLarge => {
                "raise the topic's max.message.bytes, or allow DescribeConfigs on it so that such \
                 commands are refused before they are sent"
            }
            Self::Timestamp => {
                "set the clocks of gateway and brokers, or the topic's message.timestamp.* configs"
            }
            Self::Invalid => "the broker's log may say which rule it breaks",
        }
    }
}

impl Denial {
    /// The cause, for the client and for the operator.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::TopicRight => "the gateway's user lacks a right on the topic",
            Self::ClusterRight => "the gateway's user lacks a right on the cluster",
            Self::Policy => "a policy of the brokers forbids it",
            Self::Unsupported => "the brokers do not support what the gateway sends",
            Self::TopicName => "the brokers take the topic's name for none",
            Self::NoKey => "its records have no key, and the topic is compacted",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn remedy(self, doing: Doing) -> &'static str {
        match (self, doing) {
            (Self::TopicRight, Doing::Describe) => {
                "allow the gateway's user DESCRIBE on it (READ and WRITE include that)"
            }
            (Self::TopicRight, Doing::Read) => "allow the gateway's user READ on it",
            (Self::TopicRight, Doing::Write) => "allow the gateway's user WRITE on it",
            (Self::ClusterRight, Doing::Write) => {
                "allow the gateway's user WRITE on it (before Kafka 2.8 also IDEMPOTENT_WRITE on \
                 the cluster)"
            }
            (Self::ClusterRight, _) => "allow it to the gateway's user",
            (Self::Policy, _) => "change the policy, or what it looks at",
            (Self::Unsupported, _) => "see docs/http.md for the brokers that are supported",
            (Self::TopicName, _) => "correct its name in the config",
            (Self::NoKey, _) => {
                "give the route a `key`, or set the topic's cleanup.policy to delete"
            }
        }
    }

    /// Whether the user lacks a right, on the topic or the cluster.
    #[must_use]
    pub const fn is_a_right(self) -> bool {
        matches!(self, Self::TopicRight | Self::ClusterRight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_doubtful_try_only_appended_is_certain() {
        for code in -1..140 {
            match verdict(Code(code), true) {
                Verdict::Refused { .. } | Verdict::NewSequence => panic!("{code} is not certain"),
                Verdict::Appended => assert!(code == 0 || code == 46),
                Verdict::Again { .. } | Verdict::Unknown => {}
            }
        }
    }

    /// After an unknown error the batch may have been appended.
    #[test]
    fn an_unknown_error_is_an_unknown_outcome() {
        for code in [-1, 55, 120, 999] {
            assert_eq!(verdict(Code(code), false), Verdict::Unknown);
            assert_eq!(Code(code).meaning(), CodeMeaning::Unknown);
        }
    }

    /// If one record may be the cause, each is tried alone, so that the others are appended.
    #[test]
    fn a_bad_record_is_tried_apart_from_its_neighbours() {
        for code in -1..140 {
            if let CodeMeaning::BadRecord(_) = Code(code).meaning() {
                assert_eq!(verdict(Code(code), false), Verdict::Refused { apart: true });
            }
            if Code(code).denial().is_some() {
                let together = Verdict::Refused { apart: false };
                assert_eq!(verdict(Code(code), false), together);
            }
        }
    }
}

//! What a broker's answer to a Produce means: whether the batch is in the log, and what to do.

use super::Code;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the log.
    Appended,
    /// Try again with the same sequence. `doubtful`: it may be in the log already.
    Again { doubtful: bool },
    /// It is not in the log. `apart`: one record may be to blame for the others.
    Refused { apart: bool },
    /// It is not in the log, and the broker has lost the partition's sequence: begin a new one.
    NewSequence,
    /// It may be in the log, and no retry would tell.
    Unknown,
}

/// `doubtful`: an earlier try may have appended the batch. Then nothing but "appended" is certain:
/// a refusal speaks of the last try only.
pub(super) const fn verdict(code: Code, doubtful: bool) -> Verdict {
    match code.0 {
        // DUPLICATE_SEQUENCE_NUMBER: appended by an earlier try, too long ago to know where.
        0 | 46 => Verdict::Appended,
        // NOT_ENOUGH_REPLICAS is checked before the append; LEADER_NOT_AVAILABLE,
        // BROKER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH
        // and THROTTLING_QUOTA_EXCEEDED come instead of one.
        5 | 8 | 9 | 19 | 74 | 75 | 89 => Verdict::Again { doubtful: false },
        // NOT_LEADER_OR_FOLLOWER and UNKNOWN_TOPIC_OR_PARTITION (UNKNOWN_TOPIC_ID,
        // INCONSISTENT_TOPIC_ID) are also the answer of a leader that appended and lost its
        // leadership, or the partition, while it waited for replicas. REQUEST_TIMED_OUT and
        // NOT_ENOUGH_REPLICAS_AFTER_APPEND: appended, not replicated. KAFKA_STORAGE_ERROR,
        // NETWORK_EXCEPTION: anything.
        3 | 6 | 7 | 13 | 20 | 56 | 100 | 103 => Verdict::Again { doubtful: true },
        // OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID,
        // INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED: the broker's idea of our sequence is
        // another (records deleted, an unclean election).
        45 | 47 | 49 | 59 | 90 if !doubtful => Verdict::NewSequence,
        _ if doubtful => Verdict::Unknown,
        // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD, INVALID_TIMESTAMP,
        // CORRUPT_MESSAGE (also: a null key on a compacted topic).
        2 | 10 | 18 | 32 | 87 => Verdict::Refused { apart: true },
        // INVALID_TOPIC_EXCEPTION, INVALID_REQUIRED_ACKS, TOPIC_AUTHORIZATION_FAILED,
        // CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_VERSION, INVALID_REQUEST,
        // UNSUPPORTED_FOR_MESSAGE_FORMAT, POLICY_VIOLATION, UNSUPPORTED_COMPRESSION_TYPE.
        17 | 21 | 29 | 31 | 35 | 42 | 43 | 44 | 76 => Verdict::Refused { apart: false },
        _ => Verdict::Unknown,
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

    /// An error we do not know may have come after the append.
    #[test]
    fn an_unknown_error_is_an_unknown_outcome() {
        for code in [-1, 55, 120, 999] {
            assert_eq!(verdict(Code(code), false), Verdict::Unknown);
        }
    }
}

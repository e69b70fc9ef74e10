//! Why a session of the service ends.

use super::kafka::KafkaError;

/// Why a session of the service failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The broker rejected a request, or did not respond.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The journal has a record that this service did not write.
    #[error("journal record {offset} can't be read: {source}")]
    Unreadable {
        /// Offset of the record that cannot be decoded.
        offset: i64,
        /// Why it cannot be decoded.
        source: serde_json::Error,
    },
    /// The journal has lost its beginning and has no checkpoint.
    #[error("the journal begins at offset {start} and holds no checkpoint: the accounts are lost")]
    Headless {
        /// The first offset that the journal still has.
        start: i64,
    },
    /// The tasks that read commands have ended.
    #[error("the commands can no longer be read")]
    NoIntake,
}

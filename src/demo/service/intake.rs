//! The commands, read from all partitions of their topic at once.

use rskafka::client::Client;
use rskafka::client::error::{Error, ProtocolError, RequestError};
use rskafka::record::RecordAndOffset;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::kafka::{KafkaError, Partition};
use super::{ServiceError, now_ms};
use crate::demo::payments::{Command, Ledger, Source};
use crate::demo::topics::COMMANDS;

/// Commands read and not yet carried out; then the partitions are read no further.
const AHEAD_MAX: usize = 1_024;
/// How long a fetch waits at the broker for news.
const WAIT_MS: i32 = 1_000;

/// Commands as they come. Its readers end with it.
pub(super) struct Intake {
    commands: mpsc::Receiver<Command>,
    readers: JoinSet<KafkaError>,
}

impl Intake {
    /// Reads each partition from where the ledger ends.
    pub(super) async fn open(client: &Client, ledger: &Ledger) -> Result<Self, KafkaError> {
        let (to, commands) = mpsc::channel(AHEAD_MAX);
        let mut readers = JoinSet::new();
        for partition in Partition::open_all(client, &COMMANDS).await? {
            let from = ledger.next_offset(partition.number());
            readers.spawn(read(partition, from, to.clone()));
        }
        Ok(Self { commands, readers })
    }

    /// The next commands, at least one and at most `max`.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Command>, ServiceError> {
        let mut commands = Vec::new();
        tokio::select! {
            // Readers only end when they fail.
            Some(ended) = self.readers.join_next() => Err(match ended {
                Ok(error) => error.into(),
                Err(_) => ServiceError::NoIntake,
            }),
            count = self.commands.recv_many(&mut commands, max) => match count {
                0 => Err(ServiceError::NoIntake),
                _ => Ok(commands),
            },
        }
    }
}

/// Reads one partition for ever, or until it can't be read.
async fn read(partition: Partition, from: i64, to: mpsc::Sender<Command>) -> KafkaError {
    let mut next = from;
    loop {
        let records = match partition.fetch(next, WAIT_MS).await {
            Ok(records) => records,
            Err(error) if is_unreadable(&error) => {
                // The client can't read some records at all (a header without a value, for one).
                // Everybody may write to this topic, so one such record must not end the demo.
                tracing::warn!(
                    partition = partition.number(),
                    offset = next,
                    "skipped a command: {error}"
                );
                next += 1;
                continue;
            }
            Err(error) if is_out_of_range(&error) => match partition.start().await {
                Ok(start) if start > next => {
                    tracing::warn!(
                        partition = partition.number(),
                        from = next,
                        to = start,
                        "commands were deleted before they were read"
                    );
                    next = start;
                    continue;
                }
                Ok(_) => return error,
                Err(error) => return error,
            },
            Err(error) => return error,
        };
        for record in records {
            next = record.offset + 1;
            match command(partition.number(), record) {
                Some(command) => match to.send(command).await {
                    Ok(()) => {}
                    // The session is over; so is this task.
                    Err(_) => std::future::pending().await,
                },
                None => tracing::warn!(
                    partition = partition.number(),
                    offset = next - 1,
                    "skipped a command without a correlation id"
                ),
            }
        }
    }
}

fn command(partition: i32, record: RecordAndOffset) -> Option<Command> {
    let RecordAndOffset { mut record, offset } = record;
    let correlation = Command::correlation_from(record.headers.get("correlation-id")?)?;
    Some(Command {
        source: Source {
            partition,
            offset,
            // Nothing is appended after it is read; so no producer's clock makes us forget early.
            appended_ms: record.timestamp.timestamp_millis().min(now_ms()),
        },
        correlation,
        operation: record.headers.remove("operation").unwrap_or_default(),
        account: record.key.unwrap_or_default(),
        if_match: record.headers.remove("if-match"),
        body: record.value.unwrap_or_default(),
    })
}

/// Whether the client could not make sense of what it fetched, as opposed to could not fetch.
fn is_unreadable(error: &KafkaError) -> bool {
    let KafkaError::Client { source, .. } = error else {
        return false;
    };
    match source {
        Error::Request(RequestError::ReadError(_) | RequestError::ReadVersionedError(_)) => true,
        // Its other invalid responses are about metadata.
        Error::InvalidResponse(why) => why.contains("imestamp"),
        _ => false,
    }
}

fn is_out_of_range(error: &KafkaError) -> bool {
    let KafkaError::Client { source, .. } = error else {
        return false;
    };
    matches!(
        source,
        Error::ServerError {
            protocol_error: ProtocolError::OffsetOutOfRange,
            ..
        }
    )
}

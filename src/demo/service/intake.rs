//! Reads commands from all partitions of their topic at once.

use std::sync::Arc;

use rskafka::client::Client;
use rskafka::client::error::{Error, ProtocolError, RequestError};
use rskafka::record::RecordAndOffset;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::kafka::{KafkaError, Partition};
use super::{ServiceError, WireLog, now_ms};
use crate::demo::payments::{Command, Ledger, Source};
use crate::demo::topics::COMMANDS;

/// Most commands that are read and not yet executed. At the limit, the partitions are not read
/// further.
const READ_AHEAD_MAX: usize = 1_024;
/// How long the broker may hold a fetch without new records.
const WAIT_MS: i32 = 1_000;

/// Commands in order of arrival. Dropping it ends the tasks that read them.
pub(super) struct Intake {
    commands: mpsc::Receiver<Command>,
    readers: JoinSet<KafkaError>,
}

impl Intake {
    /// Starts to read each partition at the ledger's next offset.
    pub(super) async fn open(
        client: &Client,
        ledger: &Ledger,
        wire: &Arc<WireLog>,
    ) -> Result<Self, KafkaError> {
        let (to, commands) = mpsc::channel(READ_AHEAD_MAX);
        let mut readers = JoinSet::new();
        for partition in Partition::open_all(client, &COMMANDS).await? {
            let from = ledger.next_offset(partition.number());
            readers.spawn(read(partition, from, to.clone(), Arc::clone(wire)));
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

/// Reads one partition until reading fails.
async fn read(
    partition: Partition,
    from: i64,
    to: mpsc::Sender<Command>,
    wire: Arc<WireLog>,
) -> KafkaError {
    let mut next = from;
    loop {
        let records = match partition.fetch(next, WAIT_MS).await {
            Ok(records) => records,
            Err(error) if is_unreadable(&error) => {
                // rskafka cannot decode some records, such as one with a header without a value.
                // Anyone may write to this topic, so such a record must not end the demo.
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
            wire.on_command(partition.number(), &record);
            match command(partition.number(), record) {
                Some(command) => match to.send(command).await {
                    Ok(()) => {}
                    // The session has ended and will abort this task.
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
            // A record is appended before it is read, so limit a producer's timestamp to now: a
            // wrong clock must not make the service forget commands early.
            appended_ms: record.timestamp.timestamp_millis().min(now_ms()),
        },
        correlation,
        operation: record.headers.remove("operation").unwrap_or_default(),
        account: record.key.unwrap_or_default(),
        if_match: record.headers.remove("if-match"),
        body: record.value.unwrap_or_default(),
    })
}

/// Whether the client could not decode what it fetched, in contrast to a failed fetch.
fn is_unreadable(error: &KafkaError) -> bool {
    let KafkaError::Client { source, .. } = error else {
        return false;
    };
    match source {
        Error::Request(RequestError::ReadError(_) | RequestError::ReadVersionedError(_)) => true,
        // The client's other invalid responses concern metadata.
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

//! The journal: one record per command, with everything that followed from it.
//!
//! Three rules make replaying it safe:
//!
//! - **The first entry of a command counts.** The client library may repeat a write, so an entry
//!   may be in the journal twice.
//! - **A new session ends the older ones.** It starts by writing its number. Records of an older
//!   session after that are skipped. So a write that was assumed lost cannot be appended after the
//!   state was rebuilt without it.
//! - **Each record has the offset up to which entries had been relayed** when it was written.
//!   Entries from there on may not have reached their topics and are relayed again: at most one
//!   batch.
//!
//! A checkpoint holds all accounts, so that the journal may lose its beginning when the broker's
//! memory is full. The replies remembered there are lost with it: after a restart of the service,
//! duplicates of those commands would be executed again.

use rskafka::client::Client;
use rskafka::record::{Record, RecordAndOffset};
use serde::{Deserialize, Serialize};

use super::ServiceError;
use super::kafka::{KafkaError, Partition, now};
use crate::demo::payments::{JournalEntry, Ledger, Page, Restore};
use crate::demo::topics::JOURNAL;

/// Entries between two checkpoints. Tests have few, so that some checkpoints are written.
const CHECKPOINT_ENTRIES: usize = if cfg!(test) { 50 } else { 4_096 };
/// How long a read waits for a record that was just written.
const WAIT_MS: i32 = 500;

/// One record of the journal, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Number of the session that wrote it, from 1.
    pub(super) session: u64,
    /// All lines before this offset were relayed.
    pub(super) relayed: i64,
    /// The content of the line.
    pub(super) what: LineContent,
}

/// The content of a line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LineContent {
    /// The start of a session.
    Opened,
    /// A command and what followed from it.
    Entry(JournalEntry),
    /// One page of a checkpoint.
    Page(Page),
}

/// The journal, opened by one session.
pub(super) struct Journal {
    partition: Partition,
    session: u64,
    /// Offset after the last line of this session.
    end: i64,
    relayed: i64,
    since_checkpoint: usize,
}

impl Journal {
    /// Opens a session, which ends older ones, and replays the journal. Returns the ledger, and the
    /// entries that may not have been relayed.
    pub(super) async fn open(
        client: &Client,
    ) -> Result<(Self, Ledger, Vec<JournalEntry>), ServiceError> {
        let partition = Partition::open(client, &JOURNAL, 0).await?;
        let start = partition.start().await?;
        let mut replay = Replay::new(start);
        replay
            .read_until(&partition, partition.end().await?)
            .await?;

        let session = replay.session + 1;
        let opened = line(session, replay.relayed, LineContent::Opened);
        let offsets = partition.append(vec![opened]).await?;
        let end = offsets.last().expect("one record was appended") + 1;
        replay.read_until(&partition, end).await?;

        let relayed = replay.relayed;
        let (ledger, pending) = replay.done(start)?;
        let journal = Self {
            partition,
            session,
            end,
            relayed,
            since_checkpoint: 0,
        };
        Ok((journal, ledger, pending))
    }

    /// Appends entries to the journal in order.
    pub(super) async fn append(&mut self, entries: &[JournalEntry]) -> Result<(), KafkaError> {
        let lines = entries
            .iter()
            .map(|entry| LineContent::Entry(entry.clone()));
        self.since_checkpoint += entries.len();
        self.write(lines).await
    }

    /// Everything appended so far was relayed. The next line will record this.
    pub(super) fn on_relayed(&mut self) {
        self.relayed = self.end;
    }

    /// Writes a checkpoint if one is due. The caller has relayed all entries before.
    pub(super) async fn checkpoint_if_due(&mut self, ledger: &Ledger) -> Result<(), KafkaError> {
        if self.since_checkpoint < CHECKPOINT_ENTRIES {
            return Ok(());
        }
        self.since_checkpoint = 0;
        self.write(ledger.checkpoint().into_iter().map(LineContent::Page))
            .await?;
        self.relayed = self.end;
        Ok(())
    }

    async fn write(&mut self, lines: impl Iterator<Item = LineContent>) -> Result<(), KafkaError> {
        let records = lines
            .map(|what| line(self.session, self.relayed, what))
            .collect();
        if let Some(last) = self.partition.append(records).await?.last() {
            self.end = last + 1;
        }
        Ok(())
    }
}

fn line(session: u64, relayed: i64, what: LineContent) -> Record {
    let line = Line {
        session,
        relayed,
        what,
    };
    Record {
        key: None,
        value: Some(serde_json::to_vec(&line).expect("no key or number JSON can't hold")),
        headers: Default::default(),
        timestamp: now(),
    }
}

/// A replay of the journal into a ledger.
pub(super) struct Replay {
    next: i64,
    session: u64,
    relayed: i64,
    ledger: Restore,
    /// Entries at or after `relayed`.
    pending: Vec<(i64, JournalEntry)>,
}

impl Replay {
    /// Starts at the journal's first offset. If that is 0, no entry is lost and no checkpoint is
    /// needed.
    pub(super) fn new(start: i64) -> Self {
        Self {
            next: start,
            session: 0,
            relayed: start,
            ledger: Restore::new(start == 0),
            pending: Vec::new(),
        }
    }

    async fn read_until(&mut self, partition: &Partition, end: i64) -> Result<(), ServiceError> {
        while self.next < end {
            for record in partition.fetch(self.next, WAIT_MS).await? {
                self.take(&record)?;
            }
        }
        Ok(())
    }

    /// Applies one record of the journal.
    pub(super) fn take(&mut self, record: &RecordAndOffset) -> Result<(), ServiceError> {
        let RecordAndOffset { record, offset } = record;
        self.next = offset + 1;
        let value = record.value.as_deref().unwrap_or_default();
        let line: Line =
            serde_json::from_slice(value).map_err(|source| ServiceError::Unreadable {
                offset: *offset,
                source,
            })?;
        if line.session < self.session {
            return Ok(());
        }
        self.session = line.session;
        if line.relayed > self.relayed {
            self.relayed = line.relayed;
            self.pending.retain(|(offset, _)| *offset >= line.relayed);
            // They were relayed before this line was written, so its timestamp is an upper bound.
            self.ledger.on_relayed(record.timestamp.timestamp_millis());
        }
        match line.what {
            LineContent::Opened => {}
            LineContent::Page(page) => self.ledger.page(page),
            LineContent::Entry(entry) => {
                if self.ledger.absorb(&entry) {
                    self.pending.push((*offset, entry));
                }
            }
        }
        Ok(())
    }

    /// Ends the replay. Returns the ledger, and the entries that may not have been relayed.
    pub(super) fn done(self, start: i64) -> Result<(Ledger, Vec<JournalEntry>), ServiceError> {
        let ledger = self.ledger.done().ok_or(ServiceError::Headless { start })?;
        let pending = self.pending.into_iter().map(|(_, entry)| entry).collect();
        Ok((ledger, pending))
    }
}

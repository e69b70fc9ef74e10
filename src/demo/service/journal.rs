//! The journal: one record per command, with all that followed from it.
//!
//! Three rules make it safe to read back:
//!
//! - **The first entry of a command counts.** A write may be repeated by the client library, so an
//!   entry may stand there twice.
//! - **A new session ends the older ones.** It opens by writing its number, and what an older
//!   session's write brings in after that is passed over. So no write that was thought lost can
//!   come in behind the back of the state that was rebuilt without it.
//! - **Each record says how far the relay had come** when it was written. What lies at or after
//!   that may not have reached its topics, and is relayed again: one batch at most.
//!
//! A checkpoint, now and then, holds the accounts as they are, so that the journal may lose its
//! beginning when the broker's memory is full. What a lost beginning takes with it is the memory
//! of commands answered there: after a restart of the service their duplicates would be new.

use rskafka::client::Client;
use rskafka::record::{Record, RecordAndOffset};
use serde::{Deserialize, Serialize};

use super::ServiceError;
use super::kafka::{KafkaError, Partition, now};
use crate::demo::payments::{Entry, Ledger, Page, Restore};
use crate::demo::topics::JOURNAL;

/// Entries between two checkpoints; in tests few, so that some are written.
const CHECKPOINT_ENTRIES: usize = if cfg!(test) { 50 } else { 4_096 };
/// How long a read waits for what was just written.
const WAIT_MS: i32 = 500;

/// One record of the journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Which session wrote it: 1, 2, 3, …
    pub(super) session: u64,
    /// All lines before this offset had been relayed.
    pub(super) relayed: i64,
    /// What it says.
    pub(super) what: What,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// A session begins.
    Opened,
    /// A command, and what followed.
    Entry(Entry),
    /// A page of a checkpoint.
    Page(Page),
}

/// The journal, open for this session.
pub(super) struct Journal {
    partition: Partition,
    session: u64,
    /// The offset after the last line this session wrote.
    end: i64,
    relayed: i64,
    since_checkpoint: usize,
}

impl Journal {
    /// Opens a session: ends older ones, reads all there is. Besides the state, gives the entries
    /// that may not have been relayed.
    pub(super) async fn open(client: &Client) -> Result<(Self, Ledger, Vec<Entry>), ServiceError> {
        let partition = Partition::open(client, &JOURNAL, 0).await?;
        let start = partition.start().await?;
        let mut reading = Reading::new(start);
        reading.upto(&partition, partition.end().await?).await?;

        let session = reading.session + 1;
        let opened = line(session, reading.relayed, What::Opened);
        let end = partition.append(vec![opened]).await?;
        let end = end.expect("one record was appended");
        reading.upto(&partition, end).await?;

        let relayed = reading.relayed;
        let (ledger, pending) = reading.done(start)?;
        let journal = Self {
            partition,
            session,
            end,
            relayed,
            since_checkpoint: 0,
        };
        Ok((journal, ledger, pending))
    }

    /// Appends entries in order.
    pub(super) async fn append(&mut self, entries: &[Entry]) -> Result<(), KafkaError> {
        let lines = entries.iter().map(|entry| What::Entry(entry.clone()));
        self.since_checkpoint += entries.len();
        self.write(lines).await
    }

    /// Everything appended so far has reached its topics. The next line will say so.
    pub(super) fn on_relayed(&mut self) {
        self.relayed = self.end;
    }

    /// Writes a checkpoint, if the last one is long ago. All must have been relayed.
    pub(super) async fn checkpoint_if_due(&mut self, ledger: &Ledger) -> Result<(), KafkaError> {
        if self.since_checkpoint < CHECKPOINT_ENTRIES {
            return Ok(());
        }
        self.since_checkpoint = 0;
        self.write(ledger.checkpoint().into_iter().map(What::Page))
            .await?;
        self.relayed = self.end;
        Ok(())
    }

    async fn write(&mut self, lines: impl Iterator<Item = What>) -> Result<(), KafkaError> {
        let records = lines
            .map(|what| line(self.session, self.relayed, what))
            .collect();
        if let Some(end) = self.partition.append(records).await? {
            self.end = end;
        }
        Ok(())
    }
}

fn line(session: u64, relayed: i64, what: What) -> Record {
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

/// The journal on its way back into a ledger.
pub(super) struct Reading {
    next: i64,
    session: u64,
    relayed: i64,
    ledger: Restore,
    /// Entries at or after `relayed`.
    pending: Vec<(i64, Entry)>,
}

impl Reading {
    /// Begins at the journal's first offset. Where that is 0 nothing is lost yet, and no
    /// checkpoint is needed.
    pub(super) fn new(start: i64) -> Self {
        Self {
            next: start,
            session: 0,
            relayed: start,
            ledger: Restore::new(start == 0),
            pending: Vec::new(),
        }
    }

    async fn upto(&mut self, partition: &Partition, end: i64) -> Result<(), ServiceError> {
        while self.next < end {
            for record in partition.fetch(self.next, WAIT_MS).await? {
                self.take(&record)?;
            }
        }
        Ok(())
    }

    /// Takes one record.
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
            // They were relayed before this line was written: a bound, not the moment itself.
            self.ledger.on_relayed(record.timestamp.timestamp_millis());
        }
        match line.what {
            What::Opened => {}
            What::Page(page) => self.ledger.page(page),
            What::Entry(entry) => {
                if self.ledger.absorb(&entry) {
                    self.pending.push((*offset, entry));
                }
            }
        }
        Ok(())
    }

    /// All was read: the state, and what may not have been relayed.
    pub(super) fn done(self, start: i64) -> Result<(Ledger, Vec<Entry>), ServiceError> {
        let ledger = self.ledger.done().ok_or(ServiceError::Headless { start })?;
        let pending = self.pending.into_iter().map(|(_, entry)| entry).collect();
        Ok((ledger, pending))
    }
}

//! The payments service at work: reads commands, keeps a journal, relays replies and events.
//!
//! One loop, one batch at a time: decide what follows from the commands read, append that to the
//! journal, relay from it (events first, then replies, so that a client that has its reply finds
//! its change with a fresh query), then take the next batch. The journal is the only truth: when
//! anything fails, the session is dropped with all it knew, and the next one rebuilds from there.
//!
//! What was journalled last may be relayed twice by that. A reply that comes twice is the same
//! reply under the same correlation id; a balance that comes twice is the newest of its account
//! both times, since a batch relays only that; a payment event that comes twice has the number it
//! had, so its reader sees that it is the same one.

mod intake;
mod journal;
mod kafka;
mod relay;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use self::intake::Intake;
use self::journal::Journal;
pub(crate) use self::kafka::{KafkaError, Partition, connect, now};
use self::relay::Relay;
use super::payments::{Decision, Entry, Ledger, Reply};

/// Commands carried out between two journal writes. Also how much may be relayed twice.
const BATCH_COMMANDS_MAX: usize = 128;
/// How long a failed session rests before the next, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a session of the service ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The broker refused, or did not answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The journal says something no version of this service wrote.
    #[error("journal record {offset} can't be read: {source}")]
    Unreadable {
        /// Its offset.
        offset: i64,
        /// Why.
        source: serde_json::Error,
    },
    /// The journal's beginning is gone, and so is every checkpoint.
    #[error("the journal begins at offset {start} and holds no checkpoint: the accounts are lost")]
    Headless {
        /// Where it begins.
        start: i64,
    },
    /// A partition of the commands topic ended.
    #[error("the commands can no longer be read")]
    NoIntake,
}

/// Runs the service against the cluster at `bootstrap` until it is dropped. `is_ready` turns true
/// once the accounts are there and commands are read.
pub(crate) async fn serve(bootstrap: String, is_ready: watch::Sender<bool>) {
    let mut rest = REST.0;
    loop {
        let since = tokio::time::Instant::now();
        let error = match session(&bootstrap, &is_ready).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if since.elapsed() > REST.1 {
            rest = REST.0;
        }
        tracing::warn!("payments service: {error}; starting again from the journal");
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(REST.1);
    }
}

async fn session(
    bootstrap: &str,
    is_ready: &watch::Sender<bool>,
) -> Result<std::convert::Infallible, ServiceError> {
    let client = connect(bootstrap).await?;
    let (mut journal, mut ledger, pending) = Journal::open(&client).await?;
    let relay = Relay::open(&client).await?;
    if !pending.is_empty() {
        relay.send(&pending, &[]).await?;
        ledger.on_relayed(now_ms());
    }
    if ledger.is_empty() {
        let opening = Ledger::opening(now_ms());
        for entry in &opening {
            ledger.absorb(entry);
        }
        journal.append(&opening).await?;
        relay.send(&opening, &[]).await?;
        ledger.on_relayed(now_ms());
    }
    journal.on_relayed();
    let mut intake = Intake::open(&client, &ledger).await?;
    is_ready.send_replace(true);
    loop {
        let commands = intake.next(BATCH_COMMANDS_MAX).await?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut repeated: Vec<Reply> = Vec::new();
        for command in &commands {
            match ledger.decide(command) {
                Decision::Known(reply) => repeated.push(reply),
                Decision::Fresh(entry) => {
                    ledger.absorb(&entry);
                    entries.push(*entry);
                }
            }
        }
        journal.append(&entries).await?;
        relay.send(&entries, &repeated).await?;
        ledger.on_relayed(now_ms());
        journal.on_relayed();
        journal.checkpoint_if_due(&ledger).await?;
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

//! The payments service: reads commands, writes a journal, relays replies and events.
//!
//! One loop handles one batch at a time. It decides what follows from the commands, appends that to
//! the journal, and relays the entries: events first, then replies, so that a client that has its
//! reply finds its change with a new query. The journal is the only source of truth. When an
//! operation fails, the session is dropped with all its state, and the next session rebuilds it
//! from the journal.
//!
//! After a failure the last batch may be relayed twice. A repeated reply has the same content and
//! correlation id. A repeated balance is the newest of its account both times, because a batch
//! relays only that. A repeated payment event has the same number, so its reader recognises it.

mod clock;
mod error;
mod intake;
mod journal;
mod kafka;
mod relay;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub(crate) use self::clock::{now_ms, now_us};
pub(crate) use self::error::ServiceError;
use self::intake::Intake;
use self::journal::Journal;
pub(crate) use self::kafka::{KafkaError, Partition, connect, now};
use self::relay::Relay;
pub(crate) use self::wire::WireLog;
use super::payments::{Decision, JournalEntry, Ledger, Reply};

/// Most commands between two journal writes, and so most that are relayed twice.
const BATCH_COMMANDS_MAX: usize = 128;
/// First and longest wait after a failed session.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Runs the service on the cluster at `bootstrap` until the future is dropped. `is_ready` becomes
/// true once the accounts exist and commands are read. `wire` receives the path of each command.
pub(crate) async fn serve(bootstrap: String, is_ready: watch::Sender<bool>, wire: Arc<WireLog>) {
    let mut wait = RETRY_WAIT.0;
    loop {
        let since = tokio::time::Instant::now();
        let error = match session(&bootstrap, &is_ready, &wire).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if since.elapsed() > RETRY_WAIT.1 {
            wait = RETRY_WAIT.0;
        }
        tracing::warn!("payments service: {error}; starting again from the journal");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_WAIT.1);
    }
}

async fn session(
    bootstrap: &str,
    is_ready: &watch::Sender<bool>,
    wire: &Arc<WireLog>,
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
    let mut intake = Intake::open(&client, &ledger, wire).await?;
    is_ready.send_replace(true);
    loop {
        let commands = intake.next(BATCH_COMMANDS_MAX).await?;
        let mut entries: Vec<JournalEntry> = Vec::new();
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
        wire.on_journalled(&entries);
        let relayed = relay.send(&entries, &repeated).await?;
        wire.on_relayed(&entries, &repeated, &relayed);
        ledger.on_relayed(now_ms());
        journal.on_relayed();
        journal.checkpoint_if_due(&ledger).await?;
    }
}

//! The printed summary of a run: its numbers of commands and anomalies.

use std::collections::BTreeSet;

use super::book::Kind::{Crossed, Doubled, Lost, Phantom, Reordered};
use super::book::{Anomaly, Attempt, Outcome};

/// Summarises requests and their results.
pub fn account(story: &str, attempts: &[Attempt], in_log: usize, twins: usize) -> String {
    let keys: BTreeSet<_> = attempts.iter().map(|it| &it.key).collect();
    let peers = attempts.iter().map(|it| it.peer + 1).max();
    let (mut done, mut refused, mut unknown) = (vec![0; peers.unwrap_or_default()], 0, 0);
    for attempt in attempts {
        match attempt.outcome {
            Outcome::Done(_) => done[attempt.peer] += 1,
            Outcome::Refused(_) => refused += 1,
            Outcome::Unknown(_) => unknown += 1,
        }
    }
    format!(
        "ledger: {story}\n  {} commands in {} tries: {done:?} answered by each gateway, \
         {refused} refused, {unknown} unknown; {in_log} in the log, {twins} of them twins by a retry at another gateway\n",
        keys.len(),
        attempts.len()
    )
}

/// Counts the anomalies of each kind.
pub fn totals(anomalies: &[Anomaly]) -> String {
    let count = |kind| anomalies.iter().filter(|it| it.kind == kind).count();
    format!(
        "  lost {}, doubled {}, reordered {}, phantom {}, crossed {}",
        count(Lost),
        count(Doubled),
        count(Reordered),
        count(Phantom),
        count(Crossed)
    )
}

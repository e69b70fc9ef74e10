//! Checks bodies against schemas for the shards, which have no time for it in a turn. One check
//! runs at a time, in the order of arrival: the tree of a body can take a hundred times its bytes,
//! and the shards need the CPUs. Each shard bounds how many of its checks wait.

use tokio::sync::Semaphore;

use crate::schema::{BodyCheck, Verdict};

/// Runs checks on a thread of their own.
#[derive(Debug)]
pub struct BodyChecks {
    one: Semaphore,
}

impl Default for BodyChecks {
    fn default() -> Self {
        let one = Semaphore::new(1);
        Self { one }
    }
}

impl BodyChecks {
    /// Waits for its turn, and checks a body.
    pub async fn run(&self, check: BodyCheck) -> Verdict {
        // The semaphore is never closed; without a permit the check would still be right.
        let _permit = self.one.acquire().await;
        let checked = tokio::task::spawn_blocking(move || check.run()).await;
        // The task fails only if the check panics or the runtime ends: nothing is known then.
        checked.unwrap_or(Verdict::Unfinished)
    }
}

//! CPU and memory of the server's process, from Linux's `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// A process that is measured, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) const fn new(pid: u32) -> Self {
        Self(pid)
    }

    pub(crate) fn me() -> Self {
        Self(std::process::id())
    }

    /// CPU time of all its threads, user and system, from the scheduler in ns, because
    /// `/proc/PID/stat` has ticks of 10 ms. Threads that have ended are not included.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.0);
        let mut sum = 0;
        for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let path = task?.path().join("schedstat");
            // A thread may end between the two calls.
            let Ok(line) = std::fs::read_to_string(&path) else {
                continue;
            };
            let first = line.split_whitespace().next();
            let nanos: u64 = first.and_then(|word| word.parse().ok()).with_context(|| {
                format!("{}: a kernel with scheduler statistics", path.display())
            })?;
            sum += nanos;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn resident(self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.0);
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmRSS"))? * 1024)
    }
}

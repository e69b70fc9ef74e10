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
        let listed = std::fs::read_dir(&tasks)
            .with_context(|| format!("no process has the id {} (--pid)", self.0))?;
        for task in listed {
            let Ok(task) = task else {
                continue; // The process has just ended.
            };
            let path = task.path().join("schedstat");
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

    /// Resident memory of the process, in bytes; `None` if it has ended. The kernel keeps the
    /// status of an ended process until its parent asks for its exit code, but without this line.
    pub(crate) fn resident(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    }
}

/// CPU time of the calling thread. Zero if the kernel has no scheduler statistics.
pub(crate) fn thread_cpu() -> Duration {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = line.split_whitespace().next();
    let nanos = first.and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

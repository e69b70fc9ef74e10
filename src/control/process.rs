//! Metrics of the process from Linux's `/proc`. A value that cannot be read is 0.

use std::time::Duration;

use crate::metrics::ProcessMetrics;

/// Clock ticks per second in `/proc/self/stat` (`USER_HZ`): 100 on all architectures that we build
/// for.
const TICKS_PER_SECOND: u64 = 100;

/// Reads the current values from `/proc`.
pub(super) fn read(
    uptime: Duration,
    shards: usize,
    stuck: usize,
    log_lines_dropped: u64,
) -> ProcessMetrics {
    let mut metrics = ProcessMetrics::default();
    metrics.uptime.0 = uptime;
    metrics.shards.set(shards as u64);
    metrics.stuck.set(stuck as u64);
    metrics.log_lines_dropped.0 = log_lines_dropped;
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
        metrics.cpu.0 = cpu_time(&stat).unwrap_or_default();
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        metrics
            .resident_bytes
            .set(resident_bytes(&status).unwrap_or_default());
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics.open_files.set(open.count() as u64);
    }
    metrics
}

/// CPU time from `/proc/self/stat`. `utime` and `stime` are fields 14 and 15; the name, field 2,
/// may contain spaces and ends at the last parenthesis (proc_pid_stat(5)).
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194560 5 0 0 0 250 50 0 0 20 0 1 0 9 10 2";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        let status = "Name:\tx\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident_bytes(status), Some(2 << 20));
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let metrics = read(Duration::from_secs(1), 2, 0, 0);
        assert!(metrics.resident_bytes.0 > 0 && metrics.open_files.0 > 2);
    }
}

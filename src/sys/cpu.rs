//! The CPUs of this process, and pinning a thread to one of them.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs that this process may run on, in ascending order, by its affinity mask and the cpuset of
/// its cgroup. CPUs from 1,024 on are not reported.
///
/// # Errors
/// A seccomp filter denies `sched_getaffinity`.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect())
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// `InvalidInput` for a CPU that this process may not use. A systemd unit with
/// `SystemCallFilter=~@resources` kills the process instead.
pub fn pin_this_thread(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_its_cpu_only() {
        std::thread::spawn(|| {
            let last = *allowed_cpus().expect("mask").last().expect("one cpu");
            pin_this_thread(last).expect("allowed");
            assert_eq!(allowed_cpus().expect("mask"), [last]);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_an_error() {
        let kind = pin_this_thread(CpuSet::MAX_CPU)
            .expect_err("too large")
            .kind();
        assert_eq!(kind, io::ErrorKind::InvalidInput);
    }
}

//! Why the kernel refuses a ring, in words that name what to change.

use std::io;

/// Why the kernel refuses a ring. The text names the setting to change.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `EPERM`, and the sysctl `kernel.io_uring_disabled` is set.
    #[error(
        "io_uring is switched off here (kernel.io_uring_disabled = {value}): set it to 0 \
         with `sysctl kernel.io_uring_disabled=0`{}",
        if *value == 1 { ", or run in the group of kernel.io_uring_group" } else { "" }
    )]
    Disabled {
        /// 1: only privileged processes and members of a group may use io_uring. 2: no process may.
        value: u8,
    },
    /// `EPERM` without that sysctl: a seccomp filter, as Docker and containerd install it.
    #[error(
        "io_uring is denied by a seccomp profile: allow io_uring_setup, io_uring_enter and \
         io_uring_register in it (Docker: --security-opt seccomp=<profile>; Kubernetes: \
         securityContext.seccompProfile; systemd: SystemCallFilter=@io-event is not enough, add \
         @system-service)"
    )]
    Forbidden,
    /// `ENOSYS`: the system call does not exist, or a seccomp filter hides it.
    #[error(
        "this kernel has no io_uring, or a seccomp profile hides it: Linux 6.1 or later is needed \
         with CONFIG_IO_URING, and io_uring_setup, io_uring_enter and io_uring_register must be \
         allowed"
    )]
    Missing,
    /// `EINVAL`: the kernel is too old for the ring's flags.
    #[error("this kernel's io_uring is too old (no DEFER_TASKRUN): Linux 6.1 or later is needed")]
    TooOld,
    /// `ENOMEM`, or a limit below what glommio accepts.
    #[error(
        "not enough locked memory for io_uring (limit {limit} bytes): raise memlock (`ulimit -l`, \
         systemd: LimitMEMLOCK=infinity, Docker: --ulimit memlock=-1) or start fewer shards"
    )]
    Memlock {
        /// The current soft limit `RLIMIT_MEMLOCK`.
        limit: u64,
    },
    /// Any other error of `io_uring_setup`.
    #[error("the kernel gives no io_uring: {0}")]
    Other(#[source] io::Error),
}

impl RingError {
    /// Explains an error of `io_uring_setup`.
    pub(super) fn explain(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => match switch() {
                Some(value @ 1..) => Self::Disabled { value },
                _ => Self::Forbidden,
            },
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EINVAL) => Self::TooOld,
            Some(libc::ENOMEM) => Self::Memlock { limit: memlock() },
            _ => Self::Other(error),
        }
    }
}

/// The soft limit of locked memory, in bytes.
pub(super) fn memlock() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    limit.current.unwrap_or(u64::MAX)
}

/// The sysctl `kernel.io_uring_disabled`, if the kernel has it (from 6.6 on).
fn switch() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

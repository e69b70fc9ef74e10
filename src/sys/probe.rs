//! Checks whether the kernel allows a ring, before anything else starts. Docker and containerd deny
//! io_uring by default, so the error must say what to change.

use super::Waker;
use super::ring::Ring;
use super::ring_error::{RingError, memlock};

/// Bytes of locked memory that glommio requires.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Creates a small ring with the flags of the real ones, and drops it.
///
/// # Errors
/// Why the kernel refuses, and what to change.
pub fn probe() -> Result<(), RingError> {
    let limit = memlock();
    if limit < MEMLOCK_BYTES_MIN {
        return Err(RingError::Memlock { limit });
    }
    Ring::new(8, 16, Waker::new().map_err(RingError::Other)?).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Makes `io_uring_setup` fail with `errno` on the calling thread, for good.
    fn deny_rings(errno: i32) {
        let statement = |code: u32, jt, jf, k: u32| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let program = [
            // seccomp_data.nr is its first word.
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                0,
                1,
                libc::SYS_io_uring_setup as u32,
            ),
            statement(
                libc::BPF_RET | libc::BPF_K,
                0,
                0,
                libc::SECCOMP_RET_ERRNO | errno as u32,
            ),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: plain calls; `filter` points to `program`, which outlives them, and the kernel
        // copies.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter);
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        }
    }

    /// The error of `probe` on a thread where rings fail with `errno`.
    fn said_for(errno: i32) -> RingError {
        std::thread::spawn(move || {
            deny_rings(errno);
            probe().expect_err("denied")
        })
        .join()
        .expect("no panic")
    }

    #[test]
    fn this_machine_has_rings() {
        probe().expect("the tests need io_uring");
    }

    #[test]
    fn a_denied_ring_names_the_seccomp_profile() {
        let error = said_for(libc::EPERM);
        assert!(matches!(error, RingError::Forbidden), "{error:?}");
        assert!(error.to_string().contains("seccomp"), "{error}");
    }

    #[test]
    fn a_missing_call_names_the_kernel() {
        let error = said_for(libc::ENOSYS);
        assert!(matches!(error, RingError::Missing), "{error:?}");
        assert!(error.to_string().contains("Linux 6.1"), "{error}");
    }

    #[test]
    fn no_memory_names_memlock() {
        let error = said_for(libc::ENOMEM);
        assert!(matches!(error, RingError::Memlock { .. }), "{error:?}");
        assert!(error.to_string().contains("ulimit -l"), "{error}");
    }

    #[test]
    fn the_switch_of_the_kernel_is_named_with_its_value() {
        let text = RingError::Disabled { value: 2 }.to_string();
        assert!(text.contains("kernel.io_uring_disabled = 2"), "{text}");
    }
}

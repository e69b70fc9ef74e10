//! The eventfd by which other threads wake a shard that sleeps in its ring.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd: a counter in the kernel that the ring polls. Clones share it.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Creates a waker that has not been used yet.
    ///
    /// # Errors
    /// No descriptor or memory is free.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?)))
    }

    /// Ends the current wait, or the next one. Any thread may call it any number of times; each
    /// call is one system call.
    pub fn wake(&self) {
        // The write fails only if the counter is at 2^64 - 2, which is never reached.
        let written = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
        debug_assert_eq!(written, Ok(8), "an eventfd takes eight bytes");
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

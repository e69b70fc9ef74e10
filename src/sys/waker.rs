//! The eventfd by which other threads wake a shard that sleeps in its ring, which polls it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A counter in the kernel that can be waited for. Clones ring the same waker.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A silent waker.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?)))
    }

    /// Wakes whoever waits, or who will wait next. Any thread, any number of times; one system
    /// call.
    pub fn wake(&self) {
        // It fails only for a counter at 2^64 - 2, that is never.
        let rung = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
        debug_assert_eq!(rung, Ok(8), "an eventfd takes eight bytes");
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

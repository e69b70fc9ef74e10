//! The eventfd that wakes a parked shard: the kernel rings it for the shard's ring, other threads ring
//! it for its inbox. One bell, so a shard parks on one thing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A counter in the kernel that can be waited for. Clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// A silent bell. It is blocking on purpose: a ring answers a read of a nonblocking file with
    /// `EAGAIN` instead of waiting for it.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?)))
    }

    /// Wakes whoever waits, or who will wait next. Any thread, any number of times; one system call.
    pub fn ring(&self) {
        // It fails only for a counter at 2^64 - 2, that is never.
        let rung = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
        debug_assert_eq!(rung, Ok(8), "an eventfd takes eight bytes");
    }

    /// A descriptor of its own for the same bell, to be given away.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives a descriptor to a type that only takes raw ones, glommio's files among them.
#[must_use]
pub fn hand_over<T: FromRawFd>(descriptor: OwnedFd) -> T {
    // SAFETY: the descriptor is open and owned, and its ownership moves into `T` here.
    unsafe { T::from_raw_fd(descriptor.into_raw_fd()) }
}

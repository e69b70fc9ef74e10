//! The only `unsafe` code: the shard's ring, its eventfd, sockets, descriptors and CPUs, each
//! behind a safe interface. This module knows nothing of shards and makes no decisions.

mod cpu;
mod descriptors;
mod probe;
mod ring;
mod ring_error;
mod socket;
mod waker;

pub use cpu::{allowed_cpus, pin_this_thread};
pub use descriptors::{descriptor_limit, descriptors_allowed, raise_descriptor_limit};
pub use probe::{MEMLOCK_BYTES_MIN, probe};
pub use ring::{Completion, CompletionResult, Ready, Ring, SLOTS_MAX, Token, TokenKind};
pub use ring_error::RingError;
pub use socket::{Connect, Listener, SLICES_MAX, Socket};
pub use waker::Waker;

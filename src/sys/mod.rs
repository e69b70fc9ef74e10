//! The only `unsafe` of the house: the shard's ring, its eventfd, sockets and cpus, each behind a safe
//! face. Nothing here knows what a shard is or decides anything.

mod ring;

pub use ring::{RingError, SLOTS_MAX};

//! What can keep a process from starting or from taking clients.

use std::io;
use std::net::SocketAddr;

use crate::model::ShardId;
use crate::sys::RingError;

/// Why [`start`](super::start) or [`accept`](super::Running::accept) failed. Nothing has been
/// served when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The plan contradicts itself.
    #[error("the plan of the reactor does not work: {0}")]
    Plan(&'static str),
    /// The kernel does not give us a ring; the source says what to change.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// A shard's thread, executor or ring could not be made.
    #[error("shard {} can't start: {why}", shard.0)]
    Shard {
        /// Which.
        shard: ShardId,
        /// In the words of whoever refused.
        why: String,
    },
    /// An address could not be bound.
    #[error("can't listen on {address}: {source}{}", remedy(source))]
    Bind {
        /// The address of the config.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The remedy if another process uses the address.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: end it, choose another address, or start both with \
             --reuse-port to share it"
        }
        _ => "",
    }
}

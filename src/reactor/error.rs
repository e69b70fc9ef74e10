//! Errors of starting the shards and of binding their ports.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::model::ShardId;
use crate::sys::RingError;

/// Why [`start`](super::start), [`bind`](super::Running::bind) or
/// [`accept`](super::Running::accept) failed. No client has been served then.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The values of the plan contradict each other.
    #[error("the plan of the reactor does not work: {0}")]
    Plan(&'static str),
    /// The kernel refuses a ring. The source says what to change.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// A shard's thread, executor or ring could not be created.
    #[error("shard {} can't start: {why}", shard.0)]
    Shard {
        /// The shard that could not start.
        shard: ShardId,
        /// The text of the error.
        why: String,
    },
    /// A Unix socket could not be bound.
    #[error("can't listen on unix:{}: {source}{}", path.display(), remedy(source))]
    BindUnix {
        /// The path of the config.
        path: PathBuf,
        /// The error that the kernel returned.
        source: io::Error,
    },
    /// An address could not be bound.
    #[error("can't listen on {address}: {source}{}", remedy(source))]
    Bind {
        /// The address of the config.
        address: SocketAddr,
        /// The error that the kernel returned.
        source: io::Error,
    },
}

/// Advice for an address that another process uses; else empty.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: end it, choose another address, or start both with \
             --reuse-port to share it"
        }
        _ => "",
    }
}

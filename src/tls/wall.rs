//! The wall time for checking certificates and tickets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

use crate::model::{Now, UnixMillis};

/// The wall time of the last turn that started a session, because pure rooms read no clock. All
/// sessions of a [`Connector`](super::Connector) or an [`Acceptor`](super::Acceptor) share it.
#[derive(Debug, Default)]
pub(super) struct Wall(AtomicU64);

impl Wall {
    pub(super) fn set(&self, now: Now) {
        self.0.store(positive(now.wall), Ordering::Relaxed);
    }
}

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(since_epoch(self.0.load(Ordering::Relaxed)))
    }
}

/// A wall time as rustls has it.
pub(super) fn unix_time(now: Now) -> UnixTime {
    since_epoch(positive(now.wall))
}

fn positive(wall: UnixMillis) -> u64 {
    u64::try_from(wall.0).unwrap_or(0)
}

fn since_epoch(millis: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(millis))
}

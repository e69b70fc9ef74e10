//! What the clients of a process use, summed over all of its shards. The kernel spreads connections
//! over the shards' listeners by a hash, so unevenly. A limit divided by the number of shards would
//! therefore refuse clients on one shard while the others have room.
//!
//! These are the only counters that all shards write. A shard changes them when a connection or a
//! stream begins or ends, and when a request or response does not fit into one turn. A request that
//! is read and answered in one turn changes none, unless its route has a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::client_limits::ClientLimits;

/// Shared by the shards of one process.
#[derive(Debug)]
pub struct ClientTotals {
    /// What single clients use.
    pub(super) clients: ClientLimits,
    /// Open client connections, those with an event stream included.
    pub(super) connections: Total,
    /// Connections closed at once because `http.connections_max` was reached, since the start.
    refused: AtomicU64,
    /// Open connections of HTTP/2, which also count as connections.
    pub(super) http2: Total,
    /// Open event streams. One of HTTP/1.1 is also a connection.
    pub(super) streams: Total,
    /// Connections in their TLS handshake.
    handshakes: Total,
    /// Bytes of partially received requests, and of requests pipelined behind a waiting one.
    pub(super) request_bytes: Total,
    /// Bytes of responses that sockets have not taken.
    pub(super) response_bytes: Total,
}

impl ClientTotals {
    /// Nothing is used yet. `key` is random and known to nobody outside: it decides which clients
    /// share a counter.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            clients: ClientLimits::new(key),
            connections: Total::default(),
            http2: Total::default(),
            handshakes: Total::default(),
            refused: AtomicU64::default(),
            streams: Total::default(),
            request_bytes: Total::default(),
            response_bytes: Total::default(),
        }
    }

    /// Connections closed at once because `http.connections_max` was reached, since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a place for one more connection. Returns false, and counts the refusal, if `max` are
    /// taken.
    pub(super) fn take_connection(&self, max: usize) -> bool {
        let taken = self.connections.take(max);
        if !taken {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Gives back a connection's place.
    pub(super) fn give_back_connection(&self) {
        self.connections.give_back();
    }
}

/// A place of one of the connections in their TLS handshake. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct HandshakePlace(Arc<ClientTotals>);

impl HandshakePlace {
    /// Takes one of `max` places. `None` if all are taken.
    pub(super) fn take(totals: &Arc<ClientTotals>, max: usize) -> Option<Self> {
        let taken = totals.handshakes.take(max);
        taken.then(|| Self(totals.clone()))
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.0.handshakes.give_back();
    }
}

/// A counter that all shards share. No other memory is ordered by it, so every access is relaxed.
#[derive(Debug, Default)]
pub(super) struct Total(AtomicUsize);

impl Total {
    /// Takes one of `max`. Returns false if all are taken.
    pub(super) fn take(&self, max: usize) -> bool {
        let more = |count: usize| (count < max).then_some(count + 1);
        let relaxed = Ordering::Relaxed;
        self.0.fetch_update(relaxed, relaxed, more).is_ok()
    }

    /// Gives back what [`Self::take`] took.
    pub(super) fn give_back(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "what is given back was taken");
    }

    /// Changes one contribution to the total from `before` to `now`.
    pub(super) fn change(&self, before: usize, now: usize) {
        match now.cmp(&before) {
            std::cmp::Ordering::Less => self.0.fetch_sub(before - now, Ordering::Relaxed),
            std::cmp::Ordering::Greater => self.0.fetch_add(now - before, Ordering::Relaxed),
            // The usual case writes nothing.
            std::cmp::Ordering::Equal => return,
        };
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_as_many_are_taken_as_there_are_from_however_many_threads() {
        let total = Total::default();
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..100).filter(|_| total.take(250)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|it| it.join().expect("no panic"))
                .sum()
        });
        assert_eq!((taken, total.get(), total.take(250)), (250, 250, false));
        total.give_back();
        assert!(total.take(250));
    }

    #[test]
    fn a_handshake_gives_its_place_back_however_it_ends() {
        let totals = Arc::new(ClientTotals::new([1, 2]));
        let first = HandshakePlace::take(&totals, 1).expect("free");
        assert!(HandshakePlace::take(&totals, 1).is_none());
        drop(first);
        assert!(HandshakePlace::take(&totals, 1).is_some());
    }

    #[test]
    fn a_part_that_changes_changes_the_total() {
        let total = Total::default();
        total.change(0, 7);
        total.change(0, 5);
        total.change(7, 7);
        total.change(7, 1);
        assert_eq!(total.get(), 6);
    }
}

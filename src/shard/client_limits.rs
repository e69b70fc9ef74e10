//! What single clients use, counted for the whole process in a fixed amount of memory.
//!
//! A table with a row for each client could be filled by an attacker with many addresses, and its
//! rows would have to travel between shards. Here a client has two cells, chosen by a keyed hash in
//! two arrays of counters that all shards share (a count–min sketch). What a client uses is the
//! smaller of its cells, which is never less than what it really uses. So every limit holds.
//!
//! The price is an error to one side. Clients may share a cell. A client is refused below its limit
//! if *both* of its cells are shared with clients that use much. If one cell in a thousand is at
//! its limit, that happens to one client in a million.

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use siphasher::sip::SipHasher24;

use crate::config::CLIENT_LIMITS_BYTES;
use crate::model::{Id as _, Instant, RouteId, Tenant};

use super::gcra::{Gcra, Verdict};

/// Cells of an array. A power of two, so that bits of a hash choose among them.
const CELLS: usize = 1 << 16;

/// A client: its place in each array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientCells([u16; 2]);

const _: () = {
    assert!(CELLS == 1 << u16::BITS, "a place is 16 bits of a hash");
    // Two pairs of counts and one of rates, as the memory sum of a config has them.
    let cell = 4 * size_of::<AtomicU32>() + 2 * size_of::<AtomicU64>();
    assert!(CELLS * cell <= CLIENT_LIMITS_BYTES);
};

/// What single clients use. Shared by the shards of one process. No other memory is ordered by the
/// cells, so every access is relaxed.
#[derive(Debug)]
pub(super) struct ClientLimits {
    /// Known to nobody outside, so that no client can choose with whom it shares cells.
    key: [u64; 2],
    /// Open connections, by address.
    pub(super) connections: Counts,
    /// Open event streams, by tenant.
    pub(super) streams: Counts,
    /// States of the rate limits, by tenant and route.
    pub(super) rates: Rates,
}

impl ClientLimits {
    pub(super) fn new(key: [u64; 2]) -> Self {
        Self {
            key,
            connections: Counts::default(),
            streams: Counts::default(),
            rates: Rates::default(),
        }
    }

    /// The cells of a client.
    pub(super) fn cells(&self, tenant: &Tenant) -> ClientCells {
        self.cells_of(tenant, u64::MAX)
    }

    /// The cells of a client at a route.
    pub(super) fn cells_at(&self, tenant: &Tenant, route: RouteId) -> ClientCells {
        self.cells_of(tenant, route.index() as u64)
    }

    fn cells_of(&self, tenant: &Tenant, route: u64) -> ClientCells {
        let [one, two] = self.key;
        let mut hasher = SipHasher24::new_with_keys(one, two);
        hasher.write_u64(route);
        match tenant {
            Tenant::V4(address) => {
                hasher.write_u8(4);
                hasher.write(&address.octets());
            }
            Tenant::V6(network) => {
                hasher.write_u8(6);
                hasher.write(network);
            }
            Tenant::Known(identity) => {
                let (issuer, subject) = identity.parts().unwrap_or_default();
                hasher.write_u8(0);
                // With its length, so that no two identities have the same bytes.
                hasher.write_u64(issuer.len() as u64);
                hasher.write(issuer.as_bytes());
                hasher.write(subject.as_bytes());
            }
        }
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        ClientCells([u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])])
    }
}

/// One count for each client.
#[derive(Debug)]
pub(super) struct Counts([Box<[AtomicU32]>; 2]);

impl Default for Counts {
    fn default() -> Self {
        Self([(); 2].map(|()| (0..CELLS).map(|_| AtomicU32::new(0)).collect()))
    }
}

impl Counts {
    fn cells(&self, client: ClientCells) -> [&AtomicU32; 2] {
        let [one, two] = &self.0;
        let [first, second] = client.0.map(usize::from);
        [&one[first], &two[second]]
    }

    /// Takes one of `max` for a client. Returns false if it has them.
    #[must_use]
    pub(super) fn take(&self, client: ClientCells, max: u32) -> bool {
        let cells = self.cells(client);
        // Both are taken first: two shards may take the last one at the same time.
        let before = cells.map(|cell| cell.fetch_add(1, Ordering::Relaxed));
        let [one, two] = before;
        let taken = one.min(two) < max;
        if !taken {
            self.give_back(client);
        }
        taken
    }

    /// Gives back what [`Self::take`] took.
    pub(super) fn give_back(&self, client: ClientCells) {
        for cell in self.cells(client) {
            let before = cell.fetch_sub(1, Ordering::Relaxed);
            debug_assert!(before > 0, "what is given back was taken");
        }
    }
}

/// One GCRA state for each client and route: nanoseconds of the process's clock. A cell that was
/// not used for a while is in the past, so cells are never freed.
#[derive(Debug)]
pub(super) struct Rates([Box<[AtomicU64]>; 2]);

impl Default for Rates {
    fn default() -> Self {
        Self([(); 2].map(|()| (0..CELLS).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl Rates {
    fn cells(&self, client: ClientCells) -> [&AtomicU64; 2] {
        let [one, two] = &self.0;
        let [first, second] = client.0.map(usize::from);
        [&one[first], &two[second]]
    }

    /// The state of a client.
    pub(super) fn state(&self, client: ClientCells) -> Instant {
        let [one, two] = self.cells(client).map(|cell| cell.load(Ordering::Relaxed));
        Instant::from_nanos(one.min(two))
    }

    /// Decides a request, and counts it if it passes. If two shards decide requests of one client
    /// between the two writes of the other, one of these requests may not be counted.
    pub(super) fn decide(&self, limit: &Gcra, client: ClientCells, now: Instant) -> Verdict {
        let [one, two] = self.cells(client);
        loop {
            let due = [one, two].map(|cell| cell.load(Ordering::Relaxed));
            let (smaller, other, due) = match due {
                [first, second] if first <= second => (one, two, first),
                [_, second] => (two, one, second),
            };
            let verdict = limit.decide(Instant::from_nanos(due), now);
            let Verdict::Pass { next } = verdict else {
                return verdict;
            };
            let (next, relaxed) = (next.as_nanos(), Ordering::Relaxed);
            let changed = smaller.compare_exchange(due, next, relaxed, relaxed);
            if changed.is_ok() {
                // A cell that is ahead for another client stays where it is.
                other.fetch_max(next, relaxed);
                return verdict;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::config::Rate;
    use crate::model::Identity;

    fn tenant(n: u32) -> Tenant {
        Tenant::V4(Ipv4Addr::from_bits(n))
    }

    fn limits() -> ClientLimits {
        ClientLimits::new([1, 2])
    }

    #[test]
    fn a_client_gets_its_number_and_no_more_on_any_shard() {
        let limits = limits();
        let client = limits.cells(&tenant(1));
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..100).filter(|_| limits.streams.take(client, 30)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let taken = threads.into_iter().map(|it| it.join().expect("no panic"));
            taken.sum()
        });
        // While one shard looks, another may hold a place that it does not get.
        assert!((27..=30).contains(&taken), "{taken}");
        let more = (0..100).filter(|_| limits.streams.take(client, 30)).count();
        assert_eq!(taken + more, 30);
        assert!(
            limits.streams.take(limits.cells(&tenant(2)), 30),
            "another client"
        );
        limits.streams.give_back(client);
        assert!(limits.streams.take(client, 30) && !limits.streams.take(client, 30));
    }

    /// The stated error: 1,000 clients at a limit of 10, and nobody else is refused.
    #[test]
    fn others_are_not_refused_for_clients_at_their_limit() {
        let limits = limits();
        for n in 0..1000 {
            let client = limits.cells(&tenant(n));
            let taken = (0..20).filter(|_| limits.connections.take(client, 10));
            assert!(taken.count() <= 10);
        }
        let refused = (1000..101_000).filter(|n| {
            let client = limits.cells(&tenant(*n));
            let taken = limits.connections.take(client, 10);
            if taken {
                limits.connections.give_back(client);
            }
            !taken
        });
        let refused = refused.count();
        println!("{refused} of 100,000 clients refused beside 1,000 at their limit");
        // (1000 / 65,536)^2 of 100,000 is 23.
        assert!(refused < 60, "{refused}");
    }

    #[test]
    fn a_rate_holds_over_shards_and_clients_have_one_each() {
        let limits = limits();
        let rate = Rate {
            requests: 10,
            per: Duration::from_secs(1),
            burst: 5,
        };
        let limit = Gcra::new(rate);
        let now = Instant::from_nanos(5_000_000_000);
        let ask = |n: u32, now| {
            let client = limits.cells_at(&tenant(n), RouteId(3));
            matches!(
                limits.rates.decide(&limit, client, now),
                Verdict::Pass { .. }
            )
        };
        let passed: usize = std::thread::scope(|scope| {
            let shard = || (0..100).filter(|_| ask(1, now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(shard)).collect();
            threads
                .into_iter()
                .map(|it| it.join().expect("no panic"))
                .sum()
        });
        assert!(
            (5..=8).contains(&passed),
            "{passed} of a burst of 5, on 4 shards"
        );
        assert!(
            !ask(1, now) && ask(2, now),
            "another client has its own burst"
        );
        assert!(ask(1, now.after(Duration::from_secs(2))));
        let elsewhere = limits.cells_at(&tenant(1), RouteId(4));
        let verdict = limits.rates.decide(&limit, elsewhere, now);
        assert!(matches!(verdict, Verdict::Pass { .. }), "another route");
    }

    #[test]
    fn clients_and_routes_differ_in_their_cells() {
        let limits = limits();
        let known = |issuer, subject| Tenant::Known(Identity::new(issuer, subject));
        let clients = [
            tenant(1),
            tenant(2),
            Tenant::V6([0, 0, 0, 1, 0, 0, 0, 0]),
            known("a", "bc"),
            known("ab", "c"),
            known("", "abc"),
        ];
        let mut cells = HashSet::new();
        for client in &clients {
            assert!(cells.insert(limits.cells(client).0), "{client:?}");
            assert!(cells.insert(limits.cells_at(client, RouteId(0)).0));
            assert!(cells.insert(limits.cells_at(client, RouteId(1)).0));
        }
        let other = ClientLimits::new([3, 4]);
        assert_ne!(
            limits.cells(&tenant(1)),
            other.cells(&tenant(1)),
            "a key of its own"
        );
    }
}

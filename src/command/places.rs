//! The places of a table, shared fairly by the tenants that want them.

use std::collections::HashMap;

use ahash::RandomState;

use crate::model::Tenant;

/// Why a tenant does not get a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// Every place is taken.
    All,
    /// The tenant has its share.
    Share,
}

/// Places that tenants take and give back. A tenant gets another place while it has fewer than are
/// free, and fewer than a tenant may have. So a tenant never gets the last places from the others:
///
/// | tenants that want all they can get | places of each | free for others |
/// |---|---|---|
/// | 1 | 1/2 | 1/2 |
/// | 2 | 1/3 | 1/3 |
/// | n | 1/(n + 1) | 1/(n + 1) |
///
/// Places that are taken are never taken back. When places become free, the tenants with the fewest
/// get them.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    per_tenant_max: usize,
    taken: usize,
    /// Tenants with a place. A tenant's row is removed with its last place, so the places bound the
    /// rows too.
    by_tenant: HashMap<Tenant, usize, RandomState>,
}

impl Places {
    /// `hasher` is seeded by the shard, because clients choose their addresses.
    pub(super) fn new(max: usize, per_tenant_max: usize, hasher: RandomState) -> Self {
        Self {
            max,
            per_tenant_max,
            taken: 0,
            by_tenant: HashMap::with_hasher(hasher),
        }
    }

    /// Why a tenant would not get a place now. `None`: it would.
    pub(super) fn shortage(&self, tenant: &Tenant) -> Option<Shortage> {
        let free = self.max - self.taken;
        if free == 0 {
            return Some(Shortage::All);
        }
        let has = self.by_tenant.get(tenant).copied().unwrap_or_default();
        (has >= free.min(self.per_tenant_max)).then_some(Shortage::Share)
    }

    /// Takes a place that [`Self::shortage`] has granted.
    pub(super) fn take(&mut self, tenant: Tenant) {
        debug_assert_eq!(self.shortage(&tenant), None);
        *self.by_tenant.entry(tenant).or_default() += 1;
        self.taken += 1;
    }

    pub(super) fn give_back(&mut self, tenant: &Tenant) {
        let has = self.by_tenant.get_mut(tenant);
        let has = has.expect("who gives a place back has one");
        *has -= 1;
        self.taken -= 1;
        if *has == 0 {
            self.by_tenant.remove(tenant);
        }
    }

    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    /// Tenants with a place.
    pub(super) fn tenants(&self) -> usize {
        self.by_tenant.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    pub(in crate::command) fn tenant(n: u8) -> Tenant {
        Tenant::V4(Ipv4Addr::new(192, 0, 2, n))
    }

    fn places(max: usize, per_tenant_max: usize) -> Places {
        Places::new(max, per_tenant_max, RandomState::with_seeds(1, 2, 3, 4))
    }

    /// Takes as many places for a tenant as it gets.
    fn take_all(places: &mut Places, n: u8) -> usize {
        let before = places.taken();
        while places.shortage(&tenant(n)).is_none() {
            places.take(tenant(n));
        }
        places.taken() - before
    }

    #[test]
    fn a_tenant_alone_gets_half_and_the_next_ones_half_of_the_rest() {
        let mut places = places(100, 100);
        assert_eq!(take_all(&mut places, 1), 50);
        assert_eq!(places.shortage(&tenant(1)), Some(Shortage::Share));
        assert_eq!(take_all(&mut places, 2), 25);
        assert_eq!(take_all(&mut places, 3), 13);
        for n in 4..16 {
            take_all(&mut places, n);
        }
        assert_eq!(places.shortage(&tenant(99)), Some(Shortage::All));
        assert_eq!(places.tenants(), 7);
    }

    #[test]
    fn a_tenant_has_a_limit_of_its_own() {
        let mut places = places(100, 10);
        assert_eq!(take_all(&mut places, 1), 10);
        assert_eq!(take_all(&mut places, 2), 10);
    }

    #[test]
    fn one_place_goes_to_the_first_tenant_that_asks() {
        let mut places = places(1, 1);
        assert_eq!(take_all(&mut places, 1), 1);
        assert_eq!(places.shortage(&tenant(2)), Some(Shortage::All));
        places.give_back(&tenant(1));
        assert_eq!((places.taken(), places.tenants()), (0, 0));
        assert_eq!(take_all(&mut places, 2), 1);
    }

    proptest! {
        /// Tenants that always want more, and places that become free in any order: the shares
        /// approach each other, and a newcomer gets a place.
        #[test]
        fn greedy_tenants_share_and_leave_room(
            greedy in 1..6_u8,
            gone in prop::collection::vec(0..6_u8, 0..400),
        ) {
            let mut places = places(60, 60);
            let mut held = [0_usize; 6];
            // Places are wanted in turn, as requests of many clients arrive.
            let fill = |places: &mut Places, held: &mut [usize; 6]| {
                let mut took = true;
                while took {
                    took = false;
                    for n in 0..greedy {
                        if places.shortage(&tenant(n)).is_none() {
                            places.take(tenant(n));
                            held[usize::from(n)] += 1;
                            took = true;
                        }
                    }
                }
            };
            fill(&mut places, &mut held);
            for n in gone {
                if held[usize::from(n)] > 0 {
                    places.give_back(&tenant(n));
                    held[usize::from(n)] -= 1;
                    fill(&mut places, &mut held);
                }
                prop_assert_eq!(places.taken(), held.iter().sum::<usize>());
                prop_assert_eq!(places.shortage(&tenant(99)), None, "a newcomer");
                let of_greedy = &held[..usize::from(greedy)];
                let (most, fewest) = (of_greedy.iter().max(), of_greedy.iter().min());
                let (most, fewest) = (most.copied().unwrap_or(0), fewest.copied().unwrap_or(0));
                prop_assert!(most - fewest <= 2, "{:?}", held);
            }
        }
    }
}

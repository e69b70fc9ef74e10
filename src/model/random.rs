//! Fast random numbers for uses that need no secrecy.

/// A fast generator (SplitMix64; Steele, Lea, Flood 2014): one addition and one mix per number. It
/// spreads retries and heartbeats in time, and creates ids that only have to differ. Its numbers
/// can be predicted from one another. Numbers that a client must not guess come from the shard's
/// secure generator.
///
/// The algorithm is not a crate's, so that an update of a crate never changes the history of a seed
/// in the simulated fleet.
#[derive(Clone, Debug)]
pub struct FastRandom(u64);

impl FastRandom {
    /// A generator of numbers that follow from `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product (Lemire 2019): no division, and a bias below bound / 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the reference implementation (<https://prng.di.unimi.it/splitmix64.c>).
    #[test]
    fn numbers_are_those_of_the_reference() {
        let mut random = FastRandom::new(1_234_567);
        let numbers: Vec<u64> = (0..5).map(|_| random.next()).collect();
        let reference = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(numbers, reference);
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = FastRandom::new(7);
        for bound in [1, 2, 10, 1 << 40, u64::MAX] {
            assert!((0..1_000).all(|_| random.below(bound) < bound), "{bound}");
        }
        assert_eq!(random.below(0), 0);
    }
}

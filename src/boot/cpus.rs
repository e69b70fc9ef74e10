//! Placement of shards: how many there are, and whether each is pinned to a CPU.

use crate::config::Settings;

/// Shards and the CPUs they are pinned to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Number of shards of the process.
    pub(super) shards: u16,
    /// CPUs to pin shards to, in turn. If empty, the kernel places the shards.
    pub(super) pinned: Vec<usize>,
}

impl Placement {
    /// `allowed` are the CPUs on which the process may run, `cpus` is their number within its
    /// quota.
    ///
    /// Shards are pinned if the config names CPUs, or if they fill all allowed CPUs. Otherwise
    /// another process might pin to the same CPUs: two gateways of one shard would share CPU 0
    /// while the other CPUs idle. A quota limits time and not CPUs, so it never counts as filled.
    pub(super) fn new(settings: &Settings, allowed: Vec<usize>, cpus: u16) -> Self {
        let shards = settings.shards_on(cpus);
        let fills = usize::from(shards) == allowed.len() && usize::from(cpus) >= allowed.len();
        let pinned = match &settings.cpus {
            Some(named) => named.clone(),
            None if fills => allowed,
            None => Vec::new(),
        };
        Self { shards, pinned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(shards: Option<u16>, named: Option<&[usize]>, quota: u16) -> (u16, Vec<usize>) {
        let settings = Settings {
            shards,
            cpus: named.map(<[usize]>::to_vec),
            ..Settings::default()
        };
        let Placement { shards, pinned } = Placement::new(&settings, vec![0, 1, 2, 3], quota);
        (shards, pinned)
    }

    #[test]
    fn shards_are_pinned_where_they_fill_the_machine_or_the_config_says_so() {
        assert_eq!(placed(None, None, 4), (4, vec![0, 1, 2, 3]));
        assert_eq!(placed(Some(4), None, 4), (4, vec![0, 1, 2, 3]));
        assert_eq!(placed(Some(1), None, 4), (1, vec![]));
        assert_eq!(placed(Some(8), None, 4), (8, vec![]));
        assert_eq!(placed(Some(1), Some(&[3]), 4), (1, vec![3]));
        assert_eq!(placed(None, Some(&[2, 3]), 4), (2, vec![2, 3]));
        assert_eq!(placed(Some(4), Some(&[2, 3]), 4), (4, vec![2, 3]));
    }

    #[test]
    fn a_quota_bounds_the_shards_and_pins_none() {
        assert_eq!(placed(None, None, 1), (1, vec![]));
        assert_eq!(placed(None, None, 2), (2, vec![]));
        assert_eq!(placed(Some(4), None, 2), (4, vec![]));
    }
}

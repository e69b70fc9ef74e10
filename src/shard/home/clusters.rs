//! The clusters of a home: a client for each.

use std::ops::{Index, IndexMut};

use crate::model::{Now, u8_of};
use crate::shard::snapshot::ClusterId;

use super::cluster::Cluster;

/// The clusters of a home, indexed by [`ClusterId`].
#[derive(Debug)]
pub(super) struct Clusters {
    all: Vec<Cluster>,
    /// The cluster whose records were unpacked last. The others come first.
    unpacked_last: usize,
}

impl Clusters {
    pub(super) const fn new(all: Vec<Cluster>) -> Self {
        Self {
            all,
            unpacked_last: 0,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ClusterId> + use<> {
        (0..self.all.len()).map(|at| ClusterId(u8_of(at)))
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Cluster> {
        self.all.iter()
    }

    pub(super) fn all_mut(&mut self) -> &mut [Cluster] {
        &mut self.all
    }

    /// Unpacks a bounded piece of the records that brokers sent. Returns the cluster whose client
    /// has events because of it. `None`: no records wait.
    #[must_use = "while a cluster is returned, more records wait"]
    pub(super) fn unpack(&mut self, now: Now) -> Option<ClusterId> {
        let clusters = self.all.len();
        let after = self.unpacked_last + 1;
        let mut in_turn = (after..after + clusters).map(|at| at % clusters);
        let at = in_turn.find(|at| self.all[*at].client.unpack(now))?;
        self.unpacked_last = at;
        Some(ClusterId(u8_of(at)))
    }
}

impl Index<ClusterId> for Clusters {
    type Output = Cluster;

    fn index(&self, cluster: ClusterId) -> &Cluster {
        &self.all[usize::from(cluster.0)]
    }
}

impl IndexMut<ClusterId> for Clusters {
    fn index_mut(&mut self, cluster: ClusterId) -> &mut Cluster {
        &mut self.all[usize::from(cluster.0)]
    }
}

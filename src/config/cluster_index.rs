//! The number of a cluster in the config.

/// Number of a cluster: 0 is the one of `[kafka]`, the others follow in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterIndex(pub u8);

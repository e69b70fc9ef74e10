//! A line for the log. It does not name the topic or the cluster: the caller puts the name before
//! it.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard::home) enum Line {
    Warn(String),
    Info(String),
}

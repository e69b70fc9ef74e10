//! A line for the log. The line does not name the topic or the cluster, because the caller puts the
//! name before it.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard::home) enum Line {
    Warn(String),
    Info(String),
}

//! A line for the log. The line does not name the topic or the cluster, because the caller puts the
//! name before it.

use crate::shard::message::Level;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard::home) enum Line {
    Warn(String),
    Info(String),
}

impl Line {
    /// The level and the text.
    pub(in crate::shard::home) fn into_parts(self) -> (Level, String) {
        match self {
            Self::Warn(text) => (Level::Warn, text),
            Self::Info(text) => (Level::Info, text),
        }
    }
}

//! Why a subscriber misses records.

/// Why a subscriber misses records: the `reason` of `event: gap`. Listed in `docs/http.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The id the client sent can't be read.
    Unreadable,
    /// The topic was deleted and re-created.
    Recreated,
    /// Retention has removed what the client missed.
    Retention,
    /// An unclean election has removed what the client saw or would have seen.
    Truncated,
    /// A record that can't be decoded.
    Undecodable,
    /// The client was disconnected for longer than deletes are kept; a snapshot follows.
    Tombstones,
}

impl GapReason {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Recreated => "recreated",
            Self::Retention => "retention",
            Self::Truncated => "truncated",
            Self::Undecodable => "undecodable",
            Self::Tombstones => "tombstones",
        }
    }
}

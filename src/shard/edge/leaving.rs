//! The stages of stopping the process, as the edge sees them.

use crate::model::Instant;

/// How far the process is in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// The process is not stopping.
    No,
    /// `--drain-grace`: requests are executed, and each answer says `Connection: close`.
    Grace,
    /// `--drain`: new requests are refused, and requests in flight are answered until this time.
    Drain(Instant),
}

impl Leaving {
    /// Whether each answer ends its connection.
    pub(super) const fn has_begun(self) -> bool {
        !matches!(self, Self::No)
    }
}

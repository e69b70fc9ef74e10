//! The earliest of the times at which something is due.

use crate::model::Instant;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wake(pub(super) Option<Instant>);

impl Wake {
    /// Something is due at `when`.
    pub(super) fn at(&mut self, when: Instant) {
        self.0 = Some(self.0.map_or(when, |now| now.min(when)));
    }
}

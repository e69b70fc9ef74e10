//! A check that is done outside of shards.

use std::sync::Arc;

use bytes::Bytes;

use super::{BodySchema, Effort, Verdict};

/// A body, and the schema to check it against. The check takes milliseconds, and up to a second for
/// the worst body of 1 MiB.
#[derive(Clone, Debug)]
pub struct BodyCheck {
    schema: Arc<BodySchema>,
    body: Bytes,
}

impl BodyCheck {
    /// A check to be done later.
    #[must_use]
    pub const fn new(schema: Arc<BodySchema>, body: Bytes) -> Self {
        Self { schema, body }
    }

    /// Checks the body.
    #[must_use]
    pub fn run(&self) -> Verdict {
        let effort = Effort::outside(self.body.len());
        self.schema.check(&self.body, effort)
    }
}

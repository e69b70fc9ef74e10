//! JSON Schema: checks the body of a request before a record is made of it. A [`BodySchema`] is
//! compiled once, when the config is loaded; snapshots and shards share it. Nothing is fetched:
//! a schema is one file, and a reference that leads out of it is an error at start.
//!
//! The author of a schema is trusted, and the sender of a body is not. So a check has a limit of
//! steps ([`Effort`]): neither a large body nor a schema whose cost grows with a body's depth can
//! hold up a shard. A body that needs more than a turn allows is checked again outside the shard,
//! with a higher limit.

mod check;
mod compile;
mod meter;
mod set;
#[cfg(test)]
mod tests;
mod tree;
mod violation;

pub use check::BodyCheck;
pub use compile::{BodySchema, SCHEMA_BYTES_MAX, SchemaError};
pub use set::Schemas;
pub use violation::{VIOLATIONS_MAX, Violation};

/// How much work a check may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Values of the body that may be visited. A value counts each time that a keyword visits it,
    /// and a long string counts more than once.
    steps: u64,
    /// Violations that may be collected, inner ones of `oneOf` and `anyOf` included. Each takes
    /// some 500 bytes while the check runs.
    violations: u32,
}

impl Effort {
    /// Longest body that is checked within a turn. To read a body takes about 15 ns a byte.
    pub const IN_TURN_BYTES_MAX: usize = 4096;

    /// The work that fits into a turn: some 50 µs.
    pub const IN_TURN: Self = Self {
        steps: 2048,
        violations: 32,
    };

    /// The work outside of shards for a body of so many bytes: some milliseconds for 64 KiB, and
    /// less than a second for 1 MiB, whatever schema and body are.
    #[must_use]
    pub const fn outside(body_bytes: usize) -> Self {
        Self {
            steps: 1_000_000 + 16 * body_bytes as u64,
            violations: 2000,
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The body is what the schema describes.
    Valid,
    /// The body is JSON that the schema does not allow: the first [`VIOLATIONS_MAX`] violations.
    Invalid(Vec<Violation>),
    /// The body is not JSON, or has a name twice in one object. The text says where.
    NotJson(String),
    /// The check reached its limit before it knew more.
    Unfinished,
}

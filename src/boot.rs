//! Composition: from a checked config to a process that serves.

use crate::config::Config;

/// Why the process could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// This build can't serve.
    #[error("this build has no shards: only `check`, `routes` and `config show` work")]
    NoShards,
}

impl BootError {
    /// The exit code: 69 a needed service is unreachable, 70 a broken invariant, 78 the config.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoShards => 70,
        }
    }
}

/// Serves until told to stop.
///
/// # Errors
/// See [`BootError`].
pub fn run(_config: Config) -> Result<(), BootError> {
    Err(BootError::NoShards)
}

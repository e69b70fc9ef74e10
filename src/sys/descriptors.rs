//! Limits on the descriptors (files and sockets) that this process has open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The hard limit, which [`raise_descriptor_limit`] can reach. `u64::MAX` if there is none.
#[must_use]
pub fn descriptors_allowed() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard limit, and returns the resulting limit.
///
/// The soft limit is 1,024 on most systems, for programs that use `select`. This one does not.
///
/// # Errors
/// The system refuses, and the limit is unchanged.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let current = maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// The soft limit, which is the one in effect.
#[must_use]
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_limit() {
        let raised = raise_descriptor_limit().expect("allowed");
        assert_eq!(raised, descriptor_limit());
        assert_eq!(raised, descriptors_allowed());
    }
}

//! The clock of the process. A shard gets the time once per turn; code below the reactor never
//! reads a clock.

use std::time::{self, SystemTime, UNIX_EPOCH};

use crate::model::{Instant, Now, UnixMillis};

/// Monotonic time since the clock's start (`CLOCK_MONOTONIC`), with wall time beside it
/// (`CLOCK_REALTIME`). All threads share one clock, so an [`Instant`] means the same on every
/// shard.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: time::Instant,
}

impl Clock {
    /// Starts a clock with its zero at the present time. Called once, at the start of the process.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: time::Instant::now(),
        }
    }

    /// Reads monotonic and wall time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: wall(),
        }
    }

    /// Reads monotonic time without wall time.
    #[must_use]
    pub fn mono(&self) -> Instant {
        Instant::ZERO.after(self.origin.elapsed())
    }
}

/// Milliseconds since the epoch. Negative for a clock set before 1970, as in Kafka's timestamps.
fn wall() -> UnixMillis {
    let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    UnixMillis(millis)
}

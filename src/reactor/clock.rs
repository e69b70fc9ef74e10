//! The one clock of the process. Shards see it once a turn; nobody below the reactor reads time.

use std::time::{self, SystemTime, UNIX_EPOCH};

use crate::model::{Instant, Now, UnixMillis};

/// Counts from its own start, so that all shards and the control thread mean the same by an
/// [`Instant`]. `CLOCK_MONOTONIC` beside `CLOCK_REALTIME`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: time::Instant,
}

impl Clock {
    /// A clock whose zero is now: made once, at the start of the process.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: time::Instant::now(),
        }
    }

    /// Both clocks, read together.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: wall(),
        }
    }

    /// Monotonic time alone.
    #[must_use]
    pub fn mono(&self) -> Instant {
        Instant::ZERO.after(self.origin.elapsed())
    }
}

/// Milliseconds since the epoch; a clock set before 1970 is negative, as Kafka allows.
fn wall() -> UnixMillis {
    let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    UnixMillis(millis)
}

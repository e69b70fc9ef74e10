//! Time for pure rooms. The driver reads the clock once per turn and passes the time in.

use std::time::Duration;

/// Monotonic time in nanoseconds since an origin that the driver chooses: the start of the process,
/// or zero in the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// Later than every time that is reached.
    pub const MAX: Self = Self(u64::MAX);

    /// The origin of the driver's clock.
    pub const ZERO: Self = Self(0);

    /// The time `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`, or zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time `by` later. It saturates after 584 years instead of wrapping.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// Wall time in milliseconds since the Unix epoch, as in Kafka's timestamps. May be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

/// Monotonic and wall time, read together once per turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, for deadlines and waits. It never jumps.
    pub mono: Instant,
    /// Wall time, for record timestamps, event ids and HTTP dates. It may jump.
    pub wall: UnixMillis,
}

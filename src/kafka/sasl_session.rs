//! The lifetime of an authenticated session (KIP-368): when to log in again, and when it is too
//! late for that.

use std::time::Duration;

use crate::model::{FastRandom, Instant};

/// How long after its end a session may still be renewed. Responses in flight had to be waited for,
/// and a broker checks the session only when it receives another request than SASL's.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct SaslSession {
    /// From here on no request is sent. Once all responses have come, SASL is repeated.
    pub(super) renew_at: Instant,
    end_at: Instant,
}

impl SaslSession {
    /// A session of this lifetime. `None`: the session has no end.
    pub(super) fn new(lifetime_ms: i64, now: Instant, jitter: &mut FastRandom) -> Option<Self> {
        let lifetime = u64::try_from(lifetime_ms).ok().filter(|&ms| ms > 0)?;
        // Between 80 and 90 %, so that connections made together are not renewed together.
        let percent = 80 + jitter.below(10);
        let part = lifetime.saturating_mul(percent) / 100;
        Some(Self {
            renew_at: now.after(Duration::from_millis(part)),
            end_at: now.after(Duration::from_millis(lifetime)),
        })
    }

    /// Whether it can't be renewed any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end_at.after(GRACE) <= now
    }
}

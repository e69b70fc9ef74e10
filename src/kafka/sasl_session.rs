//! For how long a broker believes us (KIP-368): when to say again who we are, and when it is too
//! late for that.

use std::time::Duration;

use crate::model::{FastRandom, Instant};

/// How long after its end a session may be renewed: what was in flight had to be waited for, and
/// brokers look at the clock only when something else than SASL is asked.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct SaslSession {
    /// From here on nothing new is asked, and when all is answered SASL begins anew.
    pub(super) renew_at: Instant,
    end_at: Instant,
}

impl SaslSession {
    /// One that lives for so long; `None`: for ever.
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

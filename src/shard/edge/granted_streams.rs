//! Streams that depend on a credential: when each must ask its page for another credential, when it
//! ends, and which end because a key was removed. Streams of anonymous clients are not here, so
//! they cost nothing.
//!
//! A credential expires by the wall clock, which may jump. Times are therefore compared with the
//! wall time of each turn, and a shard with such streams turns once a second.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Grant, KeyRef, Keys};
use crate::model::{ExchangeId, Instant, Now, UnixMillis};

/// How long before the expiry a page is asked for another credential.
const CHALLENGE_BEFORE_MS: i64 = 30_000;

/// How often the wall time is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Streams whose key is looked up in one turn after the keys have changed.
const RECHECKS_MAX: usize = 1024;

/// What is due for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The credential expires soon.
    Challenge,
    /// The credential has expired, or its key was removed.
    End,
}

/// A stream and the credential that it depends on.
#[derive(Clone, Copy, Debug)]
struct Granted {
    key: KeyRef,
    /// When the credential ends.
    ends: Option<UnixMillis>,
    /// The stream's entry in `GrantedStreams::due`.
    due: Option<UnixMillis>,
}

/// The streams of one shard that depend on a credential.
#[derive(Debug)]
pub(super) struct GrantedStreams {
    streams: HashMap<ExchangeId, Granted, ahash::RandomState>,
    due: BTreeSet<(UnixMillis, ExchangeId)>,
    /// Streams whose key may be gone.
    rechecks: Vec<ExchangeId>,
    keys: Arc<Keys>,
    /// When the wall time is looked at next.
    look_at: Option<Instant>,
}

impl GrantedStreams {
    pub(super) fn new() -> Self {
        Self {
            // The gateway numbers exchanges itself: no client chooses where they collide.
            streams: HashMap::with_hasher(ahash::RandomState::with_seeds(5, 6, 7, 8)),
            due: BTreeSet::new(),
            rechecks: Vec::new(),
            keys: Arc::default(),
            look_at: None,
        }
    }

    /// A stream begins under a credential.
    pub(super) fn add(&mut self, exchange: ExchangeId, grant: &Grant, now: Now) {
        let ends = grant.ends();
        let due = grant
            .expires
            .map(|it| UnixMillis(it.0.saturating_sub(CHALLENGE_BEFORE_MS)));
        let key = grant.key;
        self.streams.insert(exchange, Granted { key, ends, due });
        if let Some(due) = due {
            self.due.insert((due, exchange));
            self.plan(now);
        }
    }

    /// A stream has ended.
    pub(super) fn remove(&mut self, exchange: ExchangeId) {
        if let Some(granted) = self.streams.remove(&exchange)
            && let Some(due) = granted.due
        {
            self.due.remove(&(due, exchange));
        }
    }

    /// Other keys vouch for credentials from now on.
    pub(super) fn set_keys(&mut self, keys: Arc<Keys>) {
        self.keys = keys;
        self.rechecks.clear();
        self.rechecks.extend(self.streams.keys());
    }

    /// The next stream for which something is due. `None`: nothing is, or the turn has looked at
    /// enough.
    pub(super) fn next_due(&mut self, now: Now) -> Option<(ExchangeId, Due)> {
        for _ in 0..RECHECKS_MAX {
            let Some(exchange) = self.rechecks.pop() else {
                break;
            };
            let key = self.streams.get(&exchange).map(|it| it.key);
            if key.is_some_and(|key| !self.keys.has(key)) {
                self.remove(exchange);
                return Some((exchange, Due::End));
            }
        }
        let (at, exchange) = self.due.first().copied()?;
        if at > now.wall {
            self.plan(now);
            return None;
        }
        self.due.pop_first();
        let granted = self.streams.get_mut(&exchange)?;
        granted.due = granted.ends.filter(|ends| *ends > now.wall);
        match granted.due {
            Some(ends) => {
                self.due.insert((ends, exchange));
                Some((exchange, Due::Challenge))
            }
            None => Some((exchange, Due::End)),
        }
    }

    fn plan(&mut self, now: Now) {
        self.look_at = self.due.first().map(|(at, _)| {
            let wait = u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0);
            now.mono.after(Duration::from_millis(wait).min(LOOK_EVERY))
        });
    }

    /// When [`Self::next_due`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.rechecks.is_empty() {
            self.look_at.filter(|_| !self.due.is_empty())
        } else {
            Some(Instant::ZERO)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Scopes;
    use crate::model::{Principal, ShardId};

    fn exchange(slot: u32) -> ExchangeId {
        ExchangeId {
            shard: ShardId(0),
            slot,
            generation: 0,
        }
    }

    fn grant(expires_s: i64) -> Grant {
        Grant {
            principal: Principal::ANONYMOUS,
            scopes: Scopes::default(),
            expires: Some(UnixMillis(expires_s * 1000)),
            key: KeyRef::Certificate,
        }
    }

    /// Wall and monotonic time, in seconds.
    const fn at(wall_s: i64, mono_s: u64) -> Now {
        Now {
            mono: Instant::from_nanos(mono_s * 1_000_000_000),
            wall: UnixMillis(wall_s * 1000),
        }
    }

    #[test]
    fn a_page_is_asked_30_s_before_and_the_stream_ends_after_the_leeway() {
        let mut streams = GrantedStreams::new();
        streams.add(exchange(1), &grant(1_000), at(900, 0));
        streams.add(exchange(2), &grant(1_000), at(900, 0));
        assert_eq!(streams.next_due(at(969, 69)), None);
        assert_eq!(
            streams.next_deadline(),
            Some(Instant::from_nanos(70_000_000_000))
        );
        let both = [1, 2].map(|slot| Some((exchange(slot), Due::Challenge)));
        assert_eq!([0; 2].map(|_| streams.next_due(at(970, 70))), both);
        assert_eq!(streams.next_due(at(970, 70)), None);
        streams.remove(exchange(1));
        assert_eq!(streams.next_due(at(1_004, 104)), None, "the leeway");
        let end = Some((exchange(2), Due::End));
        assert_eq!(streams.next_due(at(1_005, 105)), end);
        streams.remove(exchange(2));
        assert_eq!(
            (streams.next_due(at(2_000, 900)), streams.next_deadline()),
            (None, None)
        );
    }

    /// R21: credentials follow the wall clock, which may jump.
    #[test]
    fn a_jump_of_the_wall_clock_is_noticed_within_a_second() {
        let mut streams = GrantedStreams::new();
        streams.add(exchange(1), &grant(100_000), at(0, 0));
        assert_eq!(
            streams.next_deadline(),
            Some(Instant::from_nanos(1_000_000_000))
        );
        assert_eq!(
            streams.next_due(at(100_006, 1)),
            Some((exchange(1), Due::End))
        );
    }

    #[test]
    fn a_stream_that_begins_late_is_asked_at_once() {
        let mut streams = GrantedStreams::new();
        streams.add(exchange(1), &grant(1_000), at(990, 0));
        let asked = Some((exchange(1), Due::Challenge));
        assert_eq!(streams.next_due(at(990, 0)), asked);
        assert_eq!(streams.next_due(at(990, 0)), None);
    }

    #[test]
    fn streams_of_a_removed_key_end_some_a_turn() {
        const STREAMS: u32 = 3_000;
        let mut streams = GrantedStreams::new();
        for slot in 0..STREAMS {
            let key = KeyRef::ApiKey([u8::from(slot % 2 == 0); 16]);
            let expires = None;
            let grant = Grant {
                key,
                expires,
                ..grant(0)
            };
            streams.add(exchange(slot), &grant, at(0, 0));
        }
        assert_eq!(streams.next_deadline(), None);
        streams.set_keys(Arc::default());
        assert_eq!(streams.next_deadline(), Some(Instant::ZERO));
        let mut ended = 0;
        while let Some((exchange, due)) = streams.next_due(at(1, 1)) {
            assert_eq!(due, Due::End);
            streams.remove(exchange);
            ended += 1;
        }
        assert_eq!(ended, STREAMS);
        assert!(streams.streams.is_empty());
    }
}

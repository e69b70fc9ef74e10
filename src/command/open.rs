//! Commands opened and not yet answered.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;

use super::recipe::fingerprints_differ;
use crate::model::{CommandKey, CorrelationId, Fingerprint, Instant};

/// How much may be open, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// Commands open at once.
    pub entries_max: usize,
    /// Clients waiting at once, over all commands.
    pub waiters_max: usize,
    /// Clients waiting for one command.
    pub waiters_per_command_max: usize,
    /// How long a command without a reply stays open (DESIGN: 10 min).
    pub open_limit: Duration,
    /// How long one stays open that may never have been appended: 2 × `delivery_timeout`.
    pub unknown_limit: Duration,
}

/// Which limit refuses a command, before anything is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `entries_max`.
    Commands,
    /// `waiters_max`.
    Waiters,
    /// `waiters_per_command_max`.
    WaitersOfOne,
}

/// What becomes of a command that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nobody has it open: produce it now. The waiter waits.
    Opened,
    /// It is open: the waiter waits for the same reply, nothing is produced.
    Joined,
    /// It is open and asked for something else: 422.
    Mismatch,
    /// No room; nothing changed.
    Full(Limit),
}

/// Those who wait for one command.
pub type Waiters<W> = SmallVec<[W; 2]>;

/// A waiter whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired<W> {
    /// The command, which stays open: it may run yet. A home that still has it unsent takes it out
    /// of its writer and calls [`OpenCommands::on_refused`]: 503; else it is a 504.
    pub key: CommandKey,
    /// Who waited.
    pub waiter: W,
}

/// Facts to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStats {
    /// Commands open.
    pub entries: usize,
    /// Clients waiting.
    pub waiters: usize,
    /// Commands that closed without a reply after `open_limit` or `unknown_limit`, ever.
    pub given_up: u64,
}

/// Deadlines that one call of [`OpenCommands::on_timeout`] takes.
const TIMEOUTS_MAX: usize = 1024;

/// Commands opened and not yet answered. Holds no socket, timer or clock: the shard brings the time
/// and the replies, and acts on what comes back. An entry outlives its waiters: a client that gave
/// up must not turn its own retry into a second command.
#[derive(Debug)]
pub struct OpenCommands<W> {
    limits: OpenLimits,
    entries: HashMap<CommandKey, Open<W>, RandomState>,
    /// One row for each waiter and one for each entry's own limit; taken out with them, so its size
    /// is bounded by theirs.
    deadlines: BTreeMap<Due, CommandKey>,
    next_serial: u64,
    waiters: usize,
    given_up: u64,
}

/// A deadline; the serial makes it unique and says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    serial: u64,
}

#[derive(Debug)]
struct Open<W> {
    fingerprint: Fingerprint,
    /// When it closes without a reply.
    ends: Due,
    waiters: SmallVec<[(W, Due); 1]>,
}

impl<W: Copy + PartialEq> OpenCommands<W> {
    /// An empty table. `hasher` is seeded by the shard: keys can be ground by who sends them.
    #[must_use]
    pub fn new(limits: OpenLimits, hasher: RandomState) -> Self {
        Self {
            limits,
            entries: HashMap::with_hasher(hasher),
            deadlines: BTreeMap::new(),
            next_serial: 0,
            waiters: 0,
            given_up: 0,
        }
    }

    /// Says what becomes of a command that has no reply yet. `waiter` comes with its deadline; it
    /// is `None` for a command that nobody waits for (`respond-async`).
    pub fn admit(
        &mut self,
        key: CommandKey,
        fingerprint: Fingerprint,
        waiter: Option<(W, Instant)>,
        now: Instant,
    ) -> Admission {
        let waiting = match self.entries.get(&key) {
            Some(open) if fingerprints_differ(open.fingerprint, fingerprint) => {
                return Admission::Mismatch;
            }
            Some(open) => open.waiters.len(),
            None if self.entries.len() >= self.limits.entries_max => {
                return Admission::Full(Limit::Commands);
            }
            None => 0,
        };
        if waiter.is_some() {
            if self.waiters >= self.limits.waiters_max {
                return Admission::Full(Limit::Waiters);
            }
            if waiting >= self.limits.waiters_per_command_max {
                return Admission::Full(Limit::WaitersOfOne);
            }
        }
        let joined = self.entries.contains_key(&key);
        if !joined {
            let ends = self.due(now.after(self.limits.open_limit), key);
            let waiters = SmallVec::new();
            let open = Open {
                fingerprint,
                ends,
                waiters,
            };
            self.entries.insert(key, open);
        }
        if let Some((waiter, deadline)) = waiter {
            let due = self.due(deadline, key);
            let open = self.entries.get_mut(&key);
            let open = open.expect("it was there or was inserted above");
            open.waiters.push((waiter, due));
            self.waiters += 1;
        }
        match joined {
            true => Admission::Joined,
            false => Admission::Opened,
        }
    }

    /// The fingerprint a command was opened with, if it is open: a route that answers 409 instead
    /// of joining asks this first.
    #[must_use]
    pub fn get(&self, key: CommandKey) -> Option<Fingerprint> {
        self.entries.get(&key).map(|open| open.fingerprint)
    }

    /// How many wait for a command.
    #[must_use]
    pub fn waiters(&self, key: CommandKey) -> usize {
        self.entries.get(&key).map_or(0, |open| open.waiters.len())
    }

    /// The command was not and will not be appended: it closes, and everyone who waits is handed
    /// back (503).
    pub fn on_refused(&mut self, key: CommandKey) -> Waiters<W> {
        self.close(key).unwrap_or_default()
    }

    /// Whether the command was appended will never be known: everyone who waits is handed back
    /// (504), and it stays open for `unknown_limit` from now, so that a retry joins.
    pub fn on_unknown(&mut self, key: CommandKey, now: Instant) -> Waiters<W> {
        let ends = now.after(self.limits.unknown_limit);
        let Some(open) = self.entries.get_mut(&key) else {
            return Waiters::new();
        };
        let waiters = std::mem::take(&mut open.waiters);
        if ends < open.ends.at {
            self.deadlines.remove(&open.ends);
            open.ends.at = ends;
            self.deadlines.insert(open.ends, key);
        }
        self.release(waiters)
    }

    /// Closes the entry of the answered request and returns every exchange that waits for it.
    /// `None` is normal: the reply is late, or answers a request of another instance. A request
    /// with another fingerprint under the same command key stays open until its own reply.
    pub fn on_reply(&mut self, id: CorrelationId) -> Option<Waiters<W>> {
        let open = self.entries.get(&id.key)?;
        (open.fingerprint == id.fingerprint).then(|| self.close(id.key))?
    }

    /// A client has gone; its command stays.
    pub fn on_gone(&mut self, key: CommandKey, waiter: W) {
        let Some(open) = self.entries.get_mut(&key) else {
            return;
        };
        let Some(index) = open.waiters.iter().position(|(w, _)| *w == waiter) else {
            return;
        };
        let (_, due) = open.waiters.swap_remove(index);
        self.deadlines.remove(&due);
        self.waiters -= 1;
    }

    /// When `on_timeout` next has work. The shard keeps one timer armed for this.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|(due, _)| due.at)
    }

    /// Waiters past their deadline leave; their entries stay until the reply or their limit.
    /// Bounded work: what is left shows in `next_deadline`.
    pub fn on_timeout(&mut self, now: Instant, expired: &mut Vec<Expired<W>>) {
        for _ in 0..TIMEOUTS_MAX {
            let Some(first) = self.deadlines.first_entry().filter(|e| e.key().at <= now) else {
                return;
            };
            let (due, key) = first.remove_entry();
            let open = self.entries.get_mut(&key);
            let open = open.expect("a deadline goes with its entry");
            if open.ends == due {
                self.given_up += 1;
                let left = self.close(key).unwrap_or_default().into_iter();
                expired.extend(left.map(|waiter| Expired { key, waiter }));
                continue;
            }
            let index = open.waiters.iter().position(|(_, d)| *d == due);
            let index = index.expect("a deadline goes with its waiter");
            let (waiter, _) = open.waiters.swap_remove(index);
            self.waiters -= 1;
            expired.push(Expired { key, waiter });
        }
    }

    /// The facts.
    #[must_use]
    pub fn stats(&self) -> OpenStats {
        OpenStats {
            entries: self.entries.len(),
            waiters: self.waiters,
            given_up: self.given_up,
        }
    }

    fn due(&mut self, at: Instant, key: CommandKey) -> Due {
        let serial = self.next_serial;
        self.next_serial += 1;
        let due = Due { at, serial };
        self.deadlines.insert(due, key);
        due
    }

    fn close(&mut self, key: CommandKey) -> Option<Waiters<W>> {
        let open = self.entries.remove(&key)?;
        self.deadlines.remove(&open.ends);
        Some(self.release(open.waiters))
    }

    fn release(&mut self, waiters: SmallVec<[(W, Due); 1]>) -> Waiters<W> {
        self.waiters -= waiters.len();
        let mut released = Waiters::new();
        for (waiter, due) in waiters {
            self.deadlines.remove(&due);
            released.push(waiter);
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: OpenLimits = OpenLimits {
        entries_max: 3,
        waiters_max: 4,
        waiters_per_command_max: 2,
        open_limit: Duration::from_secs(600),
        unknown_limit: Duration::from_secs(60),
    };
    const A: CommandKey = CommandKey([1; 16]);
    const F: Fingerprint = Fingerprint([1; 16]);

    fn id(key: CommandKey) -> CorrelationId {
        CorrelationId {
            key,
            fingerprint: F,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    fn table() -> OpenCommands<u32> {
        OpenCommands::new(LIMITS, RandomState::with_seeds(1, 2, 3, 4))
    }

    fn expired(table: &mut OpenCommands<u32>, now: Instant) -> Vec<u32> {
        let mut expired = Vec::new();
        table.on_timeout(now, &mut expired);
        expired.into_iter().map(|e| e.waiter).collect()
    }

    #[test]
    fn an_entry_outlives_its_waiters_and_a_retry_joins() {
        let mut table = table();
        assert_eq!(
            table.admit(A, F, Some((1, at(10))), at(0)),
            Admission::Opened
        );
        assert_eq!(table.next_deadline(), Some(at(10)));
        assert!(expired(&mut table, at(9)).is_empty());
        assert_eq!(expired(&mut table, at(10)), [1]);
        assert_eq!(
            table.admit(A, F, Some((2, at(30))), at(20)),
            Admission::Joined
        );
        let waiters = table.on_reply(id(A)).expect("open");
        assert_eq!(&waiters[..], [2]);
        assert_eq!(table.on_reply(id(A)), None);
        assert_eq!(
            (table.next_deadline(), table.stats()),
            (None, OpenStats::default())
        );
    }

    #[test]
    fn the_reply_to_another_request_under_the_key_closes_nothing() {
        let mut table = table();
        table.admit(A, F, Some((1, at(10))), at(0));
        // One fingerprint of the same recipe, and one of another recipe, which can't be compared.
        for first in [F.0[0], F.0[0] + 1] {
            let mut fingerprint = Fingerprint([9; 16]);
            fingerprint.0[0] = first;
            let other = CorrelationId {
                key: A,
                fingerprint,
            };
            assert_eq!(table.on_reply(other), None);
            assert_eq!((table.get(A), table.waiters(A)), (Some(F), 1));
        }
        assert_eq!(expired(&mut table, at(10)), [1], "504 at its own deadline");
        assert_eq!(table.get(A), Some(F), "and a retry joins what is in flight");
        assert!(table.on_reply(id(A)).is_some());
    }

    #[test]
    fn open_ends_at_its_limit_with_those_who_still_wait() {
        let mut table = table();
        table.admit(A, F, Some((1, at(900))), at(0));
        assert!(expired(&mut table, at(599)).is_empty());
        assert_eq!(expired(&mut table, at(600)), [1]);
        assert_eq!((table.get(A), table.stats().given_up), (None, 1));
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn refused_closes_and_unknown_keeps_open_for_a_while() {
        let mut table = table();
        table.admit(A, F, Some((1, at(10))), at(0));
        assert_eq!(&table.on_refused(A)[..], [1]);
        assert_eq!(
            table.admit(A, F, Some((2, at(10))), at(0)),
            Admission::Opened
        );
        assert_eq!(&table.on_unknown(A, at(5))[..], [2]);
        assert_eq!(
            table.admit(A, F, Some((3, at(100))), at(6)),
            Admission::Joined
        );
        assert_eq!(expired(&mut table, at(65)), [3]);
        assert_eq!(table.get(A), None);
        assert_eq!(table.admit(A, F, None, at(66)), Admission::Opened);
    }

    #[test]
    fn unknown_never_prolongs() {
        let mut table = table();
        table.admit(A, F, None, at(0));
        table.on_unknown(A, at(590));
        expired(&mut table, at(600));
        assert_eq!(table.get(A), None);
    }

    #[test]
    fn another_fingerprint_is_a_mismatch_even_when_full() {
        let mut table = table();
        for n in 0..3 {
            let key = CommandKey([n; 16]);
            assert_eq!(table.admit(key, F, None, at(0)), Admission::Opened);
        }
        let mut other = F;
        other.0[15] = 9;
        assert_eq!(table.admit(A, other, None, at(0)), Admission::Mismatch);
        let more = CommandKey([9; 16]);
        let full = Admission::Full(Limit::Commands);
        assert_eq!(table.admit(more, F, None, at(0)), full);
        assert_eq!(table.stats().entries, 3);
    }

    #[test]
    fn waiters_are_bounded_for_one_and_for_all_and_leave_room_when_they_go() {
        let mut table = table();
        let b = CommandKey([2; 16]);
        table.admit(A, F, Some((1, at(10))), at(0));
        table.admit(A, F, Some((2, at(10))), at(0));
        let full = table.admit(A, F, Some((3, at(10))), at(0));
        assert_eq!(full, Admission::Full(Limit::WaitersOfOne));
        table.admit(b, F, Some((4, at(10))), at(0));
        table.admit(b, F, Some((5, at(10))), at(0));
        let c = CommandKey([3; 16]);
        let full = table.admit(c, F, Some((6, at(10))), at(0));
        assert_eq!(full, Admission::Full(Limit::Waiters));
        assert_eq!(table.get(c), None, "refused while it was free to refuse");
        table.on_gone(A, 1);
        table.on_gone(A, 1);
        assert_eq!(
            table.admit(A, F, Some((3, at(10))), at(0)),
            Admission::Joined
        );
    }

    #[test]
    fn a_flood_of_deadlines_is_taken_in_pieces() {
        let limits = OpenLimits {
            entries_max: 5000,
            waiters_max: 5000,
            ..LIMITS
        };
        let mut table = OpenCommands::new(limits, RandomState::with_seeds(1, 2, 3, 4));
        for n in 0..3000_u32 {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&n.to_be_bytes());
            table.admit(CommandKey(key), F, Some((n, at(1))), at(0));
        }
        assert_eq!(expired(&mut table, at(1)).len(), TIMEOUTS_MAX);
        assert_eq!(table.next_deadline(), Some(at(1)));
        assert_eq!(
            expired(&mut table, at(1)).len() + expired(&mut table, at(1)).len(),
            1976
        );
    }

    proptest! {
        /// Every waiter that was let in comes out exactly once, and nothing is left behind.
        #[test]
        fn each_waiter_comes_out_once(
            acts in prop::collection::vec((0..6_u8, 0..5_u8, 0..50_u64), 0..120),
        ) {
            let mut table = table();
            let (mut inside, mut next, mut now) = (BTreeSet::new(), 0_u32, at(0));
            for (act, key, seconds) in acts {
                let key = CommandKey([key; 16]);
                let out: Vec<u32> = match act {
                    0 | 1 => {
                        next += 1;
                        let deadline = now.after(Duration::from_secs(seconds));
                        match table.admit(key, F, Some((next, deadline)), now) {
                            Admission::Opened | Admission::Joined => inside.insert(next),
                            Admission::Full(_) | Admission::Mismatch => false,
                        };
                        vec![]
                    }
                    2 => table.on_reply(id(key)).map(|w| w.to_vec()).unwrap_or_default(),
                    3 => table.on_refused(key).to_vec(),
                    4 => table.on_unknown(key, now).to_vec(),
                    _ => {
                        now = now.after(Duration::from_secs(seconds));
                        expired(&mut table, now)
                    }
                };
                for waiter in out {
                    prop_assert!(inside.remove(&waiter));
                }
                prop_assert_eq!(table.stats().waiters, inside.len());
                prop_assert_eq!(table.deadlines.len(), inside.len() + table.entries.len());
            }
            let left = expired(&mut table, at(100_000));
            prop_assert_eq!(left.into_iter().collect::<BTreeSet<u32>>(), inside);
            prop_assert_eq!((table.entries.len(), table.deadlines.len()), (0, 0));
        }
    }
}

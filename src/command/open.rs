//! Commands in flight: sent and not yet answered.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;

use super::recipe::fingerprints_differ;
use super::state::{CommandEvent, CommandState, Effect};
use crate::model::{Bug, CommandKey, CorrelationId, Fingerprint, Instant, is_planted};

/// How many commands may be in flight, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// Commands in flight at once.
    pub entries_max: usize,
    /// Exchanges that wait at once, over all commands.
    pub waiters_max: usize,
    /// Exchanges that wait for one command.
    pub waiters_per_command_max: usize,
    /// How long a command without a reply stays in flight (DESIGN: 10 min).
    pub open_limit: Duration,
    /// How long a command stays in flight if its record may never have been appended: 2 ×
    /// `delivery_timeout`.
    pub unknown_limit: Duration,
}

/// The limit that rejects a command, before anything is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`OpenLimits::entries_max`] commands are in flight.
    Commands,
    /// [`OpenLimits::waiters_max`] exchanges wait, over all commands.
    Waiters,
    /// [`OpenLimits::waiters_per_command_max`] exchanges wait for this command.
    WaitersOfOne,
}

/// The decision about a command that has no reply yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The command was not in flight: the caller produces its record now. The exchange waits.
    Opened,
    /// The command is in flight: the exchange waits for the same reply, and nothing is produced.
    Joined,
    /// The command's record is appended and its reply is due, and the client does not wait for it:
    /// 202. Nothing changed.
    Accepted,
    /// The command key is in flight with another fingerprint: 422.
    Mismatch,
    /// There is no room. Nothing changed.
    Full(Limit),
}

/// The exchanges that wait for one command.
pub type Waiters<W> = SmallVec<[W; 2]>;

/// An exchange that wants the outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewWaiter<W> {
    /// The exchange.
    pub waiter: W,
    /// When it stops waiting without an outcome.
    pub deadline: Instant,
    /// For a client that prefers an asynchronous answer: when the exchange stops waiting for the
    /// reply, if the record is appended by then, or else once it is. `None`: it waits for the
    /// reply.
    pub accept_at: Option<Instant>,
}

impl<W> NewWaiter<W> {
    /// When the exchange stops waiting for a command that is appended, or is not.
    fn ends(&self, appended: bool) -> Instant {
        let accept_at = self.accept_at.filter(|_| appended);
        accept_at.map_or(self.deadline, |at| at.min(self.deadline))
    }
}

/// An exchange whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired<W> {
    /// The command, which stays in flight, since it may still run. If its record is still unsent,
    /// the home withdraws it and calls [`OpenCommands::on_refused`]: 503. Otherwise the answer is
    /// 504.
    pub key: CommandKey,
    /// The exchange that stops waiting and must be answered.
    pub waiter: W,
    /// The record is appended and the client prefers an asynchronous answer: 202.
    pub accepted: bool,
}

/// What [`OpenCommands`] holds and has given up, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStats {
    /// Commands in flight, with or without a waiting exchange.
    pub entries: usize,
    /// Exchanges that wait, over all commands.
    pub waiters: usize,
    /// Commands that closed without a reply after `open_limit` or `unknown_limit`, over the table's
    /// lifetime.
    pub given_up: u64,
}

/// Deadlines that one call of [`OpenCommands::on_timeout`] takes.
const TIMEOUTS_MAX: usize = 1024;

/// In-flight commands: admitted and not yet answered. Holds no socket, timer or clock: the shard
/// supplies the time and the replies, and acts on the results. An entry outlives the exchanges that
/// wait for it; otherwise the retry of a client that gave up would be a second command.
#[derive(Debug)]
pub struct OpenCommands<W> {
    limits: OpenLimits,
    entries: HashMap<CommandKey, OpenCommand<W>, RandomState>,
    /// One row for each waiting exchange and one for each entry's own limit. A row is removed with
    /// its exchange or entry, so the limits bound the rows too.
    deadlines: BTreeMap<WaitDeadline, CommandKey>,
    next_serial: u64,
    waiters: usize,
    given_up: u64,
}

/// A deadline. The serial makes it unique, and shows which exchange or entry it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WaitDeadline {
    at: Instant,
    serial: u64,
}

#[derive(Debug)]
struct OpenCommand<W> {
    state: CommandState,
    fingerprint: Fingerprint,
    /// When it closes without a reply.
    ends: WaitDeadline,
    waiters: SmallVec<[Waiting<W>; 1]>,
}

/// An exchange that waits, and the row of `deadlines` that ends its wait.
#[derive(Clone, Copy, Debug)]
struct Waiting<W> {
    waiter: NewWaiter<W>,
    ends: WaitDeadline,
}

impl<W: Copy + PartialEq> OpenCommands<W> {
    /// An empty table. `hasher` is seeded by the shard, because clients choose the keys and could
    /// otherwise make them collide.
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

    /// Decides about a command that has no reply yet. `waiter`: the exchange of the request, or
    /// `None` if none waits.
    pub fn admit(
        &mut self,
        key: CommandKey,
        fingerprint: Fingerprint,
        waiter: Option<NewWaiter<W>>,
        now: Instant,
    ) -> Admission {
        let open = self.entries.get(&key);
        let differs = open.is_some_and(|it| fingerprints_differ(it.fingerprint, fingerprint));
        let event = if differs {
            CommandEvent::OtherRequest
        } else {
            CommandEvent::Request
        };
        let (state, effect) = self.state(key).on(event);
        let admission = match effect {
            Effect::Produce => Admission::Opened,
            Effect::Join => Admission::Joined,
            _ => return Admission::Mismatch,
        };
        let appended = state == CommandState::Appended;
        let accept_at = waiter.and_then(|it| it.accept_at);
        if appended && accept_at.is_some_and(|at| at <= now) {
            return Admission::Accepted;
        }
        if let Some(limit) = self.full(key, waiter.is_some()) {
            return Admission::Full(limit);
        }
        if admission == Admission::Opened {
            let ends = self.due(now.after(self.limits.open_limit), key);
            let open = OpenCommand {
                state,
                fingerprint,
                ends,
                waiters: SmallVec::new(),
            };
            self.entries.insert(key, open);
        }
        if let Some(waiter) = waiter {
            let ends = self.due(waiter.ends(appended), key);
            let open = self.entries.get_mut(&key);
            let open = open.expect("it was there or was inserted above");
            open.waiters.push(Waiting { waiter, ends });
            self.waiters += 1;
        }
        admission
    }

    /// The limit that rejects a request under `key`, if there is one.
    fn full(&self, key: CommandKey, waits: bool) -> Option<Limit> {
        let open = self.entries.get(&key);
        if open.is_none() && self.entries.len() >= self.limits.entries_max {
            return Some(Limit::Commands);
        }
        if !waits {
            return None;
        }
        if self.waiters >= self.limits.waiters_max {
            return Some(Limit::Waiters);
        }
        let waiting = open.map_or(0, |it| it.waiters.len());
        let bounded = !is_planted(Bug::JoinWithoutBound);
        (bounded && waiting >= self.limits.waiters_per_command_max).then_some(Limit::WaitersOfOne)
    }

    fn state(&self, key: CommandKey) -> CommandState {
        let open = self.entries.get(&key);
        open.map_or(CommandState::Absent, |it| it.state)
    }

    /// Closes a command if `event` ends it, and returns every exchange that waits for it.
    fn end(&mut self, key: CommandKey, event: CommandEvent) -> Option<Waiters<W>> {
        let (state, effect) = self.state(key).on(event);
        let ends = state == CommandState::Absent && effect != Effect::None;
        ends.then(|| self.close(key))?
    }

    /// The fingerprint of a command, if it is in flight.
    #[must_use]
    pub fn get(&self, key: CommandKey) -> Option<Fingerprint> {
        self.entries.get(&key).map(|open| open.fingerprint)
    }

    /// The number of exchanges that wait for a command.
    #[must_use]
    pub fn waiters(&self, key: CommandKey) -> usize {
        self.entries.get(&key).map_or(0, |open| open.waiters.len())
    }

    /// The record was not and will not be appended: the command closes. Returns every exchange that
    /// waits for it (503).
    pub fn on_refused(&mut self, key: CommandKey) -> Waiters<W> {
        self.end(key, CommandEvent::Refused).unwrap_or_default()
    }

    /// The broker has confirmed the record. Returns the exchanges whose clients do not wait any
    /// longer for the reply (202). The others wait for it, or until their `accept_at`.
    pub fn on_appended(&mut self, key: CommandKey, now: Instant) -> Waiters<W> {
        let (state, effect) = self.state(key).on(CommandEvent::Appended);
        let Some(open) = self.entries.get_mut(&key) else {
            return Waiters::new();
        };
        debug_assert_eq!(effect, Effect::Accept);
        open.state = state;
        let mut accepted = SmallVec::new();
        open.waiters.retain(|waiting| {
            let at = waiting.waiter.ends(true);
            let accepts = waiting.waiter.accept_at.is_some() && at <= now;
            if accepts {
                accepted.push(*waiting);
            } else if at != waiting.ends.at {
                self.deadlines.remove(&waiting.ends);
                waiting.ends.at = at;
                self.deadlines.insert(waiting.ends, key);
            }
            !accepts
        });
        self.release(accepted)
    }

    /// Whether the record was appended will never be known. Returns every exchange that waits
    /// (504). The command stays for `unknown_limit` from now, so that a retry joins it.
    pub fn on_unknown(&mut self, key: CommandKey, now: Instant) -> Waiters<W> {
        let (state, effect) = self.state(key).on(CommandEvent::OutcomeLost);
        let Some(open) = self.entries.get_mut(&key) else {
            return Waiters::new();
        };
        if effect != Effect::GiveUp {
            return Waiters::new(); // The log has the record.
        }
        open.state = state;
        let waiters = std::mem::take(&mut open.waiters);
        let ends = now.after(self.limits.unknown_limit);
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
        let event = if open.fingerprint == id.fingerprint {
            CommandEvent::Reply
        } else {
            CommandEvent::OtherReply
        };
        self.end(id.key, event)
    }

    /// A waiting client has disconnected. Its command stays.
    pub fn on_left(&mut self, key: CommandKey, waiter: W) {
        let Some(open) = self.entries.get_mut(&key) else {
            return;
        };
        let mut waiters = open.waiters.iter();
        let Some(index) = waiters.position(|it| it.waiter.waiter == waiter) else {
            return;
        };
        (open.state, _) = open.state.on(CommandEvent::WaiterLeft);
        let left = open.waiters.swap_remove(index);
        self.deadlines.remove(&left.ends);
        self.waiters -= 1;
        if is_planted(Bug::FreedWithItsWaiter) && open.waiters.is_empty() {
            self.close(key);
        }
    }

    /// When `on_timeout` next has work. The shard keeps one timer armed for this.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|(due, _)| due.at)
    }

    /// Moves exchanges past their deadline to `expired`. Their commands stay until the reply or
    /// their own limit. Handles at most `TIMEOUTS_MAX` deadlines; `next_deadline` shows the rest.
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
                let left = self.end(key, CommandEvent::LimitPassed).unwrap_or_default();
                expired.extend(left.into_iter().map(|waiter| Expired {
                    key,
                    waiter,
                    accepted: false,
                }));
                continue;
            }
            let index = open.waiters.iter().position(|it| it.ends == due);
            let index = index.expect("a deadline goes with its waiter");
            (open.state, _) = open.state.on(CommandEvent::WaiterExpired);
            let waiter = open.waiters.swap_remove(index).waiter;
            let freed = is_planted(Bug::FreedWithItsWaiter) && open.waiters.is_empty();
            self.waiters -= 1;
            let appended = open.state == CommandState::Appended;
            expired.push(Expired {
                key,
                waiter: waiter.waiter,
                accepted: appended && waiter.accept_at.is_some(),
            });
            if freed {
                self.close(key);
            }
        }
    }

    /// Returns the current sizes, and `given_up` over the table's lifetime.
    #[must_use]
    pub fn stats(&self) -> OpenStats {
        OpenStats {
            entries: self.entries.len(),
            waiters: self.waiters,
            given_up: self.given_up,
        }
    }

    fn due(&mut self, at: Instant, key: CommandKey) -> WaitDeadline {
        let serial = self.next_serial;
        self.next_serial += 1;
        let due = WaitDeadline { at, serial };
        self.deadlines.insert(due, key);
        due
    }

    fn close(&mut self, key: CommandKey) -> Option<Waiters<W>> {
        let open = self.entries.remove(&key)?;
        self.deadlines.remove(&open.ends);
        Some(self.release(open.waiters))
    }

    fn release(&mut self, waiters: SmallVec<[Waiting<W>; 1]>) -> Waiters<W> {
        self.waiters -= waiters.len();
        let mut released = Waiters::new();
        for Waiting { waiter, ends } in waiters {
            self.deadlines.remove(&ends);
            released.push(waiter.waiter);
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

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

    /// An exchange that waits for the reply.
    fn waits(waiter: u32, deadline: Instant) -> Option<NewWaiter<u32>> {
        Some(NewWaiter {
            waiter,
            deadline,
            accept_at: None,
        })
    }

    /// An exchange whose client prefers an asynchronous answer from `accept_at` on.
    fn accepts(waiter: u32, accept_at: Instant, deadline: Instant) -> Option<NewWaiter<u32>> {
        Some(NewWaiter {
            waiter,
            deadline,
            accept_at: Some(accept_at),
        })
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
            table.admit(A, F, waits(1, at(10)), at(0)),
            Admission::Opened
        );
        assert_eq!(table.next_deadline(), Some(at(10)));
        assert!(expired(&mut table, at(9)).is_empty());
        assert_eq!(expired(&mut table, at(10)), [1]);
        assert_eq!(
            table.admit(A, F, waits(2, at(30)), at(20)),
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
        table.admit(A, F, waits(1, at(10)), at(0));
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
        table.admit(A, F, waits(1, at(900)), at(0));
        assert!(expired(&mut table, at(599)).is_empty());
        assert_eq!(expired(&mut table, at(600)), [1]);
        assert_eq!((table.get(A), table.stats().given_up), (None, 1));
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn refused_closes_and_unknown_keeps_open_for_a_while() {
        let mut table = table();
        table.admit(A, F, waits(1, at(10)), at(0));
        assert_eq!(&table.on_refused(A)[..], [1]);
        assert_eq!(
            table.admit(A, F, waits(2, at(10)), at(0)),
            Admission::Opened
        );
        assert_eq!(&table.on_unknown(A, at(5))[..], [2]);
        assert_eq!(
            table.admit(A, F, waits(3, at(100)), at(6)),
            Admission::Joined
        );
        assert_eq!(expired(&mut table, at(65)), [3]);
        assert_eq!(table.get(A), None);
        assert_eq!(table.admit(A, F, None, at(66)), Admission::Opened);
    }

    #[test]
    fn an_asynchronous_answer_waits_for_the_append() {
        let mut table = table();
        let first = table.admit(A, F, accepts(1, at(0), at(10)), at(0));
        assert_eq!(first, Admission::Opened);
        let second = table.admit(A, F, accepts(2, at(5), at(10)), at(1));
        assert_eq!(second, Admission::Joined);
        assert!(expired(&mut table, at(2)).is_empty(), "not appended yet");
        assert_eq!(&table.on_appended(A, at(3))[..], [1]);
        assert_eq!(table.next_deadline(), Some(at(5)), "`wait` of the second");
        let mut late = Vec::new();
        table.on_timeout(at(5), &mut late);
        let [second] = late[..] else {
            panic!("{late:?}")
        };
        assert_eq!((second.waiter, second.accepted), (2, true), "202, not 504");
        let third = table.admit(A, F, accepts(3, at(6), at(16)), at(6));
        assert_eq!(third, Admission::Accepted, "no place is taken");
        assert_eq!((table.stats().waiters, table.get(A)), (0, Some(F)));
    }

    #[test]
    fn a_record_that_is_never_confirmed_is_no_202() {
        let mut table = table();
        table.admit(A, F, accepts(1, at(0), at(10)), at(0));
        let mut late = Vec::new();
        table.on_timeout(at(10), &mut late);
        assert!(
            matches!(
                late[..],
                [Expired {
                    accepted: false,
                    ..
                }]
            ),
            "{late:?}"
        );
        table.on_unknown(A, at(11));
        let retry = table.admit(A, F, accepts(2, at(12), at(20)), at(12));
        assert_eq!(retry, Admission::Joined);
        assert_eq!(&table.on_refused(A)[..], [2], "503");
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
        table.admit(A, F, waits(1, at(10)), at(0));
        table.admit(A, F, waits(2, at(10)), at(0));
        let full = table.admit(A, F, waits(3, at(10)), at(0));
        assert_eq!(full, Admission::Full(Limit::WaitersOfOne));
        table.admit(b, F, waits(4, at(10)), at(0));
        table.admit(b, F, waits(5, at(10)), at(0));
        let c = CommandKey([3; 16]);
        let full = table.admit(c, F, waits(6, at(10)), at(0));
        assert_eq!(full, Admission::Full(Limit::Waiters));
        assert_eq!(table.get(c), None, "refused while it was free to refuse");
        table.on_left(A, 1);
        table.on_left(A, 1);
        assert_eq!(
            table.admit(A, F, waits(3, at(10)), at(0)),
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
            table.admit(CommandKey(key), F, waits(n, at(1)), at(0));
        }
        assert_eq!(expired(&mut table, at(1)).len(), TIMEOUTS_MAX);
        assert_eq!(table.next_deadline(), Some(at(1)));
        assert_eq!(
            expired(&mut table, at(1)).len() + expired(&mut table, at(1)).len(),
            1976
        );
    }

    /// A table with one command in `state` and, if it is in flight, one exchange (7) that waits.
    fn table_in(state: CommandState) -> OpenCommands<u32> {
        let mut table = table();
        if state != CommandState::Absent {
            table.admit(A, F, waits(7, at(10)), at(0));
        }
        if state == CommandState::Appended {
            assert!(table.on_appended(A, at(0)).is_empty());
        }
        if state == CommandState::Unconfirmed {
            table.on_unknown(A, at(0));
            table.admit(A, F, waits(7, at(10)), at(0));
        }
        assert_eq!(table.state(A), state);
        table
    }

    /// What an event does: an admission, or the exchanges that stop waiting.
    fn apply(table: &mut OpenCommands<u32>, event: CommandEvent) -> String {
        let mut other = F;
        other.0[15] = 9;
        let reply_to_other = CorrelationId {
            key: A,
            fingerprint: other,
        };
        let waiter = waits(9, at(20));
        let left = match event {
            CommandEvent::Request => return format!("{:?}", table.admit(A, F, waiter, at(0))),
            CommandEvent::OtherRequest => {
                return format!("{:?}", table.admit(A, other, waiter, at(0)));
            }
            CommandEvent::Reply => table.on_reply(id(A)).map(|it| it.to_vec()),
            CommandEvent::OtherReply => table.on_reply(reply_to_other).map(|it| it.to_vec()),
            CommandEvent::Appended => {
                let open = table.state(A) != CommandState::Absent;
                // Exchange 7 waits for the reply and stays. Exchange 8 prefers 202.
                let other = open.then(|| table.admit(A, F, accepts(8, at(0), at(10)), at(0)));
                let accepted = table.on_appended(A, at(0));
                return match (other, &accepted[..]) {
                    (Some(Admission::Joined), [8]) => "one that prefers 202".into(),
                    (Some(Admission::Accepted), []) => "- (202 already)".into(),
                    (None, []) => "-".into(),
                    other => panic!("{other:?}"),
                };
            }
            CommandEvent::Refused => Some(table.on_refused(A).to_vec()),
            CommandEvent::OutcomeLost => Some(table.on_unknown(A, at(0)).to_vec()),
            CommandEvent::WaiterLeft => {
                let before = table.waiters(A);
                table.on_left(A, 7);
                Some(vec![7; before - table.waiters(A)])
            }
            CommandEvent::WaiterExpired => Some(expired(table, at(10))),
            CommandEvent::LimitPassed => {
                table.on_left(A, 7);
                if table.state(A) != CommandState::Absent {
                    table.admit(A, F, waits(7, at(900)), at(0));
                }
                Some(expired(table, at(600)))
            }
        };
        match left.unwrap_or_default()[..] {
            [] => "-".into(),
            [7] => "the exchange".into(),
            ref other => panic!("{other:?}"),
        }
    }

    /// Reviewed as a whole. The table of [`CommandState::on`] is what the real table does.
    #[test]
    fn every_state_and_event() {
        let mut text = String::new();
        for state in CommandState::ALL {
            writeln!(text, "{state:?}").expect("a string");
            for event in CommandEvent::ALL {
                let (next, effect) = state.on(event);
                let mut table = table_in(state);
                let done = apply(&mut table, event);
                assert_eq!(table.state(A), next, "{state:?} {event:?}");
                let event = format!("{event:?}");
                let next = format!("{next:?}");
                let effect = format!("{effect:?}");
                writeln!(text, "    {event:<14} => {next:<12} {effect:<9} {done}")
                    .expect("a string");
            }
        }
        insta::assert_snapshot!(text);
    }

    proptest! {
        /// Every admitted waiter is returned exactly once, and nothing is left behind.
        #[test]
        fn each_waiter_comes_out_once(
            acts in prop::collection::vec((0..7_u8, 0..5_u8, 0..50_u64), 0..120),
        ) {
            let mut table = table();
            let (mut inside, mut next, mut now) = (BTreeSet::new(), 0_u32, at(0));
            for (act, key, seconds) in acts {
                let key = CommandKey([key; 16]);
                let out: Vec<u32> = match act {
                    0 | 1 => {
                        next += 1;
                        let deadline = now.after(Duration::from_secs(seconds));
                        let waiter = NewWaiter {
                            waiter: next,
                            deadline,
                            accept_at: (act == 1).then(|| now.after(Duration::from_secs(9))),
                        };
                        match table.admit(key, F, Some(waiter), now) {
                            Admission::Opened | Admission::Joined => inside.insert(next),
                            Admission::Full(_) | Admission::Mismatch | Admission::Accepted => false,
                        };
                        vec![]
                    }
                    5 => table.on_appended(key, now).to_vec(),
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

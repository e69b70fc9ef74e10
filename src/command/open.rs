//! Commands in flight: sent and not yet answered.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;

use super::places::{Places, Shortage};
use super::recipe::fingerprints_differ;
use super::state::{CommandEvent, CommandState, Effect};
use crate::model::{
    Bug, CommandKey, CorrelationId, Fingerprint, Instant, Tenant, hash_row_bytes, is_planted,
    tree_row_bytes,
};

/// How many commands may be in flight, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// Commands in flight at once.
    pub entries_max: usize,
    /// Exchanges that wait at once, over all commands.
    pub waiters_max: usize,
    /// Exchanges that wait for one command.
    pub waiters_per_command_max: usize,
    /// Commands in flight of one tenant, and half of the exchanges that wait for it.
    pub per_tenant_max: usize,
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
    /// The tenant has its share of the commands in flight.
    TenantCommands,
    /// The tenant has its share of the exchanges that wait.
    TenantWaiters,
}

impl Limit {
    /// Every limit, in the order of [`OpenStats::limited`].
    pub const ALL: [Self; 5] = [
        Self::Commands,
        Self::Waiters,
        Self::WaitersOfOne,
        Self::TenantCommands,
        Self::TenantWaiters,
    ];
}

/// A request, as the tables see it: one of possibly many attempts at a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The command key, and the fingerprint of the request.
    pub id: CorrelationId,
    /// Whose limits it counts against.
    pub tenant: Tenant,
    /// Whether it waits for the same request if that is in flight. Otherwise it is rejected, as the
    /// route chooses.
    pub joins: bool,
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
    /// The command is in flight, and the attempt does not join: 409.
    InProgress,
    /// The command key is in flight with another fingerprint: 422.
    Mismatch,
    /// There is no room. Nothing changed.
    Full(Limit),
}

/// The exchanges that wait for one command.
pub type Waiters<W> = SmallVec<[W; 2]>;

/// The exchanges that a reply answers.
pub type Answered<W> = SmallVec<[AnsweredWaiter<W>; 2]>;

/// An exchange that a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredWaiter<W> {
    /// The exchange.
    pub waiter: W,
    /// Whether it joined a command that another attempt had opened. The reply is a replay for its
    /// client.
    pub joined: bool,
}

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
    /// Tenants with a command in flight.
    pub tenants: usize,
    /// Attempts rejected by each limit, in the order of [`Limit::ALL`], over the table's lifetime.
    pub limited: [u64; Limit::ALL.len()],
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
    /// A place of an entry belongs to the tenant that opened it, for as long as the entry stays.
    /// Requests that wait to be decided have places too ([`Self::reserve`]).
    places: Places,
    /// A place of an exchange belongs to its own tenant.
    waiting: Places,
    given_up: u64,
    limited: [u64; Limit::ALL.len()],
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
    tenant: Tenant,
    /// When it closes without a reply.
    ends: WaitDeadline,
    waiters: SmallVec<[Waiting<W>; 1]>,
}

/// An exchange that waits, and the row of `deadlines` that ends its wait.
#[derive(Clone, Debug)]
struct Waiting<W> {
    waiter: NewWaiter<W>,
    tenant: Tenant,
    joined: bool,
    ends: WaitDeadline,
}

impl<W> OpenCommands<W> {
    /// Most memory of one of [`OpenLimits::entries_max`] commands, with the two exchanges that may
    /// wait for each. The strings of an identity are shared with its credential.
    pub const BYTES_PER_COMMAND: usize = {
        let entry = hash_row_bytes::<CommandKey, OpenCommand<W>>();
        // A list that has just doubled is half full.
        let waiters = WAITERS_PER_COMMAND * 2 * size_of::<Waiting<W>>();
        let deadlines = (1 + WAITERS_PER_COMMAND) * tree_row_bytes::<WaitDeadline, CommandKey>();
        let places = (1 + WAITERS_PER_COMMAND) * hash_row_bytes::<Tenant, usize>();
        entry + waiters + deadlines + places
    };
}

/// Exchanges that may wait, for each command that may be in flight.
pub const WAITERS_PER_COMMAND: usize = 2;

impl<W: Copy + PartialEq> OpenCommands<W> {
    /// An empty table. `hasher` is seeded by the shard, because clients choose the keys and could
    /// otherwise make them collide.
    #[must_use]
    pub fn new(limits: OpenLimits, hasher: RandomState) -> Self {
        let places = |max, per_tenant_max| Places::new(max, per_tenant_max, hasher.clone());
        Self {
            places: places(limits.entries_max, limits.per_tenant_max),
            waiting: places(limits.waiters_max, limits.per_tenant_max.saturating_mul(2)),
            limits,
            entries: HashMap::with_hasher(hasher),
            deadlines: BTreeMap::new(),
            next_serial: 0,
            given_up: 0,
            limited: [0; Limit::ALL.len()],
        }
    }

    /// Decides about a command that has no reply yet. `waiter`: the exchange of the request, or
    /// `None` if none waits.
    pub fn admit(
        &mut self,
        attempt: &Attempt,
        waiter: Option<NewWaiter<W>>,
        now: Instant,
    ) -> Admission {
        self.decide(attempt, waiter, CommandState::InFlight, now)
    }

    /// As [`Self::admit`], of a command whose record another instance has appended: the attempt
    /// joins it, and nothing is produced.
    pub fn adopt(
        &mut self,
        attempt: &Attempt,
        waiter: Option<NewWaiter<W>>,
        now: Instant,
    ) -> Admission {
        match self.decide(attempt, waiter, CommandState::Appended, now) {
            Admission::Opened => Admission::Joined,
            other => other,
        }
    }

    /// `opened`: the state of the entry if the command is not in flight.
    fn decide(
        &mut self,
        attempt: &Attempt,
        waiter: Option<NewWaiter<W>>,
        opened: CommandState,
        now: Instant,
    ) -> Admission {
        let key = attempt.id.key;
        let open = self.entries.get(&key);
        let differs =
            open.is_some_and(|it| fingerprints_differ(it.fingerprint, attempt.id.fingerprint));
        let event = if differs {
            CommandEvent::OtherRequest
        } else {
            CommandEvent::Request
        };
        let (state, effect) = self.state(key).on(event);
        let opens = effect == Effect::Produce;
        let adopted = opened == CommandState::Appended;
        match effect {
            Effect::Produce if adopted && !attempt.joins => return Admission::InProgress,
            Effect::Produce => {}
            Effect::Join if attempt.joins => {}
            Effect::Join => return Admission::InProgress,
            _ => return Admission::Mismatch,
        }
        let state = if opens { opened } else { state };
        let appended = state == CommandState::Appended;
        let accept_at = waiter.and_then(|it| it.accept_at);
        if appended && accept_at.is_some_and(|at| at <= now) {
            return Admission::Accepted;
        }
        if let Some(limit) = self.full(attempt, waiter.is_some()) {
            self.limited[limit as usize] += 1;
            return Admission::Full(limit);
        }
        if opens {
            let ends = self.due(now.after(self.limits.open_limit), key);
            self.places.take(attempt.tenant.clone());
            let open = OpenCommand {
                state,
                fingerprint: attempt.id.fingerprint,
                tenant: attempt.tenant.clone(),
                ends,
                waiters: SmallVec::new(),
            };
            self.entries.insert(key, open);
        }
        if let Some(waiter) = waiter {
            self.waiting.take(attempt.tenant.clone());
            let waiting = Waiting {
                waiter,
                tenant: attempt.tenant.clone(),
                joined: !opens || adopted,
                ends: self.due(waiter.ends(appended), key),
            };
            let open = self.entries.get_mut(&key);
            let open = open.expect("it was there or was inserted above");
            open.waiters.push(waiting);
        }
        if opens {
            Admission::Opened
        } else {
            Admission::Joined
        }
    }

    /// Takes a place among the commands in flight for a request that is not decided yet.
    ///
    /// # Errors
    /// The limit that rejects the request.
    pub fn reserve(&mut self, tenant: &Tenant) -> Result<(), Limit> {
        if let Some(shortage) = self.places.shortage(tenant) {
            let limit = of_commands(shortage);
            self.limited[limit as usize] += 1;
            return Err(limit);
        }
        self.places.take(tenant.clone());
        Ok(())
    }

    /// Gives back the place of a request that is about to be decided, or waits no longer.
    pub fn release_reserved(&mut self, tenant: &Tenant) {
        self.places.give_back(tenant);
    }

    /// The limit that rejects a request, if there is one.
    fn full(&self, attempt: &Attempt, waits: bool) -> Option<Limit> {
        let open = self.entries.get(&attempt.id.key);
        if open.is_none()
            && let Some(shortage) = self.places.shortage(&attempt.tenant)
        {
            return Some(of_commands(shortage));
        }
        if !waits {
            return None;
        }
        let waiting = open.map_or(0, |it| it.waiters.len());
        let bounded = !is_planted(Bug::JoinWithoutBound);
        if bounded && waiting >= self.limits.waiters_per_command_max {
            return Some(Limit::WaitersOfOne);
        }
        self.waiting
            .shortage(&attempt.tenant)
            .map(|shortage| match shortage {
                Shortage::All => Limit::Waiters,
                Shortage::Share => Limit::TenantWaiters,
            })
    }

    fn state(&self, key: CommandKey) -> CommandState {
        let open = self.entries.get(&key);
        open.map_or(CommandState::Absent, |it| it.state)
    }

    /// Closes a command if `event` ends it, and returns every exchange that waits for it.
    fn end(&mut self, key: CommandKey, event: CommandEvent) -> Option<Answered<W>> {
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
        let released = self.end(key, CommandEvent::Refused);
        exchanges(released.unwrap_or_default())
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
                accepted.push(waiting.clone());
            } else if at != waiting.ends.at {
                self.deadlines.remove(&waiting.ends);
                waiting.ends.at = at;
                self.deadlines.insert(waiting.ends, key);
            }
            !accepts
        });
        exchanges(self.release(accepted))
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
        exchanges(self.release(waiters))
    }

    /// Closes the entry of the answered request and returns every exchange that waits for it.
    /// `None` is normal: the reply is late, or answers a request of another instance. A request
    /// with another fingerprint under the same command key stays open until its own reply.
    pub fn on_reply(&mut self, id: CorrelationId) -> Option<Answered<W>> {
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
        self.waiting.give_back(&left.tenant);
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
                expired.extend(left.into_iter().map(|it| Expired {
                    key,
                    waiter: it.waiter,
                    accepted: false,
                }));
                continue;
            }
            let index = open.waiters.iter().position(|it| it.ends == due);
            let index = index.expect("a deadline goes with its waiter");
            (open.state, _) = open.state.on(CommandEvent::WaiterExpired);
            let Waiting { waiter, tenant, .. } = open.waiters.swap_remove(index);
            let freed = is_planted(Bug::FreedWithItsWaiter) && open.waiters.is_empty();
            self.waiting.give_back(&tenant);
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
            waiters: self.waiting.taken(),
            given_up: self.given_up,
            tenants: self.places.tenants(),
            limited: self.limited,
        }
    }

    fn due(&mut self, at: Instant, key: CommandKey) -> WaitDeadline {
        let serial = self.next_serial;
        self.next_serial += 1;
        let due = WaitDeadline { at, serial };
        self.deadlines.insert(due, key);
        due
    }

    fn close(&mut self, key: CommandKey) -> Option<Answered<W>> {
        let open = self.entries.remove(&key)?;
        self.deadlines.remove(&open.ends);
        self.places.give_back(&open.tenant);
        Some(self.release(open.waiters))
    }

    fn release(&mut self, waiters: SmallVec<[Waiting<W>; 1]>) -> Answered<W> {
        let mut released = Answered::new();
        for it in waiters {
            self.deadlines.remove(&it.ends);
            self.waiting.give_back(&it.tenant);
            released.push(AnsweredWaiter {
                waiter: it.waiter.waiter,
                joined: it.joined,
            });
        }
        released
    }
}

const fn of_commands(shortage: Shortage) -> Limit {
    match shortage {
        Shortage::All => Limit::Commands,
        Shortage::Share => Limit::TenantCommands,
    }
}

fn exchanges<W>(answered: Answered<W>) -> Waiters<W> {
    answered.into_iter().map(|it| it.waiter).collect()
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;

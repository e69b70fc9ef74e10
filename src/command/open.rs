//! Commands opened and not yet answered.

use std::time::Duration;

use smallvec::SmallVec;

use crate::model::{CommandKey, Fingerprint, Instant};

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

/// Commands opened and not yet answered. Holds no socket, timer or clock: the shard brings the time
/// and the replies, and acts on what comes back. An entry outlives its waiters: a client that gave
/// up must not turn its own retry into a second command.
#[derive(Debug)]
pub struct OpenCommands<W> {
    waiter: std::marker::PhantomData<W>,
}

impl<W: Copy + PartialEq> OpenCommands<W> {
    /// An empty table. `hasher` is seeded by the shard.
    #[must_use]
    pub fn new(limits: OpenLimits, hasher: ahash::RandomState) -> Self {
        todo!()
    }

    /// Says what becomes of a command. `waiter` is `None` for one that nobody waits for
    /// (`respond-async`).
    pub fn admit(
        &mut self,
        key: CommandKey,
        print: Fingerprint,
        waiter: Option<(W, Instant)>,
        now: Instant,
    ) -> Admission {
        todo!()
    }

    /// The fingerprint a command was opened with, if it is open: a route that answers 409 instead of
    /// joining asks this first.
    #[must_use]
    pub fn get(&self, key: CommandKey) -> Option<Fingerprint> {
        todo!()
    }

    /// The broker has appended the command.
    pub fn on_produced(&mut self, key: CommandKey) {
        todo!()
    }

    /// The command was not and will not be appended: it closes, and everyone who waits is handed back
    /// (503).
    pub fn on_refused(&mut self, key: CommandKey) -> Waiters<W> {
        todo!()
    }

    /// Whether the command was appended will never be known: everyone who waits is handed back (504),
    /// and it stays open for `unknown_limit` from now, so that a retry joins.
    pub fn on_unknown(&mut self, key: CommandKey, now: Instant) -> Waiters<W> {
        todo!()
    }

    /// Closes the entry and hands back what it asked and everyone who waits for it. `None` is normal:
    /// late, or another peer's.
    pub fn on_reply(&mut self, key: CommandKey) -> Option<(Fingerprint, Waiters<W>)> {
        todo!()
    }

    /// A client has gone; its command stays.
    pub fn on_gone(&mut self, key: CommandKey, waiter: W) {
        todo!()
    }

    /// When `on_timeout` next has work. The shard keeps one timer armed for this.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// Waiters past their deadline leave; their entries stay until the reply or their limit. Bounded
    /// work: what is left shows in `next_deadline`.
    pub fn on_timeout(&mut self, now: Instant, expired: &mut Vec<Expired<W>>) {
        todo!()
    }

    /// The facts.
    #[must_use]
    pub fn stats(&self) -> OpenStats {
        todo!()
    }
}

//! The result of a world of commands, in numbers.

use super::account::Dedupe;

/// Second records of a request, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    /// The attempt arrived before any reply to the request was in the log.
    pub(super) overlapping: u64,
    /// A reply was in the log, and this gateway had not read it yet: in `local` only.
    pub(super) unread: u64,
    /// The service had asked for a retry.
    pub(super) retry: u64,
    /// The same process had forgotten the first command, because its result was unknown for too
    /// long.
    pub(super) given_up: u64,
}

/// Numbers of one world, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Number of records of commands.
    pub(super) records: u64,
    /// By mode: worlds, and second records.
    pub(super) modes: [(u64, Seconds); 3],
    /// Commands that a service applied.
    pub(super) applied: u64,
    /// Attempts answered with a stored reply, and how many of these came from the index.
    pub(super) answered: u64,
    pub(super) replayed: u64,
    /// Attempts answered with a reply that asks for a retry.
    pub(super) retry: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) unreadable: u64,
    pub(super) not_this: u64,
    /// Attempts that received a location, polls that came before the reply, and polls of other
    /// identities, which learned nothing.
    pub(super) accepted: u64,
    pub(super) polled: u64,
    pub(super) hidden: u64,
    /// Number of attempts without a response.
    pub(super) lost: u64,
}

impl Seconds {
    fn add(&mut self, other: &Self) {
        self.overlapping += other.overlapping;
        self.unread += other.unread;
        self.retry += other.retry;
        self.given_up += other.given_up;
    }
}

impl Tally {
    /// The second records of a mode.
    pub(super) fn seconds_of(&mut self, mode: Dedupe) -> &mut Seconds {
        &mut self.modes[mode as usize].1
    }

    pub(super) fn add(&mut self, other: &Self) {
        for ((worlds, seconds), (more, others)) in self.modes.iter_mut().zip(&other.modes) {
            *worlds += more;
            seconds.add(others);
        }
        self.records += other.records;
        self.applied += other.applied;
        self.answered += other.answered;
        self.replayed += other.replayed;
        self.retry += other.retry;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.unreadable += other.unreadable;
        self.not_this += other.not_this;
        self.accepted += other.accepted;
        self.polled += other.polled;
        self.hidden += other.hidden;
        self.lost += other.lost;
    }

    /// A fleet in which some event never occurs proves nothing about it.
    pub(super) fn assert_all_kinds(&self) {
        let [
            (replies, in_replies),
            (strict, in_strict),
            (local, in_local),
        ] = self.modes;
        for ((_, seconds), mode) in self.modes.iter().zip(Dedupe::ALL) {
            assert!(seconds.unread == 0 || mode == Dedupe::Local, "{self:#?}");
        }
        let kinds = [
            replies,
            strict,
            local,
            self.records,
            in_replies.overlapping,
            in_strict.overlapping,
            in_local.overlapping,
            in_local.unread,
            in_replies.retry,
            in_replies.given_up,
            self.applied,
            self.answered,
            self.replayed,
            self.retry,
            self.refused,
            self.unknown,
            self.not_this,
            self.lost,
        ];
        assert!(kinds.iter().all(|count| *count > 0), "{self:#?}");
        // Anonymous clients get no location under short keys.
        let polls = [self.accepted, self.polled, self.hidden];
        let invents = cfg!(feature = "planted");
        assert!(
            polls.iter().all(|count| (*count > 0) == invents),
            "{self:#?}"
        );
    }
}

//! The result of a world of commands, in numbers.

/// Second records of a request, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    /// The attempt arrived before any reply to the request was in the log.
    pub(super) overlapping: u64,
    /// A reply was in the log, and this gateway had not read it yet.
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
    pub(super) seconds: Seconds,
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
    /// Number of attempts without a response.
    pub(super) lost: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        let Seconds {
            overlapping,
            unread,
            retry,
            given_up,
        } = &mut self.seconds;
        *overlapping += other.seconds.overlapping;
        *unread += other.seconds.unread;
        *retry += other.seconds.retry;
        *given_up += other.seconds.given_up;
        self.records += other.records;
        self.applied += other.applied;
        self.answered += other.answered;
        self.replayed += other.replayed;
        self.retry += other.retry;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.unreadable += other.unreadable;
        self.not_this += other.not_this;
        self.lost += other.lost;
    }

    /// A fleet in which some event never occurs proves nothing about it.
    pub(super) fn assert_all_kinds(&self) {
        let kinds = [
            self.records,
            self.seconds.overlapping,
            self.seconds.unread,
            self.seconds.retry,
            self.seconds.given_up,
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
    }
}

//! Bugs that a test plants, to prove that the tests would find them (`tests/it/fleet/planted.rs`).
//! Each is asked for at the one decision that it spoils. Without the feature `planted`, which no
//! release has, the question is a constant `false`. With it, a bug is planted on one thread by
//! [`plant`], and nothing is planted until then.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The entry of a command is removed with the last exchange that waits for it.
    FreedWithItsWaiter,
    /// A request uses a barrier that was sent before the request arrived.
    BarrierBeforeArrival,
    /// An unknown produce outcome is treated as a refusal.
    UnknownRefused,
    /// A produce whose response was lost is retried under a new producer id.
    NewProducerId,
    /// The parts of a fingerprint are hashed without their lengths.
    NoLengthPrefixes,
    /// The command key leaves the identity out, so that a client receives another's reply.
    ForeignIdentity,
    /// The reply window is a thousandth of the topic's retention.
    EarlyGeneration,
    /// A record without a key goes to the next partition instead of that of its command key.
    RoundRobin,
    /// Any number of exchanges may wait for one command.
    JoinWithoutBound,
    /// The location of an asynchronous command is enough to read its reply, whatever the identity.
    ForeignPoll,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 10] = [
        Self::FreedWithItsWaiter,
        Self::BarrierBeforeArrival,
        Self::UnknownRefused,
        Self::NewProducerId,
        Self::NoLengthPrefixes,
        Self::ForeignIdentity,
        Self::EarlyGeneration,
        Self::RoundRobin,
        Self::JoinWithoutBound,
        Self::ForeignPoll,
    ];
}

#[cfg(feature = "planted")]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    static INVENTS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Plants a bug on this thread, or removes the one that is there.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Sets whether requests on this thread name their own identity, by the header `x-fleet-identity`.
#[cfg(feature = "planted")]
pub fn invent_identities(invents: bool) {
    INVENTS.set(invents);
}

/// Whether requests on this thread name their own identity.
#[cfg(feature = "planted")]
#[must_use]
pub fn invents_identities() -> bool {
    INVENTS.get()
}

/// Whether this bug is planted on this thread.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}

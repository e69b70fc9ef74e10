//! Which brokers are silent, and since when. A broker is silent for requests of one purpose if no
//! connection to it is established, if a response on the purpose's own connection is due (Kafka
//! answers a connection in order), or if it sends nothing at all and any response is due. A broker
//! that failed and may be tried again is not silent until it is tried.

use std::time::Duration;

use super::Address;
use super::brokers::Brokers;
use super::event::LinkId;
use super::link::{Link, LinkKey};
use super::link_state::LinkState;
use super::pace::SilenceLimits;
use super::wake::Wake;
use crate::model::{Instant, Now};

/// The consequences of a broker's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// Nothing more is sent to the broker.
    Stalled,
    /// The broker counts as unavailable.
    Unavailable,
}

/// Since when a broker has been silent.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// Since when no connection to the broker has been established.
    failing: Option<Instant>,
    /// Since when a response of the broker has been due.
    owing: Option<Instant>,
}

/// The silence of all brokers at one moment.
pub(super) struct SilenceView<'a, T> {
    pub(super) links: &'a [Link<T>],
    pub(super) brokers: &'a Brokers,
    pub(super) limits: &'a SilenceLimits,
    pub(super) now: Now,
}

impl<'a, T> SilenceView<'a, T> {
    fn of(&self, LinkKey { peer, purpose }: LinkKey) -> Silence {
        let Some(record) = self.brokers.get(peer) else {
            return Silence::default();
        };
        let resting = record.not_before() > self.now.mono;
        let (mut failing, mut own, mut any) = (Wake::default(), None, Wake::default());
        let mut tried = false;
        for link in self.links.iter().filter(|link| link.peer() == peer) {
            tried |= !link.is_ready();
            let Some(since) = link.overdue_since() else {
                continue;
            };
            any.at(since);
            match (link.purpose() == purpose, link.state()) {
                (true, LinkState::Connecting) => failing.at(since),
                (true, _) => own = Some(since),
                (false, _) => {}
            }
        }
        if let Some(since) = record.failing_since().filter(|_| resting || tried) {
            failing.at(since);
        }
        let all = any.0.map(|since| since.max(record.heard()));
        Silence {
            failing: failing.0,
            owing: own.into_iter().chain(all).min(),
        }
    }

    /// Since when the broker has been silent for requests of `purpose`, if it is silent.
    pub(super) fn since(&self, to: LinkKey) -> Option<Instant> {
        let Silence { failing, owing } = self.of(to);
        failing.into_iter().chain(owing).min()
    }

    /// When the silence of the broker will have this consequence. `None`: no response is due. The
    /// limit depends on the broker's recent speed. A connection that fails gets only the limit of a
    /// fast broker.
    pub(super) fn from(&self, to: LinkKey, silent: Silent) -> Option<Instant> {
        let Silence { failing, owing } = self.of(to);
        let limit = match silent {
            Silent::Stalled => self.limits.failing_stalled(),
            Silent::Unavailable => self.limits.failing(),
        };
        let failing = failing.map(|since| since.after(limit));
        let owing = owing.map(|since| since.after(self.limit(to, silent)));
        failing.into_iter().chain(owing).min()
    }

    /// Whether the silence of the broker has this consequence.
    pub(super) fn is(&self, to: LinkKey, silent: Silent) -> bool {
        let from = self.from(to, silent);
        from.is_some_and(|from| from <= self.now.mono)
    }

    /// How long a response of the broker may take before its silence has this consequence.
    pub(super) fn limit(&self, to: LinkKey, silent: Silent) -> Duration {
        let record = self.brokers.get(to.peer);
        let p99 = record.map(|record| record.p99(to.purpose, self.now.mono));
        let p99 = p99.unwrap_or_default();
        match silent {
            Silent::Stalled => self.limits.stalled(p99),
            Silent::Unavailable => self.limits.unavailable(p99),
        }
    }

    /// When the response that a link waits for will be overdue.
    pub(super) fn link_from(&self, id: LinkId, silent: Silent) -> Option<Instant> {
        let link = self.links.iter().find(|link| link.id() == id)?;
        let since = link.overdue_since()?;
        Some(since.after(self.limit(link.key(), silent)))
    }

    /// Stalled brokers, and since when they have been silent. Bootstrap addresses count as long as
    /// no broker is known by its number.
    pub(super) fn stalled(self) -> impl Iterator<Item = (&'a Address, Instant)> {
        let known = self.brokers.iter().any(|(peer, _)| peer.node().is_some());
        let brokers = self.brokers;
        brokers
            .iter()
            .filter(move |(peer, _)| !known || peer.node().is_some())
            .filter_map(move |(peer, record)| {
                let to = LinkKey::ask(peer);
                if !self.is(to, Silent::Stalled) {
                    return None;
                }
                Some((record.address()?, self.since(to)?))
            })
    }
}

//! How each broker behaves, over all connections to it: whether it fails, when it may be tried
//! again, and how fast it responds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::{Peer, Purpose};
use super::pace::Pace;
use super::view::ClusterView;
use super::{Address, KafkaError};
use crate::model::Instant;

/// The brokers that were ever tried and still belong to the cluster.
#[derive(Debug, Default)]
pub(super) struct Brokers(BTreeMap<Peer, BrokerRecord>);

/// The record of one broker.
#[derive(Debug, Default)]
pub(super) struct BrokerRecord {
    /// Failures in a row, since it last responded.
    failures: u32,
    /// No connection is made before.
    not_before: Instant,
    reported: Reported,
    /// Since when no connection is ready or brings a response. `None` while one does.
    failing_since: Option<Instant>,
    /// The address at which it was last tried.
    address: Option<Address>,
    /// When bytes came last, on any connection.
    heard: Instant,
    /// The pace of Produce, which waits for replicas.
    produce_pace: Pace,
    /// The pace of all other requests.
    pace: Pace,
}

/// The last event about a broker.
#[derive(Debug, Default, PartialEq, Eq)]
enum Reported {
    #[default]
    Nothing,
    Up,
    Down(KafkaError),
}

impl Brokers {
    pub(super) fn get(&self, peer: Peer) -> Option<&BrokerRecord> {
        self.0.get(&peer)
    }

    pub(super) fn record(&mut self, peer: Peer) -> &mut BrokerRecord {
        self.0.entry(peer).or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Peer, &BrokerRecord)> {
        self.0.iter().map(|(&peer, record)| (peer, record))
    }

    /// Whether the broker responded last, or was never tried.
    pub(super) fn is_trusted(&self, peer: Peer) -> bool {
        self.get(peer).is_none_or(|record| record.failures == 0)
    }

    /// When the broker may be tried again.
    pub(super) fn not_before(&self, peer: Peer) -> Instant {
        self.get(peer).map_or(Instant::ZERO, |it| it.not_before)
    }

    /// Forgets brokers that have left the cluster.
    pub(super) fn on_view(&mut self, view: &ClusterView) {
        self.0.retain(|peer, _| {
            let node = peer.node();
            node.is_none_or(|node| view.address(node).is_some())
        });
    }
}

impl BrokerRecord {
    /// A connection to the broker is made.
    pub(super) fn on_try(&mut self, address: &Address) {
        self.address = Some(address.clone());
    }

    /// Bytes came. `works`: a connection became ready, or they bring a response.
    pub(super) fn on_bytes(&mut self, works: bool, now: Instant) {
        self.heard = now;
        if works {
            self.failing_since = None;
        }
    }

    /// A response took `took`. Of a response slower than `max` the pace takes no note.
    pub(super) fn on_response(
        &mut self,
        purpose: Purpose,
        took: Duration,
        max: Duration,
        now: Instant,
    ) {
        self.failures = 0;
        let pace = match purpose {
            Purpose::Produce => &mut self.produce_pace,
            Purpose::Ask | Purpose::Fetch(_) => &mut self.pace,
        };
        pace.record(took, max, now);
    }

    /// A connection failed on which something, the connection itself or a response, was due since
    /// `since`. Returns the number of failures in a row.
    pub(super) fn on_failure(&mut self, address: &Address, since: Instant) -> u32 {
        self.failing_since.get_or_insert(since);
        self.address = Some(address.clone());
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Lets no connection be made before `at`.
    pub(super) const fn rest_until(&mut self, at: Instant) {
        self.not_before = at;
    }

    /// Notes that the broker is reported as up. Returns false if it was before.
    pub(super) fn report_up(&mut self) -> bool {
        let news = self.reported != Reported::Up;
        self.reported = Reported::Up;
        news
    }

    /// Notes that the broker is reported as down for this reason. Returns false if it was before.
    pub(super) fn report_down(&mut self, error: &KafkaError) -> bool {
        let down = Reported::Down(error.clone());
        let news = self.reported != down;
        self.reported = down;
        news
    }

    pub(super) const fn not_before(&self) -> Instant {
        self.not_before
    }

    pub(super) const fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    pub(super) const fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    pub(super) const fn heard(&self) -> Instant {
        self.heard
    }

    /// The p99 of recent response times for requests of `purpose`. Zero if there are none.
    pub(super) fn p99(&self, purpose: Purpose, now: Instant) -> Duration {
        match purpose {
            Purpose::Produce => self.produce_pace.p99(now),
            Purpose::Ask | Purpose::Fetch(_) => self.pace.p99(now),
        }
    }
}

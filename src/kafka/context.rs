//! What the rooms of a client lean on while they work: one turn's time, the topics, the links.

use std::collections::VecDeque;

use super::event::{Event, LinkId, TopicHandle};
use super::link::{Link, Peer, Purpose};
use super::links::{Links, Outlet, Readiness, Wake};
use super::metric_event::MetricEvent;
use super::settings::Settings;
use super::topics::Topics;
use super::view::{BrokerId, ClusterView};
use super::wire::Api;
use super::{Address, Code, KafkaError};
use crate::model::{FastRandom, Instant, LeaderEpoch, Now, Partition};

/// Lent to a room for one call.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) topics: &'a Topics,
    pub(super) view: &'a ClusterView,
    pub(super) links: &'a mut Links,
    pub(super) jitter: &'a mut FastRandom,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Set by whoever meets something that newer metadata may mend.
    pub(super) stale: &'a mut bool,
    pub(super) wake: &'a mut Wake,
    /// The link whose answer is being looked at, if one is.
    pub(super) answering: Option<LinkId>,
}

impl Context<'_> {
    /// The link to a broker, if requests may go there now; else it is being made. A broker that
    /// fails, or is not in the view, calls for newer metadata.
    pub(super) fn link(&mut self, node: BrokerId, purpose: Purpose) -> Option<&mut Link> {
        let peer = Peer::Node(node);
        let Some(address) = self.view.address(node) else {
            *self.stale = true;
            return None;
        };
        if !self.links.trust(peer).0 && !self.links.stands(peer, purpose) {
            *self.stale = true;
        }
        match self
            .links
            .ready((peer, purpose), address, self.now, self.wake)
        {
            Readiness::Ready(link) => Some(link),
            Readiness::Soon | Readiness::Resting => None,
        }
    }

    /// Who leads a partition; where nobody does, newer metadata may tell.
    pub(super) fn leader(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
    ) -> Option<(BrokerId, LeaderEpoch)> {
        let leader = self.topics.leader(topic, partition);
        *self.stale |= leader.is_none() && self.topics.view(topic).is_some();
        leader
    }

    /// Takes note of a code in a response: what it counts as, and whether newer metadata mends it.
    pub(super) fn saw(&mut self, api: Api, code: Code) {
        self.saw_of(api, None, code);
    }

    /// The same of a partition that is read or written.
    pub(super) fn saw_of(
        &mut self,
        api: Api,
        partition: Option<(TopicHandle, Partition)>,
        code: Code,
    ) {
        *self.stale |= code.is_stale();
        if code.0 != 0 {
            let (api, error) = (api.key(), KafkaError::Broker(code));
            let broker = self.answering_broker();
            self.links.metric_events.push(MetricEvent::Failed {
                api,
                broker,
                partition,
                error,
            });
        }
    }

    /// Where the broker listens whose answer is being looked at; `None`: it is given up already.
    pub(super) fn answering_broker(&self) -> Option<Address> {
        let link = self.links.get(self.answering?)?;
        Some(link.address.clone())
    }

    pub(super) fn deadline(&self) -> Instant {
        self.now.mono.after(self.settings.request_timeout)
    }

    /// When to try again after so many failures in a row.
    pub(super) fn retry_at(&mut self, failures: u32) -> Instant {
        let backoff = self.settings.backoff();
        self.now.mono.after(backoff.after(failures, self.jitter))
    }

    /// Gives up a link whose broker does not keep to the protocol.
    pub(super) fn give_up(&mut self, link: LinkId, error: KafkaError) {
        let mut outlet = Outlet {
            events: self.events,
            jitter: self.jitter,
        };
        self.links.fail(link, error, self.now, true, &mut outlet);
    }
}

/// An epoch as requests carry it.
pub(super) fn epoch_on_wire(epoch: LeaderEpoch) -> i32 {
    epoch.0.map_or(-1, |epoch| epoch as i32)
}

impl Code {
    /// The leader, or what we know of it, is not the right one: newer metadata mends it.
    #[must_use]
    pub const fn is_stale(self) -> bool {
        // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
        // REPLICA_NOT_AVAILABLE, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
        // UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID.
        matches!(self.0, 3 | 5 | 6 | 9 | 56 | 74 | 75 | 100 | 103)
    }
}

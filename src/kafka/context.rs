//! What the parts of a client share while they work: the turn's time, the topics, the links.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Event, LinkId, TopicHandle};
use super::link::{self, LinkKey, Peer, Purpose};
use super::links::{self, LinkContext, Readiness};
use super::metric_event::MetricEvent;
use super::request_tag::RequestTag;
use super::requests::ResponseWindow;
use super::settings::Settings;
use super::silence::SilenceView;
use super::topics::Topics;
use super::view::{BrokerId, ClusterView};
use super::wake::Wake;
use super::wire::Api;
use super::{Address, Code, KafkaError};
use crate::model::{FastRandom, Instant, LeaderEpoch, Now, Partition};

pub(super) type Link = link::Link<RequestTag>;
pub(super) type Links = links::Links<RequestTag>;

/// Lent to a part for one call.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) topics: &'a Topics,
    pub(super) view: &'a ClusterView,
    pub(super) links: &'a mut Links,
    pub(super) jitter: &'a mut FastRandom,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Set when something fails that newer metadata may resolve.
    pub(super) stale: &'a mut bool,
    pub(super) wake: &'a mut Wake,
    /// The link with the response that is being handled, if any.
    pub(super) answering: Option<LinkId>,
}

impl Context<'_> {
    /// The link to a broker, if requests may be sent there now. Otherwise the link is made, as soon
    /// as the broker's backoff allows. If the broker fails, or is not in the view, newer metadata
    /// is needed.
    pub(super) fn link(&mut self, node: BrokerId, purpose: Purpose) -> Option<&mut Link> {
        let peer = Peer::Node(node);
        let Some(address) = self.view.address(node) else {
            *self.stale = true;
            return None;
        };
        let key = LinkKey { peer, purpose };
        if !self.links.brokers().is_trusted(peer) && !self.links.is_ready(key) {
            *self.stale = true;
        }
        match self.links.ready(key, address, self.now, self.wake) {
            Readiness::Ready(link) => Some(link),
            Readiness::Soon | Readiness::Resting => None,
        }
    }

    /// The leader of a partition. If it has none, newer metadata is needed.
    pub(super) fn leader(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
    ) -> Option<(BrokerId, LeaderEpoch)> {
        let leader = self.topics.leader(topic, partition);
        *self.stale |= leader.is_none() && self.topics.view(topic).is_some();
        leader
    }

    /// Counts the error code of a response. Some codes call for newer metadata.
    pub(super) fn saw(&mut self, api: Api, code: Code) {
        self.saw_of(api, None, code);
    }

    /// As [`Self::saw`], for a partition that is read or written.
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

    /// The address of the broker that sent the response being handled. `None`: its link was given
    /// up.
    pub(super) fn answering_broker(&self) -> Option<Address> {
        let link = self.links.get(self.answering?)?;
        Some(link.address().clone())
    }

    /// When the response to a request is expected that may wait at the broker for `wait`.
    pub(super) fn window(&self, wait: Duration) -> ResponseWindow {
        let due = self.now.mono.after(wait);
        let deadline = due.after(self.settings.request_timeout);
        ResponseWindow { due, deadline }
    }

    /// Which brokers are silent now.
    pub(super) fn silence(&self) -> SilenceView<'_, RequestTag> {
        self.links.silence(self.now)
    }

    /// When to retry after so many failures in a row.
    pub(super) fn retry_at(&mut self, failures: u32) -> Instant {
        let backoff = self.settings.backoff();
        self.now.mono.after(backoff.after(failures, self.jitter))
    }

    /// Gives up the link to a broker that violates the protocol.
    pub(super) fn give_up(&mut self, link: LinkId, error: KafkaError) {
        let mut cx = LinkContext {
            now: self.now,
            events: self.events,
            jitter: self.jitter,
        };
        self.links.give_up(link, error, &mut cx);
    }
}

/// An epoch as requests carry it.
pub(super) fn epoch_on_wire(epoch: LeaderEpoch) -> i32 {
    epoch.0.map_or(-1, |epoch| epoch as i32)
}

impl Code {
    /// Whether newer metadata resolves the error: the leader has moved, or is not known yet.
    #[must_use]
    pub const fn is_stale(self) -> bool {
        // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
        // REPLICA_NOT_AVAILABLE, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
        // UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID.
        matches!(self.0, 3 | 5 | 6 | 9 | 56 | 74 | 75 | 100 | 103)
    }
}

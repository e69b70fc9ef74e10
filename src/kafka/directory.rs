//! The directory of a cluster: asks one broker at a time for the metadata of the watched topics,
//! and for their configs. A change becomes a new [`ClusterView`].

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{self, MetadataRequest};
use kafka_protocol::protocol::StrBytes;

use super::Address;
use super::configs::{Configs, parse_config};
use super::context::Context;
use super::event::LinkId;
use super::handshake::same_cluster;
use super::link::{LinkKey, Peer};
use super::links::Readiness;
use super::metadata_schedule::MetadataSchedule;
use super::request_tag::RequestTag;
use super::requests::ResponseWindow;
use super::view::{BrokerId, BrokerView, ClusterView};
use super::watched_topic::WatchedTopic;
use super::wire::{Api, ResponseBody};
use crate::model::{Instant, TopicName, index_of};

/// The time that the first broker has for its response, which usually takes a millisecond.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// The first version of Metadata in which the operations can be requested.
const OPERATIONS_FROM: i16 = 8;

#[derive(Debug)]
pub(super) struct Directory {
    watched: BTreeMap<TopicName, WatchedTopic>,
    cluster_id: Option<String>,
    brokers: Vec<BrokerView>,
    /// The broker that the next request goes to.
    target: Option<Peer>,
    /// Since when it is the target.
    chosen: Instant,
    /// The broker that did not respond last. The directory asks this broker again only if there is
    /// no other.
    avoided: Option<Peer>,
    /// Requests without a response, in a row.
    losses: u32,
    asking: bool,
    schedule: MetadataSchedule,
    configs: Configs,
}

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            watched: BTreeMap::new(),
            cluster_id: None,
            brokers: Vec::new(),
            target: None,
            chosen: Instant::ZERO,
            avoided: None,
            losses: 0,
            asking: false,
            schedule: MetadataSchedule::new(),
            configs: Configs::default(),
        }
    }

    pub(super) fn watch(&mut self, topic: &TopicName) {
        self.watched.entry(topic.clone()).or_default();
        self.schedule.hurry();
        self.schedule.start_over();
    }

    /// A part of the client has met a stale view.
    pub(super) fn hurry(&mut self) {
        self.schedule.hurry();
    }

    /// Sends the requests that are due.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        self.ask_metadata(cx);
        self.ask_configs(cx);
    }

    fn ask_metadata(&mut self, cx: &mut Context<'_>) {
        if self.asking {
            return;
        }
        let due = self.schedule.next();
        if cx.now.mono < due {
            cx.wake.at(due);
            return;
        }
        if self.target.is_none() {
            self.target = self.choose(cx);
            self.chosen = cx.now.mono;
        }
        let Some(peer) = self.target else { return };
        let Some(address) = address(peer, cx) else {
            self.target = None;
            return;
        };
        let patience = self.patience(cx);
        let window = ResponseWindow {
            due: cx.now.mono,
            deadline: cx.now.mono.after(patience),
        };
        match cx
            .links
            .ready(LinkKey::ask(peer), &address, cx.now, cx.wake)
        {
            // The link may never become ready, because the port of a frozen broker is still open.
            Readiness::Soon if self.chosen.after(patience) <= cx.now.mono => {
                self.on_lost();
                cx.wake.at(cx.now.mono);
            }
            Readiness::Soon => cx.wake.at(self.chosen.after(patience)),
            Readiness::Resting => self.target = None,
            Readiness::Ready(link) => {
                // A link to a broker without Metadata never becomes ready.
                let sent = link.ask(RequestTag::Metadata, Api::Metadata, window, |version| {
                    self.request(version)
                });
                self.asking = sent.is_ok();
                let leaderless = self.watched.values().any(WatchedTopic::is_leaderless);
                let wait_min = cx.settings.backoff_min;
                self.schedule
                    .on_request(leaderless, wait_min, cx.now.mono, cx.jitter);
            }
        }
    }

    /// How long to wait for one broker before another is asked. All brokers know the same, and
    /// nothing can be written before one of them names the new leader. Grows, because a whole
    /// cluster may be slow.
    fn patience(&self, cx: &Context<'_>) -> Duration {
        let patience = PATIENCE_MIN.saturating_mul(1 << self.losses.min(8));
        patience.min(cx.settings.request_timeout / 2)
    }

    fn request(&self, version: i16) -> MetadataRequest {
        let topic = |name: &TopicName| {
            let name = StrBytes::from_string(name.as_str().to_owned());
            MetadataRequestTopic::default().with_name(Some(messages::TopicName(name)))
        };
        MetadataRequest::default()
            .with_topics(Some(self.watched.keys().map(topic).collect()))
            .with_allow_auto_topic_creation(false)
            .with_include_topic_authorized_operations(version >= OPERATIONS_FROM)
    }

    /// Chooses a broker that responded last, preferably one that is connected. If all fail, any
    /// that may be tried again, including the bootstrap addresses.
    fn choose(&self, cx: &mut Context<'_>) -> Option<Peer> {
        let mut nodes: Vec<Peer> = self.brokers.iter().map(|b| Peer::Node(b.id)).collect();
        if nodes.len() > 1 {
            nodes.retain(|&peer| Some(peer) != self.avoided);
        }
        let pick = |from: Vec<Peer>, cx: &mut Context<'_>| {
            let at = (!from.is_empty()).then(|| cx.jitter.below(from.len() as u64));
            at.map(|i| from[index_of(i)])
        };
        let mut trusted = nodes.clone();
        trusted.retain(|&peer| cx.links.brokers().is_trusted(peer));
        let mut standing = trusted.clone();
        standing.retain(|&peer| self.schedule.is_quick() && cx.links.is_ready(LinkKey::ask(peer)));
        if let Some(peer) = pick(standing, cx).or_else(|| pick(trusted, cx)) {
            return Some(peer);
        }
        let mut any = nodes;
        any.extend((0..cx.settings.bootstrap.len()).map(Peer::Bootstrap));
        for &peer in &any {
            let from = cx.links.brokers().not_before(peer);
            cx.wake.at(from.max(cx.now.mono));
        }
        any.retain(|&peer| cx.links.brokers().not_before(peer) <= cx.now.mono);
        pick(any, cx)
    }

    /// The response with metadata. Returns the new view if it differs.
    pub(super) fn on_metadata(
        &mut self,
        link: LinkId,
        body: ResponseBody,
        cx: &mut Context<'_>,
    ) -> Option<ClusterView> {
        self.asking = false;
        let response = match body.decode::<MetadataRequest>() {
            Ok(response) => response,
            Err(error) => {
                self.on_lost();
                cx.give_up(link, error);
                return None;
            }
        };
        cx.links.throttle(link, response.throttle_time_ms, cx.now);
        // A load balancer before the brokers may route two connections to different clusters.
        let ours = cx.links.cluster().map(String::as_str);
        if let Err(error) = same_cluster(ours, response.cluster_id.as_deref()) {
            self.on_lost();
            cx.give_up(link, error);
            return None;
        }
        self.schedule.on_response(cx.now.mono);
        (self.losses, self.avoided) = (0, None);
        if response.brokers.is_empty() {
            // A broker that has just started may not know any broker, not even itself.
            self.schedule.hurry();
            self.target = None;
            return None;
        }
        self.brokers = brokers(&response.brokers);
        let cluster_id = response.cluster_id.map(|id| id.to_string());
        self.cluster_id = cluster_id.or(self.cluster_id.take());
        let mut unsettled = false;
        for topic in &response.topics {
            let name = topic
                .name
                .as_ref()
                .and_then(|name| TopicName::new(name).ok());
            let Some(watched) = name.and_then(|name| self.watched.get_mut(&name)) else {
                continue;
            };
            let found = watched.on_metadata(topic);
            unsettled |= found.is_unsettled;
            if found.is_new {
                self.configs.hurry();
            }
        }
        // A missing topic may be created, and a partition may get a leader: ask more often.
        let wait = if unsettled {
            cx.settings.backoff_max.min(cx.settings.metadata_refresh)
        } else {
            cx.settings.metadata_refresh
        };
        self.schedule.set_due(cx.now.mono.after(wait));
        if matches!(self.target, Some(Peer::Bootstrap(_))) {
            self.target = None;
            cx.links.leave_bootstrap();
        }
        let view = self.changed(cx.view);
        if view.is_none() && !self.schedule.is_quick() {
            // The broker may be cut off from the controllers, so the next request asks another.
            self.avoided = self.target.take();
        }
        view
    }

    /// The request is lost with its link: another broker is asked.
    pub(super) fn on_lost(&mut self) {
        self.asking = false;
        self.avoided = self.target.take();
        self.losses = self.losses.saturating_add(1);
        self.schedule.hurry();
    }

    fn ask_configs(&mut self, cx: &mut Context<'_>) {
        if !self.configs.is_due(cx) {
            return;
        }
        let present = self.watched.iter().filter(|(_, found)| found.is_present());
        let names: Vec<TopicName> = present.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let Some(peer) = self.target.or_else(|| self.choose(cx)) else {
            return;
        };
        let Some(address) = address(peer, cx) else {
            return;
        };
        let window = cx.window(Duration::ZERO);
        if let Readiness::Ready(link) =
            cx.links
                .ready(LinkKey::ask(peer), &address, cx.now, cx.wake)
        {
            self.configs.asked(
                link.ask(RequestTag::Configs, Api::DescribeConfigs, window, |_| {
                    super::configs::request(&names)
                }),
            );
        }
    }

    /// The response with configs. Returns the new view if it differs.
    pub(super) fn on_configs(
        &mut self,
        link: LinkId,
        body: ResponseBody,
        cx: &mut Context<'_>,
    ) -> Option<ClusterView> {
        match body.decode::<messages::DescribeConfigsRequest>() {
            Err(error) => cx.give_up(link, error),
            Ok(response) => {
                cx.links.throttle(link, response.throttle_time_ms, cx.now);
                for result in &response.results {
                    let name = TopicName::new(&result.resource_name).ok();
                    let found = name.and_then(|name| self.watched.get_mut(&name));
                    if let Some((found, config)) = found.zip(parse_config(result)) {
                        found.set_config(config);
                    }
                }
            }
        }
        if self.watched.values().any(WatchedTopic::lacks_config) {
            self.configs.failed(cx);
        } else {
            self.configs.answered(cx);
        }
        self.changed(cx.view)
    }

    /// The request is lost with its link.
    pub(super) fn on_configs_lost(&mut self, cx: &mut Context<'_>) {
        self.configs.failed(cx);
    }

    /// The present view, if it differs from the old one. After a change, urgent requests may be
    /// quick again.
    fn changed(&mut self, old: &ClusterView) -> Option<ClusterView> {
        let entry = |(name, topic): (&TopicName, &WatchedTopic)| topic.entry(name);
        let view = ClusterView {
            cluster_id: self.cluster_id.clone(),
            brokers: self.brokers.clone(),
            topics: self.watched.iter().filter_map(entry).collect(),
        };
        if view == *old {
            return None;
        }
        self.schedule.start_over();
        Some(view)
    }
}

fn brokers(found: &[MetadataResponseBroker]) -> Vec<BrokerView> {
    let view = |broker: &MetadataResponseBroker| {
        Some(BrokerView {
            id: BrokerId(broker.node_id.0),
            address: Address {
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).ok()?,
            },
            rack: broker.rack.as_ref().map(ToString::to_string),
        })
    };
    let mut brokers: Vec<_> = found.iter().filter_map(view).collect();
    brokers.sort_unstable_by_key(|broker| broker.id);
    brokers.dedup_by_key(|broker| broker.id);
    brokers
}

fn address(peer: Peer, cx: &Context<'_>) -> Option<Address> {
    match peer {
        Peer::Bootstrap(i) => cx.settings.bootstrap.get(i).cloned(),
        Peer::Node(node) => cx.view.address(node).cloned(),
    }
}

//! The directory of a cluster: asks one broker at a time for the metadata of the watched topics,
//! and for their configs. What it finds becomes a new [`ClusterView`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use kafka_protocol::messages::{self, MetadataRequest};
use kafka_protocol::protocol::StrBytes;

use super::backoff::Backoff;
use super::configs::{Configs, parse_config};
use super::context::Context;
use super::event::LinkId;
use super::handshake::same_cluster;
use super::link::{Peer, Purpose};
use super::links::Readiness;
use super::request_tag::RequestTag;
use super::requests::ResponseWindow;
use super::view::{
    BrokerId, BrokerView, ClusterView, Leader, MissingReason, TopicConfig, TopicEntry, TopicState,
    TopicView,
};
use super::wire::{self, Api};
use super::{Address, Code};
use crate::model::{Instant, LeaderEpoch, LogIdentity, TopicName};

/// What was found out about a watched topic.
#[derive(Debug, Default)]
struct Found {
    metadata: Option<Metadata>,
    /// Answers in a row with older epochs than known, without a topic id.
    older: u32,
    /// `Some(None)`: we may not read it.
    config: Option<Option<TopicConfig>>,
}

#[derive(Debug)]
enum Metadata {
    Missing(MissingReason),
    Present {
        id: Option<LogIdentity>,
        leaders: Vec<Leader>,
        writable: Option<bool>,
    },
}

/// How long the first broker asked has for its answer, which usually takes a millisecond.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// Questions in a hurry that come as fast as the shortest backoff allows.
const QUICK_HURRIES: u32 = 6;
/// The wait between the others: so much later than the election may a new leader be found, which
/// takes a cluster seconds when a node dies. One client of the process asks, one broker.
const HURRY_MAX: Duration = Duration::from_millis(200);
/// The longest that an election takes. A leader that is still missing then may be missing for
/// hours.
const HURRIED_FOR: Duration = Duration::from_secs(10);
/// The longest wait after that. Half of it is jitter, so that many gateways do not ask together.
const HURRY_WAIT_MAX: Duration = Duration::from_secs(1);
/// The number of requests after which the wait doubles.
const HURRIES_TO_DOUBLE: u32 = 5;

const _: () = {
    // The wait during an election is the shortest, and it only ever grows.
    assert!(HURRY_MAX.as_millis() < HURRY_WAIT_MAX.as_millis());
};

/// The bit of WRITE among a topic's authorized operations (KIP-430).
const WRITE_BIT: i32 = 1 << 4;
/// The value that a broker sends if it does not report the operations.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;
/// The first version of Metadata in which the operations can be requested.
const OPERATIONS_FROM: i16 = 8;

#[derive(Debug)]
pub(super) struct Directory {
    watched: BTreeMap<TopicName, Found>,
    cluster_id: Option<String>,
    brokers: Vec<BrokerView>,
    /// Whom the next question goes to.
    target: Option<Peer>,
    /// Since when.
    chosen: Instant,
    /// Who was left without an answer: asked again only where there is nobody else.
    avoided: Option<Peer>,
    /// How many were, in a row.
    losses: u32,
    asking: bool,
    /// When to ask again.
    due: Instant,
    last_answer: Option<Instant>,
    /// Questions in a row that somebody was in a hurry for.
    hurries: u32,
    /// When the first of them was asked.
    hurried_since: Instant,
    /// How long after the last answer the next of them is asked.
    hurry_wait: Duration,
    hurried: bool,
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
            due: Instant::ZERO,
            last_answer: None,
            hurries: 0,
            hurried_since: Instant::ZERO,
            hurry_wait: Duration::ZERO,
            hurried: true,
            configs: Configs::default(),
        }
    }

    pub(super) fn watch(&mut self, topic: &TopicName) {
        self.watched.entry(topic.clone()).or_default();
        self.hurried = true;
        self.hurries = 0;
    }

    /// Somebody met a stale view.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Asks what is due.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        self.ask_metadata(cx);
        self.ask_configs(cx);
    }

    fn ask_metadata(&mut self, cx: &mut Context<'_>) {
        let due = match (self.hurried, self.last_answer) {
            (false, _) => self.due,
            (true, None) => Instant::ZERO,
            (true, Some(last)) => self.due.min(last.after(self.hurry_wait)),
        };
        if self.asking {
            return;
        }
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
            .ready((peer, Purpose::Ask), &address, cx.now, cx.wake)
        {
            // It may never come to stand: a frozen broker's port is still open.
            Readiness::Soon if self.chosen.after(patience) <= cx.now.mono => {
                self.on_lost();
                cx.wake.at(cx.now.mono);
            }
            Readiness::Soon => cx.wake.at(self.chosen.after(patience)),
            Readiness::Resting => self.target = None,
            Readiness::Ready(link) => {
                // A link whose broker lacks Metadata never becomes ready.
                let sent = link.ask(RequestTag::Metadata, Api::Metadata, window, |version| {
                    self.request(version)
                });
                self.asking = sent.is_ok();
                if self.hurries == 0 {
                    self.hurried_since = cx.now.mono;
                }
                // A request without hurry ends the row, unless a leader is still missing.
                self.hurries = match (self.hurried, self.is_leaderless()) {
                    (true, _) => self.hurries + 1,
                    (false, true) => self.hurries,
                    (false, false) => 0,
                };
                self.hurried = false;
                self.hurry_wait = self.next_hurry_wait(cx);
            }
        }
    }

    /// Whether some partition has no leader.
    fn is_leaderless(&self) -> bool {
        let leaderless = |found: &Found| match &found.metadata {
            Some(Metadata::Present { leaders, .. }) => leaders.iter().any(|it| it.broker.is_none()),
            _ => false,
        };
        self.watched.values().any(leaderless)
    }

    /// KRaft propagates a new leader to all brokers within about 0.1 s. So the first requests come
    /// fast, and later ones less often. Once an election would be over, the wait grows further: a
    /// partition without a leader by then may have none for hours.
    fn next_hurry_wait(&self, cx: &mut Context<'_>) -> Duration {
        let least = cx.settings.backoff_min;
        if self.hurries <= QUICK_HURRIES {
            return least;
        }
        if cx.now.mono.since(self.hurried_since) < HURRIED_FOR {
            return HURRY_MAX.max(least);
        }
        let (max, min) = (HURRY_WAIT_MAX.max(least), HURRY_MAX.max(least));
        let at_10_s = HURRIED_FOR.as_millis() as u32 / HURRY_MAX.as_millis() as u32;
        let doubled = self.hurries.saturating_sub(at_10_s) / HURRIES_TO_DOUBLE + 2;
        let failures = doubled.min(8);
        Backoff { min, max }.after(failures, cx.jitter)
    }

    /// How long one broker is waited for before another is asked: what it knows is the same, and
    /// until somebody says who leads now, nothing is written. Grows, for a cluster may be slow.
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

    /// A broker that answered last, rather one we are connected to; where all fail, any that may be
    /// tried again, the bootstrap addresses among them.
    fn choose(&self, cx: &mut Context<'_>) -> Option<Peer> {
        let mut nodes: Vec<Peer> = self.brokers.iter().map(|b| Peer::Node(b.id)).collect();
        if nodes.len() > 1 {
            nodes.retain(|&peer| Some(peer) != self.avoided);
        }
        let pick = |from: Vec<Peer>, cx: &mut Context<'_>| {
            let at = (!from.is_empty()).then(|| cx.jitter.below(from.len() as u64));
            at.map(|i| from[i as usize])
        };
        let mut trusted = nodes.clone();
        trusted.retain(|&peer| cx.links.brokers().is_trusted(peer));
        let mut standing = trusted.clone();
        standing
            .retain(|&peer| self.hurries <= QUICK_HURRIES && cx.links.is_ready(peer, Purpose::Ask));
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

    /// Metadata came. Gives the new view, if it differs.
    pub(super) fn on_metadata(
        &mut self,
        link: LinkId,
        (version, body): (i16, bytes::Bytes),
        cx: &mut Context<'_>,
    ) -> Option<ClusterView> {
        self.asking = false;
        let response = match wire::decode::<MetadataRequest>(body, version) {
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
        self.last_answer = Some(cx.now.mono);
        (self.losses, self.avoided) = (0, None);
        if response.brokers.is_empty() {
            // A broker that has just started and knows nobody, not even itself.
            self.hurried = true;
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
            let Some(found) = name.and_then(|name| self.watched.get_mut(&name)) else {
                continue;
            };
            unsettled |= found.take(topic, &mut self.configs);
        }
        // What is missing may be made, what has no leader may get one: look more often.
        let wait = match unsettled {
            true => cx.settings.backoff_max.min(cx.settings.metadata_refresh),
            false => cx.settings.metadata_refresh,
        };
        self.due = cx.now.mono.after(wait);
        if matches!(self.target, Some(Peer::Bootstrap(_))) {
            self.target = None;
            cx.links.leave_bootstrap();
        }
        let view = self.changed(cx.view);
        if view.is_none() && self.hurries > QUICK_HURRIES {
            // It may be cut off from the controllers, and know no better: the next asks another.
            self.avoided = self.target.take();
        }
        view
    }

    /// The question is lost with its link: ask another broker.
    pub(super) fn on_lost(&mut self) {
        self.asking = false;
        self.avoided = self.target.take();
        self.losses = self.losses.saturating_add(1);
        self.hurried = true;
    }

    fn ask_configs(&mut self, cx: &mut Context<'_>) {
        let present = self.watched.iter().filter(|(_, found)| found.is_present());
        let unknown = present.clone().any(|(_, found)| found.config.is_none());
        if !self
            .configs
            .is_due(unknown, present.clone().next().is_some(), cx)
        {
            return;
        }
        let names: Vec<TopicName> = present.map(|(name, _)| name.clone()).collect();
        let Some(peer) = self.target.or_else(|| self.choose(cx)) else {
            return;
        };
        let Some(address) = address(peer, cx) else {
            return;
        };
        let window = cx.window(Duration::ZERO);
        if let Readiness::Ready(link) =
            cx.links
                .ready((peer, Purpose::Ask), &address, cx.now, cx.wake)
        {
            self.configs.asked(
                link.ask(RequestTag::Configs, Api::DescribeConfigs, window, |_| {
                    super::configs::request(&names)
                }),
            );
        }
    }

    /// Configs came. Gives the new view, if it differs.
    pub(super) fn on_configs(
        &mut self,
        link: LinkId,
        (version, body): (i16, bytes::Bytes),
        cx: &mut Context<'_>,
    ) -> Option<ClusterView> {
        match wire::decode::<messages::DescribeConfigsRequest>(body, version) {
            Err(error) => cx.give_up(link, error),
            Ok(response) => {
                cx.links.throttle(link, response.throttle_time_ms, cx.now);
                for result in &response.results {
                    let name = TopicName::new(&result.resource_name).ok();
                    let found = name.and_then(|name| self.watched.get_mut(&name));
                    if let Some((found, config)) = found.zip(parse_config(result)) {
                        found.config = Some(config);
                    }
                }
            }
        }
        let unknown = |found: &Found| found.is_present() && found.config.is_none();
        match self.watched.values().any(unknown) {
            true => self.configs.failed(cx),
            false => self.configs.answered(cx),
        }
        self.changed(cx.view)
    }

    /// The question is lost with its link.
    pub(super) fn on_configs_lost(&mut self, cx: &mut Context<'_>) {
        self.configs.failed(cx);
    }

    /// The view as it is now, if it is not the old one. A change is progress: the next hurry need
    /// not wait long.
    fn changed(&mut self, old: &ClusterView) -> Option<ClusterView> {
        let entry = |(name, found): (&TopicName, &Found)| found.entry(name);
        let view = ClusterView {
            cluster_id: self.cluster_id.clone(),
            brokers: self.brokers.clone(),
            topics: self.watched.iter().filter_map(entry).collect(),
        };
        if view == *old {
            return None;
        }
        self.hurries = 0;
        Some(view)
    }
}

impl Found {
    fn is_present(&self) -> bool {
        matches!(self.metadata, Some(Metadata::Present { .. }))
    }

    /// Takes what a broker says of the topic; true if it should be looked at again soon.
    fn take(&mut self, topic: &MetadataResponseTopic, configs: &mut Configs) -> bool {
        const LEADER_NOT_AVAILABLE: i16 = 5;
        let missing = match topic.error_code {
            // Some partitions may have leaders nevertheless.
            0 | LEADER_NOT_AVAILABLE if !topic.partitions.is_empty() => None,
            LEADER_NOT_AVAILABLE => return true,
            0 | 3 => Some(MissingReason::Unknown),
            code => Some(MissingReason::Refused(Code(code))),
        };
        if let Some(reason) = missing {
            self.metadata = Some(Metadata::Missing(reason));
            return true;
        }
        let id = (!topic.topic_id.is_nil()).then(|| LogIdentity(*topic.topic_id.as_bytes()));
        let known = match &self.metadata {
            Some(Metadata::Present {
                id: before,
                leaders,
                ..
            }) if *before == id => leaders.clone(),
            _ => {
                self.config = None;
                configs.hurry();
                Vec::new()
            }
        };
        let known = match id {
            None if self.is_another_log(topic, &known) => Vec::new(),
            _ => known,
        };
        let leaders = leaders(topic, &known);
        let unsettled = leaders.iter().any(|leader| leader.broker.is_none());
        let operations = topic.topic_authorized_operations;
        let writable = (operations != OPERATIONS_UNKNOWN).then_some(operations & WRITE_BIT != 0);
        self.metadata = Some(Metadata::Present {
            id,
            leaders,
            writable,
        });
        unsettled || self.older > 0
    }

    /// Whether epochs that went back mean another log under the name: without topic ids nothing
    /// else tells, and fetches under the old epoch would be refused for ever. A broker that lags
    /// says the same for a moment.
    fn is_another_log(&mut self, topic: &MetadataResponseTopic, known: &[Leader]) -> bool {
        const OLDER_MAX: u32 = 5;
        let went_back = topic.partitions.iter().any(|partition| {
            let epoch = u32::try_from(partition.leader_epoch).ok();
            let index = usize::try_from(partition.partition_index).ok();
            let known = index.and_then(|index| known.get(index));
            epoch.is_some() && known.is_some_and(|known| known.epoch > LeaderEpoch(epoch))
        });
        self.older = if went_back { self.older + 1 } else { 0 };
        let another = self.older > OLDER_MAX;
        if another {
            self.older = 0;
        }
        another
    }

    fn entry(&self, name: &TopicName) -> Option<TopicEntry> {
        let state = match self.metadata.as_ref()? {
            Metadata::Missing(reason) => TopicState::Missing(*reason),
            Metadata::Present {
                id,
                leaders,
                writable,
            } => TopicState::Present {
                view: Arc::new(TopicView {
                    name: name.clone(),
                    id: *id,
                    partitions: leaders.len() as u32,
                    config: self.config?,
                    writable: *writable,
                }),
                leaders: leaders.as_slice().into(),
            },
        };
        let name = name.clone();
        Some(TopicEntry { name, state })
    }
}

/// Leaders by partition. A broker that lags may still name an older one: the newer epoch stays.
fn leaders(topic: &MetadataResponseTopic, known: &[Leader]) -> Vec<Leader> {
    let mut leaders = vec![Leader::default(); topic.partitions.len()];
    for partition in &topic.partitions {
        let Ok(index) = usize::try_from(partition.partition_index) else {
            continue;
        };
        let Some(slot) = leaders.get_mut(index) else {
            continue; // Partitions are numbered without holes; what is beyond is no partition.
        };
        let node = partition.leader_id.0;
        let found = Leader {
            broker: (node >= 0).then_some(BrokerId(node)),
            epoch: LeaderEpoch(u32::try_from(partition.leader_epoch).ok()),
        };
        *slot = match known.get(index) {
            Some(newer) if newer.epoch > found.epoch => *newer,
            _ => found,
        };
    }
    leaders
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

//! A numbered picture of what to serve: routes, the topics they need, who is home to which. Built
//! once from a config, immutable, shared by every shard. The start is the first load of one.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::config::ClusterIndex;
use crate::config::{BrokerAddress, Config, Start, StreamRoute};
use crate::model::{LogIdentity, ShardId, TopicName};
use crate::sse::{Encoding, Payload};

/// A topic of a snapshot, by its place in [`Snapshot::topics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicIndex(pub u16);

/// What to serve.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with each load.
    pub number: u64,
    /// Routes and settings as they were read.
    pub config: Arc<Config>,
    /// Every topic that a route names.
    pub topics: Vec<TopicPlan>,
    /// By command route: commands topic and replies topic, which share a home.
    pub commands: Vec<CommandPlan>,
    /// By query route: its topic.
    pub queries: Vec<TopicIndex>,
    /// By stream route: its topic and which of the topic's encodings it takes.
    pub streams: Vec<(TopicIndex, usize)>,
    /// Who serves and who owns keys.
    pub layout: Layout,
}

/// A topic and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its cluster.
    pub cluster: ClusterIndex,
    /// Its name.
    pub name: TopicName,
    /// The shard that does its Kafka work.
    pub home: ShardId,
    /// Commands are produced to it.
    pub takes_commands: bool,
    /// Whether some of these records have no key.
    pub takes_keyless: bool,
    /// Replies are read from it, whole.
    pub holds_replies: bool,
    /// Its newest records are cached, over all slices.
    pub cached: bool,
    /// Queries are answered from it.
    pub queried: bool,
    /// Whether the topic has a collection.
    pub listed: bool,
    /// A route needs it compacted, for this reason.
    pub compacted_for: Option<&'static str>,
    /// The ways its events are written; empty if no stream reads it.
    pub encodings: Vec<Encoding>,
}

/// The topics of a command route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandPlan {
    /// Where its records go.
    pub commands: TopicIndex,
    /// Where its replies come from.
    pub replies: TopicIndex,
}

/// How the shards share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// All shards.
    pub shards: u16,
    /// The first so many do Kafka's work alone; 0: all do everything.
    pub kafka_shards: u16,
}

impl Layout {
    /// The first shard that owns keys and serves clients.
    #[must_use]
    pub const fn first_slice(self) -> ShardId {
        ShardId(if self.kafka_shards < self.shards {
            self.kafka_shards
        } else {
            0
        })
    }

    /// How many shards own keys and serve clients.
    #[must_use]
    pub const fn slices(self) -> u16 {
        self.shards - self.first_slice().0
    }

    /// The shards that own keys, in the order of their ranges.
    pub fn slice_shards(self) -> impl Iterator<Item = ShardId> {
        (self.first_slice().0..self.shards).map(ShardId)
    }

    /// How many shards are homes, from shard 0 on.
    #[must_use]
    pub const fn homes(self) -> u16 {
        if self.first_slice().0 == 0 {
            self.shards
        } else {
            self.kafka_shards
        }
    }
}

impl TopicPlan {
    /// Whether every slice shard gets the topic's steps.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.cached || !self.encodings.is_empty()
    }
}

impl Snapshot {
    /// Plans a checked config over the shards. Topics that a command route links share a home; the
    /// groups go round the homes in the order of their first mention.
    #[must_use]
    pub fn new(number: u64, config: Arc<Config>, layout: Layout) -> Self {
        let mut topics = Topics::default();
        let commands = config.commands.iter().map(|route| {
            let commands = topics.get(route.cluster, &route.topic);
            let replies = topics.get(route.cluster, &route.replies);
            let plan = &mut topics.plans[usize::from(commands.0)];
            plan.takes_commands = true;
            plan.takes_keyless |= route.key.is_none();
            topics.plans[usize::from(replies.0)].holds_replies = true;
            topics.link(commands, replies);
            CommandPlan { commands, replies }
        });
        let commands = commands.collect();
        let queries = config.queries.iter().map(|route| {
            let topic = topics.get(route.cluster, &route.topic);
            let plan = &mut topics.plans[usize::from(topic.0)];
            (plan.cached, plan.queried) = (true, true);
            plan.listed |= route.key.is_none();
            topic
        });
        let queries = queries.collect();
        let streams = config.streams.iter().map(|route| {
            let topic = topics.get(route.cluster, &route.topic);
            (
                topic,
                topics.plans[usize::from(topic.0)].stream(route, &config.headers.etag),
            )
        });
        let streams = streams.collect();
        let topics = topics.place(layout.homes());
        Self {
            number,
            config,
            topics,
            commands,
            queries,
            streams,
            layout,
        }
    }

    /// The plan of a topic.
    #[must_use]
    pub fn topic(&self, index: TopicIndex) -> &TopicPlan {
        &self.topics[usize::from(index.0)]
    }

    /// Every cluster, that of `[kafka]` first.
    pub fn cluster_indexes(&self) -> impl Iterator<Item = ClusterIndex> + use<> {
        self.config.cluster_indexes()
    }

    /// Where a cluster is asked first.
    #[must_use]
    pub fn bootstrap(&self, index: ClusterIndex) -> &[BrokerAddress] {
        let other = self.config.cluster(index);
        other.map_or(&self.config.settings.kafka.bootstrap, |it| &it.bootstrap)
    }

    /// A cluster as messages call it.
    #[must_use]
    pub fn cluster_name(&self, index: ClusterIndex) -> String {
        let other = self.config.cluster(index);
        other.map_or_else(|| "kafka".into(), |it| format!("cluster `{}`", it.name))
    }

    /// A topic as messages call it: with its cluster where that is not the one of `[kafka]`.
    #[must_use]
    pub fn topic_name(&self, plan: &TopicPlan) -> String {
        let name = &plan.name;
        match self.config.cluster(plan.cluster) {
            None => format!("topic `{name}`"),
            Some(cluster) => format!("topic `{name}` of cluster `{}`", cluster.name),
        }
    }

    /// The check of what commands write to a topic.
    #[must_use]
    pub fn writes_name(&self, plan: &TopicPlan) -> String {
        format!("commands to {}", self.topic_name(plan))
    }

    /// The check of a command route whose records have no key. `None` if they have one.
    #[must_use]
    pub fn keyless_name(&self, route: usize) -> Option<String> {
        let route = &self.config.commands[route];
        let keyless = route.key.is_none();
        keyless.then(|| format!("command `{}`", route.name))
    }

    /// The name of a topic's streams in messages, where other routes of the topic have their own.
    #[must_use]
    pub fn streams_name(&self, plan: &TopicPlan) -> String {
        format!("streams of {}", self.topic_name(plan))
    }

    /// A topic as metrics and `/status` call it. No topic's name has a slash.
    #[must_use]
    pub fn topic_label(&self, plan: &TopicPlan) -> String {
        match self.config.cluster(plan.cluster) {
            None => plan.name.to_string(),
            Some(cluster) => format!("{}/{}", cluster.name, plan.name),
        }
    }

    /// What the config calls a topic's log, if it does.
    #[must_use]
    pub fn log_identity(&self, plan: &TopicPlan) -> Option<LogIdentity> {
        let log_id = match self.config.cluster(plan.cluster) {
            None => self.config.settings.kafka.log_id.as_deref(),
            Some(cluster) => cluster.log_id.as_deref(),
        };
        log_id.map(|log_id| LogIdentity::declared(log_id, &plan.name))
    }

    /// Every topic with its index.
    pub fn indexed(&self) -> impl Iterator<Item = (TopicIndex, &TopicPlan)> {
        self.topics
            .iter()
            .enumerate()
            .map(|(i, plan)| (TopicIndex(i as u16), plan))
    }
}

impl TopicPlan {
    /// Adds a stream; says which encoding it takes.
    fn stream(&mut self, route: &StreamRoute, etag_header: &str) -> usize {
        if route.start == Start::Snapshot {
            self.compacted_for = Some("`start = \"snapshot\"`");
        }
        if route.slow == crate::config::Slow::Conflate {
            self.compacted_for = Some("`slow = \"conflate\"`");
        }
        let encoding = Encoding {
            event: route.event.clone(),
            payload: Payload::Auto,
            etag_header: etag_header.into(),
        };
        let known = self.encodings.iter().position(|known| *known == encoding);
        known.unwrap_or_else(|| {
            self.encodings.push(encoding);
            self.encodings.len() - 1
        })
    }
}

/// Topics as they are first named, with the group that shares their home.
#[derive(Default)]
struct Topics {
    plans: Vec<TopicPlan>,
    by_name: BTreeMap<(ClusterIndex, TopicName), TopicIndex>,
    /// Each topic's group: the lowest index it is linked with.
    groups: Vec<u16>,
}

impl Topics {
    fn get(&mut self, cluster: ClusterIndex, name: &TopicName) -> TopicIndex {
        let key = (cluster, name.clone());
        if let Some(&index) = self.by_name.get(&key) {
            return index;
        }
        let index = TopicIndex(u16::try_from(self.plans.len()).expect("a config has fewer routes"));
        self.plans.push(TopicPlan {
            cluster,
            name: name.clone(),
            home: ShardId(0),
            takes_commands: false,
            takes_keyless: false,
            holds_replies: false,
            cached: false,
            queried: false,
            listed: false,
            compacted_for: None,
            encodings: Vec::new(),
        });
        self.groups.push(index.0);
        self.by_name.insert(key, index);
        index
    }

    fn link(&mut self, one: TopicIndex, other: TopicIndex) {
        let (one, other) = (
            self.groups[usize::from(one.0)],
            self.groups[usize::from(other.0)],
        );
        let (low, high) = (one.min(other), one.max(other));
        self.groups
            .iter_mut()
            .filter(|group| **group == high)
            .for_each(|group| *group = low);
    }

    fn place(mut self, homes: u16) -> Vec<TopicPlan> {
        let mut order: Vec<u16> = self.groups.clone();
        order.sort_unstable();
        order.dedup();
        for (plan, group) in self.plans.iter_mut().zip(&self.groups) {
            let rank = order
                .binary_search(group)
                .expect("every group is in the order");
            plan.home = ShardId(rank as u16 % homes);
            // *Changes* of a compacted topic are paged from its slices, with or without a query.
            plan.cached |= plan.compacted_for.is_some();
        }
        self.plans
    }
}

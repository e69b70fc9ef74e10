//! A numbered picture of what to serve: routes, the topics they need, and each topic's home. Built
//! once from a config, immutable, shared by every shard. The start is the first load of one.
//!
//! Routes have a place (in the config, known within one snapshot) and a number (from the
//! [`Registry`], known in all of them). Whatever outlives a request's first turn names a route,
//! topic or cluster by its number.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{BrokerAddress, ClusterConfig, ClusterIndex as ConfigIndex, ClusterKeys};
use crate::config::{CommandRoute, Config, Dedupe, KafkaSasl, KafkaTls, QueryRoute, StreamRoute};
pub use crate::model::{ClusterId, TopicId};
use crate::model::{Id as _, IdTable, LogIdentity, RouteId, ShardId, TopicName};

use crate::schema::{BodySchema, Schemas};

use super::registry::{NumbersExhausted, Registry};
use super::topic_plan::{Link, TopicPlan};
use super::work_limits::WorkLimits;

/// The routes and settings of a config, planned over the shards of the process.
#[derive(Debug)]
pub struct Snapshot {
    /// The number of the load, from 1.
    pub number: u64,
    /// The config that the snapshot was planned from.
    pub config: Arc<Config>,
    /// Every topic that a route names, in this snapshot or an earlier one.
    pub topics: IdTable<TopicId, TopicPlan>,
    /// The topics of every command route of this snapshot or an earlier one. They never change: a
    /// retry is recognised by the index of the route's replies topic.
    pub(super) links: IdTable<RouteId, Link>,
    /// Command routes, by place in the config.
    pub commands: Vec<CommandPlan>,
    /// The schemas of bodies, by the command route's place in the config.
    pub(super) schemas: Vec<Option<Arc<BodySchema>>>,
    /// Query routes, by place in the config.
    pub queries: Vec<QueryPlan>,
    /// Stream routes, by place in the config.
    pub streams: Vec<StreamPlan>,
    /// How the shards share the work.
    pub layout: Layout,
    /// The limits of one piece of work.
    pub work: WorkLimits,
    /// Every cluster, with its place in the config.
    clusters: IdTable<ClusterId, ConfigIndex>,
}

/// A command route. Its topics share a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandPlan {
    /// The route's number, the same in every snapshot that has the route.
    pub id: RouteId,
    /// The topic that commands are produced to.
    pub commands: TopicId,
    /// The topic that replies are read from. `None`: the route is one-way.
    pub replies: Option<TopicId>,
}

impl CommandPlan {
    /// The topic whose home has the table of the route's commands in flight: the topic of replies,
    /// or that of the commands themselves if none is answered.
    #[must_use]
    pub const fn table(&self) -> TopicId {
        match self.replies {
            Some(replies) => replies,
            None => self.commands,
        }
    }
}

/// A query route: shows the newest records of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryPlan {
    /// The route's number, the same in every snapshot that has the route.
    pub id: RouteId,
    /// The topic whose newest records the route shows.
    pub topic: TopicId,
}

/// A stream route: sends the records of a topic as events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// The route's number, the same in every snapshot that has the route.
    pub id: RouteId,
    /// The topic whose records the route shows.
    pub topic: TopicId,
    /// The route's encoding, by place in [`TopicPlan::encodings`].
    pub encoding: usize,
}

/// How the shards share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The number of shards in the process.
    pub shards: u16,
    /// The number of shards that only do the Kafka work, from shard 0 on. With 0, every shard does
    /// all kinds of work.
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

    /// The number of shards that own keys and serve clients.
    #[must_use]
    pub const fn slices(self) -> u16 {
        self.shards - self.first_slice().0
    }

    /// The shards that own keys, in the order of their ranges.
    pub fn slice_shards(self) -> impl Iterator<Item = ShardId> {
        (self.first_slice().0..self.shards).map(ShardId)
    }

    /// The number of shards that are homes, from shard 0 on.
    #[must_use]
    pub const fn homes(self) -> u16 {
        if self.first_slice().0 == 0 {
            self.shards
        } else {
            self.kafka_shards
        }
    }
}

impl Snapshot {
    /// Plans a checked config over the shards. Topics that a command route links share a home.
    ///
    /// # Errors
    /// The registry has no number left for a new name.
    pub fn new(
        number: u64,
        config: Arc<Config>,
        layout: Layout,
        registry: &mut Registry,
    ) -> Result<Self, NumbersExhausted> {
        let mut planner = Planner::new(&config, registry)?;
        let commands = config.commands.iter();
        let commands = commands.map(|route| planner.command(route));
        let commands = commands.collect::<Result<_, _>>()?;
        let queries = config.queries.iter().map(|route| planner.query(route));
        let queries = queries.collect::<Result<_, _>>()?;
        let streams = config.streams.iter();
        let streams = streams.map(|route| planner.stream(route, &config.headers.etag));
        let streams = streams.collect::<Result<_, _>>()?;
        let clusters = planner.place(layout.homes());
        let (topics, links) = (registry.plans().clone(), registry.links().clone());
        Ok(Self {
            number,
            topics,
            links,
            schemas: vec![None; config.commands.len()],
            config,
            commands,
            queries,
            streams,
            layout,
            work: WorkLimits::default(),
            clusters,
        })
    }

    /// Adds the compiled schemas of the command routes.
    ///
    /// # Panics
    /// The schema of a route is missing: its bodies would not be checked.
    #[must_use]
    pub fn with_schemas(mut self, schemas: &Schemas) -> Self {
        let compiled = self.config.commands.iter().map(|route| {
            let file = route.schema.as_ref()?;
            let schema = schemas.get(&file.path);
            Some(schema.expect("every schema file is compiled").clone())
        });
        self.schemas = compiled.collect();
        self
    }

    /// The topics of every command route of this snapshot or an earlier one: that of commands, and
    /// that of their table, which is the topic of replies, or of one-way commands their own.
    pub(super) fn linked_topics(&self) -> impl Iterator<Item = (TopicId, TopicId)> {
        let links = self.links.iter();
        links.map(|(_, link)| (link.commands, link.replies.unwrap_or(link.commands)))
    }

    /// The plan of a topic. A shard takes over only snapshots with the same topics, so that every
    /// number it meets has one.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> &TopicPlan {
        let plan = self.topics.get(topic);
        plan.expect("every snapshot of a shard has the same topics")
    }

    /// Every cluster, that of `[kafka]` first.
    pub fn cluster_indexes(&self) -> impl Iterator<Item = ClusterId> + use<> {
        // All snapshots of a shard have the same clusters, so that their numbers have no gaps.
        (0..self.clusters.end()).filter_map(ClusterId::at)
    }

    /// A cluster's place in the config.
    fn config_index(&self, cluster: ClusterId) -> ConfigIndex {
        let index = self.clusters.get(cluster);
        *index.expect("every snapshot of a shard has the same clusters")
    }

    /// Every cluster with its table, as [`Self::cluster`] returns it.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (ClusterId, Option<&ClusterConfig>)> {
        let clusters = self.clusters.iter();
        clusters.map(|(id, index)| (id, self.config.cluster(*index)))
    }

    /// Whether a cluster is one of this snapshot's.
    pub(super) fn has_cluster(&self, cluster: ClusterId) -> bool {
        self.clusters.get(cluster).is_some()
    }

    /// The `[[cluster]]` table of a cluster. `None` for that of `[kafka]`.
    pub(super) fn cluster(&self, cluster: ClusterId) -> Option<&ClusterConfig> {
        self.config.cluster(self.config_index(cluster))
    }

    /// The names of a cluster's settings, for messages to the operator.
    #[must_use]
    pub fn cluster_keys(&self, cluster: ClusterId) -> ClusterKeys {
        self.config.cluster_keys(self.config_index(cluster))
    }

    /// How connections to a cluster are encrypted and authenticated.
    #[must_use]
    pub fn cluster_security(&self, cluster: ClusterId) -> (&KafkaTls, &KafkaSasl) {
        self.config.cluster_security(self.config_index(cluster))
    }

    /// The brokers from which a cluster's metadata is requested first.
    #[must_use]
    pub fn bootstrap(&self, cluster: ClusterId) -> &[BrokerAddress] {
        let other = self.cluster(cluster);
        other.map_or(&self.config.settings.kafka.bootstrap, |it| &it.bootstrap)
    }

    /// A cluster's name in messages.
    #[must_use]
    pub fn cluster_name(&self, cluster: ClusterId) -> String {
        let other = self.cluster(cluster);
        other.map_or_else(|| "kafka".into(), |it| format!("cluster `{}`", it.name))
    }

    /// A topic's name in messages, with its cluster unless that is the one of `[kafka]`.
    #[must_use]
    pub fn topic_name(&self, plan: &TopicPlan) -> String {
        let name = &plan.name;
        match self.cluster(plan.cluster) {
            None => format!("topic `{name}`"),
            Some(cluster) => format!("topic `{name}` of cluster `{}`", cluster.name),
        }
    }

    /// The name of the check that commands can be produced to a topic.
    #[must_use]
    pub fn writes_name(&self, plan: &TopicPlan) -> String {
        format!("commands to {}", self.topic_name(plan))
    }

    /// The name of the check that the end of a topic is known to commands that wait for it.
    #[must_use]
    pub fn barrier_name(&self, plan: &TopicPlan) -> String {
        format!("end of {}", self.topic_name(plan))
    }

    /// The name of the check of a command route whose records have no key, by place in the config.
    /// `None` if its records have a key.
    #[must_use]
    pub fn keyless_name(&self, route: usize) -> Option<String> {
        let route = &self.config.commands[route];
        let keyless = route.key.is_none();
        keyless.then(|| format!("command `{}`", route.name))
    }

    /// The name of the check of a topic's streams, beside that of the topic itself.
    #[must_use]
    pub fn streams_name(&self, plan: &TopicPlan) -> String {
        format!("streams of {}", self.topic_name(plan))
    }

    /// A topic's name in metrics and `/status`. A topic's own name never contains a slash.
    #[must_use]
    pub fn topic_label(&self, plan: &TopicPlan) -> String {
        match self.cluster(plan.cluster) {
            None => plan.name.to_string(),
            Some(cluster) => format!("{}/{}", cluster.name, plan.name),
        }
    }

    /// The identity of a topic's log, if the config declares one (`log_id`).
    #[must_use]
    pub fn log_identity(&self, plan: &TopicPlan) -> Option<LogIdentity> {
        let log_id = match self.cluster(plan.cluster) {
            None => self.config.settings.kafka.log_id.as_deref(),
            Some(cluster) => cluster.log_id.as_deref(),
        };
        log_id.map(|log_id| LogIdentity::declared(log_id, &plan.name))
    }

    /// Every topic with its number.
    pub fn indexed(&self) -> impl Iterator<Item = (TopicId, &TopicPlan)> {
        self.topics.iter()
    }
}

/// Makes the tables of a snapshot, and adds to the registry what it asks of topics.
struct Planner<'a> {
    registry: &'a mut Registry,
    clusters: IdTable<ClusterId, ConfigIndex>,
    /// The numbers of the clusters, by place in the config.
    cluster_ids: Vec<ClusterId>,
    /// Each topic's group of linked topics, named by the lowest number in it.
    groups: BTreeMap<TopicId, TopicId>,
}

impl<'a> Planner<'a> {
    fn new(config: &Config, registry: &'a mut Registry) -> Result<Self, NumbersExhausted> {
        let mut planner = Self {
            registry,
            clusters: IdTable::default(),
            cluster_ids: Vec::new(),
            groups: BTreeMap::new(),
        };
        for index in config.cluster_indexes() {
            let name = config.cluster(index).map(|cluster| &*cluster.name);
            let cluster = planner.registry.cluster(name)?;
            planner.clusters.insert(cluster, index);
            planner.cluster_ids.push(cluster);
        }
        Ok(planner)
    }

    fn command(&mut self, route: &CommandRoute) -> Result<CommandPlan, NumbersExhausted> {
        let commands = self.topic(route.cluster, &route.topic)?;
        let plan = self.registry.plan(commands);
        plan.takes_commands = true;
        plan.takes_keyless |= route.key.is_none();
        plan.takes_one_way |= route.replies.is_none();
        let strict = route.dedupe == Dedupe::Strict;
        plan.strict |= strict;
        let replies = route.replies.as_ref();
        let replies = replies
            .map(|topic| self.topic(route.cluster, topic))
            .transpose()?;
        if let Some(replies) = replies {
            let plan = self.registry.plan(replies);
            plan.holds_replies = true;
            plan.strict |= strict;
            self.link(commands, replies);
        }
        let id = self.registry.command(route, Link { commands, replies })?;
        Ok(CommandPlan {
            id,
            commands,
            replies,
        })
    }

    fn query(&mut self, route: &QueryRoute) -> Result<QueryPlan, NumbersExhausted> {
        let topic = self.topic(route.cluster, &route.topic)?;
        let plan = self.registry.plan(topic);
        (plan.cached, plan.queried) = (true, true);
        plan.listed |= route.key.is_none();
        let id = self.registry.query(route)?;
        Ok(QueryPlan { id, topic })
    }

    fn stream(
        &mut self,
        route: &StreamRoute,
        etag_header: &str,
    ) -> Result<StreamPlan, NumbersExhausted> {
        let topic = self.topic(route.cluster, &route.topic)?;
        let encoding = self.registry.plan(topic).stream(route, etag_header);
        let id = self.registry.stream(route)?;
        Ok(StreamPlan {
            id,
            topic,
            encoding,
        })
    }

    fn topic(
        &mut self,
        cluster: ConfigIndex,
        name: &TopicName,
    ) -> Result<TopicId, NumbersExhausted> {
        let cluster = self.cluster_ids[usize::from(cluster.0)];
        let topic = self.registry.topic(cluster, name)?;
        self.groups.entry(topic).or_insert(topic);
        Ok(topic)
    }

    fn link(&mut self, one: TopicId, other: TopicId) {
        let (one, other) = (self.groups[&one], self.groups[&other]);
        let (low, high) = (one.min(other), one.max(other));
        let groups = self.groups.values_mut();
        groups
            .filter(|group| **group == high)
            .for_each(|group| *group = low);
    }

    /// Gives new topics their homes. New groups go round the homes in the order of their lowest
    /// number, which is that of their first mention.
    fn place(self, homes: u16) -> IdTable<ClusterId, ConfigIndex> {
        let mut groups: BTreeMap<TopicId, Vec<TopicId>> = BTreeMap::new();
        for (&topic, &group) in &self.groups {
            groups.entry(group).or_default().push(topic);
        }
        for linked in groups.values() {
            self.registry.place(linked, homes);
        }
        self.clusters
    }
}

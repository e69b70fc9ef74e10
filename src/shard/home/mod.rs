//! What a home shard does for its topics: reads them on the client's connections, gives them their
//! order, decides their routes' commands, and reports their readiness. Everything about one topic
//! happens here and nowhere else, so nothing needs a lock or a second opinion.

mod barrier;
mod barriers;
mod broker_counts;
mod broker_sockets;
mod cluster;
mod clusters;
mod command_requests;
mod commands;
mod context;
mod counts;
mod degraded;
mod health;
mod history;
mod in_flight;
mod loading;
mod lookups;
mod order;
mod partitions;
mod report;
mod rereads;
mod shown_topic;
#[cfg(test)]
mod tests;
mod tickets;
mod topic;
mod topic_commands;
mod topic_ids;
mod topic_log;
mod topics;
mod unanswered;

use std::sync::Arc;

use crate::kafka::{Event, KafkaError, MetricEvent, TopicHandle};
use crate::model::{Instant, Now, Offset, ShardId};

use super::message::{ClusterMessage, ControlMessage, HomeMessage};
use super::outbox::Outbox;
use super::random::SecureRandom;
use super::setup::ClusterSecurity;
use super::snapshot::{ClusterId, Snapshot};
use crate::metrics::{BarrierStatus, BrokerStatus, Check, CheckState, ShardMetrics, TopicStatus};

use barrier::Round;
pub(super) use broker_sockets::BrokerSockets;
pub(super) use cluster::Cluster;
use clusters::Clusters;
use command_requests::{CommandContext, HomeCommands};
use context::{HomeContext, log};
use topic::Topic;
use topics::Topics;

/// The home side of a shard: a client for each cluster. Shard 0's clients keep the clusters'
/// directories for all shards. On another shard, a client is idle unless a topic of its cluster is
/// at home there.
#[derive(Debug)]
pub(super) struct Home {
    snapshot: Arc<Snapshot>,
    clusters: Clusters,
    /// The topics at home here.
    topics: Topics,
    commands: HomeCommands,
    counted: broker_counts::Counted,
}

impl Home {
    pub(super) fn new(
        me: ShardId,
        snapshot: Arc<Snapshot>,
        security: &[ClusterSecurity],
        random: &mut SecureRandom,
        now: Now,
    ) -> Self {
        let clusters = snapshot.cluster_indexes();
        let all = snapshot.cluster_indexes().count();
        assert_eq!(security.len(), all, "each cluster has its own");
        let mut clusters: Vec<Cluster> = clusters
            .zip(security)
            .map(|(index, security)| {
                Cluster::new(me, index, &snapshot, security, random.seed(), now)
            })
            .collect();
        let hasher = random.hasher();
        let mut topics = Topics::default();
        for (index, plan) in snapshot.indexed() {
            // The directory watches every topic, for the homes it feeds.
            if plan.home != me && me != ShardId(0) {
                continue;
            }
            let at = (plan.home == me).then_some(topics.len());
            let handle = clusters[usize::from(plan.cluster.0)].watch(&plan.name, at);
            if plan.home == me {
                topics.push(Topic::new(index, handle, &snapshot, &hasher));
            }
        }
        let mut commands = HomeCommands::new(hasher);
        commands.load(&snapshot, &topics);
        Self {
            snapshot,
            clusters: Clusters::new(clusters),
            topics,
            commands,
            counted: broker_counts::Counted::default(),
        }
    }

    /// Takes over a snapshot with the same topics and clusters.
    pub(super) fn load(&mut self, snapshot: Arc<Snapshot>) {
        self.commands.load(&snapshot, &self.topics);
        self.snapshot = snapshot;
    }

    /// The clusters, for their sockets.
    pub(super) fn clusters(&mut self) -> &mut [Cluster] {
        self.clusters.all_mut()
    }

    /// Handles deadlines, and all events of the clusters' clients.
    pub(super) fn turn(&mut self, now: Now, out: &mut Outbox) {
        let (commands, mut cx) = self.commands(now, out);
        commands.begin_rounds(&mut cx);
        for index in self.clusters.ids() {
            self.clusters[index].client.on_time(now);
            self.handle_events(index, now, out);
            if let Some(request) = self.clusters[index].client.next_salt() {
                out.to_control(ControlMessage::Salt(index, Box::new(request)));
            }
        }
        self.count_events();
        self.on_time(now, out);
    }

    fn count_events(&mut self) {
        for cluster in self.clusters.all_mut() {
            while let Some(event) = cluster.client.next_metric_event() {
                if let MetricEvent::Failed {
                    partition: Some((handle, partition)),
                    ..
                } = &event
                    && let Some(at) = cluster.at_home(*handle)
                {
                    self.topics[at].count_failed(*partition);
                }
                self.counted.count(event);
            }
        }
    }

    /// Visits the topics that are due.
    fn on_time(&mut self, now: Now, out: &mut Outbox) {
        let (commands, mut cx) = self.commands(now, out);
        commands.on_barrier_timeout(&mut cx);
        for _ in 0..self.topics.expire(now.mono) {
            let Some(at) = self.topics.next_due() else {
                break;
            };
            let (topics, mut cx) = self.cx(self.topics[at].cluster(), now, out);
            topics[at].on_timeout(&mut cx);
            let (commands, mut cx) = self.commands(now, out);
            if commands.on_timeout(at, &mut cx) {
                self.topics.revisit(at);
            }
        }
    }

    /// Unpacks or orders a bounded step of the records that brokers sent. Returns false if none
    /// wait. [`Self::turn`] handles everything else, so that it is not held up by much data.
    #[must_use = "while it returns true, more records wait"]
    pub(super) fn ingest(&mut self, now: Now, out: &mut Outbox) -> bool {
        // What is unpacked is ordered before more is unpacked, so that little waits.
        if let Some(at) = self.topics.next_ordering() {
            let (topics, mut cx) = self.cx(self.topics[at].cluster(), now, out);
            topics[at].order_next(&mut cx);
            topics.on_ordered();
            self.on_progress(at, now, out);
            return true;
        }
        let unpacked = self.clusters.unpack(now);
        if let Some(index) = unpacked {
            self.handle_events(index, now, out);
        }
        unpacked.is_some()
    }

    /// Whether `turn` has work at once.
    pub(super) fn has_work(&self) -> bool {
        self.topics.has_due()
            || self.commands.has_work()
            || self.clusters.iter().any(|it| it.client.has_work())
            || self.topics.next_ordering().is_some()
    }

    /// Stops opening commands, and takes back those that no broker can have.
    pub(super) fn drain(&mut self, now: Now, out: &mut Outbox) {
        let (commands, mut cx) = self.commands(now, out);
        commands.drain(&mut cx);
    }

    fn handle_events(&mut self, index: ClusterId, now: Now, out: &mut Outbox) {
        while let Some(event) = self.clusters[index].client.next_event() {
            self.on_event(index, event, now, out);
        }
    }

    /// When `turn` has work that no socket announces.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let topics = self.topics.next_deadline().into_iter();
        let clients = self.clusters.iter();
        topics
            .chain(clients.filter_map(|it| it.client.next_deadline()))
            .chain(self.commands.next_deadline())
            .min()
    }

    fn on_event(&mut self, index: ClusterId, event: Event, now: Now, out: &mut Outbox) {
        let cluster = &mut self.clusters[index];
        match event {
            Event::View(view) => {
                cluster.on_view(&view);
                for home in (1..self.snapshot.layout.homes()).map(ShardId) {
                    let message = ClusterMessage::View(view.clone());
                    out.to_home(home, HomeMessage::Cluster(index, message));
                }
            }
            Event::RefreshWanted => {
                let message = HomeMessage::Cluster(index, ClusterMessage::RefreshView);
                out.to_home(ShardId(0), message);
            }
            Event::Topic(handle, view) => {
                let cluster_id = cluster.id.clone();
                let at = self.with_topic(index, handle, now, out, |topic, cx| {
                    topic.on_view(view, &cluster_id, cx);
                });
                if let Some(at) = at {
                    self.on_progress(at, now, out);
                }
            }
            Event::Missing(handle, reason) => {
                self.with_topic(index, handle, now, out, |topic, cx| {
                    topic.on_missing(reason, cx);
                });
            }
            Event::EpochEnds(handle) => {
                self.with_topic(index, handle, now, out, Topic::on_epoch_ends);
            }
            Event::Produced { ticket, outcome } => {
                let (commands, mut cx) = self.commands(now, out);
                commands.on_produced(ticket, outcome, &mut cx);
            }
            Event::BrokerUp { address, .. } => {
                let line = cluster.health.on_broker_up(&address);
                log(line, out);
            }
            Event::BrokerDown {
                broker,
                address,
                error,
            } => {
                let by_number = broker.is_some();
                let line = cluster.health.on_broker_down(address, by_number, &error);
                log(line, out);
            }
            Event::Ends {
                topic,
                ticket,
                ends,
            } => self.on_ends(index, topic, Round(ticket), Ok(ends), now, out),
            Event::EndsFailed {
                topic,
                ticket,
                error,
            } => self.on_ends(index, topic, Round(ticket), Err(error), now, out),
            Event::Started { read, .. }
            | Event::Batch { read, .. }
            | Event::Undecodable { read, .. }
            | Event::OutOfRange { read, .. }
            | Event::Truncated { read, .. }
            | Event::ReadFailed { read, .. } => {
                let at = self.with_topic(index, read.topic, now, out, |topic, cx| {
                    topic.on_read(event, cx);
                });
                if let Some(at) = at {
                    self.topics.on_records(at);
                    self.on_progress(at, now, out);
                }
            }
        }
    }

    /// The leaders of a topic have reported its ends, or can't.
    fn on_ends(
        &mut self,
        cluster: ClusterId,
        topic: TopicHandle,
        round: Round,
        ends: Result<Vec<Offset>, KafkaError>,
        now: Now,
        out: &mut Outbox,
    ) {
        if let Some(at) = self.clusters[cluster].at_home(topic) {
            let (commands, mut cx) = self.commands(now, out);
            commands.on_ends(at, round, ends, &mut cx);
        }
    }

    /// The home has read more of a topic.
    fn on_progress(&mut self, at: usize, now: Now, out: &mut Outbox) {
        let (commands, mut cx) = self.commands(now, out);
        commands.on_progress(at, &mut cx);
    }

    /// Lets the topic with this handle work, if it is at home here. Returns its place.
    fn with_topic(
        &mut self,
        index: ClusterId,
        handle: TopicHandle,
        now: Now,
        out: &mut Outbox,
        work: impl FnOnce(&mut Topic, &mut HomeContext<'_>),
    ) -> Option<usize> {
        let at = self.clusters[index].at_home(handle)?;
        let (topics, mut cx) = self.cx(index, now, out);
        work(&mut topics[at], &mut cx);
        Some(at)
    }

    /// The topics, and what they work with.
    fn cx<'a>(
        &'a mut self,
        cluster: ClusterId,
        now: Now,
        out: &'a mut Outbox,
    ) -> (&'a mut Topics, HomeContext<'a>) {
        let Self {
            snapshot,
            clusters,
            topics,
            ..
        } = self;
        let client = &mut clusters[cluster].client;
        (
            topics,
            HomeContext {
                snapshot,
                client,
                now,
                out,
            },
        )
    }

    /// The commands, and what they work with.
    fn commands<'a>(
        &'a mut self,
        now: Now,
        out: &'a mut Outbox,
    ) -> (&'a mut HomeCommands, CommandContext<'a>) {
        let cx = CommandContext {
            snapshot: &self.snapshot,
            clusters: &mut self.clusters,
            topics: &mut self.topics,
            now,
            out,
        };
        (&mut self.commands, cx)
    }

    /// A message from a shard, or from the control thread.
    pub(super) fn on_message(
        &mut self,
        from: ShardId,
        message: HomeMessage,
        now: Now,
        out: &mut Outbox,
    ) {
        match message {
            HomeMessage::Cluster(index, message) => self.on_cluster_message(index, message, now),
            HomeMessage::Command(request) => {
                let (commands, mut cx) = self.commands(now, out);
                commands.on_command(request, &mut cx);
            }
            HomeMessage::Poll(request) => {
                let (commands, mut cx) = self.commands(now, out);
                commands.on_poll(*request, &mut cx);
            }
            HomeMessage::CancelCommand {
                topic,
                key,
                exchange,
            } => {
                let (commands, mut cx) = self.commands(now, out);
                commands.on_cancel(topic, key, exchange, &mut cx);
            }
            HomeMessage::Topic {
                topic,
                incarnation,
                message,
            } => {
                let Some(at) = self.topics.place(topic) else {
                    return;
                };
                let (topics, mut cx) = self.cx(self.topics[at].cluster(), now, out);
                // A report about an earlier incarnation means nothing for this one. The streams
                // that sent it have been closed, or will be.
                if topics[at].incarnation() == incarnation {
                    topics[at].on_message(from, message, &mut cx);
                }
            }
        }
    }

    fn on_cluster_message(&mut self, index: ClusterId, message: ClusterMessage, now: Now) {
        let cluster = &mut self.clusters[index];
        match message {
            ClusterMessage::View(view) => {
                cluster.on_view(&view);
                cluster.client.on_view(view, now);
            }
            ClusterMessage::RefreshView => cluster.client.refresh(),
            ClusterMessage::Token(token) => {
                cluster.health.on_token(token.as_ref().err());
                cluster.client.set_token(token.ok());
            }
            ClusterMessage::Salted(salted) => cluster.client.on_salted(*salted, now),
        }
    }

    /// What must hold before the process is ready.
    pub(super) fn checks(&self, now: Now) -> impl Iterator<Item = Check> + '_ {
        let clusters = self.clusters.iter();
        let clusters = clusters.map(move |cluster| cluster.check(&self.snapshot, now));
        let topics = self.topics.iter().flat_map(move |topic| {
            let health = &self.clusters[topic.cluster()].health;
            self.report(topic).checks(health, now)
        });
        let reports = self.topics.iter().map(|topic| self.report(topic));
        let writes = reports.filter_map(move |report| report.check_writes(now));
        let routes = self.snapshot.commands.iter().enumerate();
        let barriers = self.commands.barriers().failing(now.mono);
        let barriers = barriers.map(|(place, error)| {
            let plan = self.snapshot.topic(self.topics[place].index());
            let detail = format!(
                "commands with an idempotency key got 503 in the last seconds, since the leaders \
                 did not report the end of their log: {error}"
            );
            Check::new(
                self.snapshot.barrier_name(plan),
                CheckState::Degraded,
                detail,
            )
        });
        let keyless = routes.filter_map(move |(n, plan)| {
            let name = self.snapshot.keyless_name(n)?;
            let writes = self.topics[self.topics.place(plan.commands)?].writes();
            let (state, detail) = writes.keyless_check(now.mono);
            Some(Check::new(name, state, detail))
        });
        clusters
            .chain(topics.flatten())
            .chain(writes)
            .chain(barriers)
            .chain(keyless)
    }

    /// The state of the topics at home here, for `/status`.
    pub(super) fn topics(&self, now: Now) -> impl Iterator<Item = TopicStatus> + '_ {
        self.topics
            .iter()
            .filter_map(move |topic| self.report(topic).status(now))
    }

    fn report<'a>(&'a self, topic: &'a Topic) -> report::Report<'a> {
        let client = &self.clusters[topic.cluster()].client;
        topic.report(&self.snapshot, client)
    }

    /// The state of the brokers, for `/status`.
    pub(super) fn brokers(&self) -> Vec<BrokerStatus> {
        self.counted.status()
    }

    /// Brings the gauges up to date.
    pub(super) fn count(&self, now: Now, metrics: &mut ShardMetrics) {
        let failed = self.clusters.iter().map(|it| it.health.failures());
        metrics.general.kafka_connections_failed.0 = failed.sum();
        let open = self.clusters.iter().map(|it| it.sockets.len() as u64);
        metrics.general.kafka_connections_open.set(open.sum());
        metrics.kafka.clone_from(&self.counted.kafka);
        metrics.brokers.clone_from(&self.counted.brokers);
        let barriers = self.commands.barriers();
        barriers.count(now.mono, &mut metrics.general);
        metrics
            .general
            .commands_open
            .set(self.open_commands() as u64);
        let waiting = self.waiting_commands() as u64;
        metrics.general.commands_waiting.set(waiting);
        for topic in self.topics.iter() {
            self.report(topic).count(now, metrics);
        }
    }

    /// The commands that wait to be decided, for `/status`.
    pub(super) fn barriers(&self, now: Instant) -> BarrierStatus {
        self.commands.barriers().status(now)
    }

    /// Commands without a reply, over all routes.
    pub(super) fn open_commands(&self) -> usize {
        let tables = self.topics.iter().filter_map(Topic::commands);
        tables.map(commands::Commands::open).sum()
    }

    /// Exchanges that wait for a command in flight, over all routes.
    pub(super) fn waiting_commands(&self) -> usize {
        let tables = self.topics.iter().filter_map(Topic::commands);
        tables.map(commands::Commands::waiting).sum()
    }
}

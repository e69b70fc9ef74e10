//! What a home shard does for its topics: reads them on the client's connections, gives them their
//! order, decides their routes' commands, and reports their readiness. Everything about one topic
//! happens here and nowhere else, so nothing needs a lock or a second opinion.

mod broker_counts;
mod broker_sockets;
mod cluster;
mod command_requests;
mod commands;
mod context;
mod degraded;
mod health;
mod history;
mod in_flight;
mod incomplete;
mod lookups;
mod order;
mod partitions;
mod reading;
mod report;
#[cfg(test)]
mod tests;
mod topic;
mod topics;

use std::sync::Arc;

use crate::command::Expired;
use crate::kafka::{Event, MetricEvent};
use crate::model::{ExchangeId, Instant, Now, ShardId};

use super::message::{ClusterMessage, ControlMessage, HomeMessage, TopicMessage};
use super::outbox::Outbox;
use super::random::SecureRandom;
use super::setup::ClusterSecurity;
use super::snapshot::{ClusterId, Snapshot, TopicId};
use crate::metrics::{BrokerStatus, Check, ShardMetrics, TopicStatus};

pub(super) use broker_sockets::BrokerSockets;
pub(super) use cluster::Cluster;
use commands::Tickets;
use context::{HomeContext, log};
use topic::Topic;
use topics::Topics;

/// The home side of a shard: a client for each cluster. Shard 0's clients keep the clusters'
/// directories for all shards. On another shard, a client is idle unless a topic of its cluster is
/// at home there.
#[derive(Debug)]
pub(super) struct Home {
    snapshot: Arc<Snapshot>,
    /// One entry per cluster, indexed by [`ClusterId`].
    clusters: Vec<Cluster>,
    /// The topics at home here.
    topics: Topics,
    tickets: Tickets,
    /// Topics whose records wait to be ordered, by their place in `topics`.
    ordering: Vec<usize>,
    /// The cluster whose records were unpacked last. The others come first.
    unpacked_last: usize,
    /// The process is stopping: no further command is opened.
    draining: bool,
    /// Reused buffer for the exchanges past their deadline.
    expired: Vec<Expired<ExchangeId>>,
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
                Cluster::new((me, index), &snapshot, security, random.seed(), now)
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
        let tickets = Tickets::new(hasher);
        Self {
            snapshot,
            clusters,
            topics,
            tickets,
            ordering: Vec::new(),
            unpacked_last: 0,
            draining: false,
            expired: Vec::new(),
            counted: broker_counts::Counted::default(),
        }
    }

    /// Takes over a snapshot with the same topics and clusters.
    pub(super) fn load(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The clusters, for their sockets.
    pub(super) fn clusters(&mut self) -> &mut [Cluster] {
        &mut self.clusters
    }

    fn cluster(&mut self, index: ClusterId) -> &mut Cluster {
        &mut self.clusters[usize::from(index.0)]
    }

    /// Handles deadlines, and all events of the clusters' clients.
    pub(super) fn turn(&mut self, now: Now, out: &mut Outbox) {
        for index in (0..self.clusters.len()).map(|at| ClusterId(at as u8)) {
            self.cluster(index).client.on_time(now);
            self.handle_events(index, now, out);
            if let Some(request) = self.cluster(index).client.next_salt() {
                out.to_control(ControlMessage::Salt(index, Box::new(request)));
            }
        }
        for cluster in &mut self.clusters {
            while let Some(fact) = cluster.client.next_metric_event() {
                if let MetricEvent::Failed {
                    partition: Some((handle, partition)),
                    ..
                } = &fact
                    && let Some(at) = cluster.handles[handle.0 as usize]
                {
                    self.topics[at].counts.of(*partition).failed += 1;
                }
                self.counted.count(fact);
            }
        }
        self.on_time(now, out);
    }

    /// Visits the topics that are due.
    fn on_time(&mut self, now: Now, out: &mut Outbox) {
        let mut expired = std::mem::take(&mut self.expired);
        for _ in 0..self.topics.expire(now.mono) {
            let Some(at) = self.topics.next_due() else {
                break;
            };
            let (topics, mut cx) = self.cx(self.topics[at].cluster, now, out);
            topics[at].poll_health(&mut cx);
            if let Some((history, mut at)) = topics[at].history(&mut cx) {
                history.on_timeout(&mut at);
            }
            if topics[at].on_time(now, &mut expired, cx.client, cx.out) {
                topics.revisit(at);
            }
            self.on_expired(at, &mut expired, out);
        }
        self.expired = expired;
    }

    /// Unpacks or orders a bounded step of the records that brokers sent. Returns false if none
    /// wait. [`Self::turn`] handles everything else, so that it is not held up by much data.
    #[must_use = "while it returns true, more records wait"]
    pub(super) fn ingest(&mut self, now: Now, out: &mut Outbox) -> bool {
        let topics = &self.topics;
        let ready = |at: &usize| topics[*at].is_ordering();
        // What is unpacked is ordered before more is unpacked, so that little waits.
        if let Some(at) = self.ordering.iter().copied().find(ready) {
            let (topics, mut cx) = self.cx(self.topics[at].cluster, now, out);
            topics[at].order_next(&mut cx);
            self.ordering.retain(|at| self.topics[*at].has_waiting());
            return true;
        }
        let clusters = self.clusters.len();
        let after = self.unpacked_last + 1;
        for at in (after..after + clusters).map(|at| at % clusters) {
            if self.clusters[at].client.unpack(now) {
                self.unpacked_last = at;
                self.handle_events(ClusterId(at as u8), now, out);
                return true;
            }
        }
        false
    }

    /// Whether `turn` has work at once.
    pub(super) fn has_work(&self) -> bool {
        let ordering = self.ordering.iter();
        self.topics.has_due()
            || self.clusters.iter().any(|it| it.client.has_work())
            || ordering.copied().any(|at| self.topics[at].is_ordering())
    }

    fn handle_events(&mut self, index: ClusterId, now: Now, out: &mut Outbox) {
        while let Some(event) = self.cluster(index).client.next_event() {
            self.on_event(index, event, now, out);
        }
    }

    /// When `turn` has work that no socket announces.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let topics = self.topics.next_deadline().into_iter();
        let clients = self.clusters.iter();
        topics
            .chain(clients.filter_map(|it| it.client.next_deadline()))
            .min()
    }

    fn on_event(&mut self, index: ClusterId, event: Event, now: Now, out: &mut Outbox) {
        let cluster = self.cluster(index);
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
                if let Some(at) = cluster.handles[handle.0 as usize] {
                    let cluster_id = cluster.id.clone();
                    let (topics, mut cx) = self.cx(index, now, out);
                    topics[at].on_view(view, &cluster_id, &mut cx);
                }
            }
            Event::Missing(handle, reason) => {
                if let Some(at) = cluster.handles[handle.0 as usize] {
                    let (topics, mut cx) = self.cx(index, now, out);
                    topics[at].on_missing(reason, &mut cx);
                }
            }
            Event::Produced { ticket, outcome } => self.on_produced(ticket, outcome, now, out),
            Event::BrokerUp { address, .. } => {
                let line = cluster.health.on_broker_up(&address);
                log(line, out);
            }
            Event::BrokerDown {
                broker,
                address,
                error,
            } => {
                let broker = (address, broker.is_some());
                let line = cluster.health.on_broker_down(broker, &error);
                log(line, out);
            }
            Event::EpochEnds(handle) => {
                if let Some(at) = cluster.handles[handle.0 as usize] {
                    let (topics, mut cx) = self.cx(index, now, out);
                    if let Some((history, mut at)) = topics[at].history(&mut cx) {
                        history.on_epoch_ends(&mut at);
                    }
                }
            }
            Event::Ends { .. } | Event::EndsFailed { .. } => {
                debug_assert!(false, "nothing here asks for ends yet");
            }
            Event::Started { read, .. }
            | Event::Batch { read, .. }
            | Event::Unchanged { read }
            | Event::Undecodable { read, .. }
            | Event::OutOfRange { read, .. }
            | Event::Truncated { read, .. }
            | Event::ReadFailed { read, .. } => {
                let at = cluster.handles[read.topic.0 as usize];
                let at = at.expect("only topics at home are read");
                let (topics, mut cx) = self.cx(index, now, out);
                topics[at].on_read(event, &mut cx);
                if topics[at].has_waiting() && !self.ordering.contains(&at) {
                    self.ordering.push(at);
                }
            }
        }
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
        let client = &mut clusters[usize::from(cluster.0)].client;
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
            HomeMessage::Command(request) => self.on_command(*request, now, out),
            HomeMessage::CancelCommand {
                topic,
                key,
                exchange,
            } => {
                if let Some(at) = self.at(topic) {
                    let (topics, cx) = self.cx(self.topics[at].cluster, now, out);
                    if let Some(commands) = &mut topics[at].commands {
                        commands.on_left(key, exchange, cx.client);
                    }
                }
            }
            HomeMessage::Topic {
                topic,
                incarnation,
                message,
            } => {
                let Some(at) = self.at(topic) else {
                    return;
                };
                // A report about an earlier incarnation means nothing for this one. The streams
                // that sent it have been closed, or will be.
                if self.topics[at].incarnation == incarnation {
                    self.on_topic_message(at, from, message, now, out);
                }
            }
        }
    }

    fn on_cluster_message(&mut self, index: ClusterId, message: ClusterMessage, now: Now) {
        let cluster = self.cluster(index);
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

    fn on_topic_message(
        &mut self,
        at: usize,
        from: ShardId,
        message: TopicMessage,
        now: Now,
        out: &mut Outbox,
    ) {
        let (topics, mut cx) = self.cx(self.topics[at].cluster, now, out);
        let topic = &mut topics[at];
        match message {
            TopicMessage::Applied(seq) => topic.on_applied(from, seq, &mut cx),
            TopicMessage::Gaps(gaps) => topic.on_gaps(from, gaps, &mut cx),
            TopicMessage::History(message) => {
                if let Some((history, mut at)) = topic.history(&mut cx) {
                    history.on_message(from, message, &mut at);
                }
            }
        }
    }

    fn at(&self, index: TopicId) -> Option<usize> {
        self.topics.place(index)
    }

    /// What must hold before the process is ready.
    pub(super) fn checks(&self, now: Now) -> impl Iterator<Item = Check> + '_ {
        let clusters = self.clusters.iter();
        let clusters = clusters.map(move |cluster| cluster.check(&self.snapshot, now));
        let topics = self.topics.iter().flat_map(move |topic| {
            let cluster = &self.clusters[usize::from(topic.cluster.0)];
            topic.checks(&self.snapshot, cluster, now)
        });
        let writes = self.topics.iter().filter_map(move |topic| {
            let cluster = &self.clusters[usize::from(topic.cluster.0)];
            topic.check_writes(&self.snapshot, cluster, now)
        });
        let routes = self.snapshot.commands.iter().enumerate();
        let keyless = routes.filter_map(move |(n, plan)| {
            let name = self.snapshot.keyless_name(n)?;
            let writes = &self.topics[self.at(plan.commands)?].health.writes;
            let (state, detail) = writes.keyless_check(now.mono);
            Some(Check::new(name, state, detail))
        });
        clusters
            .chain(topics.flatten())
            .chain(writes)
            .chain(keyless)
    }

    /// The state of the topics at home here, for `/status`.
    pub(super) fn topics(&self) -> impl Iterator<Item = TopicStatus> + '_ {
        self.topics
            .iter()
            .filter_map(|topic| topic.status(&self.snapshot))
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
        metrics
            .general
            .commands_open
            .set(self.open_commands() as u64);
        let waiting = self.waiting_commands() as u64;
        metrics.general.commands_waiting.set(waiting);
        for topic in self.topics.iter() {
            let client = &self.clusters[usize::from(topic.cluster.0)].client;
            topic.count(&self.snapshot, client, now, metrics);
        }
    }

    /// Commands without a reply, over all routes.
    pub(super) fn open_commands(&self) -> usize {
        let tables = self
            .topics
            .iter()
            .filter_map(|topic| topic.commands.as_ref());
        tables.map(commands::Commands::open).sum()
    }

    /// Exchanges that wait for a command in flight, over all routes.
    pub(super) fn waiting_commands(&self) -> usize {
        let tables = self.topics.iter().filter_map(|it| it.commands.as_ref());
        tables.map(commands::Commands::waiting).sum()
    }
}

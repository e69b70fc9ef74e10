//! What a home shard does for its topics: reads them on the plane's connections, gives them their
//! order, decides their routes' commands, and answers for their readiness. Everything about one
//! topic happens here and nowhere else, so nothing needs a lock or a second opinion.

mod commands;
mod facts;
mod links;
mod lookups;
mod order;
mod passes;
mod reading;
mod standing;
mod topic;
mod trouble;

use std::sync::Arc;

use crate::command::Expired;
use crate::kafka::{Address, ClusterView, DirectoryRole, Event, Plane, Produced, TopicHandle};
use crate::model::{Instant, Now, ShardId, TopicName};

use super::ClusterSecurity;
use super::message::{Level, Message, Note, Waiter};
use super::snapshot::{Snapshot, TopicIndex};
use crate::metrics::{BrokerStatus, Check, ShardMetrics, TopicStatus};

use commands::Tickets;
pub(super) use links::Links;
use topic::Topic;
use trouble::Trouble;

/// The home side of a shard. A shard without topics at home has no plane, unless it is shard 0,
/// which keeps the directory for all.
#[derive(Debug)]
pub(super) struct Home {
    snapshot: Arc<Snapshot>,
    plane: Plane,
    cluster_id: String,
    /// The topics at home here.
    topics: Vec<Topic>,
    /// By the plane's handle: the place in `topics`; `None`: watched for another home.
    handles: Vec<Option<usize>>,
    tickets: Tickets,
    /// Scratch.
    expired: Vec<Expired<Waiter>>,
    trouble: Trouble,
    counted: facts::Counted,
}

/// What a topic works with for a moment: what is served, the plane, the turn's time, the outbox.
struct Cx<'a> {
    snapshot: &'a Snapshot,
    plane: &'a mut Plane,
    now: Now,
    out: &'a mut Outbox,
}

/// What a home says: to shards, itself among them, and to control.
pub(super) type Outbox = Vec<(ShardId, Message)>;

impl Home {
    pub(super) fn new(
        me: ShardId,
        snapshot: Arc<Snapshot>,
        security: &ClusterSecurity,
        seed: u64,
        now: Now,
    ) -> Self {
        let settings = plane_settings(&snapshot.config.settings, security);
        let role = if me == ShardId(0) {
            DirectoryRole::Own
        } else {
            DirectoryRole::Fed
        };
        let mut plane = Plane::new(settings, seed, role, now);
        let random = ahash::RandomState::with_seeds(seed, 1, 2, 3);
        let (mut topics, mut handles) = (Vec::new(), Vec::new());
        for (index, plan) in snapshot.indexed() {
            // The directory watches every topic, for the homes it feeds.
            if plan.home != me && me != ShardId(0) {
                continue;
            }
            let handle = plane.watch(&plan.name);
            debug_assert_eq!(handle, TopicHandle(handles.len() as u32));
            handles.push((plan.home == me).then_some(topics.len()));
            if plan.home == me {
                topics.push(Topic::new(index, handle, &snapshot, &random));
            }
        }
        let (cluster_id, tickets) = (String::new(), Tickets::new(random));
        Self {
            snapshot,
            plane,
            cluster_id,
            topics,
            handles,
            tickets,
            expired: Vec::new(),
            trouble: Trouble::default(),
            counted: facts::Counted::default(),
        }
    }

    /// The plane, for its sockets.
    pub(super) const fn plane(&mut self) -> &mut Plane {
        &mut self.plane
    }

    /// Lets time pass, and handles all that the plane has to tell.
    pub(super) fn turn(&mut self, now: Now, out: &mut Outbox) {
        self.plane.on_time(now);
        while let Some(event) = self.plane.next_event() {
            self.on_event(event, now, out);
        }
        while let Some(fact) = self.plane.next_fact() {
            self.counted.count(fact);
        }
        let mut expired = std::mem::take(&mut self.expired);
        for at in 0..self.topics.len() {
            self.topics[at].on_time(now, &mut expired, &mut self.plane, out);
            self.on_expired(at, &mut expired, out);
        }
        self.expired = expired;
    }

    /// Whether `turn` has work at once.
    pub(super) fn has_work(&self) -> bool {
        self.plane.has_work()
    }

    /// When `turn` has work that no socket announces.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let topics = self.topics.iter().filter_map(Topic::next_deadline);
        topics.chain(self.plane.next_deadline()).min()
    }

    fn on_event(&mut self, event: Event, now: Now, out: &mut Outbox) {
        match event {
            Event::View(view) => {
                self.learn(&view);
                let homes = 1..self.snapshot.layout.homes();
                out.extend(homes.map(|n| (ShardId(n), Message::View(view.clone()))));
            }
            Event::RefreshWanted => out.push((ShardId(0), Message::RefreshView)),
            Event::Topic(handle, view) => {
                if let Some(at) = self.handles[handle.0 as usize] {
                    let cluster_id = self.cluster_id.clone();
                    let (topics, mut cx) = self.cx(now, out);
                    topics[at].on_view(view, &cluster_id, &mut cx);
                }
            }
            Event::Missing(handle, reason) => {
                if let Some(at) = self.handles[handle.0 as usize] {
                    let (topics, mut cx) = self.cx(now, out);
                    topics[at].on_missing(reason, &mut cx);
                }
            }
            Event::Produced { ticket, outcome } => self.on_produced(ticket, outcome, now, out),
            Event::BrokerUp { address, .. } => self.trouble.on_up(&address, out),
            Event::BrokerDown { address, error, .. } => {
                self.trouble.on_down(address, &error, out);
            }
            Event::Ends { .. } | Event::EndsFailed { .. } => {
                debug_assert!(false, "nothing here asks for ends yet");
            }
            Event::Started { read, .. }
            | Event::Batch { read, .. }
            | Event::Unchanged { read }
            | Event::Undecodable { read, .. }
            | Event::OutOfRange { read, .. }
            | Event::ReadFailed { read, .. } => {
                let at = self.handles[read.topic.0 as usize].expect("only topics at home are read");
                let (topics, mut cx) = self.cx(now, out);
                topics[at].on_read(event, &mut cx);
            }
        }
    }

    /// The topics, and what they work with.
    fn cx<'a>(&'a mut self, now: Now, out: &'a mut Outbox) -> (&'a mut [Topic], Cx<'a>) {
        let Self {
            snapshot,
            plane,
            topics,
            ..
        } = self;
        (
            topics,
            Cx {
                snapshot,
                plane,
                now,
                out,
            },
        )
    }

    fn on_produced(&mut self, ticket: u64, outcome: Produced, now: Now, out: &mut Outbox) {
        let Some((replies, key)) = self.tickets.close(ticket) else {
            return;
        };
        if let Some(commands) = self.topics[replies].commands.as_mut() {
            commands.on_produced(key, outcome, now, out);
        }
    }

    /// A message from a shard to this home.
    pub(super) fn on_message(
        &mut self,
        from: ShardId,
        message: Message,
        now: Now,
        out: &mut Outbox,
    ) {
        match message {
            Message::View(view) => {
                self.learn(&view);
                self.plane.on_view(view, now);
            }
            Message::RefreshView => self.plane.refresh(),
            Message::Token(token) => {
                self.trouble.on_token(token.as_ref().err());
                self.plane.set_token(token.ok());
            }
            Message::Applied(topic, instance, seq) => {
                if let Some(at) = self.at(topic) {
                    let (topics, mut cx) = self.cx(now, out);
                    topics[at].on_applied(from, (instance, seq), &mut cx);
                }
            }
            Message::Command(request) => self.on_command(*request, now, out),
            Message::JoinPass {
                topic,
                encoding,
                waiter,
                from,
            } => {
                if let Some(at) = self.at(topic) {
                    let (topics, mut cx) = self.cx(now, out);
                    topics[at].on_join(waiter, encoding, from, &mut cx);
                }
            }
            Message::PassTaken {
                topic,
                pass,
                members,
            } => {
                if let Some(at) = self.at(topic) {
                    let (topics, mut cx) = self.cx(now, out);
                    topics[at].on_taken(from, pass, members, &mut cx);
                }
            }
            other => debug_assert!(false, "not for a home: {other:?}"),
        }
    }

    fn learn(&mut self, view: &ClusterView) {
        if let Some(id) = &view.cluster_id {
            self.cluster_id.clone_from(id);
        }
    }

    fn at(&self, index: TopicIndex) -> Option<usize> {
        self.topics.iter().position(|topic| topic.index() == index)
    }

    /// What must hold before the process is ready.
    pub(super) fn checks(&self) -> impl Iterator<Item = Check> + '_ {
        let trouble = self.trouble.shown();
        self.topics
            .iter()
            .map(move |topic| topic.check(&self.snapshot, trouble))
    }

    /// How the topics at home here stand.
    pub(super) fn topics(&self) -> impl Iterator<Item = TopicStatus> + '_ {
        self.topics
            .iter()
            .filter_map(|topic| topic.status(&self.snapshot))
    }

    /// How the brokers stand.
    pub(super) fn brokers(&self) -> Vec<BrokerStatus> {
        self.counted.status()
    }

    /// Brings the gauges up to date.
    pub(super) fn count(&self, metrics: &mut ShardMetrics) {
        metrics.general.kafka_connections_failed.0 = self.trouble.failed();
        metrics.kafka.clone_from(&self.counted.kafka);
        metrics.brokers.clone_from(&self.counted.brokers);
        metrics
            .general
            .commands_open
            .set(self.open_commands() as u64);
        for topic in &self.topics {
            topic.count(metrics);
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
}

/// The settings of a plane, as the config's table has them.
fn plane_settings(
    settings: &crate::config::Settings,
    security: &ClusterSecurity,
) -> crate::kafka::Settings {
    let kafka = &settings.kafka;
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let bootstrap = kafka.bootstrap.iter().map(|broker| Address {
        host: broker.host.clone(),
        port: broker.port,
    });
    crate::kafka::Settings {
        client_id: kafka.client_id.clone(),
        bootstrap: bootstrap.collect(),
        sasl: security.sasl.clone(),
        entropy: security.entropy,
        connect_timeout: kafka.connect_timeout,
        request_timeout: kafka.request_timeout,
        fetch_wait_max: kafka.fetch_wait,
        fetch_sessions: kafka.fetch_sessions,
        rack: kafka.rack.clone().unwrap_or_default(),
        fetch_bytes_max: bytes(kafka.fetch_bytes_max),
        partition_bytes_max: bytes(kafka.fetch_partition_bytes_max),
        decompressed_bytes_max: bytes(kafka.batch_bytes_max),
        metadata_refresh: kafka.metadata_age_max,
        backoff_max: kafka.backoff_max,
        delivery_timeout: kafka.delivery_timeout,
        produce_bytes_max: bytes(kafka.produce_bytes_max),
        ..crate::kafka::Settings::default()
    }
}

/// Says something to the operator.
fn note(out: &mut Outbox, level: Level, text: String) {
    out.push((ShardId::CONTROL, Message::Note(Note { level, text })));
}

/// A topic as messages call it.
pub(super) fn quoted(name: &TopicName) -> String {
    format!("topic `{name}`")
}

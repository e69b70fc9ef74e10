//! What a shard is made of once it has a snapshot, and which of its sides a message or a socket is
//! for.

use std::sync::Arc;

use crate::metrics::{Names, RouteKind, ShardMetrics};
use crate::model::{Now, RouteId, ShardId};

use super::ShardSetup;
use super::difference::difference;
use super::edge::{Edge, EdgeContext};
use super::home::{BrokerSockets, Cluster, Home, Outbox};
use super::io::{Io, Outputs, SocketEvent, SocketId};
use super::message::{Found, Message};
use super::projection::{Deferred, Projections};
use super::random::SecureRandom;
use super::snapshot::{ClusterIndex, Snapshot};

/// The three sides, and what they share.
#[derive(Debug)]
pub(super) struct Serving {
    snapshot: Arc<Snapshot>,
    pub(super) home: Home,
    pub(super) projections: Projections,
    pub(super) edge: Edge,
    pub(super) metrics: ShardMetrics,
    pub(super) draining: bool,
}

impl Serving {
    /// What serves `snapshot`; the acceptor goes into it.
    pub(super) fn new(setup: &mut ShardSetup, snapshot: Arc<Snapshot>, now: Now) -> Self {
        let ShardSetup {
            me,
            key,
            tls,
            security,
            totals,
        } = setup;
        let names = Arc::new(names(&snapshot));
        let mut random = SecureRandom::new(key);
        Self {
            home: Home::new(*me, snapshot.clone(), security, &mut random, now),
            projections: Projections::new(*me, snapshot.clone(), random.seed()),
            edge: Edge::new(
                *me,
                snapshot.clone(),
                tls.take(),
                totals.clone(),
                random,
                now,
            ),
            metrics: ShardMetrics::new(names),
            draining: false,
            snapshot,
        }
    }

    /// Serves another snapshot from now on, if only its routes differ.
    ///
    /// # Errors
    /// Names what else differs. The present snapshot stays.
    pub(super) fn load(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        if let Some(difference) = difference(&self.snapshot, snapshot) {
            return Err(difference);
        }
        let mut all = (**self.metrics.names()).clone();
        all.add(&names(snapshot));
        self.metrics.add_names(all.into());
        self.home.load(snapshot.clone());
        self.projections.load(snapshot.clone());
        self.edge.load(snapshot.clone());
        self.snapshot = snapshot.clone();
        Ok(())
    }

    /// The edge, and what it may touch.
    pub(super) fn cx<'a, I: Io>(
        &'a mut self,
        now: Now,
        io: &'a mut I,
        outputs: &'a mut Outputs<Message>,
        out: &'a mut Outbox,
    ) -> (&'a mut Edge, EdgeContext<'a, I>) {
        let Self {
            projections,
            metrics,
            edge,
            ..
        } = self;
        let close = &mut outputs.close;
        edge.set_time(now.wall);
        (
            edge,
            EdgeContext {
                now,
                io,
                projections,
                out,
                close,
                metrics,
            },
        )
    }

    /// What happened to sockets: brokers' are read at once, clients' go into the rotation.
    pub(super) fn on_sockets<I: Io>(
        &mut self,
        events: &mut Vec<SocketEvent>,
        now: Now,
        io: &mut I,
        outputs: &mut Outputs<Message>,
        out: &mut Outbox,
    ) -> bool {
        for event in events.drain(..) {
            match event {
                SocketEvent::Opened { ticket, socket } => {
                    let cluster = self.cluster(BrokerSockets::cluster_of(ticket));
                    let client = &mut cluster.client;
                    let sockets = &mut cluster.sockets;
                    sockets.on_opened(ticket, socket, client, (io, now), outputs);
                }
                SocketEvent::OpenFailed { ticket, error } => {
                    let cluster = self.cluster(BrokerSockets::cluster_of(ticket));
                    let client = &mut cluster.client;
                    cluster.sockets.on_failed(ticket, error, client, now);
                }
                SocketEvent::Readable(socket) => {
                    if let Some(cluster) = self.owner(socket) {
                        cluster.sockets.on_readable(socket);
                        continue;
                    }
                    let (edge, mut cx) = self.cx(now, io, outputs, out);
                    edge.on_readable(socket, &mut cx);
                }
                SocketEvent::Writable(socket) => {
                    if let Some(cluster) = self.owner(socket) {
                        let client = &mut cluster.client;
                        cluster.sockets.write(socket, client, io, now, outputs);
                        continue;
                    }
                    let (edge, mut cx) = self.cx(now, io, outputs, out);
                    edge.on_writable(socket, &mut cx);
                }
                SocketEvent::Accepted {
                    socket,
                    listener,
                    peer,
                } => {
                    let (edge, mut cx) = self.cx(now, io, outputs, out);
                    edge.on_accepted(socket, listener, peer, &mut cx);
                }
            }
        }
        let mut more = false;
        for cluster in self.home.clusters() {
            more |= cluster.sockets.read(&mut cluster.client, io, now, outputs);
        }
        more
    }

    fn cluster(&mut self, index: ClusterIndex) -> &mut Cluster {
        &mut self.home.clusters()[usize::from(index.0)]
    }

    /// The cluster a socket is of, if it is a broker's.
    fn owner(&mut self, socket: SocketId) -> Option<&mut Cluster> {
        let mut clusters = self.home.clusters().iter_mut();
        clusters.find(|cluster| cluster.sockets.has(socket))
    }

    /// Handles one message: a projection's and the edge's here, a home's there.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_message<I: Io>(
        &mut self,
        from: ShardId,
        message: Message,
        now: Now,
        io: &mut I,
        outputs: &mut Outputs<Message>,
        out: &mut Outbox,
    ) {
        match message {
            Message::Step(topic, step) => {
                if self.projections.apply(topic, &step, now, out) {
                    self.metrics.general.steps_applied.bump();
                }
            }
            Message::Open(instance) => {
                let topic = instance.topic;
                if self.projections.on_open(instance, out) {
                    let (edge, mut cx) = self.cx(now, io, outputs, out);
                    edge.end_streams_of(topic, &mut cx);
                }
            }
            Message::Standing(topic, standing) => self.projections.on_standing(topic, standing),
            Message::Live { topic, log_start } => self.projections.on_live(topic, log_start),
            Message::Get {
                exchange,
                topic,
                hash,
                key,
                partition,
            } => {
                let projection = self.projections.get(topic);
                let found = projection.map(|projection| projection.find(hash, &key, partition));
                let found = found.unwrap_or(Found::Failed(self.projections.not_live(topic)));
                out.push((exchange.shard, Message::Got(exchange, found)));
            }
            Message::Scan {
                exchange,
                topic,
                instance,
                seq,
                deadline,
                after,
            } => {
                let scan = Deferred::Scan(exchange, after);
                self.projections
                    .answer_at(topic, (instance, seq), deadline, scan, out);
            }
            Message::Changes(request) => {
                let (topic, at) = (request.topic, (request.instance, request.seq));
                let deadline = request.deadline;
                self.projections
                    .answer_at(topic, at, deadline, Deferred::Changes(request), out);
            }
            Message::CatchUpEnd {
                topic,
                instance,
                catch_up,
                seq,
                cut,
            } => {
                let deadline = now
                    .mono
                    .after(self.snapshot.config.settings.http.query_timeout);
                let end = Deferred::CatchUpEnd(topic, catch_up, seq, cut);
                self.projections
                    .answer_at(topic, (instance, seq), deadline, end, out);
            }
            Message::CatchUpStalled { topic, catch_up } => {
                if let Some(feed) = self
                    .projections
                    .get_mut(topic)
                    .and_then(|l| l.feed.as_mut())
                {
                    feed.on_catch_up_short(crate::sse::CatchUpId(catch_up));
                }
            }
            Message::CatchUpBlock {
                topic,
                catch_up,
                block,
            } => {
                if let Some(feed) = self
                    .projections
                    .get_mut(topic)
                    .and_then(|l| l.feed.as_mut())
                {
                    feed.on_catch_up_block(crate::sse::CatchUpId(catch_up), &block, now.mono);
                }
            }
            Message::CatchUpGap {
                topic,
                catch_up,
                notice,
            } => {
                if let Some(feed) = self
                    .projections
                    .get_mut(topic)
                    .and_then(|l| l.feed.as_mut())
                {
                    feed.on_catch_up_gap(crate::sse::CatchUpId(catch_up), notice);
                }
            }
            Message::Leave => {
                self.draining = true;
                self.edge.leave();
            }
            Message::Drain { within } => {
                self.draining = true;
                self.home.drain(out);
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.drain(now.mono.after(within), &mut cx);
            }
            Message::Answer(exchange, answer) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_answer(exchange, answer, &mut cx);
            }
            Message::Got(exchange, found) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_got(exchange, found, &mut cx);
            }
            Message::Scanned(exchange, page) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_scanned(exchange, page, &mut cx);
            }
            Message::Changed(question, changes) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_changed(question, changes.map(|changes| *changes), &mut cx);
            }
            Message::CatchUpJoined {
                topic,
                catch_up,
                members,
                log_start,
            } => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_catch_up_joined(topic, catch_up, &members, &log_start, &mut cx);
            }
            Message::PlacesChecked {
                topic,
                question,
                ends,
            } => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_places_checked(topic, question, ends.as_deref(), &mut cx);
            }
            Message::View(..)
            | Message::RefreshView(_)
            | Message::Token(..)
            | Message::Salted(..)
            | Message::Applied(..)
            | Message::Gaps(..)
            | Message::Command(_)
            | Message::WaiterLeft { .. }
            | Message::CheckPlaces { .. }
            | Message::JoinCatchUp { .. }
            | Message::CatchUpTaken { .. } => self.home.on_message(from, message, now, out),
            Message::Load(_)
            | Message::Stop
            | Message::Ask(_)
            | Message::Report(..)
            | Message::Salt(..)
            | Message::Note(_) => debug_assert!(false, "not for this side of a shard"),
        }
    }

    /// Tells homes what is applied here: once a turn and topic.
    pub(super) fn tell_applied(&mut self, out: &mut Outbox) {
        let snapshot = &self.snapshot;
        for (topic, projection) in self.projections.iter_mut() {
            // Send gaps before the applied steps, so that the home knows them when the topic goes
            // live.
            if let Some(gaps) = projection.untold_gaps() {
                let message = Message::Gaps(topic, projection.instance.number, gaps);
                out.push((snapshot.topic(topic).home, message));
            }
            if let Some(seq) = projection.untold() {
                out.push((
                    snapshot.topic(topic).home,
                    Message::Applied(topic, projection.instance.number, seq),
                ));
            }
        }
    }

    /// Whether another turn has something to do at once.
    pub(super) fn has_work(&self) -> bool {
        let mut feeds = self
            .projections
            .iter()
            .filter_map(|projection| projection.feed.as_ref());
        self.edge.has_ready() || self.home.has_work() || feeds.any(crate::sse::Feed::has_work)
    }

    pub(super) fn next_deadline(&self) -> Option<crate::model::Instant> {
        let feeds = self
            .projections
            .iter()
            .filter_map(|projection| projection.feed.as_ref()?.next_deadline());
        feeds
            .chain(self.projections.next_deadline())
            .chain(self.home.next_deadline())
            .chain(self.edge.next_deadline())
            .min()
    }

    /// Brings the gauges up to date.
    pub(super) fn count(&mut self, now: Now) {
        let topics = self.projections.indexed();
        for (topic, projection) in topics {
            let metrics = &mut self.metrics.topics[usize::from(topic.0)];
            let counted = projection.counted();
            metrics.stream_events.0 = counted.events;
            metrics.stream_gaps.0 = counted.gaps;
            metrics.cache_keys_refused.0 = counted.keys_refused;
            if let Some(slice) = projection.slice() {
                let stats = slice.stats();
                metrics.cache_entries.set(stats.entries as u64);
                metrics.cache_bytes.set(stats.bytes as u64);
                metrics.cache_tombstones.set(stats.tombstones as u64);
                metrics.cache_values_left_out.set(stats.unheld as u64);
                metrics.cache_values_not_json.set(stats.left_out as u64);
            }
        }
        self.home.count(now, &mut self.metrics);
    }
}

/// The names that become labels.
fn names(snapshot: &Snapshot) -> Names {
    let (mut names, config) = (Names::default(), &snapshot.config);
    let mut add = |id: RouteId, kind: RouteKind, name: &String| {
        names.routes.insert(id, (kind, name.clone()));
    };
    for (plan, route) in snapshot.commands.iter().zip(&config.commands) {
        add(plan.id, RouteKind::Command, &route.name);
    }
    for (plan, route) in snapshot.queries.iter().zip(&config.queries) {
        add(plan.id, RouteKind::Query, &route.name);
    }
    for (plan, route) in snapshot.streams.iter().zip(&config.streams) {
        add(plan.id, RouteKind::Stream, &route.name);
    }
    for (topic, plan) in snapshot.indexed() {
        names.topics.insert(topic, snapshot.topic_label(plan));
    }
    names
}

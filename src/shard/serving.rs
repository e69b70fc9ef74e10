//! What a shard is made of once it has a snapshot: the phases of its turn, and which of its sides a
//! message or a socket is for.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::ShardMetrics;
use crate::model::{ExchangeId, Instant, Now, ShardId};

use super::deferred::Deferred;
use super::difference::difference;
use super::edge::{Edge, EdgeContext, EdgeListeners};
use super::home::{BrokerSockets, Cluster, Home};
use super::io::{Io, Outputs, Part, SocketEvent, SocketId};
use super::labels::names;
use super::message::{
    ControlMessage, EdgeMessage, Found, HomeMessage, Level, Message, ProjectionMessage,
    ShardMessage, TopicMessage,
};
use super::outbox::Outbox;
use super::projections::Projections;
use super::random::SecureRandom;
use super::setup::ShardSetup;
use super::snapshot::{ClusterId, Snapshot, TopicId};

/// The three sides, and what they share.
#[derive(Debug)]
pub(super) struct Serving {
    me: ShardId,
    snapshot: Arc<Snapshot>,
    pub(super) home: Home,
    pub(super) projections: Projections,
    pub(super) edge: Edge,
    pub(super) metrics: ShardMetrics,
    pub(super) draining: bool,
    out: Outbox,
}

/// What every phase of a turn works with.
pub(super) struct TurnContext<'a, I> {
    pub(super) now: Now,
    pub(super) io: &'a mut I,
    pub(super) outputs: &'a mut Outputs<Message, ControlMessage>,
}

impl Serving {
    /// What serves `snapshot`; the acceptor goes into it.
    pub(super) fn new(setup: &mut ShardSetup, snapshot: Arc<Snapshot>, now: Now) -> Self {
        let ShardSetup {
            me,
            key,
            listeners,
            tls,
            security,
            totals,
        } = setup;
        let me = *me;
        let names = Arc::new(names(&snapshot));
        let mut random = SecureRandom::new(key);
        Self {
            me,
            home: Home::new(me, snapshot.clone(), security, &mut random, now),
            projections: Projections::new(me, snapshot.clone(), random.seed()),
            edge: Edge::new(
                me,
                snapshot.clone(),
                EdgeListeners::new(listeners.clone(), tls.take()),
                totals.clone(),
                random,
                now,
            ),
            metrics: ShardMetrics::new(names),
            draining: false,
            out: Outbox::new(me),
            snapshot,
        }
    }

    /// The driver reports how long the last turn took. The shard itself has no clock.
    pub(super) fn on_last_turn(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            self.metrics.general.turn_time.record(took);
        }
    }

    /// One turn, after its messages. Each phase handles the messages that the shard sends itself.
    pub(super) fn turn<I: Io>(
        &mut self,
        sockets: &mut Vec<SocketEvent>,
        cx: &mut TurnContext<'_, I>,
    ) {
        self.metrics.general.turns.bump();
        self.on_sockets(sockets, cx);
        // Clients come first: a request that arrived during the last turn has waited for it.
        let mut more = self.serve_clients(cx);
        more |= self.answer_deferred(cx);
        more |= self.read_brokers(cx);
        self.turn_home(cx);
        self.ingest(cx);
        more |= self.deliver(cx);
        self.report_applied(cx);
        // Commands of this turn's clients leave with this turn.
        self.turn_home(cx);
        self.write_to_brokers(cx);
        self.out.leave(cx.outputs);
        // Messages of this shard to itself may have made work for phases that were over.
        cx.outputs.more |= more || self.has_work();
        cx.outputs.deadline = self.next_deadline();
    }

    /// Serves another snapshot from now on, if only its routes differ.
    fn load(&mut self, snapshot: &Arc<Snapshot>) {
        let number = snapshot.number;
        let (level, text) = match self.take_over(snapshot) {
            Ok(()) => (
                Level::Info,
                format!("serves the routes of snapshot {number}"),
            ),
            Err(difference) => {
                let text =
                    format!("does not serve snapshot {number}: {difference}; restart to serve it");
                (Level::Warn, text)
            }
        };
        // All shards decide alike, so one of them logs the decision.
        if self.me == ShardId(0) {
            self.out.note(level, text);
        }
    }

    /// # Errors
    /// Names what differs beside routes. The present snapshot stays.
    fn take_over(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
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

    /// What happened to sockets: those that have bytes go into the rotation.
    fn on_sockets<I: Io>(&mut self, events: &mut Vec<SocketEvent>, cx: &mut TurnContext<'_, I>) {
        for event in events.drain(..) {
            self.on_socket(event, cx);
        }
    }

    /// Reads what brokers sent, until the part is spent. Returns true if some is left.
    #[must_use]
    fn read_brokers<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) -> bool {
        let mut more = false;
        for Cluster {
            client, sockets, ..
        } in self.home.clusters()
        {
            more |= sockets.read(client, cx.io, cx.now, cx.outputs);
        }
        more
    }

    fn on_socket<I: Io>(&mut self, event: SocketEvent, cx: &mut TurnContext<'_, I>) {
        match event {
            SocketEvent::Opened { ticket, socket } => {
                let cluster = self.cluster(BrokerSockets::cluster_of(ticket));
                let (sockets, client) = (&mut cluster.sockets, &mut cluster.client);
                sockets.on_opened(ticket, socket, client, cx.io, cx.now, cx.outputs);
            }
            SocketEvent::OpenFailed { ticket, error } => {
                let cluster = self.cluster(BrokerSockets::cluster_of(ticket));
                let client = &mut cluster.client;
                cluster.sockets.on_failed(ticket, error, client, cx.now);
            }
            SocketEvent::Readable(socket) => match self.cluster_with(socket) {
                Some(cluster) => cluster.sockets.on_readable(socket),
                None => {
                    let (edge, mut cx) = self.edge(cx);
                    edge.on_readable(socket, &mut cx);
                }
            },
            SocketEvent::Writable(socket) => match self.cluster_with(socket) {
                Some(cluster) => {
                    let (sockets, client) = (&mut cluster.sockets, &mut cluster.client);
                    sockets.write(socket, client, cx.io, cx.now, cx.outputs);
                }
                None => {
                    let (edge, mut cx) = self.edge(cx);
                    edge.on_writable(socket, &mut cx);
                }
            },
            SocketEvent::Accepted {
                socket,
                listener,
                peer,
            } => {
                let (edge, mut cx) = self.edge(cx);
                edge.on_accepted(socket, listener, peer, &mut cx);
            }
        }
    }

    /// Kafka: deadlines, then what the brokers answered becomes steps and answers.
    fn turn_home<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) {
        self.home.turn(cx.now, &mut self.out);
        self.handle_own(cx);
    }

    /// Clients: deadlines, then requests. Returns true if some wait for the next turn.
    #[must_use]
    fn serve_clients<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) -> bool {
        let (edge, mut edge_cx) = self.edge(cx);
        edge.on_time(&mut edge_cx);
        let more = edge.serve(&mut edge_cx);
        self.handle_own(cx);
        more
    }

    /// Answers requests whose step is applied, until the part is spent. Returns true if some are
    /// left.
    #[must_use]
    fn answer_deferred<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) -> bool {
        while self.projections.has_answers() {
            if cx.io.spent(Part::Answer) {
                return true;
            }
            self.projections.answer_next(&mut self.out);
            self.handle_own(cx);
        }
        false
    }

    /// Orders records that brokers sent until the part is spent, which the reads have begun. At
    /// least one step is made, or reads could use up every turn. Steps are applied here at once, so
    /// that their cost counts.
    fn ingest<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) {
        while self.home.ingest(cx.now, &mut self.out) {
            self.handle_own(cx);
            if cx.io.spent(Part::Kafka) {
                return;
            }
        }
    }

    /// Projections: deadlines, then events to streams. Returns true if some are left.
    #[must_use]
    fn deliver<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) -> bool {
        let mut more = self.projections.on_time(cx.now, &mut self.out);
        let (edge, mut edge_cx) = self.edge(cx);
        more |= edge.deliver(&mut edge_cx);
        self.projections.pump_feeds(cx.now.mono, &mut self.out);
        self.handle_own(cx);
        more
    }

    /// Reports to homes what is applied here: once a turn and topic.
    fn report_applied<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) {
        let mut send = |topic, incarnation, message| {
            let home = self.snapshot.topic(topic).home;
            let message = HomeMessage::Topic {
                topic,
                incarnation,
                message,
            };
            self.out.to_home(home, message);
        };
        while let Some((topic, projection)) = self.projections.next_unreported() {
            let incarnation = projection.incarnation.number;
            // Send gaps before the applied steps, so that the home knows them when the topic goes
            // live.
            if let Some(gaps) = projection.unreported_gaps() {
                send(topic, incarnation, TopicMessage::Gaps(gaps));
            }
            if let Some(seq) = projection.unreported() {
                send(topic, incarnation, TopicMessage::Applied(seq));
            }
        }
        self.handle_own(cx);
    }

    fn write_to_brokers<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) {
        for Cluster {
            client, sockets, ..
        } in self.home.clusters()
        {
            sockets.pump(client, cx.io, cx.now, cx.outputs);
        }
    }

    /// Handles one message, and the messages that the shard sends itself because of it.
    pub(super) fn on_message<I: Io>(
        &mut self,
        from: ShardId,
        message: Message,
        cx: &mut TurnContext<'_, I>,
    ) {
        self.dispatch(from, message, cx);
        self.handle_own(cx);
    }

    /// Handles the messages that the shard sends itself.
    fn handle_own<I: Io>(&mut self, cx: &mut TurnContext<'_, I>) {
        while let Some(message) = self.out.next_own() {
            self.dispatch(self.me, message, cx);
        }
    }

    fn dispatch<I: Io>(&mut self, from: ShardId, message: Message, cx: &mut TurnContext<'_, I>) {
        match message {
            Message::Shard(message) => self.on_shard_message(message, cx),
            Message::Home(message) => self.home.on_message(from, message, cx.now, &mut self.out),
            Message::Projection(topic, message) => self.on_projection_message(topic, message, cx),
            Message::Edge(exchange, message) => self.on_edge_message(exchange, message, cx),
        }
    }

    fn on_shard_message<I: Io>(&mut self, message: ShardMessage, cx: &mut TurnContext<'_, I>) {
        match message {
            ShardMessage::Load(snapshot) => self.load(&snapshot),
            ShardMessage::Tls(acceptor) => self.edge.set_acceptor(acceptor, cx.now.mono),
            ShardMessage::Ask(number) => {
                let report = Box::new(self.report(cx.now));
                self.out.to_control(ControlMessage::Report(number, report));
            }
            ShardMessage::Leave => {
                self.draining = true;
                self.edge.leave();
            }
            ShardMessage::Drain { within } => {
                self.draining = true;
                self.home.drain(cx.now, &mut self.out);
                let (edge, mut cx) = self.edge(cx);
                let until = cx.now.mono.after(within);
                edge.drain(until, &mut cx);
            }
            ShardMessage::Stop => cx.outputs.ended = true,
        }
    }

    fn on_projection_message<I: Io>(
        &mut self,
        topic: TopicId,
        message: ProjectionMessage,
        cx: &mut TurnContext<'_, I>,
    ) {
        let (projections, out) = (&mut self.projections, &mut self.out);
        match message {
            ProjectionMessage::Step(step) => {
                if projections.apply(topic, &step, cx.now) {
                    self.metrics.general.steps_applied.bump();
                }
            }
            ProjectionMessage::Open(incarnation) => {
                if projections.on_open(topic, incarnation) {
                    self.edge.end_streams_of(topic);
                }
            }
            ProjectionMessage::Standing(standing) => projections.on_standing(topic, standing),
            ProjectionMessage::Live { log_start } => projections.on_live(topic, log_start),
            ProjectionMessage::Get {
                exchange,
                hash,
                key,
                partition,
            } => {
                let projection = projections.get(topic);
                let found = projection.map(|projection| projection.find(hash, &key, partition));
                let found = found.unwrap_or(Found::Failed(projections.not_live(topic)));
                out.to_edge(exchange, EdgeMessage::Got(found));
            }
            ProjectionMessage::Scan {
                exchange,
                incarnation,
                seq,
                deadline,
                after,
            } => {
                let scan = Deferred::Scan(exchange, after);
                projections.answer_at(topic, (incarnation, seq), deadline, scan, out);
            }
            ProjectionMessage::Changes(request) => {
                let (at, deadline) = ((request.incarnation, request.seq), request.deadline);
                let changes = Deferred::Changes(topic, request);
                projections.answer_at(topic, at, deadline, changes, out);
            }
            ProjectionMessage::Feed(message) => {
                projections.on_feed_message(topic, message, cx.now, out);
            }
            ProjectionMessage::Cancel(exchange) => projections.cancel(exchange),
        }
    }

    fn on_edge_message<I: Io>(
        &mut self,
        exchange: ExchangeId,
        message: EdgeMessage,
        cx: &mut TurnContext<'_, I>,
    ) {
        let (edge, mut cx) = self.edge(cx);
        edge.on_message(exchange, message, &mut cx);
    }

    /// The edge, and what it may touch.
    fn edge<'a, I: Io>(
        &'a mut self,
        cx: &'a mut TurnContext<'_, I>,
    ) -> (&'a mut Edge, EdgeContext<'a, I>) {
        self.edge.set_time(cx.now.wall);
        let edge_cx = EdgeContext {
            now: cx.now,
            io: cx.io,
            projections: &mut self.projections,
            out: &mut self.out,
            close: &mut cx.outputs.close,
            metrics: &mut self.metrics,
        };
        (&mut self.edge, edge_cx)
    }

    fn cluster(&mut self, index: ClusterId) -> &mut Cluster {
        &mut self.home.clusters()[usize::from(index.0)]
    }

    /// The cluster that has the socket; `None`: the socket is a client's.
    fn cluster_with(&mut self, socket: SocketId) -> Option<&mut Cluster> {
        let mut clusters = self.home.clusters().iter_mut();
        clusters.find(|cluster| cluster.sockets.has(socket))
    }

    /// Whether another turn has something to do at once.
    fn has_work(&self) -> bool {
        self.edge.has_ready() || self.home.has_work() || self.projections.has_work()
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let all = [
            self.projections.next_deadline(),
            self.home.next_deadline(),
            self.edge.next_deadline(),
        ];
        all.into_iter().flatten().min()
    }
}

//! One shard as a pure struct: `turn(now, inputs, io) → outputs`. It holds no socket, clock, thread
//! or runtime: the reactor drives it with real ones, the fleet with byte pipes and a seed, and the
//! same seed gives the same history.
//!
//! A shard has three sides. As a *home* it does all Kafka work of some topics and gives them their
//! order. As a *local* it applies every topic's steps, owns a range of keys and feeds its streams.
//! At its *edge* it serves clients. What one side wants of another, on this shard or elsewhere, is
//! a [`Message`]; one to itself is handled in the same turn.

mod ciphertext;
mod edge;
mod home;
mod io;
mod local;
mod message;
mod random;
mod snapshot;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::kafka::{Entropy, Sasl};
use crate::metrics::{Names, ShardMetrics, ShardReport, ShardStatus};
use crate::model::{Now, ShardId};
use crate::tls::{Acceptor, Connector};

pub use io::{
    Inputs, Io, ListenerId, Open, OpenTicket, Outputs, Part, Read, SocketEvent, SocketId, Turn,
    Write,
};
pub use message::{
    Answer, ChangesRequest, CommandRequest, Found, Instance, Level, Message, Note, Standing, Waiter,
};
pub use snapshot::{ClusterIndex, CommandPlan, Layout, Snapshot, TopicIndex, TopicPlan};

use edge::{Cx, Edge};
use home::{Cluster, Home, Links, Outbox};
use local::{Held, Locals};

/// What a shard is told when it is made; all else comes with its first snapshot.
#[derive(Debug)]
pub struct ShardSetup {
    /// Its place.
    pub me: ShardId,
    /// All its randomness: hash seeds, jitter, the x of commands without a key.
    pub seed: u64,
    /// The first listener that speaks TLS, and its certificate. Listeners before it are plain.
    pub tls: Option<(ListenerId, Acceptor)>,
    /// What connections to each cluster need, by [`ClusterIndex`].
    pub security: Vec<ClusterSecurity>,
}

/// What connections to one cluster need to be let in, read and ready: files are read before a
/// shard is made.
#[derive(Clone, Debug)]
pub struct ClusterSecurity {
    /// `None`: plaintext.
    pub tls: Option<Connector>,
    /// `None`: nobody is asked who we are.
    pub sasl: Option<Sasl>,
    /// For SASL's nonces; each shard's and each cluster's own.
    pub entropy: Entropy,
}

impl ClusterSecurity {
    /// Plaintext, and nobody is asked.
    #[must_use]
    pub const fn none() -> Self {
        let (tls, sasl, entropy) = (None, None, Entropy([0; 32]));
        Self { tls, sasl, entropy }
    }
}

/// One shard. Driven by [`Turn::turn`].
#[derive(Debug)]
pub struct Shard {
    setup: ShardSetup,
    serving: Option<Serving>,
    /// Messages to itself, handled before the turn ends.
    own: VecDeque<Message>,
    outbox: Outbox,
    turns: u64,
    stopped: bool,
    /// What peers said before this shard had its snapshot: they may have theirs earlier. Bounded by
    /// what a home may have on its way until it hears what was applied.
    early: Vec<(ShardId, Message)>,
}

/// What a shard is made of once it has a snapshot.
#[derive(Debug)]
struct Serving {
    snapshot: Arc<Snapshot>,
    home: Home,
    locals: Locals,
    edge: Edge,
    metrics: ShardMetrics,
    draining: bool,
}

impl Shard {
    /// A shard that waits for its first snapshot.
    #[must_use]
    pub fn new(setup: ShardSetup) -> Self {
        let (own, outbox) = (VecDeque::new(), Outbox::new());
        Self {
            setup,
            serving: None,
            own,
            outbox,
            turns: 0,
            stopped: false,
            early: Vec::new(),
        }
    }

    fn load(&mut self, snapshot: Arc<Snapshot>, now: Now) {
        debug_assert!(self.serving.is_none(), "reload comes with its issue");
        let ShardSetup {
            me,
            seed,
            tls,
            security,
        } = &mut self.setup;
        let names = Arc::new(names(&snapshot));
        self.serving = Some(Serving {
            home: Home::new(*me, snapshot.clone(), security, *seed, now),
            locals: Locals::new(*me, snapshot.clone(), *seed),
            edge: Edge::new(*me, snapshot.clone(), tls.take(), *seed, now),
            metrics: ShardMetrics::new(names),
            draining: false,
            snapshot,
        });
    }

    /// Handles one message, from another shard or from this one.
    fn on_message<I: Io>(
        &mut self,
        from: ShardId,
        message: Message,
        now: Now,
        io: &mut I,
        outputs: &mut Outputs<Message>,
    ) {
        match message {
            Message::Load(snapshot) => {
                self.load(snapshot, now);
                for (from, message) in std::mem::take(&mut self.early) {
                    self.on_message(from, message, now, io, outputs);
                }
            }
            Message::Stop => self.stopped = true,
            Message::Ask(number) => {
                let report = Box::new(self.report(now));
                self.outbox
                    .push((ShardId::CONTROL, Message::Report(number, report)));
            }
            message => {
                let Some(serving) = &mut self.serving else {
                    self.early.push((from, message));
                    return;
                };
                serving.on_message(
                    self.setup.me,
                    from,
                    message,
                    now,
                    io,
                    outputs,
                    &mut self.outbox,
                );
            }
        }
    }

    /// Sends what was said: to itself, into this turn; to others, with the turn's outputs.
    fn sort_outbox(&mut self, outputs: &mut Outputs<Message>) {
        for (to, message) in self.outbox.drain(..) {
            if to == self.setup.me {
                self.own.push_back(message);
            } else {
                outputs.messages.push((to, message));
            }
        }
    }

    fn handle_own<I: Io>(&mut self, now: Now, io: &mut I, outputs: &mut Outputs<Message>) {
        loop {
            self.sort_outbox(outputs);
            let Some(message) = self.own.pop_front() else {
                return;
            };
            self.on_message(self.setup.me, message, now, io, outputs);
        }
    }

    fn report(&mut self, now: Now) -> ShardReport {
        let Some(serving) = &mut self.serving else {
            return ShardReport::default();
        };
        serving.count();
        ShardReport {
            checks: serving
                .home
                .checks(now)
                .chain(serving.locals.checks())
                .collect(),
            metrics: serving.metrics.clone(),
            status: ShardStatus {
                turns: self.turns,
                connections: serving.edge.clients() as u64,
                streams: serving.edge.streams() as u64,
                commands_open: serving.home.open_commands() as u64,
                draining: serving.draining,
                brokers: serving.home.brokers(),
                topics: serving.home.topics().collect(),
            },
        }
    }
}

impl Turn for Shard {
    type Message = Message;

    fn turn<I: Io>(
        &mut self,
        now: Now,
        inputs: &mut Inputs<Message>,
        io: &mut I,
        outputs: &mut Outputs<Message>,
    ) {
        self.turns += 1;
        for (from, message) in inputs.messages.drain(..) {
            self.on_message(from, message, now, io, outputs);
            self.handle_own(now, io, outputs);
        }
        let Some(serving) = &mut self.serving else {
            debug_assert!(
                inputs.sockets.is_empty(),
                "nothing is open before the first snapshot"
            );
            return;
        };
        serving.metrics.general.turns.bump();
        let mut more = serving.on_sockets(&mut inputs.sockets, now, io, outputs, &mut self.outbox);
        serving.home.turn(now, &mut self.outbox);
        self.handle_own(now, io, outputs);
        let serving = self.serving.as_mut().expect("it does not go away");
        let (edge, mut cx) = serving.cx(now, io, outputs, &mut self.outbox);
        edge.on_time(&mut cx);
        more |= edge.serve(&mut cx);
        self.handle_own(now, io, outputs);
        let serving = self.serving.as_mut().expect("it does not go away");
        serving.locals.expire(now);
        serving.release(&mut self.outbox);
        let (edge, mut cx) = serving.cx(now, io, outputs, &mut self.outbox);
        edge.pump_feeds(&mut cx);
        more |= edge.deliver(&mut cx);
        edge.pump_feeds(&mut cx);
        self.handle_own(now, io, outputs);
        let serving = self.serving.as_mut().expect("it does not go away");
        serving.tell_applied(&mut self.outbox);
        self.handle_own(now, io, outputs);
        // Commands of this turn's clients leave with this turn.
        let serving = self.serving.as_mut().expect("it does not go away");
        serving.home.turn(now, &mut self.outbox);
        self.handle_own(now, io, outputs);
        let serving = self.serving.as_mut().expect("it does not go away");
        for cluster in serving.home.clusters() {
            cluster.links.pump(&mut cluster.plane, io, now, outputs);
        }
        // What this shard told itself may have made work for parts of the turn that were over.
        outputs.more |= more || serving.has_work();
        outputs.deadline = serving.next_deadline();
        outputs.ended = self.stopped;
    }
}

impl Serving {
    /// The edge, and what it may touch.
    fn cx<'a, I: Io>(
        &'a mut self,
        now: Now,
        io: &'a mut I,
        outputs: &'a mut Outputs<Message>,
        out: &'a mut Outbox,
    ) -> (&'a mut Edge, Cx<'a, I>) {
        let Self {
            locals,
            metrics,
            edge,
            ..
        } = self;
        let close = &mut outputs.close;
        edge.set_time(now.wall);
        (
            edge,
            Cx {
                now,
                io,
                locals,
                out,
                close,
                metrics,
            },
        )
    }

    /// What happened to sockets: brokers' are read at once, clients' go into the rotation.
    fn on_sockets<I: Io>(
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
                    let cluster = self.cluster(Links::cluster_of(ticket));
                    let plane = &mut cluster.plane;
                    let links = &mut cluster.links;
                    links.on_opened(ticket, socket, plane, (io, now), outputs);
                }
                SocketEvent::OpenFailed { ticket, error } => {
                    let cluster = self.cluster(Links::cluster_of(ticket));
                    let plane = &mut cluster.plane;
                    cluster.links.on_failed(ticket, error, plane, now);
                }
                SocketEvent::Readable(socket) => {
                    if let Some(cluster) = self.owner(socket) {
                        cluster.links.on_readable(socket);
                        continue;
                    }
                    let (edge, mut cx) = self.cx(now, io, outputs, out);
                    edge.on_readable(socket, &mut cx);
                }
                SocketEvent::Writable(socket) => {
                    if let Some(cluster) = self.owner(socket) {
                        let plane = &mut cluster.plane;
                        cluster.links.write(socket, plane, io, now, outputs);
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
            more |= cluster.links.read(&mut cluster.plane, io, now, outputs);
        }
        more
    }

    fn cluster(&mut self, index: ClusterIndex) -> &mut Cluster {
        &mut self.home.clusters()[usize::from(index.0)]
    }

    /// The cluster a socket is of, if it is a broker's.
    fn owner(&mut self, socket: SocketId) -> Option<&mut Cluster> {
        let mut clusters = self.home.clusters().iter_mut();
        clusters.find(|cluster| cluster.links.has(socket))
    }

    #[allow(clippy::too_many_arguments)]
    fn on_message<I: Io>(
        &mut self,
        me: ShardId,
        from: ShardId,
        message: Message,
        now: Now,
        io: &mut I,
        outputs: &mut Outputs<Message>,
        out: &mut Outbox,
    ) {
        match message {
            Message::Step(topic, step) => {
                if let Some(local) = self.locals.get_mut(topic) {
                    local.apply(&step, now);
                    self.metrics.general.steps_applied.bump();
                }
            }
            Message::Open(instance) => {
                let topic = instance.topic;
                if self.locals.on_open(instance, out) {
                    let (edge, mut cx) = self.cx(now, io, outputs, out);
                    edge.end_streams_of(topic, &mut cx);
                }
            }
            Message::Standing(topic, standing) => self.locals.on_standing(topic, standing),
            Message::Live { topic, log_start } => self.locals.on_live(topic, log_start),
            Message::Get {
                waiter,
                topic,
                hash,
                key,
            } => {
                let found = self.locals.get(topic).map(|local| local.find(hash, &key));
                let found = found.unwrap_or(Found::Failed(self.locals.not_live(topic)));
                out.push((waiter.shard, Message::Got(waiter, found)));
            }
            Message::Scan {
                waiter,
                topic,
                instance,
                seq,
                after,
            } => {
                self.hold(me, topic, (instance, seq), Held::Scan(waiter, after), out);
            }
            Message::Changes(request) => {
                let (topic, place) = (request.topic, (request.instance, request.seq));
                self.hold(me, topic, place, Held::Changes(request), out);
            }
            Message::PassEnd {
                topic,
                instance,
                pass,
                seq,
                cut,
            } => {
                let held = Held::PassEnd(pass, seq, cut);
                self.hold(me, topic, (instance, seq), held, out);
            }
            Message::PassBlock { topic, pass, block } => {
                if let Some(feed) = self.locals.get_mut(topic).and_then(|l| l.feed.as_mut()) {
                    feed.on_pass_block(crate::sse::PassId(pass), &block, now.mono);
                }
            }
            Message::PassGap {
                topic,
                pass,
                notice,
            } => {
                if let Some(feed) = self.locals.get_mut(topic).and_then(|l| l.feed.as_mut()) {
                    feed.on_pass_gap(crate::sse::PassId(pass), notice);
                }
            }
            Message::Drain { within } => {
                self.draining = true;
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.drain(now.mono.after(within), &mut cx);
            }
            Message::Answer(waiter, answer) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_answer(waiter, answer, &mut cx);
            }
            Message::Got(waiter, found) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_got(waiter, found, &mut cx);
            }
            Message::Scanned(waiter, page) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_scanned(waiter, page, &mut cx);
            }
            Message::Changed(waiter, changes) => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_changed(waiter, changes.map(|changes| *changes), &mut cx);
            }
            Message::PassJoined {
                topic,
                pass,
                members,
                log_start,
            } => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_pass_joined(topic, pass, &members, &log_start, &mut cx);
            }
            Message::PlacesChecked {
                topic,
                waiter,
                ends,
            } => {
                let (edge, mut cx) = self.cx(now, io, outputs, out);
                edge.on_places_checked(topic, waiter, ends.as_deref(), &mut cx);
            }
            Message::View(..)
            | Message::RefreshView(_)
            | Message::Token(..)
            | Message::Applied(..)
            | Message::Command(_)
            | Message::CheckPlaces { .. }
            | Message::JoinPass { .. }
            | Message::PassTaken { .. } => self.home.on_message(from, message, now, out),
            Message::Load(_)
            | Message::Stop
            | Message::Ask(_)
            | Message::Report(..)
            | Message::Note(_) => debug_assert!(false, "not for this side of a shard"),
        }
    }

    /// Answers a request whose place in the order is reached; keeps it until it is.
    fn hold(
        &mut self,
        me: ShardId,
        topic: TopicIndex,
        (instance, seq): (u32, crate::log::Seq),
        held: Held,
        out: &mut Outbox,
    ) {
        let layout = self.snapshot.layout;
        match self.locals.get_mut(topic) {
            Some(local) if local.instance.number == instance => {
                if let Some(held) = local.hold(seq, held) {
                    local.answer(me, layout, held, out);
                }
            }
            // A place in the order of another log: it would never come, or mean something else.
            _ => held.refuse(out),
        }
    }

    /// Answers what waited for places that are reached now.
    fn release(&mut self, out: &mut Outbox) {
        let layout = self.snapshot.layout;
        let me = self.locals.me();
        for (_, local) in self.locals.iter_mut() {
            for held in local.released() {
                local.answer(me, layout, held, out);
            }
        }
    }

    /// Tells homes what is applied here: once a turn and topic.
    fn tell_applied(&mut self, out: &mut Outbox) {
        let snapshot = &self.snapshot;
        for (topic, local) in self.locals.iter_mut() {
            if let Some(seq) = local.untold() {
                out.push((
                    snapshot.topic(topic).home,
                    Message::Applied(topic, local.instance.number, seq),
                ));
            }
        }
    }

    /// Whether another turn has something to do at once.
    fn has_work(&self) -> bool {
        let mut feeds = self.locals.iter().filter_map(|local| local.feed.as_ref());
        self.edge.has_ready() || self.home.has_work() || feeds.any(crate::sse::Feed::has_work)
    }

    fn next_deadline(&self) -> Option<crate::model::Instant> {
        let feeds = self
            .locals
            .iter()
            .filter_map(|local| local.feed.as_ref()?.next_deadline());
        feeds
            .chain(self.home.next_deadline())
            .chain(self.edge.next_deadline())
            .min()
    }

    /// Brings the gauges up to date.
    fn count(&mut self) {
        let topics = self.locals.indexed();
        for (topic, local) in topics {
            let metrics = &mut self.metrics.topics[usize::from(topic.0)];
            let (events, gaps) = local.told();
            metrics.stream_events.0 = events;
            metrics.stream_gaps.0 = gaps;
            if let Some(slice) = local.slice() {
                let stats = slice.stats();
                metrics.cache_entries.set(stats.entries as u64);
                metrics.cache_bytes.set(stats.bytes as u64);
            }
        }
        self.home.count(&mut self.metrics);
    }
}

/// The names that become labels.
fn names(snapshot: &Snapshot) -> Names {
    let config = &snapshot.config;
    Names {
        commands: config
            .commands
            .iter()
            .map(|route| route.name.clone())
            .collect(),
        queries: config
            .queries
            .iter()
            .map(|route| route.name.clone())
            .collect(),
        streams: config
            .streams
            .iter()
            .map(|route| route.name.clone())
            .collect(),
        topics: snapshot
            .topics
            .iter()
            .map(|topic| snapshot.topic_label(topic))
            .collect(),
    }
}

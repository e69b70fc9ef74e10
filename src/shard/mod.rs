//! One shard as a pure struct: `turn(now, inputs, io) → outputs`. It holds no socket, clock, thread
//! or runtime: the reactor drives it with real ones, the fleet with byte pipes and a seed, and the
//! same seed gives the same history.
//!
//! A shard has three sides. As a *home* it does all Kafka work of some topics and gives them their
//! order. As a *projection* it applies every topic's steps, owns a range of keys and feeds its streams.
//! At its *edge* it serves clients. What one side wants of another, on this shard or elsewhere, is
//! a [`Message`]; one to itself is handled in the same turn.

mod ciphertext;
mod difference;
mod edge;
mod home;
mod io;
mod message;
mod projection;
mod random;
mod registry;
mod serving;
mod snapshot;
mod timers;
mod topic_plan;
mod totals;
mod wait_queue;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::kafka::{Entropy, Sasl};
use crate::metrics::{ShardReport, ShardStatus};
use crate::model::{Now, ShardId};
use crate::tls::{Acceptor, Connector};

pub use io::{
    Inputs, Io, ListenerId, Open, OpenTicket, Outputs, Part, Read, Remote, SocketEvent, SocketId,
    Turn, Write,
};
pub use message::{
    Answer, ChangesRequest, CommandRequest, Found, Instance, Level, Message, Note, Standing,
    StreamQuestion,
};
pub use random::RandomKey;
pub use registry::{NumbersExhausted, Registry};
pub use snapshot::{
    ClusterIndex, CommandPlan, Layout, QueryPlan, Snapshot, StreamPlan, TopicIndex,
};
pub use topic_plan::TopicPlan;
pub use totals::ClientTotals;

use home::Outbox;
use serving::Serving;

/// What a shard is told when it is made; all else comes with its first snapshot.
#[derive(Debug)]
pub struct ShardSetup {
    /// Its place.
    pub me: ShardId,
    /// All its randomness: hash seeds, jitter, the idempotency hashes of commands without a key.
    pub key: RandomKey,
    /// The first listener that speaks TLS, and its certificate. Listeners before it are plain.
    pub tls: Option<(ListenerId, Acceptor)>,
    /// What connections to each cluster need, by [`ClusterIndex`].
    pub security: Vec<ClusterSecurity>,
    /// What clients use, summed over all shards of the process.
    pub totals: Arc<ClientTotals>,
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
        let Some(serving) = &mut self.serving else {
            self.serving = Some(Serving::new(&mut self.setup, snapshot, now));
            return;
        };
        let number = snapshot.number;
        let (level, text) = match serving.load(&snapshot) {
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
        // All shards decide alike: one of them says so.
        if self.setup.me == ShardId(0) {
            let note = Message::Note(Note { level, text });
            self.outbox.push((ShardId::CONTROL, note));
        }
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
                serving.on_message(from, message, now, io, outputs, &mut self.outbox);
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

    /// Orders records that brokers sent until the part is spent. Steps are applied here at once, so
    /// that their cost counts.
    fn ingest<I: Io>(&mut self, now: Now, io: &mut I, outputs: &mut Outputs<Message>) {
        while let Some(serving) = &mut self.serving
            && !io.spent(Part::Ingest)
            && serving.home.ingest(now, &mut self.outbox)
        {
            self.handle_own(now, io, outputs);
        }
    }

    fn report(&mut self, now: Now) -> ShardReport {
        let Some(serving) = &mut self.serving else {
            return ShardReport::default();
        };
        serving.count(now);
        ShardReport {
            checks: serving
                .home
                .checks(now)
                .chain(serving.projections.checks())
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
        self.ingest(now, io, outputs);
        let serving = self.serving.as_mut().expect("it does not go away");
        more |= serving.projections.expire(now);
        serving.projections.on_timeout(now.mono, &mut self.outbox);
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
            cluster.sockets.pump(&mut cluster.client, io, now, outputs);
        }
        // What this shard told itself may have made work for parts of the turn that were over.
        outputs.more |= more || serving.has_work();
        outputs.deadline = serving.next_deadline();
        outputs.ended = self.stopped;
    }
}

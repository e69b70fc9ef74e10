//! A gateway process of a run: its shards, their sockets as byte pipes, and the queues between
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use sluicegate::broker::{Broker, ConnectionId, NodeId};
use sluicegate::metrics::{ShardMetrics, ShardStatus};
use sluicegate::model::{Now, ShardId};
use sluicegate::shard::{
    ClientTotals, ClusterSecurity, ControlMessage, Inputs, Io, Layout, ListenerId, Message, Open,
    Outputs, Part, RandomKey, Read, Shard, ShardMessage, ShardSetup, Snapshot, SocketEvent,
    SocketId, Turn, Write,
};

use super::random::Random;

/// Bytes that a broker's pipe holds before it is full.
const BROKER_PIPE_BYTES: usize = 4096;
/// Bytes that a client's pipe holds: less than a block, or several blocks.
pub(super) const CLIENT_PIPE_BYTES: [usize; 3] = [200, 1000, 4096];

/// The other end of a shard's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A client of the run, by its number.
    Client(usize),
    /// A connection of the development broker.
    Broker(ConnectionId),
}

/// A socket, as a pipe with limited room.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) end: End,
    generation: u32,
    to_shard: VecDeque<u8>,
    pub(super) from_shard: VecDeque<u8>,
    /// Bytes from the shard it holds before it is full.
    room: usize,
    /// The other end has closed its side.
    ended: bool,
    /// The shard found it empty, or full, and waits for an event.
    hungry: bool,
    blocked: bool,
}

/// One shard with its sockets and inputs.
struct Driven {
    shard: Shard,
    inputs: Inputs<Message>,
    pipes: Vec<Option<Pipe>>,
    generations: Vec<u32>,
    more: bool,
    deadline: Option<sluicegate::model::Instant>,
}

/// A gateway process with its shards.
pub(super) struct Peer {
    layout: Layout,
    shards: Vec<Driven>,
    /// Messages in transit, by sender and receiver, in order.
    ways: Vec<Vec<VecDeque<Message>>>,
    /// Unread bytes of connections that a shard has closed.
    closed: BTreeMap<(usize, u32, u32), VecDeque<u8>>,
    /// Number of readiness checks that do not hold, as last reported. `None` before the first
    /// report.
    unready: Vec<Option<usize>>,
    pub(super) notes: Vec<String>,
    /// Loads of snapshots that are rejected, less the rejections that were reported.
    rejections_due: u32,
    /// The last status report of each shard.
    pub(super) status: Vec<ShardStatus>,
    /// The metrics of the same report.
    pub(super) metrics: Vec<ShardMetrics>,
}

/// The sockets of one shard, for one turn.
struct Pipes<'a> {
    pipes: &'a mut Vec<Option<Pipe>>,
    random: &'a mut Random,
    scratch: Vec<u8>,
    budget: u64,
}

impl Io for Pipes<'_> {
    fn read(&mut self, socket: SocketId) -> Read<'_> {
        let Some(pipe) = live(self.pipes, socket) else {
            return Read::Closed(None);
        };
        if pipe.to_shard.is_empty() {
            if pipe.ended {
                return Read::Closed(None);
            }
            pipe.hungry = true;
            return Read::Blocked;
        }
        let len = self.random.within(1, pipe.to_shard.len() as u64) as usize;
        self.scratch.clear();
        self.scratch.extend(pipe.to_shard.drain(..len));
        Read::Bytes(&self.scratch)
    }

    fn write(&mut self, socket: SocketId, slices: &[IoSlice<'_>]) -> Write {
        let Some(pipe) = live(self.pipes, socket) else {
            return Write::Closed;
        };
        if pipe.ended {
            return Write::Closed;
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = pipe.room.saturating_sub(pipe.from_shard.len()).min(offered);
        // Some writes are short, at any byte.
        let short = room > 0 && self.random.one_in(4);
        let take = if short {
            self.random.below(room as u64) as usize
        } else {
            room
        };
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
        pipe.from_shard.extend(bytes.take(take));
        pipe.blocked |= take < offered;
        Write::Taken(take)
    }

    fn spent(&mut self, _part: Part) -> bool {
        self.budget = self.budget.saturating_sub(1);
        self.budget == 0 || self.random.one_in(50)
    }
}

fn live(pipes: &mut [Option<Pipe>], socket: SocketId) -> Option<&mut Pipe> {
    let pipe = pipes.get_mut(socket.slot as usize)?.as_mut()?;
    (pipe.generation == socket.generation).then_some(pipe)
}

impl Driven {
    fn add(&mut self, end: End, room: usize) -> SocketId {
        let slot = self
            .pipes
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.pipes.push(None);
                self.generations.push(0);
                self.pipes.len() - 1
            });
        self.generations[slot] += 1;
        let generation = self.generations[slot];
        let (to_shard, from_shard) = (VecDeque::new(), VecDeque::new());
        let (hungry, blocked, ended) = (false, false, false);
        let pipe = Pipe {
            end,
            generation,
            to_shard,
            from_shard,
            room,
            ended,
            hungry,
            blocked,
        };
        self.pipes[slot] = Some(pipe);
        SocketId {
            slot: slot as u32,
            generation,
        }
    }

    fn has_work(&self, now: Now) -> bool {
        let due = self.deadline.is_some_and(|deadline| deadline <= now.mono);
        let told = !self.inputs.sockets.is_empty() || !self.inputs.messages.is_empty();
        self.more || due || told
    }

    /// Adds events for pipes that changed.
    fn notice(&mut self) {
        for (slot, pipe) in self.pipes.iter_mut().enumerate() {
            let Some(pipe) = pipe else { continue };
            let socket = SocketId {
                slot: slot as u32,
                generation: pipe.generation,
            };
            if pipe.hungry && (!pipe.to_shard.is_empty() || pipe.ended) {
                pipe.hungry = false;
                self.inputs.sockets.push(SocketEvent::Readable(socket));
            }
            if pipe.blocked && (pipe.from_shard.len() < pipe.room || pipe.ended) {
                pipe.blocked = false;
                self.inputs.sockets.push(SocketEvent::Writable(socket));
            }
        }
    }
}

/// The key of a shard that the seed decides. Only the fleet has such: a real one is random.
fn key_of(seed: u64) -> RandomKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    RandomKey::new(key)
}

impl Peer {
    /// Starts an instance with its shards, from a reproducible seed.
    pub(super) fn start(snapshot: &Arc<Snapshot>, seed: u64) -> Self {
        let count = snapshot.layout.shards;
        let totals = Arc::new(ClientTotals::new([1, 2]));
        let shards = (0..count).map(|n| {
            let setup = ShardSetup {
                me: ShardId(n),
                key: key_of(seed + u64::from(n)),
                listeners: [].into(),
                tls: None,
                security: snapshot
                    .cluster_indexes()
                    .map(|_| ClusterSecurity::none())
                    .collect(),
                totals: totals.clone(),
            };
            let mut inputs = Inputs::default();
            inputs.messages.push_back((
                ShardId::CONTROL,
                Message::Shard(ShardMessage::Load(snapshot.clone())),
            ));
            let (pipes, generations) = (Vec::new(), Vec::new());
            let (more, deadline) = (false, None);
            Driven {
                shard: Shard::new(setup),
                inputs,
                pipes,
                generations,
                more,
                deadline,
            }
        });
        let ways = (0..count).map(|_| (0..count).map(|_| VecDeque::new()).collect());
        Self {
            layout: snapshot.layout,
            shards: shards.collect(),
            ways: ways.collect(),
            closed: BTreeMap::new(),
            unready: vec![None; usize::from(count)],
            notes: Vec::new(),
            rejections_due: 0,
            status: vec![ShardStatus::default(); usize::from(count)],
            metrics: vec![ShardMetrics::default(); usize::from(count)],
        }
    }

    /// Loads a further snapshot into every shard. Each takes it over in a turn of its own.
    pub(super) fn load(&mut self, snapshot: &Arc<Snapshot>, unsupported: bool) {
        self.rejections_due += u32::from(unsupported);
        for driven in &mut self.shards {
            let message = Message::Shard(ShardMessage::Load(snapshot.clone()));
            let messages = &mut driven.inputs.messages;
            messages.push_back((ShardId::CONTROL, message));
        }
    }

    /// Whether every shard has reported that all its checks hold, and every rejected snapshot was
    /// reported.
    pub(super) fn is_ready(&self) -> bool {
        self.rejections_due == 0 && self.unready.iter().all(|checks| *checks == Some(0))
    }

    /// Requests a report of every shard, as the control thread does.
    pub(super) fn ask(&mut self) {
        for driven in &mut self.shards {
            driven
                .inputs
                .messages
                .push_back((ShardId::CONTROL, Message::Shard(ShardMessage::Ask(1))));
        }
    }

    /// Connects a client to any shard that accepts clients. `room`: bytes that its pipe holds.
    pub(super) fn connect(
        &mut self,
        client: usize,
        room: usize,
        random: &mut Random,
    ) -> (usize, SocketId) {
        let takers = u64::from(self.layout.slices());
        let shard = usize::from(self.layout.first_slice().0) + random.below(takers) as usize;
        let driven = &mut self.shards[shard];
        let socket = driven.add(End::Client(client), room);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1024));
        let listener = ListenerId(0);
        driven.inputs.sockets.push(SocketEvent::Accepted {
            socket,
            listener,
            peer,
        });
        (shard, socket)
    }

    /// The pipe of a client's connection. `None` if it is closed.
    pub(super) fn pipe(&mut self, (shard, socket): (usize, SocketId)) -> Option<&mut Pipe> {
        live(&mut self.shards[shard].pipes, socket)
    }

    /// The last bytes of a connection that a shard has closed.
    pub(super) fn last_bytes(&mut self, (shard, socket): (usize, SocketId)) -> Vec<u8> {
        let place = (shard, socket.slot, socket.generation);
        self.closed.remove(&place).unwrap_or_default().into()
    }

    /// Turns every shard that has work, in any order, some of them later.
    pub(super) fn turn(&mut self, now: Now, random: &mut Random, broker: &mut Broker) {
        let count = self.shards.len();
        let first = random.below(count as u64) as usize;
        for n in 0..count {
            let n = (first + n) % count;
            self.deliver_messages(n, random);
            self.shards[n].notice();
            if self.shards[n].has_work(now) && !random.one_in(5) {
                self.turn_one(n, now, random, broker);
            }
        }
    }

    fn deliver_messages(&mut self, to: usize, random: &mut Random) {
        for from in 0..self.shards.len() {
            let way = &mut self.ways[from][to];
            if way.is_empty() || random.one_in(4) {
                continue;
            }
            let some = random.within(1, way.len() as u64) as usize;
            let from = ShardId(from as u16);
            let messages = way.drain(..some).map(|message| (from, message));
            self.shards[to].inputs.messages.extend(messages);
        }
    }

    fn turn_one(&mut self, n: usize, now: Now, random: &mut Random, broker: &mut Broker) {
        let driven = &mut self.shards[n];
        let budget = random.within(1, 40);
        let mut io = Pipes {
            pipes: &mut driven.pipes,
            random,
            scratch: Vec::new(),
            budget,
        };
        let mut outputs = Outputs::default();
        driven
            .shard
            .turn(now, &mut driven.inputs, &mut io, &mut outputs);
        driven.more = outputs.more;
        driven.deadline = outputs.deadline;
        for socket in outputs.close {
            let pipe = driven.pipes[socket.slot as usize]
                .take()
                .expect("it closes what is open");
            assert_eq!(pipe.generation, socket.generation, "it closes its own");
            match pipe.end {
                End::Broker(connection) => broker.on_disconnect(connection),
                // The FIN follows the bytes that the socket has accepted.
                End::Client(_) if !pipe.ended => {
                    let place = (n, socket.slot, socket.generation);
                    self.closed.insert(place, pipe.from_shard);
                }
                End::Client(_) => {}
            }
        }
        for open in outputs.open {
            self.open(n, &open, broker);
        }
        for message in outputs.control {
            match message {
                ControlMessage::Report(_, report) => {
                    let open = report.checks.iter().filter(|check| !check.ok).count();
                    // A later report may come in the midst of a fault. Clients go on to ask.
                    self.unready[n] = Some(self.unready[n].map_or(open, |it| it.min(open)));
                    (self.status[n], self.metrics[n]) = (report.status, report.metrics);
                }
                ControlMessage::Note(note) => {
                    let rejected = note
                        .text
                        .ends_with("topic `new` is new; restart to serve it");
                    self.rejections_due -= u32::from(rejected);
                    self.notes.push(note.text);
                }
                ControlMessage::CheckBody(..) => panic!("the fleet's routes have no schema"),
                ControlMessage::Salt(..) => panic!("the fleet's brokers ask for no password"),
            }
        }
        for (to, message) in outputs.messages {
            self.ways[n][usize::from(to.0)].push_back(message);
        }
    }

    fn open(&mut self, n: usize, open: &Open, broker: &mut Broker) {
        let driven = &mut self.shards[n];
        let ticket = open.ticket;
        let event = match broker.on_connect(NodeId(open.port)) {
            Some(connection) => {
                let socket = driven.add(End::Broker(connection), BROKER_PIPE_BYTES);
                SocketEvent::Opened { ticket, socket }
            }
            None => SocketEvent::OpenFailed {
                ticket,
                error: ErrorKind::ConnectionRefused,
            },
        };
        driven.inputs.sockets.push(event);
    }

    /// Moves bytes between shards and the broker. `stalled`: what brokers send stays on its way.
    pub(super) fn exchange(
        &mut self,
        now: Now,
        stalled: bool,
        random: &mut Random,
        broker: &mut Broker,
    ) {
        for driven in &mut self.shards {
            for pipe in driven.pipes.iter_mut().flatten() {
                let End::Broker(connection) = pipe.end else {
                    continue;
                };
                let up = pipe.from_shard.len();
                if up > 0 && broker.wants_bytes(connection) && !random.one_in(4) {
                    let len = random.within(1, up as u64) as usize;
                    let bytes: Vec<u8> = pipe.from_shard.drain(..len).collect();
                    if broker.on_bytes(connection, &bytes, now).is_err() {
                        broker.on_disconnect(connection);
                        pipe.ended = true;
                    }
                }
                let down = broker.outgoing(connection).len();
                if down > 0 && !pipe.ended && !stalled && !random.one_in(4) {
                    let len = random.within(1, down.min(64 * 1024) as u64) as usize;
                    pipe.to_shard.extend(&broker.outgoing(connection)[..len]);
                    broker.on_written(connection, len);
                }
            }
        }
    }

    /// The broker has cut this connection.
    pub(super) fn on_cut(&mut self, cut: ConnectionId) {
        for driven in &mut self.shards {
            let pipes = driven.pipes.iter_mut().flatten();
            pipes
                .filter(|pipe| pipe.end == End::Broker(cut))
                .for_each(|pipe| pipe.ended = true);
        }
    }

    /// Kills the process, which ends its connections to the broker.
    pub(super) fn kill(self, broker: &mut Broker) {
        for pipe in self
            .shards
            .into_iter()
            .flat_map(|driven| driven.pipes)
            .flatten()
        {
            if let End::Broker(connection) = pipe.end {
                broker.on_disconnect(connection);
            }
        }
    }
}

impl Pipe {
    /// The client sends bytes to the shard.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.to_shard.extend(bytes);
    }

    /// The client closes its connection.
    pub(super) fn leave(&mut self) {
        self.ended = true;
    }
}

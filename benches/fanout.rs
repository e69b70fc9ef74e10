//! What a delivery costs a shard: one record to many streams, through the whole of a real shard
//! (feed, framing, edge), over sockets that accept every byte and do nothing with it. Neither a
//! kernel nor the reactor takes part, so the result is a number of instructions, which callgrind
//! counts:
//!
//! ```sh
//! cargo bench --locked --all-features --bench fanout --no-run      # prints the program's path
//! for clients in 1000 2000; do
//!   valgrind --tool=callgrind --collect-atstart=no --toggle-collect='fanout::measured' \
//!     --callgrind-out-file=/dev/null PROGRAM $clients 100 2>&1 | grep Collected
//! done
//! ```
//!
//! The difference of the two sums, by 100 rounds and 1,000 clients, is the cost of one delivery. A
//! third argument is how many records a round has.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use sluicegate::broker::{Broker, ConnectionId, NodeId, Settings};
use sluicegate::config::{ConfigFile, Sources};
use sluicegate::model::{Instant, Now, Partition, ShardId, UnixMillis};
use sluicegate::shard::{
    ClusterSecurity, ControlMessage, Inputs, Io, Layout, ListenerId, Message, Outputs, Part,
    RandomKey, Read, Registry, Shard, ShardMessage, ShardSetup, Snapshot, SocketEvent, SocketId,
    Turn, Write,
};

const TOPIC: &str = "events";
const VALUE_BYTES: usize = 200;
const REQUEST: &[u8] = b"GET /all HTTP/1.1\r\nHost: bench\r\n\r\n";

/// The other end of a shard's socket.
enum End {
    Broker {
        connection: ConnectionId,
        to_shard: VecDeque<u8>,
        from_shard: Vec<u8>,
    },
    /// A client: the request bytes that it has not sent yet, and the number of bytes it received.
    Client { request: &'static [u8], bytes: u64 },
}

#[derive(Default)]
pub(crate) struct Ends {
    ends: Vec<End>,
    scratch: Vec<u8>,
    client_bytes: u64,
}

impl Io for Ends {
    fn read(&mut self, socket: SocketId) -> Read<'_> {
        match &mut self.ends[socket.slot as usize] {
            End::Client { request: b"", .. } => Read::Blocked,
            End::Client { request, .. } => Read::Bytes(std::mem::take(request)),
            End::Broker { to_shard, .. } if to_shard.is_empty() => Read::Blocked,
            End::Broker { to_shard, .. } => {
                self.scratch.clear();
                self.scratch.extend(to_shard.drain(..));
                Read::Bytes(&self.scratch)
            }
        }
    }

    fn write(&mut self, socket: SocketId, slices: &[IoSlice<'_>]) -> Write {
        let taken = slices.iter().map(|slice| slice.len()).sum();
        match &mut self.ends[socket.slot as usize] {
            End::Client { bytes, .. } => {
                *bytes += taken as u64;
                self.client_bytes += taken as u64;
            }
            End::Broker { from_shard, .. } => {
                slices.iter().for_each(|slice| from_shard.extend(&**slice));
            }
        }
        Write::Taken(taken)
    }

    fn spent(&mut self, _part: Part) -> bool {
        false
    }
}

pub(crate) struct World {
    pub(crate) now: Now,
    broker: Broker,
    pub(crate) shard: Shard,
    pub(crate) inputs: Inputs<Message>,
    pub(crate) ends: Ends,
    ready: bool,
    written: i64,
    /// What the turns of the shard have taken, without the broker and the clients.
    pub(crate) shard_time: Duration,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_idle_topics(0)
    }

    /// A world with so many topics more, which have streams and stay empty.
    pub(crate) fn with_idle_topics(idle: usize) -> Self {
        let settings = Settings {
            nodes: 1,
            ..Settings::default()
        };
        let mut broker = Broker::new(settings, 1);
        broker.advertise(NodeId(1), "node", 1);
        let configs = [("cleanup.policy", "delete")];
        broker.create_topic(TOPIC, 1, &configs).expect("a topic");
        let mut text = format!(
            "[kafka]\nbootstrap = [\"node:1\"]\n\
             [[stream]]\nroute = \"GET /all\"\ntopic = \"{TOPIC}\"\nstart = \"live\"\n"
        );
        for n in 0..idle {
            let topic = format!("idle-{n}");
            broker.create_topic(&topic, 1, &configs).expect("a topic");
            text.push_str(&format!(
                "[[stream]]\nroute = \"GET /{topic}\"\ntopic = \"{topic}\"\nstart = \"live\"\n"
            ));
        }
        let name = "bench.toml".into();
        let sources = Sources {
            file: Some(ConfigFile { name, text }),
            environment: Vec::new(),
            flags: Vec::new(),
            cpus: 1,
            to_serve: true,
        };
        let config = match sluicegate::config::load(sources) {
            Ok(loaded) => loaded.config,
            Err(report) => panic!("{}", report.render(false)),
        };
        let (shards, kafka_shards) = (1, 0);
        let layout = Layout {
            shards,
            kafka_shards,
        };
        let snapshot = Snapshot::new(1, Arc::new(config), layout, &mut Registry::default());
        let snapshot = Arc::new(snapshot.expect("a few names have numbers"));
        let clusters = snapshot.cluster_indexes();
        let setup = ShardSetup {
            me: ShardId(0),
            key: RandomKey::new([1; 32]),
            listeners: [].into(),
            tls: None,
            security: clusters.map(|_| ClusterSecurity::none()).collect(),
            totals: Arc::new(sluicegate::shard::ClientTotals::new([1, 2])),
        };
        let mut inputs = Inputs::default();
        let load = (
            ShardId::CONTROL,
            Message::Shard(ShardMessage::Load(snapshot)),
        );
        inputs.messages.push_back(load);
        Self {
            now: Now {
                mono: Instant::from_nanos(1),
                wall: UnixMillis(1_700_000_000_000),
            },
            broker,
            shard: Shard::new(setup),
            inputs,
            ends: Ends::default(),
            ready: false,
            written: 0,
            shard_time: Duration::ZERO,
        }
    }

    fn add(&mut self, end: End) -> SocketId {
        let slot = self.ends.ends.len() as u32;
        self.ends.ends.push(end);
        SocketId {
            slot,
            generation: 1,
        }
    }

    /// Runs one turn of the shard, 1 ms later, with the broker's pending responses.
    fn turn(&mut self) {
        self.now.mono = Instant::from_nanos(self.now.mono.as_nanos() + 1_000_000);
        self.now.wall = UnixMillis(self.now.wall.0 + 1);
        let mut outputs = Outputs::default();
        let Self { now, ends, .. } = self;
        let began = std::time::Instant::now();
        self.shard.turn(*now, &mut self.inputs, ends, &mut outputs);
        self.shard_time += began.elapsed();
        for open in outputs.open {
            let connection = self.broker.on_connect(NodeId(open.port)).expect("it is up");
            let (to_shard, from_shard) = (VecDeque::new(), Vec::new());
            let socket = self.add(End::Broker {
                connection,
                to_shard,
                from_shard,
            });
            let ticket = open.ticket;
            let opened = SocketEvent::Opened { ticket, socket };
            self.inputs.sockets.push(opened);
        }
        for message in outputs.control {
            if let ControlMessage::Report(_, report) = message {
                self.ready |= report.checks.iter().all(|check| check.ok);
            }
        }
        for (slot, end) in self.ends.ends.iter_mut().enumerate() {
            let End::Broker {
                connection,
                to_shard,
                from_shard,
            } = end
            else {
                continue;
            };
            let bytes = std::mem::take(from_shard);
            let heard = self.broker.on_bytes(*connection, &bytes, self.now);
            heard.expect("the shard speaks Kafka");
            self.broker.on_time(self.now);
            while self.broker.next_writable().is_some() {}
            let said = self.broker.outgoing(*connection).to_vec();
            if !said.is_empty() {
                self.broker.on_written(*connection, said.len());
                to_shard.extend(said);
                let (slot, generation) = (slot as u32, 1);
                let socket = SocketId { slot, generation };
                self.inputs.sockets.push(SocketEvent::Readable(socket));
            }
        }
    }

    pub(crate) fn open(&mut self, clients: usize) {
        while !self.ready {
            let ask = (ShardId::CONTROL, Message::Shard(ShardMessage::Ask(1)));
            self.inputs.messages.push_back(ask);
            self.turn();
        }
        for _ in 0..clients {
            let (request, bytes) = (REQUEST, 0);
            let socket = self.add(End::Client { request, bytes });
            let accepted = SocketEvent::Accepted {
                socket,
                listener: ListenerId(0),
                peer: SocketAddr::from(([127, 0, 0, 1], 1024)),
            };
            self.inputs.sockets.push(accepted);
        }
        for _ in 0..100 {
            self.turn();
        }
    }

    /// Appends records, each in its own batch, as many producers would.
    pub(crate) fn produce(&mut self, records: usize) {
        for _ in 0..records {
            self.written += 1;
            let record = Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: TimestampType::Creation,
                offset: 0,
                sequence: 0,
                timestamp: self.now.wall.0,
                key: Some(Bytes::from(format!("k{}", self.written % 100))),
                value: Some(Bytes::from(vec![b'x'; VALUE_BYTES])),
                headers: Default::default(),
            };
            let mut batch = BytesMut::new();
            let options = RecordEncodeOptions {
                version: 2,
                compression: Compression::None,
            };
            RecordBatchEncoder::encode(&mut batch, &[record], &options).expect("a record");
            let planted = self.broker.plant(TOPIC, Partition(0), &batch);
            planted.expect("a sound batch");
        }
    }
}

/// Runs the turns in which records are fetched and delivered. Not inlined, because callgrind
/// selects what to count by this function's name.
#[inline(never)]
pub(crate) fn measured(world: &mut World, clients: usize, records: usize) {
    let least = (clients * records * VALUE_BYTES) as u64;
    let before = world.ends.client_bytes;
    let mut turns = 0;
    while world.ends.client_bytes - before < least {
        world.turn();
        turns += 1;
        assert!(turns < 1_000, "it delivers");
    }
}

fn main() {
    // `cargo bench` and `cargo test --benches` add their own flags.
    let mut numbers = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let mut next = |otherwise| numbers.next().unwrap_or(otherwise);
    let (clients, rounds, records) = (next(100), next(10), next(1));
    let mut world = World::new();
    world.open(clients);
    world.produce(records);
    measured(&mut world, clients, records); // Warm.
    let before = world.ends.client_bytes;
    for _ in 0..rounds {
        world.produce(records);
        measured(&mut world, clients, records);
    }
    let bytes = world.ends.client_bytes - before;
    let deliveries = (clients * rounds * records) as f64;
    println!(
        "{clients} clients, {rounds} rounds of {records}: {:.1} bytes a delivery",
        bytes as f64 / deliveries
    );
}

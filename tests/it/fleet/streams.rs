//! Streams: clients are cut anywhere and resume at any gateway by their last id, while topics grow,
//! are trimmed and compacted, and lose records by unclean elections.

use bytes::Bytes;
use kafka_protocol::records::Record;
use sluicegate::log::EventId;
use sluicegate::model::{Instant, Offset, Partition};

use super::peer::CLIENT_PIPE_BYTES;
use super::random::Random;
use super::records::{batch, record, text};
use super::subscriber::Subscriber;
use super::world::{Scenario, World};

/// The kind of topic that clients read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A topic that keeps every record.
    Log,
    /// A compacted topic, started by snapshot.
    Snapshot,
}

/// The result of a run. Two runs of a seed must agree in all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Number of events that clients received.
    pub(super) events: u64,
    /// A hash over all of them, in order.
    pub(super) print: u64,
    /// Number of connections that clients made.
    pub(super) connections: u64,
}

pub(super) const TOPIC: &str = "events";
const KEYS: u64 = 6;
/// Longer than any backoff or timeout that a fault may have left behind.
const QUIET: std::time::Duration = std::time::Duration::from_secs(15);

/// A record as the checks see it: offset, key, value.
pub(super) type Written = (u64, String, Option<String>);

/// Clients of event streams, and all records of the topic that they read.
pub(super) struct Streams {
    pub(super) kind: Kind,
    pub(super) partitions: u32,
    pub(super) clients: Vec<Subscriber>,
    written: u64,
    /// Every record ever appended, by partition, including those that retention or compaction
    /// removed. Records that an unclean election removed are in `lost`.
    pub(super) truth: Vec<Vec<Written>>,
    pub(super) lost: Vec<Vec<Written>>,
    /// Whether there are unclean elections: in half of the worlds.
    pub(super) unclean: bool,
    /// By partition: the offsets at which its log was truncated.
    cuts: [Vec<u64>; 8],
    /// By partition: the log start that has passed such an offset. Below it not even the broker
    /// knows of the truncation.
    pub(super) blind: [u64; 8],
    /// By partition: its end when it was last compacted.
    compacted: [u64; 8],
    /// The time and the count of the last event in the calm.
    busy: (Instant, usize),
}

fn config(kind: Kind, random: &mut Random) -> String {
    let (all, keyed) = match kind {
        Kind::Log => ("earliest", "live"),
        Kind::Snapshot => ("snapshot", "snapshot"),
    };
    // Limits are reduced by seed, so that they are hit.
    let window = *random.pick(&["1MiB", "2MiB", "64MiB"]);
    format!(
        "[kafka]\nbootstrap = [\"node:1\", \"node:2\"]\nfetch_wait = \"50ms\"\nrequest_timeout = \"1s\"\nmetadata_age_max = \"2s\"\n\
         [streams]\nwindow_bytes_max = \"{window}\"\nheartbeat = \"500ms\"\n\
         [[stream]]\nroute = \"GET /all\"\ntopic = \"{TOPIC}\"\nstart = \"{all}\"\n\
         [[stream]]\nroute = \"GET /live\"\ntopic = \"{TOPIC}\"\nstart = \"live\"\n\
         [[stream]]\nroute = \"GET /of/{{key}}\"\ntopic = \"{TOPIC}\"\nstart = \"{keyed}\"\n\
         filter.key = \"{{path.key}}\"\n"
    )
}

impl Streams {
    /// Runs the history of one seed.
    pub(super) fn run(kind: Kind, seed: u64) -> History {
        let mut world = World::new(seed, 2);
        let mut streams = Self::new(kind, &mut world);
        world.live(&mut streams);
        world.show();
        streams.show();
        streams.check(&world);
        streams.history()
    }

    fn new(kind: Kind, world: &mut World) -> Self {
        let partitions = world.random.within(1, 4) as u32;
        let policy = match kind {
            Kind::Log => "delete",
            Kind::Snapshot => "compact",
        };
        let configs = [("cleanup.policy", policy)];
        world
            .broker
            .create_topic(TOPIC, partitions, &configs)
            .expect("a topic");
        world.add_gateways(|random| config(kind, random));
        let random = &mut world.random;
        let clients = (0..random.within(2, 6)).map(|n| match n % 3 {
            0 => Subscriber::new("/all".into(), None),
            1 => {
                let key = format!("k{}", random.below(KEYS));
                Subscriber::new(format!("/of/{key}"), Some(key))
            }
            _ => Subscriber::new("/live".into(), None),
        });
        let clients = clients.enumerate();
        let clients = clients.map(|(n, client)| client.forgetful(n % 2 == 1));
        Self {
            kind,
            partitions,
            clients: clients.collect(),
            written: 0,
            truth: vec![Vec::new(); 8],
            lost: vec![Vec::new(); 8],
            unclean: random.one_in(2),
            cuts: Default::default(),
            blind: [0; 8],
            compacted: [0; 8],
            busy: (Instant::ZERO, 0),
        }
    }

    /// A replica without the newest records becomes leader.
    fn elect_uncleanly(&mut self, world: &mut World) {
        let p = world.random.below(u64::from(self.partitions)) as u32;
        let [.., end] = world.bounds(TOPIC, p);
        // A replica has not been compacted by records that it lacks.
        let most = end - self.compacted[p as usize];
        let lose = world.random.within(1, 8).min(most);
        let end = world.broker.unclean_election(TOPIC, Partition(p), lose);
        let end = end.expect("the partition is there");
        let truth = &mut self.truth[p as usize];
        let lost = truth.extract_if(.., |(offset, ..)| *offset >= end.0);
        self.lost[p as usize].extend(lost);
        self.cuts[p as usize].push(end.0);
    }

    /// Retention removes the oldest records of a partition.
    fn trim(&mut self, world: &mut World) {
        let p = world.random.below(u64::from(self.partitions)) as u32;
        let [start, _, end] = world.bounds(TOPIC, p);
        let offset = world.random.within(start, end);
        if self.cuts[p as usize].iter().any(|cut| *cut < offset) {
            self.blind[p as usize] = offset;
        }
        world
            .broker
            .trim(TOPIC, Partition(p), Offset(offset))
            .expect("it is within the log");
    }

    /// Appends some records to one partition. A key keeps its partition.
    fn write(&mut self, world: &mut World) {
        let at = world.random.below(u64::from(self.partitions.min(4)));
        let count = world.random.within(1, 5);
        let records: Vec<Record> = (0..count)
            .map(|n| {
                self.written += 1;
                // Keys of a partition are those that leave its number modulo four.
                let key = format!("k{}", (at + 4 * world.random.below(2)) % KEYS.max(8));
                let delete = self.kind == Kind::Snapshot && world.random.one_in(6);
                // Some are larger than a chunk.
                let width = if world.random.one_in(50) {
                    world.random.within(1, 20_000) as usize
                } else {
                    1
                };
                let value = format!("{key} {:0width$}", self.written);
                let value = (!delete).then(|| Bytes::from(value));
                record(n as i64, world.now.wall.0, Some(key.into()), value)
            })
            .collect();
        let base = world
            .broker
            .plant(TOPIC, Partition(at as u32), &batch(&records))
            .expect("a sound batch");
        let told = records.iter().map(|record| {
            let offset = base.0 + record.offset as u64;
            let value = record
                .value
                .as_ref()
                .map(|value| text(Some(value)).to_owned());
            (offset, text(record.key.as_ref()).to_owned(), value)
        });
        self.truth[at as usize].extend(told);
    }

    fn step_client(&mut self, index: usize, world: &mut World, storm: bool) {
        let client = &mut self.clients[index];
        let Some((gateway, place)) = client.at else {
            let Some(gateway) = world.any_ready().filter(|_| !world.random.one_in(3)) else {
                return;
            };
            let process = world.gateways[gateway].process.as_mut();
            let process = process.expect("it is ready");
            let room = *world.random.pick(&CLIENT_PIPE_BYTES);
            let place = process.connect(index, room, &mut world.random);
            let request = client.request();
            process
                .pipe(place)
                .expect("just made")
                .send(request.as_bytes());
            client.at = Some((gateway, place));
            return;
        };
        let process = world.gateways[gateway].process.as_mut();
        let pipe = process
            .expect("a killed gateway's clients know")
            .pipe(place);
        let Some(pipe) = pipe else {
            client.at = None;
            let process = world.gateways[gateway].process.as_mut();
            let process = process.expect("it was there above");
            client.on_bytes(&process.last_bytes(place));
            client.on_close();
            return;
        };
        let waiting = pipe.from_shard.len();
        let random = &mut world.random;
        // Some clients read slowly, and now and then one is stalled.
        let slow = index % 2 == 1 && storm;
        let turns = if client.stalled { 20 } else { 60 };
        client.stalled = storm && client.stalled != random.one_in(turns);
        if waiting > 0 && !client.stalled && !(slow && random.one_in(2)) {
            let most = if slow { waiting.min(64) } else { waiting };
            let some = random.within(1, most as u64) as usize;
            let bytes: Vec<u8> = pipe.from_shard.drain(..some).collect();
            client.on_bytes(&bytes);
        }
        if storm && random.one_in(40) {
            pipe.leave();
            client.at = None;
        }
    }

    /// With one seed, prints the final state of every client.
    fn show(&self) {
        if std::env::var_os("SLUICEGATE_SEED").is_none() {
            return;
        }
        for (number, client) in self.clients.iter().enumerate() {
            let id = EventId::parse(client.last_id.as_bytes());
            println!("client {number} at {:?} {} {id:?}", client.at, client.path);
        }
    }

    fn history(&self) -> History {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        let (mut events, mut connections) = (0, 0);
        for client in &self.clients {
            events += client.events.len() as u64;
            connections += u64::from(client.connections);
            for event in &client.events {
                (&event.name, &event.data, event.connection).hash(&mut hasher);
            }
            client.last_id.hash(&mut hasher);
        }
        History {
            events,
            print: hasher.finish(),
            connections,
        }
    }
}

impl Scenario for Streams {
    fn disturb(&mut self, world: &mut World) {
        if world.random.one_in(40) {
            let p = world.random.below(u64::from(self.partitions)) as u32;
            world.move_leader(TOPIC, Partition(p));
        }
        if self.unclean && world.random.one_in(50) {
            self.elect_uncleanly(world);
        }
        if self.kind == Kind::Log && world.random.one_in(60) {
            self.trim(world);
        }
        if self.kind == Kind::Snapshot && world.random.one_in(50) {
            world.broker.compact(TOPIC).expect("the topic is there");
            for p in 0..self.partitions {
                [.., self.compacted[p as usize]] = world.bounds(TOPIC, p);
            }
        }
        if world.random.one_in(150) && self.partitions < 5 {
            self.partitions += 1;
            world
                .broker
                .add_partitions(TOPIC, self.partitions)
                .expect("one more");
        }
        if world.random.one_in(2) {
            self.write(world);
        }
    }

    fn act(&mut self, world: &mut World, storm: bool) {
        for index in 0..self.clients.len() {
            self.step_client(index, world, storm);
        }
    }

    fn on_killed(&mut self, gateway: usize, _: &mut World) {
        for client in &mut self.clients {
            client.at = client.at.filter(|(at, _)| *at != gateway);
        }
    }

    /// Every record that can be sent must be sent, within a limited time.
    fn is_settled(&mut self, world: &mut World) -> bool {
        let shown: usize = self.clients.iter().map(|client| client.events.len()).sum();
        let connected = self.clients.iter().all(|client| client.at.is_some());
        if self.busy.1 != shown || !connected {
            self.busy = (world.now.mono, shown);
        }
        world.now.mono.since(self.busy.0) > QUIET
    }

    fn unsettled(&self) -> String {
        let stuck: Vec<_> = self
            .clients
            .iter()
            .filter(|client| client.at.is_none())
            .collect();
        format!("not connected: {stuck:?}")
    }
}

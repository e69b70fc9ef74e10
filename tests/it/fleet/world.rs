//! The world: a clock, a seed, a cluster, peers that come and go, clients that are cut anywhere. It
//! lives through a storm of faults, then a calm in which everything must settle; then what the
//! clients were shown is held against what the log holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use sluicegate::broker::{Broker, NodeId, Settings};
use sluicegate::config::{ConfigFile, Sources};
use sluicegate::log::EventId;
use sluicegate::model::{Instant, Now, Offset, Partition, UnixMillis};
use sluicegate::shard::{Layout, Snapshot};

use super::peer::Peer;
use super::random::Random;
use super::subscriber::{Event, Subscriber};

/// What is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    /// A topic that keeps every record.
    Log,
    /// A compacted topic, started by snapshot.
    Snapshot,
}

/// What a run came to. Two runs of a seed must agree in all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Events shown to clients.
    pub(super) events: u64,
    /// A hash over all of them, in order.
    pub(super) print: u64,
    /// Connections made by clients.
    pub(super) connections: u64,
}

const TOPIC: &str = "events";
const KEYS: u64 = 6;
const STORM: u64 = 300;
const CALM: u64 = 6_000;
/// Longer than any backoff or timeout that a fault may have left behind.
const QUIET: std::time::Duration = std::time::Duration::from_secs(15);

/// Everything there is.
pub(super) struct World {
    scenario: Scenario,
    random: Random,
    now: Now,
    broker: Broker,
    partitions: u32,
    peers: Vec<(Arc<Snapshot>, Option<Peer>)>,
    clients: Vec<Subscriber>,
    written: u64,
    /// Every record there ever was, by partition: offset, key, value. What retention or compaction
    /// took is in it, too; what an unclean election took is in `lost`.
    truth: Vec<Vec<(u64, String, Option<String>)>>,
    lost: Vec<Vec<(u64, String, Option<String>)>>,
    /// Whether there are unclean elections: in half of the worlds.
    unclean: bool,
    /// By partition: where its log was cut back.
    cuts: [Vec<u64>; 8],
    /// By partition: the log start that has passed such a place. Below it not even the broker knows
    /// what was cut off.
    blind: [u64; 8],
    /// By partition: its end when it was last compacted.
    compacted: [u64; 8],
    frozen: Option<NodeId>,
}

fn config(scenario: Scenario, random: &mut Random) -> sluicegate::config::Config {
    let (all, keyed) = match scenario {
        Scenario::Log => ("earliest", "live"),
        Scenario::Snapshot => ("snapshot", "snapshot"),
    };
    // Limits shrunk by seed, so that they are hit.
    let window = *random.pick(&["1MiB", "2MiB", "64MiB"]);
    let text = format!(
        "[kafka]\nbootstrap = [\"node:1\", \"node:2\"]\nfetch_wait = \"50ms\"\nrequest_timeout = \"1s\"\nmetadata_age_max = \"2s\"\n\
         [streams]\nwindow_bytes_max = \"{window}\"\nheartbeat = \"500ms\"\n\
         [[stream]]\nroute = \"GET /all\"\ntopic = \"{TOPIC}\"\nstart = \"{all}\"\n\
         [[stream]]\nroute = \"GET /live\"\ntopic = \"{TOPIC}\"\nstart = \"live\"\n\
         [[stream]]\nroute = \"GET /of/{{key}}\"\ntopic = \"{TOPIC}\"\nstart = \"{keyed}\"\n\
         filter.key = \"{{path.key}}\"\n"
    );
    let file = Some(ConfigFile {
        name: "fleet.toml".into(),
        text,
    });
    let sources = Sources {
        file,
        environment: Vec::new(),
        flags: Vec::new(),
        cpus: 2,
        to_serve: true,
    };
    match sluicegate::config::load(sources) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}", report.render(false)),
    }
}

impl World {
    /// Lives through one history.
    pub(super) fn run(scenario: Scenario, seed: u64) -> History {
        let mut world = Self::new(scenario, seed);
        for _ in 0..STORM {
            world.step(true);
        }
        world.settle();
        world.show();
        world.check();
        world.history()
    }

    fn new(scenario: Scenario, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = random.within(1, 2) as u16;
        let settings = Settings {
            nodes,
            ..Settings::default()
        };
        let mut broker = Broker::new(settings, seed);
        for node in 1..=nodes {
            broker.advertise(NodeId(node), "node", node);
        }
        let partitions = random.within(1, 4) as u32;
        let policy = match scenario {
            Scenario::Log => "delete",
            Scenario::Snapshot => "compact",
        };
        let configs = [("cleanup.policy", policy)];
        broker
            .create_topic(TOPIC, partitions, &configs)
            .expect("a topic");
        let peers = (0..random.within(1, 3)).map(|_| {
            let shards = random.within(1, 3) as u16;
            let kafka_shards = if shards > 1 && random.one_in(3) { 1 } else { 0 };
            let layout = Layout {
                shards,
                kafka_shards,
            };
            let config = Arc::new(config(scenario, &mut random));
            (Arc::new(Snapshot::new(1, config, layout)), None)
        });
        let peers: Vec<_> = peers.collect();
        let clients = (0..random.within(2, 6)).map(|n| match n % 3 {
            0 => Subscriber::new("/all".into(), None),
            1 => {
                let key = format!("k{}", random.below(KEYS));
                Subscriber::new(format!("/of/{key}"), Some(key))
            }
            _ => Subscriber::new("/live".into(), None),
        });
        let clients = clients.collect();
        let now = Now {
            mono: Instant::from_nanos(1),
            wall: UnixMillis(1_700_000_000_000),
        };
        let (written, truth, frozen) = (0, vec![Vec::new(); 8], None);
        let (lost, unclean) = (truth.clone(), random.one_in(2));
        Self {
            scenario,
            random,
            now,
            broker,
            partitions,
            peers,
            clients,
            written,
            truth,
            lost,
            unclean,
            cuts: Default::default(),
            blind: [0; 8],
            compacted: [0; 8],
            frozen,
        }
    }

    /// Some milliseconds of the world.
    fn step(&mut self, storm: bool) {
        let most = if storm { 8 } else { 40 };
        let millis = if self.random.one_in(20) {
            200
        } else {
            self.random.within(1, most)
        };
        self.pass(millis);
        if storm {
            self.faults();
            if self.random.one_in(2) {
                self.write();
            }
        }
        for index in 0..self.peers.len() {
            if self.peers[index].1.is_none() && (!storm || self.random.one_in(10)) {
                let seed = self.random.next() >> 8;
                self.peers[index].1 = Some(Peer::start(&self.peers[index].0, seed));
            }
            let Some(peer) = &mut self.peers[index].1 else {
                continue;
            };
            for _ in 0..3 {
                peer.turn(self.now, &mut self.random, &mut self.broker);
                peer.exchange(self.now, &mut self.random, &mut self.broker);
            }
            if !peer.is_ready() {
                peer.ask();
            }
        }
        self.broker.on_time(self.now);
        while let Some(cut) = self.broker.next_cut() {
            self.peers
                .iter_mut()
                .filter_map(|(_, p)| p.as_mut())
                .for_each(|p| p.on_cut(cut));
        }
        while self.broker.next_writable().is_some() {}
        for index in 0..self.clients.len() {
            self.step_client(index, storm);
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now.mono = Instant::from_nanos(self.now.mono.as_nanos() + millis * 1_000_000);
        self.now.wall = UnixMillis(self.now.wall.0 + millis as i64);
    }

    fn faults(&mut self) {
        if self.random.one_in(60) {
            let index = self.random.below(self.peers.len() as u64) as usize;
            if let Some(peer) = self.peers[index].1.take() {
                peer.kill(&mut self.broker);
                for client in &mut self.clients {
                    client.at = client.at.filter(|(peer, _)| *peer != index);
                }
            }
        }
        if self.random.one_in(40) {
            let nodes: Vec<_> = self.broker.nodes().collect();
            let node = *self.random.pick(&nodes);
            self.broker.cut_connections(node);
        }
        if self.random.one_in(40) {
            let nodes: Vec<_> = self.broker.nodes().collect();
            let node = *self.random.pick(&nodes);
            let at = Partition(self.random.below(u64::from(self.partitions)) as u32);
            self.broker
                .move_leader(TOPIC, at, node)
                .expect("a running node");
        }
        if self.unclean && self.random.one_in(50) {
            self.elect_uncleanly();
        }
        match self.frozen {
            None if self.random.one_in(120) => {
                let nodes: Vec<_> = self.broker.nodes().collect();
                let node = *self.random.pick(&nodes);
                self.broker.freeze_node(node);
                self.frozen = Some(node);
            }
            Some(node) if self.random.one_in(40) => {
                self.broker.thaw_node(node);
                self.frozen = None;
            }
            _ => {}
        }
        if self.scenario == Scenario::Log && self.random.one_in(60) {
            let at = Partition(self.random.below(u64::from(self.partitions)) as u32);
            let [start, _, end] = self.bounds(at.0);
            let offset = self.random.within(start, end);
            let p = at.0 as usize;
            if self.cuts[p].iter().any(|cut| *cut < offset) {
                self.blind[p] = offset;
            }
            self.broker
                .trim(TOPIC, at, Offset(offset))
                .expect("it is within the log");
        }
        if self.scenario == Scenario::Snapshot && self.random.one_in(30) {
            self.broker.compact(TOPIC).expect("the topic is there");
            for p in 0..self.partitions {
                [.., self.compacted[p as usize]] = self.bounds(p);
            }
        }
        if self.random.one_in(150) && self.partitions < 5 {
            self.partitions += 1;
            self.broker
                .add_partitions(TOPIC, self.partitions)
                .expect("one more");
        }
    }

    /// A partition's log start, last stable offset and end.
    fn bounds(&self, p: u32) -> [u64; 3] {
        let bounds = self.broker.bounds(TOPIC, Partition(p));
        bounds.expect("the partition is there").map(|at| at.0)
    }

    /// A replica leads that lacks the newest records.
    fn elect_uncleanly(&mut self) {
        let p = self.random.below(u64::from(self.partitions)) as u32;
        let [.., end] = self.bounds(p);
        // A replica never has compacted by records that it lacks.
        let most = end - self.compacted[p as usize];
        let lose = self.random.within(1, 8).min(most);
        let end = self.broker.unclean_election(TOPIC, Partition(p), lose);
        let end = end.expect("the partition is there");
        let truth = &mut self.truth[p as usize];
        let lost = truth.extract_if(.., |(offset, ..)| *offset >= end.0);
        self.lost[p as usize].extend(lost);
        self.cuts[p as usize].push(end.0);
    }

    /// Appends some records to one partition. A key keeps its partition.
    fn write(&mut self) {
        let at = self.random.below(u64::from(self.partitions.min(4)));
        let count = self.random.within(1, 5);
        let records: Vec<Record> = (0..count)
            .map(|n| {
                self.written += 1;
                // Keys of a partition are those that leave its number modulo four.
                let key = format!("k{}", (at + 4 * self.random.below(2)) % KEYS.max(8));
                let delete = self.scenario == Scenario::Snapshot && self.random.one_in(6);
                let value = (!delete).then(|| Bytes::from(format!("{key} {}", self.written)));
                record(n as i64, self.now.wall.0, Some(key.into()), value)
            })
            .collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        RecordBatchEncoder::encode(&mut batch, &records, &options).expect("records encode");
        let base = self
            .broker
            .plant(TOPIC, Partition(at as u32), &batch)
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

    fn step_client(&mut self, index: usize, storm: bool) {
        let client = &mut self.clients[index];
        let Some((peer, place)) = client.at else {
            let ready = |(_, peer): &(usize, &(_, Option<Peer>))| {
                peer.1.as_ref().is_some_and(Peer::is_ready)
            };
            let ready: Vec<_> = self.peers.iter().enumerate().filter(ready).collect();
            if ready.is_empty() || self.random.one_in(3) {
                return;
            }
            let peer = self.random.pick(&ready).0;
            let process = self.peers[peer].1.as_mut().expect("it is ready");
            let place = process.connect(index, &mut self.random);
            let request = client.request();
            process
                .pipe(place)
                .expect("just made")
                .send(request.as_bytes());
            client.at = Some((peer, place));
            return;
        };
        let process = self.peers[peer]
            .1
            .as_mut()
            .expect("a killed peer's clients know");
        let Some(pipe) = process.pipe(place) else {
            client.at = None; // It was closed; what was on its way is lost with it.
            return;
        };
        let waiting = pipe.from_shard.len();
        // Some read slowly, and now and then one reads nothing at all.
        let slow = index % 2 == 1 && storm;
        let turns = if client.stalled { 20 } else { 60 };
        client.stalled = storm && client.stalled != self.random.one_in(turns);
        if waiting > 0 && !client.stalled && !(slow && self.random.one_in(2)) {
            let most = if slow { waiting.min(64) } else { waiting };
            let some = self.random.within(1, most as u64) as usize;
            let bytes: Vec<u8> = pipe.from_shard.drain(..some).collect();
            client.on_bytes(bytes.into_iter());
        }
        if storm && self.random.one_in(40) {
            pipe.leave();
            client.at = None;
        }
    }

    /// The storm is over: whatever can be shown must be shown, and in bounded time.
    fn settle(&mut self) {
        if let Some(node) = self.frozen.take() {
            self.broker.thaw_node(node);
        }
        let mut busy = self.now.mono;
        for _ in 0..CALM {
            let before: usize = self.clients.iter().map(|client| client.events.len()).sum();
            self.step(false);
            let after: usize = self.clients.iter().map(|client| client.events.len()).sum();
            let connected = self.clients.iter().all(|client| client.at.is_some());
            if before != after || !connected {
                busy = self.now.mono;
            }
            if self.now.mono.since(busy) > QUIET {
                return;
            }
        }
        let stuck: Vec<_> = self
            .clients
            .iter()
            .filter(|client| client.at.is_none())
            .collect();
        let notes: Vec<_> = self.peers.iter().filter_map(|(_, p)| p.as_ref()).collect();
        let notes: Vec<_> = notes
            .iter()
            .flat_map(|peer| peer.notes.iter().rev().take(5))
            .collect();
        panic!("it does not settle; not connected: {stuck:?}; notes: {notes:?}");
    }

    /// With one seed, where everybody stands in the end.
    fn show(&mut self) {
        if std::env::var_os("SLUICEGATE_SEED").is_none() {
            return;
        }
        for (number, (_, peer)) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            peer.ask();
            for _ in 0..20 {
                peer.turn(self.now, &mut self.random, &mut self.broker);
            }
            println!("peer {number}: {:#?} {:#?}", peer.status, peer.notes);
        }
        for (number, client) in self.clients.iter().enumerate() {
            let id = EventId::parse(client.last_id.as_bytes());
            println!("client {number} at {:?} {} {id:?}", client.at, client.path);
        }
    }

    fn check(&self) {
        for (number, client) in self.clients.iter().enumerate() {
            assert_eq!(
                client.refusals, 0,
                "client {number} was refused by a ready peer"
            );
            match self.scenario {
                Scenario::Log => self.check_log(number, client),
                Scenario::Snapshot => self.check_snapshot(number, client),
            }
        }
    }

    /// Per partition: all matching records from where the client began, in order, once. What it was
    /// told to be cut off does not count, and must be shown as it is now.
    fn check_log(&self, number: usize, client: &Subscriber) {
        let begin = client.first_id.as_ref().map(|id| {
            let id = EventId::parse(id.as_bytes()).expect("an id of ours");
            id.progress.expect("it is no start over").cut
        });
        let live = client.path != "/all";
        for p in 0..self.truth.len() {
            let begin = begin.as_ref().filter(|_| live);
            let begin = begin.map(|cut| cut.get(Partition(p as u32)).offset.0);
            self.check_partition(number, client, p, begin);
        }
    }

    fn check_partition(&self, number: usize, client: &Subscriber, p: usize, begin: Option<u64>) {
        let live = client.path != "/all";
        let records = self.truth[p].iter().chain(&self.lost[p]);
        let offsets = records.filter_map(|(offset, _, value)| Some((value.as_deref()?, *offset)));
        let offsets: BTreeMap<&str, u64> = offsets.collect();
        let mut first = begin;
        let mut got: Vec<(u64, &str)> = Vec::new();
        let mut gone: Vec<std::ops::Range<u64>> = Vec::new();
        for event in &client.events {
            match event.name.as_str() {
                "" => {
                    let Some(&offset) = offsets.get(event.data.as_str()) else {
                        continue; // Of another partition.
                    };
                    let last = got.last().copied();
                    assert!(
                        last.is_none_or(|(last, _)| offset > last),
                        "client {number}: {} after {last:?} of partition {p}",
                        event.data
                    );
                    got.push((offset, &event.data));
                    // An `earliest` starts with the oldest there is.
                    first.get_or_insert(offset);
                }
                "gap" => {
                    let gap: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                    let field = |name: &str| gap[name].as_u64().expect("a number");
                    let range = field("from")..field("to");
                    match gap["reason"].as_str() {
                        _ if field("partition") != p as u64 => {}
                        Some("retention") => gone.push(range),
                        Some("truncated") if self.unclean => {
                            got.retain(|(offset, _)| *offset < range.start);
                            first = Some(first.map_or(range.start, |first| first.min(range.start)));
                        }
                        other => panic!("client {number}: an unexpected gap: {other:?}"),
                    }
                }
                other => panic!("client {number}: an unexpected {other}"),
            }
        }
        let blind = self.blind[p];
        got.retain(|(offset, _)| *offset >= blind);
        let told = |offset: u64| offset < blind || gone.iter().any(|range| range.contains(&offset));
        let nothing_left = first.is_none() && !live;
        let first = first.unwrap_or_default();
        let expected: Vec<(u64, &str)> = self.truth[p]
            .iter()
            .filter(|(offset, ..)| *offset >= first && !told(*offset))
            .filter(|(_, key, _)| client.key.as_ref().is_none_or(|wanted| wanted == key))
            .filter_map(|(offset, _, value)| Some((*offset, value.as_deref()?)))
            .collect();
        let path = &client.path;
        assert!(
            got == expected || nothing_left && got.is_empty(),
            "client {number} ({path}) of partition {p}: gone {gone:?}\n got {got:?}\nwant {expected:?}"
        );
    }

    /// The newest record of each key is where the client ended, and on one connection no key goes
    /// back.
    fn check_snapshot(&self, number: usize, client: &Subscriber) {
        let mut newest: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let mut seen: BTreeMap<String, (u32, u64)> = BTreeMap::new();
        let mut ghosts: BTreeSet<String> = BTreeSet::new();
        let mut connection = 0;
        for event in &client.events {
            if self.unclean && event.fresh && event.connection != connection {
                newest.clear(); // A client without an id that counts has nothing.
            }
            connection = event.connection;
            let (key, value) = match event.name.as_str() {
                "gap" if self.unclean && event.data.contains("truncated") => {
                    newest.clear(); // What it has may be gone; a snapshot follows.
                    seen.clear();
                    continue;
                }
                "" => {
                    let (key, value) = event.data.split_once(' ').expect("key and number");
                    (key.to_owned(), Some(value.parse().expect("a number")))
                }
                "delete" => {
                    let json: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                    (json["key"].as_str().expect("a key").to_owned(), None)
                }
                other => panic!("client {number}: an unexpected {other}: {}", event.data),
            };
            if let Some(value) = value {
                let (connection, last) = seen.entry(key.clone()).or_default();
                if *connection == event.connection {
                    assert!(value > *last, "client {number}: {key} goes back to {value}");
                }
                (*connection, *last) = (event.connection, value);
            }
            if self.is_lost_and_unheld(event, &key) {
                ghosts.insert(key.clone());
            } else {
                ghosts.remove(&key);
            }
            newest.insert(key, value);
        }
        if client.path == "/live" {
            return; // It never saw what was there before it came.
        }
        let mut truth: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for p in 0..self.partitions {
            for record in self
                .broker
                .dump(TOPIC, Partition(p))
                .expect("the partition is there")
            {
                let key = text(record.key.as_ref()).to_owned();
                let value = record.value.as_ref().map(|value| {
                    let text = text(Some(value));
                    text.split_once(' ')
                        .expect("key and number")
                        .1
                        .parse()
                        .expect("a number")
                });
                truth.insert(key, value);
            }
        }
        truth.retain(|key, value| {
            value.is_some() && client.key.as_ref().is_none_or(|wanted| wanted == key)
        });
        newest.retain(|key, value| value.is_some() && !ghosts.contains(key));
        truth.retain(|key, _| !ghosts.contains(key));
        assert_eq!(
            newest, truth,
            "client {number} ({}): newest of each key",
            client.path
        );
    }

    /// Whether a record was shown ahead of the id that came with it, as *changes* do, and an
    /// unclean election has taken it. Who was cut off then holds it, and no id says so
    /// (guarantees.md).
    fn is_lost_and_unheld(&self, event: &Event, key: &str) -> bool {
        let id = EventId::parse(event.id.as_bytes()).expect("an id of ours");
        let etag = std::str::from_utf8(id.etag).expect("text");
        let mut place = etag.rsplitn(3, '-').map(str::parse::<u64>);
        let (Some(Ok(offset)), Some(Ok(p))) = (place.next(), place.next()) else {
            panic!("an etag of a place: {etag:?}");
        };
        let cut = id.progress.map(|progress| progress.cut);
        let held = cut.map_or(0, |cut| cut.get(Partition(p as u32)).offset.0);
        let lost = self.lost[p as usize].iter();
        held <= offset && lost.filter(|it| it.0 == offset).any(|it| it.1 == key)
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

fn text(bytes: Option<&Bytes>) -> &str {
    std::str::from_utf8(bytes.expect("the world writes no null here")).expect("text")
}

fn record(offset: i64, timestamp: i64, key: Option<Bytes>, value: Option<Bytes>) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32, // The encoder makes one batch of consecutive ones only.
        timestamp,
        key,
        value,
        headers: Default::default(),
    }
}

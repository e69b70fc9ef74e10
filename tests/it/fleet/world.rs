//! The world of a scenario: one clock, one seed, one cluster of the development broker, and gateway
//! instances that crash and restart. A storm of faults is followed by a calm in which everything
//! must settle. A scenario adds the topics, the clients and the checks.

use sluicegate::broker::{Broker, NodeId, Settings};
use sluicegate::model::{Instant, Now, Partition, UnixMillis};
use sluicegate::shard::{Layout, WorkLimits};

use super::peer::Peer;
use super::random::Random;
use super::reload::Snapshots;

/// Number of steps with faults.
const STORM: u64 = 300;
/// Most steps after the faults.
const CALM: u64 = 6_000;

/// What a scenario adds to the world.
pub(super) trait Scenario {
    /// Runs before the gateways' turns of a step of the storm: faults of the topics, records of
    /// other producers.
    fn disturb(&mut self, world: &mut World);

    /// Runs after the gateways' turns of each step: clients and services act, and the checks run.
    fn act(&mut self, world: &mut World, storm: bool);

    /// A gateway process was killed, which closed its connections.
    fn on_killed(&mut self, gateway: usize, world: &mut World);

    /// Whether the scenario waits for nothing more. Called after each step of the calm.
    fn is_settled(&mut self, world: &mut World) -> bool;

    /// What the scenario still waits for, for the report of a world that does not settle.
    fn unsettled(&self) -> String;
}

/// Limits that a few small records reach, in half of the gateways.
fn work_limits(random: &mut Random) -> WorkLimits {
    let usual = WorkLimits::default();
    if random.one_in(2) {
        return usual;
    }
    WorkLimits {
        piece_bytes_max: random.within(1, 400) as usize,
        piece_records_max: random.within(1, 4) as usize,
        step_bytes_max: random.within(1, 2_000) as usize,
        page_entries_max: random.within(1, 3) as usize,
        pages_bytes_max: *random.pick(&[0, usual.pages_bytes_max]),
    }
}

/// One gateway, which runs one process at a time.
pub(super) struct Gateway {
    snapshots: Snapshots,
    /// `None` while the process is killed.
    pub(super) process: Option<Peer>,
    /// Number of processes started so far.
    pub(super) life: u32,
    /// Steps left in which the process gets no CPU.
    paused: u64,
    /// Steps left in which nothing arrives from brokers.
    stalled: u64,
}

/// The kinds of faults in a world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Connections to brokers are cut, and nodes freeze.
    pub(super) brokers: bool,
    /// Gateway processes get no CPU for a while: in one step of this many.
    pub(super) pauses: Option<u64>,
    /// What brokers send to a gateway is on its way for a while: in one step of this many.
    pub(super) stalls: Option<u64>,
}

/// State that every scenario has.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Now,
    pub(super) broker: Broker,
    pub(super) gateways: Vec<Gateway>,
    pub(super) faults: Faults,
    frozen: Option<NodeId>,
}

impl World {
    /// A cluster of one to `nodes_max` nodes, without topics and gateways.
    pub(super) fn new(seed: u64, nodes_max: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = random.within(1, nodes_max) as u16;
        let settings = Settings {
            nodes,
            ..Settings::default()
        };
        let mut broker = Broker::new(settings, seed);
        for node in 1..=nodes {
            broker.advertise(NodeId(node), "node", node);
        }
        let now = Now {
            mono: Instant::from_nanos(1),
            wall: UnixMillis(1_700_000_000_000),
        };
        Self {
            random,
            now,
            broker,
            gateways: Vec::new(),
            faults: Faults {
                brokers: true,
                pauses: None,
                stalls: None,
            },
            frozen: None,
        }
    }

    /// Adds one to three gateways of one to three shards each. `config` writes the TOML of one.
    pub(super) fn add_gateways(&mut self, config: impl Fn(&mut Random) -> String) {
        for _ in 0..self.random.within(1, 3) {
            let shards = self.random.within(1, 3) as u16;
            let kafka_shards = u16::from(shards > 1 && self.random.one_in(3));
            let layout = Layout {
                shards,
                kafka_shards,
            };
            let config = config(&mut self.random);
            let work = work_limits(&mut self.random);
            self.gateways.push(Gateway {
                snapshots: Snapshots::new(&config, layout, work),
                process: None,
                life: 0,
                paused: 0,
                stalled: 0,
            });
        }
    }

    /// Runs the storm and then the calm, until the scenario has settled.
    pub(super) fn live(&mut self, scenario: &mut impl Scenario) {
        for _ in 0..STORM {
            self.step(scenario, true);
        }
        if let Some(node) = self.frozen.take() {
            self.broker.thaw_node(node);
        }
        for gateway in &mut self.gateways {
            (gateway.paused, gateway.stalled) = (0, 0);
        }
        for _ in 0..CALM {
            self.step(scenario, false);
            if scenario.is_settled(self) {
                return;
            }
        }
        let processes = self.gateways.iter().filter_map(|it| it.process.as_ref());
        let notes: Vec<_> = processes
            .flat_map(|process| process.notes.iter().rev().take(5))
            .collect();
        panic!(
            "it does not settle: {}; notes: {notes:?}",
            scenario.unsettled()
        );
    }

    /// Some milliseconds of the world.
    fn step(&mut self, scenario: &mut impl Scenario, storm: bool) {
        let most = if storm { 8 } else { 40 };
        let millis = if self.random.one_in(20) {
            200
        } else {
            self.random.within(1, most)
        };
        self.now.mono = Instant::from_nanos(self.now.mono.as_nanos() + millis * 1_000_000);
        self.now.wall = UnixMillis(self.now.wall.0 + millis as i64);
        if storm {
            self.disturb(scenario);
            scenario.disturb(self);
        }
        for gateway in &mut self.gateways {
            if gateway.process.is_none() && (!storm || self.random.one_in(10)) {
                let seed = self.random.next() >> 8;
                gateway.process = Some(Peer::start(&gateway.snapshots.first, seed));
                gateway.life += 1;
            }
            let Some(process) = &mut gateway.process else {
                continue;
            };
            gateway.paused = gateway.paused.saturating_sub(1);
            gateway.stalled = gateway.stalled.saturating_sub(1);
            if gateway.paused > 0 {
                continue;
            }
            let stalled = gateway.stalled > 0;
            for _ in 0..3 {
                process.turn(self.now, &mut self.random, &mut self.broker);
                process.exchange(self.now, stalled, &mut self.random, &mut self.broker);
            }
            if !process.is_ready() {
                process.ask();
            }
        }
        self.broker.on_time(self.now);
        while let Some(cut) = self.broker.next_cut() {
            let processes = self.gateways.iter_mut();
            processes
                .filter_map(|it| it.process.as_mut())
                .for_each(|process| process.on_cut(cut));
        }
        while self.broker.next_writable().is_some() {}
        scenario.act(self, storm);
    }

    /// Faults of processes and nodes.
    fn disturb(&mut self, scenario: &mut impl Scenario) {
        if self.random.one_in(60) {
            let index = self.random.below(self.gateways.len() as u64) as usize;
            if let Some(process) = self.gateways[index].process.take() {
                process.kill(&mut self.broker);
                self.gateways[index].paused = 0;
                scenario.on_killed(index, self);
            }
        }
        if self.random.one_in(30) {
            let index = self.random.below(self.gateways.len() as u64) as usize;
            let Gateway {
                snapshots, process, ..
            } = &mut self.gateways[index];
            if let Some(process) = process {
                let snapshot = snapshots.any(&mut self.random);
                process.load(snapshot, snapshots.is_unsupported(snapshot));
            }
        }
        if let Some(n) = self.faults.pauses
            && self.random.one_in(n)
        {
            let index = self.random.below(self.gateways.len() as u64) as usize;
            self.gateways[index].paused = self.random.within(2, 40);
        }
        if let Some(n) = self.faults.stalls
            && self.random.one_in(n)
        {
            let index = self.random.below(self.gateways.len() as u64) as usize;
            self.gateways[index].stalled = self.random.within(4, 40);
        }
        if !self.faults.brokers {
            return;
        }
        if self.random.one_in(40) {
            let node = self.any_node();
            self.broker.cut_connections(node);
        }
        match self.frozen {
            None if self.random.one_in(120) => {
                let node = self.any_node();
                self.broker.freeze_node(node);
                self.frozen = Some(node);
            }
            Some(node) if self.random.one_in(40) => {
                self.broker.thaw_node(node);
                self.frozen = None;
            }
            _ => {}
        }
    }

    fn any_node(&mut self) -> NodeId {
        let nodes: Vec<_> = self.broker.nodes().collect();
        *self.random.pick(&nodes)
    }

    /// Makes some node the leader of a partition, without loss.
    pub(super) fn move_leader(&mut self, topic: &str, at: Partition) {
        let node = self.any_node();
        self.broker
            .move_leader(topic, at, node)
            .expect("every node runs");
    }

    /// A partition's log start, last stable offset and end.
    pub(super) fn bounds(&self, topic: &str, p: u32) -> [u64; 3] {
        let bounds = self.broker.bounds(topic, Partition(p));
        bounds.expect("the partition is there").map(|at| at.0)
    }

    /// Any gateway that is ready, if there is one.
    pub(super) fn any_ready(&mut self) -> Option<usize> {
        let ready = |(_, it): &(usize, &Gateway)| it.process.as_ref().is_some_and(Peer::is_ready);
        let ready = self.gateways.iter().enumerate().filter(ready);
        let ready: Vec<_> = ready.map(|(index, _)| index).collect();
        (!ready.is_empty()).then(|| *self.random.pick(&ready))
    }

    /// With one seed, prints the final state of every gateway.
    pub(super) fn show(&mut self) {
        if std::env::var_os("SLUICEGATE_SEED").is_none() {
            return;
        }
        for (number, gateway) in self.gateways.iter_mut().enumerate() {
            let Some(process) = &mut gateway.process else {
                continue;
            };
            process.ask();
            for _ in 0..20 {
                process.turn(self.now, &mut self.random, &mut self.broker);
            }
            let (status, notes) = (&process.status, &process.notes);
            println!("gateway {number}: {status:#?} {notes:#?}");
        }
    }
}

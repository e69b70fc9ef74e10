//! Rack-aware reads (KIP-392) on three nodes of real Kafka, each in a rack of its own.

use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::app::App;
use crate::client::PATIENCE;
use crate::cluster::Cluster;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat::Produce;

/// Records that arrive one by one while the node that they are read from dies.
const RECORDS: usize = 300;

/// A gateway that reads from node 2, a follower, and one of its streams.
struct Stage {
    cluster: Cluster,
    app: App,
    gateway: Gateway,
}

impl Stage {
    fn new() -> Self {
        let cluster = Cluster::start(3);
        let ground = Ground::replicated(&cluster.bootstrap(), 3);
        let app = App::new(&ground);
        let admin = Admin::of(&cluster.bootstrap());
        admin.wait_in_sync(&[&app.events]);
        // Other nodes lead all partitions, so a read from node 2 is a read from a follower.
        for place in admin.partitions(&app.events) {
            admin.move_leader(&app.events, place.partition, 1);
        }
        let table = format!(
            "\n[[stream]]\nroute = \"GET /events\"\ntopic = \"{}\"\nstart = \"live\"\n",
            app.events
        );
        let config = crate::gateway::settings(&cluster.bootstrap(), 1) + &table;
        let gateway = Gateway::launch_with(&config, &["--kafka-rack=rack-2"]);
        gateway.wait_serving();
        Self {
            cluster,
            app,
            gateway,
        }
    }

    fn stream(&self) -> Events {
        let mut stream = Events::open(self.gateway.address(), "/events");
        stream.wait_for_id();
        let node_2 = format!("broker=\"{}\"", self.cluster.address(2));
        let name = "sluicegate_kafka_broker_connections";
        let until = Instant::now() + PATIENCE;
        while self.gateway.metric(name, &node_2) < 1.0 {
            let said = self.gateway.said();
            assert!(Instant::now() < until, "node 2 is not read\n{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
        stream
    }
}

#[test]
fn the_own_rack_is_read_and_its_death_costs_no_event() {
    let mut stage = Stage::new();
    let mut stream = stage.stream();
    let values: Vec<String> = (0..RECORDS).map(|n| n.to_string()).collect();
    let bootstrap = stage.cluster.bootstrap();
    let (topic, written) = (stage.app.events.clone(), values.clone());
    let writer = std::thread::spawn(move || {
        for batch in written.chunks(10) {
            let batch = batch.iter().map(String::as_str);
            Produce::to(&bootstrap, &topic).partition(0).values(batch);
        }
    });
    let mut seen = Vec::new();
    while seen.len() < RECORDS {
        if seen.len() == RECORDS / 3 {
            stage.cluster.kill(2);
        }
        seen.push(stream.next().data);
    }
    writer.join().expect("the writer got through");
    assert_eq!(seen, values, "none lost, none doubled, in order");
    Produce::to(&stage.cluster.bootstrap(), &stage.app.events)
        .partition(0)
        .values(["last"]);
    assert_eq!(stream.next().data, "last");
}

/// The follower's connection stays open, but it sends nothing. The leader commits the record once
/// it has removed the silent node from the in-sync replicas (3 s). Until then no reader can get it.
#[test]
fn a_follower_that_falls_silent_is_left_for_the_leader() {
    let stage = Stage::new();
    let mut stream = stage.stream();
    let write = |value| {
        let to = Produce::to(&stage.cluster.bootstrap(), &stage.app.events);
        to.partition(0).values([value]);
    };
    write("before");
    assert_eq!(stream.next().data, "before");
    stage.cluster.freeze(2);
    write("while it is silent");
    let acknowledged = Instant::now();
    assert_eq!(stream.next().data, "while it is silent");
    // The request timeout alone would expire 10 s after the last response.
    let took = acknowledged.elapsed();
    assert!(
        took < Duration::from_secs(3),
        "{took:?} after the record was there"
    );
    stage.cluster.thaw(2);
}

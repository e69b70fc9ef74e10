//! Rack-aware reads (KIP-392) on three nodes of real Kafka, each in a rack of its own.

use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::app::App;
use crate::client::PATIENCE;
use crate::cluster::Cluster;
use crate::events::Events;
use crate::ground::Ground;
use crate::kcat::Produce;

/// Records that come one by one while the node they are read from dies.
const RECORDS: usize = 300;

#[test]
fn the_own_rack_is_read_and_its_death_costs_no_event() {
    let mut cluster = Cluster::start(3);
    let ground = Ground::replicated(&cluster.bootstrap(), 3);
    let app = App::new(&ground);
    let admin = Admin::of(&cluster.bootstrap());
    admin.wait_in_sync(&[&app.events]);
    // All leaders stand elsewhere: whoever reads from node 2 reads from a follower.
    for place in admin.partitions(&app.events) {
        admin.move_leader(&app.events, place.partition, 1);
    }
    let table = format!(
        "\n[[stream]]\nroute = \"GET /events\"\ntopic = \"{}\"\nstart = \"live\"\n",
        app.events
    );
    let config = crate::gateway::settings(&cluster.bootstrap(), 1) + &table;
    let node_2 = cluster.address(2);
    let connections = |gateway: &crate::gateway::Gateway| {
        let labels = format!("broker=\"{node_2}\"");
        gateway.metric("sluicegate_kafka_broker_connections", &labels)
    };
    let gateway = {
        let gateway = crate::gateway::Gateway::launch_with(&config, &["--kafka-rack=rack-2"]);
        gateway.wait_serving();
        gateway
    };
    let mut stream = Events::open(gateway.address(), "/events");
    stream.wait_for_id();
    let until = Instant::now() + PATIENCE;
    while connections(&gateway) < 1.0 {
        assert!(
            Instant::now() < until,
            "node 2 is not read\n{}",
            gateway.said()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let values: Vec<String> = (0..RECORDS).map(|n| n.to_string()).collect();
    let bootstrap = cluster.bootstrap();
    let (topic, written) = (app.events.clone(), values.clone());
    let writer = std::thread::spawn(move || {
        for batch in written.chunks(10) {
            let batch = batch.iter().map(String::as_str);
            Produce::to(&bootstrap, &topic).partition(0).values(batch);
        }
    });
    let mut seen = Vec::new();
    while seen.len() < RECORDS {
        if seen.len() == RECORDS / 3 {
            cluster.kill(2);
        }
        seen.push(stream.next().data);
    }
    writer.join().expect("the writer got through");
    assert_eq!(seen, values, "none lost, none doubled, in order");
    Produce::to(&cluster.bootstrap(), &app.events)
        .partition(0)
        .values(["last"]);
    assert_eq!(stream.next().data, "last");
}

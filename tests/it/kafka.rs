//! Tests on real Apache Kafka: every scenario, and behaviour that only real nodes have.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::cluster::Cluster;
use crate::events::Events;
use crate::gateway::{self, Gateway};
use crate::ground::Ground;
use crate::scenarios::starting::wait_not_ready;
use crate::service::Reply;

pub mod kfake;
mod live;
mod outage;
mod rights;
mod rskafka;
mod secure;
mod services;
mod versions;

/// Every scenario of `scenarios/` on a real Kafka.
mod real {
    crate::scenarios::on_ground!(crate::ground::real);
}

#[test]
fn a_cluster_that_is_not_there_is_named_and_waited_for() {
    let mut cluster = Cluster::prepare(1);
    let mut config = gateway::settings(&cluster.bootstrap(), 2);
    config
        .push_str("\n[[query]]\nroute = \"GET /x/{id}\"\ntopic = \"late\"\nkey = \"{path.id}\"\n");
    let gateway = Gateway::launch_with(&config, &["--kafka-metadata-age-max=1s"]);
    wait_not_ready(&gateway, &cluster.bootstrap());
    cluster.start_all();
    let ground = Ground::at(&cluster.bootstrap());
    ground.named_topic("late", 2, &[("cleanup.policy", "compact")]);
    gateway.wait_serving();
    assert_eq!(gateway.get("/x/none").status, 404);
}

#[test]
fn a_node_that_dies_and_comes_back_costs_no_event() {
    let mut cluster = Cluster::start(1);
    let ground = Ground::at(&cluster.bootstrap());
    let app = App::new(&ground);
    let gateway = app.gateway(2);
    app.produce(&app.items).keyed([("a", "1")]);
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    app.produce(&app.events).partition(0).values(["before"]);
    assert_eq!(stream.next().data, "before");
    for (round, orderly) in [(0, false), (1, true)] {
        if orderly {
            cluster.stop(1);
        } else {
            cluster.kill(1);
        }
        // Queries are answered from memory. Commands are rejected or unknown, and never wait
        // without end.
        assert_eq!(gateway.get("/items/a").text(), "1");
        let first = gateway.ask(&Request::post("/hasty/i", "{}"));
        assert!([503, 504].contains(&first.status), "{first:?}");
        // By now the brokers are known to be unavailable, so an unsent command is withdrawn and
        // rejected.
        let refused = gateway.ask(&Request::post("/hasty/i", "\"never\""));
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.problem(), "broker-unavailable");
        assert_eq!(gateway.admin_get("/livez").status, 200);
        cluster.start_node(1);
        let value = format!("after {round}");
        app.produce(&app.events)
            .partition(0)
            .values([value.as_str()]);
        assert_eq!(stream.next().data, value, "the same stream goes on");
        assert_eq!(gateway.get("/items/a").text(), "1");
    }
    let _service = app.service(|_| Some(Reply::new(200, "back")));
    assert_eq!(
        gateway.ask(&Request::post("/items/i/orders", "{}")).text(),
        "back"
    );
    let never = |record: &crate::kcat::Record| record.value.as_deref() == Some("\"never\"");
    assert!(
        !app.commands_in_log().iter().any(never),
        "what was refused is never appended"
    );
}

#[test]
fn a_frozen_node_is_left_and_found_again() {
    let cluster = Cluster::start(1);
    let ground = Ground::at(&cluster.bootstrap());
    let app = App::new(&ground);
    let config = app.config(2, "");
    let flags = ["--kafka-request-timeout=2s", "--kafka-delivery-timeout=5s"];
    let gateway = Gateway::launch_with(&config, &flags);
    gateway.wait_serving();
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    cluster.freeze(1);
    let began = Instant::now();
    let answer = gateway.ask(&Request::post("/hasty/i", "{}"));
    assert!([503, 504].contains(&answer.status), "{answer:?}");
    assert!(
        began.elapsed() < PATIENCE,
        "it was answered by its own deadline"
    );
    assert_eq!(gateway.admin_get("/livez").status, 200);
    std::thread::sleep(Duration::from_secs(3)); // Longer than the request timeout.
    cluster.thaw(1);
    app.produce(&app.events).keyed([("a", "thawed")]);
    assert_eq!(stream.next().data, "thawed");
}

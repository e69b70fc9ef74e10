//! Metrics of a broker count only that broker, and those of a partition only that partition. The
//! tests use two nodes of a development broker and apply faults to the second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use sluicegate::broker::{Failing, NodeId, Settings};
use sluicegate::demo::listener::BrokerHandle;
use sluicegate::model::Partition;

use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::{Ground, random};
use crate::service::Reply;

const SECOND: NodeId = NodeId(2);

struct Pair {
    broker: BrokerHandle,
    gateway: Gateway,
}

impl Pair {
    /// A metric of one of the two nodes.
    fn metric(&self, node: usize, name: &str, label: &str) -> f64 {
        let address = self.broker.addresses()[node - 1];
        let labels = format!("broker=\"{address}\"{label}");
        let name = format!("sluicegate_kafka_broker_{name}");
        self.gateway.metric(&name, &labels)
    }

    /// Waits until the second node's metric has increased by `by`, and returns the increase of the
    /// first node's.
    fn grows(&self, (name, label): (&str, &str), by: f64, how: impl FnOnce()) -> f64 {
        let both = || [1, 2].map(|node| self.metric(node, name, label));
        let before = both();
        how();
        let until = Instant::now() + PATIENCE;
        loop {
            let now = both();
            if now[1] >= before[1] + by {
                return now[0] - before[0];
            }
            assert!(Instant::now() < until, "{name}: {before:?}, then {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn two_nodes() -> BrokerHandle {
    let two = Settings {
        nodes: 2,
        ..Settings::default()
    };
    let broker = BrokerHandle::start(two, random(), ([127, 0, 0, 1], 0).into());
    broker.expect("free ports")
}

/// The second node leads commands and events; the first leads replies and items.
fn share(broker: &BrokerHandle, app: &App) {
    let led_by = |topic: &str, node: NodeId| {
        let topic = topic.to_owned();
        let moved = broker.with(move |broker| {
            let moved = (0..3).map(|p| broker.move_leader(&topic, Partition(p), node));
            moved.collect::<Result<Vec<_>, _>>()
        });
        moved.expect("both nodes run");
    };
    led_by(&app.commands, SECOND);
    led_by(&app.events, SECOND);
    led_by(&app.items, NodeId(1));
    led_by(&app.replies, NodeId(1));
}

/// A partition that can't be read blocks only its own topic's routes, and is reported.
#[test]
fn a_partition_that_nobody_answers_for_is_named_and_the_rest_is_served() {
    let broker = two_nodes();
    let app = App::new(&Ground::at(&broker.bootstrap()));
    app.produce(&app.items).keyed([("a", "here")]);
    share(&broker, &app);
    broker.with(|it| it.freeze_node(SECOND));
    let gateway = Gateway::launch(&app.config(2, ""));
    gateway.wait_serving();
    assert_eq!(gateway.get("/items/a").text(), "here");
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("nobody leads it"), "{ready:?}");
    broker.with(|it| it.thaw_node(SECOND));
    gateway.wait_admin("/readyz", |it| it.status == 200);
    app.produce(&app.events).keyed([("a", "1")]);
    assert_eq!(
        Events::open(gateway.address(), "/events/all").next().data,
        "1"
    );
}

#[test]
fn each_brokers_numbers_are_its_own() {
    let broker = two_nodes();
    let app = App::new(&Ground::at(&broker.bootstrap()));
    let _service = app.service(|_| Some(Reply::new(200, "done")));
    share(&broker, &app);
    let gateway = app.gateway(2);
    gateway.wait_admin("/readyz", |it| it.status == 200);
    let pair = Pair { broker, gateway };
    let command = || {
        let answer = pair.gateway.ask(&Request::post("/items/a/orders", "{}"));
        assert_eq!((answer.status, answer.text()), (200, "done"));
    };
    let produces = ("produce_seconds_count", "");
    assert_eq!(pair.grows(produces, 1.0, command), 0.0);
    // The broker rejects a request once, and it is retried.
    let refusals = ("request_failures_total", ",error=\"broker\"");
    let refused = pair.grows(refusals, 1.0, || {
        let error = ResponseError::NotEnoughReplicas;
        pair.broker
            .with(move |it| it.fail_next(Failing::Produce, error, 1));
        command();
    });
    assert_eq!(refused, 0.0);
    let failed = |topic: &str| {
        let topic = format!("topic=\"{topic}\"");
        let name = "sluicegate_kafka_partition_failures_total";
        pair.gateway.metric(name, &topic)
    };
    assert_eq!((failed(&app.commands), failed(&app.items)), (1.0, 0.0));
    // Its responses are delayed for 2 s; it may hold a fetch for half a second.
    pair.grows(("fetch_late_seconds_sum", ""), 1.0, || {
        pair.broker.with(|it| it.freeze_node(SECOND));
        std::thread::sleep(Duration::from_secs(2));
        pair.broker.with(|it| it.thaw_node(SECOND));
    });
    assert_eq!(pair.metric(1, "request_failures_total", ""), 0.0);
    // Its connections fail during fetches, and are re-established.
    let broken = pair.grows(("connections_failed_total", ""), 1.0, || {
        pair.broker.with(|it| it.cut_connections(SECOND));
    });
    assert_eq!(broken, 0.0);
    let lost = ("request_failures_total", ",error=\"connection\"");
    assert!(pair.metric(2, lost.0, lost.1) > 0.0, "fetches were lost");
    let fetches = ("fetch_seconds_count", "");
    let brought = pair.grows(fetches, 1.0, || {
        app.produce(&app.events).keyed([("a", "1")]);
    });
    assert_eq!(brought, 0.0, "the first has brought what commands led to");
    let quiet = Duration::from_millis(1);
    let throttled = pair
        .gateway
        .metric("sluicegate_kafka_throttle_seconds_total", "");
    pair.broker
        .with(move |it| it.throttle_next_produces(1, quiet.as_millis() as u32));
    command();
    let now = pair
        .gateway
        .metric("sluicegate_kafka_throttle_seconds_total", "");
    assert!(
        (now - throttled - quiet.as_secs_f64()).abs() < 1e-6,
        "{now}"
    );
}

/// Bytes are unapplied only briefly. While many arrive, a scrape sees some.
#[test]
fn bytes_in_flight_are_those_of_their_partition() {
    let address = ([127, 0, 0, 1], 0).into();
    let broker = BrokerHandle::start(Settings::default(), random(), address);
    let broker = broker.expect("a free port");
    let app = App::new(&Ground::at(&broker.bootstrap()));
    let gateway = app.gateway(4);
    let of = |partition: u32| {
        let labels = format!("topic=\"{}\",partition=\"{partition}\"", app.items);
        gateway.metric("sluicegate_kafka_partition_in_flight_bytes", &labels)
    };
    let big = "b".repeat(700_000);
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let records = keys.iter().map(|key| (key.as_str(), big.as_str()));
                app.produce(&app.items).partition(1).keyed(records);
            }
        });
        let until = Instant::now() + PATIENCE;
        let mut seen = 0.0;
        while seen == 0.0 && Instant::now() < until {
            seen = of(1);
            if of(0) + of(2) > 0.0 {
                seen = f64::NAN;
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(seen > 700_000.0, "{seen}: nothing was seen, or of others");
    });
    let get = Request::get("/items/k19");
    gateway.wait_until(&get, |it| it.text() == big);
    let until = Instant::now() + PATIENCE;
    while of(1) > 0.0 {
        assert!(Instant::now() < until, "what was applied is still counted");
    }
}

/// A catch-up read is as fast as its readers. Its pauses are counted for the partition that it
/// reads, and not as a pause of the topic.
#[test]
fn a_pass_that_waits_for_its_readers_pauses_what_it_reads() {
    let address = ([127, 0, 0, 1], 0).into();
    let broker = BrokerHandle::start(Settings::default(), random(), address);
    let broker = broker.expect("a free port");
    let app = App::new(&Ground::at(&broker.bootstrap()));
    let big = "b".repeat(700_000);
    let records = std::iter::repeat_n(("k", big.as_str()), 40);
    app.produce(&app.events).partition(1).keyed(records);
    let gateway = app.gateway(2);
    let topic = format!("topic=\"{}\"", app.events);
    let of = |partition: u32| {
        let labels = format!("{topic},partition=\"{partition}\"");
        gateway.metric("sluicegate_kafka_partition_paused_total", &labels)
    };
    assert_eq!(of(1), 0.0);
    let mut stream = Events::open(gateway.address(), "/events/all");
    for _ in 0..40 {
        assert_eq!(stream.next().data.len(), big.len());
    }
    assert!(of(1) > 0.0);
    assert_eq!(of(0) + of(2), 0.0, "no history of them is read");
    let paused = gateway.metric("sluicegate_kafka_paused_total", &topic);
    assert_eq!(paused, 0.0, "the order went on");
}

//! Metrics of brokers and partitions: each changes only for the reason that its name says.

use crate::admin::Admin;
use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat::Produce;
use crate::service::Reply;

/// Waits until a metric, summed over the samples with these labels, has the wanted value.
fn wait_metric(gateway: &Gateway, (name, labels): (&str, &str), wanted: impl Fn(f64) -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    let name = format!("sluicegate_{name}");
    loop {
        let value = gateway.metric(&name, labels);
        if wanted(value) {
            return;
        }
        assert!(
            std::time::Instant::now() < until,
            "{name}{{{labels}}} is {value}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

pub fn what_a_broker_does_is_counted_under_its_address(ground: &Ground) {
    let app = App::new(ground);
    let _service = app.service(|_| Some(Reply::new(200, "done")));
    let doomed = ground.compacted("doomed", 1);
    let mut config = app.config(2, "");
    config.push_str(&format!(
        "\n[[query]]\nroute = \"GET /doomed/{{id}}\"\ntopic = \"{doomed}\"\nkey = \"{{path.id}}\"\n"
    ));
    let gateway = Gateway::launch_with(&config, &["--kafka-metadata-age-max=1s"]);
    gateway.wait_serving();
    gateway.wait_admin("/readyz", |it| it.status == 200);
    let of = |name: &str| gateway.metric(&format!("sluicegate_kafka_broker_{name}"), "broker=");
    // There are no records yet, so the broker's responses have none.
    let late = ("kafka_broker_fetch_late_seconds_count", "broker=");
    wait_metric(&gateway, late, |it| it > 0.0);
    assert_eq!(of("fetch_seconds_count"), 0.0);
    assert_eq!(of("produce_seconds_count"), 0.0);
    assert!(of("request_seconds_count") > 0.0, "metadata was asked for");
    app.produce(&app.items).keyed([("a", "1")]);
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    assert!(of("fetch_seconds_count") > 0.0);
    let answer = gateway.ask(&Request::post("/items/a/orders", "{}"));
    assert_eq!(answer.text(), "done");
    assert!(of("produce_seconds_count") > 0.0);
    // The topic that is read is deleted, and its leader reports an error. It may also have reported
    // one for a new topic, before it knew that it was leader.
    let leader = "error=\"leader\"";
    let before = gateway.metric("sluicegate_kafka_broker_request_failures_total", leader);
    Admin::of(ground.bootstrap()).delete_topic(&doomed);
    let failures = "kafka_broker_request_failures_total";
    wait_metric(&gateway, (failures, leader), |it| it > before);
    let status = gateway.admin_get("/status").json();
    let shards = status["shards"].as_array().expect("a list of shards");
    let brokers = shards.iter().flat_map(|it| {
        let brokers = it["status"]["brokers"].as_array().expect("a list");
        brokers.clone()
    });
    let failed = brokers.map(|it| it["requests_failed"].as_u64().expect("a number"));
    assert!(failed.sum::<u64>() > 0, "{status}");
}

/// One response has more bytes than may be unapplied. The topic pauses, continues when they are
/// applied, and every record arrives.
pub fn a_topic_that_is_full_pauses_each_of_its_partitions(ground: &Ground) {
    let app = App::new(ground);
    // The largest record that a batch may have is a step of its own, and with its index it fills the
    // topic, whatever the shards have applied. Compressed, brokers accept it.
    let limit = 4 << 20;
    let big = "b".repeat(limit - 30);
    let keys = ["k1", "k2"];
    for key in keys {
        Produce::to(ground.bootstrap(), &app.items)
            .partition(1)
            .codec("zstd")
            .option("message.max.bytes=20000000")
            .keyed([(key, big.as_str())]);
    }
    let flags = [
        "--kafka-batch-bytes-max=4MiB",
        "--kafka-topic-in-flight-bytes-max=4MiB",
    ];
    let gateway = Gateway::launch_with(&app.config(2, ""), &flags);
    gateway.wait_serving();
    for key in keys {
        let get = Request::get(&format!("/items/{key}"));
        gateway.wait_until(&get, |it| it.text() == big);
    }
    let items = format!("topic=\"{}\"", app.items);
    let events = format!("topic=\"{}\"", app.events);
    let paused = |labels: &str| gateway.metric("sluicegate_kafka_partition_paused_total", labels);
    let times = gateway.metric("sluicegate_kafka_paused_total", &items);
    assert!(times > 0.0, "each record fills the topic");
    for partition in 0..3 {
        let labels = format!("{items},partition=\"{partition}\"");
        assert_eq!(paused(&labels), times, "the topic's order pauses as one");
    }
    assert_eq!(paused(&events), 0.0, "nothing came of the other topic");
    // All bytes have been applied.
    let bytes = ("kafka_partition_in_flight_bytes", items.as_str());
    wait_metric(&gateway, bytes, |it| it == 0.0);
}

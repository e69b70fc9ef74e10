//! Lasting rejections and outages of brokers are reported with their cause: a missing right, a
//! missing leader, slow replicas, another cluster. On real sockets.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use serde_json::Value;
use sluicegate::broker::{Failing, NodeId, Right, Settings};
use sluicegate::demo::listener::BrokerHandle;
use sluicegate::model::Partition;

use crate::app::App;
use crate::client::{PATIENCE, Request, Response};
use crate::gateway::{self, Gateway};
use crate::ground::{Ground, random};
use crate::rdk::{Producer, ToWrite};
use crate::service::Reply;

/// The interval at which the gateway reads rights again.
const FLAGS: &[&str] = &["--kafka-metadata-age-max=1s"];

struct Stage {
    broker: BrokerHandle,
    app: App,
}

impl Stage {
    fn new() -> Self {
        let broker = BrokerHandle::start(Settings::default(), random(), ([127, 0, 0, 1], 0).into());
        let broker = broker.expect("a free port");
        let app = App::new(&Ground::at(&broker.bootstrap()));
        Self { broker, app }
    }

    fn gateway(&self) -> Gateway {
        let gateway = Gateway::launch_with(&self.app.config(1, ""), FLAGS);
        gateway.wait_serving();
        gateway
    }

    fn deny(&self, topic: &str, right: Right, denied: bool) {
        let topic = topic.to_owned();
        self.broker.with(move |it| it.deny(&topic, right, denied));
    }

    /// From now on all Produce requests of commands fail with this error. `None` ends that.
    fn refuse(&self, error: Option<ResponseError>) {
        let topic = self.app.commands.clone();
        let count = if error.is_some() { u32::MAX } else { 0 };
        let error = error.unwrap_or(ResponseError::UnknownServerError);
        self.broker
            .with(move |it| it.fail_next_of(&topic, Failing::Produce, error, count));
    }
}

fn command(gateway: &Gateway) -> Response {
    gateway.ask(&Request::post("/items/a/orders", "{}"))
}

/// The state of a route in `/readyz`.
fn route(gateway: &Gateway, name: &str) -> String {
    let ready = gateway.admin_get("/readyz").json();
    let routes = ready["routes"].as_array().expect("a list").clone();
    let found = routes.iter().find(|it| it["route"] == name);
    let state = found.map(|it| it["state"].clone());
    state
        .and_then(|it| it.as_str().map(str::to_owned))
        .unwrap_or_else(|| panic!("no route {name} in {ready}"))
}

/// Waits until a check of `/readyz` has a state, and returns its detail.
fn wait_check(gateway: &Gateway, name: &str, state: &str) -> String {
    let find = |answer: &Response| {
        let checks = answer.json()["checks"].as_array().expect("a list").clone();
        checks.into_iter().find(|it| it["name"] == name)
    };
    let is = |check: &Value| check["state"] == state;
    let answer = gateway.wait_admin("/readyz", |answer| find(answer).as_ref().is_some_and(is));
    let check = find(&answer).expect("it was there");
    check["detail"].as_str().expect("text").to_owned()
}

/// A lasting 503: it has the cause, and a `Retry-After` of a minute.
fn assert_denied(answer: &Response, cause: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.problem(), "topic-unavailable", "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("60"), "{answer:?}");
    let text = answer.text();
    assert!(text.contains(cause), "{cause}: {text}");
    assert!(!text.contains("try again"), "{text}");
}

/// The table of error codes on real sockets: each answer, and the route's state after it.
#[test]
fn each_refusal_of_a_broker_is_answered_by_its_cause() {
    use ResponseError::*;
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let gateway = stage.gateway();
    assert_eq!(command(&gateway).status, 200);
    // Only this record is rejected: the next one is accepted, and the route stays ready.
    for (error, status, problem) in [
        (MessageTooLarge, 413, "command-too-large"),
        (RecordListTooLarge, 413, "command-too-large"),
        (InvalidTimestamp, 400, "record-refused"),
        (InvalidRecord, 400, "record-refused"),
    ] {
        stage.refuse(Some(error));
        let answer = command(&gateway);
        assert_eq!(
            (answer.status, &*answer.problem()),
            (status, problem),
            "{error}"
        );
        assert_eq!(answer.header("retry-after"), None, "{error}");
        assert_eq!(route(&gateway, "order"), "ready", "{error}");
        stage.refuse(None);
        assert_eq!(command(&gateway).status, 200, "{error}");
    }
    // The error passes by itself, and is reported while it lasts.
    for error in [NotEnoughReplicas, ThrottlingQuotaExceeded] {
        stage.refuse(Some(error));
        let answer = command(&gateway);
        assert_eq!(
            (answer.status, &*answer.problem()),
            (503, "broker-unavailable"),
            "{error}"
        );
        assert_eq!(answer.header("retry-after"), Some("2"), "{error}");
        assert_eq!(route(&gateway, "order"), "degraded", "{error}");
        stage.refuse(None);
        gateway.wait_until(&Request::post("/items/a/orders", "{}"), |it| {
            it.status == 200
        });
        assert_eq!(route(&gateway, "order"), "ready", "{error}");
    }
    // An unknown code: the outcome is unknown, and the route is degraded.
    stage.refuse(Some(UnknownServerError));
    let answer = command(&gateway);
    assert_eq!(
        (answer.status, &*answer.problem()),
        (504, "outcome-unknown")
    );
    assert_eq!(route(&gateway, "order"), "degraded");
    stage.refuse(None);
    assert_eq!(command(&gateway).status, 200);
    assert_eq!(route(&gateway, "order"), "ready");
}

/// A rejection that only an operator can end: the route is blocked, and commands are not sent.
#[test]
fn what_only_an_operator_ends_is_no_outage() {
    use ResponseError::*;
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    for error in [
        TopicAuthorizationFailed,
        ClusterAuthorizationFailed,
        PolicyViolation,
        InvalidTopicException,
        UnsupportedForMessageFormat,
    ] {
        let gateway = stage.gateway();
        assert_eq!(command(&gateway).status, 200);
        stage.refuse(Some(error));
        let before = stage.app.commands_in_log().len();
        assert_denied(&command(&gateway), "because");
        stage.refuse(None);
        // The broker would accept it now, but the next try is due in a minute.
        assert_denied(&command(&gateway), "because");
        assert_eq!(stage.app.commands_in_log().len(), before, "{error}");
        let ready = gateway.admin_get("/readyz");
        assert_eq!(ready.status, 503, "{error}");
        assert_eq!(route(&gateway, "order"), "blocked", "{error}");
        let warned = gateway.said();
        let lines = warned
            .lines()
            .filter(|it| it.contains("brokers refuse what commands write"));
        assert_eq!(lines.count(), 1, "said once: {warned}");
        assert_eq!(gateway.get("/items").status, 200, "queries go on");
        let blocked = format!("topic=\"{}\"", stage.app.commands);
        let blocked = gateway.metric("sluicegate_kafka_topic_writes_blocked", &blocked);
        assert_eq!(blocked, 1.0, "{error}");
    }
}

#[test]
fn a_missing_write_right_is_reported_at_start_and_ends_with_it() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let commands = &stage.app.commands;
    stage.deny(commands, Right::Write, true);
    let gateway = stage.gateway();
    let check = format!("commands to topic `{commands}`");
    let detail = wait_check(&gateway, &check, "blocked");
    assert!(detail.contains("WRITE"), "{detail}");
    assert_eq!(route(&gateway, "order"), "blocked");
    gateway.wait_said_text("allow the gateway's user WRITE on it");
    assert_denied(&command(&gateway), "lacks a right");
    assert_eq!(gateway.get("/items").status, 200, "queries go on");
    stage.deny(commands, Right::Write, false);
    wait_check(&gateway, &check, "ready");
    assert_eq!(command(&gateway).text(), "done");
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    // The right is removed again while the gateway runs.
    stage.deny(commands, Right::Write, true);
    wait_check(&gateway, &check, "blocked");
    assert_denied(&command(&gateway), "lacks a right");
}

/// If only commands are served, their clients must be able to receive the refusal.
#[test]
fn a_gateway_whose_only_route_is_refused_says_so() {
    let stage = Stage::new();
    let App {
        commands, replies, ..
    } = &stage.app;
    stage.deny(commands, Right::Write, true);
    let config = gateway::settings(stage.app.bootstrap(), 1)
        + &format!(
            "\n[[command]]\nname = \"order\"\nroute = \"POST /items/{{id}}/orders\"\n\
             topic = \"{commands}\"\nreplies = \"{replies}\"\nkey = \"{{path.id}}\"\n"
        );
    let gateway = Gateway::launch_with(&config, FLAGS);
    gateway.wait_serving();
    assert_denied(&command(&gateway), "lacks a right");
}

/// No client could be answered: commands are not sent, and the missing right is reported.
#[test]
fn replies_that_may_not_be_read_refuse_commands() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let replies = &stage.app.replies;
    let gateway = stage.gateway();
    let known = Request::post("/items/a/orders", "{}").header("Idempotency-Key", "known");
    assert_eq!(gateway.ask(&known).text(), "done");
    stage.deny(replies, Right::Read, true);
    let detail = wait_check(&gateway, &format!("topic `{replies}`"), "blocked");
    assert!(detail.contains("READ"), "{detail}");
    assert!(!detail.contains("do not answer"), "{detail}");
    let before = stage.app.commands_in_log().len();
    assert_denied(&command(&gateway), "lacks a right");
    assert_eq!(
        stage.app.commands_in_log().len(),
        before,
        "nothing was sent"
    );
    let again = gateway.ask(&known);
    assert_eq!(again.text(), "done", "what is known needs no broker");
    assert_eq!(route(&gateway, "order"), "blocked");
    stage.deny(replies, Right::Read, false);
    wait_check(&gateway, &format!("topic `{replies}`"), "ready");
    assert_eq!(command(&gateway).text(), "done");
    // Without DESCRIBE the topic is not even visible.
    stage.deny(replies, Right::Describe, true);
    // A fetch may be rejected before metadata has the cause.
    gateway.wait_admin("/readyz", |it| it.text().contains("DESCRIBE"));
    wait_check(&gateway, &format!("topic `{replies}`"), "blocked");
    let before = stage.app.commands_in_log().len();
    assert_denied(&command(&gateway), "lacks a right");
    assert_eq!(stage.app.commands_in_log().len(), before);
    stage.deny(replies, Right::Describe, false);
    wait_check(&gateway, &format!("topic `{replies}`"), "ready");
    // The right is missing from the start.
    stage.deny(replies, Right::Read, true);
    let gateway = stage.gateway();
    let detail = wait_check(&gateway, &format!("topic `{replies}`"), "blocked");
    assert!(detail.contains("READ"), "{detail}");
    assert_denied(&command(&gateway), "lacks a right");
}

#[test]
fn a_missing_right_to_describe_is_no_missing_topic() {
    let stage = Stage::new();
    let App {
        commands, items, ..
    } = &stage.app;
    stage.deny(commands, Right::Describe, true);
    stage.deny(items, Right::Describe, true);
    let gateway = stage.gateway();
    let detail = wait_check(&gateway, &format!("topic `{commands}`"), "blocked");
    assert!(detail.contains("DESCRIBE"), "{detail}");
    assert!(!detail.contains("create it"), "{detail}");
    assert_denied(&command(&gateway), "lacks a right");
    assert_denied(&gateway.get("/items/a"), "lacks a right");
    stage.deny(commands, Right::Describe, false);
    stage.deny(items, Right::Describe, false);
    gateway.wait_admin("/readyz", |it| it.status == 200);
    // The right is removed while the gateway runs.
    stage.deny(commands, Right::Describe, true);
    let detail = wait_check(&gateway, &format!("topic `{commands}`"), "blocked");
    assert!(detail.contains("DESCRIBE"), "{detail}");
    assert_denied(&command(&gateway), "lacks a right");
}

/// Queries are served from memory, and the missing right is reported.
#[test]
fn a_query_whose_topic_may_no_longer_be_read_is_named() {
    let stage = Stage::new();
    let items = &stage.app.items;
    stage.app.produce(items).keyed([("a", "here")]);
    let gateway = stage.gateway();
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "here");
    stage.deny(items, Right::Read, true);
    let detail = wait_check(&gateway, &format!("topic `{items}`"), "degraded");
    assert!(detail.contains("READ"), "{detail}");
    let answer = gateway.wait_until(&Request::get("/items/a"), |it| it.header("age").is_some());
    assert_eq!(answer.text(), "here");
    let detail = wait_check(&gateway, &format!("topic `{items}`"), "degraded");
    assert!(
        detail.contains("READ") && detail.contains("not confirmed"),
        "{detail}"
    );
}

/// A conflict of config and topic is reported before the first command.
#[test]
fn a_route_without_a_key_on_a_compacted_topic_is_reported_at_start() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let commands = stage.app.commands.clone();
    let configure = |policy: &'static str| {
        let commands = commands.clone();
        let configured = stage
            .broker
            .with(move |it| it.configure(&commands, "cleanup.policy", Some(policy)));
        configured.expect("a topic's key");
    };
    configure("compact");
    let config = stage.app.config(1, "")
        + &format!(
            "\n[[command]]\nname = \"loose\"\nroute = \"POST /loose\"\ntopic = \"{commands}\"\n\
             replies = \"{}\"\n",
            stage.app.replies
        );
    let gateway = Gateway::launch_with(&config, FLAGS);
    gateway.wait_serving();
    let detail = wait_check(&gateway, "command `loose`", "blocked");
    assert!(
        detail.contains("no key") && detail.contains("compacted"),
        "{detail}"
    );
    gateway.wait_said_text("commands of a route without a key are refused");
    let loose = Request::post("/loose", "{}");
    assert_denied(&gateway.ask(&loose), "no key");
    assert_eq!(route(&gateway, "loose"), "blocked");
    assert_eq!(route(&gateway, "order"), "ready", "its records have one");
    assert_eq!(command(&gateway).text(), "done");
    configure("delete");
    wait_check(&gateway, "command `loose`", "ready");
    assert_eq!(gateway.ask(&loose).text(), "done");
}

/// If the topic's config can't be read, only the broker knows its limit.
#[test]
fn a_record_that_is_too_large_where_configs_can_not_be_read_is_413() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let commands = stage.app.commands.clone();
    stage.deny(&commands, Right::DescribeConfigs, true);
    let topic = commands.clone();
    let configured = stage
        .broker
        .with(move |it| it.configure(&topic, "max.message.bytes", Some("2000")));
    configured.expect("a topic's key");
    let gateway = stage.gateway();
    let large = format!("\"{}\"", "x".repeat(5_000));
    let answer = gateway.ask(&Request::post("/items/a/orders", &large));
    assert_eq!(
        (answer.status, &*answer.problem()),
        (413, "command-too-large")
    );
    assert_eq!(command(&gateway).text(), "done");
    assert_eq!(route(&gateway, "order"), "ready");
}

/// Acknowledgements that take a second are no outage.
#[test]
fn a_slow_broker_is_not_taken_for_a_dead_one() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let gateway = stage.gateway();
    assert_eq!(command(&gateway).status, 200);
    let topic = stage.app.commands.clone();
    stage
        .broker
        .with(move |it| it.delay_produces(&topic, 1_000));
    // The second acknowledgement sets the limit. Replies arrive before it.
    let acknowledged = || gateway.metric("sluicegate_kafka_broker_produce_seconds_count", "");
    for count in [2.0, 3.0] {
        assert_eq!(command(&gateway).status, 200);
        let until = Instant::now() + PATIENCE;
        while acknowledged() < count {
            assert!(Instant::now() < until, "it is acknowledged after a second");
        }
    }
    let address = gateway.address();
    let clients = (0..8).map(|n| {
        std::thread::spawn(move || {
            let post = Request::post(&format!("/items/k{n}/orders"), "{}");
            let statuses = (0..5).map(|_| crate::client::ask(address, &post).status);
            statuses.collect::<Vec<_>>()
        })
    });
    let clients: Vec<_> = clients.collect();
    let statuses = clients
        .into_iter()
        .flat_map(|it| it.join().expect("it ends"));
    let statuses: Vec<u16> = statuses.collect();
    assert!(statuses.iter().all(|it| *it == 200), "{statuses:?}");
}

/// No record of the other cluster is shown, nothing is written to it, and both ids are reported.
#[test]
fn another_cluster_at_the_same_address_is_neither_read_nor_written() {
    let stage = Stage::new();
    let Stage { broker, app } = stage;
    let address = broker.addresses()[0];
    app.produce(&app.items).keyed([("a", "ours")]);
    let gateway = Gateway::launch_with(&app.config(1, ""), FLAGS);
    gateway.wait_serving();
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "ours");
    drop(broker);
    let theirs = Settings {
        cluster_id: "another-cluster-of-ids".into(),
        ..Settings::default()
    };
    let other = BrokerHandle::start(theirs, random(), address).expect("the port is free");
    let ground = Ground::at(&other.bootstrap());
    let make = |ground: &Ground| {
        let compact = ("cleanup.policy", "compact");
        ground.named_topic(&app.items, 3, &[compact]);
        for topic in [&app.commands, &app.replies, &app.events] {
            ground.named_topic(topic, 3, &[]);
        }
    };
    make(&ground);
    app.produce(&app.items).keyed([("a", "theirs")]);
    let detail = {
        let both = |it: &Response| {
            let text = it.text();
            text.contains(Settings::CLUSTER_ID) && text.contains("another-cluster-of-ids")
        };
        gateway.wait_admin("/readyz", both)
    };
    assert_eq!(detail.status, 200, "degraded: {detail:?}");
    let answer = gateway.wait_until(&Request::get("/items/a"), |it| it.header("age").is_some());
    assert_eq!(answer.text(), "ours");
    let asked = Instant::now();
    let refused = command(&gateway);
    assert_eq!(
        (refused.status, &*refused.problem()),
        (503, "broker-unavailable")
    );
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(gateway.get("/items/a").text(), "ours");
    assert_eq!(app.commands_in_log().len(), 0, "nothing is written to it");
    assert!(!gateway.said().contains("made again"), "{}", gateway.said());
    drop(other);
    // The old id is back. Its records were in memory only.
    let ours = BrokerHandle::start(Settings::default(), random(), address).expect("a free port");
    make(&Ground::at(&ours.bootstrap()));
    let _service = app.service(|_| Some(Reply::new(200, "done")));
    let post = Request::post("/items/a/orders", "{}");
    gateway.wait_until(&post, |it| it.text() == "done");
    gateway.wait_admin("/readyz", |it| it.text().contains("\"degraded\":false"));
}

#[test]
fn a_wrong_advertised_address_is_not_blamed_on_the_config() {
    let stage = Stage::new();
    stage
        .broker
        .with(|it| it.advertise(NodeId(1), "127.0.0.1", 1));
    let gateway = Gateway::launch_with(&stage.app.config(1, ""), FLAGS);
    let ready = gateway.wait_admin("/readyz", |it| it.text().contains("advertised.listeners"));
    assert!(
        !ready.text().contains("correct kafka.bootstrap"),
        "{ready:?}"
    );
    gateway.wait_said_text("advertised.listeners");
    assert!(!gateway.said().contains("correct kafka.bootstrap"));
    let address = stage.broker.addresses()[0];
    stage
        .broker
        .with(move |it| it.advertise(NodeId(1), "127.0.0.1", address.port()));
    gateway.wait_serving();
}

#[test]
fn a_commands_partition_without_a_leader_is_reported() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let gateway = stage.gateway();
    assert_eq!(command(&gateway).status, 200);
    let commands = stage.app.commands.clone();
    let check = format!("commands to topic `{commands}`");
    for partition in 0..3 {
        let topic = commands.clone();
        let deposed = stage
            .broker
            .with(move |it| it.depose_leader(&topic, Partition(partition)));
        deposed.expect("it is there");
    }
    let detail = wait_check(&gateway, &check, "degraded");
    assert!(detail.contains("no leader"), "{detail}");
    assert_eq!(route(&gateway, "order"), "degraded");
    let labels = format!("topic=\"{commands}\"");
    let leaderless = || gateway.metric("sluicegate_kafka_topic_leaderless_partitions", &labels);
    assert!(leaderless() > 0.0);
    assert_eq!(command(&gateway).problem(), "broker-unavailable");
    gateway.wait_said_text("no leader");
    for partition in 0..3 {
        let topic = commands.clone();
        let moved = stage
            .broker
            .with(move |it| it.move_leader(&topic, Partition(partition), NodeId(1)));
        moved.expect("it runs");
    }
    wait_check(&gateway, &check, "ready");
    assert_eq!(leaderless(), 0.0);
    assert_eq!(command(&gateway).text(), "done");
}

/// The key's newest value can't be shown yet, so the shown value carries its age.
#[test]
fn what_an_open_transaction_holds_back_has_an_age_and_is_reported() {
    let stage = Stage::new();
    let App { items, replies, .. } = &stage.app;
    let open = |topic: &str| {
        let id = format!("transactional.id={}", crate::ground::unique("open"));
        let settings = [id.as_str(), "transaction.timeout.ms=60000"];
        let mut producer = Producer::start(stage.app.bootstrap(), topic, &settings);
        producer.begin();
        for partition in 0..3 {
            let written = producer.write(&ToWrite {
                partition: Some(partition),
                key: Some(b"held"),
                value: Some(b"back"),
                ..ToWrite::default()
            });
            producer.wait(written).expect("it is in the log");
        }
        producer
    };
    stage.app.produce(items).keyed([("a", "old")]);
    let gateway = stage.gateway();
    let get = Request::get("/items/a");
    gateway.wait_until(&get, |it| it.text() == "old");
    assert_eq!(gateway.get("/items/a").header("age"), None);
    let mut hangs = open(items);
    stage.app.produce(items).keyed([("a", "new")]);
    let answer = gateway.wait_until(&get, |it| it.header("age").is_some());
    assert_eq!(answer.text(), "old");
    let detail = wait_check(&gateway, &format!("topic `{items}`"), "degraded");
    assert!(detail.contains("transaction"), "{detail}");
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    hangs.commit();
    let answer = gateway.wait_until(&get, |it| it.text() == "new");
    drop(answer);
    gateway.wait_until(&get, |it| it.header("age").is_none());
    // The transaction holds back replies, too.
    let mut hangs = open(replies);
    let detail = wait_check(&gateway, &format!("topic `{replies}`"), "degraded");
    assert!(detail.contains("transaction"), "{detail}");
    let labels = format!("topic=\"{replies}\"");
    let held = gateway.metric("sluicegate_kafka_topic_unstable_records", &labels);
    assert!(held >= 3.0, "{held}");
    hangs.abort();
    wait_check(&gateway, &format!("topic `{replies}`"), "ready");
    let until = Instant::now() + PATIENCE;
    while gateway.metric("sluicegate_kafka_topic_unstable_records", &labels) > 0.0 {
        assert!(Instant::now() < until, "it is over");
    }
}

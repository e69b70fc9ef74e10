//! Two clusters with different security: `[kafka]` is a development broker without any, the other
//! is real Kafka behind TLS and a password.

use std::time::{Duration, Instant};

use sluicegate::broker::Settings;
use sluicegate::demo::listener::BrokerHandle;

use super::{at, cluster};
use crate::client::Request;
use crate::cluster::security::{Listener, PASSWORD, USER, token};
use crate::events::Events;
use crate::gateway::{self, Gateway};
use crate::ground::{Ground, random};
use crate::kcat::{self, Produce};
use crate::service::{Reply, Service};

/// A broker with the topics of commands, and the secured cluster with the topics that are read.
struct Pair {
    central: BrokerHandle,
    items: String,
    events: String,
}

impl Pair {
    fn new() -> Self {
        let address = ([127, 0, 0, 1], 0).into();
        let central = BrokerHandle::start(Settings::default(), random(), address);
        let central = central.expect("a free port");
        let ground = Ground::at(&central.bootstrap());
        for name in ["commands", "replies"] {
            ground.named_topic(name, 2, &[]);
        }
        ground.named_topic("items", 2, &[("cleanup.policy", "compact")]);
        let edge = Ground::at(&cluster().bootstrap());
        let (items, events) = (edge.compacted("items", 2), edge.topic("events", 2, &[]));
        Self {
            central,
            items,
            events,
        }
    }

    /// Commands go to the first, queries and a stream read the second.
    fn config(&self, listener: Listener, tables: &str) -> String {
        let (edge, items, events) = (at(listener), &self.items, &self.events);
        gateway::settings(&self.central.bootstrap(), 2)
            + &format!(
                "[[cluster]]\nname = \"edge\"\nbootstrap = [\"{edge}\"]\n{tables}\
                 [[command]]\nname = \"pay\"\nroute = \"POST /items/{{id}}\"\n\
                 topic = \"commands\"\nreplies = \"replies\"\nkey = \"{{path.id}}\"\n\
                 [[query]]\nname = \"here\"\nroute = \"GET /here/{{id}}\"\n\
                 topic = \"items\"\nkey = \"{{path.id}}\"\n\
                 [[query]]\nname = \"there\"\nroute = \"GET /there/{{id}}\"\n\
                 cluster = \"edge\"\ntopic = \"{items}\"\nkey = \"{{path.id}}\"\n\
                 [[stream]]\nname = \"events\"\nroute = \"GET /events\"\n\
                 cluster = \"edge\"\ntopic = \"{events}\"\nstart = \"earliest\"\n"
            )
    }

    fn service(&self) -> Service {
        Service::start(&self.central.bootstrap(), "commands", "replies", |_| {
            Some(Reply::new(200, "paid"))
        })
    }

    /// Checks a command and a query of the first cluster.
    fn first_works(&self, gateway: &Gateway) {
        Produce::to(&self.central.bootstrap(), "items").keyed([("a", "central")]);
        gateway.wait_until(&Request::get("/here/a"), |it| it.text() == "central");
        let answer = gateway.ask(&Request::post("/items/a", "{}"));
        assert_eq!((answer.status, answer.text()), (200, "paid"));
        assert_eq!(kcat::read(&self.central.bootstrap(), "commands").len(), 1);
    }

    /// Checks a query and the stream of the second cluster.
    fn second_works(&self, gateway: &Gateway) {
        Produce::to(&cluster().bootstrap(), &self.items).keyed([("a", "edge")]);
        Produce::to(&cluster().bootstrap(), &self.events).values(["seen"]);
        gateway.wait_until(&Request::get("/there/a"), |it| it.text() == "edge");
        // Topics become live one by one. A stream of a topic that is not live yet is closed with
        // `retry:`.
        gateway.wait_admin("/readyz", |it| it.status == 200);
        let event = Events::open(gateway.address(), "/events").next();
        assert_eq!(event.data, "seen");
    }
}

fn sasl(password: &str) -> String {
    format!(
        "[cluster.sasl]\nmechanism = \"scram-sha-512\"\nusername = \"{USER}\"\n\
         password = \"{password}\"\n"
    )
}

fn tls(ca: &str) -> String {
    let ca = cluster().certificates().path(ca);
    format!("[cluster.tls]\nenabled = true\nca = \"{}\"\n", ca.display())
}

/// Waits until `/readyz` and the log name the second cluster with all of `words`.
fn is_named(gateway: &Gateway, words: &[&str]) {
    let has_all = |text: &str| words.iter().all(|word| text.contains(word));
    let ready = gateway.wait_admin("/readyz", |it| has_all(it.text()));
    assert_eq!(ready.status, 503, "{ready:?}");
    let until = Instant::now() + super::NAMED_WITHIN;
    while !has_all(&gateway.said()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(has_all(&gateway.said()), "{words:?}: {}", gateway.said());
}

fn is_ready(gateway: &Gateway, route: &str) -> bool {
    let said = gateway.admin_get("/readyz").json();
    let routes = said["routes"].as_array().expect("a list");
    let found = routes.iter().find(|it| it["route"] == route);
    found.expect("every route")["ready"] == true
}

#[test]
fn one_in_the_clear_and_one_by_tls_and_scram() {
    let pair = Pair::new();
    let tables = tls("ca.pem") + &sasl(PASSWORD);
    let gateway = Gateway::start(&pair.config(Listener::SaslTls, &tables));
    let _service = pair.service();
    pair.first_works(&gateway);
    pair.second_works(&gateway);
    assert_eq!(super::failed(&gateway), 0.0);
}

#[test]
fn a_wrong_password_for_the_second_leaves_the_first() {
    let pair = Pair::new();
    let tables = tls("ca.pem") + &sasl("wrong");
    let gateway = Gateway::start(&pair.config(Listener::SaslTls, &tables));
    let _service = pair.service();
    pair.first_works(&gateway);
    let key = "cluster.sasl.username and password of cluster `edge`";
    is_named(&gateway, &["SCRAM-SHA-512", &at(Listener::SaslTls), key]);
    assert!(is_ready(&gateway, "pay") && is_ready(&gateway, "here"));
    assert!(!is_ready(&gateway, "there") && !is_ready(&gateway, "events"));
    assert_eq!(gateway.get("/there/a").status, 503);
    assert!(!gateway.said().contains("kafka.sasl"), "{}", gateway.said());
}

/// The first cluster has a user and a password. The second one asks for credentials and receives
/// none of them.
#[test]
fn what_kafka_says_is_not_shown_to_the_second() {
    let pair = Pair::new();
    let edge = format!("bootstrap = [\"{}\"]", at(Listener::Sasl));
    let config = pair.config(Listener::Sasl, "");
    let config = config.replacen("[log]", &(super::sasl("plain", PASSWORD) + "[log]"), 1);
    assert!(config.contains(&edge) && config.contains("[kafka.sasl]"));
    let gateway = Gateway::launch(&config);
    // SASL is used only where it is configured, and the development broker does not support it.
    let words = ["SaslHandshake", "cluster.sasl of cluster `edge`"];
    is_named(&gateway, &words);
    assert!(!gateway.said().contains("PLAIN"), "{}", gateway.said());
}

#[test]
fn a_token_reaches_the_cluster_it_is_of() {
    let pair = Pair::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let tables = format!(
        "[cluster.sasl]\nmechanism = \"oauthbearer\"\ntoken_file = \"{}\"\n",
        path.display()
    );
    let gateway = Gateway::start(&pair.config(Listener::Sasl, &tables));
    let _service = pair.service();
    pair.first_works(&gateway);
    let key = "cluster.sasl.token_file of cluster `edge`";
    is_named(
        &gateway,
        &["no token for the brokers of cluster `edge`", key],
    );
    // A cause is reported once, and dependent checks refer to it.
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.text().matches("no token").count(), 1, "{ready:?}");
    gateway.wait_said_text("serving without");
    let said = gateway.said();
    let line = said.lines().find(|it| it.contains("serving without"));
    let line = line.expect("waited for above");
    assert_eq!(line.matches("no token").count(), 1, "{line}");
    let (items, events) = (&pair.items, &pair.events);
    for text in [ready.text(), line] {
        assert!(text.contains("waiting for cluster `edge`"), "{text}");
        assert!(text.contains(items) && text.contains(events), "{text}");
    }
    std::fs::write(&path, token(600)).expect("write");
    pair.second_works(&gateway);
}

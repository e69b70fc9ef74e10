//! Routes over two clusters: commands go to one, and queries and streams read the other. If one is
//! unavailable, routes of the other are not affected. Two development brokers in this process.

use sluicegate::broker::Settings;
use sluicegate::demo::listener::BrokerHandle;

use crate::client::{PATIENCE, Request};
use crate::events::Events;
use crate::gateway::{self, Gateway, config_file, run_to_end};
use crate::ground::{Ground, random};
use crate::kcat::{self, Produce};
use crate::service::{Reply, Service};

fn broker() -> BrokerHandle {
    let started = BrokerHandle::start(Settings::default(), random(), ([127, 0, 0, 1], 0).into());
    started.expect("a free port")
}

/// Commands go to the first cluster; queries and streams read the second. The topic names are the
/// same.
fn config(central: &str, edge: &str, more: &str) -> String {
    let mut config = gateway::settings(central, 2);
    config.push_str(&format!(
        "[[cluster]]\nname = \"edge\"\nbootstrap = [\"{edge}\"]\n{more}\n\
         [[command]]\nname = \"pay\"\nroute = \"POST /items/{{id}}\"\ntopic = \"commands\"\n\
         replies = \"replies\"\nkey = \"{{path.id}}\"\ntimeout = \"5s\"\n\
         [[query]]\nname = \"here\"\nroute = \"GET /here/{{id}}\"\ntopic = \"items\"\nkey = \"{{path.id}}\"\n\
         [[query]]\nname = \"there\"\nroute = \"GET /there/{{id}}\"\ncluster = \"edge\"\n\
         topic = \"items\"\nkey = \"{{path.id}}\"\n\
         [[stream]]\nname = \"events\"\nroute = \"GET /events\"\ncluster = \"edge\"\n\
         topic = \"events\"\nstart = \"earliest\"\n"
    ));
    config
}

fn topics(bootstrap: &str) {
    let ground = Ground::at(bootstrap);
    for name in ["commands", "replies", "events"] {
        ground.named_topic(name, 2, &[]);
    }
    ground.named_topic("items", 2, &[("cleanup.policy", "compact")]);
}

#[test]
fn commands_go_to_one_cluster_and_reads_come_from_the_other() {
    let (central, edge) = (broker(), broker());
    let (central, edge) = (central.bootstrap(), edge.bootstrap());
    topics(&central);
    topics(&edge);
    let _service = Service::start(&central, "commands", "replies", |_| {
        Some(Reply::new(200, "paid"))
    });
    let gateway = Gateway::start(&config(&central, &edge, ""));
    Produce::to(&central, "items").keyed([("a", "central")]);
    Produce::to(&edge, "items").keyed([("a", "edge")]);
    Produce::to(&central, "events").values(["central"]);
    Produce::to(&edge, "events").values(["edge"]);
    gateway.wait_until(&Request::get("/here/a"), |it| it.text() == "central");
    gateway.wait_until(&Request::get("/there/a"), |it| it.text() == "edge");
    assert_eq!(
        Events::open(gateway.address(), "/events").next().data,
        "edge"
    );
    let answer = gateway.ask(&Request::post("/items/a", "{}"));
    assert_eq!((answer.status, answer.text()), (200, "paid"));
    assert_eq!(kcat::read(&central, "commands").len(), 1);
    assert_eq!(kcat::read(&edge, "commands").len(), 0);
    // Names of everything that is not of [kafka] include the cluster.
    let page = gateway.admin_get("/metrics");
    for label in ["topic=\"items\"", "topic=\"edge/items\""] {
        assert!(page.text().contains(label), "{label}");
    }
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 200);
    for name in [
        "topic `items`\"",
        "topic `items` of cluster `edge`",
        "cluster `edge`",
    ] {
        assert!(ready.text().contains(name), "{name}: {}", ready.text());
    }
}

#[test]
fn a_cluster_that_is_away_leaves_the_routes_of_the_other() {
    let central = broker();
    topics(&central.bootstrap());
    let edge_at = {
        let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        probe.local_addr().expect("it is bound")
    };
    let central = central.bootstrap();
    let _service = Service::start(&central, "commands", "replies", |_| {
        Some(Reply::new(200, "paid"))
    });
    // The second cluster is unavailable from the start.
    let gateway = Gateway::start(&config(&central, &edge_at.to_string(), ""));
    Produce::to(&central, "items").keyed([("a", "central")]);
    gateway.wait_until(&Request::get("/here/a"), |it| it.text() == "central");
    assert_eq!(gateway.ask(&Request::post("/items/a", "{}")).text(), "paid");
    assert_eq!(gateway.get("/there/a").status, 503);
    // A browser's `EventSource` gives up after any status but 200.
    let mut sent_away = Events::open(gateway.address(), "/events");
    assert_eq!(sent_away.next_within(PATIENCE), None);
    assert!(sent_away.ended() && sent_away.retry().is_some());
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 503, "{ready:?}");
    let said = ready.json();
    let state = |route: &str| {
        let routes = said["routes"].as_array().expect("a list");
        let found = routes.iter().find(|it| it["route"] == route);
        found.expect("every route")["ready"].clone()
    };
    assert_eq!((state("pay"), state("here")), (true.into(), true.into()));
    assert_eq!(
        (state("there"), state("events")),
        (false.into(), false.into())
    );
    // The cluster becomes available later, and its routes work without a restart.
    let edge = BrokerHandle::start(Settings::default(), random(), edge_at).expect("its port");
    topics(&edge.bootstrap());
    Produce::to(&edge.bootstrap(), "items").keyed([("a", "edge")]);
    gateway.wait_until(&Request::get("/there/a"), |it| it.text() == "edge");
    gateway.wait_admin("/readyz", |answer| answer.status == 200);
    // The cluster becomes unavailable again, and its records that were read are still served.
    drop(edge);
    assert_eq!(gateway.get("/there/a").text(), "edge");
    assert_eq!(gateway.ask(&Request::post("/items/a", "{}")).text(), "paid");
    gateway.wait_admin("/readyz", |answer| {
        answer.status == 200 && answer.text().contains("\"degraded\":true")
    });
    gateway.wait_until(&Request::get("/there/a"), |it| it.header("age").is_some());
    assert!(gateway.get("/here/a").header("age").is_none());
}

/// Two clusters with the same `log_id`: a copy and its origin. An id of one is valid at the other.
#[test]
fn an_id_is_valid_on_the_copy_of_a_log() {
    let (origin, copy) = (broker(), broker());
    let (origin, copy) = (origin.bootstrap(), copy.bootstrap());
    for bootstrap in [&origin, &copy] {
        topics(bootstrap);
        let events = || Produce::to(bootstrap, "events").partition(0);
        events().values(["one", "two", "three"]);
    }
    let log_id = "log_id = \"payments-2026\"";
    let first = Gateway::start(&config(&origin, &origin, log_id));
    let second = Gateway::start(&config(&copy, &copy, log_id));
    let mut stream = Events::open(first.address(), "/events");
    assert_eq!(
        (stream.next().data, stream.next().data),
        ("one".into(), "two".into())
    );
    let id = stream.last_event_id().to_owned();
    let mut stream = Events::resume(second.address(), "/events", &id);
    let event = stream.next();
    assert_eq!(
        (event.name.as_str(), event.data.as_str()),
        ("message", "three")
    );
    // Without the `log_id` it is another log, which the gateway reports.
    let third = Gateway::start(&config(&copy, &copy, ""));
    assert_eq!(
        Events::resume(third.address(), "/events", &id).next().name,
        "gap"
    );
}

#[test]
fn a_cluster_nobody_declared_is_refused_with_what_was_meant() {
    let config = config("127.0.0.1:1", "127.0.0.1:2", "")
        .replace("cluster = \"edge\"", "cluster = \"egde\"");
    let (_folder, path) = config_file(&config);
    let (code, _, said) = run_to_end(&["run", "--config", path.to_str().expect("UTF-8")], &[]);
    assert_eq!(code, 78, "{said}");
    for part in ["there is no cluster `egde`", "did you mean `edge`?"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_bare_run_says_what_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let bare = folder.path().join("bare.toml");
    std::fs::write(&bare, "shards = 1\n").expect("write it");
    let arguments = ["run", "--config", bare.to_str().expect("UTF-8")];
    for arguments in [&arguments[..1], &arguments[..]] {
        let (code, _, said) = run_to_end(arguments, &[]);
        assert_eq!(code, 78, "{said}");
        for part in ["nothing to serve", "[[query]]", "sluicegate demo"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

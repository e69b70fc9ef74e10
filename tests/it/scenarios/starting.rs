//! Starts that cannot succeed yet, orderly ends, and what operators see meanwhile.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request};
use crate::events::Events;
use crate::gateway::{self, Gateway};
use crate::ground::{Ground, unique};
use crate::kcat::Produce;
use crate::metrics_page;
use crate::service::Reply;

/// Time in which an operator must be informed (R9).
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Waits until `/readyz` has this text, and checks that it is not ready.
pub fn wait_not_ready(gateway: &Gateway, says: &str) {
    let until = Instant::now() + TOLD_WITHIN;
    loop {
        let answer = gateway.admin_get("/readyz");
        assert_eq!(answer.status, 503, "{answer:?}");
        if answer.text().contains(says) {
            return;
        }
        assert!(
            Instant::now() < until,
            "/readyz does not name {says}: {}",
            answer.text()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn a_missing_topic_is_named_until_it_is_there(ground: &Ground) {
    let missing = unique("missing");
    let mut config = gateway::settings(ground.bootstrap(), 2);
    config.push_str(&format!(
        "\n[[query]]\nroute = \"GET /x/{{id}}\"\ntopic = \"{missing}\"\nkey = \"{{path.id}}\"\n"
    ));
    let gateway = Gateway::launch_with(&config, &["--kafka-metadata-age-max=1s"]);
    wait_not_ready(&gateway, &missing);
    assert_eq!(
        gateway.admin_get("/livez").status,
        200,
        "it lives, and waits"
    );
    gateway.wait_said_text(&missing);
    ground.named_topic(&missing, 2, &[("cleanup.policy", "compact")]);
    gateway.wait_serving();
    assert_eq!(gateway.get("/x/none").status, 404);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
}

pub fn a_topic_that_is_not_compacted_is_named(ground: &Ground) {
    let topic = ground.topic("not-compacted", 1, &[]);
    let mut config = gateway::settings(ground.bootstrap(), 1);
    config.push_str(&format!(
        "\n[[stream]]\nroute = \"GET /x\"\ntopic = \"{topic}\"\nstart = \"snapshot\"\n"
    ));
    let gateway = Gateway::launch_with(&config, &["--kafka-metadata-age-max=1s"]);
    wait_not_ready(&gateway, "cleanup.policy");
    wait_not_ready(&gateway, &topic);
    gateway.wait_said_text("cleanup.policy");
    ground.alter(&topic, "cleanup.policy", "compact");
    gateway.wait_serving();
    Produce::to(ground.bootstrap(), &topic).keyed([("a", "1")]);
    let mut stream = Events::open(gateway.address(), "/x");
    assert_eq!(
        stream.next().data,
        "1",
        "it is a snapshot, or what came after"
    );
}

pub fn an_unfit_topic_keeps_its_own_routes_only(ground: &Ground) {
    let (missing, plain) = (unique("missing"), ground.topic("plain", 1, &[]));
    let items = ground.compacted("items", 2);
    let mut config = gateway::settings(ground.bootstrap(), 2);
    config.push_str(&format!(
        "\n[[query]]\nname = \"good\"\nroute = \"GET /good/{{id}}\"\ntopic = \"{items}\"\n\
         key = \"{{path.id}}\"\n\
         [[query]]\nname = \"plain\"\nroute = \"GET /plain/{{id}}\"\ntopic = \"{plain}\"\n\
         key = \"{{path.id}}\"\n\
         [[query]]\nname = \"gone\"\nroute = \"GET /gone/{{id}}\"\ntopic = \"{missing}\"\n\
         key = \"{{path.id}}\"\n\
         [[command]]\nname = \"lost\"\nroute = \"POST /lost\"\ntopic = \"{missing}-c\"\n\
         replies = \"{items}\"\n"
    ));
    let gateway = Gateway::launch(&config);
    wait_not_ready(&gateway, &missing);
    gateway.wait_serving();
    assert_eq!(
        gateway.get("/good/none").status,
        404,
        "the others are served"
    );
    assert_eq!(gateway.get("/plain/none").status, 404);
    for request in [Request::get("/gone/x"), Request::post("/lost", "{}")] {
        let answer = gateway.ask(&request);
        let told = (answer.status, answer.problem());
        assert_eq!(told, (503, "topic-unavailable".into()), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    // A topic that works but could work better is reported once in the log, and in `/readyz` while
    // it lasts.
    gateway.wait_said_text("it is not compacted");
    gateway.wait_said_text("so a newer reply hides an older one");
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 503);
    let routes = ready.json()["routes"].clone();
    let not_ready = |it: &&serde_json::Value| it["ready"] == false;
    let routes = routes.as_array().expect("a list").iter();
    let names: Vec<_> = routes
        .filter(not_ready)
        .map(|it| it["route"].clone())
        .collect();
    assert_eq!(names, ["lost", "gone"], "{}", ready.text());
    ground.named_topic(&missing, 1, &[("cleanup.policy", "compact")]);
    ground.named_topic(&format!("{missing}-c"), 1, &[]);
    gateway.wait_until(&Request::get("/gone/x"), |it| it.status == 404);
    gateway.wait_admin("/readyz", |answer| answer.status == 200);
}

/// A policy that works but may not be intended is reported in the log and listed in `/readyz`,
/// which stays 200, until the topic is corrected.
pub fn a_policy_that_may_not_be_meant_is_named_until_it_is_changed(ground: &Ground) {
    let app = App::new(ground);
    let plain = ground.topic("plain", 1, &[]);
    let compacted = ground.compacted("replies", 1);
    let config = app.config(1, "").replace(&app.replies, &compacted);
    let config = config
        + &format!(
            "\n[[query]]\nname = \"plain\"\nroute = \"GET /plain/{{id}}\"\ntopic = \"{plain}\"\n\
             key = \"{{path.id}}\"\n"
        );
    let launched = Instant::now();
    let gateway = Gateway::launch_with(&config, &["--kafka-metadata-age-max=1s"]);
    let details = |gateway: &Gateway| -> Vec<(String, String)> {
        let ready = gateway.admin_get("/readyz");
        let checks = ready.json()["checks"].clone();
        let checks = checks.as_array().expect("a list").iter();
        let text = |it: &serde_json::Value| it.as_str().expect("a text").to_owned();
        checks
            .map(|it| (text(&it["name"]), text(&it["detail"])))
            .collect()
    };
    let advice = [
        (&plain, "it is not compacted, so queries forget"),
        (&compacted, "it is compacted, so a newer reply hides"),
    ];
    let has = |details: &[(String, String)], (topic, text): (&String, &str)| {
        let mut checks = details.iter();
        checks.any(|(name, detail)| name.contains(topic.as_str()) && detail.contains(text))
    };
    while !advice.iter().all(|it| has(&details(&gateway), *it)) {
        assert!(launched.elapsed() < 2 * TOLD_WITHIN, "{}", gateway.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway.wait_serving();
    assert_eq!(gateway.admin_get("/readyz").status, 200, "it works");
    let said = gateway.said();
    for (topic, text) in advice {
        let told = |line: &&str| line.contains(topic.as_str()) && line.contains(text);
        let told: Vec<_> = said.lines().filter(told).collect();
        assert!(
            matches!(told[..], [line] if line.contains("WARN")),
            "{said}"
        );
    }
    ground.alter(&plain, "cleanup.policy", "compact");
    ground.alter(&compacted, "cleanup.policy", "delete");
    let until = Instant::now() + PATIENCE;
    while advice.iter().any(|it| has(&details(&gateway), *it)) {
        assert!(Instant::now() < until, "{:?}", details(&gateway));
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway.wait_admin("/readyz", |it| it.status == 200);
    Produce::to(ground.bootstrap(), &plain).keyed([("a", "1")]);
    gateway.wait_until(&Request::get("/plain/a"), |it| it.text() == "1");
}

pub fn a_host_that_does_not_resolve_is_named(_ground: &Ground) {
    let mut config = gateway::settings("nowhere.invalid:9092", 1);
    config.push_str("\n[[query]]\nroute = \"GET /x/{id}\"\ntopic = \"t\"\nkey = \"{path.id}\"\n");
    let gateway = Gateway::launch(&config);
    wait_not_ready(&gateway, "nowhere.invalid:9092: its name does not resolve");
    gateway.wait_said_text("correct kafka.bootstrap, or the name server");
    let ready = gateway.admin_get("/readyz");
    let text = ready.text();
    assert_eq!(text.matches("does not resolve").count(), 1, "{text}");
    assert!(text.contains("\"detail\":\"waiting for kafka\""), "{text}");
    assert_eq!(gateway.admin_get("/livez").status, 200);
}

pub fn sigterm_answers_what_is_in_flight(ground: &Ground) {
    let app = App::new(ground);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "answered"))
    });
    let mut gateway = Gateway::launch_with(&app.config(2, ""), &["--drain=10s"]);
    gateway.wait_serving();
    let address = gateway.address();
    let mut idle = Connection::open(address);
    assert_eq!(idle.ask(&Request::get("/items/none")).status, 404);
    let mut stream = Events::open(address, "/events/live");
    stream.wait_for_id();
    let client = std::thread::spawn(move || {
        Connection::open(address).ask(&Request::post("/items/i/orders", "{}"))
    });
    gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 1);
    gateway.terminate();
    gateway.wait_admin("/readyz", |answer| answer.status == 503);
    release.send(()).expect("the service waits for it");
    let answer = client.join().expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "answered"));
    idle.expect_close();
    while stream.next_within(Duration::from_secs(30)).is_some() {}
    assert!(stream.ended(), "streams end too");
    assert!(stream.retry().is_some());
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
}

pub fn the_metrics_page_is_well_formed(ground: &Ground) {
    let app = App::new(ground);
    let _service = app.service(|_| Some(Reply::new(200, "{}")));
    let gateway = app.gateway(2);
    gateway.get("/items/none");
    gateway.ask(&Request::post("/items/i/orders", "{}"));
    let mut stream = Events::open(gateway.address(), "/events/live");
    stream.wait_for_id();
    let page = gateway.admin_get("/metrics");
    let kind = page.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let families = metrics_page::check(page.text());
    // The admin port serves exactly the metrics that docs/metrics.md lists.
    let documented = include_str!("../../../docs/metrics.md");
    for line in documented
        .lines()
        .filter(|line| line.starts_with("| `sluicegate_"))
    {
        let name = line.split('`').nth(1).expect("a name in backticks");
        assert!(
            families.contains(name),
            "{name} is documented, and not served"
        );
    }
    for name in &families {
        assert!(
            documented.contains(&format!("`{name}`")),
            "{name} is served, not documented"
        );
    }
    // Another host name is rejected: DNS rebinding must not open the admin port.
    let mut connection = Connection::open(gateway.admin());
    connection.send(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!((400..500).contains(&connection.response(false).status));
}

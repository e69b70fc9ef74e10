//! `topics` and `check --live`: what a cluster has, what it lacks, and what this user may not do.

use std::net::TcpListener;

use serde_json::Value;
use sluicegate::broker::{Right, Settings};
use sluicegate::demo::listener::BrokerHandle;

use crate::gateway::{config_file, run_to_end, settings};
use crate::ground::random;
use crate::kcat::{self, Produce};

const ROUTES: &str = r#"
[[command]]
name = "pay"
route = "POST /payments"
topic = "commands"
replies = "replies"
[[query]]
route = "GET /accounts/{id}"
topic = "accounts"
key = "{path.id}"
[[stream]]
route = "GET /events"
topic = "events"
"#;

fn broker() -> BrokerHandle {
    let broker = BrokerHandle::start(Settings::default(), random(), ([127, 0, 0, 1], 0).into());
    broker.expect("a free port")
}

/// Runs a subcommand on a config with `ROUTES`.
fn run(bootstrap: &str, arguments: &[&str]) -> (i32, String, String) {
    let (_folder, path) = config_file(&(settings(bootstrap, 1) + ROUTES));
    let config = ["--config", path.to_str().expect("UTF-8")];
    run_to_end(&[arguments, &config].concat(), &[])
}

#[test]
fn missing_topics_are_listed_printed_and_created() {
    let broker = broker();
    let kafka = broker.bootstrap();
    let (code, out, said) = run(&kafka, &["topics"]);
    assert_eq!(code, 78, "{said}");
    let missing = out.lines().filter(|line| line.ends_with("missing"));
    assert_eq!(missing.count(), 4, "{out}");
    // No broker is asked for the commands.
    let (code, out, said) = run(
        "127.0.0.1:1",
        &["topics", "--dry-run", "--replication", "3"],
    );
    assert_eq!((code, out.lines().count()), (0, 4), "{said}");
    assert!(
        out.lines()
            .all(|it| it.starts_with("kafka-topics.sh --bootstrap-server 127.0.0.1:1 ")),
        "{out}"
    );
    let (code, out, said) = run(&kafka, &["topics", "--create", "--partitions", "4"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("accounts: created"), "{said}");
    let compacted = out.lines().find(|line| line.starts_with("accounts "));
    let compacted = compacted
        .expect("a row")
        .split_whitespace()
        .collect::<Vec<_>>();
    assert_eq!(compacted[1..4], ["query", "4", "compact"], "{out}");
    // Again: nothing changes.
    let (code, _, said) = run(&kafka, &["topics", "--create"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("accounts: exists"), "{said}");
}

#[test]
fn a_live_check_names_what_does_not_fit_and_writes_nothing() {
    let broker = broker();
    let kafka = broker.bootstrap();
    let topics = [
        ("commands", &[][..]),
        ("replies", &[][..]),
        ("accounts", &[("cleanup.policy", "compact")][..]),
        ("events", &[][..]),
    ];
    for (name, configs) in topics {
        let created = broker.with(move |it| it.create_topic(name, 2, configs));
        created.expect("a new topic");
    }
    let (code, out, said) = run(&kafka, &["check", "--live"]);
    assert_eq!(code, 0, "{said}{out}");
    assert!(out.contains("1 brokers") && out.contains(&kafka), "{out}");
    assert_eq!(
        out.lines().filter(|line| line.ends_with("  ok")).count(),
        4,
        "{out}"
    );
    for (name, _) in topics {
        assert_eq!(
            kcat::read(&kafka, name),
            [],
            "{name}: rights are tried without a record"
        );
    }
    // Each right that is denied is named, with the command that grants it.
    for (topic, right, operation) in [
        ("commands", Right::Write, "Write"),
        ("replies", Right::Read, "Read"),
        ("events", Right::Describe, "Describe"),
        ("accounts", Right::DescribeConfigs, "DescribeConfigs"),
    ] {
        broker.with(move |it| it.deny(topic, right, true));
        let (code, out, said) = run(&kafka, &["check", "--live"]);
        assert_eq!(code, 78, "{said}{out}");
        let error = format!("this user may not {operation} the topic");
        let fix = format!("--operation {operation} --topic {topic}");
        assert!(out.contains(&error) && out.contains(&fix), "{out}");
        assert_eq!(out.matches("error:").count(), 1, "{out}");
        broker.with(move |it| it.deny(topic, right, false));
    }
    // A query of a topic with retention works, for a while.
    let deleted = broker.with(|it| it.delete_topic("accounts"));
    deleted.expect("it is there");
    let created = broker.with(|it| it.create_topic("accounts", 2, &[]));
    created.expect("it was deleted");
    let (code, out, _) = run(&kafka, &["check", "--live", "-o", "json"]);
    let verdict: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &verdict["kafka_checked"]),
        (0, &Value::Bool(true)),
        "{out}"
    );
    let finding = &verdict["topics"][0]["findings"][0];
    assert_eq!(finding["severity"], "warning", "{out}");
    let fix = finding["fix"].as_str().expect("text");
    assert!(fix.contains("--add-config cleanup.policy=compact"), "{fix}");
}

#[test]
fn tap_shows_where_records_are_and_what_is_in_them_only_on_request() {
    let broker = broker();
    let kafka = broker.bootstrap();
    let created = broker.with(|it| it.create_topic("events", 1, &[]));
    created.expect("a new topic");
    let produce = || Produce::to(&kafka, "events").header("kind", Some("paid"));
    produce()
        .codec("zstd")
        .keyed((0..20).map(|_| ("ana", "secret-250")));
    produce().keyed([("bo", "")]);
    let (code, out, said) = run(&kafka, &["tap", "events", "-n", "3", "--from", "-3"]);
    assert_eq!(code, 0, "{said}");
    let places: Vec<_> = out
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(places, ["0@18", "0@19", "0@20"], "{out}");
    assert!(
        out.contains("10 bytes") && out.contains("deletes the key"),
        "{out}"
    );
    assert!(!out.contains("secret") && !out.contains("ana"), "{out}");
    // A stream's name means its topic.
    let stream = ["tap", "GET /events", "-n", "1", "--from", "5", "--payload"];
    let (code, out, said) = run(&kafka, &stream);
    assert_eq!(code, 0, "{said}");
    for wanted in ["0@5 ", "key: ana", "kind: paid", "secret-250"] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    let json = [
        "tap",
        "events",
        "-n",
        "1",
        "--from",
        "20",
        "--payload",
        "-o",
        "json",
    ];
    let (code, out, said) = run(&kafka, &json);
    assert_eq!(code, 0, "{said}");
    let line: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&line["offset"], &line["value"]),
        (&20.into(), &Value::Null),
        "{out}"
    );
    for (name, wanted) in [("absent", "topic `absent`"), ("a b", "no name of a topic")] {
        let (code, _, said) = run(&kafka, &["tap", name, "-n", "1"]);
        assert!(code != 0 && said.contains(wanted), "{code}: {said}");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_69() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().expect("it is bound").to_string();
    for bootstrap in ["127.0.0.1:1", silent.as_str()] {
        for arguments in [
            &["check", "--live"][..],
            &["topics"],
            &["topics", "--create"],
        ] {
            let (code, _, said) = run(bootstrap, arguments);
            assert_eq!(code, 69, "{said}");
            assert!(said.contains(bootstrap), "{said}");
        }
    }
    // The static check does not ask.
    let (code, out, said) = run("127.0.0.1:1", &["check"]);
    assert_eq!(code, 0, "{said}");
    assert!(out.contains("`check --live` asks them"), "{out}");
}

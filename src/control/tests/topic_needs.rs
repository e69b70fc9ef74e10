//! Topics that fit and misfit, and the tables that an operator reads.

use super::*;
use crate::config::{ConfigFile, Sources, load};

const ROUTES: &str = r#"
[kafka.sasl]
mechanism = "PLAIN"
username = "gate"
password = { env = "PATH" }
[kafka.tls]
enabled = true
[[command]]
name = "pay"
route = "POST /p"
topic = "c"
replies = "r"
[[query]]
route = "GET /q"
topic = "q"
[[stream]]
route = "GET /s"
topic = "s"
start = "snapshot"
"#;

fn facts(partitions: usize, configs: &[(&str, &str)]) -> TopicFacts {
    let configs = configs.iter();
    let configs = configs.map(|(name, value)| ((*name).into(), (*value).into()));
    TopicFacts {
        partitions,
        configs: Some(configs.collect()),
        ..TopicFacts::default()
    }
}

/// The report about each topic of `ROUTES`, in order of their names: c, q, r, s.
fn reports(each: [TopicFacts; 4]) -> Vec<TopicReport> {
    let file = ConfigFile {
        name: "g.toml".into(),
        text: ROUTES.into(),
    };
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    let loaded = load(sources).unwrap_or_else(|report| panic!("{}", report.render(false)));
    let uses = loaded.config.topics();
    let names = uses.iter().map(|it| it.topic.clone());
    let survey = ClusterSurvey {
        brokers: 1,
        topics: names.zip(each).collect(),
    };
    topic_reports(&loaded.config, &uses, &survey)
}

#[test]
fn topics_that_fit_are_a_table_without_findings() {
    let delete = facts(
        3,
        &[("cleanup.policy", "delete"), ("retention.ms", "604800000")],
    );
    let compact = facts(3, &[("cleanup.policy", "compact")]);
    let reports = reports([delete.clone(), compact.clone(), delete, compact]);
    assert!(
        reports.iter().all(|it| it.fit() == Fit::Fits),
        "{reports:?}"
    );
    insta::assert_snapshot!(report_text(&reports), @r"
    TOPIC  USED FOR  PARTITIONS  POLICY   RETENTION
    c      commands  3           delete   7d         ok
    q      query     3           compact  -          ok
    r      replies   3           delete   7d         ok
    s      stream    3           compact  -          ok
    ");
}

#[test]
fn each_misfit_has_its_fix() {
    let missing = TopicFacts {
        is_missing: true,
        ..TopicFacts::default()
    };
    let expires = facts(
        3,
        &[("cleanup.policy", "delete"), ("retention.ms", "3600000")],
    );
    let denied = TopicFacts {
        denied: vec!["Read"],
        ..facts(3, &[("cleanup.policy", "delete")])
    };
    let wide = TopicFacts {
        leaderless: 1,
        ..facts(200, &[("cleanup.policy", "delete")])
    };
    let reports = reports([missing, expires, denied, wide]);
    let fits: Vec<_> = reports.iter().map(TopicReport::fit).collect();
    assert_eq!(fits, [Fit::Unfit, Fit::Doubtful, Fit::Unfit, Fit::Unfit]);
    insta::assert_snapshot!(report_text(&reports), @r"
    TOPIC  USED FOR  PARTITIONS  POLICY  RETENTION
    c      commands  -           -       -          missing
      error: the topic does not exist
        fix: sluicegate topics --create, or the commands of `sluicegate topics --dry-run`
    q      query     3           delete  1h         see below
      warning: cleanup.policy is delete: a record older than 1h leaves the topic, and queries then answer 404 for its key
        fix: kafka-configs.sh --bootstrap-server localhost:9092 --alter --entity-type topics --entity-name q --add-config cleanup.policy=compact
    r      replies   3           delete  -          does not fit
      error: this user may not Read the topic
        fix: kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:gate --operation Read --topic r
    s      stream    200         delete  -          does not fit
      error: 1 of 200 partitions have no leader
        fix: start the brokers that have them
      error: streams are limited to topics of 128 partitions, and it has 200
        fix: stream a topic with fewer, which a service fills from this one
      error: cleanup.policy is delete, and `GET /s` (line 17) needs a compacted topic
        fix: kafka-configs.sh --bootstrap-server localhost:9092 --alter --entity-type topics --entity-name s --add-config cleanup.policy=compact
    ");
    let json = report_json(&reports);
    assert_eq!(json[0]["exists"], false);
    assert_eq!(json[2]["findings"][0]["severity"], "error");
}

#[test]
fn policies_that_lose_replies_or_refuse_commands_are_found() {
    let compact = facts(3, &[("cleanup.policy", "compact")]);
    let reports = reports([compact.clone(), compact.clone(), compact.clone(), compact]);
    assert!(
        reports[0].findings[0]
            .message
            .contains("refuse records without a key")
    );
    assert_eq!(reports[0].fit(), Fit::Unfit);
    assert!(
        reports[2].findings[0]
            .message
            .contains("executed again by a retry")
    );
    assert_eq!(reports[2].fit(), Fit::Doubtful);
}

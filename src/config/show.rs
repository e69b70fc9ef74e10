//! The output of `check`, `routes` and `config show`: text for people, JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::curl::{CurlLine, curl_lines};
use super::diagnose::line_of;
use super::memory::{memory_caps, memory_sum, memory_table};
use super::settings::{Settings, TABLE};
use super::{Config, Loaded, Origin, Report, Severity};

/// One line of the `routes` command.
struct Row<'a> {
    kind: &'static str,
    line: usize,
    name: &'a str,
    route: String,
    topics: String,
}

fn rows(config: &Config) -> Vec<Row<'_>> {
    let commands = config.commands.iter().map(|it| Row {
        kind: "command",
        line: it.line,
        name: &it.name,
        route: format!("{} {}", it.method.as_str(), it.path),
        topics: match &it.replies {
            Some(replies) => format!("{} -> {replies}", it.topic),
            None => it.topic.to_string(),
        },
    });
    let queries = config.queries.iter().map(|it| Row {
        kind: "query",
        line: it.line,
        name: &it.name,
        route: format!("GET {}", it.path),
        topics: it.topic.to_string(),
    });
    let streams = config.streams.iter().map(|it| Row {
        kind: "stream",
        line: it.line,
        name: &it.name,
        route: format!("GET {}", it.path),
        topics: it.topic.to_string(),
    });
    commands.chain(queries).chain(streams).collect()
}

/// Describes each route on one line: kind, method and path, topics, line of the file.
#[must_use]
pub fn route_lines(config: &Config) -> Vec<String> {
    let rows = rows(config);
    let widths = rows.iter().map(|row| row.route.chars().count());
    let widest = widths.max().unwrap_or(0);
    let line = |row: Row<'_>| {
        let Row {
            kind,
            line,
            route,
            topics,
            ..
        } = row;
        format!("{kind:<8} {route:<widest$}  {topics}  (line {line})")
    };
    rows.into_iter().map(line).collect()
}

/// Lists the routes, each with its curl line.
#[must_use]
pub fn routes_text(config: &Config) -> String {
    let mut out = String::new();
    for (route, curl) in route_lines(config).into_iter().zip(curl_lines(config)) {
        let _ = writeln!(out, "{route}\n         {}", curl.line);
    }
    out
}

/// Lists the routes as a JSON array.
#[must_use]
pub fn routes_json(config: &Config) -> String {
    let row = |(row, curl): (Row<'_>, CurlLine)| {
        json!({ "kind": row.kind, "name": row.name, "route": row.route,
                "topics": row.topics.split(" -> ").collect::<Vec<_>>(), "line": row.line,
                "curl": curl.line })
    };
    let rows: Vec<Value> = rows(config)
        .into_iter()
        .zip(curl_lines(config))
        .map(row)
        .collect();
    format!("{}\n", Value::from(rows))
}

/// Lists every setting with its value and origin, then the keys of each `[[cluster]]`.
#[must_use]
pub fn settings_text(loaded: &Loaded) -> String {
    let mut out = String::new();
    for (index, setting) in TABLE.iter().enumerate() {
        let value = (setting.show)(&loaded.config.settings);
        let origin = origin(loaded, index);
        let _ = writeln!(out, "{:<34} {value:<28} {origin}", setting.key);
    }
    for row in cluster_rows(loaded) {
        let ClusterRow { key, value, origin } = row;
        let _ = writeln!(out, "{key:<34} {value:<28} {origin}");
    }
    out
}

/// A key of a `[[cluster]]`, with the cluster's name in it: `cluster.edge.sasl.password`.
struct ClusterRow {
    key: String,
    value: String,
    origin: String,
}

/// Rows for the keys that each `[[cluster]]` has of its own, printed by the declarations of
/// `[kafka]`.
fn cluster_rows(loaded: &Loaded) -> Vec<ClusterRow> {
    let mut rows = Vec::new();
    for cluster in &loaded.config.clusters {
        let mut settings = Settings {
            kafka_tls: cluster.tls.clone(),
            kafka_sasl: cluster.sasl.clone(),
            ..Settings::default()
        };
        settings.kafka.bootstrap.clone_from(&cluster.bootstrap);
        settings.kafka.log_id.clone_from(&cluster.log_id);
        for setting in TABLE {
            let name = setting.key.strip_prefix("kafka.").unwrap_or_default();
            if !(["bootstrap", "log_id"].contains(&name) || name.contains('.')) {
                continue;
            }
            let given = cluster.lines.iter().find(|(key, _)| *key == name);
            let file = &loaded.report.name;
            rows.push(ClusterRow {
                key: format!("cluster.{}.{name}", cluster.name),
                value: (setting.show)(&settings),
                origin: given.map_or("default".into(), |(_, line)| format!("{file}:{line}")),
            });
        }
    }
    rows
}

/// The same as a JSON object, by key.
#[must_use]
pub fn settings_json(loaded: &Loaded) -> String {
    let entry = |(index, setting): (usize, &super::Setting)| {
        let value = (setting.show)(&loaded.config.settings);
        let origin = origin(loaded, index);
        (
            setting.key.to_owned(),
            json!({ "value": value, "origin": origin }),
        )
    };
    let clusters = cluster_rows(loaded).into_iter();
    let clusters = clusters.map(|row| {
        let ClusterRow { key, value, origin } = row;
        (key, json!({ "value": value, "origin": origin }))
    });
    let settings = TABLE.iter().enumerate().map(entry);
    let all: serde_json::Map<_, _> = settings.chain(clusters).collect();
    format!("{}\n", Value::from(all))
}

fn origin(loaded: &Loaded, index: usize) -> String {
    match loaded.origins.of(index) {
        Origin::Default => "default".into(),
        Origin::File { line, .. } => format!("{}:{line}", loaded.report.name),
        Origin::Environment => TABLE[index].variable(),
        Origin::Flag => format!("--{}", TABLE[index].flag()),
    }
}

/// Result of `check` for a valid config: what it has, its memory sum, and what was not checked.
/// `live`: the brokers are asked too, and their report follows.
#[must_use]
pub fn verdict_text(loaded: &Loaded, cpus: u16, live: bool) -> String {
    let config = &loaded.config;
    let topics = config.topics();
    let mut out = format!(
        "{}: OK (syntax, routes, limits, files). \
         Commands: {}, queries: {}, streams: {}, topics: {}.\n",
        loaded.report.name,
        config.commands.len(),
        config.queries.len(),
        config.streams.len(),
        topics.len(),
    );
    let caps = memory_caps(config, config.settings.shards_on(cpus));
    let _ = write!(out, "\nIts caps add up to:\n{}\n", memory_table(&caps));
    if config.settings.memory.is_none() {
        out.push_str("Nothing bounds the sum; set `memory` to have it checked.\n");
    }
    for topic in topics.iter().filter(|it| it.compacted) {
        if let Some((route, line)) = &topic.compacted_by {
            let name = &topic.topic;
            let _ = writeln!(
                out,
                "\n`{name}` must be compacted, for `{route}` (line {line})."
            );
        }
    }
    if !live {
        out.push_str("\nNot checked: brokers, topics. `check --live` asks them.\n");
    }
    out
}

/// Result of `check` as a JSON object: findings, the memory sum of a valid config, and what the
/// brokers reported of its `topics`, if they were asked.
#[must_use]
pub fn verdict_json(
    report: &Report,
    config: Option<&Config>,
    cpus: u16,
    topics: Option<Value>,
) -> String {
    let finding = |it: &super::Finding| {
        let severity = match it.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let line = it.at.as_ref().map(|at| line_of(&report.text, at.start));
        json!({ "severity": severity, "message": it.message, "help": it.help, "line": line })
    };
    let findings: Vec<Value> = report.findings.iter().map(finding).collect();
    let memory =
        config.map(|config| memory_sum(&memory_caps(config, config.settings.shards_on(cpus))));
    let verdict = json!({ "ok": report.errors() == 0, "file": report.name,
                          "findings": findings, "memory_bytes": memory,
                          "kafka_checked": topics.is_some(), "topics": topics });
    format!("{verdict}\n")
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigFile, Sources, load};
    use super::*;

    fn loaded() -> Loaded {
        let text = include_str!("example.toml").to_owned();
        let sources = Sources {
            file: Some(ConfigFile {
                name: "g.toml".into(),
                text,
            }),
            flags: vec![("shards", "2".into())],
            ..Sources::default()
        };
        load(sources).expect("the example is good")
    }

    #[test]
    fn routes_are_listed_with_a_curl_line_each() {
        let text = routes_text(&loaded().config);
        assert_eq!(text.lines().count(), 2 * 4);
        let curl = text.lines().skip(1).step_by(2);
        assert!(
            curl.clone().all(|it| it.trim().starts_with("curl -")),
            "{text}"
        );
        let first = "command  POST /accounts/{id}/payments  payments-commands -> payments-replies";
        assert!(text.starts_with(first), "{text}");
        let json: Value = serde_json::from_str(&routes_json(&loaded().config)).expect("JSON");
        assert_eq!(json[0]["topics"][1], "payments-replies");
    }

    #[test]
    fn each_setting_says_where_it_came_from() {
        let text = settings_text(&loaded());
        let line = |key: &str| {
            let line = text.lines().find(|it| it.split(' ').next() == Some(key));
            line.expect("a line").to_owned()
        };
        assert!(line("shards").ends_with("--shards"));
        assert!(line("streams.heartbeat").ends_with("g.toml:34"), "{text}");
        assert!(line("memory").ends_with("default"));
        let json: Value = serde_json::from_str(&settings_json(&loaded())).expect("JSON");
        assert_eq!(json["shards"]["value"], "2");
    }

    #[test]
    fn a_verdict_says_what_it_did_not_check() {
        let loaded = loaded();
        let text = verdict_text(&loaded, 1, false);
        assert!(text.starts_with("g.toml: OK (") && text.contains("Not checked: brokers"));
        let json = verdict_json(&loaded.report, Some(&loaded.config), 1, None);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["ok"], true);
        assert_eq!(json["kafka_checked"], false);
    }
}

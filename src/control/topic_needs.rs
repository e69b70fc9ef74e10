//! Whether the topics of a cluster fit the routes of a config, with what to do where they do not:
//! the tables of `sluicegate topics` and `sluicegate check --live`. Nothing here asks a broker.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::survey::{ClusterSurvey, TopicFacts};
use crate::config::{Config, TopicUse};

/// Most partitions of a topic that streams send: the limit of an event id.
const STREAM_PARTITIONS_MAX: usize = 128;

/// How well a topic fits its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The topic is as the routes need it.
    Fits,
    /// The routes work, but perhaps not as intended.
    Doubtful,
    /// Some route does not work.
    Unfit,
}

/// One topic of a config, as its cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicReport {
    /// The cluster's name. `None`: the cluster of `[kafka]`.
    pub cluster: Option<String>,
    /// The topic's name.
    pub topic: String,
    /// How routes use the topic: `commands`, `replies`, `query`, `stream`.
    pub uses: String,
    /// What the cluster reports.
    pub facts: TopicFacts,
    /// What does not fit.
    pub findings: Vec<TopicFinding>,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFinding {
    /// How bad it is.
    pub fit: Fit,
    /// The problem.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl TopicReport {
    /// How well the topic fits, by its worst finding.
    #[must_use]
    pub fn fit(&self) -> Fit {
        let fits = self.findings.iter().map(|it| it.fit);
        fits.max().unwrap_or(Fit::Fits)
    }
}

/// Compares the topics of one cluster with what the routes need. `uses` are the cluster's topics.
#[must_use]
pub fn topic_reports(
    config: &Config,
    uses: &[TopicUse],
    survey: &ClusterSurvey,
) -> Vec<TopicReport> {
    let report = |topic: &TopicUse| {
        let facts = survey.topics.get(&topic.topic);
        let facts = facts.cloned().unwrap_or_default();
        let needs = TopicNeeds {
            config,
            topic,
            facts: &facts,
        };
        TopicReport {
            cluster: config.cluster(topic.cluster).map(|it| it.name.clone()),
            topic: topic.topic.to_string(),
            uses: used_for(topic),
            findings: needs.findings(),
            facts,
        }
    };
    uses.iter().map(report).collect()
}

fn used_for(topic: &TopicUse) -> String {
    let uses = [
        (topic.commands, "commands"),
        (topic.replies, "replies"),
        (topic.query, "query"),
        (topic.stream, "stream"),
    ];
    let uses = uses.into_iter().filter(|(used, _)| *used);
    let uses: Vec<_> = uses.map(|(_, name)| name).collect();
    uses.join(", ")
}

/// One topic, with what its routes need.
struct TopicNeeds<'a> {
    config: &'a Config,
    topic: &'a TopicUse,
    facts: &'a TopicFacts,
}

impl TopicNeeds<'_> {
    fn findings(&self) -> Vec<TopicFinding> {
        let mut findings = Vec::new();
        let facts = self.facts;
        if facts.is_missing {
            findings.push(unfit("the topic does not exist", self.create()));
        }
        if let Some(error) = &facts.error {
            findings.push(unfit(
                format!("the broker answers {error}"),
                "see the broker's log",
            ));
        }
        for operation in &facts.denied {
            let message = format!("this user may not {operation} the topic");
            findings.push(unfit(message, self.grant(operation)));
        }
        if facts.leaderless > 0 {
            let of = format!("{} of {}", facts.leaderless, facts.partitions);
            let message = format!("{of} partitions have no leader");
            findings.push(unfit(message, "start the brokers that have them"));
        }
        if self.topic.stream && facts.partitions > STREAM_PARTITIONS_MAX {
            let message = format!(
                "streams are limited to topics of {STREAM_PARTITIONS_MAX} partitions, and it has \
                 {}",
                facts.partitions
            );
            let fix = "stream a topic with fewer, which a service fills from this one";
            findings.push(unfit(message, fix));
        }
        findings.extend(self.policy());
        findings
    }

    /// Whether `cleanup.policy` fits.
    fn policy(&self) -> Option<TopicFinding> {
        let policy = self.facts.config("cleanup.policy")?;
        let has = |word: &str| policy.split(',').any(|it| it.trim() == word);
        let name = &self.topic.topic;
        if let Some((route, line)) = &self.topic.compacted_by
            && !has("compact")
        {
            let message = format!(
                "cleanup.policy is {policy}, and `{route}` (line {line}) needs a compacted topic"
            );
            return Some(unfit(message, self.alter("cleanup.policy=compact")));
        }
        let retention = self.facts.config("retention.ms");
        if self.topic.query && has("delete") && retention != Some("-1") {
            let message = format!(
                "cleanup.policy is {policy}: a record older than {} leaves the topic, and queries \
                 then answer 404 for its key",
                retention.map_or_else(|| "retention.ms".into(), days)
            );
            return Some(doubtful(message, self.alter("cleanup.policy=compact")));
        }
        if self.topic.replies && has("compact") {
            let message = format!(
                "cleanup.policy is {policy}: a reply is deleted by a later one with the same key, \
                 and its command would be executed again by a retry"
            );
            return Some(doubtful(message, self.alter("cleanup.policy=delete")));
        }
        let without_key = |route: &&crate::config::CommandRoute| {
            route.key.is_none() && route.topic == *name && route.cluster == self.topic.cluster
        };
        let keyless = self.config.commands.iter().find(without_key);
        if let (Some(route), true) = (keyless, self.topic.commands && has("compact")) {
            let message = format!(
                "cleanup.policy is {policy}, and brokers refuse records without a key, which `{}` \
                 (line {}) writes",
                route.name, route.line
            );
            return Some(unfit(message, self.alter("cleanup.policy=delete")));
        }
        None
    }

    fn bootstrap(&self) -> String {
        let cluster = self.config.cluster(self.topic.cluster);
        let bootstrap = cluster.map_or(&self.config.settings.kafka.bootstrap, |it| &it.bootstrap);
        let bootstrap: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
        bootstrap.join(",")
    }

    fn create(&self) -> String {
        "sluicegate topics --create, or the commands of `sluicegate topics --dry-run`".into()
    }

    fn alter(&self, config: &str) -> String {
        format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} \
             --add-config {config}",
            self.bootstrap(),
            self.topic.topic
        )
    }

    fn grant(&self, operation: &str) -> String {
        let (_, sasl) = self.config.cluster_security(self.topic.cluster);
        let user = sasl.username.as_deref().unwrap_or("NAME");
        let on = match operation {
            "IdempotentWrite" => "--cluster".to_owned(),
            _ => format!("--topic {}", self.topic.topic),
        };
        format!(
            "kafka-acls.sh --bootstrap-server {} --add --allow-principal User:{user} --operation \
             {operation} {on}",
            self.bootstrap()
        )
    }
}

fn unfit(message: impl Into<String>, fix: impl Into<String>) -> TopicFinding {
    let (message, fix) = (message.into(), fix.into());
    TopicFinding {
        fit: Fit::Unfit,
        message,
        fix,
    }
}

fn doubtful(message: impl Into<String>, fix: impl Into<String>) -> TopicFinding {
    TopicFinding {
        fit: Fit::Doubtful,
        ..unfit(message, fix)
    }
}

/// A number of milliseconds in the largest unit that it fills: `7d`, `90min`.
fn days(ms: &str) -> String {
    let Ok(number) = ms.parse::<i64>() else {
        return ms.to_owned();
    };
    if number < 0 {
        return "forever".into();
    }
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
    ];
    let exact = units
        .into_iter()
        .find(|(unit, _)| number > 0 && number % unit == 0);
    exact.map_or_else(
        || format!("{number}ms"),
        |(unit, name)| format!("{}{name}", number / unit),
    )
}

/// The reports as a table, with the findings and their fixes below their topics.
#[must_use]
pub fn report_text(reports: &[TopicReport]) -> String {
    let title = ["TOPIC", "USED FOR", "PARTITIONS", "POLICY", "RETENTION", ""];
    let mut rows = vec![title.map(str::to_owned)];
    rows.extend(reports.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..title.len()).map(|it| width(it).unwrap_or(0)).collect();
    let mut out = String::new();
    for (row, number) in rows.iter().zip(0..) {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        let report = usize::checked_sub(number, 1).and_then(|at| reports.get(at));
        for finding in report.map_or(&[][..], |it| &it.findings) {
            let level = match finding.fit {
                Fit::Unfit => "error",
                Fit::Fits | Fit::Doubtful => "warning",
            };
            let _ = writeln!(
                out,
                "  {level}: {}\n    fix: {}",
                finding.message, finding.fix
            );
        }
    }
    out
}

fn row(report: &TopicReport) -> [String; 6] {
    let facts = &report.facts;
    let known = !facts.is_missing && facts.partitions > 0;
    let shown = |text: Option<String>| text.filter(|_| known).unwrap_or_else(|| "-".into());
    // Retention applies to `cleanup.policy=delete` only.
    let policy = facts.config("cleanup.policy");
    let expires = policy.is_none_or(|policy| policy.contains("delete"));
    let retention = facts.config("retention.ms").filter(|_| expires);
    let name = match &report.cluster {
        Some(cluster) => format!("{cluster}/{}", report.topic),
        None => report.topic.clone(),
    };
    [
        name,
        report.uses.clone(),
        shown(Some(facts.partitions.to_string())),
        shown(policy.map(str::to_owned)),
        shown(retention.map(days)),
        match report.fit() {
            Fit::Fits => "ok".into(),
            Fit::Doubtful => "see below".into(),
            Fit::Unfit if facts.is_missing => "missing".into(),
            Fit::Unfit => "does not fit".into(),
        },
    ]
}

/// The reports as a JSON array.
#[must_use]
pub fn report_json(reports: &[TopicReport]) -> Value {
    let finding = |it: &TopicFinding| {
        let severity = if it.fit == Fit::Unfit {
            "error"
        } else {
            "warning"
        };
        json!({ "severity": severity, "message": it.message, "fix": it.fix })
    };
    let report = |it: &TopicReport| {
        let findings: Vec<Value> = it.findings.iter().map(finding).collect();
        json!({
            "cluster": it.cluster,
            "topic": it.topic,
            "uses": it.uses.split(", ").collect::<Vec<_>>(),
            "exists": !it.facts.is_missing,
            "partitions": it.facts.partitions,
            "cleanup.policy": it.facts.config("cleanup.policy"),
            "retention.ms": it.facts.config("retention.ms"),
            "findings": findings,
        })
    };
    reports.iter().map(report).collect()
}

#[cfg(test)]
#[path = "tests/topic_needs.rs"]
mod tests;

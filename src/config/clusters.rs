//! Clusters beside the one of `[kafka]`: `[[cluster]]` in the file, `cluster = "name"` on a route.

use std::ops::Range;

use super::cross_kafka;
use super::diagnose::{line_of, nearest};
use super::kind::{Broker, ListOf, Text};
use super::read::Reader;
use super::section::{Placed, Section};
use super::settings::{Settings, TABLE};
use super::{BrokerAddress, Config, KafkaSasl, KafkaTls};

/// Clusters beside that of `[kafka]`: each has connections of every shard with topics of it.
pub const CLUSTERS_MAX: usize = 8;

/// Which cluster: 0 is that of `[kafka]`, the others follow in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterIndex(pub u8);

/// A cluster that routes name. Limits and times are as `[kafka]` has them; who it is and how it is
/// spoken to is its own, or nothing: what opens one cluster is never shown to another.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// What routes call it.
    pub name: String,
    /// Line of the config file that declares it, from 1; for messages.
    pub line: usize,
    /// Brokers to ask first.
    pub bootstrap: Vec<BrokerAddress>,
    /// What its logs are called, where they are copies with the same offsets of another cluster's:
    /// gateways that read either then understand each other's event ids.
    pub log_id: Option<String>,
    /// `[cluster.tls]`; without it, plaintext.
    pub tls: KafkaTls,
    /// `[cluster.sasl]`; without it, nobody is told who we are.
    pub sasl: KafkaSasl,
    /// The lines of the keys it says, by their names within it: `sasl.password`.
    pub lines: Vec<(&'static str, usize)>,
}

/// How messages call the keys of one cluster: whoever reads them must know which table to mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterKeys {
    /// `None`: that of `[kafka]`.
    cluster: Option<String>,
}

impl ClusterKeys {
    /// A key by its name within the cluster's table: `kafka.sasl.password`, or
    /// "cluster.sasl.password of cluster `edge`".
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        match &self.cluster {
            None => format!("kafka.{key}"),
            Some(name) => format!("cluster.{key} of cluster `{name}`"),
        }
    }

    /// "the brokers", and of which cluster.
    #[must_use]
    pub fn brokers(&self) -> String {
        match &self.cluster {
            None => "the brokers".into(),
            Some(name) => format!("the brokers of cluster `{name}`"),
        }
    }
}

impl Config {
    /// Whether there is anything to serve.
    #[must_use]
    pub fn has_routes(&self) -> bool {
        !(self.commands.is_empty() && self.queries.is_empty() && self.streams.is_empty())
    }

    /// Every cluster, that of `[kafka]` first.
    pub fn cluster_indexes(&self) -> impl Iterator<Item = ClusterIndex> + use<> {
        (0..=self.clusters.len() as u8).map(ClusterIndex)
    }

    /// A cluster's table; `None`: that is `[kafka]`.
    #[must_use]
    pub fn cluster(&self, index: ClusterIndex) -> Option<&ClusterConfig> {
        let at = usize::from(index.0).checked_sub(1)?;
        self.clusters.get(at)
    }

    /// How a cluster's keys are called.
    #[must_use]
    pub fn cluster_keys(&self, index: ClusterIndex) -> ClusterKeys {
        let cluster = self.cluster(index).map(|it| it.name.clone());
        ClusterKeys { cluster }
    }

    /// Whether and how a cluster is spoken to by TLS, and who it is told we are.
    #[must_use]
    pub fn cluster_security(&self, index: ClusterIndex) -> (&KafkaTls, &KafkaSasl) {
        match self.cluster(index) {
            None => (&self.settings.kafka_tls, &self.settings.kafka_sasl),
            Some(cluster) => (&cluster.tls, &cluster.sasl),
        }
    }
}

/// `[cluster.tls]` and `[cluster.sasl]` as they were read.
struct Security {
    tls: KafkaTls,
    sasl: KafkaSasl,
    /// The places of the keys that were said, by their names within the cluster.
    said: Vec<(&'static str, Range<usize>)>,
}

impl<'a> Reader<'a, '_> {
    /// Reads every `[[cluster]]`; from then on routes may name them.
    pub(super) fn clusters(&mut self, sections: Vec<Section<'a>>) -> Vec<ClusterConfig> {
        let mut clusters: Vec<(ClusterConfig, Placed<String>)> = Vec::new();
        for mut section in sections {
            let name = section.required("name", &Text(64), "\"edge\"", self.findings);
            let example = "[\"edge-1:9092\"]";
            let bootstrap =
                section.required("bootstrap", &ListOf(Broker, 64), example, self.findings);
            let log_id = section.read("log_id", &Text(128), self.findings);
            let security = self.security(&mut section);
            let at = section.at.clone();
            section.finish(elsewhere, self.findings);
            if let Some(empty) = bootstrap.as_ref().filter(|it| it.value.is_empty()) {
                let (message, help) = ("a cluster needs a broker to ask", "name one, or more");
                self.findings.error(empty.at.clone(), message, help);
            }
            let (Some(name), Some(bootstrap)) = (name, bootstrap) else {
                continue;
            };
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if !name.value.bytes().all(legal) || name.value == "kafka" {
                let message = format!("`{}` is no name for a cluster", name.value);
                let help = "use letters, digits, `.`, `_` and `-`; `kafka` is that of [kafka]";
                self.findings.error(name.at.clone(), message, help);
            }
            if let Some((_, first)) = clusters.iter().find(|(it, _)| it.name == name.value) {
                let message = format!("two clusters are named `{}`", name.value);
                let help = "give each its own name";
                let finding = self.findings.error(name.at.clone(), message, help);
                finding.also(Some(first.at.clone()), "the first is here");
            }
            let line = |at: &Range<usize>| line_of(self.text(), at.start);
            let mut lines = vec![("bootstrap", line(&bootstrap.at))];
            lines.extend(log_id.as_ref().map(|it| ("log_id", line(&it.at))));
            lines.extend(security.said.iter().map(|(key, at)| (*key, line(at))));
            let cluster = ClusterConfig {
                name: name.value.clone(),
                line: line(&at),
                bootstrap: bootstrap.value,
                log_id: log_id.map(|it| it.value),
                tls: security.tls,
                sasl: security.sasl,
                lines,
            };
            clusters.push((cluster, name));
        }
        if clusters.len() > CLUSTERS_MAX {
            let at = clusters[CLUSTERS_MAX].1.at.clone();
            let message = format!("more than {CLUSTERS_MAX} [[cluster]]");
            self.findings
                .error(at, message, "split the routes over several gateways");
            clusters.truncate(CLUSTERS_MAX);
        }
        let clusters: Vec<_> = clusters.into_iter().map(|(cluster, _)| cluster).collect();
        self.cluster_names = clusters.iter().map(|it| it.name.clone()).collect();
        clusters
    }

    /// A cluster's TLS and SASL, by the declarations of `[kafka.tls]` and `[kafka.sasl]`.
    fn security(&mut self, section: &mut Section<'a>) -> Security {
        let (mut settings, mut said) = (Settings::default(), Vec::new());
        let mut unread = Vec::new();
        for (inner, title) in [("tls", "[cluster.tls]"), ("sasl", "[cluster.sasl]")] {
            let Some(mut table) = section.table(inner, title, self.findings) else {
                continue;
            };
            for setting in TABLE {
                let Some((name, key)) = cluster_key(setting.key, inner) else {
                    continue;
                };
                let names = (key, &*format!("cluster.{name}"));
                let at = table.put(names, setting, &mut settings, self.findings);
                if at.is_none() && table.has(key) {
                    unread.push(inner);
                }
                said.extend(at.map(|at| (name, at)));
            }
            if !table.finish(elsewhere, self.findings) {
                unread.push(inner);
            }
        }
        let place = |key: &str| {
            let found = said
                .iter()
                .find(|(name, _)| key == format!("cluster.{name}"));
            found.map(|(_, at)| at.clone())
        };
        let is_read = |inner: &str| !unread.contains(&inner);
        let tls = is_read("tls").then_some(&settings.kafka_tls);
        let sasl = is_read("sasl").then_some(&settings.kafka_sasl);
        cross_kafka::connection(tls, sasl, "cluster", &place, self.findings);
        Security {
            tls: settings.kafka_tls,
            sasl: settings.kafka_sasl,
            said,
        }
    }

    /// The cluster a route names; without a name that of `[kafka]`.
    pub(super) fn cluster(&mut self, section: &mut Section<'a>) -> ClusterIndex {
        let Some(name) = section.read("cluster", &Text(64), self.findings) else {
            return ClusterIndex::default();
        };
        let known = self.cluster_names.iter().position(|it| *it == name.value);
        if let Some(at) = known {
            return ClusterIndex(at as u8 + 1);
        }
        if name.value != "kafka" {
            let message = format!("there is no cluster `{}`", name.value);
            let names = self.cluster_names.iter().map(String::as_str);
            let near = nearest(&name.value, names);
            let help = near.map_or_else(
                || {
                    let name = &name.value;
                    format!("declare it: [[cluster]] name = \"{name}\", bootstrap = [\"…\"]")
                },
                |near| format!("did you mean `{near}`?"),
            );
            self.findings.error(name.at, message, help);
        }
        ClusterIndex::default()
    }
}

/// `kafka.tls.ca` in the table of settings is `tls.ca` in a cluster, and `ca` in its `tls`.
fn cluster_key(key: &'static str, inner: &str) -> Option<(&'static str, &'static str)> {
    let name = key.strip_prefix("kafka.")?;
    let (table, key) = name.split_once('.')?;
    (table == inner).then_some((name, key))
}

/// Where a key belongs that stands in the wrong table of a cluster.
fn elsewhere(key: &str) -> Option<String> {
    let mut names = TABLE.iter().filter_map(|it| it.key.strip_prefix("kafka."));
    let name = names.find(|name| name.rsplit('.').next() == Some(key))?;
    Some(match (name.split_once('.'), name) {
        (Some((table, key)), _) => format!("`{key}` stands in `[cluster.{table}]`"),
        (None, "bootstrap" | "log_id") => format!("`{key}` stands in `[[cluster]]`"),
        (None, _) => format!("`{key}` stands in `[kafka]`, for all clusters"),
    })
}

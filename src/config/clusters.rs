//! Clusters besides the one of `[kafka]`: `[[cluster]]` in the file, `cluster = "name"` on a route.

use crate::model::u8_of;
use std::ops::Range;

use super::cluster_index::ClusterIndex;
use super::cross_kafka;
use super::diagnose::{line_of, nearest};
use super::kind::{Broker, ListOf, Text};
use super::read::Reader;
use super::section::{Placed, Section};
use super::settings::{Settings, TABLE};
use super::{BrokerAddress, Config, KafkaSasl, KafkaTls};

/// Most clusters besides the one of `[kafka]`. Every shard that is home to a topic of a cluster
/// connects to its brokers.
pub const CLUSTERS_MAX: usize = 8;

/// A cluster that routes name. Limits and times are those of `[kafka]`. TLS and SASL are its own or
/// absent, never inherited: the credentials of one cluster must not be sent to another.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The name that routes refer to.
    pub name: String,
    /// Line of the config file that declares it, counted from 1. Messages show it.
    pub line: usize,
    /// Brokers to connect to first.
    pub bootstrap: Vec<BrokerAddress>,
    /// Name of its logs, if they are copies with the same offsets of another cluster's logs.
    /// Gateways of both clusters then accept each other's event ids.
    pub log_id: Option<String>,
    /// Keys of `[cluster.tls]`. Without that table, connections are plaintext.
    pub tls: KafkaTls,
    /// Keys of `[cluster.sasl]`. Without that table, connections do not authenticate.
    pub sasl: KafkaSasl,
    /// Lines of the keys that the file sets, by the keys' names within the cluster:
    /// `sasl.password`.
    pub lines: Vec<(&'static str, usize)>,
}

/// Names the keys of one cluster in messages, so that a reader knows which table to correct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterKeys {
    /// The cluster's name. `None` for the one of `[kafka]`.
    cluster: Option<String>,
}

impl ClusterKeys {
    /// The full name of a key of the cluster's table: `kafka.sasl.password`, or
    /// "cluster.sasl.password of cluster `edge`".
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        match &self.cluster {
            None => format!("kafka.{key}"),
            Some(name) => format!("cluster.{key} of cluster `{name}`"),
        }
    }

    /// "the brokers", with the cluster's name if it is not the one of `[kafka]`.
    #[must_use]
    pub fn brokers(&self) -> String {
        match &self.cluster {
            None => "the brokers".into(),
            Some(name) => format!("the brokers of cluster `{name}`"),
        }
    }
}

impl Config {
    /// Whether the config has at least one route.
    #[must_use]
    pub fn has_routes(&self) -> bool {
        !(self.commands.is_empty() && self.queries.is_empty() && self.streams.is_empty())
    }

    /// Numbers of all clusters, the one of `[kafka]` first.
    pub fn cluster_indexes(&self) -> impl Iterator<Item = ClusterIndex> + use<> {
        (0..=u8_of(self.clusters.len())).map(ClusterIndex)
    }

    /// A cluster's table. `None` for the cluster of `[kafka]`.
    #[must_use]
    pub fn cluster(&self, index: ClusterIndex) -> Option<&ClusterConfig> {
        let at = usize::from(index.0).checked_sub(1)?;
        self.clusters.get(at)
    }

    /// Names for a cluster's keys in messages.
    #[must_use]
    pub fn cluster_keys(&self, index: ClusterIndex) -> ClusterKeys {
        let cluster = self.cluster(index).map(|it| it.name.clone());
        ClusterKeys { cluster }
    }

    /// TLS and SASL settings of a cluster.
    #[must_use]
    pub fn cluster_security(&self, index: ClusterIndex) -> (&KafkaTls, &KafkaSasl) {
        match self.cluster(index) {
            None => (&self.settings.kafka_tls, &self.settings.kafka_sasl),
            Some(cluster) => (&cluster.tls, &cluster.sasl),
        }
    }
}

/// The tables `[cluster.tls]` and `[cluster.sasl]` after reading.
struct Security {
    tls: KafkaTls,
    sasl: KafkaSasl,
    /// Byte ranges of the keys that the file sets, by the keys' names within the cluster.
    given: Vec<(&'static str, Range<usize>)>,
}

impl<'a> Reader<'a, '_> {
    /// Reads every `[[cluster]]`. This must come before the routes are read, because they refer to
    /// clusters by name.
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
                let (message, help) = ("a cluster needs at least one broker", "name one, or more");
                self.findings.error(empty.at.clone(), message, help);
            }
            let (Some(name), Some(bootstrap)) = (name, bootstrap) else {
                continue;
            };
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if !name.value.bytes().all(legal) || name.value == "kafka" {
                let message = format!("`{}` is not a valid cluster name", name.value);
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
            lines.extend(security.given.iter().map(|(key, at)| (*key, line(at))));
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

    /// Reads a cluster's TLS and SASL. The keys are those declared for `[kafka.tls]` and
    /// `[kafka.sasl]`.
    fn security(&mut self, section: &mut Section<'a>) -> Security {
        let (mut settings, mut given) = (Settings::default(), Vec::new());
        let mut unread = Vec::new();
        for (inner, title) in [("tls", "[cluster.tls]"), ("sasl", "[cluster.sasl]")] {
            let Some(mut table) = section.table(inner, title, self.findings) else {
                continue;
            };
            for setting in TABLE {
                let Some((name, key)) = cluster_key(setting.key, inner) else {
                    continue;
                };
                let long = format!("cluster.{name}");
                let at = table.put(key, &long, setting, &mut settings, self.findings);
                if at.is_none() && table.has(key) {
                    unread.push(inner);
                }
                given.extend(at.map(|at| (name, at)));
            }
            if !table.finish(elsewhere, self.findings) {
                unread.push(inner);
            }
        }
        let place = |key: &str| {
            let found = given
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
            given,
        }
    }

    /// The cluster that a route names, or the one of `[kafka]` if it names none.
    pub(super) fn cluster(&mut self, section: &mut Section<'a>) -> ClusterIndex {
        let Some(name) = section.read("cluster", &Text(64), self.findings) else {
            return ClusterIndex::default();
        };
        let known = self.cluster_names.iter().position(|it| *it == name.value);
        if let Some(at) = known {
            return ClusterIndex(u8_of(at) + 1);
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

/// Translates a key of [`TABLE`] for a cluster's inner table: `kafka.tls.ca` is `tls.ca` in a
/// cluster, and `ca` in its `tls`.
fn cluster_key(key: &'static str, inner: &str) -> Option<(&'static str, &'static str)> {
    let name = key.strip_prefix("kafka.")?;
    let (table, key) = name.split_once('.')?;
    (table == inner).then_some((name, key))
}

/// Names the right table for a cluster's key that is in the wrong one.
fn elsewhere(key: &str) -> Option<String> {
    let mut names = TABLE.iter().filter_map(|it| it.key.strip_prefix("kafka."));
    let name = names.find(|name| name.rsplit('.').next() == Some(key))?;
    Some(match (name.split_once('.'), name) {
        (Some((table, key)), _) => format!("`{key}` belongs in `[cluster.{table}]`"),
        (None, "bootstrap" | "log_id") => format!("`{key}` belongs in `[[cluster]]`"),
        (None, _) => format!("`{key}` belongs in `[kafka]`, for all clusters"),
    })
}

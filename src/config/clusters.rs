//! Clusters beside the one of `[kafka]`: `[[cluster]]` in the file, `cluster = "name"` on a route.

use super::diagnose::{line_of, nearest};
use super::kind::{Broker, ListOf, Text};
use super::read::{Reader, no_other_place};
use super::section::{Placed, Section};
use super::{BrokerAddress, Config};

/// Clusters beside that of `[kafka]`: each has connections of every shard with topics of it.
pub const CLUSTERS_MAX: usize = 8;

/// Which cluster: 0 is that of `[kafka]`, the others follow in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterIndex(pub u8);

/// A cluster that routes name. Everything it does not say is as `[kafka]` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            let at = section.at.clone();
            section.finish(no_other_place, self.findings);
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
            let cluster = ClusterConfig {
                name: name.value.clone(),
                line: line_of(self.text(), at.start),
                bootstrap: bootstrap.value,
                log_id: log_id.map(|it| it.value),
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

//! `sluicegate dev`: a development broker with the topics that a config names, for the gateway that
//! the same process runs.
//!
//! Each cluster of the config has a broker of its own at the first address of its bootstrap list.
//! The broker is in memory: nothing is kept, and it is not for production. It creates topics for
//! other clients too, as Kafka does with `auto.create.topics.enable`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::listener::BrokerHandle;
use super::service::now_ms;
use crate::broker::Settings;
use crate::config::{BrokerAddress, ClusterIndex, Config, CurlLine, Loaded, Reason};
use crate::config::{TopicUse, curl_lines};

/// Why `dev` could not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The address of `bootstrap` cannot be bound.
    #[error(
        "can't listen on {address} for the development broker: {source}; stop the broker that uses \
         the address, or name another port in {key}"
    )]
    Listen {
        /// The key that names the address.
        key: String,
        /// The address that the config names.
        address: SocketAddr,
        /// The error that the system returned.
        source: std::io::Error,
    },
    /// The broker has no room for the topics of the config.
    #[error("the development broker can't create topic `{topic}`: {detail}")]
    Topic {
        /// The topic that was refused.
        topic: String,
        /// The broker's words.
        detail: String,
    },
}

/// The brokers of all clusters of a config. Dropping it ends them, with their data.
#[derive(Debug)]
pub struct DevBrokers {
    brokers: Vec<BrokerHandle>,
    partitions: u32,
    topics: Vec<TopicUse>,
    curl: Vec<CurlLine>,
}

/// Reasons for which `dev` can't serve a config that is otherwise valid: it starts its own brokers,
/// so the config must name no other machine and no security.
#[must_use]
pub fn refusals(loaded: &Loaded) -> Vec<Reason> {
    let config = &loaded.config;
    let mut reasons = Vec::new();
    for index in config.cluster_indexes() {
        let keys = config.cluster_keys(index);
        let foreign = bootstrap(config, index);
        let foreign = foreign.iter().find(|it| loopback(it).is_none());
        if let Some(address) = foreign {
            let key = keys.key("bootstrap");
            reasons.push(Reason {
                message: format!(
                    "{key} names {address}, which is not on this machine: `dev` starts a broker of \
                     its own, so name an address such as 127.0.0.1:9092; `run` uses the brokers of \
                     the config"
                ),
                key: setting(config, index, "bootstrap"),
                at: None,
            });
        }
        let (tls, sasl) = config.cluster_security(index);
        let security = [
            (tls.enabled, "tls.enabled"),
            (sasl.mechanism.is_some(), "sasl.mechanism"),
        ];
        for (_, key) in security.into_iter().filter(|(is_set, _)| *is_set) {
            reasons.push(Reason {
                message: format!(
                    "{} is set, but the development broker has neither TLS nor SASL: use a config \
                     without it for `dev`",
                    keys.key(key)
                ),
                key: setting(config, index, key),
                at: None,
            });
        }
    }
    reasons
}

/// The setting that a key of a cluster is. Keys of other clusters are no settings: messages name
/// them.
fn setting(config: &Config, index: ClusterIndex, key: &str) -> Option<String> {
    config
        .cluster(index)
        .is_none()
        .then(|| format!("kafka.{key}"))
}

fn bootstrap(config: &Config, index: ClusterIndex) -> &[BrokerAddress] {
    let cluster = config.cluster(index);
    cluster.map_or(&config.settings.kafka.bootstrap, |it| &it.bootstrap)
}

/// The address to listen on for a broker address, if it is on this machine only.
fn loopback(broker: &BrokerAddress) -> Option<SocketAddr> {
    let ip = match broker.host.as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse::<IpAddr>().ok()?,
    };
    ip.is_loopback().then(|| SocketAddr::new(ip, broker.port))
}

impl DevBrokers {
    /// Starts the brokers and creates the config's topics, each with this number of partitions.
    ///
    /// # Errors
    /// See [`DevError`].
    ///
    /// # Panics
    /// [`refusals`] has reasons against the config.
    pub fn start(config: &Config, partitions: u32) -> Result<Self, DevError> {
        let mut brokers = Vec::new();
        for index in config.cluster_indexes() {
            let address = bootstrap(config, index).first().and_then(loopback);
            let address = address.expect("`refusals` has checked the addresses");
            let settings = Settings {
                auto_create_partitions: Some(partitions),
                ..Settings::default()
            };
            // The seed determines the topic ids. A restarted broker has new topics.
            let seed = now_ms().cast_unsigned();
            let broker = BrokerHandle::start(settings, seed, address).map_err(|source| {
                let key = config.cluster_keys(index).key("bootstrap");
                DevError::Listen {
                    key,
                    address,
                    source,
                }
            })?;
            brokers.push(broker);
        }
        let topics = config.topics();
        for topic in &topics {
            create(&brokers[usize::from(topic.cluster.0)], topic, partitions)?;
        }
        Ok(Self {
            brokers,
            partitions,
            topics,
            curl: curl_lines(config),
        })
    }

    /// What was started, and a curl line for each route, as text for a terminal.
    #[must_use]
    pub fn summary(&self) -> String {
        let brokers: Vec<_> = self.brokers.iter().map(BrokerHandle::bootstrap).collect();
        let mut text = format!(
            "The development broker listens on {}: in memory, nothing is kept, not for \
             production.\nTopics, with {} partitions each:\n",
            brokers.join(" and "),
            self.partitions,
        );
        for topic in &self.topics {
            let compacted = if topic.is_created_compacted() {
                "   compacted"
            } else {
                ""
            };
            let _ = writeln!(text, "  {}{compacted}", topic.topic);
        }
        text.push_str("Routes:\n");
        for CurlLine { line, .. } in &self.curl {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("Ctrl-C ends everything.\n");
        text
    }
}

fn create(broker: &BrokerHandle, topic: &TopicUse, partitions: u32) -> Result<(), DevError> {
    let name = topic.topic.to_string();
    let configs = topic.configs();
    let created = {
        let name = name.clone();
        broker.with(move |broker| broker.create_topic(&name, partitions, configs))
    };
    created.map_err(|refusal| DevError::Topic {
        topic: name,
        detail: refusal.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    fn loaded(text: &str) -> Loaded {
        let file = ConfigFile {
            name: "g.toml".into(),
            text: format!("{text}[[query]]\nroute = \"GET /a\"\ntopic = \"a\"\n"),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 1,
            ..Sources::default()
        };
        load(sources).unwrap_or_else(|report| panic!("{}", report.render(false)))
    }

    #[test]
    fn only_brokers_of_this_machine_are_replaced() {
        for address in ["localhost:1", "127.0.0.1:1", "127.1.2.3:1", "[::1]:1"] {
            let text = format!("[kafka]\nbootstrap = [\"{address}\"]\n");
            assert_eq!(refusals(&loaded(&text)), [], "{address}");
        }
        let text = "[kafka]\nbootstrap = [\"localhost:1\", \"kafka.example:9092\"]\n";
        let reasons = refusals(&loaded(text));
        assert!(
            reasons[0]
                .message
                .contains("kafka.bootstrap names kafka.example:9092")
        );
        assert_eq!(
            reasons[0].key.as_deref(),
            Some("kafka.bootstrap"),
            "its line is shown"
        );
        let edge = "[[cluster]]\nname = \"edge\"\nbootstrap = [\"e:1\"]\n";
        let reasons = refusals(&loaded(edge));
        assert!(
            reasons[0].message.contains("of cluster `edge` names e:1"),
            "{reasons:?}"
        );
        let secure = "[kafka]\nbootstrap = [\"localhost:1\"]\ntls.enabled = true\n";
        let reasons = refusals(&loaded(secure));
        assert!(
            reasons[0].message.contains("kafka.tls.enabled is set"),
            "{reasons:?}"
        );
    }
}

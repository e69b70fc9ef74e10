//! The health of one cluster: which brokers fail and why, as `/readyz` shows it and the log reports
//! it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use crate::config::ClusterKeys;
use crate::kafka::{Address, Client, KafkaError, SaslError};
use crate::metrics::{Check, CheckState};
use crate::model::Now;

use super::line::Line;

/// The reasons of one broker that the log reports until the broker responds again. Some outages
/// change their symptom, and one that alternates between two must not fill the log.
const REASONS_REPORTED_MAX: usize = 4;
/// Brokers that a check names. Further ones are only counted.
const NAMED_MAX: usize = 4;

/// The health of one cluster.
#[derive(Debug, Default)]
pub(in crate::shard::home) struct ClusterHealth {
    access: Access,
    /// Whether the cluster has ever shown its metadata.
    known: bool,
    /// Brokers that failed and have not responded since, with the reasons that were reported.
    down: BTreeMap<Address, Vec<String>>,
    /// The last failure of a broker, while no broker has responded since.
    last_failure: Option<String>,
    /// Why there is no OAuth token, while there is none.
    no_token: Option<Arc<str>>,
    /// The last broker that belongs to another cluster, while no broker of the right cluster has
    /// responded since.
    other_cluster: Option<String>,
    /// Connections to brokers that failed or broke, since the start.
    failures: u64,
}

/// How the gateway reaches the cluster.
#[derive(Debug, Default)]
struct Access {
    /// How messages name the cluster's settings.
    keys: ClusterKeys,
    tls: bool,
    /// The addresses in the config. All other addresses are advertised by brokers.
    bootstrap: Vec<Address>,
}

impl ClusterHealth {
    pub(in crate::shard::home) fn new(
        keys: ClusterKeys,
        tls: bool,
        bootstrap: Vec<Address>,
    ) -> Self {
        let access = Access {
            keys,
            tls,
            bootstrap,
        };
        Self {
            access,
            ..Self::default()
        }
    }

    /// The cluster has shown its metadata.
    pub(in crate::shard::home) const fn on_view(&mut self) {
        self.known = true;
    }

    /// A broker responds. Returns what to log: the end of an outage is reported once.
    pub(in crate::shard::home) fn on_broker_up(&mut self, address: &Address) -> Option<Line> {
        (self.last_failure, self.other_cluster) = (None, None);
        let was_down = self.down.remove(address).is_some();
        was_down.then(|| Line::Info(format!("broker {address} answers again")))
    }

    /// A broker failed, for the first time or in a new way. `by_number`: metadata names this
    /// broker. Returns what to log.
    pub(in crate::shard::home) fn on_broker_down(
        &mut self,
        address: Address,
        by_number: bool,
        error: &KafkaError,
    ) -> Option<Line> {
        self.failures += 1;
        let advertised = by_number && !self.access.bootstrap.contains(&address);
        let why = explain(error, advertised, &self.access);
        let failure = format!("broker {address}: {why}");
        if let KafkaError::OtherCluster { .. } = error {
            self.other_cluster = Some(failure.clone());
        }
        let reported = self.down.entry(address).or_default();
        let news = reported.len() < REASONS_REPORTED_MAX && !reported.contains(&failure);
        if news {
            reported.push(failure.clone());
        }
        self.last_failure = Some(failure.clone());
        news.then_some(Line::Warn(failure))
    }

    /// The OAuth token is there, or is missing for a reason. Control has logged it.
    pub(in crate::shard::home) fn on_token(&mut self, missing: Option<&Arc<str>>) {
        self.no_token = missing.cloned();
    }

    /// Whether the cluster has ever shown its metadata. Until then its check says what prevents it.
    pub(in crate::shard::home) const fn is_known(&self) -> bool {
        self.known
    }

    pub(in crate::shard::home) const fn failures(&self) -> u64 {
        self.failures
    }

    /// What prevents access to the cluster, if anything.
    pub(in crate::shard::home) fn problem(&self, client: &Client, now: Now) -> Option<String> {
        let cause = self.cause().map(str::to_owned);
        cause.or_else(|| describe_silence(client, now))
    }

    /// The state of the cluster. Once it has shown its metadata it never makes the process unready:
    /// what is in memory is served without it, and if all instances were unready at once, clients
    /// could not get it from any.
    pub(in crate::shard::home) fn check(&self, name: String, client: &Client, now: Now) -> Check {
        if let Some(problem) = self.problem(client, now).filter(|_| !self.known) {
            return Check::new(name, CheckState::Blocked, problem);
        }
        // If another broker still responds, only some have moved: those are reported as silent.
        if let Some(other) = self
            .other_cluster
            .as_deref()
            .filter(|_| !client.is_connected())
        {
            let detail = format!(
                "{other}; commands get 503, queries and streams go on from memory; bring the old \
                 cluster back, or restart the gateway to serve the new one"
            );
            return Check::new(name, CheckState::Degraded, detail);
        }
        let Some(silence) = describe_silence(client, now) else {
            return Check::new(name, CheckState::Ready, "");
        };
        let why = self.cause().map(|why| format!(" ({why})"));
        let why = why.unwrap_or_default();
        let detail = format!(
            "{silence}{why}; commands for partitions they lead get 503, queries and streams go on \
             from memory; start or reach these brokers"
        );
        Check::new(name, CheckState::Degraded, detail)
    }

    fn cause(&self) -> Option<&str> {
        self.no_token.as_deref().or(self.last_failure.as_deref())
    }
}

/// The brokers that have not responded for longer than usual, if there are any.
fn describe_silence(client: &Client, now: Now) -> Option<String> {
    let mut silent: Vec<_> = client.silent_brokers(now).collect();
    silent.sort_unstable();
    let named = silent.iter().take(NAMED_MAX).map(|(address, since)| {
        let seconds = now.mono.since(*since).as_secs();
        format!("broker {address} has not answered for {seconds} s")
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    if silent.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", silent.len() - NAMED_MAX));
    }
    (!silent.is_empty()).then_some(text)
}

/// Why a broker fails and, if known, what to do. `advertised`: brokers advertise its address, so
/// the config is not the cause.
fn explain(error: &KafkaError, advertised: bool, access: &Access) -> String {
    let keys = &access.keys;
    let bootstrap = || keys.key("bootstrap");
    let help = match error {
        KafkaError::Connect(ErrorKind::NotFound) if advertised => {
            return format!("its name does not resolve; {ADVERTISED}, or the name server");
        }
        KafkaError::Connect(ErrorKind::NotFound) => {
            let key = bootstrap();
            return format!("its name does not resolve; correct {key}, or the name server");
        }
        KafkaError::Connect(ErrorKind::ConnectionRefused) if advertised => {
            return format!("nobody listens there; start the broker; {ADVERTISED}");
        }
        KafkaError::Connect(ErrorKind::ConnectionRefused) => {
            let key = bootstrap();
            return format!("nobody listens there; start the broker, or correct {key}");
        }
        KafkaError::OtherCluster { .. } => {
            return format!("{error}: nothing is read from it or written to it");
        }
        KafkaError::ConnectTimeout => {
            "is it frozen, does its name resolve, is a firewall between, is this a TLS port?".into()
        }
        KafkaError::ClosedEarly if access.tls => {
            let key = keys.key("tls.certificate and key");
            format!("does it want a certificate ({key})? Is this a Kafka port?")
        }
        KafkaError::ClosedEarly => {
            let key = keys.key("tls.enabled");
            format!("if that lasts, its port wants TLS: set {key} to true, or take another port")
        }
        KafkaError::SaslWanted => {
            let key = keys.key("sasl");
            format!("if that lasts, its port wants SASL: set {key}, or take a port without")
        }
        KafkaError::NotKafka => {
            let key = bootstrap();
            format!("correct {key}, or the broker's advertised.listeners")
        }
        KafkaError::NoMetadata => {
            let key = bootstrap();
            format!("this is a controller's port, or a broker too old; correct {key}")
        }
        KafkaError::TlsWanted => {
            let key = keys.key("tls.enabled");
            format!("set {key} to true, or take its plaintext port")
        }
        KafkaError::Sasl(error) => explain_sasl(error, keys),
        // Other connection failures are not about the source of the address.
        KafkaError::Connect(_) if advertised => String::new(),
        other => return other.to_string(),
    };
    let separator = if help.is_empty() { "" } else { "; " };
    if advertised {
        format!("{error}{separator}{help}; {ADVERTISED}")
    } else {
        format!("{error}{separator}{help}")
    }
}

/// The source of an address that is not in the config.
const ADVERTISED: &str = "the address is what brokers advertise: if it is wrong, correct their \
                          advertised.listeners";

fn explain_sasl(error: &SaslError, keys: &ClusterKeys) -> String {
    let mechanism = || keys.key("sasl.mechanism");
    match error {
        SaslError::Mechanism { .. } => format!("set {} to one of these", mechanism()),
        SaslError::NotAsked => format!("take away {}, or take its SASL port", keys.key("sasl")),
        SaslError::Refused {
            mechanism: "OAUTHBEARER",
            ..
        } => format!(
            "correct what {} gives; a new token is taken as soon as it is there",
            keys.key("sasl.token_file or token_command")
        ),
        SaslError::Refused { .. } | SaslError::Server(_) => format!(
            "correct {} (a restart takes them), or make the user on the cluster",
            keys.key("sasl.username and password")
        ),
        SaslError::Impostor => "is this your cluster? Nothing was shown to it".into(),
        SaslError::Iterations { .. } => "make the user anew, with 4096 to 16384 iterations".into(),
        SaslError::Scram(_) | SaslError::Endless(_) => format!("try another {}", mechanism()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> ClusterHealth {
        ClusterHealth::new(ClusterKeys::default(), false, vec![address(1)])
    }

    fn address(port: u16) -> Address {
        let host = "kafka".into();
        Address { host, port }
    }

    #[test]
    fn each_reason_is_reported_once_per_outage_and_the_last_is_shown() {
        let mut health = health();
        let mut lines = 0;
        for _ in 0..3 {
            for error in [KafkaError::Timeout, KafkaError::TlsWanted] {
                lines += usize::from(health.on_broker_down(address(1), true, &error).is_some());
            }
        }
        assert_eq!((lines, health.failures()), (2, 6));
        assert!(health.cause().expect("down").contains("kafka.tls.enabled"));
        assert!(health.on_broker_up(&address(1)).is_some());
        assert_eq!(health.cause(), None);
        let again = health.on_broker_down(address(1), true, &KafkaError::Timeout);
        assert!(matches!(again, Some(Line::Warn(_))), "{again:?}");
    }

    #[test]
    fn an_address_that_brokers_advertise_is_not_blamed_on_the_config() {
        let mut health = health();
        for error in [
            KafkaError::Connect(ErrorKind::NotFound),
            KafkaError::Connect(ErrorKind::ConnectionRefused),
            KafkaError::Connect(ErrorKind::HostUnreachable),
            KafkaError::ConnectTimeout,
            KafkaError::NotKafka,
            KafkaError::NoMetadata,
            KafkaError::ClosedEarly,
            KafkaError::TlsWanted,
        ] {
            health.on_broker_down(address(2), true, &error);
            let shown = health.cause().expect("it is down").to_owned();
            assert!(shown.contains("advertised.listeners"), "{error}: {shown}");
            health.on_broker_down(address(1), true, &error);
            let shown = health.cause().expect("it is down");
            assert!(
                !shown.contains("what brokers advertise"),
                "{error}: {shown}"
            );
        }
        let refused = KafkaError::Connect(ErrorKind::ConnectionRefused);
        health.on_broker_down(address(2), true, &refused);
        assert!(!health.cause().expect("down").contains("kafka.bootstrap"));
    }

    #[test]
    fn another_cluster_is_named_until_a_broker_of_ours_answers() {
        let mut health = health();
        let other = KafkaError::OtherCluster {
            ours: "A".into(),
            theirs: "B".into(),
        };
        health.on_broker_down(address(1), true, &other);
        let refused = KafkaError::Connect(ErrorKind::ConnectionRefused);
        health.on_broker_down(address(1), true, &refused);
        let told = health.other_cluster.as_deref().expect("it is another one");
        assert!(told.contains("`A`") && told.contains("`B`"), "{told}");
        health.on_broker_up(&address(1));
        assert_eq!(health.other_cluster.as_deref(), None);
    }

    #[test]
    fn a_missing_token_comes_first() {
        let mut health = health();
        health.on_broker_down(address(1), true, &KafkaError::Timeout);
        health.on_token(Some(&"no token".into()));
        assert_eq!(health.cause(), Some("no token"));
        health.on_token(None);
        assert!(health.cause().expect("down").contains("broker kafka:1"));
    }
}

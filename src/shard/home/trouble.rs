//! What is wrong with the brokers, for whoever has to mend it: said when it changes, shown as long
//! as it lasts.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use super::{Level, Outbox, note};
use crate::config::ClusterKeys;
use crate::kafka::{Address, KafkaError, SaslError};

/// Reasons of one broker that are told until it answers again: some outages change their face, and
/// one that flickers between two must not fill the log.
const REASONS_TOLD_MAX: usize = 4;

/// Troubles with brokers.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    with: Spoken,
    /// Brokers that failed and have not answered since, and what was told of each: few, those of
    /// the cluster.
    down: BTreeMap<Address, Vec<String>>,
    /// The last broker that failed, and why, while none has answered since.
    last: Option<String>,
    /// Why there is no token, while there is none.
    token: Option<Arc<str>>,
    /// The broker that last reported another cluster, while no broker of the right cluster has
    /// answered since.
    other_cluster: Option<String>,
    /// Connections to brokers that failed or broke, ever.
    failed: u64,
}

/// How the cluster is spoken to.
#[derive(Debug, Default)]
struct Spoken {
    /// How messages call its keys.
    keys: ClusterKeys,
    /// By TLS.
    tls: bool,
    /// The addresses in the config. All other addresses are advertised by brokers.
    bootstrap: Vec<Address>,
}

impl Trouble {
    /// None so far.
    pub(super) fn new(keys: ClusterKeys, tls: bool, bootstrap: Vec<Address>) -> Self {
        let with = Spoken {
            keys,
            tls,
            bootstrap,
        };
        Self {
            with,
            ..Self::default()
        }
    }

    /// A broker answers. It has some connections, and each shard its own: said once a change.
    pub(super) fn on_up(&mut self, address: &Address, out: &mut Outbox) {
        (self.last, self.other_cluster) = (None, None);
        if self.down.remove(address).is_some() {
            note(out, Level::Info, format!("broker {address} answers again"));
        }
    }

    /// A broker failed, for the first time or in a new way. `by_number`: metadata names this
    /// broker.
    pub(super) fn on_down(
        &mut self,
        (address, by_number): (Address, bool),
        error: &KafkaError,
        out: &mut Outbox,
    ) {
        self.failed += 1;
        let advertised = by_number && !self.with.bootstrap.contains(&address);
        let trouble = format!(
            "broker {address}: {}",
            reason(error, advertised, &self.with)
        );
        if let KafkaError::OtherCluster { .. } = error {
            self.other_cluster = Some(trouble.clone());
        }
        let told = self.down.entry(address).or_default();
        if told.len() < REASONS_TOLD_MAX && !told.contains(&trouble) {
            told.push(trouble.clone());
            note(out, Level::Warn, trouble.clone());
        }
        self.last = Some(trouble);
    }

    /// There is a token, or none and why. Control has told it.
    pub(super) fn on_token(&mut self, missing: Option<&Arc<str>>) {
        self.token = missing.cloned();
    }

    /// What keeps from the cluster, if anything.
    pub(super) fn shown(&self) -> Option<&str> {
        self.token.as_deref().or(self.last.as_deref())
    }

    /// What now listens at the cluster's address, if it belongs to another cluster.
    pub(super) fn other_cluster(&self) -> Option<&str> {
        self.other_cluster.as_deref()
    }

    pub(super) const fn failed(&self) -> u64 {
        self.failed
    }
}

/// What is wrong with a broker and, if known, what to do. `advertised`: brokers advertise its
/// address, so the config is not the cause.
fn reason(error: &KafkaError, advertised: bool, with: &Spoken) -> String {
    let keys = &with.keys;
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
        KafkaError::ClosedEarly if with.tls => {
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
        KafkaError::Sasl(error) => sasl_help(error, keys),
        // Other connection failures are not about the source of the address.
        KafkaError::Connect(_) if advertised => String::new(),
        other => return other.to_string(),
    };
    let separator = if help.is_empty() { "" } else { "; " };
    match advertised {
        true => format!("{error}{separator}{help}; {ADVERTISED}"),
        false => format!("{error}{separator}{help}"),
    }
}

/// The source of an address that is not in the config.
const ADVERTISED: &str = "the address is what brokers advertise: if it is wrong, correct their \
                          advertised.listeners";

fn sasl_help(error: &SaslError, keys: &ClusterKeys) -> String {
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

    fn address(port: u16) -> Address {
        let host = "kafka".into();
        Address { host, port }
    }

    #[test]
    fn each_reason_is_told_once_an_outage_and_the_last_is_shown() {
        let (mut trouble, mut out) = (
            Trouble::new(ClusterKeys::default(), false, vec![address(1)]),
            Outbox::new(crate::model::ShardId(0)),
        );
        for _ in 0..3 {
            trouble.on_down((address(1), true), &KafkaError::Timeout, &mut out);
            trouble.on_down((address(1), true), &KafkaError::TlsWanted, &mut out);
        }
        assert_eq!((out.notes(), trouble.failed()), (2, 6));
        assert!(trouble.shown().expect("down").contains("kafka.tls.enabled"));
        trouble.on_up(&address(1), &mut out);
        assert_eq!((out.notes(), trouble.shown()), (3, None));
        trouble.on_down((address(1), true), &KafkaError::Timeout, &mut out);
        assert_eq!(out.notes(), 4);
    }

    #[test]
    fn an_address_that_brokers_advertise_is_not_blamed_on_the_config() {
        let (mut trouble, mut out) = (
            Trouble::new(ClusterKeys::default(), false, vec![address(1)]),
            Outbox::new(crate::model::ShardId(0)),
        );
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
            trouble.on_down((address(2), true), &error, &mut out);
            let shown = trouble.shown().expect("it is down").to_owned();
            assert!(shown.contains("advertised.listeners"), "{error}: {shown}");
            trouble.on_down((address(1), true), &error, &mut out);
            let shown = trouble.shown().expect("it is down");
            assert!(
                !shown.contains("what brokers advertise"),
                "{error}: {shown}"
            );
        }
        let refused = KafkaError::Connect(ErrorKind::ConnectionRefused);
        trouble.on_down((address(2), true), &refused, &mut out);
        assert!(!trouble.shown().expect("down").contains("kafka.bootstrap"));
    }

    #[test]
    fn another_cluster_is_named_until_a_broker_of_ours_answers() {
        let (mut trouble, mut out) = (
            Trouble::new(ClusterKeys::default(), false, vec![address(1)]),
            Outbox::new(crate::model::ShardId(0)),
        );
        let other = KafkaError::OtherCluster {
            ours: "A".into(),
            theirs: "B".into(),
        };
        trouble.on_down((address(1), true), &other, &mut out);
        let refused = KafkaError::Connect(ErrorKind::ConnectionRefused);
        trouble.on_down((address(1), true), &refused, &mut out);
        let told = trouble.other_cluster().expect("it is another one");
        assert!(told.contains("`A`") && told.contains("`B`"), "{told}");
        trouble.on_up(&address(1), &mut out);
        assert_eq!(trouble.other_cluster(), None);
    }

    #[test]
    fn a_missing_token_comes_first() {
        let (mut trouble, mut out) = (
            Trouble::new(ClusterKeys::default(), false, vec![address(1)]),
            Outbox::new(crate::model::ShardId(0)),
        );
        trouble.on_down((address(1), true), &KafkaError::Timeout, &mut out);
        trouble.on_token(Some(&"no token".into()));
        assert_eq!(trouble.shown(), Some("no token"));
        trouble.on_token(None);
        assert!(trouble.shown().expect("down").contains("broker kafka:1"));
    }
}

//! The commands that ask brokers and end: `check --live` and `topics`.

use std::time::Duration;

use super::security;
use super::{BootError, system};
use crate::config::{BrokerAddress, ClusterIndex, Config, NewTopics, TopicUse};
use crate::control::{
    AskError, BrokerSecurity, EnsureError, Ensured, Tap, TapError, TapFrom, TapItem, TapNext,
    Tokens, TopicReport, TopicSpec, ensure_topics, survey, topic_reports,
};
use crate::model::TopicName;
use crate::shard::ClusterSecurity;

/// Time for a cluster to answer all questions.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time for the source of a token to give one.
const TOKEN_WAIT: Duration = Duration::from_secs(10);

/// Why the brokers could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The process can't even begin.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A cluster does not answer, or refuses the login.
    #[error("{brokers}: {source}")]
    Ask {
        /// The cluster, as messages name it.
        brokers: String,
        /// What went wrong.
        source: AskError,
    },
    /// There is no token to log in with.
    #[error("{0}")]
    Token(String),
    /// Topics could not be created.
    #[error(transparent)]
    Ensure(#[from] EnsureError),
    /// A topic can't be read.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The name is neither a topic's nor a stream's.
    #[error("`{name}` is no stream of the config and no name of a topic: {why}")]
    Name {
        /// The name that was given.
        name: String,
        /// Why no topic can have the name.
        why: &'static str,
    },
}

impl LiveError {
    /// The exit code of sysexits: 78 if the config must change, else 69.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Boot(error) => error.exit_code(),
            Self::Ask { .. } | Self::Token(_) | Self::Ensure(_) | Self::Tap(_) => 69,
            Self::Name { .. } => 2,
        }
    }
}

/// What all clusters of a config have of its topics.
#[derive(Debug, Default)]
pub struct LiveReport {
    /// One line about each cluster: its brokers.
    pub clusters: Vec<String>,
    /// One report for each topic of the config.
    pub topics: Vec<TopicReport>,
}

/// Asks every cluster of a config for its topics.
///
/// # Errors
/// The first cluster that can't be asked.
pub fn ask_clusters(config: &Config) -> Result<LiveReport, LiveError> {
    let runtime = runtime()?;
    let mut report = LiveReport::default();
    for cluster in clusters(config)? {
        let asked = async {
            let access = cluster.security(config).await?;
            let asked = survey(&cluster.bootstrap, &access, &cluster.topics, PATIENCE).await;
            asked.map_err(|source| LiveError::Ask {
                brokers: config.cluster_keys(cluster.index).brokers(),
                source,
            })
        };
        let survey = runtime.block_on(asked)?;
        let names: Vec<_> = cluster.bootstrap.iter().map(ToString::to_string).collect();
        report.clusters.push(format!(
            "{} answer at {}: {} brokers",
            config.cluster_keys(cluster.index).brokers(),
            names.join(", "),
            survey.brokers
        ));
        let reports = topic_reports(config, &cluster.topics, &survey);
        report.topics.extend(reports);
    }
    Ok(report)
}

/// Creates the topics of a config that do not exist. Returns each topic, and whether it was
/// created.
///
/// # Errors
/// A cluster can't be asked, or refuses a topic. Topics created before remain.
pub fn create_topics(config: &Config, new: NewTopics) -> Result<Vec<(String, Ensured)>, LiveError> {
    let runtime = runtime()?;
    let mut all = Vec::new();
    for cluster in clusters(config)? {
        let spec = |topic: &TopicUse| {
            let configs = topic.configs().iter();
            let configs = configs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            TopicSpec {
                name: topic.topic.clone(),
                partitions: new.partitions,
                replication: new.replication.unwrap_or(0),
                configs: configs.collect(),
            }
        };
        let specs: Vec<_> = cluster.topics.iter().map(spec).collect();
        let created = async {
            let access = cluster.security(config).await?;
            let created = ensure_topics(&cluster.bootstrap, &access, &specs, PATIENCE).await;
            created.map_err(LiveError::from)
        };
        let created = runtime.block_on(created)?;
        let names = specs.iter().map(|it| it.name.to_string());
        all.extend(names.zip(created));
    }
    Ok(all)
}

/// Reads the records of a topic, or of a stream's topic, until `show` has enough.
///
/// # Errors
/// The name means no topic, or the topic can't be read.
pub fn tap(
    config: &Config,
    name: &str,
    from: i64,
    show: impl FnMut(TapItem<'_>) -> TapNext,
) -> Result<(), LiveError> {
    let (cluster, topic) = tapped_topic(config, name)?;
    let clusters = config.cluster_indexes().zip(security::all(config)?);
    let cluster = clusters
        .filter(|(index, _)| *index == cluster)
        .map(live_cluster(config));
    let Some(cluster) = cluster.last() else {
        return Ok(()); // Every index names a cluster.
    };
    let from = match u64::try_from(from) {
        Ok(offset) => TapFrom::Offset(offset),
        Err(_) => TapFrom::Last(from.unsigned_abs()),
    };
    runtime()?.block_on(async {
        let tap = Tap {
            bootstrap: cluster.bootstrap.clone(),
            security: cluster.security(config).await?,
            topic,
            from,
        };
        tap.read(show).await.map_err(LiveError::from)
    })
}

/// The topic that a name means: a stream's, one that routes name, or any other of `[kafka]`.
fn tapped_topic(config: &Config, name: &str) -> Result<(ClusterIndex, TopicName), LiveError> {
    if let Some(stream) = config.streams.iter().find(|it| it.name == name) {
        return Ok((stream.cluster, stream.topic.clone()));
    }
    let topics = config.topics().into_iter();
    let mut named = topics.filter(|it| it.topic.as_str() == name);
    if let Some(topic) = named.next() {
        return Ok((topic.cluster, topic.topic));
    }
    let topic = TopicName::new(name).map_err(|why| LiveError::Name {
        name: name.to_owned(),
        why,
    })?;
    Ok((ClusterIndex::default(), topic))
}

fn runtime() -> Result<tokio::runtime::Runtime, BootError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(system("start a runtime"))
}

/// One cluster of a config, with its topics.
struct LiveCluster {
    index: ClusterIndex,
    bootstrap: Vec<BrokerAddress>,
    topics: Vec<TopicUse>,
    security: ClusterSecurity,
}

/// The clusters of a config that have topics.
fn clusters(config: &Config) -> Result<Vec<LiveCluster>, BootError> {
    let secured = security::all(config)?;
    let each = config.cluster_indexes().zip(secured);
    let each = each.map(live_cluster(config));
    Ok(each.filter(|it| !it.topics.is_empty()).collect())
}

fn live_cluster(config: &Config) -> impl Fn((ClusterIndex, ClusterSecurity)) -> LiveCluster {
    |(index, security)| {
        let cluster = config.cluster(index);
        let bootstrap = cluster.map_or(&config.settings.kafka.bootstrap, |it| &it.bootstrap);
        let topics = config.topics().into_iter();
        LiveCluster {
            index,
            bootstrap: bootstrap.clone(),
            topics: topics.filter(|it| it.cluster == index).collect(),
            security,
        }
    }
}

impl LiveCluster {
    /// How to connect to the cluster, with a token if it needs one.
    async fn security(&self, config: &Config) -> Result<BrokerSecurity, LiveError> {
        let (_, sasl) = config.cluster_security(self.index);
        let token = match Tokens::of(sasl, config.cluster_keys(self.index)) {
            None => None,
            Some(mut tokens) => {
                let token = tokio::time::timeout(TOKEN_WAIT, tokens.next()).await;
                let token = token.unwrap_or_else(|_| Err("no token in time".into()));
                Some(token.map_err(LiveError::Token)?)
            }
        };
        let entropy = self.security.entropy;
        Ok(BrokerSecurity {
            tls: self.security.tls.clone(),
            sasl: self.security.sasl.clone().map(|sasl| (sasl, entropy)),
            token,
        })
    }
}

//! One cluster at a home shard: its client, the client's sockets, and how its brokers fare. What one
//! cluster suffers stays in here.

use crate::kafka::{Address, Client, ClusterView, DirectoryRole, TopicHandle};
use crate::metrics::{Check, CheckState};
use crate::model::{Now, ShardId, TopicName};
use crate::shard::ClusterSecurity;
use crate::shard::snapshot::{ClusterIndex, Snapshot};

use super::BrokerSockets;
use super::trouble::Trouble;

/// Brokers a check names; the rest is a number.
const NAMED_MAX: usize = 4;

#[derive(Debug)]
pub(in crate::shard) struct Cluster {
    pub(in crate::shard) client: Client,
    pub(in crate::shard) sockets: BrokerSockets,
    index: ClusterIndex,
    /// The cluster's own id, once it said it.
    pub(super) id: String,
    /// It has shown itself once.
    known: bool,
    /// By the client's handle: the place among the home's topics; `None`: watched for another home.
    pub(super) handles: Vec<Option<usize>>,
    pub(super) trouble: Trouble,
}

impl Cluster {
    pub(super) fn new(
        (me, index): (ShardId, ClusterIndex),
        snapshot: &Snapshot,
        security: &ClusterSecurity,
        seed: u64,
        now: Now,
    ) -> Self {
        let settings = client_settings(snapshot, index, security);
        let role = match me {
            ShardId(0) => DirectoryRole::Own,
            _ => DirectoryRole::Fed,
        };
        let keys = snapshot.config.cluster_keys(index);
        let bootstrap = settings.bootstrap.clone();
        Self {
            client: Client::new(settings, seed, role, now),
            sockets: BrokerSockets::new(index, security.tls.clone(), keys.clone()),
            index,
            id: String::new(),
            known: false,
            handles: Vec::new(),
            trouble: Trouble::new(keys, security.tls.is_some(), bootstrap),
        }
    }

    /// Takes an interest in a topic; `at`: its place among the home's topics, if it is one.
    pub(super) fn watch(&mut self, topic: &TopicName, at: Option<usize>) -> TopicHandle {
        let handle = self.client.watch(topic);
        debug_assert_eq!(handle, TopicHandle(self.handles.len() as u32));
        self.handles.push(at);
        handle
    }

    pub(super) fn learn(&mut self, view: &ClusterView) {
        self.known = true;
        if let Some(id) = &view.cluster_id {
            self.id.clone_from(id);
        }
    }

    /// Whether it has shown itself; until it has, its check says what keeps it.
    pub(super) const fn is_known(&self) -> bool {
        self.known
    }

    /// What keeps a topic of which nothing is known yet.
    pub(super) fn trouble(&self, now: Now) -> Option<String> {
        let shown = self.trouble.shown().map(str::to_owned);
        shown.or_else(|| self.silence(now))
    }

    /// How the cluster stands. Once it has shown itself it is never what keeps the process from
    /// being ready: what is in memory is served without it, and if all gateways said no at once,
    /// nobody would get that.
    pub(super) fn check(&self, snapshot: &Snapshot, now: Now) -> Check {
        let name = snapshot.cluster_name(self.index);
        if let Some(trouble) = self.trouble(now).filter(|_| !self.known) {
            return Check::new(name, CheckState::Blocked, trouble);
        }
        // If another broker still answers, only some have moved: those are reported as silent.
        let other = self.trouble.other_cluster();
        if let Some(other) = other.filter(|_| !self.client.is_connected()) {
            let detail = format!(
                "{other}; commands get 503, queries and streams go on from memory; bring the old \
                 cluster back, or restart the gateway to serve the new one"
            );
            return Check::new(name, CheckState::Degraded, detail);
        }
        let Some(silence) = self.silence(now) else {
            return Check::new(name, CheckState::Ready, "");
        };
        let why = self.trouble.shown();
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let detail = format!(
            "{silence}{why}; commands for partitions they lead get 503, queries and streams go on \
             from memory; start or reach these brokers"
        );
        Check::new(name, CheckState::Degraded, detail)
    }

    fn silence(&self, now: Now) -> Option<String> {
        let mut silent: Vec<_> = self.client.silent_brokers(now).collect();
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
}

/// The settings of a client, as the config's table has them.
pub(super) fn client_settings(
    snapshot: &Snapshot,
    index: ClusterIndex,
    security: &ClusterSecurity,
) -> crate::kafka::Settings {
    let kafka = &snapshot.config.settings.kafka;
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let bootstrap = snapshot.bootstrap(index).iter().map(|broker| Address {
        host: broker.host.clone(),
        port: broker.port,
    });
    let defaults = crate::kafka::Settings::default();
    let fetch_bytes_max = bytes(kafka.fetch_bytes_max);
    crate::kafka::Settings {
        client_id: kafka.client_id.clone(),
        bootstrap: bootstrap.collect(),
        sasl: security.sasl.clone(),
        entropy: security.entropy,
        connect_timeout: kafka.connect_timeout,
        request_timeout: kafka.request_timeout,
        fetch_wait_max: kafka.fetch_wait,
        stall_max: kafka.stall_max,
        fetch_sessions: kafka.fetch_sessions,
        rack: kafka.rack.clone().unwrap_or_default(),
        fetch_bytes_max,
        // A batch comes whole, so that the answer may be longer than what was asked for.
        frame_bytes_max: defaults
            .frame_bytes_max
            .max(fetch_bytes_max.saturating_mul(2)),
        partition_bytes_max: bytes(kafka.fetch_partition_bytes_max),
        decompressed_bytes_max: bytes(kafka.batch_bytes_max),
        metadata_refresh: kafka.metadata_age_max,
        backoff_max: kafka.backoff_max,
        delivery_timeout: kafka.delivery_timeout,
        produce_bytes_max: bytes(kafka.produce_bytes_max),
        ..defaults
    }
}

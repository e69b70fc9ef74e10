//! A cluster at a home shard: its client, the client's sockets and the health of its brokers. The
//! failure of one cluster does not affect another.

use crate::config::PENDING_PRODUCE_BYTES_MAX;
use crate::kafka::{Address, Client, ClusterView, DirectoryRole, TopicHandle};
use crate::metrics::Check;
use crate::model::{Now, ShardId, TopicName, u32_of};
use crate::shard::setup::ClusterSecurity;
use crate::shard::snapshot::{ClusterId, Snapshot};

use super::broker_sockets::BrokerSockets;
use super::health::ClusterHealth;

#[derive(Debug)]
pub(in crate::shard) struct Cluster {
    pub(in crate::shard) client: Client,
    pub(in crate::shard) sockets: BrokerSockets,
    index: ClusterId,
    /// The cluster's own id. Empty before a broker has reported one.
    pub(super) id: String,
    /// By the client's handle: the index among the home's topics. `None`: the topic is watched for
    /// another home.
    handles: Vec<Option<usize>>,
    pub(super) health: ClusterHealth,
}

impl Cluster {
    pub(super) fn new(
        me: ShardId,
        index: ClusterId,
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
        let keys = snapshot.cluster_keys(index);
        let bootstrap = settings.bootstrap.clone();
        Self {
            client: Client::new(settings, seed, role, now),
            sockets: BrokerSockets::new(index, security.tls.clone(), keys.clone()),
            index,
            id: String::new(),
            handles: Vec::new(),
            health: ClusterHealth::new(keys, security.tls.is_some(), bootstrap),
        }
    }

    /// Watches a topic. `at`: its index among the home's topics, if it is at home here.
    pub(super) fn watch(&mut self, topic: &TopicName, at: Option<usize>) -> TopicHandle {
        let handle = self.client.watch(topic);
        debug_assert_eq!(handle, TopicHandle(u32_of(self.handles.len())));
        self.handles.push(at);
        handle
    }

    /// The place of a topic among the home's, by its handle. `None`: it is watched for another
    /// home.
    pub(super) fn at_home(&self, handle: TopicHandle) -> Option<usize> {
        self.handles.get(handle.0 as usize).copied().flatten()
    }

    /// The cluster has shown its metadata.
    pub(super) fn on_view(&mut self, view: &ClusterView) {
        self.health.on_view();
        if let Some(id) = &view.cluster_id {
            self.id.clone_from(id);
        }
    }

    /// The state of the cluster.
    pub(super) fn check(&self, snapshot: &Snapshot, now: Now) -> Check {
        let name = snapshot.cluster_name(self.index);
        self.health.check(name, &self.client, now)
    }
}

/// The settings of a client, as the config's table has them.
pub(super) fn client_settings(
    snapshot: &Snapshot,
    index: ClusterId,
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
        // A response has one complete batch at least, so it may be longer than asked for.
        frame_bytes_max: defaults
            .frame_bytes_max
            .max(fetch_bytes_max.saturating_mul(2)),
        partition_bytes_max: bytes(kafka.fetch_partition_bytes_max),
        decompressed_bytes_max: bytes(kafka.batch_bytes_max),
        piece_bytes_max: snapshot.work.piece_bytes_max,
        piece_records_max: snapshot.work.piece_records_max,
        metadata_refresh: kafka.metadata_age_max,
        backoff_max: kafka.backoff_max,
        delivery_timeout: kafka.delivery_timeout,
        produce_bytes_max: bytes(kafka.produce_bytes_max),
        pending_produce_bytes_max: PENDING_PRODUCE_BYTES_MAX,
        ..defaults
    }
}

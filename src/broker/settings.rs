//! The size and the limits of a development broker.

/// The bounds of a development broker. Every table it keeps has one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes of the cluster, 1 to [`Settings::NODES_MAX`], numbered from 1. All share the same
    /// logs, so a follower is never behind its leader.
    pub nodes: u16,
    /// Topics at most. A further CreateTopics gets POLICY_VIOLATION.
    pub topics_max: usize,
    /// Partitions at most, over all topics.
    pub partitions_max: usize,
    /// Bytes of record batches at most, over all partitions. At the limit, compacted topics are
    /// compacted, then the oldest batches of `cleanup.policy=delete` topics are dropped. If that
    /// frees too little, a produce gets KAFKA_STORAGE_ERROR.
    pub bytes_max: usize,
    /// Connections at most, over all nodes.
    pub connections_max: usize,
    /// Bytes of one request at most. A longer one closes its connection. Also limits the bytes of
    /// one Fetch response, and the unsent bytes of a connection before its next request is read.
    pub frame_bytes_max: usize,
    /// Whether a Fetch response may end in a partial batch, cut at the limit that was asked for, as
    /// a real broker's does.
    pub cut_responses: bool,
    /// Whether clients may have fetch sessions (KIP-227). If not, they get session id 0, as from a
    /// broker that has too many.
    pub fetch_sessions: bool,
    /// The product that the broker imitates: API versions and behaviour.
    pub profile: Profile,
    /// Partitions of a topic that a client's Metadata request creates, if the client allows it
    /// (`allow_auto_topic_creation`). `None`: such a topic is not created.
    pub auto_create_partitions: Option<u32>,
    /// The cluster's id. By default it is the same for every development broker, so that a client
    /// accepts a restarted broker at the same address as the same cluster, with its topics
    /// re-created.
    pub cluster_id: String,
}

/// A product that a broker can imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Apache Kafka 4.3, as far as the codec crate can encode it.
    Kafka43,
    /// Redpanda up to 25.2, by its sources: never compared with a real one. No topic ids.
    Redpanda,
    /// Redpanda from 25.3 on: the same with topic ids.
    RedpandaWithIds,
}

impl Settings {
    /// Nodes a cluster may have.
    pub const NODES_MAX: u16 = 16;
    /// The default id of a cluster: 22 characters, like Kafka's own ids.
    pub const CLUSTER_ID: &str = "sluicegate-development";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: 1,
            topics_max: 1_000,
            partitions_max: 4_096,
            bytes_max: 256 << 20,
            connections_max: 1_024,
            frame_bytes_max: 16 << 20,
            cut_responses: true,
            fetch_sessions: true,
            profile: Profile::Kafka43,
            auto_create_partitions: None,
            cluster_id: Self::CLUSTER_ID.to_owned(),
        }
    }
}

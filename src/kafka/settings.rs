//! The settings of a client. Every number bounds memory, work or waiting.

use std::time::Duration;

use super::backoff::Backoff;
use super::records::PieceLimits;
use super::sasl::{Entropy, Sasl};

/// The address of a broker: a name or an IP address, and a port. The driver resolves names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The TCP port of the broker.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Settings of one client: the connections of one shard to one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `client.id` in each request. Quotas and broker logs name it.
    pub client_id: String,
    /// Brokers to ask first, and again when every known broker fails. Not empty if the client owns
    /// the directory.
    pub bootstrap: Vec<Address>,
    /// The credentials, for clusters that require SASL.
    pub sasl: Option<Sasl>,
    /// For the nonces of SASL.
    pub entropy: Entropy,
    /// How long a connection may take to be established, including TLS.
    pub connect_timeout: Duration,
    /// How long a request may have no response before the connection is given up. A Fetch has its
    /// own wait in addition.
    pub request_timeout: Duration,
    /// A connection that was not needed for this time is closed. Brokers do that after 10 min by
    /// default, and some balancers after 4 min, maybe just when a command is to be sent.
    pub idle_timeout: Duration,
    /// How long a Fetch waits at the broker for records.
    pub fetch_wait_max: Duration,
    /// How long a Fetch of the history lane waits at the broker. The lane's next read waits behind
    /// this Fetch.
    pub history_wait_max: Duration,
    /// Whether Fetches use sessions, in which they name only what has changed (KIP-227).
    pub fetch_sessions: bool,
    /// The rack of the gateway, for brokers that know their racks (KIP-392). Empty if there is
    /// none.
    pub rack: String,
    /// Bytes of one Fetch response over all its partitions. One record batch may exceed it.
    pub fetch_bytes_max: u32,
    /// Bytes of one partition in a Fetch response. One record batch may exceed it.
    pub partition_bytes_max: u32,
    /// Bytes of any response. A longer one ends the connection before memory is allocated. Must
    /// exceed `fetch_bytes_max` and each topic's `max.message.bytes`.
    pub frame_bytes_max: u32,
    /// Bytes one record batch may unpack to. A longer batch is undecodable. This is also how much
    /// one Fetch response may unpack to before the rest is left for the next.
    pub decompressed_bytes_max: u32,
    /// Bytes of one piece of unpacked records. A larger record is a piece of its own.
    pub piece_bytes_max: usize,
    /// Records of one piece of unpacked records.
    pub piece_records_max: usize,
    /// How often metadata and topic configs are requested if nothing is wrong.
    pub metadata_refresh: Duration,
    /// The first wait after a failure. The wait doubles up to `backoff_max`, with jitter of one
    /// half.
    pub backoff_min: Duration,
    /// The longest wait after a failure.
    pub backoff_max: Duration,
    /// From `produce` to the last try. A record not acknowledged by then is refused or unknown.
    pub delivery_timeout: Duration,
    /// How long `ends` may take.
    pub ends_timeout: Duration,
    /// A broker is *stalled* when its response has been due for this time. Nothing more is sent
    /// behind that request, since sent requests can't be taken back. For a slower broker the time
    /// is the same share of its limit, `stall / unsent_max`.
    pub stall: Duration,
    /// The longest that a record waits unsent for a leader that is stalled, unavailable, or not
    /// elected. Then the record is refused. Longer than a leader takes to move (0.1 to 0.5 s), and
    /// shorter than the second in which a client must learn that the brokers are unavailable.
    pub unsent_max: Duration,
    /// The upper bound of a broker's silence limit, which grows if its recent responses were slow.
    /// See `pace.rs`.
    pub stall_max: Duration,
    /// Bytes of one produced record batch. The topic's `max.message.bytes` may lower it.
    pub produce_bytes_max: u32,
    /// Bytes of records without a known outcome, over all partitions.
    pub pending_produce_bytes_max: usize,
}

impl Settings {
    /// The limits of one piece of unpacked records.
    pub(super) const fn piece_limits(&self) -> PieceLimits {
        PieceLimits {
            bytes: self.piece_bytes_max,
            records: self.piece_records_max,
            batch_bytes: self.decompressed_bytes_max,
        }
    }

    pub(super) const fn backoff(&self) -> Backoff {
        let (min, max) = (self.backoff_min, self.backoff_max);
        Backoff { min, max }
    }
}

/// The defaults of the config, and settings that the config does not have. A test of the home fails
/// if the two differ.
impl Default for Settings {
    fn default() -> Self {
        const MIB: u32 = 1 << 20;
        Self {
            client_id: "sluicegate".into(),
            bootstrap: Vec::new(),
            sasl: None,
            entropy: Entropy([0; 32]),
            connect_timeout: Duration::from_secs(4),
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(180),
            fetch_wait_max: Duration::from_millis(500),
            history_wait_max: Duration::from_millis(50),
            fetch_sessions: true,
            rack: String::new(),
            fetch_bytes_max: 8 * MIB,
            partition_bytes_max: MIB,
            frame_bytes_max: 64 * MIB,
            decompressed_bytes_max: 16 * MIB,
            piece_bytes_max: PieceLimits::BYTES,
            piece_records_max: PieceLimits::RECORDS,
            metadata_refresh: Duration::from_secs(30),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            delivery_timeout: Duration::from_secs(30),
            ends_timeout: Duration::from_secs(1),
            stall: Duration::from_millis(500),
            unsent_max: Duration::from_millis(900),
            stall_max: Duration::from_secs(3),
            produce_bytes_max: MIB,
            pending_produce_bytes_max: 64 << 20,
        }
    }
}

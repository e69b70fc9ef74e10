//! The table of settings: each is declared once, here. Its file key, flag, environment name, help
//! text and its line in `docs/config.md` all come from the declaration.
//!
//! `streams.window_bytes_max` in the file is `--streams-window-bytes-max` on the command line and
//! `SLUICEGATE_STREAMS_WINDOW_BYTES_MAX` in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::{
    Address, Broker, BrokerAddress, Count, Cpus, FilePath, Kind, ListOf, Maybe, OneOf, Raw,
    SecretSource, SecretText, Switch, Text,
};
use super::unit::{GIB, KIB, MIB, Size, Time};
use crate::model::SHARDS_MAX;

/// Whether a change takes effect by a reload or by a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// A reload applies it, with no connection dropped.
    Reload,
    /// Only a restart does.
    Restart,
}

/// One row of the table.
pub struct Setting {
    /// Its key in the file, with the section: `streams.heartbeat`.
    pub key: &'static str,
    /// The heading it stands under.
    pub group: &'static str,
    /// What it does and what it costs, in whole sentences.
    pub doc: &'static str,
    /// When a change takes effect.
    pub apply: Apply,
    /// Reads a value into its place.
    pub put: fn(&mut Settings, &Raw) -> Result<(), String>,
    /// The value as the file would have it.
    pub show: fn(&Settings) -> String,
    /// What is allowed.
    pub says: fn() -> String,
    /// Whether its value must not be seen: then it has no flag.
    pub secret: fn() -> bool,
}

impl Setting {
    /// `--streams-heartbeat`, without the dashes before it.
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// `SLUICEGATE_STREAMS_HEARTBEAT`. None ends in `_PORT`, because Kubernetes sets such variables
    /// for services: `reuse_port` is `SLUICEGATE_REUSEPORT`.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.key.replace('.', "_").to_uppercase();
        match name.strip_suffix("_PORT") {
            Some(rest) => format!("SLUICEGATE_{rest}PORT"),
            None => format!("SLUICEGATE_{name}"),
        }
    }

    /// The default for people: an empty list has a word.
    pub(super) fn default_shown(&self, defaults: &Settings) -> String {
        match (self.show)(defaults) {
            shown if shown.is_empty() => "empty".into(),
            shown => shown,
        }
    }
}

macro_rules! settings {
    (
        $heading:literal
        $(#[doc = $root_doc:literal])+
        $Root:ident { $(
            $(#[doc = $doc0:literal])+
            $name0:ident : $ty0:ty = $default0:expr, $kind0:expr, $apply0:ident;
        )+ }
        $(
            $group_heading:literal
            $(#[doc = $group_doc:literal])+
            $group:ident $path:literal : $Group:ident { $(
                $(#[doc = $doc:literal])+
                $name:ident : $ty:ty = $default:expr, $kind:expr, $apply:ident;
            )+ }
        )+
    ) => {
        $(#[doc = $root_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Root {
            $( $(#[doc = $doc0])+ pub $name0: $ty0, )+
            $( $(#[doc = $group_doc])+ pub $group: $Group, )+
        }

        impl Default for $Root {
            fn default() -> Self {
                Self { $( $name0: $default0, )+ $( $group: $Group::default(), )+ }
            }
        }

        $(
            $(#[doc = $group_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Group { $( $(#[doc = $doc])+ pub $name: $ty, )+ }

            impl Default for $Group {
                fn default() -> Self {
                    Self { $( $name: $default, )+ }
                }
            }
        )+

        /// Every setting, in the order of the documentation.
        pub static TABLE: &[Setting] = &[
            $( Setting {
                key: stringify!($name0),
                group: $heading,
                doc: concat!($($doc0),+),
                apply: Apply::$apply0,
                put: |settings, raw| {
                    settings.$name0 = $kind0.read(raw)?;
                    Ok(())
                },
                show: |settings| $kind0.show(&settings.$name0),
                says: || $kind0.says(),
                secret: || $kind0.is_secret(),
            }, )+
            $( $( Setting {
                key: concat!($path, ".", stringify!($name)),
                group: $group_heading,
                doc: concat!($($doc),+),
                apply: Apply::$apply,
                put: |settings, raw| {
                    settings.$group.$name = $kind.read(raw)?;
                    Ok(())
                },
                show: |settings| $kind.show(&settings.$group.$name),
                says: || $kind.says(),
                secret: || $kind.is_secret(),
            }, )+ )+
        ];
    };
}

impl Settings {
    /// The key of a setting that differs in `other`. `None` if all are equal.
    #[must_use]
    pub fn differs_in(&self, other: &Self) -> Option<&'static str> {
        if self == other {
            return None;
        }
        let differs = |setting: &&Setting| (setting.show)(self) != (setting.show)(other);
        // Secrets are never shown, so that two of them look alike.
        let first = TABLE.iter().find(differs);
        Some(first.map_or("a secret", |setting| setting.key))
    }

    /// How many shards the process has, where it may run on `cpus` CPUs: as many as `shards` says,
    /// else one for each of the `cpus` setting, else one for each CPU. From 1 to [`SHARDS_MAX`].
    #[must_use]
    pub fn shards_on(&self, cpus: u16) -> u16 {
        let named = self
            .cpus
            .as_ref()
            .map(|list| u16::try_from(list.len()).unwrap_or(u16::MAX));
        let shards = self.shards.or(named).unwrap_or(cpus);
        shards.clamp(1, SHARDS_MAX)
    }
}

/// How clients are told apart before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Every client is anonymous, by decision.
    None,
}

/// How brokers are told who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password as they are: within TLS only.
    Plain,
    /// A password that never crosses.
    ScramSha256,
    /// The same by a longer hash.
    ScramSha512,
    /// A token.
    OauthBearer,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// Changes of state.
    Info,
    /// For whoever looks for a bug.
    Debug,
    /// Everything.
    Trace,
}

const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Listeners of one kind a process may have; a listener's number is a byte.
const LISTENERS_MAX: usize = 16;

settings! {
    "Serving"
    /// Every value that tunes the process, bounded. Counts and sizes are for the whole process
    /// unless their line says otherwise.
    Settings {
        /// Addresses for plain HTTP. Beyond loopback, `auth` must be set.
        listen: Vec<SocketAddr> = vec![([127, 0, 0, 1], 8080).into()],
            ListOf(Address, LISTENERS_MAX), Restart;
        /// How clients are authenticated. A listener beyond loopback needs it said: `none` makes
        /// every client anonymous.
        auth: Option<Auth> = None,
            OneOf(&[("unset", None), ("none", Some(Auth::None))]), Restart;
        /// Shards: threads that serve. Unset, as many as the process has CPUs, by its affinity and
        /// by the CPU quota of its cgroup.
        shards: Option<u16> = None, Maybe(Count(1..=SHARDS_MAX), "one a CPU"), Restart;
        /// The first so many shards do the Kafka work alone, without clients.
        kafka_shards: u16 = 0, Count(0..=SHARDS_MAX - 1), Restart;
        /// CPUs the shards are pinned to, one each in this order; with more shards than CPUs, in
        /// turn. Unset, shards are pinned only where they fill all CPUs the process may run on, so
        /// that two gateways of few shards do not share one.
        cpus: Option<Vec<usize>> = None, Maybe(Cpus, "those the process may run on"), Restart;
        /// What all caps together may take; `check` adds them up and refuses more.
        memory: Option<usize> = None,
            Maybe(Size(64 * MIB..=16 * 1024 * GIB), "the sum is shown, not bounded"), Restart;
        /// Lets another process listen on the same addresses, for an upgrade without a pause. The
        /// process then accepts clients only once a route is ready. Without it, clients are
        /// accepted at once, and routes that are not ready answer 503.
        reuse_port: bool = false, Switch, Restart;
        /// How long a process continues to execute new requests after SIGTERM. `/readyz` fails from
        /// the start, and each answer ends its connection, so that balancers choose another
        /// instance.
        drain_grace: Duration = s(5), Time(s(0)..=s(3600)), Reload;
        /// How long a stopping process then waits for replies to commands that a broker has. The
        /// ends of its streams are spread over this time, so that their clients do not all
        /// reconnect at once.
        drain: Duration = s(30), Time(s(0)..=s(3600)), Reload;
    }

    "TLS"
    /// TLS towards clients.
    tls "tls": Tls {
        /// Addresses for HTTPS. Beyond loopback, `auth` must be set.
        listen: Vec<SocketAddr> = vec![], ListOf(Address, LISTENERS_MAX), Restart;
        /// Certificate chain in PEM, the server's own first.
        certificate: Option<PathBuf> = None, Maybe(FilePath, "no HTTPS"), Restart;
        /// Its private key in PEM.
        key: Option<PathBuf> = None, Maybe(FilePath, "no HTTPS"), Restart;
        /// Time from the accept of a connection to the end of its TLS handshake. After it, the
        /// connection is closed.
        handshake_timeout: Duration = s(10), Time(ms(100)..=s(300)), Reload;
    }

    "Admin"
    /// Metrics, health and status, on a port of their own.
    admin "admin": Admin {
        /// Address of `/metrics`, `/livez`, `/readyz` and `/status`. Loopback only, for now.
        listen: Option<SocketAddr> = Some(([127, 0, 0, 1], 9464).into()),
            Maybe(Address, "no admin port"), Restart;
        /// Names the `Host` header may have besides loopback's (against DNS rebinding).
        hosts: Vec<String> = vec![], ListOf(Text(253), 16), Restart;
    }

    "Kafka"
    /// The cluster and how patient we are with it.
    kafka "kafka": Kafka {
        /// Brokers to ask first; the rest of the cluster is learned from them.
        bootstrap: Vec<BrokerAddress> = vec![BrokerAddress::local()],
            ListOf(Broker, 64), Restart;
        /// The name brokers see in their logs and quotas.
        client_id: String = "sluicegate".into(), Text(128), Restart;
        /// What the cluster's logs are called, where they are copies with the same offsets of
        /// another cluster's (a replica, or the origin of one): gateways that read either then
        /// understand each other's event ids. Name them anew when a topic is made again.
        log_id: Option<String> = None, Maybe(Text(128), "the topic's id"), Restart;
        /// A connection to a broker that does not stand by then is given up and tried again.
        connect_timeout: Duration = s(4), Time(ms(100)..=s(60)), Restart;
        /// A broker that has not answered by then is left.
        request_timeout: Duration = s(10), Time(ms(500)..=s(300)), Restart;
        /// From the arrival of a command to the last try of its produce. Services may forget a
        /// command twice this long after its reply.
        delivery_timeout: Duration = s(30), Time(s(1)..=s(300)), Restart;
        /// Longest wait before a broker is tried again; jittered. No longer than a second: clients
        /// wait behind it.
        backoff_max: Duration = s(1), Time(ms(10)..=s(1)), Restart;
        /// How long a broker may hold a fetch that has nothing to give.
        fetch_wait: Duration = ms(500), Time(ms(10)..=s(30)), Restart;
        /// A broker whose response is due counts as unavailable after four times the p99 of its
        /// response times in the last minute: after 0.9 s at least, and after this time at most.
        /// Commands that are unsent by then are refused.
        stall_max: Duration = s(3), Time(ms(900)..=s(30)), Restart;
        /// Tell brokers once which partitions are read, then only what changes (KIP-227). Off:
        /// every fetch names all of them.
        fetch_sessions: bool = true, Switch, Restart;
        /// The rack or zone this gateway is in, as in the brokers' `broker.rack`: where a broker of
        /// the same rack has a partition and the cluster selects replicas by rack, it is read
        /// there (KIP-392).
        rack: Option<String> = None, Maybe(Text(128), "leaders are read"), Restart;
        /// Bytes a fetch may bring, over all its partitions.
        fetch_bytes_max: usize = 8 * MIB, Size(64 * KIB..=GIB), Restart;
        /// Bytes a fetch may bring of one partition.
        fetch_partition_bytes_max: usize = MIB, Size(16 * KIB..=GIB), Restart;
        /// Bytes one batch may have once decompressed. A larger batch is skipped visibly: streams
        /// receive a gap, and queries that it may concern answer 503.
        batch_bytes_max: usize = 16 * MIB, Size(MIB..=GIB), Restart;
        /// Fetched bytes a topic may have on their way to the shards; then it is fetched no
        /// further until they have applied them.
        topic_in_flight_bytes_max: usize = 32 * MIB, Size(4 * MIB..=4 * GIB), Restart;
        /// Bytes of one produce request.
        produce_bytes_max: usize = MIB, Size(16 * KIB..=100 * MIB), Restart;
        /// How often the cluster is asked anew; new partitions are found within this.
        metadata_age_max: Duration = s(30), Time(s(1)..=s(300)), Restart;
    }

    "Kafka: TLS"
    /// TLS towards brokers.
    kafka_tls "kafka.tls": KafkaTls {
        /// Whether brokers are spoken to by TLS.
        enabled: bool = false, Switch, Restart;
        /// Authorities whose signature under a broker's certificate counts, in PEM.
        ca: Option<PathBuf> = None, Maybe(FilePath, "those the system trusts"), Restart;
        /// Certificate chain to show to brokers that ask for one, in PEM, our own first.
        certificate: Option<PathBuf> = None, Maybe(FilePath, "none is shown"), Restart;
        /// Its private key in PEM.
        key: Option<PathBuf> = None, Maybe(FilePath, "no certificate is shown"), Restart;
    }

    "Kafka: SASL"
    /// Who we are, for brokers that ask.
    kafka_sasl "kafka.sasl": KafkaSasl {
        /// How brokers are told who we are. `plain` shows the password to whoever reads the wire:
        /// use it within TLS only.
        mechanism: Option<Mechanism> = None, OneOf(&[
            ("none", None),
            ("plain", Some(Mechanism::Plain)),
            ("scram-sha-256", Some(Mechanism::ScramSha256)),
            ("scram-sha-512", Some(Mechanism::ScramSha512)),
            ("oauthbearer", Some(Mechanism::OauthBearer)),
        ]), Restart;
        /// The user's name, for `plain` and `scram`.
        username: Option<String> = None, Maybe(Text(255), "no user"), Restart;
        /// The user's password, for `plain` and `scram`.
        password: Option<SecretSource> = None, Maybe(SecretText, "no password"), Restart;
        /// File with the token, for `oauthbearer`; looked at every second, so that who renews it
        /// need tell nobody.
        token_file: Option<PathBuf> = None, Maybe(FilePath, "no file"), Restart;
        /// Program and arguments that print the token, for `oauthbearer`; no shell. Run again
        /// when a quarter of the token's life is left.
        token_command: Vec<String> = vec![], ListOf(Text(4096), 32), Restart;
        /// How often `token_command` is run for tokens that do not say when they end.
        token_interval: Duration = s(300), Time(s(1)..=s(86_400)), Restart;
    }

    "HTTP"
    /// Limits and timeouts towards clients.
    http "http": Http {
        /// Connections of clients; beyond it, new ones are closed at once.
        connections_max: usize = 100_000, Count(16..=10_000_000), Restart;
        /// Bytes of a request line and its headers; beyond it, 431.
        head_bytes_max: usize = 32 * KIB, Size(KIB..=63 * KIB), Reload;
        /// Headers of a request; beyond it, 431.
        headers_max: usize = 64, Count(8..=64), Reload;
        /// Bytes of a request body; beyond it, 413. Keep it below the brokers' limit.
        body_bytes_max: usize = 900 * KIB, Size(KIB..=64 * MIB), Reload;
        /// Bytes of requests that are not whole, held at one time; beyond it, who sends more
        /// gets 503.
        bodies_bytes_max: usize = 128 * MIB, Size(MIB..=64 * GIB), Restart;
        /// Bytes of responses waiting for slow clients, streams apart; beyond it, who takes too
        /// slowly is closed.
        responses_bytes_max: usize = 128 * MIB, Size(MIB..=64 * GIB), Restart;
        /// From the first byte of a request to the end of its headers.
        head_timeout: Duration = s(10), Time(ms(100)..=s(300)), Reload;
        /// Added to `http.head_timeout`: the time from the first byte of a request to the end of
        /// its body.
        body_timeout: Duration = s(30), Time(ms(100)..=s(3600)), Reload;
        /// How long a connection may rest between requests.
        idle_timeout: Duration = s(75), Time(ms(100)..=s(86_400)), Reload;
        /// A client that takes no byte for so long, while bytes wait for it, is closed.
        write_timeout: Duration = s(30), Time(ms(100)..=s(3600)), Reload;
        /// A client whose host acknowledges nothing for this time has vanished, and its connection
        /// is closed (TCP keepalive and `TCP_USER_TIMEOUT`). At least `http.write_timeout`.
        vanished_timeout: Duration = s(30), Time(s(1)..=s(3600)), Restart;
        /// Longest wait of a query for another shard, and of a collection for each of its pages.
        query_timeout: Duration = s(10), Time(ms(10)..=s(300)), Reload;
    }

    "CORS"
    /// Which web pages of other origins may use the routes.
    cors "cors": Cors {
        /// Origins, exact: `https://shop.example`. Empty: none but the gateway's own.
        origins: Vec<String> = vec![], ListOf(Text(255), 64), Reload;
        /// Whether pages may send cookies.
        credentials: bool = false, Switch, Reload;
        /// Request headers that pages may send, beside those that the gateway understands and those
        /// that routes forward or read.
        allow_headers: Vec<String> = vec![], ListOf(Text(128), 32), Reload;
        /// Response headers that pages may read, beside those that the gateway sets: the names of
        /// headers that services put on their replies.
        expose_headers: Vec<String> = vec![], ListOf(Text(128), 32), Reload;
        /// How long browsers may remember a preflight.
        max_age: Duration = s(600), Time(s(0)..=s(86_400)), Reload;
    }

    "Commands"
    /// Commands and their replies.
    commands "commands": Commands {
        /// How long a client waits for a reply, on routes that say nothing.
        timeout: Duration = s(10), Time(ms(10)..=s(300)), Reload;
        /// How long a command without a reply stays open, so that a retry joins it.
        open_limit: Duration = s(600), Time(s(1)..=s(86_400)), Reload;
        /// Open commands, over the routes that share a replies topic; beyond it, 503 before
        /// anything is produced.
        open_max: usize = 10_000, Count(1..=10_000_000), Reload;
        /// Clients that may wait for one command; beyond it, 503.
        waiters_max: usize = 16, Count(1..=1000), Reload;
        /// Bytes of the index that recognises retries, per replies topic. Each reply counts 112: an
        /// entry of 48 in a hash table that has just doubled. If `retention.ms` keeps more replies
        /// than fit, the oldest are forgotten early: `reply_index_cut` is 1, and a WARN says so.
        dedupe_memory: usize = 64 * MIB, Size(MIB..=64 * GIB), Restart;
        /// Bytes of reply bodies kept in memory, per replies topic; older ones are read again.
        replies_bytes_max: usize = 64 * MIB, Size(MIB..=64 * GIB), Restart;
    }

    "Queries"
    /// The caches that queries are answered from.
    cache "cache": Cache {
        /// Bytes of keys and values, per topic. If the topic exceeds it by a quarter, values and
        /// then new keys are left out, and their queries answer 503 until there is room.
        bytes_max: usize = 256 * MIB, Size(MIB..=1024 * GIB), Restart;
    }

    "Streams"
    /// Event streams.
    streams "streams": Streams {
        /// Encoded events kept per topic, once for the process, for subscribers that lag or
        /// reconnect.
        window_bytes_max: usize = 64 * MIB, Size(MIB..=16 * GIB), Restart;
        /// Open streams; beyond it, a client is told to come back later.
        streams_max: usize = 100_000, Count(1..=10_000_000), Reload;
        /// Bytes that the kernel keeps for a stalled client of a stream, and as much again for its
        /// own overhead. A stream sends at most this many bytes per round trip, so more bytes help
        /// distant clients.
        send_buffer_bytes: usize = 64 * KIB, Size(16 * KIB..=16 * MIB), Restart;
        /// How often a quiet stream says that it lives; jittered.
        heartbeat: Duration = s(15), Time(ms(100)..=s(300)), Reload;
        /// How long a browser waits before it reconnects; jittered.
        retry: Duration = s(2), Time(ms(10)..=s(300)), Reload;
        /// Positions, at a stream's start and after a catch-up on a compacted topic, are sent as
        /// `event: position` with `data: {}`. Some client libraries remember an id only with an
        /// event. `false`: the same ids without an event.
        position_events: bool = true, Switch, Restart;
    }

    "Logging"
    /// What is written to standard error.
    log "log": Log {
        /// How lines look.
        format: LogFormat = LogFormat::Text,
            OneOf(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), Restart;
        /// How much is said.
        level: LogLevel = LogLevel::Info, OneOf(LEVELS), Restart;
    }
}

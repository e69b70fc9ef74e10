//! The table of settings. Each is declared once, here: its file key, flag, environment variable,
//! help text and row in `docs/config.md` all come from the declaration.
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
use super::listen::{Listen, ListenAddress};
use super::networks::Cidr;
use super::unit::{GIB, KIB, MIB, Size, Time};
use crate::model::{CertificateName, Network, SHARDS_MAX};

/// The largest `kafka.batch_bytes_max`, which bounds a record too.
pub const BATCH_BYTES_MAX: usize = 512 * MIB;
/// The least that a config may set for `kafka.topic_in_flight_bytes_max`.
pub const TOPIC_IN_FLIGHT_BYTES_MIN: usize = 4 * MIB;

/// The most that a config may set for `http2.streams_max`.
pub const HTTP2_STREAMS_MAX: usize = 200;

/// Whether a change of a setting takes effect with a reload or needs a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// A reload applies the change and drops no connection.
    Reload,
    /// The change takes effect at the next start.
    Restart,
}

/// One row of the table.
pub struct Setting {
    /// The key in the file with its table: `streams.heartbeat`.
    pub key: &'static str,
    /// The heading of its group in help and documentation.
    pub group: &'static str,
    /// What it does and what it costs, in whole sentences. Short help shows the first.
    pub doc: &'static str,
    /// When a change takes effect.
    pub apply: Apply,
    /// Parses a value and stores it in [`Settings`].
    pub put: fn(&mut Settings, &Raw) -> Result<(), String>,
    /// Prints the setting's value as the file has it.
    pub show: fn(&Settings) -> String,
    /// Describes the values that are allowed.
    pub describe: fn() -> String,
    /// Whether the value is secret. A secret has no flag and is never printed.
    pub secret: fn() -> bool,
}

impl Setting {
    /// The flag without its leading dashes: `streams-heartbeat`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// The environment variable: `SLUICEGATE_STREAMS_HEARTBEAT`. None ends in `_PORT`, because
    /// Kubernetes sets such variables for services: `reuse_port` is `SLUICEGATE_REUSEPORT`.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.key.replace('.', "_").to_uppercase();
        match name.strip_suffix("_PORT") {
            Some(rest) => format!("SLUICEGATE_{rest}PORT"),
            None => format!("SLUICEGATE_{name}"),
        }
    }

    /// The default as help shows it. An empty list is shown as a word.
    pub(super) fn default_text(&self, defaults: &Settings) -> String {
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
                describe: || $kind0.describe(),
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
                describe: || $kind.describe(),
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

    /// Number of shards if the process may run on `cpus` CPUs: the `shards` setting, else one per
    /// CPU of the `cpus` setting, else one per CPU. From 1 to [`SHARDS_MAX`].
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

/// How the gateway authenticates its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Every client is anonymous, because the operator chose so.
    None,
}

/// Whether clients show a certificate in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    None,
    /// Clients are asked for a certificate and may have none.
    Optional,
    /// Clients without a certificate are refused.
    Required,
}

/// The header in which a proxy of `proxies` reports the address of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`: addresses, the last one added by the nearest proxy.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), of which `for` is read.
    Forwarded,
    /// The address of the connection counts.
    None,
}

/// The SASL mechanism towards brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// `PLAIN` sends name and password unencrypted, so use it within TLS only.
    Plain,
    /// `SCRAM-SHA-256` proves knowledge of the password without sending it.
    ScramSha256,
    /// `SCRAM-SHA-512`: the same with a longer hash.
    ScramSha512,
    /// `OAUTHBEARER` sends a token from a file or a command.
    OauthBearer,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for a person to read.
    Text,
    /// One JSON object per line.
    Json,
}

/// The least severe log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Faults that an operator must act on.
    Error,
    /// Conditions that an operator may have to act on.
    Warn,
    /// Changes of state, not single events.
    Info,
    /// Details for finding a bug.
    Debug,
    /// Everything that the code can log.
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

/// The largest `cors.max_age`: browsers keep no preflight for longer.
pub(super) const CORS_MAX_AGE_MAX: Duration = s(86_400);
/// Most entries of `origins`, and of a list of header names, of `[cors]` and of a route.
pub(super) const CORS_ORIGINS_MAX: usize = 64;
pub(super) const CORS_HEADERS_MAX: usize = 32;

/// Most networks of proxies. Each address that a proxy reports is compared with all of them.
const PROXIES_MAX: usize = 64;

/// Most listeners of one kind. A listener's number is stored in a byte.
const LISTENERS_MAX: usize = 16;

settings! {
    "Serving"
    /// Every value that tunes the process, within bounds. Counts and sizes are for the whole
    /// process unless their row says otherwise.
    Settings {
        /// Addresses and Unix sockets for plain HTTP. Beyond loopback, `auth` must be set. Options
        /// follow after a space. `mode=600` sets the permissions of a Unix socket; the default is
        /// 660. With `proxy_protocol`, each connection must begin with a header of the PROXY
        /// protocol, version 2, and come from one of `proxies` or by a Unix socket.
        listen: Vec<Listen> = vec![SocketAddr::from(([127, 0, 0, 1], 8080)).into()],
            ListOf(ListenAddress, LISTENERS_MAX), Restart;
        /// How clients are authenticated. It must be set for a listener beyond loopback: `none`
        /// makes every client anonymous.
        auth: Option<Auth> = None,
            OneOf(&[("unset", None), ("none", Some(Auth::None))]), Restart;
        /// Networks of the proxies in front, such as `10.0.0.0/8` or `fd00::/8`. Only they may
        /// report the address of their client, in `proxy_header` or by the PROXY protocol. It
        /// serves limits only.
        proxies: Vec<Network> = vec![], ListOf(Cidr, PROXIES_MAX), Reload;
        /// The header in which the proxies of `proxies` report the address of their client. Each
        /// of them must append to this header, or replace it: whatever else a client sends is
        /// believed.
        proxy_header: ProxyHeader = ProxyHeader::XForwardedFor, OneOf(&[
            ("x-forwarded-for", ProxyHeader::XForwardedFor),
            ("forwarded", ProxyHeader::Forwarded),
            ("none", ProxyHeader::None),
        ]), Reload;
        /// Shards: threads that serve. Default: one per CPU that the process may use, by its
        /// affinity and the CPU quota of its cgroup.
        shards: Option<u16> = None, Maybe(Count(1..=SHARDS_MAX), "one per CPU"), Restart;
        /// Shards that do only Kafka work and accept no clients.
        kafka_shards: u16 = 0, Count(0..=SHARDS_MAX - 1), Restart;
        /// CPUs to pin the shards to, one each in this order, starting over if there are more
        /// shards than CPUs. Default: shards are pinned only if they fill all CPUs that the process
        /// may use, so that two gateways with few shards do not share one.
        cpus: Option<Vec<usize>> = None, Maybe(Cpus, "every CPU that the process may use"), Restart;
        /// Limit for the sum of all memory limits. `check` adds them up and rejects more.
        memory: Option<usize> = None,
            Maybe(Size(64 * MIB..=16 * 1024 * GIB), "no limit"), Restart;
        /// Lets another process listen on the same addresses, for an upgrade without a pause. The
        /// process then accepts clients only once a route is ready. Without it, clients are
        /// accepted at once, and routes that are not ready answer 503.
        reuse_port: bool = false, Switch, Restart;
        /// How long a process continues to execute new requests after SIGTERM. `/readyz` fails from
        /// the start, and each response closes its connection, so that load balancers choose
        /// another instance.
        drain_grace: Duration = s(5), Time(s(0)..=s(3600)), Reload;
        /// How long a stopping process then waits for replies to commands that a broker has. The
        /// ends of its streams are spread over this time, so that their clients do not all
        /// reconnect at once.
        drain: Duration = s(30), Time(s(0)..=s(3600)), Reload;
    }

    "TLS"
    /// TLS for connections from clients.
    tls "tls": Tls {
        /// Addresses and Unix sockets for HTTPS, as in `listen`. Beyond loopback, `auth` must be
        /// set.
        listen: Vec<Listen> = vec![], ListOf(ListenAddress, LISTENERS_MAX), Restart;
        /// Certificate chain in PEM, the server's own first.
        certificate: Option<PathBuf> = None, Maybe(FilePath, "no HTTPS"), Restart;
        /// The certificate's private key in PEM.
        key: Option<PathBuf> = None, Maybe(FilePath, "no HTTPS"), Restart;
        /// Certificate authorities that may sign the certificates of clients, in PEM.
        client_ca: Option<PathBuf> = None, Maybe(FilePath, "no client certificates"), Restart;
        /// Whether clients show a certificate that an authority of `tls.client_ca` has signed.
        /// `required` refuses clients without one in the handshake. `optional` lets them in without
        /// an identity. A certificate of another authority is refused by both.
        client_auth: ClientAuth = ClientAuth::None, OneOf(&[
            ("none", ClientAuth::None),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ]), Restart;
        /// Which name of a client's certificate is the client's identity: the whole subject as RFC
        /// 4514 writes it (`CN=till-7,O=Example`), or the only DNS name, URI (a SPIFFE id) or
        /// e-mail address of its subject alternative names. A certificate without such a name, or
        /// with several, is refused in the handshake.
        client_identity: CertificateName = CertificateName::Subject, OneOf(&[
            ("subject", CertificateName::Subject),
            ("dns", CertificateName::Dns),
            ("uri", CertificateName::Uri),
            ("email", CertificateName::Email),
        ]), Restart;
        /// Time from accepting a connection to the end of its TLS handshake. After it, the
        /// connection is closed.
        handshake_timeout: Duration = s(10), Time(ms(100)..=s(300)), Reload;
        /// Connections in their handshake, which takes some 10 kB each. Beyond it, new ones are
        /// closed at once. Shards serve one handshake in each turn, so that clients with a
        /// connection do not wait for them.
        handshakes_max: usize = 10_000, Count(16..=1_000_000), Reload;
    }

    "Admin"
    /// The admin port: metrics, health and status.
    admin "admin": Admin {
        /// Address of `/metrics`, `/livez`, `/readyz` and `/status`. Beyond loopback, `admin.token`
        /// must be set.
        listen: Option<SocketAddr> = Some(([127, 0, 0, 1], 9464).into()),
            Maybe(Address, "no admin port"), Restart;
        /// Token that clients of `/metrics` and `/status` must send, as `Authorization: Bearer` and
        /// the token: at least 16 characters. Probes need none, and get the status and one boolean.
        token: Option<SecretSource> = None, Maybe(SecretText, "no token"), Restart;
        /// Names that the `Host` header may have besides loopback's (protection against DNS
        /// rebinding).
        hosts: Vec<String> = vec![], ListOf(Text(253), 16), Restart;
    }

    "Health"
    /// A port for health checkers, which anyone may reach.
    health "health": Health {
        /// Address of `/livez` and `/readyz` alone: the status and one boolean, without details. It
        /// may be beyond loopback.
        listen: Option<SocketAddr> = None, Maybe(Address, "no health port"), Restart;
    }

    "Kafka"
    /// The Kafka cluster, and limits and timeouts for all clusters.
    kafka "kafka": Kafka {
        /// Brokers to connect to first; the rest of the cluster is learned from them.
        bootstrap: Vec<BrokerAddress> = vec![BrokerAddress::local()],
            ListOf(Broker, 64), Restart;
        /// The client id in the brokers' logs and quotas.
        client_id: String = "sluicegate".into(), Text(128), Restart;
        /// Name of the cluster's logs, if they are copies with the same offsets of another
        /// cluster's logs (a replica, or its origin). Gateways of both clusters then accept each
        /// other's event ids. Change it when a topic is re-created.
        log_id: Option<String> = None, Maybe(Text(128), "the topic's id"), Restart;
        /// Time to connect to a broker. After it, the attempt is abandoned and retried.
        connect_timeout: Duration = s(4), Time(ms(100)..=s(60)), Restart;
        /// Time for a broker to respond to a request. After it, the connection is closed.
        request_timeout: Duration = s(10), Time(ms(500)..=s(300)), Restart;
        /// Time from the arrival of a command to the last attempt to produce it. Services may
        /// forget a command twice this long after its reply.
        delivery_timeout: Duration = s(30), Time(s(1)..=s(300)), Restart;
        /// Longest wait before a broker is retried, with jitter. At most 1 s, because clients wait
        /// meanwhile.
        backoff_max: Duration = s(1), Time(ms(10)..=s(1)), Restart;
        /// How long a broker may hold a fetch while it has no new records.
        fetch_wait: Duration = ms(500), Time(ms(10)..=s(30)), Restart;
        /// A broker is unavailable when a response takes longer than four times the p99 of its
        /// response times in the last minute: after 0.9 s at least, and after this time at most.
        /// Commands that are unsent by then are rejected.
        stall_max: Duration = s(3), Time(ms(900)..=s(30)), Restart;
        /// Use fetch sessions (KIP-227): each fetch names only the partitions that changed.
        /// `false`: each fetch names all of them.
        fetch_sessions: bool = true, Switch, Restart;
        /// Rack or zone of this gateway, as in the brokers' `broker.rack`. A partition is read from
        /// a broker of the same rack, if there is one and the cluster selects replicas by rack
        /// (KIP-392).
        rack: Option<String> = None, Maybe(Text(128), "reads from leaders"), Restart;
        /// Bytes of one fetch response, over all its partitions.
        fetch_bytes_max: usize = 8 * MIB, Size(64 * KIB..=GIB), Restart;
        /// Bytes of one partition in a fetch response.
        fetch_partition_bytes_max: usize = MIB, Size(16 * KIB..=GIB), Restart;
        /// Bytes of one batch after decompression. A larger batch is skipped visibly: streams
        /// receive a gap, and queries that it may concern answer 503.
        batch_bytes_max: usize = 16 * MIB, Size(MIB..=BATCH_BYTES_MAX), Restart;
        /// Fetched bytes of one topic that the shards have not applied yet. At the limit, the topic
        /// is not fetched until they have.
        topic_in_flight_bytes_max: usize = 32 * MIB,
            Size(TOPIC_IN_FLIGHT_BYTES_MIN..=4 * GIB), Restart;
        /// Bytes of one produce request.
        produce_bytes_max: usize = MIB, Size(16 * KIB..=100 * MIB), Restart;
        /// Longest time between metadata requests. New partitions are found within this time.
        metadata_age_max: Duration = s(30), Time(s(1)..=s(300)), Restart;
    }

    "Kafka: TLS"
    /// TLS for connections to brokers.
    kafka_tls "kafka.tls": KafkaTls {
        /// Whether connections to brokers use TLS.
        enabled: bool = false, Switch, Restart;
        /// Certificate authorities that may sign a broker's certificate, in PEM.
        ca: Option<PathBuf> = None, Maybe(FilePath, "the system's authorities"), Restart;
        /// Client certificate chain in PEM, the gateway's own first, for brokers that request one.
        certificate: Option<PathBuf> = None, Maybe(FilePath, "no client certificate"), Restart;
        /// The client certificate's private key in PEM.
        key: Option<PathBuf> = None, Maybe(FilePath, "no client certificate"), Restart;
    }

    "Kafka: SASL"
    /// SASL authentication of the gateway by brokers.
    kafka_sasl "kafka.sasl": KafkaSasl {
        /// SASL mechanism. `plain` and `oauthbearer` send the password or token itself, so use them
        /// within TLS only.
        mechanism: Option<Mechanism> = None, OneOf(&[
            ("none", None),
            ("plain", Some(Mechanism::Plain)),
            ("scram-sha-256", Some(Mechanism::ScramSha256)),
            ("scram-sha-512", Some(Mechanism::ScramSha512)),
            ("oauthbearer", Some(Mechanism::OauthBearer)),
        ]), Restart;
        /// User name, for `plain` and `scram`.
        username: Option<String> = None, Maybe(Text(255), "no user"), Restart;
        /// Password, for `plain` and `scram`.
        password: Option<SecretSource> = None, Maybe(SecretText, "no password"), Restart;
        /// File with the token, for `oauthbearer`. It is checked every second, so replacing it is
        /// enough to renew the token.
        token_file: Option<PathBuf> = None, Maybe(FilePath, "no file"), Restart;
        /// Program and arguments that print the token, for `oauthbearer`. It runs without a shell,
        /// and again when a quarter of the token's lifetime is left.
        token_command: Vec<String> = vec![], ListOf(Text(4096), 32), Restart;
        /// How often `token_command` runs for tokens without an expiry time.
        token_interval: Duration = s(300), Time(s(1)..=s(86_400)), Restart;
    }

    "HTTP"
    /// Limits and timeouts of connections from clients.
    http "http": Http {
        /// Connections from clients. Beyond it, new ones are closed at once.
        connections_max: usize = 100_000, Count(16..=10_000_000), Restart;
        /// Connections from one address (IPv6: from one /64 network). Beyond it, new ones are
        /// closed at once. Proxies of `proxies` have no such limit.
        address_connections_max: Option<u32> = None,
            Maybe(Count(1..=10_000_000), "no limit"), Restart;
        /// Bytes of a request line and its headers. Beyond it: 431.
        head_bytes_max: usize = 32 * KIB, Size(KIB..=63 * KIB), Reload;
        /// Headers of a request. Beyond it: 431.
        headers_max: usize = 64, Count(8..=64), Reload;
        /// Bytes of a request body. Beyond it: 413. Keep it below the brokers' limit.
        body_bytes_max: usize = 900 * KIB, Size(KIB..=64 * MIB), Reload;
        /// Bytes of partially received requests, in total. Beyond it, a client that sends more gets
        /// 503.
        bodies_bytes_max: usize = 128 * MIB, Size(MIB..=64 * GIB), Restart;
        /// Bytes of responses that wait for slow clients, without streams. Beyond it, connections
        /// of slow clients are closed.
        responses_bytes_max: usize = 128 * MIB, Size(MIB..=64 * GIB), Restart;
        /// Time from the first byte of a request to the end of its headers.
        head_timeout: Duration = s(10), Time(ms(100)..=s(300)), Reload;
        /// Added to `http.head_timeout`: the time from the first byte of a request to the end of
        /// its body.
        body_timeout: Duration = s(30), Time(ms(100)..=s(3600)), Reload;
        /// Bytes per second of a request body, counted from 5 s after its beginning. A client that
        /// is slower over the whole of its body gets 408, before `http.body_timeout` has passed.
        body_rate_min: Option<usize> = Some(240),
            Maybe(Size(1..=MIB), "no least rate"), Reload;
        /// How long a connection may be idle between requests.
        idle_timeout: Duration = s(75), Time(ms(100)..=s(86_400)), Reload;
        /// A client that accepts no byte for this time, while bytes wait for it, is disconnected.
        write_timeout: Duration = s(30), Time(ms(100)..=s(3600)), Reload;
        /// A client whose host acknowledges nothing for this time has vanished, and its connection
        /// is closed (TCP keepalive and `TCP_USER_TIMEOUT`). At least `http.write_timeout`.
        vanished_timeout: Duration = s(30), Time(s(1)..=s(3600)), Restart;
        /// Whether answers to queries are compressed (gzip) for clients that accept it: values from
        /// 1 KiB to 512 KiB, and collections. Streams never are.
        compress: bool = true, Switch, Reload;
        /// Longest wait of a query for another shard, and of a collection for each of its pages.
        query_timeout: Duration = s(10), Time(ms(10)..=s(300)), Reload;
    }

    "HTTP/2"
    /// HTTP/2: over TLS for clients that choose it, and without TLS for clients that know that they
    /// may (h2c with prior knowledge).
    http2 "http2": Http2 {
        /// Whether clients may use HTTP/2.
        enabled: bool = true, Switch, Restart;
        /// Connections of HTTP/2. At the limit, new TLS clients are offered HTTP/1.1 only, and
        /// others are sent away (GOAWAY).
        connections_max: usize = 10_000, Count(1..=1_000_000), Reload;
        /// Requests and streams at a time on one connection. A client waits with more.
        streams_max: usize = 100, Count(1..=HTTP2_STREAMS_MAX), Reload;
    }

    "CORS"
    /// Which web pages of other origins may use the routes (CORS). A route's `cors` overrides it.
    cors "cors": Cors {
        /// Exact origins that may use the routes, such as `https://shop.example`. Empty: only the
        /// gateway's own.
        origins: Vec<String> = vec![], ListOf(Text(255), CORS_ORIGINS_MAX), Reload;
        /// Whether pages may send cookies.
        credentials: bool = false, Switch, Reload;
        /// Request headers that pages may send, in addition to those that the gateway understands
        /// and those that routes forward or read.
        allow_headers: Vec<String> = vec![], ListOf(Text(128), CORS_HEADERS_MAX), Reload;
        /// Response headers that pages may read, in addition to those that the gateway sets: the
        /// names of headers that services put on their replies.
        expose_headers: Vec<String> = vec![], ListOf(Text(128), CORS_HEADERS_MAX), Reload;
        /// How long browsers may cache a preflight.
        max_age: Duration = s(600), Time(s(0)..=CORS_MAX_AGE_MAX), Reload;
    }

    "Commands"
    /// Limits for commands and their replies.
    commands "commands": Commands {
        /// How long a client waits for a reply, on routes without a `timeout`.
        timeout: Duration = s(10), Time(ms(10)..=s(300)), Reload;
        /// How long a command without a reply stays in flight, so that a retry joins it.
        open_limit: Duration = s(600), Time(s(1)..=s(86_400)), Reload;
        /// Commands in flight, over the routes that share a replies topic. Beyond it: 503 before
        /// anything is produced.
        open_max: usize = 10_000, Count(1..=10_000_000), Reload;
        /// Commands in flight of one client, over the routes that share a replies topic. A client
        /// is an address (IPv6: its /64 network). A client never gets more than are free for the
        /// others, so one alone gets half of `commands.open_max`, two get a third each, and so on.
        /// Beyond it: 503.
        client_open_max: usize = 10_000, Count(1..=10_000_000), Reload;
        /// Clients that may wait for one command. Beyond it: 503.
        waiters_max: usize = 16, Count(1..=1000), Reload;
        /// Bytes of the index that recognises retries, per replies topic. Each reply counts 64. If
        /// `retention.ms` keeps more replies than fit, the oldest are forgotten early:
        /// `reply_index_cut` is 1, and a WARN says so.
        dedupe_memory: usize = 64 * MIB, Size(MIB..=64 * GIB), Restart;
        /// Bytes of the index of unanswered commands, per commands topic of a route that has
        /// `dedupe = "strict"`. Each command counts 56. If there are more within
        /// `commands.open_limit`, the oldest are forgotten early: a retry of such a command may
        /// run again.
        unanswered_memory: usize = 16 * MIB, Size(MIB..=16 * GIB), Restart;
        /// Bytes of reply bodies kept in memory, per replies topic. Older bodies are read from
        /// Kafka again.
        replies_bytes_max: usize = 64 * MIB, Size(MIB..=64 * GIB), Restart;
    }

    "Queries"
    /// The caches that answer queries.
    cache "cache": Cache {
        /// Bytes of keys and values, per topic. If the topic exceeds it by a quarter, first values
        /// and then new keys are left out, and their queries answer 503 until there is room.
        bytes_max: usize = 256 * MIB, Size(MIB..=1024 * GIB), Restart;
    }

    "Streams"
    /// Limits and times of event streams.
    streams "streams": Streams {
        /// In-memory replay buffer per topic (its *window*): encoded events, kept once for the
        /// process, for subscribers that lag or reconnect.
        window_bytes_max: usize = 64 * MIB, Size(MIB..=16 * GIB), Restart;
        /// Open streams. Beyond it, a new stream is closed at once with the time to wait.
        streams_max: usize = 100_000, Count(1..=10_000_000), Reload;
        /// Open streams of one client: of an identity, or of an anonymous address (IPv6: of a /64
        /// network). Beyond it, a new stream is closed at once with the time to wait.
        client_streams_max: Option<u32> = None,
            Maybe(Count(1..=10_000_000), "no limit"), Reload;
        /// Bytes that the kernel keeps for a stalled client of a stream, and as much again for its
        /// own overhead. A stream sends at most this many bytes per round trip, so more bytes help
        /// distant clients.
        send_buffer_bytes: usize = 64 * KIB, Size(16 * KIB..=16 * MIB), Restart;
        /// How often a quiet stream sends a heartbeat comment, with jitter.
        heartbeat: Duration = s(15), Time(ms(100)..=s(300)), Reload;
        /// How long a browser waits before it reconnects, with jitter.
        retry: Duration = s(2), Time(ms(10)..=s(300)), Reload;
        /// Positions, at a stream's start and after a catch-up on a compacted topic, are sent as
        /// `event: position` with `data: {}`. Some client libraries remember an id only with an
        /// event. `false`: the same ids without an event.
        position_events: bool = true, Switch, Restart;
    }

    "Logging"
    /// The log, which is written to standard error.
    log "log": Log {
        /// Format of the log lines.
        format: LogFormat = LogFormat::Text,
            OneOf(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), Restart;
        /// Least severe level that is logged.
        level: LogLevel = LogLevel::Info, OneOf(LEVELS), Restart;
    }
}

//! Composition: starts the process from a valid config, and stops it in reverse order after a
//! signal. Shards work on their own threads. This thread is the control thread, with the only tokio
//! runtime of the process.

mod cpus;
mod descriptors;
mod healthcheck;
mod listen_addresses;
mod listeners;
mod live;
mod readiness;
mod renewal;
mod schemas;
mod security;
mod server_tls;
mod start_lines;
mod stderr;
mod tap_lines;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::config::{Config, ListenOn, Reason};
use crate::control::{
    Admin, AdminAccess, AdminSettings, AskShard, BodyChecks, Signals, TlsStatus, Tokens,
    WatchedFiles,
};
use crate::kafka::{SaltRequest, Salted};
use crate::metrics::{AcceptRefusal, Check, CheckState, ShardReport};
use crate::model::ShardId;
use crate::reactor::{Clock, Plan, ReactorError, Running, start};
use crate::shard::{
    ClientTotals, ClusterId, ClusterMessage, ControlMessage, EdgeMessage, HomeMessage, Layout,
    Level, ListenerKind, Message, Note, NumbersExhausted, RandomKey, Registry, Shard, ShardMessage,
    ShardSetup, Snapshot,
};
use crate::sys::{allowed_cpus, descriptor_limit, descriptors_allowed, raise_descriptor_limit};
use crate::tls::TlsError;

pub use healthcheck::healthcheck;
pub use listen_addresses::foreign_addresses;
pub use live::{LiveError, LiveReport, ask_clusters, create_topics, tap};
pub use start_lines::log_start;
pub use stderr::{flush_log, print_stderr, start_log};
pub use tap_lines::tap_line;

use cpus::Placement;
use descriptors::{Crowding, Descriptors};
use listeners::Listeners;
use readiness::{LISTENING, may_serve, needs, open_checks};

/// How often the reports are checked while topics load or clients leave.
const READY_EVERY: Duration = Duration::from_millis(20);

/// How often loading logs its progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Time for listeners to empty their queues and close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Ticks of one second without a turn after which a shard is stuck. Ticks are counted instead of
/// time, so that suspending the machine raises no alarm.
const STUCK_TICKS: u32 = 10;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A kernel feature is missing, or an address cannot be bound.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// The configs of this process have named more routes or topics than there are numbers.
    #[error(transparent)]
    Numbers(#[from] NumbersExhausted),
    /// The admin port or the health port cannot be bound.
    #[error(
        "can't listen on {address} for the {port} port: {source}; free it or set {port}.listen"
    )]
    Admin {
        /// `admin` or `health`.
        port: &'static str,
        /// The address that the setting has.
        address: SocketAddr,
        /// The error that the kernel returned.
        source: std::io::Error,
    },
    /// A file that a setting names cannot be read.
    #[error("{key}: can't read {path}: {source}; correct the path, or let this process read it")]
    File {
        /// The setting's key, with its cluster.
        key: String,
        /// Byte range in the config file, if the key is no setting.
        at: Option<Range<usize>>,
        /// The path that the config names.
        path: String,
        /// The error that the kernel returned.
        source: std::io::Error,
    },
    /// A certificate or key file is invalid, or key and certificate do not match.
    #[error("{key}: {path}: {source}; {help}")]
    Pem {
        /// The setting's key, with its cluster.
        key: String,
        /// Byte range in the config file, if the key is no setting.
        at: Option<Range<usize>>,
        /// The path that the config names.
        path: String,
        /// Why the file is rejected.
        source: Box<TlsError>,
        /// What the file must contain.
        help: String,
    },
    /// A secret is not where the config says.
    #[error("{key}: {why}")]
    Secret {
        /// The setting's key, with its cluster.
        key: String,
        /// The problem, and what to do about it.
        why: String,
    },
    /// A file with a JSON Schema cannot be used.
    #[error("the schema of command `{route}`: {path}: {why}; {help}")]
    Schema {
        /// The route's name.
        route: String,
        /// The path of the file.
        path: String,
        /// Why the file is rejected.
        why: String,
        /// What to do about it.
        help: &'static str,
        /// Byte range of the setting in the config file.
        at: Range<usize>,
    },
    /// The config names a CPU on which this process must not run.
    #[error(
        "cpus: this process may not run on CPU {cpu}, only on {allowed:?}; name some of those, or \
         widen its affinity (taskset, AllowedCPUs=, cpuset)"
    )]
    Cpu {
        /// The first CPU of the config that is not allowed.
        cpu: usize,
        /// The CPUs on which the process may run.
        allowed: Vec<usize>,
    },
    /// The limit of open files is too low to serve any client.
    #[error(
        "this process may open {limit} files, and its shards, brokers and clients need {needed} at \
         least: raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit \
         -Hn), or lower shards"
    )]
    Descriptors {
        /// The hard limit of open files.
        limit: u64,
        /// The lowest limit that is enough.
        needed: u64,
    },
    /// The operating system refused another operation.
    #[error("{what}: {source}")]
    System {
        /// The operation that was tried.
        what: &'static str,
        /// The error that the system returned.
        source: std::io::Error,
    },
}

impl BootError {
    /// The error as a reason against the config.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason {
            message: self.to_string(),
            key: match self {
                Self::File { key, .. } | Self::Pem { key, .. } | Self::Secret { key, .. } => {
                    Some(key.clone())
                }
                _ => None,
            },
            at: match self {
                Self::Schema { at, .. } => Some(at.clone()),
                Self::File { at, .. } | Self::Pem { at, .. } => at.clone(),
                _ => None,
            },
        }
    }

    /// The exit code of sysexits: 78 if the config must change, else 69.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. }
            | Self::Schema { .. }
            | Self::Pem { .. }
            | Self::Secret { .. }
            | Self::Cpu { .. }
            | Self::Descriptors { .. }
            | Self::Numbers(_) => 78,
            Self::Reactor(_) | Self::Admin { .. } | Self::System { .. } => 69,
        }
    }
}

/// Every reason on this machine for which [`run`] would reject a valid config.
#[must_use]
pub fn refusals(config: &Config) -> Vec<BootError> {
    let mut refusals: Vec<_> = server_tls::refusals(config).collect();
    refusals.extend(security::refusals(config));
    refusals.extend(schemas::refusals(config));
    // If the system does not report the CPUs, `run` returns that error.
    let allowed = allowed_cpus().unwrap_or_default();
    let mut named = config.settings.cpus.iter().flatten();
    if let Some(cpu) = named.find(|cpu| !allowed.is_empty() && !allowed.contains(cpu)) {
        let cpu = *cpu;
        refusals.push(BootError::Cpu { cpu, allowed });
    }
    if let Some((limit, needed)) = allowed_descriptors(config).no_room() {
        refusals.push(BootError::Descriptors { limit, needed });
    }
    refusals
}

/// CPUs of this process: those on which it may run, limited by the CPU quota of its cgroup.
#[must_use]
pub fn cpus() -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cpus).unwrap_or(u16::MAX)
}

/// The warning before a start if the process may have fewer descriptors than the config allows.
#[must_use]
pub fn descriptor_shortage(config: &Config) -> Option<String> {
    allowed_descriptors(config).shortage(config)
}

/// Descriptors under the hard limit, because [`run`] raises the limit to it.
fn allowed_descriptors(config: &Config) -> Descriptors {
    let layout = Layout {
        shards: config.settings.shards_on(cpus()),
        kafka_shards: config.settings.kafka_shards,
    };
    Descriptors::new(config, layout, descriptors_allowed())
}

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// Why the process cannot serve. No client was served then.
pub fn run(config: Config) -> Result<(), BootError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(system("start the control thread's runtime"))?;
    let signals = {
        let _entered = runtime.enter();
        // Listen before anything else: until then a signal would kill the process.
        Signals::listen().map_err(system("listen for signals"))?
    };
    let config = Arc::new(config);
    let server_tls = server_tls::ServerTls::new(&config)?;
    let security = security::all(&config)?;
    let schemas = schemas::all(&config)?;
    let allowed = allowed_cpus().map_err(system("ask for this process's CPUs"))?;
    let settings = &config.settings;
    let Placement { shards, pinned } = Placement::new(settings, allowed, cpus());
    let layout = Layout {
        shards,
        kafka_shards: settings.kafka_shards,
    };
    let limit = raise_descriptor_limit().unwrap_or_else(|error| {
        let limit = descriptor_limit();
        tracing::warn!("the limit of open files stays at {limit}: {error}");
        limit
    });
    let descriptors = Descriptors::new(&config, layout, limit);
    if let Some(shortage) = descriptors.shortage(&config) {
        tracing::warn!("{shortage}");
    }
    let listeners = Listeners::new(settings);
    let kinds: Arc<[ListenerKind]> = listeners.kinds.into();
    let plan = Plan {
        cpus: pinned,
        client_descriptors_max: descriptors.clients_below(),
        listeners: listeners.addresses,
        unix: listeners.unix,
        reuse_port: settings.reuse_port,
        // Linux ends a connection after its window was closed for this time. `write_timeout` must
        // expire first.
        vanished_after: settings
            .http
            .vanished_timeout
            .max(settings.http.write_timeout),
        shards_without_clients: layout.first_slice().0,
        connect_timeout: settings.kafka.connect_timeout,
        ..Plan::default()
    };
    let tls = server_tls.as_ref().map(|tls| tls.acceptor().clone());
    #[cfg(feature = "planted")]
    if std::env::var_os("PLANT_PANICS").is_some() {
        crate::model::plant_panics();
    }
    let seed = security::random_bytes()?;
    let half = |from: usize| {
        let bytes = seed.iter().skip(from).take(8);
        bytes.fold(0, |key, byte| key << 8 | u64::from(*byte))
    };
    let totals = Arc::new(ClientTotals::new([half(0), half(8)]));
    let make = (0..shards).map(|n| {
        let (listeners, tls) = (kinds.clone(), tls.clone());
        let key = RandomKey::new(security::random_bytes()?);
        let security = security::another(&security)?;
        let totals = totals.clone();
        Ok(move || {
            Shard::new(ShardSetup {
                me: ShardId(n),
                key,
                listeners,
                tls,
                security,
                totals,
            })
        })
    });
    let make = make.collect::<Result<Vec<_>, BootError>>()?;
    let woken = Arc::new(Notify::new());
    let wake = {
        let woken = woken.clone();
        Box::new(move || woken.notify_one())
    };
    let running = start(plan, Clock::start(), make, wake)?;
    // There is no reload yet, so that no second snapshot needs the registry.
    let snapshot = Snapshot::new(1, config, layout, &mut Registry::default());
    let snapshot = Arc::new(snapshot?.with_schemas(&schemas));
    let control = Control::new(running, snapshot, woken, descriptors, totals);
    runtime.block_on(Arc::new(control).run(signals, server_tls))
}

fn log(note: &Note) {
    match note.level {
        Level::Info => tracing::info!("{}", note.text),
        Level::Warn => tracing::warn!("{}", note.text),
    }
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> BootError {
    move |source| BootError::System { what, source }
}

/// Report requests to shards that are not answered yet, by number.
type PendingReports = Arc<Mutex<(u64, HashMap<u64, oneshot::Sender<ShardReport>>)>>;

/// State of the control thread.
struct Control {
    running: Arc<Running<Message, ControlMessage>>,
    snapshot: Arc<Snapshot>,
    woken: Arc<Notify>,
    pending: PendingReports,
    /// The last salted password of each cluster (SCRAM). Salting is slow on purpose, so the result
    /// is kept.
    salted: tokio::sync::Mutex<HashMap<ClusterId, Salted>>,
    descriptors: Descriptors,
    descriptors_short: Crowding,
    totals: Arc<ClientTotals>,
    connections_full: Crowding,
    body_checks: BodyChecks,
    tls_status: Arc<TlsStatus>,
}

impl Control {
    fn new(
        running: Running<Message, ControlMessage>,
        snapshot: Arc<Snapshot>,
        woken: Arc<Notify>,
        descriptors: Descriptors,
        totals: Arc<ClientTotals>,
    ) -> Self {
        Self {
            running: Arc::new(running),
            snapshot,
            woken,
            pending: PendingReports::default(),
            descriptors,
            descriptors_short: Crowding::default(),
            totals,
            connections_full: Crowding::default(),
            salted: tokio::sync::Mutex::default(),
            body_checks: BodyChecks::default(),
            tls_status: Arc::default(),
        }
    }

    async fn run(
        self: Arc<Self>,
        mut signals: Signals,
        tls: Option<server_tls::ServerTls>,
    ) -> Result<(), BootError> {
        let tls = tls.map(|tls| {
            self.tls_status.on_start(tls.first_to_end().0);
            let files = WatchedFiles::new(tls.paths());
            let files = files.map_err(system("listen for SIGHUP"))?;
            Ok::<_, BootError>((tls, files))
        });
        let tls = tls.transpose()?;
        let addresses = self.running.bind()?;
        // Send the first snapshot before a client can connect.
        for shard in self.shards() {
            let load = ShardMessage::Load(self.snapshot.clone());
            self.send(shard, Message::Shard(load)).await;
        }
        let (stop_admin, stopped) = tokio::sync::watch::channel(());
        let [admin, health] = self.admin_ports().await?;
        let serve_port = async |port: Option<Admin>| {
            let mut stopped = stopped.clone();
            // The sender is dropped when serving has ended.
            let stop = async { while stopped.changed().await.is_ok() {} };
            match port {
                Some(port) => port.serve(stop).await,
                None => stop.await,
            }
        };
        let serve = async {
            let ended = self.serve(&addresses, &mut signals).await;
            drop(stop_admin);
            ended
        };
        tokio::select! {
            ((), (), ended) = async {
                tokio::join!(serve_port(admin), serve_port(health), serve)
            } => ended,
            () = self.receive() => unreachable!("it receives forever"),
            () = self.watch() => unreachable!("it watches forever"),
            () = self.tokens() => unreachable!("tokens are sent forever"),
            () = self.renew_tls(tls) => unreachable!("TLS is renewed until the runtime ends"),
        }
    }

    fn connections_full_text(&self) -> String {
        let max = self.snapshot.config.settings.http.connections_max;
        format!(
            "clients have used up http.connections_max ({max}); more are closed at once: raise it, \
             or add gateways"
        )
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.snapshot.layout.shards).map(ShardId)
    }

    /// Binds the admin port and the health port, those that the config has.
    async fn admin_ports(&self) -> Result<[Option<Admin>; 2], BootError> {
        let settings = &self.snapshot.config.settings;
        let access = match security::admin_token(&self.snapshot.config)? {
            Some(token) => AdminAccess::Token(token),
            None => AdminAccess::Hosts(settings.admin.hosts.clone()),
        };
        Ok([
            self.admin_port("admin", settings.admin.listen, access)
                .await?,
            self.admin_port("health", settings.health.listen, AdminAccess::Probes)
                .await?,
        ])
    }

    async fn admin_port(
        &self,
        port: &'static str,
        listen: Option<SocketAddr>,
        access: AdminAccess,
    ) -> Result<Option<Admin>, BootError> {
        let Some(address) = listen else {
            return Ok(None);
        };
        let settings = AdminSettings {
            listen: address,
            access,
            shards: self.snapshot.layout.shards,
            routes: needs(&self.snapshot),
            log_lines_dropped: stderr::lines_dropped,
            tls: self.tls_status.clone(),
        };
        let bound = Admin::bind(settings, self.ask_shard()).await;
        let admin = bound.map_err(|source| BootError::Admin {
            port,
            address,
            source,
        })?;
        if let Ok(address) = admin.local_addr() {
            tracing::info!(%address, "{port} port open");
        }
        Ok(Some(admin))
    }

    /// Loads topics, serves, and drains after a signal.
    async fn serve(
        &self,
        addresses: &[SocketAddr],
        signals: &mut Signals,
    ) -> Result<(), BootError> {
        let settings = &self.snapshot.config.settings;
        // Another process may listen on the same ports, and the kernel would give each process a
        // share of the clients. So accept only once this process can answer.
        if !settings.reuse_port {
            self.running.accept()?;
            for address in addresses {
                tracing::info!(%address, "listening; routes that are not ready answer 503");
            }
            self.log_unix("listening; routes that are not ready answer 503");
        }
        let (stop, grace) = tokio::select! {
            () = self.ready() => {
                if settings.reuse_port {
                    self.running.accept()?;
                }
                for address in addresses {
                    tracing::info!(%address, "serving");
                }
                self.log_unix("serving");
                if let Some(open) = open_checks(&self.reports().await) {
                    tracing::warn!(
                        "serving without what is not ready; its routes answer 503: {open}"
                    );
                }
                (signals.next_stop().await, settings.drain_grace)
            }
            // No grace period: no load balancer has sent a client here yet.
            stop = signals.next_stop() => (stop, Duration::ZERO),
        };
        let drain = settings.drain;
        tracing::info!(
            ?stop,
            ?grace,
            ?drain,
            "draining; a second signal ends it now"
        );
        tokio::select! {
            () = self.drained(grace, drain) => {}
            _ = signals.next_stop() => tracing::info!("ended by a second signal"),
        }
        self.stop_shards().await
    }

    /// Logs the Unix sockets of the config.
    fn log_unix(&self, what: &str) {
        let settings = &self.snapshot.config.settings;
        for listen in settings.listen.iter().chain(&settings.tls.listen) {
            if let ListenOn::Unix { path, .. } = &listen.on {
                tracing::info!(path = %path.display(), "{what}");
            }
        }
    }

    /// Waits until clients may connect: every check of every shard holds, or at least one route can
    /// be served and the rest waits for an operator.
    async fn ready(&self) {
        let mut reported = String::new();
        let mut next = tokio::time::Instant::now() + PROGRESS_EVERY;
        loop {
            let reports = self.reports().await;
            let Some(open) = open_checks(&reports).filter(|_| !may_serve(&reports, &self.snapshot))
            else {
                return;
            };
            if open != reported && tokio::time::Instant::now() >= next {
                next = tokio::time::Instant::now() + PROGRESS_EVERY;
                tracing::info!("not ready: {open}");
                reported = open;
            }
            tokio::time::sleep(READY_EVERY).await;
        }
    }

    /// Waits until no client is connected, or the time is up. First `/readyz` fails, but requests
    /// are executed during the grace period, until load balancers have noticed. Then the listeners'
    /// queues are emptied, and later requests are rejected.
    async fn drained(&self, grace: Duration, drain: Duration) {
        for shard in self.shards() {
            self.send(shard, Message::Shard(ShardMessage::Leave)).await;
        }
        tokio::time::sleep(grace).await;
        self.running.stop_accepting();
        let limit = tokio::time::Instant::now() + CLOSE_WAIT;
        let listens = |shard| self.running.vitals(shard).listening > 0;
        while self.shards().any(listens) && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for shard in self.shards() {
            let drain = ShardMessage::Drain { within: drain };
            self.send(shard, Message::Shard(drain)).await;
        }
        let limit = tokio::time::Instant::now() + drain + Duration::from_secs(1);
        while tokio::time::Instant::now() < limit {
            let empty = |report: &Option<ShardReport>| {
                let status = report.as_ref().map(|report| &report.status);
                status.is_some_and(|status| status.connections + status.streams == 0)
            };
            if self.reports().await.iter().all(empty) {
                return;
            }
            tokio::time::sleep(READY_EVERY).await;
        }
    }

    async fn stop_shards(&self) -> Result<(), BootError> {
        for shard in self.shards() {
            self.send(shard, Message::Shard(ShardMessage::Stop)).await;
        }
        let running = self.running.clone();
        let joined = tokio::task::spawn_blocking(move || running.join());
        let _ = tokio::time::timeout(Duration::from_secs(5), joined).await;
        tracing::info!("ended");
        Ok(())
    }

    /// Sends a message to a shard, waiting while its inbox is full.
    async fn send(&self, shard: ShardId, mut message: Message) {
        while let Err(undelivered) = self.running.send(shard, message) {
            message = undelivered.0;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn ask_shard(&self) -> AskShard {
        let (running, pending) = (self.running.clone(), self.pending.clone());
        Arc::new(move |shard, sender| {
            let mut open = pending.lock().unwrap_or_else(PoisonError::into_inner);
            open.0 += 1;
            let number = open.0;
            // Forget requests after their receiver was dropped, so that the map stays small.
            open.1.retain(|_, sender| !sender.is_closed());
            let ask = Message::Shard(ShardMessage::Ask(number));
            if running.send(shard, ask).is_ok() {
                open.1.insert(number, sender);
            }
        })
    }

    /// Reports of all shards. `None`: the shard did not answer within 1 s.
    async fn reports(&self) -> Vec<Option<ShardReport>> {
        let ask = self.ask_shard();
        let mut reports = Vec::new();
        for shard in self.shards() {
            let (sender, answer) = oneshot::channel();
            ask(shard, sender);
            let answer = tokio::time::timeout(Duration::from_secs(1), answer).await;
            reports.push(answer.ok().and_then(Result::ok));
        }
        reports
    }

    /// Sends brokers' tokens to the homes as they arrive. Each cluster has a task of its own, so a
    /// program that hangs does not delay the tokens of other clusters.
    async fn tokens(self: &Arc<Self>) {
        let mut each = JoinSet::new();
        for cluster in self.snapshot.cluster_indexes() {
            let (_, sasl) = self.snapshot.cluster_security(cluster);
            if let Some(tokens) = Tokens::of(sasl, self.snapshot.cluster_keys(cluster)) {
                let control = self.clone();
                each.spawn(async move { control.tokens_of(cluster, tokens).await });
            }
        }
        while let Some(ended) = each.join_next().await {
            ended.expect("it runs forever and does not panic");
        }
        std::future::pending::<()>().await;
    }

    /// Sends one cluster's tokens to all homes. Never returns.
    async fn tokens_of(&self, cluster: ClusterId, mut tokens: Tokens) {
        let brokers = self.snapshot.cluster_keys(cluster).brokers();
        let mut missing = false;
        loop {
            let token = tokens.next().await;
            match &token {
                Err(why) => tracing::warn!("{why}"),
                Ok(_) if missing => tracing::info!("there is a token for {brokers}"),
                Ok(_) => {}
            }
            missing = token.is_err();
            let token = token.map_err(Arc::<str>::from);
            for home in (0..self.snapshot.layout.homes()).map(ShardId) {
                let token = ClusterMessage::Token(token.clone());
                self.send(home, Message::Home(HomeMessage::Cluster(cluster, token)))
                    .await;
            }
        }
    }

    /// Salts a cluster's password (SCRAM) on a thread of its own, because it takes milliseconds.
    /// One salting runs at a time: all shards request the same one when they start, and the first
    /// result serves them all.
    async fn salt(&self, shard: ShardId, cluster: ClusterId, request: SaltRequest) {
        let mut all = self.salted.lock().await;
        let known = all.get(&cluster).filter(|it| it.answers(&request));
        let salted = match known {
            Some(known) => known.clone(),
            None => {
                let derived = tokio::task::spawn_blocking(move || request.derive()).await;
                // The task is cancelled only if the runtime ends.
                let Ok(salted) = derived else { return };
                all.insert(cluster, salted.clone());
                salted
            }
        };
        drop(all);
        let salted = ClusterMessage::Salted(Box::new(salted));
        self.send(shard, Message::Home(HomeMessage::Cluster(cluster, salted)))
            .await;
    }

    /// Receives messages from shards. Never returns.
    async fn receive(self: &Arc<Self>) {
        loop {
            while let Some((from, messages)) = self.running.take() {
                for message in messages {
                    self.on_message(from, message);
                }
            }
            self.woken.notified().await;
        }
    }

    fn on_message(self: &Arc<Self>, from: ShardId, message: ControlMessage) {
        match message {
            ControlMessage::Salt(cluster, request) => {
                let control = self.clone();
                tokio::spawn(async move { control.salt(from, cluster, *request).await });
            }
            ControlMessage::CheckBody(exchange, check) => {
                let control = self.clone();
                tokio::spawn(async move {
                    let verdict = control.body_checks.run(check).await;
                    let verdict = EdgeMessage::BodyChecked(verdict);
                    let message = Message::Edge(exchange, verdict);
                    control.send(exchange.shard, message).await;
                });
            }
            ControlMessage::Report(number, mut report) => {
                let ok = self
                    .shards()
                    .any(|shard| self.running.vitals(shard).listening > 0);
                let check = if ok {
                    Check::new(LISTENING, CheckState::Ready, "yes")
                } else {
                    Check::new(LISTENING, CheckState::Loading, "when all else is ready")
                };
                report.checks.push(check);
                report.checks.extend(stderr::log_check());
                report
                    .checks
                    .extend(self.tls_status.check(server_tls::unix_now()));
                let short = || self.descriptors.crowded(true);
                let short = self.descriptors_short.check("descriptors", short);
                let full = || self.connections_full_text();
                let full = self.connections_full.check("connections", full);
                report.checks.extend([short, full].into_iter().flatten());
                let vitals = self.running.vitals(from);
                let general = &mut report.metrics.general;
                let refused = &mut general.connections_refused;
                refused.at(AcceptRefusal::Descriptors).0 = vitals.refused_descriptors;
                refused.at(AcceptRefusal::Sockets).0 = vitals.refused;
                general.accepts_failed.0 = vitals.accepts_failed;
                let mut open = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(sender) = open.1.remove(&number) {
                    drop(sender.send(*report));
                }
            }
            ControlMessage::Note(note) => log(&note),
        }
    }

    /// Ends the process if a shard makes no turns: all state is in Kafka, and another instance or a
    /// restart serves better than a shard that hangs.
    async fn watch(&self) {
        let mut last: Vec<(u64, u32)> = self.shards().map(|_| (0, 0)).collect();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let all = self.shards().map(|shard| self.running.vitals(shard));
            let short = all.fold((0, 0), |(refused, failed), it| {
                (refused + it.refused_descriptors, failed + it.accepts_failed)
            });
            let begins = |closed| self.descriptors.crowded(closed);
            let ends = "there are file descriptors for clients again";
            let short = self.descriptors_short.on_tick(short, begins, ends);
            let begins = |_| self.connections_full_text();
            let ends = "no client has been closed because of http.connections_max for a while";
            let refused = (self.totals.refused(), 0);
            let full = self.connections_full.on_tick(refused, begins, ends);
            [short, full].iter().flatten().for_each(log);
            for (shard, (turns, idle_ticks)) in self.shards().zip(&mut last) {
                let now = self.running.vitals(shard).turns;
                *idle_ticks = if now == *turns { *idle_ticks + 1 } else { 0 };
                *turns = now;
                if *idle_ticks >= STUCK_TICKS {
                    tracing::error!(shard = shard.0, "a shard has stopped turning");
                    flush_log();
                    std::process::exit(70);
                }
            }
        }
    }
}

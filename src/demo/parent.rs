//! The demo's parent process: starts the parts in order, and ends them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::addresses::{Addresses, ConfigDir, GATEWAYS, GatewayAddresses};
use super::child::{Gateway, GatewayError, Launch, Supervisor, become_gateway};
use super::faults::Faults;
use super::listener::BrokerHandle;
use super::outside::OutsideCommands;
use super::page::Page;
use super::service::WireLog;
use super::{service, topics};
use crate::broker::Settings;

/// Time for the service to open its accounts.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the end of the demo: the gateway's own limit, and 2 s more.
const END_TIMEOUT: Duration = Duration::from_secs(7);

/// The flags of `sluicegate demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Where the gateway listens for commands, queries and streams (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Where the development broker listens for Kafka clients (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    pub kafka_listen: SocketAddr,

    /// Where the web page is served (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub page_listen: SocketAddr,

    /// Where the gateway's admin listener is (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub admin_listen: SocketAddr,

    /// Where the second gateway listens [default: the port after `--listen`, or any free one].
    #[arg(long, value_name = "ADDR")]
    pub second_listen: Option<SocketAddr>,

    /// Where the second gateway's admin listener is [default: the port after `--admin-listen`, or
    /// any free one].
    #[arg(long, value_name = "ADDR")]
    pub second_admin_listen: Option<SocketAddr>,

    /// How the addresses are printed: for people, or one line of JSON for scripts.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Start broker, service and page only: a gateway is run apart, by hand or by a test.
    #[arg(long)]
    pub no_gateway: bool,

    /// The program to run as the gateway, instead of this one.
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,

    /// How the demo starts its gateway: become `PROGRAM run --config CONFIG`, and die with PARENT.
    #[arg(long, hide = true, num_args = 3, value_names = ["PROGRAM", "CONFIG", "PARENT"])]
    pub exec_gateway: Option<Vec<PathBuf>>,
}

/// Format of the addresses that `sluicegate demo` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A short text for a terminal.
    Text,
    /// One line of JSON for scripts.
    Json,
}

/// Why the demo could not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// An address is in use, or does not belong to this machine.
    #[error("can't listen on {addr}: free it, or give {flag} another port (0: any free one)")]
    Listen {
        /// The flag that sets the address.
        flag: &'static str,
        /// The address that was requested.
        addr: SocketAddr,
        /// The error that the system returned.
        source: std::io::Error,
    },
    /// The system refused an operation that the demo needs.
    #[error("can't {what}")]
    System {
        /// The operation, as in "can't write the config".
        what: &'static str,
        /// The error that the system returned.
        source: std::io::Error,
    },
    /// The payments service could not open its accounts.
    #[error("the payments service did not start within {SERVICE_TIMEOUT:?}; the log says why")]
    Service,
    /// The gateway does not run.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// `--exec-gateway` was not given by the demo itself.
    #[error("--exec-gateway is for the demo itself")]
    ExecByHand,
}

impl DemoError {
    /// The process's exit code: 2 for wrong usage, 69 if something needed is unavailable.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ExecByHand => 2,
            Self::Listen { .. } | Self::System { .. } | Self::Service | Self::Gateway(_) => 69,
        }
    }
}

/// Runs the demo until SIGINT, SIGTERM, SIGQUIT or SIGHUP. Call it on the main thread: the gateway
/// receives its death signal when the thread that started it ends.
///
/// # Errors
/// See [`DemoError`].
pub fn run(args: &DemoArgs) -> Result<(), DemoError> {
    if let Some(exec) = &args.exec_gateway {
        let [gateway, config, parent] = exec.as_slice() else {
            return Err(DemoError::ExecByHand);
        };
        let parent = parent.to_string_lossy().parse();
        let parent = parent.map_err(|_| DemoError::ExecByHand)?;
        return Err(become_gateway(gateway, config, parent).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start a runtime"))?;
    runtime.block_on(demo(args))
}

async fn demo(args: &DemoArgs) -> Result<(), DemoError> {
    let mut signals = Signals::listen().map_err(system("watch signals"))?;
    let demo = tokio::select! {
        biased;
        _ = signals.next_end() => return Ok(()),
        demo = Demo::start(args) => demo?,
    };
    print(args.output, &demo);
    let signal = signals.next_end().await;
    tracing::info!("the demo ends on {signal}");
    // A second signal ends the demo at once. Processes that still run are killed on drop.
    tokio::select! {
        _ = signals.next_end() => {}
        () = demo.end() => {}
    }
    Ok(())
}

/// Signals that end the demo in order, so that no process of it is left running.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    /// SIGHUP: the terminal was closed. `None` if `nohup` started the demo, which ignores the
    /// signal.
    hangup: Option<Signal>,
    /// SIGUSR1 and SIGUSR2 are caught, so that they do not kill the process.
    _ignored: [Signal; 2],
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: hangup.transpose()?,
            _ignored: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    async fn next_end(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.quit.recv() => "SIGQUIT",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether SIGHUP is ignored. `SigIgn` is a hexadecimal mask with SIGHUP as its lowest bit
/// (proc_pid_status(5)).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// Prints the addresses. Nothing else goes to standard output, because scripts read one line of
/// JSON there.
fn print(output: Output, demo: &Demo) {
    let text = match output {
        Output::Json => demo.addresses.as_json(&demo.config, &demo.gateway_pids),
        Output::Text => demo.addresses.as_text(&demo.config, &demo.gateway_pids),
    };
    let mut out = std::io::stdout();
    // A closed standard output does not end the demo: the page shows the same addresses.
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::warn!("can't write to standard output: {error}");
    }
}

/// All running parts. Fields are dropped in this order: the service before its broker.
struct Demo {
    addresses: Addresses,
    config: ConfigDir,
    gateway_pids: [Option<u32>; GATEWAYS],
    /// The supervisors' tasks. Dropping a sender makes its supervisor end its gateway.
    supervisors: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    running: JoinSet<()>,
    broker: Arc<BrokerHandle>,
    /// The gateways' ports, reserved while they are down.
    _reserved: [Socket; 2 * GATEWAYS],
}

impl Demo {
    async fn start(args: &DemoArgs) -> Result<Self, DemoError> {
        let page_listener = listen("--page-listen", args.page_listen)?;
        let reserved = [
            reserve("--listen", args.listen)?,
            reserve("--admin-listen", args.admin_listen)?,
            reserve_next("--second-listen", args.second_listen, args.listen)?,
            reserve_next(
                "--second-admin-listen",
                args.second_admin_listen,
                args.admin_listen,
            )?,
        ];
        let broker = Arc::new(start_broker(args.kafka_listen)?);
        let gateway = |listen, admin| {
            let (listen, admin) = (address(listen)?, address(admin)?);
            Ok::<_, DemoError>(GatewayAddresses { listen, admin })
        };
        let [listen, admin, second_listen, second_admin] = &reserved;
        let addresses = Addresses {
            gateways: [
                gateway(listen, admin)?,
                gateway(second_listen, second_admin)?,
            ],
            kafka: broker.addresses()[0],
            page: page_listener
                .local_addr()
                .map_err(system("ask for an address"))?,
        };
        let config = ConfigDir::write(&addresses).map_err(system("write the gateway's config"))?;
        let wire = Arc::<WireLog>::default();
        let mut running = JoinSet::new();
        start_service(&mut running, broker.bootstrap(), Arc::clone(&wire)).await?;
        let mut demo = Self {
            addresses,
            config,
            gateway_pids: [None; GATEWAYS],
            supervisors: Vec::new(),
            running,
            broker,
            _reserved: reserved,
        };
        let faults = if args.no_gateway {
            None
        } else {
            let gateways = demo.start_gateways(args.gateway.as_deref()).await?;
            let bootstrap = demo.broker.bootstrap();
            let outside = OutsideCommands { bootstrap };
            let broker = Arc::downgrade(&demo.broker);
            Some(Faults::new(gateways, outside, broker))
        };
        let page = Page::new(addresses, faults, wire);
        demo.running.spawn(page.serve(page_listener));
        Ok(demo)
    }

    /// Starts the gateways at the same time, and a supervisor for each.
    async fn start_gateways(&mut self, program: Option<&Path>) -> Result<Vec<Gateway>, DemoError> {
        let this = std::env::current_exe().map_err(system("find this program"))?;
        let program = program.unwrap_or(&this);
        let launch = |place: usize| {
            let admin = self.addresses.gateways[place].admin;
            Launch::guarded(&this, program, &self.config.config(place), admin)
        };
        let started = tokio::try_join!(Supervisor::start(launch(0)), Supervisor::start(launch(1)))?;
        let mut gateways = Vec::new();
        for (place, (supervisor, gateway)) in <[_; GATEWAYS]>::from(started).into_iter().enumerate()
        {
            self.gateway_pids[place] = gateway.status().pid;
            let (stop, stopped) = oneshot::channel();
            let supervising = tokio::spawn(supervisor.supervise(stopped));
            self.supervisors.push((stop, supervising));
            gateways.push(gateway);
        }
        Ok(gateways)
    }

    /// Ends the gateways in order, then drops the rest.
    async fn end(mut self) {
        let (stops, supervising): (Vec<_>, Vec<_>) = self.supervisors.drain(..).unzip();
        drop(stops);
        let until = tokio::time::Instant::now() + END_TIMEOUT;
        for supervisor in supervising {
            let abort = supervisor.abort_handle();
            if tokio::time::timeout_at(until, supervisor).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Starts the broker and creates its topics.
fn start_broker(addr: SocketAddr) -> Result<BrokerHandle, DemoError> {
    // The seed determines the topic ids. A restarted demo has new topics, so it needs a new seed.
    let seed = service::now_ms().cast_unsigned();
    let broker = BrokerHandle::start(Settings::default(), seed, addr).map_err(|source| {
        DemoError::Listen {
            flag: "--kafka-listen",
            addr,
            source,
        }
    })?;
    for topic in topics::ALL {
        let made = broker
            .with(|broker| broker.create_topic(topic.name, topic.partitions.into(), topic.configs));
        made.expect("an empty broker has room for five topics with Kafka's own keys");
    }
    Ok(broker)
}

async fn start_service(
    running: &mut JoinSet<()>,
    bootstrap: String,
    wire: Arc<WireLog>,
) -> Result<(), DemoError> {
    let (ready, mut is_ready) = watch::channel(false);
    running.spawn(service::serve(bootstrap, ready, wire));
    let wait = is_ready.wait_for(|ready| *ready);
    match tokio::time::timeout(SERVICE_TIMEOUT, wait).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(DemoError::Service),
    }
}

fn listen(flag: &'static str, addr: SocketAddr) -> Result<TcpListener, DemoError> {
    let refused = |source| DemoError::Listen { flag, addr, source };
    let listener = std::net::TcpListener::bind(addr).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    TcpListener::from_std(listener).map_err(refused)
}

/// Reserves a port for the gateway, which binds it later and again after each restart. The socket
/// is bound and never listens, so the kernel does not assign the port to others, and sockets with
/// `SO_REUSEADDR`, as listeners have, can still bind it.
fn reserve(flag: &'static str, addr: SocketAddr) -> Result<Socket, DemoError> {
    let refused = |source| DemoError::Listen { flag, addr, source };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).map_err(refused)?;
    // Set it for a given port before binding, because closed connections in TIME_WAIT would prevent
    // the bind. For port 0 set it only afterwards, because the kernel could choose another demo's
    // reserved port.
    if addr.port() != 0 {
        socket.set_reuse_address(true).map_err(refused)?;
    }
    socket.bind(&addr.into()).map_err(refused)?;
    socket.set_reuse_address(true).map_err(refused)?;
    Ok(socket)
}

/// Reserves a port for the second gateway: the given one, or the one after the first gateway's. If
/// that is not free, any port will do, because the page and the terminal show it.
fn reserve_next(
    flag: &'static str,
    given: Option<SocketAddr>,
    first: SocketAddr,
) -> Result<Socket, DemoError> {
    if let Some(addr) = given {
        return reserve(flag, addr);
    }
    let at = |port| SocketAddr::new(first.ip(), port);
    match first.port() {
        0 | u16::MAX => reserve(flag, at(0)),
        port => reserve(flag, at(port + 1)).or_else(|_| reserve(flag, at(0))),
    }
}

fn address(socket: &Socket) -> Result<SocketAddr, DemoError> {
    let addr = socket.local_addr().map_err(system("ask for an address"))?;
    Ok(addr.as_socket().expect("made for an IP address"))
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> DemoError {
    move |source| DemoError::System { what, source }
}

//! The demo's parent process: what it starts, in which order, and how it ends.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::away::Away;
use super::child::{Gateway, GatewayError, Keeper, Launch, become_gateway};
use super::listener::BrokerHandle;
use super::page::Page;
use super::places::{ConfigDir, Places};
use super::{service, topics};
use crate::broker::Settings;

/// How long the service may take to have its accounts.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end may take altogether: the gateway's, and a little.
const END_TIMEOUT: Duration = Duration::from_secs(7);

/// `sluicegate demo`: flags.
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

/// How `sluicegate demo` says where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A short page for people.
    Text,
    /// One line of JSON.
    Json,
}

/// Why the demo could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// An address is taken or not ours.
    #[error("can't listen on {addr}: free it, or give {flag} another port (0: any free one)")]
    Listen {
        /// The flag that sets the address.
        flag: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused something the demo can't do without.
    #[error("can't {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The payments service could not open its accounts.
    #[error("the payments service did not start within {SERVICE_TIMEOUT:?}; the log says why")]
    Service,
    /// There is no gateway.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// `--exec-gateway` was given by hand.
    #[error("--exec-gateway is for the demo itself")]
    ExecByHand,
}

impl DemoError {
    /// The process's exit code (INTERFACE: 2 usage, 69 something needed is not there).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ExecByHand => 2,
            Self::Listen { .. } | Self::System { .. } | Self::Service | Self::Gateway(_) => 69,
        }
    }
}

/// Runs the demo until SIGINT, SIGTERM, SIGQUIT or SIGHUP. Call it on the main thread: the gateway
/// dies with the thread that started it.
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
    // A second signal does not wait for an orderly end; what still runs is killed on drop.
    tokio::select! {
        _ = signals.next_end() => {}
        () = demo.end() => {}
    }
    Ok(())
}

/// Signals that end the demo in an orderly way, so that no process of it stays behind.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    /// The terminal was closed. `None` if `nohup` started the demo, which has the signal ignored.
    hangup: Option<Signal>,
    /// Caught, so that they do not kill the process.
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

/// proc_pid_status(5): `SigIgn` is a mask in hexadecimal, SIGHUP its lowest bit.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// Standard output is for the addresses alone: a script reads one line of JSON there.
fn print(output: Output, demo: &Demo) {
    let config = demo.config.config();
    let text = match output {
        Output::Json => demo.places.as_json(&config, demo.gateway_pid),
        Output::Text => demo.places.as_text(&config, demo.gateway_pid),
    };
    let mut out = std::io::stdout();
    // A closed standard output does not end the demo: the page shows the same.
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::warn!("can't write to standard output: {error}");
    }
}

/// Everything that runs. Fields are dropped in this order: the service before its broker.
struct Demo {
    places: Places,
    config: ConfigDir,
    gateway_pid: Option<u32>,
    /// Dropping the sender asks the keeper to end the gateway.
    keeper: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    _running: JoinSet<()>,
    _broker: BrokerHandle,
    /// The gateway's ports, kept for it while it is away.
    _reserved: [Socket; 2],
}

impl Demo {
    async fn start(args: &DemoArgs) -> Result<Self, DemoError> {
        let page_listener = listen("--page-listen", args.page_listen)?;
        let gateway = reserve("--listen", args.listen)?;
        let admin = reserve("--admin-listen", args.admin_listen)?;
        let broker = start_broker(args.kafka_listen)?;
        let places = Places {
            gateway: address(&gateway)?,
            admin: address(&admin)?,
            kafka: broker.addresses()[0],
            page: page_listener
                .local_addr()
                .map_err(system("ask for an address"))?,
        };
        let config = ConfigDir::write(&places).map_err(system("write the gateway's config"))?;
        let mut running = JoinSet::new();
        start_service(&mut running, broker.bootstrap()).await?;
        let mut demo = Self {
            places,
            config,
            gateway_pid: None,
            keeper: None,
            _running: running,
            _broker: broker,
            _reserved: [gateway, admin],
        };
        let gateway = match args.no_gateway {
            true => None,
            false => Some(demo.start_gateway(args.gateway.as_deref()).await?),
        };
        let page = Page::new(places, gateway);
        demo._running.spawn(page.serve(page_listener));
        Ok(demo)
    }

    async fn start_gateway(&mut self, program: Option<&Path>) -> Result<Gateway, DemoError> {
        let this = std::env::current_exe().map_err(system("find this program"))?;
        let program = program.unwrap_or(&this);
        let config = self.config.config();
        let launch = Launch::guarded(&this, program, &config, self.places.admin);
        let away = Away {
            bootstrap: self._broker.bootstrap(),
        };
        let (keeper, gateway) = Keeper::start(launch, away).await?;
        self.gateway_pid = gateway.status().pid;
        let (stop, stopped) = oneshot::channel();
        self.keeper = Some((stop, tokio::spawn(keeper.keep(stopped))));
        Ok(gateway)
    }

    /// Ends the gateway in order, then the rest.
    async fn end(mut self) {
        if let Some((stop, keeper)) = self.keeper.take() {
            drop(stop);
            let abort = keeper.abort_handle();
            if tokio::time::timeout(END_TIMEOUT, keeper).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// The broker with its topics.
fn start_broker(addr: SocketAddr) -> Result<BrokerHandle, DemoError> {
    // The seed makes topic ids: a demo started anew must not look like the same log.
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

async fn start_service(running: &mut JoinSet<()>, bootstrap: String) -> Result<(), DemoError> {
    let (ready, mut is_ready) = watch::channel(false);
    running.spawn(service::serve(bootstrap, ready));
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

/// Takes a port for somebody who binds it later, and again after each restart: a socket that is
/// bound and never listens. It keeps others from getting the port as a free one, and lets those
/// bind who allow the address to be used again, as listeners do.
fn reserve(flag: &'static str, addr: SocketAddr) -> Result<Socket, DemoError> {
    let refused = |source| DemoError::Listen { flag, addr, source };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).map_err(refused)?;
    // For a given port before it is bound, or connections that ended just now would be in the way;
    // for any free one afterwards, or it could be another demo's reserved one.
    if addr.port() != 0 {
        socket.set_reuse_address(true).map_err(refused)?;
    }
    socket.bind(&addr.into()).map_err(refused)?;
    socket.set_reuse_address(true).map_err(refused)?;
    Ok(socket)
}

fn address(socket: &Socket) -> Result<SocketAddr, DemoError> {
    let addr = socket.local_addr().map_err(system("ask for an address"))?;
    Ok(addr.as_socket().expect("made for an IP address"))
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> DemoError {
    move |source| DemoError::System { what, source }
}

//! The demo's parent process: what it starts, in which order, and how it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::away::Away;
use super::child::{GatewayError, Keeper, Launch, become_gateway};
use super::page::Page;
use super::places::{ConfigDir, Places};
use super::service;

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
    #[error("{flag} {addr}: {source}; give another address, or port 0 for any free one")]
    Listen {
        /// The flag that sets the address.
        flag: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused something the demo can't do without.
    #[error("{what}: {source}")]
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

/// Runs the demo until SIGINT or SIGTERM. Call it on the main thread: the gateway dies with the
/// thread that started it.
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
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("watch SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("watch SIGTERM"))?;
    let setup = async {
        let demo = Demo::start(args).await?;
        print(args.output, &demo);
        Ok(demo)
    };
    let demo = tokio::select! {
        biased;
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        demo = setup => demo?,
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // A second signal does not wait for an orderly end; what still runs is killed on drop.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = demo.end() => {}
    }
    Ok(())
}

/// Standard output is for the addresses alone: a script reads one line of JSON there.
#[allow(clippy::print_stdout)]
fn print(output: Output, demo: &Demo) {
    let config = demo.config.config();
    let text = match output {
        Output::Json => demo.places.as_json(&config, demo.gateway_pid),
        Output::Text => demo.places.as_text(&config, demo.gateway_pid),
    };
    println!("{text}");
}

/// Everything that runs.
struct Demo {
    places: Places,
    config: ConfigDir,
    gateway_pid: Option<u32>,
    /// Ends the gateway when dropped, then its keeper.
    keeper: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
    /// Ports of the gateway, which it alone listens on.
    _reserved: [Socket; 2],
    _broker: Broker,
}

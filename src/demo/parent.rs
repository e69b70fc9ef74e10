//! The demo's parent process: what it starts, in which order, and how it ends.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
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
}

/// Runs the demo until SIGINT or SIGTERM. Call it on the main thread: the gateway dies with the
/// thread that started it.
///
/// # Errors
/// See [`DemoError`].
pub fn run(args: &DemoArgs) -> Result<(), DemoError> {
    let _ = args;
    Ok(())
}

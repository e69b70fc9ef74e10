//! Gateways that the harness starts itself, kills and starts again.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Time for a gateway to become ready.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// How a gateway is started.
#[derive(Clone, Debug)]
pub(crate) struct GatewayCommand {
    pub(crate) binary: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) bootstrap: Option<String>,
    /// More options of `run`.
    pub(crate) options: Vec<String>,
}

/// A gateway process at a fixed address. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    command: GatewayCommand,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(command: &GatewayCommand) -> Result<Self> {
        let mut gateway = Self {
            command: command.clone(),
            address: free_address()?,
            admin: free_address()?,
            child: None,
        };
        gateway.spawn()?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process, at its old addresses.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        let GatewayCommand {
            binary,
            config,
            bootstrap,
            options,
        } = &self.command;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(config);
        command.args(["--listen", &self.address.to_string()]);
        command.args(["--admin-listen", &self.admin.to_string()]);
        if let Some(bootstrap) = bootstrap {
            command.args(["--kafka-bootstrap", bootstrap]);
        }
        command
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command.spawn();
        let child = child.with_context(|| format!("can't start {}", binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_TIME_MAX;
        while Instant::now() < until {
            if is_ready(self.admin) {
                return Ok(());
            }
            self.check_alive()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the gateway at {} was not ready within 60 s", self.address)
    }

    /// An error with what the process said, if it has ended.
    fn check_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let Some(status) = child.try_wait()? else {
            return Ok(());
        };
        let mut said = String::new();
        if let Some(stderr) = &mut child.stderr {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        bail!("the gateway ended with {status}: {}", said.trim());
    }

    /// Ends the process at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Checks that the files exist, so that a typo is named before anything is started.
pub(crate) fn check(binary: &Path, config: &Path) -> Result<()> {
    ensure!(binary.is_file(), "{} is no program", binary.display());
    ensure!(config.is_file(), "there is no config {}", config.display());
    Ok(())
}

/// An address that nobody uses now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn is_ready(admin: SocketAddr) -> bool {
    use std::io::Write as _;
    let Ok(mut socket) = TcpStream::connect_timeout(&admin, Duration::from_secs(1)) else {
        return false;
    };
    let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let mut head = [0; 12];
    socket.write_all(request.as_bytes()).is_ok()
        && socket.read_exact(&mut head).is_ok()
        && head.ends_with(b" 200")
}

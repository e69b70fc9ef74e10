//! The gateway as a child process: started, supervised, killed on request, restarted.
//!
//! The child must not outlive its parent, however the parent ends. Linux sends a signal to a child
//! at its parent's death if the child asked for it, and this survives `exec`. So the parent starts
//! itself with a hidden flag. That process asks for the signal, checks that its parent still
//! exists, and becomes the gateway.

use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Time from the start of a gateway until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two requests to `/readyz`.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Shortest time that a killed gateway stays down, so that people notice it.
const DOWN_MIN: Duration = Duration::from_millis(1_500);
/// First and longest wait before a gateway that ended by itself is restarted.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Time for a gateway to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Variables that would override the generated config.
const NOT_INHERITED: [&str; 4] = [
    "SLUICEGATE_LISTEN",
    "SLUICEGATE_ADMIN_LISTEN",
    "SLUICEGATE_KAFKA_BOOTSTRAP",
    "SLUICEGATE_CONFIG",
];

/// The command that starts a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Path of the program to start.
    pub(crate) program: PathBuf,
    /// Arguments to start the program with.
    pub(crate) args: Vec<String>,
    /// The admin address, which serves `/readyz`.
    pub(crate) admin: SocketAddr,
}

impl Launch {
    /// Starts `gateway run --config config` so that it dies with this process. `this` is the
    /// program that calls [`become_gateway`].
    pub(crate) fn guarded(this: &Path, gateway: &Path, config: &Path, admin: SocketAddr) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self {
            program: this.to_owned(),
            args: vec![
                "demo".into(),
                "--exec-gateway".into(),
                text(gateway),
                text(config),
                std::process::id().to_string(),
            ],
            admin,
        }
    }

    fn spawn(&self) -> Result<Child, GatewayError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            // Standard output has only the demo's addresses. The gateway's log goes to standard
            // error.
            .stdout(Stdio::null())
            // A process group of its own: Ctrl-C reaches only the parent, which then ends the child
            // in order.
            .process_group(0)
            .kill_on_drop(true);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command.spawn().map_err(|source| GatewayError::Start {
            program: self.program.clone(),
            source,
        })
    }
}

/// Becomes the gateway, in a process that dies with `parent`. Returns only with an error.
pub(crate) fn become_gateway(gateway: &Path, config: &Path, parent: i32) -> GatewayError {
    let start = |source| GatewayError::Start {
        program: gateway.to_owned(),
        source,
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return start(error.into());
    }
    // The parent may have died before the signal was requested.
    if rustix::process::getppid().map(Pid::as_raw_nonzero) != std::num::NonZero::new(parent) {
        return GatewayError::Orphan;
    }
    let mut command = std::process::Command::new(gateway);
    start(command.arg("run").arg("--config").arg(config).exec())
}

/// Why the gateway is not running.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The program cannot be started.
    #[error("the gateway {program} can't be started", program = program.display())]
    Start {
        /// Path of the program that did not start.
        program: PathBuf,
        /// The error that the system returned.
        source: std::io::Error,
    },
    /// The gateway ended before it was ready.
    #[error("the gateway ended before it was ready: {0} (its own words are above)")]
    Ended(ExitStatus),
    /// The gateway runs, but was not ready in time.
    #[error("the gateway is not ready after {READY_TIMEOUT:?} (see its /readyz)")]
    NotReady,
    /// The parent has ended, so the child does not start.
    #[error("the demo's process is gone")]
    Orphan,
}

/// Why a restart was rejected or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestartError {
    /// Another restart is in progress.
    #[error("a restart is under way")]
    Busy,
    /// The new gateway did not become ready.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The demo is ending, so nothing restarts.
    #[error("the demo is ending")]
    Ending,
}

/// The result of a restart, as the page shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restarted {
    /// Id of the process that was killed. `None` if none was running.
    pub(crate) killed_pid: Option<u32>,
    /// Id of the new process.
    pub(crate) pid: Option<u32>,
    /// Time from the kill until the new process was ready.
    pub(crate) down_for: Duration,
    /// Number of restarts so far.
    pub(crate) restarts: u32,
}

/// State of the gateway's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The process runs and is ready.
    Up,
    /// The process runs and is not ready yet.
    Starting,
    /// No process runs; a start follows.
    Down,
}

impl State {
    /// The state as the page's JSON has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Down => "down",
        }
    }
}

/// Status of the gateway, as the page shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    /// The state of its process.
    pub(crate) state: State,
    /// Id of its process, if one runs.
    pub(crate) pid: Option<u32>,
    /// Number of restarts, whether requested or after a failure.
    pub(crate) restarts: u32,
}

type RestartReply = oneshot::Sender<Result<Restarted, GatewayError>>;

/// A handle to the gateway's supervisor.
#[derive(Clone)]
pub(crate) struct Gateway {
    asks: mpsc::Sender<RestartReply>,
    status: Arc<watch::Sender<Status>>,
}

/// A restart that is under way.
pub(crate) struct Restarting(oneshot::Receiver<Result<Restarted, GatewayError>>);

impl Restarting {
    /// Waits until the new gateway is ready.
    pub(crate) async fn done(self) -> Result<Restarted, RestartError> {
        Ok(self.0.await.map_err(|_| RestartError::Ending)??)
    }
}

impl Gateway {
    /// The current status of the gateway.
    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Kills the gateway (SIGKILL) and starts it again. Returns once the supervisor knows.
    pub(crate) fn restart(&self) -> Result<Restarting, RestartError> {
        let (answer, wait) = oneshot::channel();
        self.asks.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RestartError::Busy,
            mpsc::error::TrySendError::Closed(_) => RestartError::Ending,
        })?;
        Ok(Restarting(wait))
    }

    /// Waits until no process runs.
    pub(crate) async fn until_down(&self) {
        let mut status = self.status.subscribe();
        // An error means that the supervisor has ended, and with it the gateway.
        let _ended = status.wait_for(|status| status.state == State::Down).await;
    }
}

/// Supervises the gateway: restarts it when it ends or when the page requests it.
pub(crate) struct Supervisor {
    launch: Launch,
    child: Option<Child>,
    asks: mpsc::Receiver<RestartReply>,
    status: Arc<watch::Sender<Status>>,
}

impl Supervisor {
    /// Starts the gateway and waits until it is ready.
    ///
    /// # Errors
    /// The gateway did not become ready. If its first start fails, it is not retried.
    pub(crate) async fn start(launch: Launch) -> Result<(Self, Gateway), GatewayError> {
        let (asks, asked) = mpsc::channel(1);
        let status = Arc::new(watch::Sender::new(Status {
            state: State::Starting,
            pid: None,
            restarts: 0,
        }));
        let mut supervisor = Self {
            launch,
            child: None,
            asks: asked,
            status: Arc::clone(&status),
        };
        supervisor.launch().await?;
        Ok((supervisor, Gateway { asks, status }))
    }

    /// Supervises until `stop` is dropped, then ends the gateway in order.
    pub(crate) async fn supervise(mut self, mut stop: oneshot::Receiver<()>) {
        let mut wait = RETRY_WAIT.0;
        let mut since = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                asked = self.asks.recv() => match asked {
                    Some(answer) => {
                        let _ = answer.send(self.restart().await);
                        since = Instant::now();
                    }
                    None => break,
                },
                () = until_ready(self.launch.admin), if self.is_slow() => self.set(State::Up),
                ended = ended(&mut self.child) => {
                    if since.elapsed() > RETRY_WAIT.1 {
                        wait = RETRY_WAIT.0;
                    }
                    tracing::warn!("the gateway ended by itself ({ended}); again in {wait:?}");
                    self.child = None;
                    self.set(State::Down);
                    tokio::select! {
                        biased;
                        _ = &mut stop => break,
                        () = sleep(wait) => {}
                    }
                    wait = (wait * 2).min(RETRY_WAIT.1);
                    self.count_restart();
                    if let Err(error) = self.launch().await {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "the gateway is not up");
                    }
                    since = Instant::now();
                }
            }
        }
        self.stop_gateway().await;
    }

    async fn restart(&mut self) -> Result<Restarted, GatewayError> {
        let since = Instant::now();
        let killed_pid = self.child.as_ref().and_then(Child::id);
        if let Some(mut child) = self.child.take() {
            // Kill and wait: the port is free only after the process has ended.
            let _ = child.kill().await;
        }
        self.set(State::Down);
        sleep_until(since + DOWN_MIN).await;
        self.count_restart();
        self.launch().await?;
        let status = *self.status.borrow();
        Ok(Restarted {
            killed_pid,
            pid: status.pid,
            down_for: since.elapsed(),
            restarts: status.restarts,
        })
    }

    /// Starts a gateway and waits until it is ready.
    async fn launch(&mut self) -> Result<(), GatewayError> {
        let mut child = self.launch.spawn()?;
        let pid = child.id();
        self.status.send_modify(|status| {
            status.state = State::Starting;
            status.pid = pid;
        });
        let ready = tokio::select! {
            ready = timeout(READY_TIMEOUT, until_ready(self.launch.admin)) => ready.is_ok(),
            ended = child.wait() => {
                self.set(State::Down);
                return Err(GatewayError::Ended(ended.unwrap_or(ExitStatus::from_raw(-1))));
            }
        };
        // Keep a slow gateway: it may still become ready, and `/readyz` shows why it is not.
        self.child = Some(child);
        if !ready {
            return Err(GatewayError::NotReady);
        }
        self.set(State::Up);
        Ok(())
    }

    async fn stop_gateway(mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            // The process may just have ended. Then there is nothing to signal.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        if timeout(END_TIMEOUT, child.wait()).await.is_err() {
            tracing::warn!("the gateway did not end within {END_TIMEOUT:?} and was killed");
            let _ = child.kill().await;
        }
    }

    /// Whether a gateway runs that was not ready in time.
    fn is_slow(&self) -> bool {
        self.child.is_some() && self.status.borrow().state == State::Starting
    }

    fn set(&self, state: State) {
        self.status.send_modify(|status| {
            status.state = state;
            if state == State::Down {
                status.pid = None;
            }
        });
    }

    fn count_restart(&self) {
        self.status.send_modify(|status| status.restarts += 1);
    }
}

/// Waits for the child's end. Without a child it never completes.
async fn ended(child: &mut Option<Child>) -> String {
    match child {
        Some(child) => match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        },
        None => std::future::pending().await,
    }
}

async fn until_ready(admin: SocketAddr) {
    while !is_ready(admin).await {
        sleep(READY_PAUSE).await;
    }
}

/// Sends one request to `/readyz`.
async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status_line = [0; 12];
        stream.read_exact(&mut status_line).await?;
        std::io::Result::Ok(status_line == *b"HTTP/1.1 200")
    };
    matches!(timeout(Duration::from_secs(2), ask).await, Ok(Ok(true)))
}

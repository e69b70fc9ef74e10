//! Signals of the process: three stop it, SIGHUP renews certificates and keys, the others are
//! logged and ignored. None has its default action, which would kill the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that asked the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM, sent by an operator or a supervisor.
    Terminate,
    /// SIGINT, sent by a terminal for Ctrl-C.
    Interrupt,
    /// SIGQUIT, sent by process managers for an orderly stop and by terminals for Ctrl-\.
    Quit,
}

/// Listens for signals. Create it before anything else: until then a signal has its default action,
/// which kills the process. Rust's runtime ignores SIGPIPE.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// SIGXFSZ: a log file has reached its size limit (RLIMIT_FSIZE). With a handler, the write
    /// fails instead, and the line is counted as dropped.
    _file_size: Signal,
}

impl Signals {
    /// Starts to listen. The caller runs on the control thread's tokio runtime.
    ///
    /// # Errors
    /// The system rejects a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Waits for the next signal that asks the process to stop. Call it again while draining: a
    /// second signal means "stop now". Other signals are logged and ignored.
    pub async fn next_stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Terminate,
                _ = self.interrupt.recv() => return Stop::Interrupt,
                _ = self.quit.recv() => return Stop::Quit,
                _ = self.hangup.recv() => {
                    // What is renewed listens for the signal itself.
                    tracing::info!(
                        "SIGHUP: the files of certificates, authorities, key sets and API keys are \
                         read again; settings, routes and limits need a restart"
                    );
                }
                _ = self.user1.recv() => tracing::info!("SIGUSR1 ignored"),
                _ = self.user2.recv() => tracing::info!("SIGUSR2 ignored"),
            }
        }
    }
}

//! The signals of the process: which stop it and which are ignored. The default action, which would
//! kill the process, is never taken.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which signal asked the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: an operator or a supervisor.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGQUIT: process managers send it for an orderly stop, terminals for Ctrl-\.
    Quit,
}

/// Listens to signals. Create it before anything else: until then a signal's default action kills
/// the process. SIGPIPE is ignored by Rust's runtime.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// SIGXFSZ: a log file has reached its size limit (RLIMIT_FSIZE). It is caught, so that the
    /// write fails and the line is counted as dropped.
    _file_size: Signal,
}

impl Signals {
    /// Starts to listen. Needs the tokio runtime of the control thread.
    ///
    /// # Errors
    /// The system refuses a handler.
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

    /// The next signal that asks the process to stop. Call it again while draining: a second signal
    /// means "now". Other signals are logged and ignored.
    pub async fn next_stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Terminate,
                _ = self.interrupt.recv() => return Stop::Interrupt,
                _ = self.quit.recv() => return Stop::Quit,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP ignored: settings and certificates need a restart");
                }
                _ = self.user1.recv() => tracing::info!("SIGUSR1 ignored"),
                _ = self.user2.recv() => tracing::info!("SIGUSR2 ignored"),
            }
        }
    }
}

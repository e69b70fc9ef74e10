//! The signals of the process: which end it, which are ignored. None of them kills it by default.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which signal asked the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: an operator or a supervisor.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGQUIT: what process managers send for an orderly stop, and Ctrl-\.
    Quit,
}

/// Listens to signals. Made before anything else is, so that no signal finds the default action,
/// which is to kill the process. SIGPIPE is ignored by Rust's runtime.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// A log file that reaches the limit of its size (RLIMIT_FSIZE). Caught, so that the write
    /// fails and the line is counted as dropped.
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

    /// The next signal that asks for an end. Call it again while draining: a second one means
    /// "now". Other signals are logged and ignored.
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

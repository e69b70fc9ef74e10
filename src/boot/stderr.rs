//! Standard error as the log's output: a bounded queue and one thread that writes. Logging never
//! waits and never fails. Lines are dropped and counted while standard error is closed, full, or an
//! unread pipe. Once a write succeeds again, a WARN reports how many lines were lost.
//!
//! `tracing-appender` was ruled out: it discards write errors uncounted, its limit is in lines and
//! not in bytes, and its guard prints to standard output when the thread is stuck, which blocks or
//! panics if both outputs share the pipe (`2>&1
//! `).

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat, LogLevel};
use crate::metrics::{Check, CheckState};
use crate::shard::is_guarded;

/// Most lines that wait for the writer.
const LINES_MAX: usize = 1024;

/// Most bytes of the lines that wait for the writer.
const BYTES_MAX: usize = 1 << 20;

/// How long the end of the process waits for the last lines to be written.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// The log's output. Set once by [`start_log`].
static OUTPUT: OnceLock<Output> = OnceLock::new();

/// One entry of the queue.
enum LogEntry {
    Line(Vec<u8>),
    /// Answered after every line before it has been written or dropped.
    Flush(Sender<()>),
}

/// State that the writer's thread shares with every thread that logs.
#[derive(Debug, Default)]
struct Counts {
    /// Bytes of the lines in the queue.
    queued_bytes: AtomicUsize,
    /// Lines dropped since the start.
    dropped: AtomicU64,
    /// Whether a line has been dropped since the last successful write.
    is_losing: AtomicBool,
    /// The `errno` of the last write, or 0.
    errno: AtomicI32,
}

impl Counts {
    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.is_losing.store(true, Ordering::Relaxed);
    }
}

/// The sending side of the queue.
#[derive(Clone, Debug)]
struct Output {
    queue: Sender<LogEntry>,
    counts: Arc<Counts>,
}

impl Output {
    /// Starts the thread that writes to `out`. The thread lives as long as the process.
    fn start(out: impl AsFd + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = bounded(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write_lines(&out, &lines, &shared))?;
        Ok(Self { queue, counts })
    }

    /// Queues a line, or drops it: the caller never waits.
    fn push(&self, line: &[u8]) {
        let queued = self.counts.queued_bytes.load(Ordering::Relaxed);
        if queued + line.len() > BYTES_MAX {
            return self.counts.drop_line();
        }
        self.counts
            .queued_bytes
            .fetch_add(line.len(), Ordering::Relaxed);
        let sent = self.queue.try_send(LogEntry::Line(line.to_vec()));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sent {
            self.counts
                .queued_bytes
                .fetch_sub(line.len(), Ordering::Relaxed);
            self.counts.drop_line();
        }
    }

    /// Waits until all queued lines have been written, twice [`FLUSH_WAIT`] at most.
    fn flush(&self) {
        let (done, wait) = bounded(1);
        let sent = self.queue.send_timeout(LogEntry::Flush(done), FLUSH_WAIT);
        if sent.is_ok() {
            // Ignore a timeout: nothing reads the remaining lines.
            let _ = wait.recv_timeout(FLUSH_WAIT);
        }
    }

    fn check(&self) -> Option<Check> {
        let counts = &self.counts;
        if !counts.is_losing.load(Ordering::Relaxed) {
            return None;
        }
        let dropped = counts.dropped.load(Ordering::Relaxed);
        let why = match counts.errno.load(Ordering::Relaxed) {
            0 => "its reader has stopped reading".to_owned(),
            errno => io::Error::from_raw_os_error(errno).to_string(),
        };
        let detail = format!(
            "standard error takes no log lines: {why}; {dropped} were dropped so far. Serving goes \
             on. Start the reader of the log again, or free its disk"
        );
        Some(Check::new("log", CheckState::Degraded, detail))
    }
}

/// Body of the writer's thread.
fn write_lines(out: &impl AsFd, entries: &Receiver<LogEntry>, counts: &Counts) {
    let mut reported = 0;
    let mut is_torn = false;
    for entry in entries {
        let line = match entry {
            LogEntry::Line(line) => line,
            LogEntry::Flush(done) => {
                let _ = done.try_send(());
                continue;
            }
        };
        counts.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        // The last write stopped within a line, so end that line first.
        let written = if is_torn {
            write_all(out, b"\n").and_then(|()| write_all(out, &line))
        } else {
            write_all(out, &line)
        };
        match written {
            Ok(()) => {
                is_torn = false;
                counts.errno.store(0, Ordering::Relaxed);
                let dropped = counts.dropped.load(Ordering::Relaxed);
                counts.is_losing.store(false, Ordering::Relaxed);
                if dropped > reported {
                    let lines = dropped - reported;
                    reported = dropped;
                    tracing::warn!(lines, "log lines were dropped: standard error took none");
                }
            }
            Err(error) => {
                is_torn |= error.any;
                counts.errno.store(error.errno, Ordering::Relaxed);
                counts.drop_line();
            }
        }
    }
}

/// A failed write of a line.
struct WriteError {
    errno: i32,
    /// Whether some of the bytes were written.
    any: bool,
}

/// Writes all bytes. Takes no lock: a stuck writer must not block other threads that write to
/// standard error.
fn write_all(out: &impl AsFd, bytes: &[u8]) -> Result<(), WriteError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let failed = match rustix::io::write(out, rest) {
            Ok(taken) if taken > 0 => {
                rest = &rest[taken..];
                continue;
            }
            Ok(_) => Errno::IO,
            Err(Errno::INTR) => continue,
            // Another process that shares the pipe or terminal has made it non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(out, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => continue,
                Err(errno) => errno,
            },
            Err(errno) => errno,
        };
        return Err(WriteError {
            errno: failed.raw_os_error(),
            any: rest.len() < bytes.len(),
        });
    }
    Ok(())
}

/// The writer for `tracing`, which queues each line.
#[derive(Clone, Debug)]
struct ToQueue(Output);

impl Write for ToQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ToQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts the log of the process. From then on a panic is logged as well. The standard hook would
/// write to standard error itself, so a panic behind a stuck pipe would hang instead of ending the
/// process.
///
/// # Errors
/// The writer's thread cannot be started.
pub fn start_log(settings: &Log, colours: bool) -> io::Result<()> {
    let output = Output::start(io::stderr())?;
    if OUTPUT.set(output.clone()).is_err() {
        return Ok(());
    }
    let level = match settings.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(ToQueue(output))
        .with_ansi(colours);
    match settings.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        if is_guarded() {
            return log_guarded(thread, panic);
        }
        let backtrace = std::backtrace::Backtrace::capture();
        match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => {
                tracing::error!(thread, "{panic}\n{backtrace}");
            }
            _ => tracing::error!(thread, "{panic}"),
        }
        flush_log();
    }));
    Ok(())
}

/// Logs a panic that closed one connection. A client may repeat it at will, so the log names the
/// first, second, fourth, eighth and so on, and the shard does not wait for the log.
fn log_guarded(thread: &str, panic: &std::panic::PanicHookInfo<'_>) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        tracing::error!(thread, count, "a client's connection was closed: {panic}");
    }
}

/// Waits until all queued lines have been written, two seconds at most. Call it before the process
/// ends, because the writer's thread ends with it.
pub fn flush_log() {
    if let Some(output) = OUTPUT.get() {
        output.flush();
    }
}

/// Prints a message for people, after all lines logged before it. Never fails. Once the log has
/// started, it waits for a stuck reader no longer than [`flush_log`].
pub fn print_stderr(text: &str) {
    let line = format!("{text}\n");
    match OUTPUT.get() {
        Some(output) => {
            output.push(line.as_bytes());
            output.flush();
        }
        // Ignore the error of a reader that has closed its end.
        None => drop(write_all(&io::stderr(), line.as_bytes())),
    }
}

/// Number of log lines that were dropped since the start.
pub(super) fn lines_dropped() -> u64 {
    let dropped = |output: &Output| output.counts.dropped.load(Ordering::Relaxed);
    OUTPUT.get().map_or(0, dropped)
}

/// The check for `/readyz`. A log that loses lines leaves the process ready and degraded until a
/// line is written again. `None` if no line was lost since the last write.
pub(super) fn log_check() -> Option<Check> {
    OUTPUT.get()?.check()
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn piped() -> (PipeReader, Output) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (reader, Output::start(writer).expect("a thread"))
    }

    fn until(mut what: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !what() {
            assert!(Instant::now() < until, "never");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn dropped(output: &Output) -> u64 {
        output.counts.dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn lines_come_out_in_order_and_a_flush_waits_for_them() {
        let (mut reader, output) = piped();
        output.push(b"one\n");
        output.push(b"two\n");
        output.flush();
        let mut got = [0; 8];
        reader.read_exact(&mut got).expect("both lines");
        assert_eq!(&got, b"one\ntwo\n");
        assert_eq!((dropped(&output), output.check()), (0, None));
    }

    #[test]
    fn a_pipe_that_nobody_reads_drops_lines_until_it_is_read_again() {
        let (mut reader, output) = piped();
        let line = [b'x'; 1023]
            .iter()
            .chain(b"\n")
            .copied()
            .collect::<Vec<_>>();
        // The pipe takes some lines and the queue some more. The rest is dropped without a wait.
        for _ in 0..4 * LINES_MAX {
            output.push(&line);
        }
        assert!(dropped(&output) > 0);
        assert!(output.counts.queued_bytes.load(Ordering::Relaxed) <= BYTES_MAX);
        // The writer may have its first turn only now, and a line that it writes ends the state. So
        // more lines come until the pipe is full as well.
        let mut check = None;
        until(|| {
            output.push(&line);
            check = output.check();
            check.is_some()
        });
        let check = check.expect("lines are lost");
        assert_eq!((check.ok, check.state), (true, CheckState::Degraded));
        assert!(check.detail.contains("stopped reading"), "{}", check.detail);
        std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        until(|| output.check().is_none());
        assert!(dropped(&output) > 0, "what is lost stays counted");
    }

    #[test]
    fn a_closed_pipe_and_a_full_disk_cost_their_lines_alone() {
        let (reader, output) = piped();
        drop(reader);
        let full = std::fs::File::options().write(true).open("/dev/full");
        let full = Output::start(full.expect("/dev/full")).expect("a thread");
        for (output, why) in [(output, "Broken pipe"), (full, "No space left")] {
            output.push(b"a\n");
            output.push(b"b\n");
            output.flush();
            assert_eq!(dropped(&output), 2, "{why}");
            let check = output.check().expect("lines are lost");
            assert!(check.detail.contains(why), "{}", check.detail);
        }
    }

    #[test]
    fn a_flush_of_a_stuck_pipe_ends() {
        let (_reader, output) = piped();
        let line = [b'x'; 1024];
        (0..4 * LINES_MAX).for_each(|_| output.push(&line));
        output.flush();
        assert!(
            dropped(&output) > 0,
            "pipe and queue hold a part of the lines"
        );
    }
}

//! A thousand watchers: streams that follow every payment at both gateways, and one payment after
//! another between two accounts of their own. They show how long an event takes to all of them, and
//! what it costs the gateways.
//!
//! Watchers have a thread and a runtime of their own, so that reading their bytes does not delay
//! the payments service. What they measure includes the reading: an upper bound of what the
//! gateways take. A watcher whose gateway dies goes to the other one with its last event id, as
//! the browser module does, and counts by the numbers of the payments whether one is missing or
//! comes twice.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::outside::{OutsideAccounts, OutsideCommands};
use super::service::KafkaError;

/// Number of watchers.
const WATCHERS: usize = 1_000;
/// Time between two payments. Each is two events for every watcher.
const PAYMENT_EVERY: Duration = Duration::from_millis(200);
/// Time over which rates and percentiles are taken.
const WINDOW: Duration = Duration::from_secs(5);
/// Most arrivals in the window: two events of every payment for each watcher, and as many again for
/// other people's payments.
const ARRIVALS_MAX: usize =
    4 * WATCHERS * (WINDOW.as_millis() / PAYMENT_EVERY.as_millis()) as usize;
/// Payments whose start is remembered. An older one is too late to count.
const STARTS: usize = 256;
/// Most bytes of a line of a stream that are kept. Events of the demo are shorter.
const LINE_BYTES_MAX: usize = 4_096;
/// The accounts that pay each other.
const PAYERS: [&str; 2] = ["cleo", "dora"];
/// Begins each event of the first of them.
const FIRST_PAYER: &str = "{\"account\":\"cleo\",";
/// Begins the note of each of their payments; its number follows.
const NOTE: &str = "watched-";
/// Time to connect, and for the head of the response.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream sends something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Descriptors that this process needs besides watchers.
const DESCRIPTORS: u64 = 512;

/// Running watchers. Dropping it ends them.
pub(crate) struct Watchers {
    seen: Arc<Seen>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the watchers have seen.
struct Seen {
    since: Instant,
    connected: AtomicUsize,
    missing: AtomicU64,
    twice: AtomicU64,
    /// Number and time of each of the newest payments, by its number modulo [`STARTS`].
    starts: Mutex<[Option<(u64, Instant)>; STARTS]>,
    /// Arrivals of the last seconds: when, and after how long. `None` for other people's events.
    arrivals: Mutex<Vec<(Instant, Option<Duration>)>>,
    /// Processor time of the gateways, sampled once a second.
    cpu: Mutex<Vec<(Instant, Duration)>>,
    is_stopped: AtomicBool,
}

/// The figures that the page shows. Percentiles are missing until payments have arrived.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    connected: usize,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    events_per_s: f64,
    cpu_us_per_event: Option<f64>,
    missing: u64,
    twice: u64,
}

impl Watchers {
    /// Starts the watchers, half of them at each gateway. `pids` returns the gateways' processes.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        gateways: Vec<SocketAddr>,
        outside: OutsideCommands,
        pids: impl Fn() -> Vec<u32> + Send + 'static,
    ) -> io::Result<Self> {
        let seen = Arc::new(Seen {
            since: Instant::now(),
            connected: AtomicUsize::new(0),
            missing: AtomicU64::new(0),
            twice: AtomicU64::new(0),
            starts: Mutex::new([None; STARTS]),
            arrivals: Mutex::default(),
            cpu: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let all = Arc::clone(&seen);
        let count = watchers_that_fit();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().name("watchers".to_owned());
        let thread = thread.spawn(move || {
            let _ended = runtime.block_on(async {
                for number in 0..count {
                    tokio::spawn(watch(gateways.clone(), number, Arc::clone(&all)));
                }
                tokio::spawn(pay(outside, Arc::clone(&all)));
                tokio::spawn(sample_cpu(pids, Arc::clone(&all)));
                stopped.await
            });
        })?;
        Ok(Self {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The figures of the last seconds.
    pub(crate) fn figures(&self) -> Figures {
        self.seen.figures(Instant::now())
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.seen.is_stopped.store(true, Relaxed);
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // The panic was already printed by the hook.
            let _panicked = thread.join();
        }
    }
}

/// Raises the limit of open files, and returns how many watchers fit below it.
fn watchers_that_fit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without the right to raise it, the soft limit stays.
    let _refused = setrlimit(Resource::Nofile, wanted);
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(current.saturating_sub(DESCRIPTORS)).unwrap_or(WATCHERS);
    room.min(WATCHERS)
}

impl Seen {
    fn figures(&self, now: Instant) -> Figures {
        let from = now.checked_sub(WINDOW).unwrap_or(self.since);
        let (mut times, events) = {
            let mut arrivals = lock(&self.arrivals);
            arrivals.retain(|(at, _)| *at >= from);
            let times: Vec<u64> = arrivals
                .iter()
                .filter_map(|(_, took)| u64::try_from(took.as_ref()?.as_micros()).ok())
                .collect();
            (times, arrivals.len())
        };
        times.sort_unstable();
        let percentile = |hundredth: usize| {
            let last = times.len().checked_sub(1)?;
            times.get(last * hundredth / 100).copied()
        };
        let window = now.duration_since(from.max(self.since)).as_secs_f64();
        Figures {
            connected: self.connected.load(Relaxed),
            p50_us: percentile(50),
            p99_us: percentile(99),
            events_per_s: events as f64 / window.max(0.001),
            cpu_us_per_event: self.cpu_since(from, events),
            missing: self.missing.load(Relaxed),
            twice: self.twice.load(Relaxed),
        }
    }

    /// Processor time of the gateways since `from` for each of `events`, in microseconds. It has
    /// everything that they did: idle work, and the requests of the page.
    fn cpu_since(&self, from: Instant, events: usize) -> Option<f64> {
        let mut cpu = lock(&self.cpu);
        let expired = cpu.iter().take_while(|(at, _)| *at < from).count();
        cpu.drain(..expired);
        let ((first_at, first), (last_at, last)) = (*cpu.first()?, *cpu.last()?);
        let sampled = last_at.duration_since(first_at).as_secs_f64();
        // The time of a restarted gateway begins at zero again.
        let used = last.checked_sub(first)?.as_secs_f64();
        let per_s = events as f64 / WINDOW.as_secs_f64();
        (sampled > 0.0 && per_s > 1.0).then(|| used / sampled / per_s * 1e6)
    }

    /// An event has arrived at a watcher. `number` is that of a watched payment.
    fn on_event(&self, number: Option<u64>, at: Instant) {
        let took = number.and_then(|number| {
            let starts = lock(&self.starts);
            let (of, start) = starts[place_of(number)]?;
            (of == number).then(|| at.saturating_duration_since(start))
        });
        let mut arrivals = lock(&self.arrivals);
        if arrivals.len() < ARRIVALS_MAX {
            arrivals.push((at, took));
        }
    }
}

/// One watcher: follows every payment, at the next gateway when its own dies.
async fn watch(gateways: Vec<SocketAddr>, number: usize, seen: Arc<Seen>) {
    let mut watcher = Watcher {
        last_id: String::new(),
        last: None,
        line: Vec::new(),
    };
    // A thousand connections at once would be a test of accepting, not of streams.
    sleep(Duration::from_millis(number as u64)).await;
    for attempt in number.. {
        let gateway = gateways[attempt % gateways.len()];
        // Ignore how it ended: the watcher connects again.
        let _ended = watcher.follow(gateway, &seen).await;
        sleep(Duration::from_millis(100 + (number as u64 * 7) % 400)).await;
    }
}

/// A watcher's place in its stream.
struct Watcher {
    last_id: String,
    /// Number of the newest event of the first payer. Events of one account are in order, and have
    /// numbers without gaps.
    last: Option<u64>,
    line: Vec<u8>,
}

impl Watcher {
    async fn follow(&mut self, gateway: SocketAddr, seen: &Seen) -> io::Result<()> {
        let mut stream = timeout(OPEN_TIMEOUT, TcpStream::connect(gateway)).await??;
        let resume = match self.last_id.as_str() {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let request = format!(
            "GET /payments/events HTTP/1.1\r\nHost: {gateway}\r\nAccept: text/event-stream\r\n\
             {resume}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let _connected = Connected::new(&seen.connected);
        self.line.clear();
        let mut buffer = [0; 2_048];
        loop {
            let len = timeout(SILENCE_MAX, stream.read(&mut buffer)).await??;
            if len == 0 {
                return Ok(());
            }
            let at = Instant::now();
            for byte in &buffer[..len] {
                match byte {
                    b'\n' => self.on_line(at, seen),
                    _ if self.line.len() < LINE_BYTES_MAX => self.line.push(*byte),
                    _ => {}
                }
            }
        }
    }

    /// A line has ended. Lines of the head and of chunk sizes are neither `data:` nor `id:`.
    fn on_line(&mut self, at: Instant, seen: &Seen) {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).unwrap_or_default();
        if let Some(id) = text.strip_prefix("id: ") {
            id.clone_into(&mut self.last_id);
        } else if let Some(data) = text.strip_prefix("data: ") {
            seen.on_event(digits_after(data, NOTE), at);
            if data.starts_with(FIRST_PAYER)
                && let Some(event) = digits_after(data, "\"event\":")
            {
                self.count(event, seen);
            }
        }
        self.line = line;
        self.line.clear();
    }

    fn count(&mut self, event: u64, seen: &Seen) {
        match self.last {
            Some(last) if event <= last => {
                seen.twice.fetch_add(1, Relaxed);
            }
            Some(last) => {
                seen.missing.fetch_add(event - last - 1, Relaxed);
                self.last = Some(event);
            }
            None => self.last = Some(event),
        }
    }
}

/// The number that follows the first `text` in an event.
fn digits_after(data: &str, text: &str) -> Option<u64> {
    let (_, rest) = data.split_once(text)?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// Counts a connection for as long as it is open.
struct Connected<'a>(&'a AtomicUsize);

impl<'a> Connected<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Pays from one account to the other and back, directly through Kafka.
async fn pay(outside: OutsideCommands, seen: Arc<Seen>) {
    let mut payments = None;
    for number in 0.. {
        if payments.is_none() {
            payments = open(&outside).await.ok();
        }
        if let Some(accounts) = &payments {
            lock(&seen.starts)[place_of(number)] = Some((number, Instant::now()));
            let payer = (number % 2) as usize;
            let note = format!("{NOTE}{number}");
            // The broker may be stopped. The next payment tries again, on new connections.
            if accounts.pay(payer, 1, &note).await.is_err() {
                payments = None;
            }
        }
        sleep(PAYMENT_EVERY).await;
    }
}

async fn open(outside: &OutsideCommands) -> Result<OutsideAccounts, KafkaError> {
    let accounts = outside.open(PAYERS).await?;
    accounts.create().await?;
    Ok(accounts)
}

fn place_of(number: u64) -> usize {
    usize::try_from(number % STARTS as u64).expect("less than STARTS")
}

async fn sample_cpu(pids: impl Fn() -> Vec<u32>, seen: Arc<Seen>) {
    while !seen.is_stopped.load(Relaxed) {
        let used = pids().into_iter().map(cpu_of).sum();
        lock(&seen.cpu).push((Instant::now(), used));
        sleep(Duration::from_secs(1)).await;
    }
}

/// The processor time of all threads of a process. The first number of `schedstat` is nanoseconds
/// on a processor (`Documentation/scheduler/sched-stats.rst`); `stat` counts hundredths of seconds
/// only.
fn cpu_of(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let used = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(since: Instant) -> Seen {
        Seen {
            since,
            connected: AtomicUsize::new(0),
            missing: AtomicU64::new(0),
            twice: AtomicU64::new(0),
            starts: Mutex::new([None; STARTS]),
            arrivals: Mutex::default(),
            cpu: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    fn event(account: &str, event: u64, number: u64) -> String {
        format!(
            r#"data: {{"account":"{account}","event":{event},"note":"{NOTE}{number}","at_ms":1}}"#
        )
    }

    #[test]
    fn a_watcher_counts_what_is_missing_and_what_comes_twice() {
        let now = Instant::now();
        let seen = seen(now);
        let mut watcher = Watcher {
            last_id: String::new(),
            last: None,
            line: Vec::new(),
        };
        let lines = [
            "1a2".to_owned(), // The size of a chunk.
            event("cleo", 7, 0),
            "id: one".to_owned(),
            event("dora", 90, 0), // The other account has numbers of its own.
            event("cleo", 8, 1),
            event("cleo", 8, 1),
            event("cleo", 11, 2),
            "id: two".to_owned(),
            ": a comment".to_owned(),
        ];
        for line in lines {
            watcher.line.extend(line.bytes());
            watcher.on_line(now, &seen);
        }
        assert_eq!(watcher.last_id, "two");
        assert_eq!(
            (seen.twice.load(Relaxed), seen.missing.load(Relaxed)),
            (1, 2)
        );
    }

    #[test]
    fn figures_are_those_of_the_window() {
        let since = Instant::now();
        let seen = seen(since);
        let at = |ms| since + Duration::from_millis(ms);
        lock(&seen.starts)[place_of(3)] = Some((3, at(6_000)));
        seen.on_event(Some(3), at(100)); // Before the window, when it is judged.
        for ms in 1..=100 {
            seen.on_event(Some(3), at(6_000 + ms));
        }
        seen.on_event(None, at(6_000)); // Another payment: counted, without a time.
        seen.on_event(Some(3 + STARTS as u64), at(6_000)); // Its start is not known.
        lock(&seen.cpu).extend([
            (at(5_000), Duration::ZERO),
            (at(7_000), Duration::from_millis(4)),
        ]);
        let figures = seen.figures(at(10_000));
        assert_eq!(figures.p50_us, Some(50_000));
        assert_eq!(figures.p99_us, Some(99_000));
        assert!(
            (figures.events_per_s - 102.0 / 5.0).abs() < 0.01,
            "{figures:?}"
        );
        // 2 ms a second for 20.4 events a second.
        let cpu = figures.cpu_us_per_event.expect("two samples");
        assert!((cpu - 2_000.0 / 20.4).abs() < 0.1, "{figures:?}");
    }
}

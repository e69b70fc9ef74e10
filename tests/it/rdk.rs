//! librdkafka through a small program (`rdk.c`), for what kcat can't do: many records from one
//! producer with separate headers, the result and time of each, transactions, and a consumer that
//! survives any fault. The gateway is compared with this client, and many services use it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::client::PATIENCE;
use super::kcat::Record;

/// The result of a record: partition and offset, or librdkafka's name of the error.
pub type Delivery = Result<(u32, u64), String>;

#[derive(Debug, Default)]
struct Told {
    deliveries: BTreeMap<u64, Delivery>,
    /// Number of transactions that were begun, committed or aborted.
    done: usize,
    ended: bool,
}

/// An idempotent producer with `acks=all`.
#[derive(Debug)]
pub struct Producer {
    child: Child,
    stdin: Option<ChildStdin>,
    told: Arc<(Mutex<Told>, Condvar)>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    next_tag: u64,
    asked: usize,
}

/// Header names, and values that may be null.
pub type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

/// A record to be written.
#[derive(Clone, Debug, Default)]
pub struct ToWrite<'a> {
    pub partition: Option<u32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The headers in order; names may repeat.
    pub headers: Headers<'a>,
}

impl Producer {
    /// Starts a producer with additional settings of librdkafka.
    pub fn start(bootstrap: &str, topic: &str, settings: &[&str]) -> Self {
        let fixed = [
            "enable.idempotence=true",
            "linger.ms=0",
            "client.id=rdk",
            // With more, a leader's death may leave a gap of sequence numbers (seen with 2.0.2),
            // after which it never writes again.
            "max.in.flight=1",
        ];
        let mut child = Command::new(program())
            .args(["produce", bootstrap, topic])
            .args(fixed)
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("rdk was built");
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (place, times) = (told.clone(), acknowledged.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                on_line(&line, &mut lock(&place.0));
                if line.starts_with("ok") {
                    lock(&times).push(Instant::now());
                }
                place.1.notify_all();
            }
            lock(&place.0).ended = true;
            place.1.notify_all();
        });
        Self {
            stdin: child.stdin.take(),
            child,
            told,
            acknowledged,
            next_tag: 0,
            asked: 0,
        }
    }

    /// Queues a record and returns its number.
    pub fn write(&mut self, record: &ToWrite<'_>) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let partition = record.partition.map(|it| it.to_string());
        let mut line = format!("P\t{tag}\t{}", partition.as_deref().unwrap_or("-"));
        for field in [record.key, record.value] {
            line.push('\t');
            line.push_str(&field.map_or_else(|| "~".to_owned(), escape));
        }
        for (name, value) in record.headers {
            line.push('\t');
            line.push_str(&escape(name.as_bytes()));
            if let Some(value) = value {
                line.push('=');
                line.push_str(&escape(value));
            }
        }
        self.line(&line);
        tag
    }

    /// Writes one value without a key and waits until it is in the log.
    pub fn write_value(&mut self, partition: u32, value: &str) -> (u32, u64) {
        let tag = self.write(&ToWrite {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..ToWrite::default()
        });
        self.wait(tag)
            .unwrap_or_else(|error| panic!("{value}: {error}"))
    }

    /// Begins a transaction of this producer.
    pub fn begin(&mut self) {
        self.order("B");
    }

    /// Commits the open transaction of this producer.
    pub fn commit(&mut self) {
        self.order("C");
    }

    /// Aborts the open transaction. Its records remain in the log, marked as aborted.
    pub fn abort(&mut self) {
        self.order("A");
    }

    /// Waits for the result of a record.
    pub fn wait(&self, tag: u64) -> Delivery {
        self.wait_for(|told| told.deliveries.get(&tag).cloned())
    }

    /// Results of all records so far that have one.
    pub fn deliveries(&self) -> BTreeMap<u64, Delivery> {
        lock(&self.told.0).deliveries.clone()
    }

    /// Times at which records were acknowledged so far.
    pub fn acknowledged(&self) -> Arc<Mutex<Vec<Instant>>> {
        self.acknowledged.clone()
    }

    /// Waits until all records have a result.
    pub fn finish(mut self) -> BTreeMap<u64, Delivery> {
        self.stdin = None;
        self.wait_for(|told| told.ended.then_some(()));
        let deliveries = self.deliveries();
        let answered = deliveries.len() as u64;
        assert_eq!(answered, self.next_tag, "each has its answer");
        deliveries
    }

    fn order(&mut self, what: &str) {
        self.line(what);
        self.asked += 1;
        let asked = self.asked;
        self.wait_for(|told| (told.done >= asked).then_some(()));
    }

    fn line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open until the end");
        let wrote = stdin.write_all(format!("{line}\n").as_bytes());
        wrote.expect("librdkafka's producer goes on");
    }

    fn wait_for<T>(&self, wanted: impl Fn(&Told) -> Option<T>) -> T {
        let until = Instant::now() + 2 * PATIENCE;
        let mut told = lock(&self.told.0);
        loop {
            if let Some(found) = wanted(&told) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            let ended = told.ended;
            assert!(!ended && !left.is_zero(), "librdkafka ended: {ended}");
            let waited = self.told.1.wait_timeout(told, left);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn on_line(line: &str, told: &mut Told) {
    let fields: Vec<_> = line.split('\t').collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    let result = match fields[0] {
        "done" => {
            told.done += 1;
            return;
        }
        "ok" => Ok((number(2) as u32, number(3))),
        _ => Err(fields[2].to_owned()),
    };
    let before = told.deliveries.insert(number(1), result);
    assert!(before.is_none(), "told twice: {line}");
}

/// A consumer of all committed records from the log's start, which survives any fault.
#[derive(Debug)]
pub struct Consumer {
    child: Child,
    records: Receiver<(Instant, Record)>,
}

impl Consumer {
    pub fn start(bootstrap: &str, topic: &str, settings: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(["consume", bootstrap, topic, "fetch.wait.max.ms=100"])
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("rdk was built");
        let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let (sender, records) = sync_channel(100_000);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send((Instant::now(), record(&line))).is_err() {
                    return;
                }
            }
        });
        Self { child, records }
    }

    /// The next record and its time of arrival. `None` if none arrives in time.
    pub fn next_within(&self, time: Duration) -> Option<(Instant, Record)> {
        match self.records.recv_timeout(time) {
            Ok(record) => Some(record),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("librdkafka's consumer has ended"),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn record(line: &str) -> Record {
    let mut fields = line.split('\t').skip(1);
    let mut next = || fields.next().expect("a whole line");
    let mut number = || next().parse::<u64>().expect("a number");
    let place = (number() as u32, number(), number());
    let (key, value) = (unescape(next()), unescape(next()));
    let headers = fields.flat_map(|field| match field.split_once('=') {
        Some((name, value)) => [unescape(name), unescape(value)],
        None => [unescape(field), None],
    });
    Record::new(place, key, value, headers.collect())
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'!'..=b'}' if !matches!(byte, b'%' | b'=') => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn unescape(text: &str) -> Option<String> {
    if text == "~" {
        return None;
    }
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Builds the program, once per process.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rdk.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rdk");
        // Another process may build it at the same time, so rename it into place atomically.
        let built = program.with_extension(std::process::id().to_string());
        let done = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&built)
            .args([source, "-lrdkafka", "-lpthread"])
            .output()
            .expect("cc, which tests/setup installs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "librdkafka-dev is needed: {said}");
        std::fs::rename(&built, &program).expect("put in its place");
        program
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

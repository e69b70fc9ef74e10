//! A small application service. It reads commands as any consumer does and answers by the contract
//! (correlation id repeated, `:status`, headers, body). It remembers the commands, so a test can
//! count effects where they happen.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rskafka::chrono::DateTime;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record as Written;

use super::ground::block_on;
use super::kcat::{self, Record};

/// The reply of the service to a command.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    status: Option<u16>,
    headers: BTreeMap<String, Vec<u8>>,
    body: Option<Vec<u8>>,
}

impl Reply {
    pub fn new(status: u16, body: &str) -> Self {
        let body = Some(body.as_bytes().to_vec());
        Self {
            status: Some(status),
            body,
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .insert(name.to_owned(), value.as_bytes().to_vec());
        self
    }
}

/// The reaction of the service to a command: a reply, or none.
type Behaviour = Box<dyn FnMut(&Record) -> Option<Reply> + Send>;

/// A running service with its threads.
pub struct Service {
    reader: Child,
    seen: Arc<Mutex<Vec<Record>>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Reads `commands` from their start and writes to `replies`.
    pub fn start(
        bootstrap: &str,
        commands: &str,
        replies: &str,
        behaviour: impl FnMut(&Record) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let mut reader = Program::new("kcat")
            .args([
                "-C",
                "-b",
                bootstrap,
                "-t",
                commands,
                "-o",
                "beginning",
                "-u",
                "-q",
                "-J",
            ])
            .args(["-X", "fetch.wait.max.ms=100"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kcat, which tests/setup installs");
        let (sender, receiver) = sync_channel(1024);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (place, behaviour): (_, Behaviour) = (seen.clone(), Box::new(behaviour));
        let thread = std::thread::spawn({
            let (bootstrap, replies) = (bootstrap.to_owned(), replies.to_owned());
            move || serve(&bootstrap, &replies, &receiver, &place, behaviour)
        });
        let lines = BufReader::new(reader.stdout.take().expect("piped above")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(kcat::parse(&line)).is_err() {
                    return;
                }
            }
        });
        Self {
            reader,
            seen,
            thread: Some(thread),
        }
    }

    /// The commands it has read, in order.
    pub fn seen(&self) -> Vec<Record> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = self.reader.kill();
        let _status = self.reader.wait();
        // A failed test may have left the service waiting for a message that never arrives.
        if std::thread::panicking() {
            return;
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the service has not failed");
        }
    }
}

fn serve(
    bootstrap: &str,
    replies: &str,
    commands: &Receiver<Record>,
    seen: &Mutex<Vec<Record>>,
    mut behaviour: Behaviour,
) {
    block_on(async {
        let brokers = bootstrap.split(',').map(str::to_owned).collect();
        let client = ClientBuilder::new(brokers).build().await;
        let client = client.expect("a client for replies");
        let topic = client
            .partition_client(replies, 0, UnknownTopicHandling::Retry)
            .await;
        let topic = topic.expect("the replies topic");
        while let Ok(command) = commands.recv() {
            let reply = behaviour(&command);
            let correlation = command
                .header("correlation-id")
                .unwrap_or_default()
                .to_owned();
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(command);
            let Some(reply) = reply else { continue };
            let written = written(&correlation, reply);
            let produced = topic
                .produce(vec![written], Compression::NoCompression)
                .await;
            let _offsets = produced.expect("a reply is written");
        }
    });
}

fn written(correlation: &str, reply: Reply) -> Written {
    let mut headers = reply.headers;
    headers.insert("correlation-id".to_owned(), correlation.as_bytes().to_vec());
    if let Some(status) = reply.status {
        headers.insert(":status".to_owned(), status.to_string().into_bytes());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 M");
    Written {
        key: None,
        value: reply.body,
        headers,
        timestamp: DateTime::from_timestamp_millis(now).expect("a time rskafka can say"),
    }
}

/// Writes one reply, as a service that answers late does.
pub fn reply_to(bootstrap: &str, replies: &str, command: &Record, reply: Reply) {
    let correlation = command.header("correlation-id").expect("a command has one");
    let written = written(correlation, reply);
    block_on(async {
        let brokers = bootstrap.split(',').map(str::to_owned).collect();
        let client = ClientBuilder::new(brokers).build().await.expect("a client");
        let topic = client
            .partition_client(replies, 0, UnknownTopicHandling::Retry)
            .await;
        let topic = topic.expect("the replies topic");
        let produced = topic
            .produce(vec![written], Compression::NoCompression)
            .await;
        let _offsets = produced.expect("the reply is written");
    });
}

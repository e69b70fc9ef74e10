//! Sockets for the development broker: one thread with one tokio runtime and one broker.
//!
//! Mental model: the broker is a pure struct. This module moves bytes between it and sockets, calls
//! it at its deadlines, and runs closures on it for the owner of the [`BrokerHandle`]. Every
//! connection is a task. It borrows the broker only while it tries its socket without waiting, and
//! waits without borrowing it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::broker::{Broker, ConnectionId, NodeId, Settings};
use crate::model::{Instant, Now, UnixMillis};

/// Most bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// Most closures that wait for the broker's thread.
const CALLS_MAX: usize = 64;
/// Wait after a failed accept. If no descriptor is free, an immediate retry fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type BrokerCall = Box<dyn FnOnce(&mut Broker) + Send>;

/// A listening development broker. Dropping it ends its thread, its connections and its data.
#[derive(Debug)]
pub struct BrokerHandle {
    addresses: Vec<SocketAddr>,
    calls: Option<mpsc::Sender<BrokerCall>>,
    thread: Option<JoinHandle<()>>,
}

impl BrokerHandle {
    /// Starts a cluster. Node 1 listens at `bind`, node n at `bind`'s port + n - 1; with port 0
    /// each node takes a free port. Metadata responses name these addresses. An unspecified address
    /// (`0.0.0.0`) is advertised as `127.0.0.1`, because the address that other hosts would use is
    /// unknown.
    ///
    /// # Errors
    /// An address cannot be bound, or the thread cannot be started.
    pub fn start(settings: Settings, seed: u64, bind: SocketAddr) -> io::Result<Self> {
        let mut broker = Broker::new(settings, seed);
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for node in broker.nodes() {
            let mut address = bind;
            if bind.port() != 0 {
                let port = bind.port().checked_add(node.0 - 1);
                address.set_port(port.ok_or(ErrorKind::AddrNotAvailable)?);
            }
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = reachable(listener.local_addr()?);
            broker.advertise(node, &address.ip().to_string(), address.port());
            listeners.push((node, listener));
            addresses.push(address);
        }
        let (calls, mailbox) = mpsc::channel(CALLS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let thread = std::thread::Builder::new().name("dev-broker".to_owned());
        let thread = thread.spawn(move || {
            LocalSet::new().block_on(&runtime, serve(broker, listeners, mailbox));
        })?;
        Ok(Self {
            addresses,
            calls: Some(calls),
            thread: Some(thread),
        })
    }

    /// Addresses of the nodes, in order.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The bootstrap list for clients: `host:port,host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        all.join(",")
    }

    /// Runs a closure on the broker, between two of its calls, and returns its result: to create
    /// topics, inject faults, or dump records. It blocks until the closure has run, so keep the
    /// closure short.
    ///
    /// # Panics
    /// The broker's thread has panicked.
    pub fn with<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Broker) -> R + Send + 'static,
    ) -> R {
        let (answer, given) = std::sync::mpsc::sync_channel(1);
        let mut call: BrokerCall = Box::new(move |broker| {
            // The receiver waits below, or its thread has panicked.
            let _waits = answer.send(call(broker));
        });
        let calls = self.calls.as_ref().expect("only drop takes it");
        // Spin while the bounded queue is full: the caller may be inside a runtime, where tokio's
        // blocking send panics.
        while let Err(refused) = calls.try_send(call) {
            match refused {
                mpsc::error::TrySendError::Full(back) => call = back,
                mpsc::error::TrySendError::Closed(_) => panic!("the broker's thread has panicked"),
            }
            std::thread::yield_now();
        }
        given.recv().expect("the broker's thread has panicked")
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        self.calls = None; // Ends the mailbox, and with it the thread.
        if let Some(thread) = self.thread.take() {
            // The panic was already printed by the hook.
            let _panicked = thread.join();
        }
    }
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

/// State that the tasks of the broker's thread share.
struct Shared {
    broker: RefCell<Broker>,
    started: StdInstant,
    connections: RefCell<BTreeMap<ConnectionId, Rc<ConnectionTask>>>,
    /// Connections that stopped reading because the broker accepts no more bytes.
    paused: RefCell<BTreeSet<ConnectionId>>,
    deadline: Cell<Option<Instant>>,
    deadline_moved: Notify,
}

/// A connection's task, as other tasks see it.
#[derive(Default)]
struct ConnectionTask {
    wake: Notify,
    cut: Cell<bool>,
}

impl Shared {
    fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        Now {
            mono: Instant::from_nanos(mono),
            wall: UnixMillis(wall),
        }
    }

    /// Calls the broker, then wakes the tasks of all connections that the call affects.
    fn call<R>(&self, call: impl FnOnce(&mut Broker, Now) -> R) -> R {
        let mut broker = self.broker.borrow_mut();
        let given = call(&mut broker, self.now());
        let mut connections = self.connections.borrow_mut();
        while let Some(id) = broker.next_cut() {
            if let Some(task) = connections.remove(&id) {
                task.cut.set(true);
                task.wake.notify_one();
            }
        }
        while let Some(id) = broker.next_writable() {
            if let Some(task) = connections.get(&id) {
                task.wake.notify_one();
            }
        }
        self.paused.borrow_mut().retain(|id| {
            let wants_bytes = broker.wants_bytes(*id);
            if let (true, Some(task)) = (wants_bytes, connections.get(id)) {
                task.wake.notify_one();
            }
            !wants_bytes && connections.contains_key(id)
        });
        let deadline = broker.next_deadline();
        if self.deadline.replace(deadline) != deadline {
            self.deadline_moved.notify_one();
        }
        given
    }
}

/// Serves until the handle is dropped.
async fn serve(
    broker: Broker,
    listeners: Vec<(NodeId, StdListener)>,
    mut mailbox: mpsc::Receiver<BrokerCall>,
) {
    let shared = Rc::new(Shared {
        broker: RefCell::new(broker),
        started: StdInstant::now(),
        connections: RefCell::default(),
        paused: RefCell::default(),
        deadline: Cell::new(None),
        deadline_moved: Notify::new(),
    });
    for (node, listener) in listeners {
        tokio::task::spawn_local(accept(shared.clone(), node, listener));
    }
    tokio::task::spawn_local(run_timers(shared.clone()));
    while let Some(call) = mailbox.recv().await {
        shared.call(|broker, now| {
            broker.on_time(now); // Advance the broker to now first.
            call(broker);
        });
    }
}

async fn accept(shared: Rc<Shared>, node: NodeId, listener: StdListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(node = node.0, %error, "the development broker can't listen");
            return;
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Fails only on a socket that is already closed, which the first read reports.
        let _gone = stream.set_nodelay(true);
        if let Some(id) = shared.call(|broker, _| broker.on_connect(node)) {
            let task = Rc::new(ConnectionTask::default());
            shared.connections.borrow_mut().insert(id, task.clone());
            tokio::task::spawn_local(serve_connection(shared.clone(), stream, id, task));
        }
    }
}

async fn run_timers(shared: Rc<Shared>) {
    loop {
        let Some(deadline) = shared.deadline.get() else {
            shared.deadline_moved.notified().await;
            continue;
        };
        let due = shared.started + Duration::from_nanos(deadline.as_nanos());
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {
                shared.call(Broker::on_time);
            }
            () = shared.deadline_moved.notified() => {}
        }
    }
}

/// Serves one connection until its end.
async fn serve_connection(
    shared: Rc<Shared>,
    stream: TcpStream,
    id: ConnectionId,
    task: Rc<ConnectionTask>,
) {
    let mut buffer = vec![0; READ_BYTES];
    let ended = loop {
        if task.cut.get() {
            return; // Its id is dead.
        }
        let Ok(blocked) = write(&shared, &stream, id) else {
            break Ok(());
        };
        let wanted = shared.broker.borrow().wants_bytes(id);
        if !wanted {
            shared.paused.borrow_mut().insert(id);
        }
        let interest = match (wanted, blocked) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        tokio::select! {
            () = task.wake.notified() => continue,
            _ = ready(&stream, interest) => {}
        }
        if wanted && let Err(end) = read(&shared, &stream, id, &mut buffer) {
            break end;
        }
    };
    if let Err(violation) = ended {
        tracing::warn!(%violation, "the development broker closes a connection");
        let _unsent = write(&shared, &stream, id);
    }
    shared.connections.borrow_mut().remove(&id);
    shared.call(|broker, _| broker.on_disconnect(id));
}

async fn ready(stream: &TcpStream, interest: Option<Interest>) -> io::Result<()> {
    match interest {
        Some(interest) => stream.ready(interest).await.map(|_| ()),
        None => std::future::pending().await,
    }
}

/// Writes until the socket is full. Returns whether bytes remain.
fn write(shared: &Shared, stream: &TcpStream, id: ConnectionId) -> io::Result<bool> {
    loop {
        let written = {
            let broker = shared.broker.borrow();
            let bytes = broker.outgoing(id);
            if bytes.is_empty() {
                return Ok(false);
            }
            stream.try_write(bytes)
        };
        match written {
            Ok(n) => shared.call(|broker, _| broker.on_written(id, n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Reads once. `Err` is the end of the connection: closed by the client, or a protocol violation.
fn read(
    shared: &Shared,
    stream: &TcpStream,
    id: ConnectionId,
    buffer: &mut [u8],
) -> Result<(), Result<(), crate::broker::Violation>> {
    match stream.try_read(buffer) {
        Ok(0) => Err(Ok(())),
        Ok(n) => {
            let pushed = shared.call(|broker, now| broker.on_bytes(id, &buffer[..n], now));
            pushed.map_err(Err)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(_) => Err(Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rskafka::client::ClientBuilder;
    use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
    use rskafka::record::Record;

    fn start(nodes: u16) -> BrokerHandle {
        let settings = Settings {
            nodes,
            ..Settings::default()
        };
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        BrokerHandle::start(settings, 1, bind).expect("loopback has free ports")
    }

    fn record(value: &str) -> Record {
        Record {
            key: Some(b"k".to_vec()),
            value: Some(value.into()),
            headers: [("h".to_owned(), b"v".to_vec())].into(),
            timestamp: "2026-01-01T00:00:00Z".parse().expect("a time"),
        }
    }

    #[tokio::test]
    async fn rskafka_creates_a_topic_writes_and_reads() {
        let broker = start(2);
        let bootstrap = broker.addresses().iter().map(ToString::to_string).collect();
        let client = ClientBuilder::new(bootstrap)
            .build()
            .await
            .expect("connects");
        let controller = client.controller_client().expect("there is one");
        controller
            .create_topic("t", 2, 2, 5_000)
            .await
            .expect("created");
        let mut topics = client.list_topics().await.expect("listed");
        assert_eq!(
            topics.pop().map(|t| (t.name, t.partitions.len())),
            Some(("t".into(), 2))
        );
        for partition in 0..2 {
            let retry = UnknownTopicHandling::Retry;
            let one = client
                .partition_client("t", partition, retry)
                .await
                .expect("has a leader");
            let records = vec![record("one"), record("two")];
            let offsets = one
                .produce(records.clone(), Compression::NoCompression)
                .await;
            assert_eq!(offsets.expect("appended"), [0, 1]);
            let latest = one.get_offset(OffsetAt::Latest).await.expect("has an end");
            assert_eq!(latest, 2);
            let (read, end) = one
                .fetch_records(0, 1..1_000_000, 1_000)
                .await
                .expect("readable");
            assert_eq!(end, 2);
            let read: Vec<Record> = read.into_iter().map(|r| r.record).collect();
            assert_eq!(read, records);
        }
        let dumped = broker.with(|b| b.dump("t", crate::model::Partition(1)));
        assert_eq!(dumped.expect("there").len(), 2);
    }

    #[tokio::test]
    async fn a_long_poll_is_woken_and_an_end_closes_all() {
        let broker = start(1);
        broker
            .with(|b| b.create_topic("t", 1, &[]))
            .expect("created");
        let bootstrap = vec![broker.bootstrap()];
        let client = ClientBuilder::new(bootstrap)
            .build()
            .await
            .expect("connects");
        let retry = UnknownTopicHandling::Error;
        let reader = client
            .partition_client("t", 0, retry)
            .await
            .expect("has a leader");
        let writer = client
            .partition_client("t", 0, retry)
            .await
            .expect("has a leader");
        let started = StdInstant::now();
        let poll = reader.fetch_records(0, 1..1_000_000, 20_000);
        let produce = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            writer
                .produce(vec![record("x")], Compression::NoCompression)
                .await
        };
        let (read, produced) = tokio::join!(poll, produce);
        produced.expect("appended");
        assert_eq!(read.expect("readable").0.len(), 1);
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the poll was not woken"
        );
        let address = broker.addresses()[0];
        let mut stream = TcpStream::connect(address).await.expect("listens");
        drop(broker);
        let mut end = [0];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut end).await;
        assert!(
            matches!(read, Ok(0) | Err(_)),
            "the socket outlives the broker"
        );
        assert!(
            TcpStream::connect(address).await.is_err(),
            "the port is still served"
        );
    }

    #[tokio::test]
    async fn a_stopped_node_closes_its_connections() {
        let broker = start(2);
        let address = broker.addresses()[1];
        let mut stream = TcpStream::connect(address).await.expect("listens");
        // Give the broker time to accept the connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
        broker.with(|b| b.stop_node(NodeId(2)));
        let mut end = [0];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut end);
        let read = tokio::time::timeout(Duration::from_secs(5), read).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "still open");
    }
}

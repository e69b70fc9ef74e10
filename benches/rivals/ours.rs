//! Our client over plain sockets. The client does no I/O, so this file has a short driver for it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sluicegate::kafka::{
    Address, Client, DirectoryRole, Event, Lane, LinkId, ProduceRecord, Produced, ReadId, ReadKey,
    Settings, StartAt,
};
use sluicegate::model::{self, Now, Partition, TopicName, UnixMillis};

use crate::{RECORDS, WARM_UP};

const PATIENCE: Duration = Duration::from_secs(30);

struct Driver {
    client: Client,
    links: Vec<(LinkId, TcpStream)>,
    began: Instant,
    buffer: Vec<u8>,
}

impl Driver {
    fn now(&self) -> Now {
        Now {
            mono: model::Instant::ZERO.after(self.began.elapsed()),
            wall: UnixMillis(0),
        }
    }

    /// Runs one turn: writes what the client wants to send, then waits for a socket or the client's
    /// deadline. Gives the events, which the caller handles before the brokers' sockets are read,
    /// as in a shard's turn.
    fn turn(&mut self) -> Vec<Event> {
        let now = self.now();
        self.work(now);
        while self.client.unpack(now) {}
        let mut events: Vec<_> = std::iter::from_fn(|| self.client.next_event()).collect();
        if events.is_empty() && !self.client.has_work() {
            self.wait(now);
            let now = self.now();
            for (id, socket) in &mut self.links {
                match socket.read(&mut self.buffer) {
                    Ok(0) => panic!("the broker closed a connection"),
                    Ok(n) => self.client.on_bytes(*id, &self.buffer[..n], now),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("a broken connection: {error}"),
                }
            }
            while self.client.unpack(now) {}
            events.extend(std::iter::from_fn(|| self.client.next_event()));
        }
        events
    }

    /// Opens, writes to and closes connections as the client requests.
    fn work(&mut self, now: Now) {
        self.client.on_time(now);
        while let Some((id, address)) = self.client.next_open() {
            let socket = TcpStream::connect((&*address.host, address.port)).expect("a broker");
            socket.set_nodelay(true).expect("a TCP socket");
            socket.set_nonblocking(true).expect("a TCP socket");
            self.links.push((id, socket));
            self.client.on_opened(id, now);
        }
        while let Some(id) = self.client.next_writable() {
            let link = self.links.iter_mut().find(|link| link.0 == id);
            let Some((_, socket)) = link else { continue };
            while !self.client.outgoing(id).is_empty() {
                match socket.write(self.client.outgoing(id)) {
                    Ok(n) => self.client.on_written(id, n),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("a broken connection: {error}"),
                }
            }
        }
        while let Some(id) = self.client.next_close() {
            self.links.retain(|link| link.0 != id);
        }
        while self.client.next_metric_event().is_some() {}
    }

    fn wait(&self, now: Now) {
        let deadline = self.client.next_deadline();
        let wait = deadline.map_or(PATIENCE, |at| at.since(now.mono));
        let wait = Timespec::try_from(wait.min(PATIENCE)).expect("seconds");
        let sockets = self.links.iter();
        let mut fds: Vec<_> = sockets
            .map(|(_, socket)| PollFd::new(socket, PollFlags::IN))
            .collect();
        poll(&mut fds, Some(&wait)).expect("poll");
    }
}

/// The time from `produce` to the fetched record, of each record after the warm-up.
pub(crate) fn run(bootstrap: &str, topic: &str, size: usize) -> Vec<Duration> {
    let (host, port) = bootstrap.rsplit_once(':').expect("host:port");
    let settings = Settings {
        bootstrap: vec![Address {
            host: host.to_owned(),
            port: port.parse().expect("a port"),
        }],
        ..Settings::default()
    };
    let began = Instant::now();
    let start = Now {
        mono: model::Instant::ZERO,
        wall: UnixMillis(0),
    };
    let mut driver = Driver {
        client: Client::new(settings, 1, DirectoryRole::Own, start),
        links: Vec::new(),
        began,
        buffer: vec![0; 256 << 10],
    };
    let handle = driver.client.watch(&TopicName::new(topic).expect("a name"));
    let read = ReadKey {
        lane: Lane::Streams,
        topic: handle,
        partition: Partition(0),
        id: ReadId::LIVE,
    };
    let mut ready = false;
    driver.client.read(read, StartAt::Latest);
    while !ready {
        let events = driver.turn();
        ready = events.iter().any(|it| matches!(it, Event::Started { .. }));
        assert!(began.elapsed() < PATIENCE, "no topic: {events:?}");
    }
    let mut times = Vec::with_capacity(RECORDS);
    for n in 0..WARM_UP + RECORDS {
        let record = ProduceRecord {
            key: None,
            value: Some(Bytes::from(vec![b'a' + (n % 23) as u8; size])),
            headers: Vec::new(),
            timestamp: UnixMillis(n as i64),
        };
        let asked = Instant::now();
        let now = driver.now();
        let taken = driver
            .client
            .produce(handle, Partition(0), record, n as u64, now);
        taken.expect("one record at a time");
        let (mut told, mut seen) = (false, None);
        while !told || seen.is_none() {
            for event in driver.turn() {
                match event {
                    Event::Produced { outcome, .. } => {
                        assert!(matches!(outcome, Produced::At(..)), "{outcome:?}");
                        told = true;
                    }
                    Event::Batch { batch, .. } => {
                        for record in batch.iter() {
                            assert_eq!(record.value.map(<[u8]>::len), Some(size));
                            seen = Some(asked.elapsed());
                        }
                    }
                    _ => {}
                }
            }
            assert!(asked.elapsed() < PATIENCE, "no record");
        }
        // The next Fetch must be sent before the next record is.
        let now = driver.now();
        driver.work(now);
        times.extend(seen.filter(|_| n >= WARM_UP));
    }
    times
}

//! Event-stream clients. `streams` connects all of them, then measures deliveries from the time
//! each record was due. The storms measure how connections open (`connect-storm`) and how clients
//! that were away catch up (`resume-storm`); `slow-readers` has clients that never read.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::engine::{Meter, Start, Stop, Worker};
use crate::events::{Event, Events};
use crate::http::{Part, Responses, shown};
use crate::ledger::{Fault, Ledger};
use crate::net::Poller;
use crate::options::Target;
use crate::record::{Stamp, now_us};
use crate::requests::spread;
use crate::socket::Socket;

/// Time for all clients together to connect.
const OPEN_TIME_MAX: Duration = Duration::from_secs(60);
/// Most connections that are being opened at a time.
const OPENING_MAX: usize = 256;
/// Pause before a client connects again. It is spread by half of itself.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// Most bytes of an answer that is no stream, as an example.
const REFUSAL_BYTES_MAX: usize = 512;

/// What is counted and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Deliveries, from the due time of the record.
    Deliveries,
    /// Opened streams, from the due time of the connection to the first bytes of the stream.
    Opens,
    /// Clients that have received so many events, from the start of their connection.
    CaughtUp(u64),
}

/// How clients behave.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) goal: Goal,
    /// Connections per second, after the run has begun. `None`: all connect before it begins.
    pub(crate) connects_per_s: Option<f64>,
    /// Whether clients connect again, with their last id, when a stream ends.
    pub(crate) reconnect: bool,
    /// Whether missing, repeated and unnamed events are violations.
    pub(crate) verify: bool,
    /// The first record of a writer must arrive too.
    pub(crate) whole: bool,
    /// The first so many clients read their stream's first bytes and nothing after them.
    pub(crate) slow: usize,
    /// Events for each client, after which it has all.
    pub(crate) events: Option<u64>,
    /// The id by which clients begin.
    pub(crate) last_id: Vec<u8>,
}

/// The clients of one thread.
pub(crate) struct Streams {
    target: Arc<Target>,
    behaviour: Behaviour,
    share: std::ops::Range<usize>,
    poller: Poller,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    names: Vec<usize>,
    /// Clients that connect again, and when.
    later: Vec<(Instant, usize)>,
    opening: usize,
    open: usize,
    closed: u64,
    slow_closed: u64,
}

/// One client and its stream.
struct Client {
    number: usize,
    /// The connection. `None` while the client is not connected.
    socket: Option<Socket>,
    responses: Responses,
    events: Events,
    ledger: Ledger,
    /// When the present connection was due.
    due: Instant,
    attempt: u64,
    status: u16,
    refusal: Vec<u8>,
    /// Whether the stream's first bytes have arrived.
    open: bool,
    seen: u64,
}

/// How a read of a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    More,
    Ended,
}

impl Streams {
    pub(crate) fn new(
        target: &Arc<Target>,
        behaviour: &Behaviour,
        share: std::ops::Range<usize>,
    ) -> Result<Self> {
        Ok(Self {
            target: Arc::clone(target),
            behaviour: behaviour.clone(),
            clients: Vec::with_capacity(share.len()),
            share,
            poller: Poller::new()?,
            scratch: vec![0; 64 * 1024],
            names: Vec::new(),
            later: Vec::new(),
            opening: 0,
            open: 0,
            closed: 0,
            slow_closed: 0,
        })
    }

    fn add_client(&mut self, due: Instant) -> usize {
        let number = self.share.start + self.clients.len();
        let mut ledger = Ledger::new(self.behaviour.whole);
        ledger.on_position(Some(&self.behaviour.last_id));
        self.clients.push(Client {
            number,
            socket: None,
            responses: Responses::default(),
            events: Events::default(),
            ledger,
            due,
            attempt: 0,
            status: 0,
            refusal: Vec::new(),
            open: false,
            seen: 0,
        });
        self.clients.len() - 1
    }

    /// Connects a client and sends its request.
    fn connect(&mut self, name: usize) -> Result<()> {
        let client = &mut self.clients[name];
        let number = client.number as u64;
        let place = self.target.place(number, client.attempt);
        let key = number % self.target.keys;
        client.attempt += 1;
        let mut socket = self.target.connector.connect(&self.target.urls[place])?;
        let mut request = Vec::new();
        self.target
            .put_head("GET", place, key, number, &mut request);
        request.extend_from_slice(b"Accept: text/event-stream\r\n");
        if !client.ledger.last_id().is_empty() {
            request.extend_from_slice(b"Last-Event-ID: ");
            request.extend_from_slice(client.ledger.last_id());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        // A fresh socket takes a request's head at once.
        if socket.write(&request)? < request.len() {
            bail!("the socket took half a request");
        }
        self.poller.add(&socket, name)?;
        client.responses = Responses::default();
        client.events = Events::default();
        client.status = 0;
        client.refusal.clear();
        client.open = false;
        client.socket = Some(socket);
        self.opening += 1;
        Ok(())
    }

    /// Waits for bytes and handles them. Without a meter, nothing is measured yet.
    fn wait(&mut self, at_most: Duration, mut meter: Option<&mut Meter>) -> Result<()> {
        let mut names = std::mem::take(&mut self.names);
        self.poller.wait(at_most, &mut names)?;
        for name in names.drain(..) {
            self.read(name, &mut meter)?;
        }
        self.names = names;
        Ok(())
    }

    fn read(&mut self, name: usize, meter: &mut Option<&mut Meter>) -> Result<()> {
        let Self {
            clients,
            scratch,
            behaviour,
            ..
        } = self;
        let client = &mut clients[name];
        let was_open = client.open;
        let read = client.read(scratch, behaviour, meter);
        let opened = client.open && !was_open;
        if opened {
            self.opening -= 1;
            self.open += 1;
            let took = client.due.elapsed();
            if let (Goal::Opens, Some(meter)) = (behaviour.goal, meter.as_deref_mut()) {
                meter.done(took, 0);
            }
            if client.number < behaviour.slow {
                // The socket stays open, and nothing reads it any more.
                if let Some(socket) = &client.socket {
                    self.poller.remove(socket)?;
                }
            }
        }
        match read {
            Ok(Read::More) => Ok(()),
            Ok(Read::Ended) => self.on_ended(name, None, meter),
            Err(error) => self.on_ended(name, Some(error), meter),
        }
    }

    /// A stream has ended, or was none.
    fn on_ended(
        &mut self,
        name: usize,
        error: Option<anyhow::Error>,
        meter: &mut Option<&mut Meter>,
    ) -> Result<()> {
        let client = &mut self.clients[name];
        client.socket = None; // epoll forgets it with its descriptor.
        if client.open {
            self.open -= 1;
        } else {
            self.opening -= 1;
        }
        self.closed += 1;
        self.slow_closed += u64::from(client.number < self.behaviour.slow);
        let place = self.target.place(client.number as u64, client.attempt - 1);
        let url = &self.target.urls[place];
        let (cause, detail) = match (error, client.status) {
            (Some(error), _) => ("malformed stream".to_owned(), format!("{error:#}")),
            (None, 200) => ("stream closed".to_owned(), "by the server".to_owned()),
            (None, 0) => (
                "connection closed".to_owned(),
                "before an answer".to_owned(),
            ),
            (None, status) => {
                let body = String::from_utf8_lossy(&client.refusal);
                (status.to_string(), shown(&body))
            }
        };
        client.open = false;
        let Some(meter) = meter else {
            bail!("{}{}: {cause}: {detail}", url.authority, url.path);
        };
        if client.number >= self.behaviour.slow {
            meter.error(&cause, || {
                format!("{}{}: {detail}", url.authority, url.path)
            });
        }
        if self.behaviour.reconnect {
            let pause = REOPEN_PAUSE.as_micros() as u64;
            let jitter = spread(client.number as u64 + client.attempt * 7919) % (pause / 2);
            let at = Instant::now() + Duration::from_micros(pause / 2 + jitter);
            self.later.push((at, name));
        }
        Ok(())
    }

    /// Connects the clients whose time has come.
    fn connect_due(&mut self, now: Instant, start: &Start, meter: &mut Meter) {
        let again: Vec<usize> = {
            let due = self.later.extract_if(.., |(at, _)| *at <= now);
            due.map(|(_, name)| name).collect()
        };
        for name in again {
            self.clients[name].due = now;
            self.try_connect(name, now, meter);
        }
        let Some(rate) = self.behaviour.connects_per_s else {
            return;
        };
        while self.clients.len() < self.share.len() && self.opening < OPENING_MAX {
            let number = self.share.start + self.clients.len();
            let due = start.at + Duration::from_secs_f64(number as f64 / rate);
            if due > now {
                return;
            }
            let name = self.add_client(due);
            if self.opening == 0 {
                meter.late(now.saturating_duration_since(due));
            }
            self.try_connect(name, now, meter);
        }
    }

    fn try_connect(&mut self, name: usize, now: Instant, meter: &mut Meter) {
        if let Err(error) = self.connect(name) {
            meter.error("can't connect", || format!("{error:#}"));
            self.later.push((now + REOPEN_PAUSE, name));
        }
    }

    fn count_end(&self, meter: &mut Meter) {
        let behaviour = &self.behaviour;
        if let Some(wanted) = behaviour.events {
            let readers = self.clients.iter().filter(|it| it.number >= behaviour.slow);
            let short: u64 = readers.map(|it| wanted.saturating_sub(it.seen)).sum();
            meter.count("never_came", short);
        }
        meter.count("closed", self.closed);
        meter.count("open_at_end", self.open as u64);
        if behaviour.slow > 0 {
            meter.count("slow_closed", self.slow_closed);
        }
    }
}

impl Worker for Streams {
    fn open(&mut self, stop: &Stop) -> Result<()> {
        if self.behaviour.connects_per_s.is_some() {
            return Ok(());
        }
        let until = Instant::now() + OPEN_TIME_MAX;
        while self.open < self.share.len() && !stop.is_set() {
            while self.opening < OPENING_MAX && self.clients.len() < self.share.len() {
                let name = self.add_client(Instant::now());
                self.connect(name)?;
            }
            self.wait(Duration::from_millis(100), None)?;
            if Instant::now() > until {
                bail!(
                    "{} of {} streams opened within 60 s",
                    self.open,
                    self.share.len()
                );
            }
        }
        Ok(())
    }

    fn run(mut self: Box<Self>, start: Start, meter: &mut Meter) -> Result<()> {
        // What began before the start is measured from it.
        for client in &mut self.clients {
            client.due = start.at;
        }
        loop {
            let now = Instant::now();
            if !meter.turn(now) {
                break;
            }
            self.connect_due(now, &start, meter);
            let paced = self.behaviour.connects_per_s.is_some() || !self.later.is_empty();
            let at_most = Duration::from_millis(if paced { 1 } else { 20 });
            self.wait(at_most, Some(meter))?;
        }
        self.count_end(meter);
        Ok(())
    }
}

impl Client {
    /// Reads available bytes once (with TLS: until none are left).
    fn read(
        &mut self,
        scratch: &mut [u8],
        behaviour: &Behaviour,
        meter: &mut Option<&mut Meter>,
    ) -> Result<Read> {
        loop {
            let Some(socket) = &mut self.socket else {
                return Ok(Read::More);
            };
            let again = socket.buffers();
            let len = match socket.read(scratch) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Read::More),
                Ok(0) | Err(_) => return Ok(Read::Ended),
                Ok(len) => len,
            };
            let now = now_us();
            let mut input = &scratch[..len];
            while let Some(part) = self.responses.next(&mut input)? {
                match part {
                    Part::Head(status) => self.status = status,
                    Part::End => return Ok(Read::Ended),
                    Part::Body(body) if self.status == 200 => {
                        on_body(
                            &mut self.events,
                            &mut self.ledger,
                            &mut self.seen,
                            body,
                            &mut View {
                                now,
                                due: self.due,
                                behaviour,
                                meter,
                            },
                        );
                        self.open = true;
                    }
                    Part::Body(body) => {
                        let room = REFUSAL_BYTES_MAX.saturating_sub(self.refusal.len());
                        self.refusal
                            .extend_from_slice(&body[..body.len().min(room)]);
                    }
                }
            }
            if !again {
                return Ok(Read::More);
            }
        }
    }
}

/// What an event is judged by.
struct View<'a, 'b> {
    now: u64,
    due: Instant,
    behaviour: &'a Behaviour,
    meter: &'a mut Option<&'b mut Meter>,
}

fn on_body(
    events: &mut Events,
    ledger: &mut Ledger,
    seen: &mut u64,
    body: &[u8],
    view: &mut View<'_, '_>,
) {
    if let Some(meter) = view.meter.as_deref_mut() {
        meter.bytes(body.len() as u64);
    }
    events.read(body, |event| on_event(ledger, seen, event, view));
}

fn on_event(ledger: &mut Ledger, seen: &mut u64, event: &Event<'_>, view: &mut View<'_, '_>) {
    if event.name == b"position" {
        return ledger.on_position(event.id); // It shows where the stream is, and no record.
    }
    let Some(meter) = view.meter.as_deref_mut() else {
        return;
    };
    let Some(stamp) = Stamp::read(event.data) else {
        ledger.on_position(event.id);
        if event.name == b"gap" && view.behaviour.verify {
            let data = String::from_utf8_lossy(event.data);
            meter.violation("gap", || shown(&data));
        }
        return meter.count("foreign", 1);
    };
    *seen += 1;
    if view.behaviour.goal == Goal::Deliveries {
        let late = view.now.saturating_sub(stamp.due_us);
        meter.done(Duration::from_micros(late), 0);
    }
    if view.behaviour.goal == Goal::CaughtUp(*seen) {
        meter.done(view.due.elapsed(), 0);
    }
    if !view.behaviour.verify {
        return;
    }
    ledger.on_event(&stamp, event.id, |fault| {
        let count = if let Fault::Missing(count) = fault {
            count
        } else {
            1
        };
        meter.count(fault.kind(), count);
        meter.violation(fault.kind(), || {
            let id = event.id.map(String::from_utf8_lossy);
            format!(
                "{fault:?} at record {} of lane {}, id {id:?}",
                stamp.number, stamp.lane
            )
        });
    });
}

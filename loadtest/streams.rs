//! Event-stream clients on one thread. All of them connect first. Then `ready` is printed, and the
//! caller may start a writer. The first tenth of the events is warm-up and is not in the results.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::events::Events;
use crate::http::{Part, Responses};
use crate::ledger::{Faults, Ledger};
use crate::net::{Poller, Url, allow_sockets};
use crate::proc::Process;
use crate::record::{Stamp, now_us};
use crate::report::{Latency, Report};

/// Time for all clients together to connect.
const OPEN_TIME_MAX: Duration = Duration::from_secs(60);

/// Most connections that are being opened at a time.
const OPENING_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// URL of the stream, `http://host:port/path`.
    #[arg(long)]
    url: Url,
    /// Number of clients that connect.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Longest time in seconds after all are connected.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Events that each client waits for, from the writer's first one. Then the run ends at once.
    #[arg(long)]
    events: Option<u64>,
    /// Fail if an event is missing, repeated or without a new id.
    #[arg(long)]
    verify: bool,
    /// Process id of the server, to measure its CPU per delivery.
    #[arg(long)]
    pid: Option<u32>,
}

/// One client and its stream.
#[derive(Debug)]
struct Client {
    /// The connection. `None` if the server has closed it.
    socket: Option<TcpStream>,
    responses: Responses,
    events: Events,
    ledger: Ledger,
    /// Whether the head and the stream's first bytes have arrived.
    open: bool,
    seen: u64,
}

/// All clients with their combined results.
struct Run<'a> {
    args: &'a Args,
    poller: Poller,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    names: Vec<usize>,
    open: usize,
    closed: usize,
    seen: Seen,
    server: Option<Process>,
}

/// Results of all clients together.
#[derive(Debug)]
struct Seen {
    events: u64,
    bytes: u64,
    foreign: u64,
    faults: Faults,
    latency: Latency,
    /// Whether the warm-up is over, so that delays are recorded.
    warm: bool,
}

/// Counters at the start of the measurement.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    events: u64,
    bytes: u64,
    server_cpu: Duration,
    own_cpu: Duration,
}

pub(crate) fn run(args: &Args) -> Result<Report> {
    allow_sockets(args.clients)?;
    let server = args.pid.map(Process::new);
    let resident = server.map(Process::resident).transpose()?;
    let mut run = Run {
        args,
        poller: Poller::new()?,
        clients: Vec::with_capacity(args.clients),
        scratch: vec![0; 64 * 1024],
        names: Vec::new(),
        open: 0,
        closed: 0,
        seen: Seen {
            events: 0,
            bytes: 0,
            foreign: 0,
            faults: Faults::default(),
            latency: Latency::new(),
            warm: false,
        },
        server,
    };
    let opening = run.mark()?;
    run.open_all()?;
    let open = run.mark()?;
    println!("ready {}", args.clients);
    std::io::stdout().flush()?;
    let began = run.receive(open)?;
    run.report(resident, &opening, &open, &began)
}

impl Run<'_> {
    fn mark(&self) -> Result<Mark> {
        let server = self.server.map(Process::cpu).transpose()?;
        Ok(Mark {
            at: Instant::now(),
            events: self.seen.events,
            bytes: self.seen.bytes,
            server_cpu: server.unwrap_or_default(),
            own_cpu: Process::me().cpu()?,
        })
    }

    fn open_all(&mut self) -> Result<()> {
        let url = &self.args.url;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
            url.path, url.host
        );
        let until = Instant::now() + OPEN_TIME_MAX;
        while self.open < self.args.clients {
            let mut room = OPENING_MAX - (self.clients.len() - self.open);
            while room > 0 && self.clients.len() < self.args.clients {
                let mut socket = url.connect()?;
                socket.write_all(request.as_bytes())?;
                self.poller.add(&socket, self.clients.len())?;
                self.clients.push(Client {
                    socket: Some(socket),
                    responses: Responses::default(),
                    events: Events::default(),
                    ledger: Ledger::new(self.args.events.is_some()),
                    open: false,
                    seen: 0,
                });
                room -= 1;
            }
            self.wait(Duration::from_millis(100))?;
            if self.closed > 0 {
                bail!("the server closed {} streams as they opened", self.closed);
            }
            if Instant::now() > until {
                bail!("{} of {} streams opened", self.open, self.args.clients);
            }
        }
        Ok(())
    }

    /// Receives until every client has all events, or the time is up. Returns the start of the
    /// measurement.
    fn receive(&mut self, open: Mark) -> Result<Mark> {
        let until = Instant::now() + Duration::from_secs(self.args.seconds);
        let clients = self.args.clients as u64;
        let wanted = self.args.events.map_or(u64::MAX, |each| each * clients);
        let warm_up = self.args.events.map_or(1, |each| (each / 10).max(1)) * clients;
        let mut began = None;
        while self.seen.events < wanted && self.closed < self.clients.len() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            self.wait((until - now).min(Duration::from_millis(100)))?;
            if began.is_none() && self.seen.events >= warm_up {
                began = Some(self.mark()?);
                self.seen.warm = true;
            }
        }
        // Idle streams are measured from when they were connected.
        Ok(began.unwrap_or(open))
    }

    fn wait(&mut self, at_most: Duration) -> Result<()> {
        let mut names = std::mem::take(&mut self.names);
        self.poller.wait(at_most, &mut names)?;
        for name in names.drain(..) {
            let client = &mut self.clients[name];
            let open_before = client.open;
            if !client.read(&mut self.scratch, self.args.verify, &mut self.seen)? {
                self.closed += 1;
                client.socket = None; // epoll forgets it with its descriptor.
            }
            self.open += usize::from(client.open && !open_before);
        }
        self.names = names;
        Ok(())
    }

    fn report(
        &self,
        resident: Option<u64>,
        opening: &Mark,
        open: &Mark,
        began: &Mark,
    ) -> Result<Report> {
        let (end, clients) = (self.mark()?, self.clients.len() as f64);
        let seconds = (end.at - began.at).as_secs_f64();
        let deliveries = end.events - began.events;
        let micros = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6;
        let mut report = Report::default();
        report
            .count("clients", self.clients.len() as u64)
            .count("events", self.seen.events)
            .count("deliveries", deliveries)
            .figure("seconds", seconds)
            .figure("deliveries_per_s", deliveries as f64 / seconds);
        if deliveries > 0 {
            let bytes = (end.bytes - began.bytes) as f64;
            report.figure("event_bytes", bytes / deliveries as f64);
        }
        if let (Some(server), Some(before)) = (self.server, resident) {
            let cpu = micros(began.server_cpu, end.server_cpu);
            let grown = server.resident()? as f64 - before as f64;
            let opened = micros(opening.server_cpu, open.server_cpu);
            report
                .figure("server_cores", cpu / 1e6 / seconds)
                .figure("open_us", opened / clients)
                .figure("resident_mib", server.resident()? as f64 / 1048576.0)
                .figure("resident_bytes_per_stream", grown / clients);
            match deliveries {
                0 => report.figure("idle_us_per_s", cpu / clients / seconds),
                n => report.figure("cpu_us_per_delivery", cpu / n as f64),
            };
        }
        let own = micros(began.own_cpu, end.own_cpu) / 1e6 / seconds;
        report
            .figure("client_cores", own)
            .latency(&self.seen.latency);
        self.judge(&mut report);
        Ok(report)
    }

    fn judge(&self, report: &mut Report) {
        let Seen {
            faults, foreign, ..
        } = self.seen;
        let wanted = self.args.events.unwrap_or(0);
        let short: u64 = self
            .clients
            .iter()
            .map(|c| wanted.saturating_sub(c.seen))
            .sum();
        report
            .count("closed", self.closed as u64)
            .count("foreign", foreign);
        report.must(short == 0, || format!("{short} events never came"));
        if self.args.verify {
            report
                .count("missing", faults.missing)
                .count("twice", faults.twice)
                .count("without_id", faults.without_id);
            report.must(faults == Faults::default(), || format!("{faults:?}"));
            report.must(self.closed == 0, || format!("{} closed", self.closed));
        }
    }
}

impl Client {
    /// Reads available bytes once. Returns false if the server has closed the stream.
    fn read(&mut self, scratch: &mut [u8], verify: bool, seen: &mut Seen) -> Result<bool> {
        let Some(socket) = &mut self.socket else {
            return Ok(true);
        };
        let len = match socket.read(scratch) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Ok(0) | Err(_) => return Ok(false),
            Ok(len) => len,
        };
        let now = now_us();
        let mut input = &scratch[..len];
        while let Some(part) = self.responses.next(&mut input)? {
            match part {
                Part::Head(200) => {}
                Part::Head(status) => bail!("the server answered {status}"),
                Part::End => return Ok(false),
                Part::Body(body) => self.show(body, now, verify, seen),
            }
        }
        Ok(true)
    }

    fn show(&mut self, body: &[u8], now: u64, verify: bool, seen: &mut Seen) {
        self.open = true;
        seen.bytes += body.len() as u64;
        self.events.read(body, |event| {
            if event.name == b"position" {
                return; // It says where the stream is and shows no record.
            }
            let Some(stamp) = Stamp::read(event.data) else {
                seen.foreign += 1;
                return;
            };
            self.seen += 1;
            seen.events += 1;
            if seen.warm {
                let late = now.saturating_sub(stamp.due_us);
                seen.latency.record(Duration::from_micros(late));
            }
            if verify {
                self.ledger.note(&stamp, event.id, &mut seen.faults);
            }
        });
    }
}

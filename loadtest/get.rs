//! GETs in a closed loop: each connection sends its next request when it has the response, so the
//! server is always busy. It measures the CPU per request; the delays are those of a saturated
//! server.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::http::{Part, Responses};
use crate::net::{Poller, Url, allow_sockets};
use crate::proc::Process;
use crate::report::{Latency, Report};

/// Most requests that a connection sends in one write. They fit any socket's buffer.
const PIPELINE_MAX: usize = 128;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource to get, `http://host:port/path`.
    #[arg(long)]
    url: Url,
    /// Number of keep-alive connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds to measure; the first tenth is warm-up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Requests that each connection sends at once, before it waits for all their responses.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Requests per second, over one connection. Without it the next request is sent when the last
    /// is answered. Delays count from the time a request was due.
    #[arg(long, conflicts_with = "pipeline")]
    rate: Option<f64>,
    /// Process id of the server, to measure its CPU per request.
    #[arg(long)]
    pid: Option<u32>,
}

/// One keep-alive connection and its parser.
#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    responses: Responses,
    asked: Instant,
    open: usize,
    body: usize,
}

/// Results of all connections together.
#[derive(Debug)]
struct Seen {
    answers: u64,
    body_bytes: Option<usize>,
    latency: Latency,
    warm: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    answers: u64,
    server_cpu: Duration,
    own_cpu: Duration,
}

pub(crate) fn run(args: &Args) -> Result<Report> {
    ensure!(
        (1..=PIPELINE_MAX).contains(&args.pipeline),
        "--pipeline is 1 to {PIPELINE_MAX}"
    );
    ensure!(
        args.rate
            .is_none_or(|rate| rate > 0.0 && args.connections == 1),
        "--rate is positive and needs --connections 1"
    );
    allow_sockets(args.connections)?;
    let Url { path, host, .. } = &args.url;
    let one = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let request = one.repeat(args.pipeline);
    let poller = Poller::new()?;
    let mut connections = Vec::with_capacity(args.connections);
    for name in 0..args.connections {
        let socket = args.url.connect()?;
        poller.add(&socket, name)?;
        let mut connection = Connection {
            socket,
            responses: Responses::default(),
            asked: Instant::now(),
            open: 0,
            body: 0,
        };
        if args.rate.is_none() {
            connection.ask(request.as_bytes(), args.pipeline)?;
        }
        connections.push(connection);
    }
    let seen = Seen {
        answers: 0,
        body_bytes: None,
        latency: Latency::new(),
        warm: false,
    };
    drive(args, &request, poller, connections, seen)
}

fn drive(
    args: &Args,
    request: &str,
    mut poller: Poller,
    mut connections: Vec<Connection>,
    mut seen: Seen,
) -> Result<Report> {
    let server = args.pid.map(Process::new);
    let (start, all) = (Instant::now(), Duration::from_secs(args.seconds));
    let (mut scratch, mut names) = (vec![0; 256 * 1024], Vec::new());
    let mut began = mark(&seen, server)?;
    let mut paced = Paced::default();
    loop {
        let spent = start.elapsed();
        if spent >= all {
            break;
        }
        if !seen.warm && spent >= all / 10 {
            seen.warm = true;
            began = mark(&seen, server)?;
        }
        if let Some(rate) = args.rate {
            paced.send(rate, start, &mut connections[0], request)?;
        }
        poller.wait(Duration::from_millis(100), &mut names)?;
        for name in names.drain(..) {
            let connection = &mut connections[name];
            connection.read(&mut scratch, &mut seen)?;
            if connection.open == 0 && args.rate.is_none() {
                connection.ask(request.as_bytes(), args.pipeline)?;
            }
        }
    }
    let end = mark(&seen, server)?;
    let seconds = (end.at - began.at).as_secs_f64();
    let requests = end.answers - began.answers;
    ensure!(requests > 0, "no request was answered");
    let mut report = Report::default();
    report
        .count("connections", args.connections as u64)
        .count("pipeline", args.pipeline as u64)
        .count("requests", requests)
        .figure("requests_per_s", requests as f64 / seconds)
        .count("body_bytes", seen.body_bytes.unwrap_or(0) as u64);
    if server.is_some() {
        let cpu = (end.server_cpu - began.server_cpu).as_secs_f64();
        report
            .figure("server_cores", cpu / seconds)
            .figure("cpu_us_per_request", cpu * 1e6 / requests as f64);
    }
    let own = (end.own_cpu - began.own_cpu).as_secs_f64();
    report
        .figure("client_cores", own / seconds)
        .latency(&seen.latency);
    Ok(report)
}

fn mark(seen: &Seen, server: Option<Process>) -> Result<Mark> {
    Ok(Mark {
        at: Instant::now(),
        answers: seen.answers,
        server_cpu: server.map(Process::cpu).transpose()?.unwrap_or_default(),
        own_cpu: Process::me().cpu()?,
    })
}

/// Requests at a steady rate.
#[derive(Debug, Default)]
struct Paced {
    sent: u32,
}

impl Paced {
    /// Sends the next request when it is due, unless the last one is not answered. Then it is late,
    /// which its delay shows.
    fn send(
        &mut self,
        rate: f64,
        start: Instant,
        connection: &mut Connection,
        request: &str,
    ) -> Result<()> {
        if connection.open > 0 {
            return Ok(());
        }
        let due = start + Duration::from_secs_f64(f64::from(self.sent) / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        self.sent += 1;
        connection.ask(request.as_bytes(), 1)?;
        connection.asked = due;
        Ok(())
    }
}

impl Connection {
    fn ask(&mut self, request: &[u8], pipeline: usize) -> Result<()> {
        self.asked = Instant::now();
        // All requests are answered, so the socket's buffer is empty and accepts the whole write.
        let sent = self.socket.write(request).context("can't send")?;
        ensure!(sent == request.len(), "the socket took half a request");
        self.open = pipeline;
        Ok(())
    }

    fn read(&mut self, scratch: &mut [u8], seen: &mut Seen) -> Result<()> {
        let len = match self.socket.read(scratch) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("can't read"),
        };
        let took = self.asked.elapsed();
        let mut input = &scratch[..len];
        while let Some(part) = self.responses.next(&mut input)? {
            match part {
                Part::Head(200) => self.body = 0,
                Part::Head(status) => bail!("the server answered {status}"),
                Part::Body(body) => self.body += body.len(),
                Part::End => {
                    ensure!(self.open > 0, "an answer to no request");
                    self.open -= 1;
                    seen.answers += 1;
                    let same = *seen.body_bytes.get_or_insert(self.body) == self.body;
                    ensure!(same, "a body of {} bytes, unlike the others", self.body);
                    if seen.warm {
                        seen.latency.record(took);
                    }
                }
            }
        }
        Ok(())
    }
}

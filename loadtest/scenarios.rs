//! The scenarios of event streams, and `mixed`, which has everything at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::commands::{self, CommandOptions};
use crate::echo::{Echo, EchoOptions};
use crate::engine::{Group, Outcome, Plan, Stop, Worker};
use crate::events::Events;
use crate::http::{Part, Responses};
use crate::live::Live;
use crate::net::{Poller, Url, allow_sockets};
use crate::options::{ClientOptions, RunOptions, Target, TargetOptions};
use crate::queries;
use crate::report::{Report, Scenario};
use crate::requests::LoadOptions;
use crate::streams::{Behaviour, Goal, Streams};
use crate::write::{self, WriteOptions};

/// Connections per second that mean "all at once".
const AT_ONCE: f64 = 1e9;
/// Time for the events of a storm to pass through the gateway to its first client.
const STORM_TIME_MAX: Duration = Duration::from_secs(60);

/// Options of `streams`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    target: TargetOptions,
    /// Number of clients that connect.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events that each client waits for, from the writer's first one. Then the run ends at once.
    #[arg(long)]
    events: Option<u64>,
    /// Fail if an event is missing, repeated, out of order or without a new id.
    #[arg(long)]
    verify: bool,
    /// Connect again with the last id when a stream ends. Otherwise its end is an error.
    #[arg(long)]
    reconnect: bool,
    /// The id by which clients begin (`Last-Event-ID`).
    #[arg(long, value_name = "ID", default_value = "")]
    last_event_id: String,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    write: WriteOptions,
}

/// Event streams while all of them are connected.
pub(crate) fn streams(args: &StreamArgs, live: Live, stop: &Stop) -> Result<Report> {
    let behaviour = Behaviour {
        goal: Goal::Deliveries,
        connects_per_s: None,
        reconnect: args.reconnect,
        verify: args.verify,
        whole: args.events.is_some(),
        slow: 0,
        events: args.events,
        last_id: args.last_event_id.clone().into_bytes(),
    };
    let parts = Parts::new(&args.target, &args.run, args.clients)?;
    let mut groups = vec![parts.streams(&behaviour, args.events)?];
    groups.extend(write::group(&args.write, args.target.client.keys)?);
    let (clients, text) = (args.clients, live.is_text());
    let outcome = crate::engine::run(parts.plan(groups, live), stop, || {
        if text {
            println!("ready {clients}");
        }
    })?;
    let mut report = Report::new(Scenario::new("streams", &args.target.urls), &outcome);
    add_stream_figures(&mut report, &outcome, args.clients);
    if args.events.is_some() && !outcome.interrupted {
        let short = report.value("never_came").unwrap_or(0.0);
        report.must(short == 0.0, || format!("{short} events never came"));
    }
    if args.verify && !args.reconnect {
        let closed = report.value("closed").unwrap_or(0.0);
        report.must(closed == 0.0, || format!("{closed} streams were closed"));
    }
    check_writer(&mut report, &args.write);
    Ok(report)
}

/// Options of `connect-storm`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    target: TargetOptions,
    /// Number of clients that connect.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Connections per second. Without it, all connect at once.
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    run: RunOptions,
}

/// Streams that open: from the due time of the connection to the stream's first bytes.
pub(crate) fn connect_storm(args: &ConnectArgs, live: Live, stop: &Stop) -> Result<Report> {
    ensure!(
        args.rate.is_none_or(|rate| rate > 0.0),
        "--rate is positive"
    );
    let behaviour = Behaviour {
        goal: Goal::Opens,
        connects_per_s: Some(args.rate.unwrap_or(AT_ONCE)),
        reconnect: true,
        verify: false,
        whole: false,
        slow: 0,
        events: None,
        last_id: Vec::new(),
    };
    let parts = Parts::new(&args.target, &args.run, args.clients)?;
    let groups = vec![parts.streams_of("opens", &behaviour, Some(1))?];
    let outcome = crate::engine::run(parts.storm(groups, live), stop, || {})?;
    let mut report = Report::new(Scenario::new("connect-storm", &args.target.urls), &outcome);
    report.count("clients", args.clients as u64);
    must_reach(&mut report, &outcome, args.clients as u64, "streams opened");
    Ok(report)
}

/// Options of `resume-storm`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    target: TargetOptions,
    /// Number of clients that come back.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events that each of them has missed.
    #[arg(long, default_value_t = 100)]
    behind: u64,
    /// Clients that come back per second. Without it, all come back at once.
    #[arg(long)]
    come_back: Option<f64>,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    write: WriteOptions,
}

/// Clients that were away: from the moment they connect to the last event that they missed.
pub(crate) fn resume_storm(args: &ResumeArgs, live: Live, stop: &Stop) -> Result<Report> {
    ensure!(args.behind > 0, "--behind is at least 1");
    let parts = Parts::new(&args.target, &args.run, args.clients)?;
    let mut probe = Probe::open(&parts.target)?;
    probe.wait("the stream's first id", |probe| !probe.last_id.is_empty())?;
    let id = probe.last_id.clone();
    write::now(&args.write, args.target.client.keys, args.behind)?;
    probe.wait("the events of the storm", |probe| probe.seen >= args.behind)?;
    let behaviour = Behaviour {
        goal: Goal::CaughtUp(args.behind),
        connects_per_s: Some(args.come_back.unwrap_or(AT_ONCE)),
        reconnect: true,
        verify: true,
        whole: true,
        slow: 0,
        events: Some(args.behind),
        last_id: id,
    };
    let groups = vec![parts.streams_of("catch_ups", &behaviour, Some(1))?];
    let outcome = crate::engine::run(parts.storm(groups, live), stop, || {})?;
    let mut report = Report::new(Scenario::new("resume-storm", &args.target.urls), &outcome);
    report
        .count("clients", args.clients as u64)
        .count("behind", args.behind);
    must_reach(
        &mut report,
        &outcome,
        args.clients as u64,
        "clients caught up",
    );
    Ok(report)
}

/// Options of `slow-readers`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    target: TargetOptions,
    /// Number of clients that connect.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// So many of them never read what is sent to them.
    #[arg(long, default_value_t = 100)]
    slow: usize,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    write: WriteOptions,
}

/// What clients that never read cost the others.
pub(crate) fn slow_readers(args: &SlowArgs, live: Live, stop: &Stop) -> Result<Report> {
    ensure!(args.slow < args.clients, "--slow is less than --clients");
    let behaviour = Behaviour {
        goal: Goal::Deliveries,
        connects_per_s: None,
        reconnect: false,
        verify: true,
        whole: false,
        slow: args.slow,
        events: None,
        last_id: Vec::new(),
    };
    let parts = Parts::new(&args.target, &args.run, args.clients)?;
    let mut groups = vec![parts.streams(&behaviour, None)?];
    groups.extend(write::group(&args.write, args.target.client.keys)?);
    let outcome = crate::engine::run(parts.plan(groups, live), stop, || {})?;
    let mut report = Report::new(Scenario::new("slow-readers", &args.target.urls), &outcome);
    add_stream_figures(&mut report, &outcome, args.clients);
    report.count("slow", args.slow as u64);
    check_writer(&mut report, &args.write);
    Ok(report)
}

/// Options of `mixed`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MixedArgs {
    /// The stream, `http://host:port/path`. Several: clients take them in turn.
    #[arg(long = "stream-url", required = true, value_name = "URL")]
    stream_urls: Vec<Url>,
    /// The resource of the queries.
    #[arg(long = "query-url", value_name = "URL")]
    query_urls: Vec<Url>,
    /// The resource of the commands.
    #[arg(long = "command-url", value_name = "URL")]
    command_urls: Vec<Url>,
    /// Number of event-stream clients.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Queries per second.
    #[arg(long, default_value_t = 200.0)]
    query_rate: f64,
    /// Commands per second.
    #[arg(long, default_value_t = 50.0)]
    command_rate: f64,
    /// Connections of the queries, and of the commands.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[command(flatten)]
    client: ClientOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    write: WriteOptions,
    #[command(flatten)]
    command: CommandOptions,
    #[command(flatten)]
    echo: EchoOptions,
}

/// What queries and commands wait while streams are sent to.
pub(crate) fn mixed(args: &MixedArgs, live: Live, stop: &Stop) -> Result<Report> {
    let target = TargetOptions {
        urls: args.stream_urls.clone(),
        client: args.client.clone(),
    };
    let behaviour = Behaviour {
        goal: Goal::Deliveries,
        connects_per_s: None,
        reconnect: true,
        verify: true,
        whole: false,
        slow: 0,
        events: None,
        last_id: Vec::new(),
    };
    let parts = Parts::new(&target, &args.run, args.clients)?;
    allow_sockets(args.clients + 2 * args.connections)?;
    let load = |rate| LoadOptions {
        rate,
        closed_loop: false,
        connections: args.connections,
        pipeline: 1,
        timeout: 30.0,
    };
    let mut groups = vec![parts.streams(&behaviour, None)?];
    if !args.query_urls.is_empty() {
        let target = Arc::new(args.client.target(&args.query_urls)?);
        groups.push(queries::group(
            &target,
            &load(args.query_rate),
            &args.run,
            false,
        )?);
    }
    if !args.command_urls.is_empty() {
        let target = Arc::new(args.client.target(&args.command_urls)?);
        let load = load(args.command_rate);
        groups.push(commands::group(&target, &load, &args.run, &args.command)?);
    }
    groups.extend(Echo::group(&args.echo)?);
    groups.extend(write::group(&args.write, args.client.keys)?);
    let outcome = crate::engine::run(parts.plan(groups, live), stop, || {})?;
    let urls = [&args.stream_urls[..], &args.query_urls, &args.command_urls].concat();
    let mut report = Report::new(Scenario::new("mixed", &urls), &outcome);
    add_stream_figures(&mut report, &outcome, args.clients);
    check_writer(&mut report, &args.write);
    Ok(report)
}

/// What all scenarios of streams are made of.
pub(crate) struct Parts {
    pub(crate) target: Arc<Target>,
    pids: Vec<u32>,
    run: RunOptions,
    clients: usize,
}

impl Parts {
    pub(crate) fn new(target: &TargetOptions, run: &RunOptions, clients: usize) -> Result<Self> {
        run.check()?;
        ensure!(clients > 0, "--clients is at least 1");
        allow_sockets(clients)?;
        Ok(Self {
            target: Arc::new(target.target()?),
            pids: target.client.pids.clone(),
            run: run.clone(),
            clients,
        })
    }

    /// The clients. `events`: after so many for each of them, the run ends.
    pub(crate) fn streams(&self, behaviour: &Behaviour, events: Option<u64>) -> Result<Group> {
        self.streams_of("deliveries", behaviour, events)
    }

    fn streams_of(
        &self,
        unit: &'static str,
        behaviour: &Behaviour,
        events: Option<u64>,
    ) -> Result<Group> {
        let mut workers: Vec<Box<dyn Worker>> = Vec::new();
        for share in self.run.shares(self.clients) {
            workers.push(Box::new(Streams::new(&self.target, behaviour, share)?));
        }
        Ok(Group {
            name: "streams",
            unit,
            workers,
            wanted: events.map(|each| each * self.clients as u64),
        })
    }

    pub(crate) fn plan(&self, groups: Vec<Group>, live: Live) -> Plan {
        Plan {
            groups,
            length: self.run.length(),
            warm_up: self.run.warm_up(),
            pids: self.pids.clone(),
            live,
        }
    }

    /// A plan without warm-up: what a storm measures is its beginning.
    fn storm(&self, groups: Vec<Group>, live: Live) -> Plan {
        Plan {
            warm_up: Duration::ZERO,
            ..self.plan(groups, live)
        }
    }
}

/// Figures that only streams have: bytes of an event, memory and CPU per client.
pub(crate) fn add_stream_figures(report: &mut Report, outcome: &Outcome, clients: usize) {
    let streams = &outcome.groups[0];
    report
        .count("clients", clients as u64)
        .count("events", streams.all);
    if streams.done > 0 {
        report.figure("event_bytes", streams.bytes as f64 / streams.done as f64);
    }
    let each = clients as f64;
    if let Some((before, after)) = outcome.resident {
        report.figure(
            "resident_bytes_per_stream",
            (after as f64 - before as f64) / each,
        );
    }
    if let Some(cpu) = outcome.opening_cpu {
        report.figure("open_us", cpu.as_secs_f64() * 1e6 / each);
    }
    if let (Some(cpu), 0) = (outcome.server_cpu, streams.done) {
        report.figure(
            "idle_us_per_s",
            cpu.as_secs_f64() * 1e6 / each / outcome.seconds,
        );
    }
}

fn must_reach(report: &mut Report, outcome: &Outcome, wanted: u64, what: &str) {
    let done = outcome.groups[0].all;
    if !outcome.interrupted {
        report.must(done >= wanted, || {
            format!("{done} of {wanted} {what} within --seconds")
        });
    }
}

/// Says if the writer could not keep its rate.
pub(crate) fn check_writer(report: &mut Report, write: &WriteOptions) {
    if let Some(per_s) = report.value("writer.records_per_s") {
        report.check_rate(write.rate, per_s, "writer");
    }
}

/// A client of its own that finds a stream's position before a storm, and sees its events.
struct Probe {
    socket: crate::socket::Socket,
    poller: Poller,
    responses: Responses,
    events: Events,
    last_id: Vec<u8>,
    seen: u64,
}

impl Probe {
    fn open(target: &Target) -> Result<Self> {
        let mut socket = target.connector.connect(&target.urls[0])?;
        let mut request = Vec::new();
        target.put_head("GET", 0, 0, 0, &mut request);
        request.extend_from_slice(b"Accept: text/event-stream\r\n\r\n");
        socket.write(&request)?;
        let poller = Poller::new()?;
        poller.add(&socket, 0)?;
        Ok(Self {
            socket,
            poller,
            responses: Responses::default(),
            events: Events::default(),
            last_id: Vec::new(),
            seen: 0,
        })
    }

    fn wait(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let until = Instant::now() + STORM_TIME_MAX;
        let (mut scratch, mut names) = (vec![0; 64 * 1024], Vec::new());
        while !holds(self) {
            ensure!(Instant::now() < until, "{what} did not come within 60 s");
            names.clear();
            self.poller.wait(Duration::from_millis(100), &mut names)?;
            let len = match self.socket.read(&mut scratch) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Ok(0) => bail!("the server closed the stream before {what}"),
                len => len.context("can't read the stream")?,
            };
            let mut input = &scratch[..len];
            while let Some(part) = self.responses.next(&mut input)? {
                match part {
                    Part::Head(200) => {}
                    Part::Head(status) => bail!("the stream's URL answers {status}"),
                    Part::End => bail!("the server ended the stream before {what}"),
                    Part::Body(body) => {
                        let (last_id, seen) = (&mut self.last_id, &mut self.seen);
                        self.events.read(body, |event| {
                            if let Some(id) = event.id {
                                *last_id = id.to_vec();
                            }
                            *seen += u64::from(crate::record::Stamp::read(event.data).is_some());
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

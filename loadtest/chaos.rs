//! `chaos`: starts gateways, kills them one after the other with SIGKILL and starts them again,
//! while streams resume, commands are repeated at the other gateways, and a writer writes. Whatever
//! is then missing, doubled, out of order or answered twice fails the run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::commands::{self, CommandOptions};
use crate::echo::{Echo, EchoOptions};
use crate::engine::{Group, Meter, Start, Stop, Worker};
use crate::gateways::{self, Gateway, GatewayCommand};
use crate::live::Live;
use crate::net::Url;
use crate::options::{ClientOptions, RunOptions, TargetOptions};
use crate::report::{Report, Scenario};
use crate::requests::LoadOptions;
use crate::scenarios::{Parts, add_stream_figures, check_writer};
use crate::streams::{Behaviour, Goal};
use crate::write::{self, WriteOptions};

/// Most gateways of one run.
const INSTANCES_MAX: usize = 16;
/// How long nothing is killed before the end, so that everything can arrive.
const CALM: Duration = Duration::from_secs(5);

/// Options of `chaos`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The gateway's program.
    #[arg(long, value_name = "FILE")]
    gateway: PathBuf,
    /// Its config.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Number of gateways.
    #[arg(long, default_value_t = 2)]
    instances: usize,
    /// Seconds between two kills.
    #[arg(long, default_value_t = 5.0)]
    kill_every: f64,
    /// Path of the stream.
    #[arg(long, value_name = "PATH")]
    stream: String,
    /// Path of the commands. Without it there are none.
    #[arg(long, value_name = "PATH")]
    command_path: Option<String>,
    /// Number of event-stream clients.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Commands per second.
    #[arg(long, default_value_t = 50.0)]
    command_rate: f64,
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

/// Runs the scenario.
pub(crate) fn run(args: &Args, live: Live, stop: &Stop) -> Result<Report> {
    gateways::check(&args.gateway, &args.config)?;
    ensure!(
        (2..=INSTANCES_MAX).contains(&args.instances),
        "--instances is 2 to {INSTANCES_MAX}"
    );
    ensure!(args.kill_every > 0.0, "--kill-every is positive");
    let command = GatewayCommand {
        binary: args.gateway.clone(),
        config: args.config.clone(),
        bootstrap: args.write.bootstrap.clone(),
        options: Vec::new(),
    };
    let mut gateways = Vec::new();
    for _ in 0..args.instances {
        gateways.push(Gateway::start(&command)?);
    }
    let urls = |path: &str| -> Result<Vec<Url>> {
        let all = gateways.iter();
        all.map(|gateway| format!("http://{}{path}", gateway.address).parse())
            .collect()
    };
    let streams = TargetOptions {
        urls: urls(&args.stream)?,
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
    let parts = Parts::new(&streams, &args.run, args.clients)?;
    let mut groups = vec![parts.streams(&behaviour, None)?];
    if let Some(path) = &args.command_path {
        let target = Arc::new(args.client.target(&urls(path)?)?);
        let load = LoadOptions {
            rate: args.command_rate,
            closed_loop: false,
            connections: 64,
            pipeline: 1,
            timeout: 15.0,
        };
        groups.push(commands::group(&target, &load, &args.run, &args.command)?);
    }
    groups.extend(Echo::group(&args.echo)?);
    groups.extend(write::group(&args.write, args.client.keys)?);
    groups.push(Group {
        name: "gateways",
        unit: "restarts",
        workers: vec![Box::new(Killer {
            gateways,
            every: Duration::from_secs_f64(args.kill_every),
        })],
        wanted: None,
    });
    let outcome = crate::engine::run(parts.plan(groups, live), stop, || {})?;
    let mut report = Report::new(Scenario::new("chaos", &streams.urls), &outcome);
    add_stream_figures(&mut report, &outcome, args.clients);
    check_writer(&mut report, &args.write);
    Ok(report)
}

/// Kills and restarts the gateways in turn.
struct Killer {
    gateways: Vec<Gateway>,
    every: Duration,
}

impl Worker for Killer {
    fn open(&mut self, _: &Stop) -> Result<()> {
        Ok(())
    }

    fn run(mut self: Box<Self>, start: Start, meter: &mut Meter) -> Result<()> {
        let mut next = start.at + self.every;
        let mut turn = 0;
        while meter.turn(Instant::now()) {
            let now = Instant::now();
            if now < next || start.end.saturating_duration_since(now) < CALM {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let count = self.gateways.len();
            let gateway = &mut self.gateways[turn % count];
            gateway.kill();
            gateway.spawn()?;
            gateway.wait_ready()?;
            meter.done(now.elapsed(), 0);
            turn += 1;
            next += self.every;
        }
        Ok(())
    }
}

//! `queries`: GETs. Hot (one URL), cold (`{key}` over many keys), conditional (with the tag of the
//! last answer), collections (the URL of one). Every answer is checked: its status, that a 304 was
//! asked for, and, where the records are this harness's own, that a key never goes backwards on one
//! connection.

use std::sync::Arc;

use ahash::AHashMap;
use anyhow::Result;

use crate::engine::{Group, Meter, Plan, Start, Stop};
use crate::http::shown;
use crate::live::Live;
use crate::options::{RunOptions, Target, TargetOptions};
use crate::record::Stamp;
use crate::report::{Report, Scenario};
use crate::requests::{Answer, Job, LoadOptions, Requests, Source, Then};

/// Most (connection, key) pairs whose newest record is remembered, and most tags.
const REMEMBERED_MAX: usize = 1_000_000;

/// Options of `queries`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Send the tag of the key's last answer as `If-None-Match`: 304 is then expected.
    #[arg(long)]
    pub(crate) conditional: bool,
}

/// Runs the scenario.
pub(crate) fn run(args: &Args, live: Live, stop: &Stop) -> Result<Report> {
    let target = Arc::new(args.target.target()?);
    let group = group(&target, &args.load, &args.run, args.conditional)?;
    let plan = Plan {
        groups: vec![group],
        length: args.run.length(),
        warm_up: args.run.warm_up(),
        pids: args.target.client.pids.clone(),
        live,
    };
    let outcome = crate::engine::run(plan, stop, || {})?;
    let mut report = Report::new(Scenario::new("queries", &args.target.urls), &outcome);
    report
        .count("connections", args.load.connections as u64)
        .count("pipeline", args.load.pipeline as u64);
    if !args.load.closed_loop {
        report.figure("rate_wanted", args.load.rate);
    }
    Ok(report)
}

/// The workers of the scenario, one per thread.
pub(crate) fn group(
    target: &Arc<Target>,
    load: &LoadOptions,
    run: &RunOptions,
    conditional: bool,
) -> Result<Group> {
    run.check()?;
    load.check()?;
    let shares = run.shares(load.connections);
    let threads = shares.len();
    let mut workers: Vec<Box<dyn crate::engine::Worker>> = Vec::new();
    for (thread, share) in shares.into_iter().enumerate() {
        let source = Queries {
            target: Arc::clone(target),
            conditional,
            tags: AHashMap::new(),
            newest: AHashMap::new(),
        };
        let requests = Requests::new(target, load, share, (thread, threads), source)?;
        workers.push(Box::new(requests));
    }
    Ok(Group {
        name: "queries",
        unit: "requests",
        workers,
        wanted: None,
    })
}

/// The requests of one thread, and what it knows of the answers.
struct Queries {
    target: Arc<Target>,
    conditional: bool,
    /// The last tag of each (URL, key).
    tags: AHashMap<(usize, u64), String>,
    /// The newest record that each connection has shown of each key.
    newest: AHashMap<(usize, usize, u64), (u64, u64)>,
}

impl Source for Queries {
    fn put(&mut self, job: &Job, _: &Start, into: &mut Vec<u8>) {
        self.target
            .put_head("GET", job.place, job.key, job.index, into);
        if let Some(tag) = self.tags.get(&(job.place, job.key)) {
            into.extend_from_slice(b"If-None-Match: ");
            into.extend_from_slice(tag.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        into.extend_from_slice(b"\r\n");
    }

    fn on_answer(&mut self, job: &Job, answer: &Answer<'_>, meter: &mut Meter) -> Then {
        match answer.status {
            200 => {
                self.check_order(job, answer, meter);
                if self.conditional
                    && self.tags.len() < REMEMBERED_MAX
                    && let Some(tag) = answer.fields.field("etag")
                {
                    self.tags.insert((job.place, job.key), tag.to_owned());
                }
                Then::Done
            }
            304 if self.tags.contains_key(&(job.place, job.key)) => {
                meter.count("not_modified", 1);
                Then::Done
            }
            status => {
                meter.error(&status.to_string(), || self.describe(job, answer));
                Then::Failed
            }
        }
    }
}

impl Queries {
    /// A query never goes backwards on one connection.
    fn check_order(&mut self, job: &Job, answer: &Answer<'_>, meter: &mut Meter) {
        let Some(stamp) = Stamp::read(answer.body) else {
            return;
        };
        let place = (answer.connection, job.place, job.key);
        let shown = (stamp.writer, stamp.number);
        let room = self.newest.len() < REMEMBERED_MAX;
        let Some(newest) = self.newest.get_mut(&place) else {
            if room {
                self.newest.insert(place, shown);
            }
            return;
        };
        if *newest > shown {
            meter.violation("a query went backwards", || {
                let path = &self.target.urls[job.place].path;
                format!("record {shown:?} after {newest:?}: {path}")
            });
        }
        *newest = shown;
    }

    fn describe(&self, job: &Job, answer: &Answer<'_>) -> String {
        describe(&self.target, job, answer)
    }
}

/// An answer as an example of an error: the URL, and the first bytes.
pub(crate) fn describe(target: &Target, job: &Job, answer: &Answer<'_>) -> String {
    let mut path = Vec::new();
    target.paths[job.place].put(job.key, &mut path);
    let path = String::from_utf8_lossy(&path).into_owned();
    let body = shown(&String::from_utf8_lossy(answer.body));
    format!(
        "{}{path}: {} {body}",
        target.urls[job.place].authority, answer.status
    )
}

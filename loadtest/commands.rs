//! `commands`: requests with an `Idempotency-Key`. An attempt that fails, or is answered 503, 504,
//! 409 or 429, is repeated under its key at the next URL until there is an answer; its delay counts
//! from the first attempt. A share of the answered ones is sent again, to another URL, and must get
//! the same answer. With `--echo` the harness is the service too, and checks that each key has one
//! effect.

use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use anyhow::{Context as _, Result, ensure};

use crate::echo::{Echo, EchoOptions};
use crate::engine::{Group, Meter, Plan, Start, Stop, Worker};
use crate::live::Live;
use crate::options::{RunOptions, Target, TargetOptions};
use crate::queries::describe;
use crate::record::now_us;
use crate::report::{Report, Scenario};
use crate::requests::{Answer, Job, LoadOptions, Requests, Source, Then, spread};
use crate::template::{Template, Values};

/// Pause before a failed attempt is repeated; it doubles with each.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause, and the longest `Retry-After` that is obeyed.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Most attempts of one key.
const ATTEMPTS_MAX: u32 = 50;

/// Options of `commands`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
    #[command(flatten)]
    pub(crate) command: CommandOptions,
    #[command(flatten)]
    pub(crate) echo: EchoOptions,
}

/// What a command is.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Command")]
pub(crate) struct CommandOptions {
    /// The method: POST, PUT, PATCH or DELETE.
    #[arg(long, default_value = "POST")]
    method: String,
    /// The body. `{key}` is the key's number, `{i}` the command's, `{at}` when it was due (µs).
    #[arg(long, default_value = r#"{"key":{key},"i":{i},"at":{at}}"#)]
    body: String,
    /// A file with the body, in place of --body.
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// The body's media type.
    #[arg(long, default_value = "application/json")]
    content_type: String,
    /// Share of the answered commands that is sent again under the same key, to the next URL.
    #[arg(long, default_value_t = 0.0)]
    retry_share: f64,
    /// Milliseconds between an answer and the same command once more.
    #[arg(long, default_value_t = 0)]
    retry_after: u64,
    /// Send no `Idempotency-Key`: nothing is repeated, and effects are not checked.
    #[arg(long, conflicts_with = "retry_share")]
    no_key: bool,
}

/// Runs the scenario.
pub(crate) fn run(args: &Args, live: Live, stop: &Stop) -> Result<Report> {
    let plan = Plan {
        groups: groups(args)?,
        length: args.run.length(),
        warm_up: args.run.warm_up(),
        pids: args.target.client.pids.clone(),
        live,
    };
    let outcome = crate::engine::run(plan, stop, || {})?;
    let mut report = Report::new(Scenario::new("commands", &args.target.urls), &outcome);
    report.count("connections", args.load.connections as u64);
    if !args.load.closed_loop {
        report.figure("rate_wanted", args.load.rate);
    }
    Ok(report)
}

/// The clients, and the service if the harness plays it.
fn groups(args: &Args) -> Result<Vec<Group>> {
    let target = Arc::new(args.target.target()?);
    let mut groups = vec![group(&target, &args.load, &args.run, &args.command)?];
    groups.extend(Echo::group(&args.echo)?);
    Ok(groups)
}

/// The clients of the scenario.
pub(crate) fn group(
    target: &Arc<Target>,
    load: &LoadOptions,
    run: &RunOptions,
    command: &CommandOptions,
) -> Result<Group> {
    run.check()?;
    load.check()?;
    ensure!(
        ["POST", "PUT", "PATCH", "DELETE"].contains(&&command.method[..]),
        "--method is POST, PUT, PATCH or DELETE"
    );
    ensure!(
        (0.0..=1.0).contains(&command.retry_share),
        "--retry-share is 0 to 1"
    );
    let body = match &command.body_file {
        None => command.body.clone(),
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("can't read --body-file {}", path.display()))?,
    };
    let body = Template::parse(&body)?;
    let shares = run.shares(load.connections);
    let threads = shares.len();
    let run = now_us();
    let mut workers: Vec<Box<dyn Worker>> = Vec::new();
    for (thread, share) in shares.into_iter().enumerate() {
        let source = Commands {
            target: Arc::clone(target),
            options: command.clone(),
            body: body.clone(),
            run,
            hasher: RandomState::new(),
            answered: AHashMap::new(),
            scratch: Vec::new(),
        };
        let requests = Requests::new(target, load, share, (thread, threads), source)?;
        workers.push(Box::new(requests));
    }
    Ok(Group {
        name: "commands",
        unit: "requests",
        workers,
        wanted: None,
    })
}

/// The commands of one thread.
struct Commands {
    target: Arc<Target>,
    options: CommandOptions,
    body: Template,
    /// Makes the keys of this run different from those of others.
    run: u64,
    hasher: RandomState,
    /// Status and hashed body of the first answer, of commands that are sent again.
    answered: AHashMap<u64, (u16, u64)>,
    scratch: Vec<u8>,
}

impl Source for Commands {
    fn put(&mut self, job: &Job, start: &Start, into: &mut Vec<u8>) {
        use std::io::Write as _;
        self.scratch.clear();
        // A retry is the same request to the byte, so its time is that of the first attempt.
        let values = Values {
            key: job.key,
            index: job.index,
            due_us: start.micros(job.made),
        };
        self.body.put_values(&values, &mut self.scratch);
        let options = &self.options;
        self.target
            .put_head(&options.method, job.place, job.key, job.index, into);
        if !options.no_key {
            write!(
                into,
                "Idempotency-Key: \"load-{:x}-{}\"\r\n",
                self.run, job.index
            )
            .expect("a Vec takes all");
        }
        let (kind, length) = (&options.content_type, self.scratch.len());
        write!(
            into,
            "Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
        .expect("a Vec takes all");
        into.extend_from_slice(&self.scratch);
    }

    fn on_answer(&mut self, job: &Job, answer: &Answer<'_>, meter: &mut Meter) -> Then {
        let replayed = answer.fields.field("idempotent-replayed") == Some("true");
        meter.count("replayed", u64::from(replayed));
        match answer.status {
            200..=299 => self.on_final(job, answer, meter),
            409 | 429 | 503 | 504 => {
                let after = answer.fields.field("retry-after");
                let after = after.and_then(|seconds| seconds.parse().ok());
                let after = after.map(Duration::from_secs);
                meter.error(&answer.status.to_string(), || {
                    describe(&self.target, job, answer)
                });
                self.repeat(job, after)
            }
            status => {
                meter.error(&status.to_string(), || describe(&self.target, job, answer));
                Then::Failed
            }
        }
    }

    fn on_failure(&mut self, job: &Job) -> Then {
        self.repeat(job, None)
    }

    fn on_end(&mut self, meter: &mut Meter) {
        meter.count("not_repeated_at_end", self.answered.len() as u64);
    }
}

impl Commands {
    /// A command has its answer: compared with the first one, if this is a repetition.
    fn on_final(&mut self, job: &Job, answer: &Answer<'_>, meter: &mut Meter) -> Then {
        let seen = (answer.status, self.hasher.hash_one(answer.body));
        if let Some(first) = self.answered.remove(&job.index) {
            meter.count("repeated", 1);
            if first != seen {
                meter.violation("two answers to one idempotency key", || {
                    format!(
                        "first {}, now {}",
                        first.0,
                        describe(&self.target, job, answer)
                    )
                });
            }
            return Then::Done;
        }
        let share = spread(job.index ^ self.run) as f64 / u64::MAX as f64;
        if share < self.options.retry_share {
            self.answered.insert(job.index, seen);
            return Then::Again {
                after: Duration::from_millis(self.options.retry_after),
                place: (job.place + 1) % self.target.urls.len(),
            };
        }
        Then::Done
    }

    /// The command may have taken effect or not. The same key is sent again, to the next URL.
    fn repeat(&self, job: &Job, after: Option<Duration>) -> Then {
        if self.options.no_key || job.attempt >= ATTEMPTS_MAX {
            return Then::Failed;
        }
        let doubled = RETRY_PAUSE * 2_u32.pow(job.attempt.min(5));
        Then::Retry {
            after: after.unwrap_or(doubled).min(RETRY_PAUSE_MAX),
            place: (job.place + 1) % self.target.urls.len(),
        }
    }
}

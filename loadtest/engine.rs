//! Runs a scenario's workers on threads: opens all of their connections, starts them together,
//! marks the end of the warm-up and of the run, and collects what they measured.
//!
//! A worker measures alone, without locks. It publishes three counters for the live line and, once
//! a second, its histogram of that second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::errors::Errors;
use crate::latency::Latency;
use crate::live::Live;
use crate::proc::{Process, thread_cpu};
use crate::record::now_us;

/// How often the main thread looks at the counters.
const LOOK: Duration = Duration::from_millis(5);
/// Most finished seconds that wait for the main thread.
const SECONDS_QUEUED_MAX: usize = 1024;
/// Time for workers to receive what is in flight when the run ends.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// One part of a scenario that runs on a thread of its own.
pub(crate) trait Worker: Send {
    /// Opens connections. The run begins when all workers have returned.
    fn open(&mut self, stop: &Stop) -> Result<()>;
    /// Loads and measures until [`Meter::turn`] returns false.
    fn run(self: Box<Self>, start: Start, meter: &mut Meter) -> Result<()>;
}

/// When a run began, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) at: Instant,
    /// The same time, in µs since 1970.
    pub(crate) at_us: u64,
    pub(crate) end: Instant,
}

impl Start {
    /// A moment of the run in µs since 1970.
    pub(crate) fn micros(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.at);
        self.at_us + u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Workers of one kind, whose results are added up.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// What is counted: deliveries, requests, records.
    pub(crate) unit: &'static str,
    pub(crate) workers: Vec<Box<dyn Worker>>,
    /// The run ends when this many are counted. The first tenth is then the warm-up, if the plan
    /// has one.
    pub(crate) wanted: Option<u64>,
}

/// How a scenario runs.
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    pub(crate) length: Duration,
    /// Zero: everything is measured from the start.
    pub(crate) warm_up: Duration,
    pub(crate) pids: Vec<u32>,
    pub(crate) live: Live,
}

/// Set when the run ends, by time or by Ctrl-C.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    stopped: AtomicBool,
    interrupted: AtomicBool,
    warm: AtomicBool,
}

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::Relaxed);
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// What one worker measured after the warm-up; errors and violations of the whole run.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    /// From the due time to the end of the answer or event.
    pub(crate) latency: Latency,
    /// From the due time to the moment the harness acted, where nothing but the harness was late.
    pub(crate) late: Latency,
    pub(crate) errors: Errors,
    /// What no correct gateway does.
    pub(crate) violations: Errors,
    /// Further results, added up over the workers.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Share of one CPU that the busiest worker's thread used.
    pub(crate) busiest: f64,
}

impl Totals {
    fn new() -> Self {
        Self {
            latency: Latency::new(),
            late: Latency::new(),
            errors: Errors::default(),
            violations: Errors::default(),
            counts: Vec::new(),
            busiest: 0.0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.late.add(&other.late);
        self.errors.merge(&other.errors);
        self.violations.merge(&other.violations);
        self.busiest = self.busiest.max(other.busiest);
        for &(name, count) in &other.counts {
            self.count(name, count);
        }
    }

    fn count(&mut self, name: &'static str, count: u64) {
        match self.counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => self.counts.push((name, count)),
        }
    }
}

/// Counters of one worker that the main thread reads while it runs.
#[derive(Debug, Default)]
struct Gauge {
    done: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// One second of one worker.
struct Interval {
    group: usize,
    second: usize,
    done: u64,
    errors: u64,
    latency: Latency,
}

/// What a worker reports to.
pub(crate) struct Meter {
    group: usize,
    stop: Stop,
    gauge: Arc<Gauge>,
    seconds: SyncSender<Interval>,
    start: Instant,
    /// The second that is being measured, and what it has so far.
    second: usize,
    in_second: Latency,
    before_second: (u64, u64),
    done: u64,
    bytes: u64,
    errors: u64,
    warm: Option<(Instant, Duration)>,
    totals: Totals,
}

impl Meter {
    /// Counts an answer or a delivery. `took` is from its due time.
    pub(crate) fn done(&mut self, took: Duration, bytes: u64) {
        self.done += 1;
        self.bytes += bytes;
        self.in_second.record(took);
        if self.warm.is_some() {
            self.totals.latency.record(took);
        }
    }

    /// Counts bytes that belong to no single answer.
    pub(crate) const fn bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// The harness itself acted so much after the due time.
    pub(crate) fn late(&mut self, by: Duration) {
        if self.warm.is_some() {
            self.totals.late.record(by);
        }
    }

    /// Counts an error by cause.
    pub(crate) fn error(&mut self, cause: &str, example: impl FnOnce() -> String) {
        self.errors += 1;
        self.totals.errors.add(cause, example);
    }

    /// Counts what no correct gateway does. The run fails.
    pub(crate) fn violation(&mut self, kind: &str, example: impl FnOnce() -> String) {
        self.totals.violations.add(kind, example);
    }

    /// Counts something else, by name.
    pub(crate) fn count(&mut self, name: &'static str, count: u64) {
        self.totals.count(name, count);
    }

    /// Publishes the counters. Call it once per round of the worker's loop. Returns false when the
    /// run is over.
    #[must_use]
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        self.gauge.done.store(self.done, Ordering::Relaxed);
        self.gauge.bytes.store(self.bytes, Ordering::Relaxed);
        self.gauge.errors.store(self.errors, Ordering::Relaxed);
        if self.warm.is_none() && self.stop.0.warm.load(Ordering::Relaxed) {
            self.warm = Some((now, thread_cpu()));
        }
        let second = now.saturating_duration_since(self.start).as_secs() as usize;
        if second > self.second {
            self.end_second();
            self.second = second;
        }
        !self.stop.is_set()
    }

    pub(crate) const fn stop(&self) -> &Stop {
        &self.stop
    }

    fn end_second(&mut self) {
        let (done, errors) = self.before_second;
        let interval = Interval {
            group: self.group,
            second: self.second,
            done: self.done - done,
            errors: self.errors - errors,
            latency: self.in_second.clone(),
        };
        // If the main thread is behind, the series lacks a second; the totals have it.
        let _ = self.seconds.try_send(interval);
        self.before_second = (self.done, self.errors);
        self.in_second.clear();
    }

    fn finish(mut self) -> Totals {
        let _ = self.turn(Instant::now());
        self.end_second();
        if let Some((since, cpu)) = self.warm {
            let spent = (thread_cpu().saturating_sub(cpu)).as_secs_f64();
            self.totals.busiest = spent / since.elapsed().as_secs_f64().max(1e-3);
        }
        self.totals
    }
}

/// One second of a group.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    pub(crate) done: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Latency,
}

/// What a group measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) totals: Totals,
    /// Counted after the warm-up, and their bytes.
    pub(crate) done: u64,
    pub(crate) bytes: u64,
    /// Counted in the whole run.
    pub(crate) all: u64,
    pub(crate) series: Vec<Second>,
}

/// What a run measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) groups: Vec<Measured>,
    /// Length of the measurement: from the end of the warm-up to the end of the run.
    pub(crate) seconds: f64,
    pub(crate) interrupted: bool,
    /// CPU of the servers and of the harness in this time.
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) own_cpu: Duration,
    /// CPU of the servers while the connections were opened.
    pub(crate) opening_cpu: Option<Duration>,
    /// Resident memory of the servers before the connections were opened, and at the end.
    pub(crate) resident: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Mark {
    at: Instant,
    done: Vec<(u64, u64)>,
    server_cpu: Duration,
    own_cpu: Duration,
}

/// A worker's thread: it waits for its start and returns its totals.
struct Thread {
    group: usize,
    gauge: Arc<Gauge>,
    go: SyncSender<Start>,
    handle: JoinHandle<Result<Totals>>,
}

/// Runs a plan. `on_open` is called when all connections are open, just before the start.
pub(crate) fn run(plan: Plan, stop: &Stop, on_open: impl FnOnce()) -> Result<Outcome> {
    let mut run = Run::spawn(plan, stop)?;
    on_open();
    run.measure()?;
    run.finish()
}

struct Run {
    stop: Stop,
    plan: Vec<(&'static str, &'static str, Option<u64>)>,
    length: Duration,
    warm_up: Duration,
    servers: Vec<Process>,
    live: Live,
    threads: Vec<Thread>,
    seconds: Receiver<Interval>,
    series: Vec<Vec<Second>>,
    /// At the start, once all connections are open, at the end of the warm-up, and at the end.
    spawned: Mark,
    opened: Mark,
    warm: Option<Mark>,
    end: Option<Mark>,
    resident: Option<u64>,
}

impl Run {
    /// Starts the threads, and waits until all connections are open.
    fn spawn(plan: Plan, stop: &Stop) -> Result<Self> {
        let servers: Vec<Process> = plan.pids.iter().map(|&pid| Process::new(pid)).collect();
        let resident = resident(&servers);
        let count = plan.groups.iter().map(|group| group.workers.len()).sum();
        let (ready, opened) = sync_channel(count);
        let (seconds_in, seconds) = sync_channel(SECONDS_QUEUED_MAX);
        let (mut threads, mut kinds) = (Vec::new(), Vec::new());
        for (
            group,
            Group {
                name,
                unit,
                workers,
                wanted,
            },
        ) in plan.groups.into_iter().enumerate()
        {
            kinds.push((name, unit, wanted));
            for worker in workers {
                let (gauge, ready) = (Arc::new(Gauge::default()), ready.clone());
                let (go, wait) = sync_channel(1);
                let (stop, seconds) = (stop.clone(), seconds_in.clone());
                let meter = (group, stop, Arc::clone(&gauge), seconds);
                let body = move || work(worker, meter, &ready, &wait);
                let handle = std::thread::Builder::new().name(name.into()).spawn(body)?;
                threads.push(Thread {
                    group,
                    gauge,
                    go,
                    handle,
                });
            }
        }
        let mut run = Self {
            stop: stop.clone(),
            series: vec![Vec::new(); kinds.len()],
            plan: kinds,
            length: plan.length,
            warm_up: plan.warm_up,
            spawned: Mark::nothing(),
            opened: Mark::nothing(),
            warm: None,
            end: None,
            servers,
            live: plan.live,
            threads,
            seconds,
            resident,
        };
        run.spawned = run.mark()?;
        for _ in 0..run.threads.len() {
            let opened: Result<()> = opened.recv().context("a worker has stopped")?;
            if let Err(error) = opened {
                stop.set();
                return Err(error);
            }
        }
        if stop.is_interrupted() {
            bail!("interrupted before the run began");
        }
        run.opened = run.mark()?;
        Ok(run)
    }

    fn measure(&mut self) -> Result<()> {
        if self.warm_up.is_zero() {
            self.end_warm_up()?;
        }
        let at = Instant::now();
        let start = Start {
            at,
            at_us: now_us(),
            end: at + self.length,
        };
        for thread in &self.threads {
            thread.go.send(start).context("a worker has stopped")?;
        }
        self.live.begin(self.length);
        loop {
            let now = Instant::now();
            let (done, wanted) = self.progress();
            let share = wanted.map(|wanted| done as f64 / wanted.max(1) as f64);
            let warm = match share {
                Some(share) => share >= 0.1,
                None => now >= at + self.warm_up,
            };
            if warm && self.warm.is_none() {
                self.end_warm_up()?;
            }
            let over = now >= start.end || share.is_some_and(|share| share >= 1.0);
            if over || self.stop.is_set() {
                break;
            }
            // Every worker has ended early: nothing more will come.
            if self
                .threads
                .iter()
                .all(|thread| thread.handle.is_finished())
            {
                break;
            }
            self.take_seconds(LOOK.min(start.end - now));
            let errors = self.errors();
            self.live.show(now - at, share, done, errors, &self.series);
        }
        self.end = Some(self.mark()?);
        self.stop.set();
        self.live.end();
        Ok(())
    }

    fn end_warm_up(&mut self) -> Result<()> {
        self.warm = Some(self.mark()?);
        self.stop.0.warm.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        let mut totals: Vec<Totals> = self.plan.iter().map(|_| Totals::new()).collect();
        let mut all = vec![0; self.plan.len()];
        for thread in std::mem::take(&mut self.threads) {
            drop(thread.go);
            let Ok(ended) = thread.handle.join() else {
                bail!("a thread of the harness has panicked");
            };
            totals[thread.group].add(&ended?);
            all[thread.group] += thread.gauge.done.load(Ordering::Relaxed);
        }
        self.take_seconds(Duration::ZERO);
        let end = self.end.take().expect("it was measured");
        let warm = self.warm.take().unwrap_or_else(|| self.opened.clone());
        let groups = self.plan.iter().zip(totals).enumerate();
        let groups = groups.map(|(index, (&(name, unit, _), totals))| Measured {
            name,
            unit,
            totals,
            done: end.done[index].0 - warm.done[index].0,
            bytes: end.done[index].1 - warm.done[index].1,
            all: all[index],
            series: std::mem::take(&mut self.series[index]),
        });
        let groups = groups.collect();
        let serves = !self.servers.is_empty();
        let grown = resident(&self.servers);
        Ok(Outcome {
            groups,
            seconds: (end.at - warm.at).as_secs_f64(),
            interrupted: self.stop.is_interrupted(),
            server_cpu: serves.then(|| end.server_cpu.saturating_sub(warm.server_cpu)),
            own_cpu: end.own_cpu.saturating_sub(warm.own_cpu),
            opening_cpu: serves.then(|| {
                self.opened
                    .server_cpu
                    .saturating_sub(self.spawned.server_cpu)
            }),
            resident: self.resident.zip(grown),
        })
    }

    /// What is done so far in the groups that have a goal, and that goal; without one, all.
    fn progress(&self) -> (u64, Option<u64>) {
        let wanted: u64 = self.plan.iter().filter_map(|(_, _, wanted)| *wanted).sum();
        let counts = |group: usize| wanted == 0 || self.plan[group].2.is_some();
        let threads = self.threads.iter().filter(|thread| counts(thread.group));
        let done = threads.map(|thread| thread.gauge.done.load(Ordering::Relaxed));
        (done.sum(), (wanted > 0).then_some(wanted))
    }

    fn errors(&self) -> u64 {
        let errors = self.threads.iter();
        errors
            .map(|thread| thread.gauge.errors.load(Ordering::Relaxed))
            .sum()
    }

    fn mark(&self) -> Result<Mark> {
        let mut done = vec![(0, 0); self.plan.len()];
        for thread in &self.threads {
            let sum = &mut done[thread.group];
            sum.0 += thread.gauge.done.load(Ordering::Relaxed);
            sum.1 += thread.gauge.bytes.load(Ordering::Relaxed);
        }
        let mut server_cpu = Duration::ZERO;
        for server in &self.servers {
            server_cpu += server.cpu()?;
        }
        Ok(Mark {
            at: Instant::now(),
            done,
            server_cpu,
            own_cpu: Process::me().cpu()?,
        })
    }

    /// Takes the seconds that workers have finished, waiting for the first at most this long.
    fn take_seconds(&mut self, at_most: Duration) {
        let mut next = match self.seconds.recv_timeout(at_most) {
            Ok(interval) => Some(interval),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(at_most);
                None
            }
        };
        while let Some(interval) = next {
            let series = &mut self.series[interval.group];
            while series.len() <= interval.second {
                series.push(Second {
                    done: 0,
                    errors: 0,
                    latency: Latency::new(),
                });
            }
            let second = &mut series[interval.second];
            second.done += interval.done;
            second.errors += interval.errors;
            second.latency.add(&interval.latency);
            next = self.seconds.try_recv().ok();
        }
    }
}

impl Mark {
    fn nothing() -> Self {
        Self {
            at: Instant::now(),
            done: Vec::new(),
            server_cpu: Duration::ZERO,
            own_cpu: Duration::ZERO,
        }
    }
}

/// Resident memory of all servers, in bytes. `None` if there are none, or if one has ended: `raw`
/// ends with its clients. A server that ends too early is found by its clients, not here.
fn resident(servers: &[Process]) -> Option<u64> {
    if servers.is_empty() {
        return None;
    }
    servers.iter().map(|server| server.resident()).sum()
}

type MeterParts = (usize, Stop, Arc<Gauge>, SyncSender<Interval>);

/// The body of a worker's thread.
fn work(
    mut worker: Box<dyn Worker>,
    (group, stop, gauge, seconds): MeterParts,
    ready: &SyncSender<Result<()>>,
    wait: &Receiver<Start>,
) -> Result<Totals> {
    let opened = worker.open(&stop);
    let failed = opened.is_err();
    let _ = ready.send(opened);
    // The sender is gone if the run does not begin.
    let start = match wait.recv() {
        Ok(start) if !failed => start,
        _ => return Ok(Totals::new()),
    };
    let mut meter = Meter {
        group,
        stop,
        gauge,
        seconds,
        start: start.at,
        second: 0,
        in_second: Latency::new(),
        before_second: (0, 0),
        done: 0,
        bytes: 0,
        errors: 0,
        warm: None,
        totals: Totals::new(),
    };
    worker.run(start, &mut meter)?;
    Ok(meter.finish())
}

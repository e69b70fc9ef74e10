//! Requests over keep-alive connections, in an open loop: request number i is due at the start plus
//! i / rate, whatever became of those before it, and its delay counts from then. If all connections
//! wait for answers, due requests wait too, which their delays show. A closed loop, where a
//! connection sends its next request when it has its answer, is an option: it measures cost, and
//! hides every stall.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::engine::{DRAIN_TIME_MAX, Meter, Start, Stop, Worker};
use crate::http::{Part, Responses, shown};
use crate::net::{Poller, allow_sockets};
use crate::options::Target;
use crate::socket::Socket;

/// Most requests that a connection sends in one write. They fit any socket's buffer.
const PIPELINE_MAX: usize = 128;
/// Most bytes of an answer's body that are kept; the rest is counted.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Most bytes of requests that a connection holds until its socket takes them.
const OUT_BYTES_MAX: usize = 64 << 20;
/// Least time between two attempts to open a connection again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// How requests are sent.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadOptions {
    /// Requests per second. Delays count from the time a request was due.
    #[arg(long, default_value_t = 1000.0, conflicts_with = "closed_loop")]
    pub(crate) rate: f64,
    /// Send the next request of a connection when the last is answered. It shows the cost of a
    /// request; the delays are those of a saturated server and hide its stalls.
    #[arg(long)]
    pub(crate) closed_loop: bool,
    /// Number of keep-alive connections. In an open loop, also the most requests in flight.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Requests that each connection sends at once, before it waits for all their answers.
    #[arg(long, default_value_t = 1, requires = "closed_loop")]
    pub(crate) pipeline: usize,
    /// Seconds to wait for an answer before the connection is closed.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) timeout: f64,
}

impl LoadOptions {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.rate > 0.0 && self.rate <= 10_000_000.0,
            "--rate is more than 0 and at most 10 million"
        );
        ensure!(self.connections > 0, "--connections is at least 1");
        ensure!(
            (1..=PIPELINE_MAX).contains(&self.pipeline),
            "--pipeline is 1 to {PIPELINE_MAX}"
        );
        ensure!(
            self.timeout > 0.0 && self.timeout <= 3600.0,
            "--timeout is more than 0 and at most 3600 seconds"
        );
        allow_sockets(self.connections)
    }
}

/// One request, until it is answered for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Number of the request in the run. Retries have that of their first attempt.
    pub(crate) index: u64,
    pub(crate) key: u64,
    pub(crate) due: Instant,
    /// When its first attempt was due. A request that is sent again has a later `due`.
    pub(crate) made: Instant,
    /// 0 for the first attempt.
    pub(crate) attempt: u32,
    /// The URL it goes to, as an index.
    pub(crate) place: usize,
}

/// An answer to a job.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) fields: &'a Responses,
    /// The first MiB of the body.
    pub(crate) body: &'a [u8],
    /// The connection it came on, of this thread.
    pub(crate) connection: usize,
}

/// What follows from an answer, or from its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The job is done, and its delay is recorded.
    Done,
    /// The job has failed, which was counted.
    Failed,
    /// The job is sent again: after this time, at this URL. Its delay goes on.
    Retry { after: Duration, place: usize },
    /// The job is done, and the same request is sent once more, as a job of its own.
    Again { after: Duration, place: usize },
}

/// The requests of a scenario, and the judgement of their answers. Each thread has its own.
pub(crate) trait Source: Send {
    /// Appends a job's request.
    fn put(&mut self, job: &Job, start: &Start, into: &mut Vec<u8>);
    /// Judges an answer.
    fn on_answer(&mut self, job: &Job, answer: &Answer<'_>, meter: &mut Meter) -> Then;
    /// The connection has failed, or the answer is late. The error has been counted.
    fn on_failure(&mut self, _job: &Job) -> Then {
        Then::Failed
    }
    /// The run is over; jobs without an answer were counted.
    fn on_end(&mut self, _meter: &mut Meter) {}
}

/// Opens connections and drives them, on one thread.
pub(crate) struct Requests<S> {
    target: Arc<Target>,
    load: LoadOptions,
    /// Which of all the connections this thread has, and which thread of how many it is.
    share: std::ops::Range<usize>,
    thread: (usize, usize),
    source: S,
    poller: Poller,
    connections: Vec<Connection>,
    /// Connections without a request, by URL.
    free: Vec<Vec<usize>>,
    /// Jobs that are due and wait for a connection, by URL. Only retries are stored; jobs of the
    /// schedule are a number.
    waiting: Vec<VecDeque<Job>>,
    later: BinaryHeap<Reverse<(Instant, Later)>>,
    /// Number of the next job of the schedule.
    next: u64,
    /// Connections whose socket has not taken all of their requests.
    unsent: Vec<usize>,
    unanswered: u64,
}

/// A job that is sent at a later time, ordered by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Later(Job);

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.index, self.0.attempt).cmp(&(other.0.index, other.0.attempt))
    }
}

#[derive(Debug)]
struct Connection {
    socket: Option<Socket>,
    place: usize,
    responses: Responses,
    /// Requests without an answer, oldest first.
    jobs: VecDeque<Job>,
    sent_at: Instant,
    out: Vec<u8>,
    status: u16,
    body: Vec<u8>,
    body_bytes: u64,
    reopen_at: Instant,
}

impl<S: Source> Requests<S> {
    pub(crate) fn new(
        target: &Arc<Target>,
        load: &LoadOptions,
        share: std::ops::Range<usize>,
        thread: (usize, usize),
        source: S,
    ) -> Result<Self> {
        let places = target.urls.len();
        Ok(Self {
            target: Arc::clone(target),
            load: load.clone(),
            share,
            thread,
            source,
            poller: Poller::new()?,
            connections: Vec::new(),
            free: vec![Vec::new(); places],
            waiting: vec![VecDeque::new(); places],
            later: BinaryHeap::new(),
            next: 0,
            unsent: Vec::new(),
            unanswered: 0,
        })
    }

    /// The job of the schedule with this number on this thread.
    fn scheduled(&self, number: u64, start: &Start) -> Job {
        let (thread, threads) = self.thread;
        let index = number * threads as u64 + thread as u64;
        let due = if self.load.closed_loop {
            Instant::now()
        } else {
            start.at + Duration::from_secs_f64(index as f64 / self.load.rate)
        };
        Job {
            index,
            key: spread(index) % self.target.keys,
            due,
            made: due,
            attempt: 0,
            place: self.target.place(index, 0),
        }
    }

    /// Sends what is due as far as connections are free. Returns when the next job is due.
    fn send_due(&mut self, now: Instant, start: &Start, meter: &mut Meter) -> Instant {
        while self.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, Later(job)))) = self.later.pop() else {
                break;
            };
            self.waiting[job.place].push_back(job);
        }
        for place in 0..self.waiting.len() {
            while let Some(&job) = self.waiting[place].front() {
                let Some(free) = self.take_free(place, now) else {
                    break;
                };
                self.waiting[place].pop_front();
                self.send(free, &[job], start, meter);
            }
        }
        let mut waited = false;
        loop {
            let job = self.scheduled(self.next, start);
            if job.due > now || job.due >= start.end {
                let later = self.later.peek().map(|Reverse((at, _))| *at);
                return later.map_or(job.due, |at| at.min(job.due));
            }
            let Some(free) = self.take_free(job.place, now) else {
                // The job waits for a connection; look again with the next answer.
                return now + REOPEN_PAUSE;
            };
            // Only the harness is late if a connection was free and nothing else was due.
            if !waited {
                meter.late(now - job.due);
            }
            waited = true;
            self.next += 1;
            self.send(free, &[job], start, meter);
        }
    }

    /// A connection without a request, opened again if the server has closed it.
    fn take_free(&mut self, place: usize, now: Instant) -> Option<usize> {
        let name = self.free[place].pop()?;
        let connection = &self.connections[name];
        if connection.socket.is_some() {
            return Some(name);
        }
        if connection.reopen_at > now || self.open_one(name).is_err() {
            self.connections[name].reopen_at = now + REOPEN_PAUSE;
            self.free[place].insert(0, name);
            return None;
        }
        Some(name)
    }

    fn open_one(&mut self, name: usize) -> Result<()> {
        let connection = &mut self.connections[name];
        let url = &self.target.urls[connection.place];
        let socket = self.target.connector.connect(url)?;
        self.poller.add(&socket, name)?;
        connection.responses = Responses::default();
        connection.socket = Some(socket);
        Ok(())
    }

    fn send(&mut self, name: usize, jobs: &[Job], start: &Start, meter: &mut Meter) {
        let connection = &mut self.connections[name];
        connection.out.clear();
        for job in jobs {
            self.source.put(job, start, &mut connection.out);
            connection.jobs.push_back(*job);
        }
        connection.sent_at = Instant::now();
        self.write(name, meter);
    }

    fn write(&mut self, name: usize, meter: &mut Meter) {
        let connection = &mut self.connections[name];
        let Some(socket) = &mut connection.socket else {
            return;
        };
        while !connection.out.is_empty() {
            match socket.write(&connection.out) {
                Ok(taken) => {
                    connection.out.drain(..taken);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.unsent.contains(&name) {
                        self.unsent.push(name);
                    }
                    return;
                }
                // The server has closed the connection. What it answered before is still read.
                Err(error) => {
                    let text = error.to_string();
                    return self.fail(name, "connection closed", &text, meter);
                }
            }
        }
    }

    /// Ends a connection, and with it the jobs that it carried.
    fn fail(&mut self, name: usize, cause: &str, detail: &str, meter: &mut Meter) {
        let connection = &mut self.connections[name];
        connection.socket = None;
        connection.out.clear();
        connection.reopen_at = Instant::now();
        let place = connection.place;
        let jobs = std::mem::take(&mut connection.jobs);
        self.free[place].push(name);
        for job in jobs {
            let url = &self.target.urls[place];
            meter.error(cause, || format!("{}{}: {detail}", url.authority, url.path));
            let then = self.source.on_failure(&job);
            self.follow(job, then);
        }
    }

    fn follow(&mut self, job: Job, then: Then) {
        let now = Instant::now();
        match then {
            Then::Done | Then::Failed => {}
            Then::Retry { after, place } => {
                let attempt = job.attempt + 1;
                let job = Job {
                    attempt,
                    place,
                    ..job
                };
                self.later.push(Reverse((now + after, Later(job))));
            }
            Then::Again { after, place } => {
                let (due, attempt) = (now + after, job.attempt + 1);
                let job = Job {
                    due,
                    attempt,
                    place,
                    ..job
                };
                self.later.push(Reverse((due, Later(job))));
            }
        }
    }

    fn read(&mut self, name: usize, scratch: &mut [u8], start: &Start, meter: &mut Meter) {
        loop {
            let connection = &mut self.connections[name];
            let Some(socket) = &mut connection.socket else {
                return;
            };
            let again = socket.buffers();
            match socket.read(scratch) {
                Ok(0) => {
                    if connection.jobs.is_empty() {
                        connection.socket = None; // An idle connection has timed out.
                        return;
                    }
                    let within = connection.responses.is_within();
                    let detail = if within {
                        "within an answer"
                    } else {
                        "before the answer"
                    };
                    return self.fail(name, "connection closed", detail, meter);
                }
                Ok(len) => {
                    if let Err(error) = self.on_bytes(name, &scratch[..len], start, meter) {
                        let text = format!("{error:#}");
                        return self.fail(name, "malformed answer", &text, meter);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    let text = error.to_string();
                    return self.fail(name, "connection closed", &text, meter);
                }
            }
            if !again {
                return;
            }
        }
    }

    fn on_bytes(
        &mut self,
        name: usize,
        mut input: &[u8],
        start: &Start,
        meter: &mut Meter,
    ) -> Result<()> {
        let now = Instant::now();
        loop {
            let connection = &mut self.connections[name];
            let Some(part) = connection.responses.next(&mut input)? else {
                return Ok(());
            };
            match part {
                Part::Head(100..=199) => {}
                Part::Head(status) => {
                    connection.status = status;
                    connection.body.clear();
                    connection.body_bytes = 0;
                }
                Part::Body(body) => {
                    let room = BODY_BYTES_MAX - connection.body.len();
                    connection
                        .body
                        .extend_from_slice(&body[..body.len().min(room)]);
                    connection.body_bytes += body.len() as u64;
                }
                Part::End if connection.status == 0 => {} // After an interim response.
                Part::End => self.on_end(name, now, start, meter)?,
            }
        }
    }

    /// An answer is complete.
    fn on_end(
        &mut self,
        name: usize,
        now: Instant,
        start: &Start,
        meter: &mut Meter,
    ) -> Result<()> {
        let connection = &mut self.connections[name];
        let Some(job) = connection.jobs.pop_front() else {
            bail!("an answer to no request");
        };
        let answer = Answer {
            status: connection.status,
            fields: &connection.responses,
            body: &connection.body,
            connection: name,
        };
        let then = self.source.on_answer(&job, &answer, meter);
        if matches!(then, Then::Done | Then::Again { .. }) {
            meter.done(
                now.saturating_duration_since(job.due),
                connection.body_bytes,
            );
        }
        connection.status = 0;
        let (idle, closes) = (connection.jobs.is_empty(), connection.responses.closes());
        let place = connection.place;
        self.follow(job, then);
        if closes {
            self.fail(name, "connection closed", "the server announced it", meter);
        } else if idle && self.load.closed_loop {
            self.send_next(name, start, meter);
        } else if idle {
            self.free[place].push(name);
        }
        Ok(())
    }

    /// Sends a connection's next requests in a closed loop.
    fn send_next(&mut self, name: usize, start: &Start, meter: &mut Meter) {
        let place = self.connections[name].place;
        let mut jobs = Vec::with_capacity(self.load.pipeline);
        while jobs.len() < self.load.pipeline {
            let job = match self.waiting[place].pop_front() {
                Some(job) => job,
                None => {
                    let job = self.scheduled(self.next, start);
                    self.next += 1;
                    Job { place, ..job }
                }
            };
            jobs.push(job);
        }
        self.send(name, &jobs, start, meter);
    }

    fn expire(&mut self, now: Instant, meter: &mut Meter) {
        let limit = Duration::from_secs_f64(self.load.timeout);
        for name in 0..self.connections.len() {
            let connection = &self.connections[name];
            if !connection.jobs.is_empty() && now - connection.sent_at > limit {
                let seconds = self.load.timeout;
                self.fail(
                    name,
                    "timeout",
                    &format!("no answer within {seconds} s"),
                    meter,
                );
            }
        }
    }
}

impl<S: Source> Worker for Requests<S> {
    fn open(&mut self, stop: &Stop) -> Result<()> {
        for number in self.share.clone() {
            let name = self.connections.len();
            let place = number % self.target.urls.len();
            self.connections.push(Connection {
                socket: None,
                place,
                responses: Responses::default(),
                jobs: VecDeque::new(),
                sent_at: Instant::now(),
                out: Vec::new(),
                status: 0,
                body: Vec::new(),
                body_bytes: 0,
                reopen_at: Instant::now(),
            });
            self.open_one(name)?;
            self.free[place].push(name);
            if stop.is_set() {
                break;
            }
        }
        Ok(())
    }

    fn run(mut self: Box<Self>, start: Start, meter: &mut Meter) -> Result<()> {
        let mut scratch = vec![0; 256 * 1024];
        let mut names = Vec::new();
        let mut expired_at = start.at;
        if self.load.closed_loop {
            for name in 0..self.connections.len() {
                self.send_next(name, &start, meter);
            }
        }
        loop {
            let now = Instant::now();
            if !meter.turn(now) || now >= start.end {
                break;
            }
            let next = if self.load.closed_loop {
                self.reopen_closed(now, &start, meter)
            } else {
                self.send_due(now, &start, meter)
            };
            self.turn(next, &mut names, &mut scratch, &start, meter)?;
            if now - expired_at > Duration::from_millis(100) {
                expired_at = now;
                self.expire(now, meter);
            }
        }
        self.drain(&mut names, &mut scratch, &start, meter)?;
        self.source.on_end(meter);
        Ok(())
    }
}

impl<S: Source> Requests<S> {
    /// Waits until `next` at most, and handles what has arrived.
    fn turn(
        &mut self,
        next: Instant,
        names: &mut Vec<usize>,
        scratch: &mut [u8],
        start: &Start,
        meter: &mut Meter,
    ) -> Result<()> {
        let wait = next.saturating_duration_since(Instant::now());
        let most = if self.unsent.is_empty() {
            Duration::from_millis(50)
        } else {
            Duration::from_millis(1)
        };
        self.poller.wait(wait.min(most), names)?;
        for name in names.drain(..) {
            self.read(name, scratch, start, meter);
        }
        for name in std::mem::take(&mut self.unsent) {
            self.write(name, meter);
        }
        debug_assert!(
            self.connections
                .iter()
                .all(|it| it.out.len() <= OUT_BYTES_MAX)
        );
        Ok(())
    }

    /// Closed loop: opens connections again that the server has closed.
    fn reopen_closed(&mut self, now: Instant, start: &Start, meter: &mut Meter) -> Instant {
        for place in 0..self.free.len() {
            for name in std::mem::take(&mut self.free[place]) {
                let connection = &mut self.connections[name];
                if connection.socket.is_some() {
                    continue; // At the start: it has sent its first requests.
                }
                if connection.reopen_at > now || self.open_one(name).is_err() {
                    let connection = &mut self.connections[name];
                    connection.reopen_at = now + REOPEN_PAUSE;
                    self.free[place].push(name);
                    continue;
                }
                self.send_next(name, start, meter);
            }
        }
        now + REOPEN_PAUSE
    }

    /// Receives the answers in flight for a while; what is left then was never answered.
    fn drain(
        &mut self,
        names: &mut Vec<usize>,
        scratch: &mut [u8],
        start: &Start,
        meter: &mut Meter,
    ) -> Result<()> {
        let until = Instant::now() + DRAIN_TIME_MAX;
        let open_loop = !self.load.closed_loop;
        self.load.closed_loop = false; // Answers send nothing more.
        while Instant::now() < until && self.in_flight() > 0 && !meter.stop().is_interrupted() {
            self.turn(until, names, scratch, start, meter)?;
        }
        let late = Duration::from_secs_f64(self.load.timeout);
        self.unanswered += self.in_flight();
        if self.unanswered > 0 && late <= DRAIN_TIME_MAX {
            let url = &self.target.urls[0];
            meter.error("timeout", || {
                format!("{} at the end of the run", shown(&url.path))
            });
        }
        meter.count("in_flight_at_end", self.unanswered);
        // Jobs that were due and found no connection: the server was too slow for the rate.
        let due = (start.end - start.at).as_secs_f64() * self.load.rate / self.thread.1 as f64;
        let behind = (due as u64).saturating_sub(self.next);
        if open_loop && !meter.stop().is_interrupted() {
            meter.count("due_and_not_sent", behind);
        }
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        let jobs = self.connections.iter().map(|it| it.jobs.len() as u64);
        jobs.sum()
    }
}

/// Spreads consecutive numbers over all keys (SplitMix64's finalizer).
pub(crate) const fn spread(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

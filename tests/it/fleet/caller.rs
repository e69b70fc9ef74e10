//! A client that sends commands. It writes a request in pieces, waits until its patience ends, and
//! retries at any gateway under the same key until it has a final answer.

use std::collections::VecDeque;
use std::time::Duration;

use sluicegate::model::Instant;
use sluicegate::shard::SocketId;

use super::account::{Account, Kind};
use super::polls::Location;
use super::response::{Reader, Response};
use super::world::World;

/// The command routes of every gateway: name and method.
pub(super) const ROUTES: [(&str, &str); 4] = [
    ("pay", "POST"),
    ("set", "PUT"),
    ("note", "POST"),
    ("drop", "DELETE"),
];

/// Preferences of a command that is sent with one. Anonymous clients get no location under keys as
/// short as the fleet's.
const PREFERENCES: [&str; 2] = [
    "Prefer: respond-async\r\n",
    "Prefer: respond-async, wait=1\r\n",
];
/// How long a caller asks at a location before it sends the command again.
const POLLS_FOR: Duration = Duration::from_secs(5);

/// Sizes of a caller's pipe, in bytes of a response.
const PIPE_BYTES: [usize; 3] = [200, 4_096, 65_536];
const PIPE_BYTES_CALM: usize = 65_536;

/// A client's request. The same key with another path or body is another request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    /// The route, as an index into [`ROUTES`].
    pub(super) route: usize,
    /// The `Idempotency-Key` of the request, if it has one.
    pub(super) key: Option<String>,
    /// The identity of the client. Anonymous if the build can't invent identities.
    pub(super) identity: Option<&'static str>,
    pub(super) path: String,
    pub(super) body: String,
}

impl Request {
    /// Two requests of one route, key and identity have one command key.
    pub(super) fn command(&self) -> (usize, &Option<String>, Option<&'static str>) {
        (self.route, &self.key, self.identity)
    }

    /// What the request asks for, under whatever key.
    pub(super) fn asks(&self) -> (&'static str, &str, &str) {
        (ROUTES[self.route].1, &self.path, &self.body)
    }

    /// `attempt` is copied to the record and is not part of the fingerprint.
    fn bytes(&self, attempt: usize, prefer: &str) -> VecDeque<u8> {
        let (method, path, body) = (ROUTES[self.route].1, &self.path, &self.body);
        let key = self.key.as_ref();
        let key = key.map(|key| format!("Idempotency-Key: \"{key}\"\r\n"));
        let (key, length) = (key.unwrap_or_default(), body.len());
        let identity = self.identity_line();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: fleet\r\nX-Attempt: {attempt}\r\n{key}{identity}{prefer}\
             Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
        .into()
    }

    /// A request for the reply at a location. `waits`: the gateway may keep it for a second.
    fn poll(&self, path: &str, waits: bool) -> VecDeque<u8> {
        let identity = self.identity_line();
        let prefer = if waits { "Prefer: wait=1\r\n" } else { "" };
        format!("GET {path} HTTP/1.1\r\nHost: fleet\r\n{identity}{prefer}\r\n")
            .into_bytes()
            .into()
    }

    fn identity_line(&self) -> String {
        let identity = self.identity;
        let line = identity.map(|name| format!("X-Fleet-Identity: {name}\r\n"));
        line.unwrap_or_default()
    }
}

/// What a caller does after a response.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// The caller has its result.
    Final,
    /// The caller retries the request.
    Again,
    /// The caller asks for the reply at this location.
    Poll(Location),
    /// The caller goes on as before.
    Wait,
}

/// One request that is in flight.
#[derive(Debug)]
struct Try {
    attempt: usize,
    unsent: VecDeque<u8>,
    reader: Reader,
    gives_up: Instant,
}

/// A client that sends commands.
#[derive(Debug, Default)]
pub(super) struct Caller {
    /// Requests to send, the present one first.
    todo: VecDeque<Request>,
    /// Requests that have their result.
    done: Vec<Request>,
    /// Where the present request's reply will be, and until when the caller asks there.
    polling: Option<(Location, Instant)>,
    /// The caller's connection: gateway, shard, socket.
    at: Option<(usize, (usize, SocketId))>,
    trying: Option<Try>,
    /// The gateway of the last attempt.
    last: Option<usize>,
    not_before: Instant,
}

impl Caller {
    pub(super) fn new(todo: VecDeque<Request>) -> Self {
        Self {
            todo,
            ..Self::default()
        }
    }

    /// Sends all answered requests once more.
    pub(super) fn ask_again(&mut self) {
        let answered = std::mem::take(&mut self.done).into_iter();
        self.todo.extend(answered.filter(|it| it.key.is_some()));
    }

    /// Whether no request is left and no connection is open.
    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty() && self.at.is_none()
    }

    /// The gateway process at the other end was killed.
    pub(super) fn on_killed(&mut self, gateway: usize, account: &mut Account, now: Instant) {
        if self.at.is_some_and(|(at, _)| at == gateway) {
            self.at = None;
            self.lose(account, now);
        }
    }

    /// The current attempt will get no response.
    fn lose(&mut self, account: &mut Account, now: Instant) {
        if let Some(lost) = self.trying.take() {
            account.on_lost(lost.attempt, now);
            // Without a key, another attempt would be another command.
            if self.todo.front().is_some_and(|it| it.key.is_none()) {
                self.todo.pop_front();
            }
        }
    }

    /// Closes the caller's connection to its gateway.
    fn leave(&mut self, world: &mut World, account: &mut Account) {
        if let Some((gateway, place)) = self.at.take()
            && let Some(process) = &mut world.gateways[gateway].process
            && let Some(pipe) = process.pipe(place)
        {
            pipe.leave();
        }
        self.lose(account, world.now.mono);
    }

    /// Runs one step of a caller.
    pub(super) fn step(
        &mut self,
        number: usize,
        world: &mut World,
        account: &mut Account,
        storm: bool,
    ) {
        if self.trying.is_some() {
            return self.continue_attempt(world, account, storm);
        }
        if self.todo.is_empty() {
            return self.leave(world, account);
        }
        if world.now.mono < self.not_before || world.random.one_in(3) {
            return;
        }
        self.start(number, world, account, storm);
    }

    fn start(&mut self, number: usize, world: &mut World, account: &mut Account, storm: bool) {
        let Some(mut gateway) = world.any_ready() else {
            return;
        };
        // A retry prefers another gateway.
        if Some(gateway) == self.last && !world.random.one_in(3) {
            gateway = world.any_ready().expect("there was one");
        }
        let kept = self.at.filter(|(at, _)| *at == gateway);
        if kept.is_none() || world.random.one_in(2) {
            self.leave(world, account);
            let process = world.gateways[gateway].process.as_mut();
            let process = process.expect("it is ready");
            let room = *world.random.pick(&PIPE_BYTES);
            // In the calm a large response must arrive before the caller's timeout.
            let room = if storm { room } else { PIPE_BYTES_CALM };
            let place = process.connect(number, room, &mut world.random);
            self.at = Some((gateway, place));
        }
        let request = self.todo.front().expect("something is left");
        let process = (gateway, world.gateways[gateway].life);
        let random = &mut world.random;
        let polling = self.polling.take();
        self.polling = polling.filter(|(_, until)| world.now.mono < *until);
        let foreign = request.key.as_ref().filter(|_| random.one_in(16));
        let foreign = foreign.and_then(|_| account.foreign_location(request, random));
        let own = self.polling.as_ref().map(|(location, _)| location);
        let kind = match (&foreign, own) {
            (Some(_), _) => Kind::Foreign,
            (None, Some(_)) => Kind::Poll,
            (None, None) => Kind::Command,
        };
        let attempt = account.begin(request, kind, process);
        let unsent = match foreign.as_ref().or(own) {
            Some(location) => request.poll(&location.path, random.one_in(2)),
            None if request.key.is_some() && random.one_in(5) => {
                request.bytes(attempt, random.pick::<&str>(&PREFERENCES))
            }
            None => request.bytes(attempt, ""),
        };
        let patience = if storm && world.random.one_in(2) {
            world.random.within(5, 600)
        } else {
            5_000
        };
        self.last = Some(gateway);
        self.trying = Some(Try {
            attempt,
            unsent,
            reader: Reader::default(),
            gives_up: world.now.mono.after(Duration::from_millis(patience)),
        });
    }

    fn continue_attempt(&mut self, world: &mut World, account: &mut Account, storm: bool) {
        let (gateway, place) = self.at.expect("a try has a connection");
        let trying = self.trying.as_mut().expect("it goes on");
        let process = world.gateways[gateway].process.as_mut();
        let process = process.expect("a killed gateway's callers know");
        let Some(pipe) = process.pipe(place) else {
            self.at = None;
            trying.reader.take(process.last_bytes(place).into_iter());
            if let Some(response) = trying.reader.response() {
                let attempt = trying.attempt;
                self.trying = None;
                return self.on_response(attempt, &response, world, account, storm);
            }
            self.lose(account, world.now.mono);
            return self.rest(world);
        };
        let random = &mut world.random;
        if !trying.unsent.is_empty() {
            let some = if random.one_in(3) {
                random.within(1, trying.unsent.len() as u64) as usize
            } else {
                trying.unsent.len()
            };
            let bytes: Vec<u8> = trying.unsent.drain(..some).collect();
            pipe.send(&bytes);
            if trying.unsent.is_empty() {
                account.on_sent(trying.attempt, world.now.mono);
            }
        }
        let waiting = pipe.from_shard.len() as u64;
        if waiting > 0 && !random.one_in(4) {
            let some = random.within(1, waiting) as usize;
            trying.reader.take(pipe.from_shard.drain(..some));
        }
        if let Some(response) = trying.reader.response() {
            let attempt = trying.attempt;
            self.trying = None;
            return self.on_response(attempt, &response, world, account, storm);
        }
        if trying.gives_up <= world.now.mono || storm && random.one_in(80) {
            self.leave(world, account);
            self.rest(world);
        }
    }

    fn on_response(
        &mut self,
        attempt: usize,
        response: &Response,
        world: &mut World,
        account: &mut Account,
        storm: bool,
    ) {
        let verdict = account.on_response(attempt, response, world.now.mono);
        if response.closes {
            self.leave(world, account);
        }
        let request = self.todo.front().expect("it is being asked");
        match verdict {
            // Its answer was lost on the way to the client, which sends the request again.
            Verdict::Final if storm && request.key.is_some() && world.random.one_in(4) => {
                self.polling = None;
            }
            Verdict::Final => {
                self.polling = None;
                self.done.extend(self.todo.pop_front());
            }
            Verdict::Poll(location) => {
                self.polling = Some((location, world.now.mono.after(POLLS_FOR)));
                self.rest(world);
            }
            Verdict::Wait => self.rest(world),
            Verdict::Again if request.key.is_none() => drop(self.todo.pop_front()),
            Verdict::Again => {
                self.polling = None;
                self.rest(world);
            }
        }
    }

    /// Waits before the next attempt.
    fn rest(&mut self, world: &mut World) {
        let millis = world.random.below(100);
        self.not_before = world.now.mono.after(Duration::from_millis(millis));
    }
}

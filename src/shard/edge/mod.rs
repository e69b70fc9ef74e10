//! The clients of a shard: a slab of connections that are plain state machines, served in rotation.
//! No task and no timer of its own belongs to any of them; an idle one is a slot and a small box.

mod answer;
mod body;
mod client;
mod collection;
mod request;
mod responder;
mod serve;
mod stream;
mod transport;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::command::{CommandHeaders, HeaderNames};
use crate::config::{CORS_NAMES_BYTES_MAX, CommandRoute, Config};
use crate::http::{ChunkHead, Cors, HeaderTable, Limits};
use crate::metrics::{AcceptRefusal, CloseReason, ShardMetrics};
use crate::model::{ExchangeId, FastRandom, Instant, Now, ShardId, UnixMillis};
use crate::route::Router;
use crate::tls::{Acceptor, Session};

use super::io::{Io, ListenerId, Part, SocketId};
use super::message::HomeMessage;
use super::outbox::Outbox;
use super::projection::Projections;
use super::random::SecureRandom;
use super::snapshot::Snapshot;
use super::timers::Wheel;
use super::totals::ClientTotals;

use client::{Client, State, Wait, What};
use responder::Responder;
use stream::Stream;
use transport::Transport;

/// The connections of one shard.
#[derive(Debug)]
pub(super) struct Edge {
    me: ShardId,
    snapshot: Arc<Snapshot>,
    router: Router,
    limits: Limits,
    /// For listeners that speak TLS; those before it speak plain HTTP.
    tls: Option<(ListenerId, Acceptor)>,
    slots: Vec<Slot>,
    clients: usize,
    streams: usize,
    /// Streams opened so far.
    opened: u32,
    /// What clients use, summed over all shards of the process.
    totals: Arc<ClientTotals>,
    /// Clients with something to read, to send or to answer, in rotation.
    ready: VecDeque<SocketId>,
    wheel: Wheel,
    due: Vec<SocketId>,
    responder: Responder,
    /// Where delivery goes on.
    deliver_next: usize,
    /// The head of the last chunk of a stream.
    chunk_head: ChunkHead,
    /// Scratch: headers of one request, plaintext of one read, and a piece of a collection.
    table: HeaderTable,
    plain: Vec<u8>,
    piece: Vec<u8>,
    random: SecureRandom,
    jitter: FastRandom,
    /// By command route: the headers of its records.
    records: Vec<CommandHeaders>,
    leaving: Leaving,
}

/// The stages of stopping the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// The process is not stopping.
    No,
    /// `--drain-grace`: requests are executed, and each answer says `Connection: close`.
    Grace,
    /// `--drain`: new requests are refused, and requests in flight are answered until this time.
    Drain(Instant),
}

/// How long an idle connection may still send a request when the process drains. Its request may be
/// a round trip behind, if the connection just came out of the accept queue or was just answered.
/// Such a request is refused. If the connection were closed at once, the client would get no answer
/// to it.
const LAST_REQUEST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Bytes held for a client, by reason.
#[derive(Clone, Copy, Debug, Default)]
struct MemoryUsed {
    /// Parts of requests that are not whole, and what was pipelined behind one that waits.
    requests: usize,
    /// Responses that sockets have not taken.
    responses: usize,
}

/// A place of the reactor's slab, as the edge uses it.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// The number of the slot's next exchange. It only grows, over all connections of the slot.
    next_exchange: u32,
    conn: Conn,
    /// When the wheel wakes it: what fires earlier is an old entry.
    armed: Option<Instant>,
}

/// What a slot holds.
#[derive(Debug, Default)]
enum Conn {
    /// Nothing of the edge's.
    #[default]
    None,
    /// A client between requests and answers.
    Client(Box<Client>),
    /// A client that became an event stream.
    Stream(Stream),
}

/// What the edge may touch while it works: the turn's time, its sockets, what else the shard has.
pub(super) struct EdgeContext<'a, I> {
    pub(super) now: Now,
    pub(super) io: &'a mut I,
    pub(super) projections: &'a mut Projections,
    pub(super) out: &'a mut Outbox,
    pub(super) close: &'a mut Vec<SocketId>,
    pub(super) metrics: &'a mut ShardMetrics,
}

impl Edge {
    pub(super) fn new(
        me: ShardId,
        snapshot: Arc<Snapshot>,
        tls: Option<(ListenerId, Acceptor)>,
        totals: Arc<ClientTotals>,
        mut random: SecureRandom,
        now: Now,
    ) -> Self {
        let config = &snapshot.config;
        let settings = &config.settings;
        let limits = Limits {
            head_bytes_max: settings.http.head_bytes_max,
            headers_max: settings.http.headers_max,
            body_bytes_max: settings.http.body_bytes_max,
            ..Limits::default()
        };
        Self {
            me,
            router: router(config),
            responder: Responder::new(cors(config)),
            limits,
            tls,
            slots: Vec::new(),
            clients: 0,
            streams: 0,
            totals,
            opened: 0,
            ready: VecDeque::new(),
            wheel: Wheel::new(now.mono),
            due: Vec::new(),
            deliver_next: 0,
            chunk_head: ChunkHead::new(0),
            table: HeaderTable::new(),
            plain: Vec::new(),
            piece: Vec::new(),
            jitter: FastRandom::new(random.seed()),
            random,
            records: records(config),
            leaving: Leaving::No,
            snapshot,
        }
    }

    /// Takes over another snapshot's routes. A waiting request keeps what its answer needs.
    pub(super) fn load(&mut self, snapshot: Arc<Snapshot>) {
        let config = &snapshot.config;
        self.router = router(config);
        self.responder.set_cors(cors(config));
        self.records = records(config);
        self.snapshot = snapshot;
    }

    /// The wall time of this turn.
    pub(super) fn set_time(&mut self, wall: UnixMillis) {
        self.responder.set_time(wall);
    }

    /// Clients between requests, or waiting for an answer.
    pub(super) const fn clients(&self) -> usize {
        self.clients
    }

    /// Open event streams.
    pub(super) const fn streams(&self) -> usize {
        self.streams
    }

    /// A client came.
    pub(super) fn on_accepted<I: Io>(
        &mut self,
        socket: SocketId,
        listener: ListenerId,
        _peer: SocketAddr,
        cx: &mut EdgeContext<'_, I>,
    ) {
        cx.metrics.general.connections_accepted.bump();
        let transport = match &self.tls {
            Some((first, acceptor)) if listener.0 >= first.0 => match Session::new(acceptor) {
                Ok(session) => Transport::Tls(Box::new(session)),
                Err(_) => return cx.close.push(socket),
            },
            _ => Transport::Plain,
        };
        let connections_max = self.snapshot.config.settings.http.connections_max;
        if !self.totals.take_connection(connections_max) {
            let general = &mut cx.metrics.general;
            general.connections_closed.bump(CloseReason::Refused);
            general.connections_refused.bump(AcceptRefusal::Connections);
            return cx.close.push(socket);
        }
        let settings = &self.snapshot.config.settings;
        let patience = match transport {
            Transport::Plain => settings.http.idle_timeout,
            Transport::Tls(_) => settings.tls.handshake_timeout,
        };
        let now = cx.now.mono;
        let deadline = now.after(patience);
        let index = socket.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        let exchange = slot.next_exchange;
        let client = Client::new(socket, exchange, transport, now, deadline);
        let mut client = Box::new(client);
        client.queued = true;
        slot.generation = socket.generation;
        slot.conn = Conn::Client(client);
        slot.armed = None;
        self.ready.push_back(socket);
        self.clients += 1;
        self.arm(socket, deadline);
        cx.metrics
            .general
            .connections_open
            .set((self.clients + self.streams) as u64);
    }

    /// Whether the socket is one of the edge's.
    fn slot(&mut self, socket: SocketId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(socket.slot as usize)?;
        (slot.generation == socket.generation).then_some(slot)
    }

    /// Bytes, an end or an error wait on a socket.
    pub(super) fn on_readable<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        match self.slot(socket).map(|slot| &slot.conn) {
            Some(Conn::Client(_)) => self.enqueue(socket),
            Some(Conn::Stream(_)) => self.read_stream(socket, cx),
            Some(Conn::None) | None => {}
        }
    }

    /// A socket takes bytes again.
    pub(super) fn on_writable<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        match self.slot(socket).map(|slot| &slot.conn) {
            Some(Conn::Client(_)) => self.enqueue(socket),
            Some(Conn::Stream(_)) => self.write_stream(socket, cx),
            Some(Conn::None) | None => {}
        }
    }

    /// Puts a client into the rotation, once.
    fn enqueue(&mut self, socket: SocketId) {
        if let Some(Slot {
            conn: Conn::Client(client),
            ..
        }) = self.slot(socket)
            && !std::mem::replace(&mut client.queued, true)
        {
            self.ready.push_back(socket);
        }
    }

    /// Whether clients wait for their turn.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Serves clients in rotation until the part is spent. True: some are left.
    pub(super) fn serve<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        while !self.ready.is_empty() {
            if cx.io.spent(Part::Serve) {
                return true;
            }
            let socket = self.ready.pop_front().expect("not empty");
            if let Some(mut client) = self.take(socket) {
                client.queued = false;
                self.serve_client(client, cx);
            }
        }
        false
    }

    /// Takes a client out of its slot, to work on it; it is put back or closed.
    fn take(&mut self, socket: SocketId) -> Option<Box<Client>> {
        let slot = self.slot(socket)?;
        match std::mem::take(&mut slot.conn) {
            Conn::Client(client) => Some(client),
            other => {
                slot.conn = other;
                None
            }
        }
    }

    /// Takes out the client whose present request is `exchange`; it is put back or closed.
    fn take_exchange(&mut self, exchange: ExchangeId) -> Option<Box<Client>> {
        let slot = self.slots.get_mut(exchange.slot as usize)?;
        match std::mem::take(&mut slot.conn) {
            Conn::Client(client) if client.exchange == exchange.generation => Some(client),
            other => {
                slot.conn = other;
                None
            }
        }
    }

    /// Puts a client back with the deadline of what it is at.
    fn put(&mut self, mut client: Box<Client>) {
        self.count(&mut client);
        let write_timeout = self.write_timeout();
        self.arm(client.socket, client.next_timeout(write_timeout));
        let slot = &mut self.slots[client.socket.slot as usize];
        slot.conn = Conn::Client(client);
    }

    /// Counts what a client makes the shard hold now.
    fn count(&mut self, client: &mut Client) {
        let now = MemoryUsed {
            requests: client.http.kept(),
            responses: client.backlog(),
        };
        let before = std::mem::replace(&mut client.counted, now);
        self.count_held(before, now);
    }

    fn count_held(&self, before: MemoryUsed, now: MemoryUsed) {
        let totals = &self.totals;
        totals.request_bytes.change(before.requests, now.requests);
        totals
            .response_bytes
            .change(before.responses, now.responses);
    }

    /// A client goes, or becomes a stream: nothing is held for it any more.
    fn forget(&mut self, client: &Client) {
        self.count_held(client.counted, MemoryUsed::default());
        self.slots[client.socket.slot as usize].next_exchange = client.exchange.wrapping_add(1);
        self.clients -= 1;
    }

    /// Closes a connection for which nothing is held any more.
    fn close<I: Io>(&self, socket: SocketId, why: CloseReason, cx: &mut EdgeContext<'_, I>) {
        cx.close.push(socket);
        self.totals.connections.give_back();
        let general = &mut cx.metrics.general;
        general.connections_closed.bump(why);
        let open = (self.clients + self.streams) as u64;
        general.connections_open.set(open);
    }

    /// Ends a client that was taken out.
    fn end<I: Io>(
        &mut self,
        mut client: Box<Client>,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        client.transport.close(client.socket, cx.io);
        if let State::Waiting(Wait {
            what: What::Command(key),
            topic,
            ..
        }) = client.state
        {
            let left = HomeMessage::CommandAbandoned {
                topic,
                key,
                exchange: self.exchange(&client),
            };
            cx.out.to_home(self.snapshot.topic(topic).home, left);
        }
        self.forget(&client);
        self.close(client.socket, why, cx);
    }

    /// Wakes a socket at a time, unless it wakes before.
    fn arm(&mut self, socket: SocketId, at: Instant) {
        let slot = &mut self.slots[socket.slot as usize];
        if slot.armed.is_none_or(|armed| at < armed) {
            slot.armed = Some(self.wheel.arm(at, socket));
        }
    }

    /// Deadlines of clients and streams.
    pub(super) fn on_time<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(cx.now.mono, &mut due);
        for socket in due.drain(..) {
            let Some(slot) = self.slot(socket) else {
                continue;
            };
            if slot.armed.is_none_or(|armed| armed > cx.now.mono) {
                continue; // An old entry; a newer one is on the wheel, if any is needed.
            }
            slot.armed = None;
            match slot.conn {
                Conn::Client(_) => self.expire_client(socket, cx),
                Conn::Stream(_) => self.expire_stream(socket, cx),
                Conn::None => {}
            }
        }
        self.due = due;
    }

    fn expire_client<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let Some(client) = self.take(socket) else {
            return;
        };
        match client.next_timeout(self.write_timeout()) <= cx.now.mono {
            true => self.expire(client, cx),
            false => self.put(client),
        }
    }

    /// When [`Self::on_time`] has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// A client's time is up.
    fn expire<I: Io>(&mut self, client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        if client.is_stalled(self.write_timeout(), cx.now.mono) {
            return self.end(client, CloseReason::Timeout, cx);
        }
        match client.state {
            State::Reading if client.http.started() => self.refuse_late(client, cx),
            State::Reading if self.is_leaving() => self.end(client, CloseReason::Drain, cx),
            State::Reading => self.end(client, CloseReason::Timeout, cx),
            State::Draining { .. } | State::Closing => self.end(client, CloseReason::Served, cx),
            State::Waiting(_) | State::Scanning(_) => self.give_up(client, cx),
        }
    }

    /// From now on each answer ends its connection. New requests are still executed.
    pub(super) const fn leave(&mut self) {
        self.leaving = Leaving::Grace;
    }

    /// The state of a connection after an answer that ends it. If the client asked for the end, it
    /// sends no more.
    const fn closing(&self) -> State {
        match self.is_leaving() {
            true => State::draining(),
            false => State::Closing,
        }
    }

    const fn is_leaving(&self) -> bool {
        !matches!(self.leaving, Leaving::No)
    }

    /// Stops accepting work. Every client's socket is read once more, and requests found there are
    /// refused. Waiting clients can get their answer until `until`. Streams end spread over that
    /// time, oldest first.
    pub(super) fn drain<I: Io>(&mut self, until: Instant, cx: &mut EdgeContext<'_, I>) {
        self.leaving = Leaving::Drain(until);
        let mut streams = Vec::new();
        for index in 0..self.slots.len() {
            let Slot {
                generation, conn, ..
            } = &mut self.slots[index];
            let socket = SocketId {
                slot: index as u32,
                generation: *generation,
            };
            match conn {
                Conn::None => {}
                Conn::Stream(stream) => streams.push((stream.opened, socket)),
                Conn::Client(client) => match client.state {
                    State::Reading => {
                        cx.io.recheck(socket);
                        self.enqueue(socket);
                    }
                    State::Waiting(_) | State::Scanning(_) => {
                        client.deadline = client.deadline.min(until);
                        let deadline = client.deadline;
                        self.arm(socket, deadline);
                    }
                    State::Draining { .. } | State::Closing => {}
                },
            }
        }
        streams.sort_unstable_by_key(|(opened, _)| *opened);
        let left = until.since(cx.now.mono);
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
        for (place, (_, socket)) in (0..).zip(streams) {
            // End each stream at a random moment of its own part of the time.
            let part = left / count;
            let within = self.jitter.below(part.as_nanos().max(1) as u64);
            let moment = cx.now.mono.after(part * place);
            let moment = moment.after(std::time::Duration::from_nanos(within));
            self.drain_stream(socket, moment);
        }
    }

    /// The name of a client's present request.
    const fn exchange(&self, client: &Client) -> ExchangeId {
        ExchangeId {
            shard: self.me,
            slot: client.socket.slot,
            generation: client.exchange,
        }
    }
}

const _: () = {
    // The header names that a config may add to a preflight's answer fit beside the gateway's own.
    assert!(CORS_NAMES_BYTES_MAX + 1024 <= Cors::NAMES_BYTES_MAX);
};

fn router(config: &Config) -> Router {
    Router::new(config).expect("routes were checked with the config")
}

/// `None`: pages of other origins may read nothing.
fn cors(config: &Config) -> Option<Cors> {
    let settings = &config.settings.cors;
    let max_age = settings.max_age.as_secs() as u32;
    let origins = &settings.origins;
    (!origins.is_empty()).then(|| {
        let allow: Vec<String> = config.cors_request_headers().into_iter().collect();
        let expose = &settings.expose_headers;
        Cors::new(origins, settings.credentials, max_age, &allow, expose)
            .expect("origins and names were checked with the config")
    })
}

fn records(config: &Config) -> Vec<CommandHeaders> {
    let names = &config.headers;
    let names = HeaderNames {
        correlation_id: names.correlation_id.as_str().into(),
        reply_to: names.reply_to.as_str().into(),
        identity: names.identity.as_str().into(),
        if_match: names.if_match.as_str().into(),
        if_none_match: names.if_none_match.as_str().into(),
        idempotency_key: names.idempotency_key.as_str().into(),
        method: names.method.as_str().into(),
        path: names.path.as_str().into(),
    };
    let headers = |route: &CommandRoute| {
        let set = route.headers.iter().map(|(name, _)| name.as_str());
        CommandHeaders::new(&names, set, route.forward.iter().map(String::as_str))
    };
    config.commands.iter().map(headers).collect()
}

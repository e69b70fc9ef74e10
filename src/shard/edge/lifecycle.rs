//! The edge of a shard: gives what happens to sockets, deadlines, messages and the drain to the
//! part that handles it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{AcceptRefusal, CloseReason};
use crate::model::{ExchangeId, FastRandom, Instant, Now, ShardId, TopicId, UnixMillis};
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, ListenerId, Part, SocketId};
use crate::shard::message::EdgeMessage;
use crate::shard::random::SecureRandom;
use crate::shard::snapshot::Snapshot;
use crate::shard::totals::{ClientTotals, HandshakePlace};
use crate::tls::Acceptor;

use super::answers::Answers;
use super::clients::Clients;
use super::connections::Kind;
use super::context::EdgeContext;
use super::http1::Http1;
use super::leaving::Leaving;
use super::listeners::EdgeListeners;
use super::phase::Phase;
use super::requests::{BecomesStream, Requests};
use super::site::Site;
use super::streams::Streams;
use super::transport::Transport;
use super::turns::Turns;

/// Connections whose timers one turn handles. Thousands may be due at once, after an outage of the
/// network.
const TIMERS_MAX: usize = 256;

/// The clients of one shard.
#[derive(Debug)]
pub(in crate::shard) struct Edge {
    listeners: EdgeListeners,
    turns: Turns,
    requests: Requests,
    answers: Answers,
    streams: Streams,
}

impl Edge {
    pub(in crate::shard) fn new(
        me: ShardId,
        snapshot: Arc<Snapshot>,
        listeners: EdgeListeners,
        totals: Arc<ClientTotals>,
        mut random: SecureRandom,
        now: Now,
    ) -> Self {
        let site = Site::new(snapshot);
        let clients = Clients::new(me, totals, site.http().write_timeout, now.mono);
        Self {
            listeners,
            turns: Turns::new(site, clients),
            streams: Streams::new(FastRandom::new(random.seed())),
            requests: Requests::new(me, random),
            answers: Answers::default(),
        }
    }

    /// Takes over another snapshot's routes. An open exchange keeps what its answer needs.
    pub(in crate::shard) fn load(&mut self, snapshot: Arc<Snapshot>) {
        self.turns.load(Site::new(snapshot));
    }

    /// Accepts TLS clients with this from now on. Open connections keep what they began with.
    pub(in crate::shard) fn set_acceptor(&mut self, acceptor: Acceptor) {
        self.listeners.set_acceptor(acceptor);
    }

    /// Sets the wall time of this turn.
    pub(in crate::shard) fn set_time(&mut self, wall: UnixMillis) {
        self.turns.responder.set_time(wall);
    }

    /// Connections without an event stream.
    pub(in crate::shard) const fn clients(&self) -> usize {
        self.turns.clients.connections.http1()
    }

    /// The number of open event streams.
    pub(in crate::shard) const fn streams(&self) -> usize {
        self.turns.clients.connections.streams()
    }

    /// A client connected. Adds its connection, or closes the socket at `http.connections_max`.
    pub(in crate::shard) fn on_accepted<I: Io>(
        &mut self,
        socket: SocketId,
        listener: ListenerId,
        peer: SocketAddr,
        cx: &mut EdgeContext<'_, I>,
    ) {
        cx.metrics.general.connections_accepted.bump();
        let settings = &self.turns.site.snapshot.config.settings;
        let listeners = &self.listeners;
        if !listeners.admits(listener, peer.ip(), &settings.proxies) {
            return refuse(socket, AcceptRefusal::Proxy, cx);
        }
        let Some(transport) = listeners.transport(listener, false, cx.now) else {
            return cx.close.push(socket);
        };
        let totals = self.turns.clients.connections.totals();
        let is_proxied = listeners.has_proxy_header(listener);
        let mut handshake = None;
        if is_proxied || matches!(transport, Transport::Tls(_)) {
            handshake = HandshakePlace::take(totals, settings.tls.handshakes_max);
            if handshake.is_none() {
                return refuse(socket, AcceptRefusal::Handshakes, cx);
            }
        }
        if !totals.take_connection(settings.http.connections_max) {
            return refuse(socket, AcceptRefusal::Connections, cx);
        }
        let patience = match transport {
            Transport::Plain if !is_proxied => settings.http.idle_timeout,
            Transport::Plain | Transport::Tls(_) => settings.tls.handshake_timeout,
        };
        let now = cx.now.mono;
        let mut http1 = Box::new(Http1::new(
            (socket, peer.ip()),
            transport,
            now,
            now.after(patience),
        ));
        if let Some(place) = handshake {
            http1.begin_handshake(place);
        }
        if is_proxied {
            http1.expect_proxy_header();
        }
        self.turns.clients.connections.add(http1, cx.metrics);
    }

    /// Bytes, an end or an error wait on a socket.
    pub(in crate::shard) fn on_readable<I: Io>(
        &mut self,
        socket: SocketId,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match self.turns.clients.connections.kind(socket) {
            Some(Kind::Http1) => self.turns.clients.connections.enqueue(socket),
            Some(Kind::Stream) => {
                self.streams
                    .on_readable(socket, &mut self.turns.clients, cx);
            }
            None => {}
        }
    }

    /// A socket takes bytes again.
    pub(in crate::shard) fn on_writable<I: Io>(
        &mut self,
        socket: SocketId,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match self.turns.clients.connections.kind(socket) {
            Some(Kind::Http1) => self.turns.clients.connections.enqueue(socket),
            Some(Kind::Stream) => {
                self.streams
                    .on_writable(socket, &mut self.turns.clients, cx);
            }
            None => {}
        }
    }

    /// Sends what is pending to streams, until the part is spent. Returns true if some is left.
    #[must_use]
    pub(in crate::shard) fn deliver<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        self.streams.deliver(&mut self.turns.clients, cx)
    }

    /// Ends the streams of a topic that was re-created or cut back. Each client resumes by its id.
    pub(in crate::shard) fn end_streams_of(&mut self, topic: TopicId) {
        self.streams.end_topic(topic);
    }

    /// Whether connections wait to be served.
    pub(in crate::shard) fn has_ready(&self) -> bool {
        self.turns.clients.connections.has_ready()
    }

    /// Serves clients in rotation until the part is spent. Returns true if some are left.
    #[must_use]
    pub(in crate::shard) fn serve<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        while self.turns.clients.connections.has_ready() {
            if cx.io.spent(Part::Serve) {
                return true;
            }
            if let Some(Some(http1)) = self.turns.clients.connections.next_ready() {
                self.serve_client(http1, cx);
            }
        }
        false
    }

    fn serve_client<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        let turns = &mut self.turns;
        match http1.flush(cx.io, cx.now.mono) {
            Flushed::All => {}
            Flushed::Part => return turns.put(http1),
            Flushed::Gone => return turns.close(http1, CloseReason::Client, cx),
        }
        match http1.phase() {
            Phase::Closing => turns.close(http1, CloseReason::Served, cx),
            Phase::Waiting => turns.check_waiting(http1, cx),
            Phase::Sending => self.answers.send_pages(http1, turns, cx),
            Phase::Discarding | Phase::Lingering => turns.discard(http1, cx),
            Phase::Reading => {
                if let Some(BecomesStream { http1, start }) = self.requests.read(http1, turns, cx) {
                    self.streams.start(http1, &start, turns, cx);
                }
            }
        }
    }

    /// Handles what another shard sends to an exchange. The exchange may be closed already.
    pub(in crate::shard) fn on_message<I: Io>(
        &mut self,
        exchange: ExchangeId,
        message: EdgeMessage,
        cx: &mut EdgeContext<'_, I>,
    ) {
        self.answers
            .on_message(exchange, message, &mut self.turns, cx);
    }

    /// Handles deadlines of connections and of the drain.
    pub(in crate::shard) fn on_time<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        let now = cx.now.mono;
        self.turns.clients.connections.expire(now);
        for _ in 0..TIMERS_MAX {
            let Some(socket) = self.turns.clients.connections.next_due(now) else {
                break;
            };
            match self.turns.clients.connections.kind(socket) {
                Some(Kind::Http1) => self.on_timer(socket, cx),
                Some(Kind::Stream) => {
                    self.streams.on_timer(socket, &mut self.turns.clients, cx);
                }
                None => {}
            }
        }
        self.streams.on_time(&mut self.turns.clients, cx);
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
    pub(in crate::shard) fn next_deadline(&self) -> Option<Instant> {
        let streams = self.streams.next_deadline();
        self.turns
            .clients
            .connections
            .next_deadline()
            .into_iter()
            .chain(streams)
            .min()
    }

    fn on_timer<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let (write_timeout, now) = (self.turns.clients.connections.write_timeout(), cx.now.mono);
        let Some(http1) = self.turns.clients.connections.take(socket) else {
            return;
        };
        if http1.next_timeout(write_timeout) > now {
            return self.turns.clients.connections.put(http1);
        }
        if http1.is_stalled(write_timeout, now) {
            return self.turns.close(http1, CloseReason::Timeout, cx);
        }
        match http1.phase() {
            Phase::Reading if http1.has_started_request() => self.turns.refuse_late(http1, cx),
            Phase::Reading if self.turns.leaving.has_begun() => {
                self.turns.close(http1, CloseReason::Drain, cx);
            }
            Phase::Reading => self.turns.close(http1, CloseReason::Timeout, cx),
            Phase::Discarding | Phase::Lingering | Phase::Closing => {
                self.turns.close(http1, CloseReason::Served, cx);
            }
            Phase::Waiting | Phase::Sending => self.answers.give_up(http1, &mut self.turns, cx),
        }
    }

    /// From now on each answer ends its connection. New requests are still executed.
    pub(in crate::shard) const fn leave(&mut self) {
        self.turns.leaving = Leaving::Grace;
    }

    /// Stops accepting work. Every client's socket is read once more, and requests found there are
    /// refused. Waiting clients can get their answer until `until`. Streams end spread over that
    /// time, oldest first.
    pub(in crate::shard) fn drain<I: Io>(&mut self, until: Instant, cx: &mut EdgeContext<'_, I>) {
        self.turns.leaving = Leaving::Drain(until);
        for socket in self.turns.clients.connections.http1_sockets() {
            let Some(mut http1) = self.turns.clients.connections.take(socket) else {
                continue;
            };
            let reads = http1.phase() == Phase::Reading;
            if http1.phase().has_exchange() {
                http1.limit_deadline(until);
            }
            self.turns.clients.connections.put(http1);
            if reads {
                cx.io.recheck(socket);
                self.turns.clients.connections.enqueue(socket);
            }
        }
        self.streams
            .drain(until, &self.turns.clients.connections, cx.now.mono);
    }
}

/// Closes a connection before a byte is read.
fn refuse<I>(socket: SocketId, why: AcceptRefusal, cx: &mut EdgeContext<'_, I>) {
    let general = &mut cx.metrics.general;
    general.connections_closed.bump(CloseReason::Refused);
    general.connections_refused.bump(why);
    cx.close.push(socket);
}

//! The edge of a shard: gives what happens to sockets, deadlines, messages and the drain to the
//! part that handles it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{AcceptRefusal, CloseReason, StreamEnd};
use crate::model::{ExchangeId, FastRandom, Instant, Now, ShardId, TopicId, UnixMillis};
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, ListenerId, Part, SocketId};
use crate::shard::message::EdgeMessage;
use crate::shard::random::SecureRandom;
use crate::shard::snapshot::Snapshot;
use crate::shard::totals::{ClientTotals, HandshakePlace};
use crate::tls::Acceptor;

use super::answers::Answers;
use super::clients::{Asker, Clients};
use super::connections::{Kind, Ready};
use super::context::EdgeContext;
use super::http1::Http1;
use super::http2_turns::Http2Turns;
use super::leaving::Leaving;
use super::listeners::EdgeListeners;
use super::phase::Phase;
use super::requests::{Becomes, Requests};
use super::site::Site;
use super::streams::Streams;
use super::transport::Transport;
use super::trust::TrustSweep;
use super::turns::{AddressFull, Turns};

/// Connections whose timers one turn handles. Thousands may be due at once, after an outage of the
/// network.
const TIMERS_MAX: usize = 256;

/// The clients of one shard.
#[derive(Debug)]
pub(in crate::shard) struct Edge {
    listeners: EdgeListeners,
    trust: TrustSweep,
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
            trust: TrustSweep::default(),
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

    /// Accepts TLS clients with this from now on. Open connections keep what they began with,
    /// except those of clients whose certificate is not trusted any more: they are closed.
    pub(in crate::shard) fn set_acceptor(&mut self, acceptor: Acceptor, now: Instant) {
        self.listeners.set_acceptor(acceptor);
        let tls = &self.turns.site.snapshot.config.settings.tls;
        self.trust.begin(now, tls.handshake_timeout);
    }

    /// Closes some of the connections whose client certificate is not trusted any more.
    fn close_untrusted<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        let Some(from) = self.trust.next(cx.now.mono) else {
            return;
        };
        let (listeners, now) = (&self.listeners, cx.now);
        let connections = &self.turns.clients.connections;
        let is_trusted = |session: &_| listeners.trusts(session, now);
        let (untrusted, next) = connections.untrusted(from, is_trusted);
        self.trust.continue_at(next);
        for socket in untrusted {
            let connections = &mut self.turns.clients.connections;
            match connections.kind(socket) {
                Some(Kind::Http1) => {
                    if let Some(http1) = connections.take(socket) {
                        self.turns.close(http1, CloseReason::Refused, cx);
                    }
                }
                Some(Kind::Stream) => {
                    let ending = (StreamEnd::Revoked, CloseReason::Refused);
                    let clients = &mut self.turns.clients;
                    self.streams.close(socket, ending, clients, cx);
                }
                Some(Kind::Http2) => self.http2().revoke(socket, cx),
                None => {}
            }
        }
    }

    /// Sets the wall time of this turn.
    pub(in crate::shard) fn set_time(&mut self, wall: UnixMillis) {
        self.turns.responder.set_time(wall);
    }

    /// Connections without an event stream.
    pub(in crate::shard) const fn clients(&self) -> usize {
        self.turns.clients.connections.serving()
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
        let totals = self.turns.clients.connections.totals();
        // At the limit, TLS clients choose HTTP/1.1.
        let http2 = &settings.http2;
        let offers_http2 = http2.enabled && totals.http2.get() < http2.connections_max;
        let Some(transport) = listeners.transport(listener, offers_http2, cx.now) else {
            return cx.close.push(socket);
        };
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
        let address = peer.ip();
        let client = match self.turns.take_address(address) {
            Ok(client) => client,
            Err(AddressFull) => {
                self.turns
                    .clients
                    .connections
                    .totals()
                    .give_back_connection();
                return refuse(socket, AcceptRefusal::Address, cx);
            }
        };
        let patience = match transport {
            Transport::Plain if !is_proxied => settings.http.idle_timeout,
            Transport::Plain | Transport::Tls(_) => settings.tls.handshake_timeout,
        };
        let now = cx.now.mono;
        let may_have_preface = http2.enabled && matches!(transport, Transport::Plain);
        let mut http1 = Box::new(Http1::new(
            (socket, address),
            transport,
            now,
            now.after(patience),
        ));
        if may_have_preface {
            http1.expect_preface();
        }
        if let Some(place) = handshake {
            http1.begin_handshake(place);
        }
        if is_proxied {
            http1.expect_proxy_header();
        }
        let connections = &mut self.turns.clients.connections;
        connections.add(http1, client, cx.metrics);
    }

    /// Bytes, an end or an error wait on a socket.
    pub(in crate::shard) fn on_readable<I: Io>(
        &mut self,
        socket: SocketId,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match self.turns.clients.connections.kind(socket) {
            Some(Kind::Http1 | Kind::Http2) => self.turns.clients.connections.enqueue(socket),
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
            Some(Kind::Http1 | Kind::Http2) => self.turns.clients.connections.enqueue(socket),
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
        let more = self.streams.deliver(&mut self.turns.clients, cx);
        self.flush_http2(cx) || more
    }

    /// Sends what streams of HTTP/2 have given to their connections in this turn, each connection
    /// once, until the part is spent. Returns true if some are left.
    #[must_use]
    fn flush_http2<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        while self.turns.clients.connections.has_sending() {
            self.http2().flush_next(cx);
            if cx.io.spent(Part::Deliver) {
                return true;
            }
        }
        false
    }

    fn http2(&mut self) -> Http2Turns<'_> {
        Http2Turns {
            requests: &mut self.requests,
            answers: &mut self.answers,
            streams: &mut self.streams,
            turns: &mut self.turns,
        }
    }

    /// Ends the streams of a topic that was re-created or cut back. Each client resumes by its id.
    pub(in crate::shard) fn end_streams_of(&mut self, topic: TopicId) {
        self.streams.end_topic(topic);
    }

    /// Whether connections wait to be served.
    pub(in crate::shard) fn has_ready(&self) -> bool {
        let connections = &self.turns.clients.connections;
        connections.has_ready() || connections.has_sending()
    }

    /// Serves clients in rotation until the part is spent. Returns true if some are left.
    #[must_use]
    pub(in crate::shard) fn serve<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        // One handshake a turn, and always one: neither do clients wait for many of them, nor do
        // handshakes wait for a turn without requests.
        if let Some(http1) = self.turns.clients.connections.next_handshake() {
            self.serve_client(http1, cx);
        }
        while !cx.io.spent(Part::Serve) {
            match self.turns.clients.connections.next_ready() {
                Some(Ready::Http1(http1)) => self.serve_client(http1, cx),
                Some(Ready::Http2(http2)) => self.http2().serve(http2, cx),
                Some(Ready::Closed) => {}
                None => break,
            }
        }
        let panics = self.turns.responder.take_panics();
        cx.metrics.general.connection_panics.add(panics);
        if self.turns.clients.connections.has_ready() {
            return true;
        }
        self.turns.gzip.step();
        self.turns.gzip.has_work()
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
            Phase::Sending => match http1.exchange() {
                Some(id) => {
                    let deadline = http1.deadline();
                    let asker = Asker::Http1(http1);
                    self.answers.send_pages(asker, id, deadline, turns, cx);
                }
                // Without a collection no page can complete the body: its client sees that it was
                // cut.
                None => turns.close(http1, CloseReason::Refused, cx),
            },
            Phase::Discarding | Phase::Lingering => turns.discard(http1, cx),
            Phase::Reading => match self.requests.read(http1, turns, cx) {
                None => {}
                Some(Becomes::Stream(http1, start)) => {
                    self.streams.start(http1, &start, turns, cx);
                }
                Some(Becomes::Http2(http1, begins)) => self.http2().begin(http1, &begins, cx),
            },
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
                Some(Kind::Http2) => self.http2().on_timer(socket, cx),
                None => {}
            }
        }
        self.streams.on_time(&mut self.turns.clients, cx);
        self.close_untrusted(cx);
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
    pub(in crate::shard) fn next_deadline(&self) -> Option<Instant> {
        let all = [
            self.turns.clients.connections.next_deadline(),
            self.streams.next_deadline(),
            self.trust.next_deadline(),
        ];
        all.into_iter().flatten().min()
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
            Phase::Waiting | Phase::Sending => match http1.exchange() {
                Some(id) => {
                    self.turns.put(http1);
                    self.answers.give_up(id, &mut self.turns, cx);
                }
                // Without an open exchange nothing can answer the client.
                None => self.turns.close(http1, CloseReason::Timeout, cx),
            },
        }
    }

    /// From now on each answer ends its connection. New requests are still executed.
    pub(in crate::shard) fn leave(&mut self) {
        self.turns.leaving = Leaving::Grace;
        let connections = &mut self.turns.clients.connections;
        if connections.http2() == 0 {
            return;
        }
        // Clients of HTTP/2 are told by a frame, at once and not with their next answer.
        for socket in connections.serving_sockets() {
            if connections.kind(socket) == Some(Kind::Http2) {
                connections.enqueue(socket);
            }
        }
    }

    /// Stops accepting work. Every client's socket is read once more, and requests found there are
    /// refused. Waiting clients can get their answer until `until`. Streams end spread over that
    /// time, oldest first.
    pub(in crate::shard) fn drain<I: Io>(&mut self, until: Instant, cx: &mut EdgeContext<'_, I>) {
        self.turns.leaving = Leaving::Drain(until);
        for socket in self.turns.clients.connections.serving_sockets() {
            self.http2().drain(socket, until);
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

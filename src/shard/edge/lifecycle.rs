//! The edge of a shard: what happens to its clients' sockets, deadlines and drain. How a client's
//! requests are served is in `serve.rs`, how exchanges are answered in `answers.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::http::HeaderTable;
use crate::metrics::{AcceptRefusal, CloseReason};
use crate::model::{ExchangeId, FastRandom, Instant, Now, ShardId, TopicId, UnixMillis};
use crate::shard::io::{Io, ListenerId, SocketId};
use crate::shard::message::{HomeMessage, ProjectionMessage};
use crate::shard::random::SecureRandom;
use crate::shard::snapshot::Snapshot;
use crate::shard::totals::ClientTotals;
use crate::tls::{Acceptor, Session};

use super::commands::CommandMaker;
use super::connections::{Connections, Kind};
use super::context::EdgeContext;
use super::exchanges::{Exchanges, Wants};
use super::http1::Http1;
use super::leaving::Leaving;
use super::phase::Phase;
use super::responder::Responder;
use super::site::Site;
use super::streams::{Clients, Streams};
use super::transport::Transport;

/// The clients of one shard.
#[derive(Debug)]
pub(in crate::shard) struct Edge {
    pub(super) me: ShardId,
    pub(super) site: Site,
    /// For listeners that speak TLS; those before it speak plain HTTP.
    tls: Option<(ListenerId, Acceptor)>,
    pub(super) connections: Connections,
    pub(super) exchanges: Exchanges,
    pub(super) streams: Streams,
    pub(super) responder: Responder,
    pub(super) commands: CommandMaker,
    pub(super) leaving: Leaving,
    /// Scratch: the headers of one request, the plaintext of one read, a piece of a collection.
    pub(super) table: HeaderTable,
    pub(super) plain: Vec<u8>,
    pub(super) piece: Vec<u8>,
}

impl Edge {
    pub(in crate::shard) fn new(
        me: ShardId,
        snapshot: Arc<Snapshot>,
        tls: Option<(ListenerId, Acceptor)>,
        totals: Arc<ClientTotals>,
        mut random: SecureRandom,
        now: Now,
    ) -> Self {
        let site = Site::new(snapshot);
        Self {
            me,
            tls,
            connections: Connections::new(totals, site.http().write_timeout, now.mono),
            exchanges: Exchanges::new(me),
            streams: Streams::new(FastRandom::new(random.seed())),
            responder: Responder::new(site.cors()),
            commands: CommandMaker::new(random),
            leaving: Leaving::No,
            table: HeaderTable::new(),
            plain: Vec::new(),
            piece: Vec::new(),
            site,
        }
    }

    /// Takes over another snapshot's routes. An open exchange keeps what its answer needs.
    pub(in crate::shard) fn load(&mut self, snapshot: Arc<Snapshot>) {
        self.site = Site::new(snapshot);
        self.responder.set_cors(self.site.cors());
    }

    /// Sets the wall time of this turn.
    pub(in crate::shard) fn set_time(&mut self, wall: UnixMillis) {
        self.responder.set_time(wall);
    }

    /// Connections without an event stream.
    pub(in crate::shard) const fn clients(&self) -> usize {
        self.connections.http1()
    }

    /// The number of open event streams.
    pub(in crate::shard) const fn streams(&self) -> usize {
        self.connections.streams()
    }

    /// The streams, with the clients that they work on.
    pub(super) const fn split(&mut self) -> (&mut Streams, Clients<'_>) {
        let (connections, exchanges) = (&mut self.connections, &mut self.exchanges);
        let clients = Clients {
            connections,
            exchanges,
        };
        (&mut self.streams, clients)
    }

    /// A client connected. Adds its connection, or closes the socket at `http.connections_max`.
    pub(in crate::shard) fn on_accepted<I: Io>(
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
        let settings = &self.site.snapshot.config.settings;
        let totals = self.connections.totals();
        if !totals.take_connection(settings.http.connections_max) {
            let general = &mut cx.metrics.general;
            general.connections_closed.bump(CloseReason::Refused);
            general.connections_refused.bump(AcceptRefusal::Connections);
            return cx.close.push(socket);
        }
        let patience = match transport {
            Transport::Plain => settings.http.idle_timeout,
            Transport::Tls(_) => settings.tls.handshake_timeout,
        };
        let now = cx.now.mono;
        let http1 = Box::new(Http1::new(socket, transport, now, now.after(patience)));
        self.connections.add(http1, cx.metrics);
    }

    /// Bytes, an end or an error wait on a socket.
    pub(in crate::shard) fn on_readable<I: Io>(
        &mut self,
        socket: SocketId,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match self.connections.kind(socket) {
            Some(Kind::Http1) => self.connections.enqueue(socket),
            Some(Kind::Stream) => {
                let (streams, mut clients) = self.split();
                streams.on_readable(socket, &mut clients, cx);
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
        match self.connections.kind(socket) {
            Some(Kind::Http1) => self.connections.enqueue(socket),
            Some(Kind::Stream) => {
                let (streams, mut clients) = self.split();
                streams.on_writable(socket, &mut clients, cx);
            }
            None => {}
        }
    }

    /// Sends what is pending to streams, until the part is spent. Returns true if some is left.
    #[must_use]
    pub(in crate::shard) fn deliver<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        let (streams, mut clients) = self.split();
        streams.deliver(&mut clients, cx)
    }

    /// Ends every stream of a topic that was re-created or cut back. Each client resumes by its id.
    pub(in crate::shard) fn end_streams_of<I: Io>(
        &mut self,
        topic: TopicId,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let (streams, mut clients) = self.split();
        streams.end_topic(topic, &mut clients, cx);
    }

    /// Whether connections wait to be served.
    pub(in crate::shard) fn has_ready(&self) -> bool {
        self.connections.has_ready()
    }

    /// Closes a connection that was taken out, and cancels its exchange.
    pub(super) fn close<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        http1.close(cx.io);
        if let Some(exchange) = http1.exchange() {
            self.cancel(exchange, cx);
        }
        let (close, metrics) = (&mut *cx.close, &mut *cx.metrics);
        self.connections.close(&http1, why, close, metrics);
    }

    /// Cancels an exchange whose client has disconnected: its place at the home or the slice is
    /// freed at once. A command that was produced stays in flight.
    fn cancel<I: Io>(&mut self, id: ExchangeId, cx: &mut EdgeContext<'_, I>) {
        let Some(request) = self.exchanges.close_request(id) else {
            return;
        };
        match request.wants {
            Wants::Outcome(key) => {
                let home = self.site.snapshot.topic(request.topic).home;
                let cancel = HomeMessage::CancelCommand {
                    topic: request.topic,
                    key,
                    exchange: id,
                };
                cx.out.to_home(home, cancel);
            }
            Wants::Record { owner, .. } => {
                let cancel = ProjectionMessage::Cancel(id);
                cx.out.to_projection(owner, request.topic, cancel);
            }
            Wants::Pages(collection) => collection.cancel(id, cx.out),
        }
    }

    /// Handles deadlines of connections and of the drain.
    pub(in crate::shard) fn on_time<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        let now = cx.now.mono;
        self.connections.expire(now);
        while let Some(socket) = self.connections.next_due(now) {
            match self.connections.kind(socket) {
                Some(Kind::Http1) => self.on_timer(socket, cx),
                Some(Kind::Stream) => {
                    let (streams, mut clients) = self.split();
                    streams.on_timer(socket, &mut clients, cx);
                }
                None => {}
            }
        }
        let (streams, mut clients) = self.split();
        streams.on_time(&mut clients, cx);
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
    pub(in crate::shard) fn next_deadline(&self) -> Option<Instant> {
        let streams = self.streams.next_deadline();
        self.connections
            .next_deadline()
            .into_iter()
            .chain(streams)
            .min()
    }

    fn on_timer<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let (write_timeout, now) = (self.connections.write_timeout(), cx.now.mono);
        let Some(http1) = self.connections.take(socket) else {
            return;
        };
        if http1.next_timeout(write_timeout) > now {
            return self.connections.put(http1);
        }
        if http1.is_stalled(write_timeout, now) {
            return self.close(http1, CloseReason::Timeout, cx);
        }
        match http1.phase() {
            Phase::Reading if http1.has_started_request() => self.refuse_late(http1, cx),
            Phase::Reading if self.leaving.has_begun() => {
                self.close(http1, CloseReason::Drain, cx);
            }
            Phase::Reading => self.close(http1, CloseReason::Timeout, cx),
            Phase::Discarding | Phase::Lingering | Phase::Closing => {
                self.close(http1, CloseReason::Served, cx);
            }
            Phase::Waiting | Phase::Sending => self.give_up(http1, cx),
        }
    }

    /// From now on each answer ends its connection. New requests are still executed.
    pub(in crate::shard) const fn leave(&mut self) {
        self.leaving = Leaving::Grace;
    }

    /// Stops accepting work. Every client's socket is read once more, and requests found there are
    /// refused. Waiting clients can get their answer until `until`. Streams end spread over that
    /// time, oldest first.
    pub(in crate::shard) fn drain<I: Io>(&mut self, until: Instant, cx: &mut EdgeContext<'_, I>) {
        self.leaving = Leaving::Drain(until);
        for socket in self.connections.http1_sockets() {
            let Some(mut http1) = self.connections.take(socket) else {
                continue;
            };
            let reads = http1.phase() == Phase::Reading;
            if http1.phase().has_exchange() {
                http1.limit_deadline(until);
            }
            self.connections.put(http1);
            if reads {
                cx.io.recheck(socket);
                self.connections.enqueue(socket);
            }
        }
        self.streams.drain(until, &self.connections, cx.now.mono);
    }
}

//! Event streams: how they begin and end, and the rotation in which their feeds send. What a stream
//! is sent, and from where, is the feed's business.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Streams as Settings;
use crate::http::{
    ChunkHead, EVENT_STREAM, Framed, NO_BUFFERING, PASS_THROUGH, Response, StatusCode,
};
use crate::metrics::{CloseReason, StreamEnd};
use crate::model::{ExchangeId, FastRandom, Id as _, Instant, TopicId, millis};
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, Part, SocketId};
use crate::sse::{Delivery, Feed, Filter, Slow, StartFrom, Subscribe};

use super::body::Body;
use super::clients::Clients;
use super::connections::Connections;
use super::context::EdgeContext;
use super::handlers::StreamStart;
use super::http1::Http1;
use super::site::Site;
use super::stream_connection::{Heard, Stream, StreamConnection};
use super::turns::Turns;

/// Why a stream and its connection end.
type Ending = (StreamEnd, CloseReason);

/// The streams of one shard. The state of each is with its connection.
#[derive(Debug)]
pub(super) struct Streams {
    /// Streams opened so far, which numbers them by arrival (wraps around).
    opened: u32,
    /// The head of the last chunk that was sent. A record's chunk has the same head in every
    /// stream.
    chunk_head: ChunkHead,
    jitter: FastRandom,
    /// When the drain ends which stream, the next one first.
    drain: VecDeque<(Instant, SocketId)>,
    /// Topics whose streams are being ended, each at most once.
    ended: VecDeque<EndedTopic>,
}

/// Streams that one turn ends because their topic was re-created or cut back, and the connections
/// that it looks at for them. Each end writes to a socket.
const ENDS_MAX: usize = 64;
const ENDS_LOOKED_AT_MAX: usize = 4096;

/// An incarnation of a topic that has ended, and how many connections were looked at.
#[derive(Clone, Copy, Debug)]
struct EndedTopic {
    topic: TopicId,
    /// The number of the first stream that may belong to a later incarnation.
    before: u32,
    looked_at: usize,
}

impl EndedTopic {
    fn has(&self, stream: &Stream) -> bool {
        // The numbers wrap around: of two, the one that is less than half a round behind is older.
        let age = self.before.wrapping_sub(stream.opened);
        let is_older = (1..=u32::MAX / 2).contains(&age);
        stream.topic == self.topic && is_older && stream.ending.is_none()
    }
}

impl Streams {
    pub(super) const fn new(jitter: FastRandom) -> Self {
        Self {
            opened: 0,
            chunk_head: ChunkHead::new(0),
            jitter,
            drain: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    /// The delay in milliseconds after which a refused client should reconnect. Random, so that the
    /// clients do not all reconnect at once.
    fn retry_later(&mut self, settings: &Settings) -> u64 {
        let base = millis(settings.retry);
        base + self.jitter.below(base.max(1))
    }

    /// Turns a connection into a stream's: sends the head of the response, then subscribes to the
    /// feed.
    pub(super) fn start<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        start: &StreamStart,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let context = start.context;
        // At its limit, while it is leaving, or while the topic is loaded, a gateway takes no new
        // stream.
        let projection = cx.projections.get(start.plan.topic);
        let loading = projection.is_none_or(|projection| projection.feed().is_none());
        let streams_max = turns.site.streams().streams_max;
        let refused = context.head_only || turns.leaving.has_begun() || loading;
        let full = refused || !turns.clients.connections.totals().streams.take(streams_max);
        let mut response = Response::new(StatusCode::OK);
        response
            .fixed(&EVENT_STREAM)
            .fixed(&PASS_THROUGH)
            .fixed(&NO_BUFFERING)
            .stream();
        let framed = turns.responder.respond(context, response).framed;
        if full {
            // A native EventSource never reconnects after any other status.
            if !context.head_only {
                let retry = self.retry_later(turns.site.streams());
                let retry = format!("retry: {retry}\n\n");
                turns.responder.piece(framed, retry.as_bytes());
            }
            turns.responder.end(framed);
            http1.on_last_response();
            return turns.resume(http1, cx);
        }
        if !turns.send_responses(&mut http1, cx) {
            turns.clients.connections.totals().streams.give_back();
            return turns.close(http1, CloseReason::Client, cx);
        }
        self.open(http1, start, framed, turns, cx);
    }

    /// The head of the response is sent, or waits in the connection.
    fn open<I: Io>(
        &mut self,
        http1: Box<Http1>,
        start: &StreamStart,
        framed: Framed,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let socket = http1.socket();
        let (site, clients) = (&turns.site, &mut turns.clients);
        cx.io
            .limit_send_buffer(socket, site.streams().send_buffer_bytes);
        let plan = start.plan;
        let exchange = clients.exchanges.open_stream(socket);
        let feed = cx.projections.feed_mut(plan.topic);
        let feed = feed.expect("the caller found the feed");
        feed.subscribe(exchange, &subscription(start, site), cx.now);
        let stream = Stream {
            exchange,
            topic: plan.topic,
            route: plan.id,
            opened: self.opened,
            ending: None,
        };
        self.opened = self.opened.wrapping_add(1);
        let counted = http1.counted;
        let (head, transport) = http1.into_stream();
        let body = Body::new(transport, framed, head);
        let connection = StreamConnection::new(stream, body, cx.now.mono);
        let connections = &mut clients.connections;
        let stalls_at = connection.stalls_at(connections.write_timeout());
        connections.put_stream(socket, counted, connection);
        if let Some(at) = stalls_at {
            connections.arm(socket, at);
        }
        cx.metrics.streams[plan.id.index()].open.up();
        // Readiness is edge-triggered: no event reports a socket again that was not read to its
        // end.
        self.on_readable(socket, clients, cx);
    }

    /// Sends what is pending to streams, topic by topic, until the part is spent. Returns true if
    /// some is left.
    #[must_use]
    pub(super) fn deliver<I: Io>(
        &mut self,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) -> bool {
        for _ in 0..cx.projections.pending() {
            let Some(topic) = cx.projections.next_pending() else {
                break;
            };
            while let Some(exchange) = feed_of(cx, topic).and_then(Feed::next_pending) {
                self.deliver_to(exchange, topic, clients, cx);
                if cx.io.spent(Part::Deliver) {
                    // The next turn begins with the next topic, even if this one has more.
                    cx.projections.still_pending(topic);
                    return true;
                }
            }
        }
        false
    }

    fn deliver_to<I: Io>(
        &mut self,
        exchange: ExchangeId,
        topic: TopicId,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let socket = clients.exchanges.stream(exchange);
        let socket = socket.expect("the feed knows open streams only");
        let write_timeout = clients.connections.write_timeout();
        let connection = clients.connections.stream_mut(socket);
        let connection = connection.expect("an open stream has a connection");
        let feed = cx.projections.feed_mut(topic);
        let feed = feed.expect("it named the subscriber");
        let mut sink = connection.sink(socket, cx.io, &mut self.chunk_head);
        let delivery = feed.deliver(exchange, &mut sink, cx.now);
        let sent = sink.sent;
        cx.metrics.general.sent_bytes.add(sent as u64);
        let ending = match delivery {
            Delivery::Idle | Delivery::More | Delivery::Full => {
                let full = delivery == Delivery::Full;
                if connection.on_delivered(sent, full, cx.now.mono) {
                    let at = cx.now.mono.after(write_timeout);
                    clients.connections.arm(socket, at);
                }
                return;
            }
            Delivery::Lagged => {
                let route = connection.stream.route.index();
                cx.metrics.streams[route].lagged.bump();
                (StreamEnd::Slow, CloseReason::Served)
            }
            Delivery::Failed => (StreamEnd::Failed, CloseReason::Served),
            Delivery::Stalled => {
                let ending = (StreamEnd::Page, CloseReason::Timeout);
                return self.close(socket, ending, clients, cx);
            }
            Delivery::Closed => {
                let ending = (StreamEnd::Client, CloseReason::Client);
                return self.close(socket, ending, clients, cx);
            }
        };
        self.finish(socket, ending, clients, cx);
    }

    /// The socket of a stream takes bytes again.
    pub(super) fn on_writable<I: Io>(
        &mut self,
        socket: SocketId,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(connection) = clients.connections.stream_mut(socket) else {
            return;
        };
        let (flushed, sent) = connection.flush(socket, cx.io, cx.now.mono);
        cx.metrics.general.sent_bytes.add(sent as u64);
        let stream = connection.stream;
        match (flushed, stream.ending) {
            (Flushed::Gone, _) => {
                let ending = (StreamEnd::Client, CloseReason::Client);
                self.close(socket, ending, clients, cx);
            }
            (Flushed::Part, _) => {}
            (Flushed::All, Some(ending)) => self.close(socket, ending, clients, cx),
            (Flushed::All, None) => {
                connection.on_flushed();
                // `None`: the topic is loaded again, and the stream is about to end.
                if let Some(feed) = feed_of(cx, stream.topic) {
                    feed.on_writable(stream.exchange);
                }
            }
        }
    }

    /// A client sent bytes on its stream, or disconnected.
    pub(super) fn on_readable<I: Io>(
        &mut self,
        socket: SocketId,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(connection) = clients.connections.stream_mut(socket) else {
            return;
        };
        let ending = match connection.read(socket, cx.io) {
            Heard::Nothing => return,
            Heard::End => (StreamEnd::Client, CloseReason::Client),
            Heard::Noise => (StreamEnd::Failed, CloseReason::Refused),
        };
        self.close(socket, ending, clients, cx);
    }

    /// The timer of a stream's connection: closes it if its socket has taken nothing for too long.
    pub(super) fn on_timer<I: Io>(
        &mut self,
        socket: SocketId,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let write_timeout = clients.connections.write_timeout();
        let Some(connection) = clients.connections.stream_mut(socket) else {
            return;
        };
        let Some(at) = connection.stalls_at(write_timeout) else {
            return;
        };
        if at > cx.now.mono {
            return clients.connections.arm(socket, at);
        }
        let stalled = (StreamEnd::Slow, CloseReason::Timeout);
        let ending = connection.stream.ending.unwrap_or(stalled);
        self.close(socket, ending, clients, cx);
    }

    /// Plans when each stream ends within the drain, the oldest first.
    pub(super) fn drain(&mut self, until: Instant, connections: &Connections, now: Instant) {
        let mut streams: Vec<_> = connections
            .all_streams()
            .map(|(socket, stream)| (stream.opened, socket))
            .collect();
        streams.sort_unstable_by_key(|(opened, _)| *opened);
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
        let part = until.since(now) / count;
        self.drain = (0..)
            .zip(streams)
            .map(|(place, (_, socket))| {
                // End each stream at a random moment of its own part of the time.
                let within = self
                    .jitter
                    .below(u64::try_from(part.as_nanos().max(1)).unwrap_or(u64::MAX));
                let moment = now.after(part * place);
                (moment.after(Duration::from_nanos(within)), socket)
            })
            .collect();
    }

    /// Ends the streams whose moment within the drain has come, and some of those whose topic has
    /// ended.
    pub(super) fn on_time<I: Io>(&mut self, clients: &mut Clients, cx: &mut EdgeContext<'_, I>) {
        while let Some((moment, socket)) = self.drain.front().copied()
            && moment <= cx.now.mono
        {
            self.drain.pop_front();
            let ending = (StreamEnd::Drain, CloseReason::Drain);
            self.finish(socket, ending, clients, cx);
        }
        self.end_next(clients, cx);
    }

    /// When [`Self::on_time`] next has work. `None`: it ends no stream.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if !self.ended.is_empty() {
            return Some(Instant::ZERO);
        }
        self.drain.front().map(|(moment, _)| *moment)
    }

    /// A topic was re-created or cut back: its streams end, some in each turn. Each client resumes
    /// by its id. Streams that open from now on belong to the next incarnation.
    pub(super) fn end_topic(&mut self, topic: TopicId) {
        self.ended.retain(|it| it.topic != topic);
        self.ended.push_back(EndedTopic {
            topic,
            before: self.opened,
            looked_at: 0,
        });
    }

    /// Ends some of the streams of the oldest topic that has ended.
    fn end_next<I: Io>(&mut self, clients: &mut Clients, cx: &mut EdgeContext<'_, I>) {
        let Some(ended) = self.ended.front_mut() else {
            return;
        };
        let slots = clients.connections.slots();
        let first = ended.looked_at.min(slots);
        let until = (first + ENDS_LOOKED_AT_MAX).min(slots);
        let streams = clients.connections.streams_in(first..until);
        let of_topic = streams.filter(|(_, stream)| ended.has(stream));
        let sockets: Vec<_> = of_topic.map(|(socket, _)| socket).take(ENDS_MAX).collect();
        ended.looked_at = match sockets.last() {
            Some(last) if sockets.len() == ENDS_MAX => last.slot as usize + 1,
            _ => until,
        };
        if ended.looked_at >= slots {
            self.ended.pop_front();
        }
        for socket in sockets {
            let ending = (StreamEnd::Failed, CloseReason::Served);
            self.finish(socket, ending, clients, cx);
        }
    }

    /// Ends a stream in an orderly way. Its feed releases the stream. The connection is closed once
    /// the socket has taken the bytes that wait and the end of the body, or has taken nothing for
    /// the write timeout. A client that reads the end knows that no event was cut.
    pub(super) fn finish<I: Io>(
        &mut self,
        socket: SocketId,
        ending: Ending,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let write_timeout = clients.connections.write_timeout();
        let Some(connection) = clients.connections.stream_mut(socket) else {
            return;
        };
        if connection.stream.ending.is_some() {
            return;
        }
        connection.stream.ending = Some(ending);
        let stream = connection.stream;
        let stalls_at = connection.end(cx.now.mono, write_timeout);
        unsubscribe(&stream, cx);
        clients.connections.arm(socket, stalls_at);
        self.on_writable(socket, clients, cx);
    }

    /// Closes a stream at once. Within a chunk the client sees a cut.
    pub(super) fn close<I: Io>(
        &mut self,
        socket: SocketId,
        (end, why): Ending,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let connections = &mut clients.connections;
        let Some(mut connection) = connections.close_stream(socket, why, cx.close, cx.metrics)
        else {
            return;
        };
        let stream = connection.stream;
        unsubscribe(&stream, cx);
        connection.close(socket, cx.io);
        clients.exchanges.close_stream(stream.exchange);
        connections.totals().streams.give_back();
        let metrics = &mut cx.metrics.streams[stream.route.index()];
        metrics.open.down();
        metrics.ended.bump(end);
    }
}

/// The feed of a topic, while the topic is live and has streams.
fn feed_of<'a, I>(cx: &'a mut EdgeContext<'_, I>, topic: TopicId) -> Option<&'a mut Feed> {
    cx.projections.feed_mut(topic)
}

/// Releases a stream from its feed. A stream that is ending may outlive its feed.
fn unsubscribe<I>(stream: &Stream, cx: &mut EdgeContext<'_, I>) {
    if let Some(feed) = feed_of(cx, stream.topic) {
        feed.unsubscribe(stream.exchange);
    }
}

fn subscription<'a>(start: &'a StreamStart, site: &Site) -> Subscribe<'a> {
    let route = &site.snapshot.config.streams[start.index];
    let key = start.key.as_ref().map(|(hash, key)| (*hash, &key[..]));
    Subscribe {
        encoding: start.plan.encoding,
        filter: Filter { key },
        start: match route.start {
            crate::config::Start::Live => StartFrom::Live,
            crate::config::Start::Earliest => StartFrom::Earliest,
            crate::config::Start::Snapshot => StartFrom::Snapshot,
        },
        last_event_id: start.last_event_id.as_deref(),
        slow: match route.slow {
            crate::config::Slow::Disconnect => Slow::Disconnect,
            crate::config::Slow::Conflate => Slow::Conflate,
        },
    }
}

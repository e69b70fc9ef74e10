//! Event streams: how they begin and end, and the rotation in which their feeds send. What a stream
//! is sent, and from where, is the feed's business.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Keys;
use crate::config::Streams as Settings;
use crate::http::{
    ChunkHead, EVENT_STREAM, Framed, NO_BUFFERING, PASS_THROUGH, Response, StatusCode,
};
use crate::metrics::{CloseReason, StreamEnd, StreamRefusal};
use crate::model::{ExchangeId, FastRandom, Id as _, Instant, TopicId, millis};
use crate::route::Failure;
use crate::shard::ciphertext::Flushed;
use crate::shard::client_limits::ClientCells;
use crate::shard::io::{Io, Part, SocketId};
use crate::sse::{Delivery, Feed, Filter, Slow, StartFrom, Subscribe};

use super::authorise::Client;
use super::body::Body;
use super::clients::Clients;
use super::connections::Connections;
use super::context::EdgeContext;
use super::exchanges::{Carrier, Exchanges, StreamSlot};
use super::granted_streams::{Due, GrantedStreams};
use super::handlers::StreamStart;
use super::http1::Http1;
use super::http2::Http2;
use super::http2_sink::Http2Sink;
use super::http2_stream::{Events, StreamState};
use super::site::Site;
use super::stream_connection::{Heard, Stream, StreamConnection};
use super::turns::Turns;

/// Asks the page for another credential: that of the stream has expired, or is about to.
const CHALLENGE: &str = "event: challenge\ndata: {}\n\n";

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
    drain: VecDeque<(Instant, ExchangeId)>,
    /// Topics whose streams are being ended, each at most once.
    ended: VecDeque<EndedTopic>,
    /// Streams that depend on a credential.
    granted: GrantedStreams,
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
    pub(super) fn new(jitter: FastRandom) -> Self {
        Self {
            opened: 0,
            chunk_head: ChunkHead::new(0),
            jitter,
            drain: VecDeque::new(),
            ended: VecDeque::new(),
            granted: GrantedStreams::new(),
        }
    }

    /// Other keys vouch for credentials from now on. Streams whose key is gone end within the next
    /// turns.
    pub(super) fn set_keys(&mut self, keys: Arc<Keys>) {
        self.granted.set_keys(keys);
    }

    /// Tells a refused client when to reconnect: after `wait` at least, and a random time, so that
    /// the clients do not all reconnect at once.
    fn retry_later(&mut self, settings: &Settings, wait: Duration) -> String {
        let base = millis(settings.retry);
        let retry = base.max(millis(wait) + 1) + self.jitter.below(base.max(1));
        format!("retry: {retry}\n\n")
    }

    /// Counts a refused stream. Returns what its client is sent instead of events.
    fn refuse<I>(
        &mut self,
        start: &StreamStart,
        refused: Refused,
        turns: &Turns,
        cx: &mut EdgeContext<'_, I>,
    ) -> Option<String> {
        let (cause, wait) = refused?;
        let route = start.plan.id.index();
        cx.metrics.streams[route].refused.bump(cause);
        if cause == StreamRefusal::Rate {
            cx.metrics.routes[route].rate_limited.bump();
        }
        let mut text = self.retry_later(turns.site.streams(), wait);
        if cause == StreamRefusal::Expired {
            text.push_str(CHALLENGE);
        }
        Some(text)
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
        let admitted = admit(start, turns, cx);
        let framed = respond(start, turns);
        let client = match admitted {
            Ok(client) => client,
            Err(refused) => {
                // A native EventSource never reconnects after any other status.
                if let Some(retry) = self.refuse(start, refused, turns, cx) {
                    turns.responder.piece(framed, retry.as_bytes());
                }
                turns.responder.end(framed);
                http1.on_last_response();
                return turns.resume(http1, cx);
            }
        };
        if !turns.send_responses(&mut http1, cx) {
            turns.clients.connections.give_back_stream(client);
            return turns.close(http1, CloseReason::Client, cx);
        }
        self.open(http1, start, (framed, client), turns, cx);
    }

    /// Begins an event stream on a stream of HTTP/2.
    pub(super) fn start_http2<I: Io>(
        &mut self,
        http2: &mut Http2,
        slot: StreamSlot,
        start: &StreamStart,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let admitted = admit(start, turns, cx);
        let _ = respond(start, turns);
        let mut response = turns.responder.take_http2();
        let client = match admitted {
            Ok(client) => client,
            Err(refused) => {
                let retry = self.refuse(start, refused, turns, cx);
                if let Some(response) = &mut response {
                    response.has_pieces = false;
                    response.body = retry.unwrap_or_default().into();
                }
                return http2.respond(slot, response);
            }
        };
        // The first response is no stream if it could not be written.
        let begins = response.as_ref().is_some_and(|it| it.has_pieces);
        http2.respond(slot, response);
        if !begins || http2.stream(slot).is_none() {
            // Or the client has reset the stream.
            return turns.clients.connections.give_back_stream(client);
        }
        let carrier = Carrier::Http2(http2.socket(), slot);
        let stream = self.subscribe((carrier, client), start, turns, cx);
        turns.clients.connections.on_http2_stream();
        http2.set(slot, StreamState::Events(Events::new(stream)));
    }

    /// Opens the exchange of a stream, and subscribes it to its feed.
    fn subscribe<I: Io>(
        &mut self,
        (carrier, client): (Carrier, Option<ClientCells>),
        start: &StreamStart,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) -> Stream {
        let (site, clients) = (&turns.site, &mut turns.clients);
        cx.io
            .limit_send_buffer(carrier.socket(), site.streams().send_buffer_bytes);
        let plan = start.plan;
        let exchange = clients.exchanges.open_stream(carrier);
        let feed = cx.projections.feed_mut(plan.topic);
        let feed = feed.expect("`admit` found the feed");
        feed.subscribe(exchange, &subscription(start, site), cx.now);
        if let Some(grant) = start.client.as_ref().ok().and_then(Client::grant) {
            self.granted.add(exchange, grant, cx.now);
        }
        cx.metrics.streams[plan.id.index()].open.up();
        let opened = self.opened;
        self.opened = self.opened.wrapping_add(1);
        Stream {
            exchange,
            topic: plan.topic,
            route: plan.id,
            opened,
            client,
            ending: None,
        }
    }

    /// The head of the response is sent, or waits in the connection.
    fn open<I: Io>(
        &mut self,
        http1: Box<Http1>,
        start: &StreamStart,
        (framed, client): (Framed, Option<ClientCells>),
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let socket = http1.socket();
        let stream = self.subscribe((Carrier::Http1(socket), client), start, turns, cx);
        let clients = &mut turns.clients;
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
        let carrier = clients.exchanges.stream(exchange);
        let carrier = carrier.expect("the feed knows open streams only");
        let socket = match carrier {
            Carrier::Http1(socket) => socket,
            Carrier::Http2(socket, slot) => {
                return self.deliver_http2(exchange, topic, (socket, slot), clients, cx);
            }
        };
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
        self.finish(carrier, ending, clients, cx);
    }

    fn deliver_http2<I: Io>(
        &mut self,
        exchange: ExchangeId,
        topic: TopicId,
        (socket, slot): (SocketId, StreamSlot),
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let http2 = clients.connections.http2_mut(socket);
        let http2 = http2.expect("an open stream has a connection");
        let feed = cx.projections.feed_mut(topic);
        let feed = feed.expect("it named the subscriber");
        let mut sink = Http2Sink::new(http2, slot);
        let delivery = feed.deliver(exchange, &mut sink, cx.now);
        let sent = sink.sent;
        drop(sink);
        let full = delivery == Delivery::Full;
        let ending = match delivery {
            Delivery::Idle | Delivery::More | Delivery::Full => {
                http2.on_delivered(slot, sent, full, cx.now.mono);
                if sent > 0 || full {
                    clients.connections.send_later(socket);
                }
                return;
            }
            Delivery::Lagged => {
                if let Some(events) = http2.events_mut(slot) {
                    cx.metrics.streams[events.stream.route.index()]
                        .lagged
                        .bump();
                }
                StreamEnd::Slow
            }
            Delivery::Failed => StreamEnd::Failed,
            Delivery::Stalled => {
                // The rest of the page is gone: the client must not read an orderly end.
                if let Some(events) = http2.events_mut(slot) {
                    events.is_cut = true;
                }
                StreamEnd::Page
            }
            Delivery::Closed => StreamEnd::Client,
        };
        let ending = (ending, CloseReason::Served);
        self.finish(Carrier::Http2(socket, slot), ending, clients, cx);
    }

    /// Tells the feeds of a connection of HTTP/2 which of its full streams are writable again.
    pub(super) fn on_http2_writable<I: Io>(&self, http2: &mut Http2, cx: &mut EdgeContext<'_, I>) {
        for (exchange, topic) in http2.writable() {
            if let Some(feed) = feed_of(cx, topic) {
                feed.on_writable(exchange);
            }
        }
    }

    /// Ends an event stream of HTTP/2, whose connection is taken out or in its place. The client
    /// reads the end, or that the last event was cut. Returns the stream, whose place is to be
    /// given back.
    pub(super) fn end_http2<I: Io>(
        &mut self,
        (http2, slot): (&mut Http2, StreamSlot),
        end: StreamEnd,
        exchanges: &mut Exchanges,
        cx: &mut EdgeContext<'_, I>,
    ) -> Option<Stream> {
        let stream = http2.end_events(slot)?;
        unsubscribe(&stream, cx);
        exchanges.close_stream(stream.exchange);
        self.granted.remove(stream.exchange);
        let metrics = &mut cx.metrics.streams[stream.route.index()];
        metrics.open.down();
        metrics.ended.bump(end);
        Some(stream)
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
            .map(|(_, stream)| (stream.opened, stream.exchange))
            .collect();
        streams.sort_unstable_by_key(|(opened, _)| *opened);
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
        let part = until.since(now) / count;
        self.drain = (0..)
            .zip(streams)
            .map(|(place, (_, exchange))| {
                // End each stream at a random moment of its own part of the time.
                let within = self
                    .jitter
                    .below(u64::try_from(part.as_nanos().max(1)).unwrap_or(u64::MAX));
                let moment = now.after(part * place);
                (moment.after(Duration::from_nanos(within)), exchange)
            })
            .collect();
    }

    /// Ends the streams whose moment within the drain has come, and some of those whose topic has
    /// ended.
    pub(super) fn on_time<I: Io>(&mut self, clients: &mut Clients, cx: &mut EdgeContext<'_, I>) {
        while let Some((moment, exchange)) = self.drain.front().copied()
            && moment <= cx.now.mono
        {
            self.drain.pop_front();
            let ending = (StreamEnd::Drain, CloseReason::Drain);
            if let Some(carrier) = clients.exchanges.stream(exchange) {
                self.finish(carrier, ending, clients, cx);
            }
        }
        for _ in 0..ENDS_MAX {
            let Some((exchange, due)) = self.granted.next_due(cx.now) else {
                break;
            };
            let Some(carrier) = clients.exchanges.stream(exchange) else {
                continue;
            };
            let ending = (StreamEnd::Revoked, CloseReason::Served);
            match due {
                Due::Challenge => self.challenge(carrier, clients, cx),
                Due::End => self.finish(carrier, ending, clients, cx),
            }
        }
        self.end_next(clients, cx);
    }

    /// Asks the page of a stream for another credential, behind the bytes that wait. A stream of
    /// HTTP/2 may have sent an event in part, within which nothing may be added: its page learns
    /// of the expiry when the stream ends and it reconnects.
    fn challenge<I: Io>(
        &mut self,
        carrier: Carrier,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Carrier::Http1(socket) = carrier else {
            return;
        };
        let write_timeout = clients.connections.write_timeout();
        let Some(connection) = clients.connections.stream_mut(socket) else {
            return;
        };
        if connection.stream.ending.is_some() {
            return;
        }
        let stalls_at = connection.insert(CHALLENGE.as_bytes(), cx.now.mono, write_timeout);
        clients.connections.arm(socket, stalls_at);
        self.on_writable(socket, clients, cx);
    }

    /// When [`Self::on_time`] next has work. `None`: it ends no stream.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if !self.ended.is_empty() {
            return Some(Instant::ZERO);
        }
        let drain = self.drain.front().map(|(moment, _)| *moment);
        drain.into_iter().chain(self.granted.next_deadline()).min()
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
        let carriers: Vec<_> = of_topic.map(|(it, _)| it).take(ENDS_MAX).collect();
        ended.looked_at = match carriers.last() {
            // A connection of HTTP/2 may have more of them.
            Some(last) if carriers.len() == ENDS_MAX => last.socket().slot as usize,
            _ => until,
        };
        if ended.looked_at >= slots {
            self.ended.pop_front();
        }
        for carrier in carriers {
            let ending = (StreamEnd::Failed, CloseReason::Served);
            self.finish(carrier, ending, clients, cx);
        }
    }

    /// Ends a stream in an orderly way. Its feed releases the stream. The connection is closed once
    /// the socket has taken the bytes that wait and the end of the body, or has taken nothing for
    /// the write timeout. A client that reads the end knows that no event was cut.
    pub(super) fn finish<I: Io>(
        &mut self,
        carrier: Carrier,
        ending: Ending,
        clients: &mut Clients,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let socket = match carrier {
            Carrier::Http1(socket) => socket,
            Carrier::Http2(socket, slot) => {
                let Clients {
                    connections,
                    exchanges,
                } = clients;
                let Some(http2) = connections.http2_mut(socket) else {
                    return;
                };
                if let Some(stream) = self.end_http2((http2, slot), ending.0, exchanges, cx) {
                    connections.on_http2_stream_end(&stream);
                    connections.send_later(socket);
                }
                return;
            }
        };
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
        self.granted.remove(stream.exchange);
        connections.give_back_stream(stream.client);
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

/// Why a stream can't begin now, and how long that lasts at least. `None`: the request is a HEAD,
/// which has no body that could be a stream.
type Refused = Option<(StreamRefusal, Duration)>;

/// Lets a stream take its place among those of the process and of its client. Returns the client,
/// if its streams are limited.
fn admit<I>(
    start: &StreamStart,
    turns: &Turns,
    cx: &EdgeContext<'_, I>,
) -> Result<Option<ClientCells>, Refused> {
    if start.context.head_only {
        return Err(None);
    }
    if start.client.is_err() {
        return Err(Some((StreamRefusal::Expired, Duration::ZERO)));
    }
    if turns.leaving.has_begun() {
        return Err(Some((StreamRefusal::Draining, Duration::ZERO)));
    }
    if let Some(wait) = start.wait {
        return Err(Some((StreamRefusal::Rate, wait)));
    }
    let topic = start.plan.topic;
    let projection = cx.projections.get(topic);
    if projection.is_none_or(|projection| projection.feed().is_none()) {
        let refused = cx.projections.why_not_live(topic);
        let cause = if refused.kind == Failure::NotReady.kind() {
            StreamRefusal::NotReady
        } else {
            StreamRefusal::TopicUnavailable
        };
        let wait = u64::from(refused.retry_after.unwrap_or_default());
        return Err(Some((cause, Duration::from_secs(wait))));
    }
    let (settings, totals) = (turns.site.streams(), turns.clients.connections.totals());
    let client = start.tenant.as_ref().zip(settings.client_streams_max);
    let client = client.map(|(tenant, max)| (totals.clients.cells(tenant), max));
    if let Some((cells, max)) = client
        && !totals.clients.streams.take(cells, max)
    {
        return Err(Some((StreamRefusal::ClientStreams, Duration::ZERO)));
    }
    let client = client.map(|(cells, _)| cells);
    if totals.streams.take(settings.streams_max) {
        return Ok(client);
    }
    if let Some(cells) = client {
        totals.clients.streams.give_back(cells);
    }
    Err(Some((StreamRefusal::Streams, Duration::ZERO)))
}

/// Writes the head of a stream's response.
fn respond(start: &StreamStart, turns: &mut Turns) -> Framed {
    let mut response = Response::new(StatusCode::OK);
    response
        .fixed(&EVENT_STREAM)
        .fixed(&PASS_THROUGH)
        .fixed(&NO_BUFFERING)
        .stream();
    turns.responder.respond(start.context, response).framed
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

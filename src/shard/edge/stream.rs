//! Clients that became event streams: a slot, a transport, and a place in their topic's feed. What
//! they are sent, and from where, is the feed's business; this file gives it sockets, pages and
//! catch-up reads.

use crate::http::{EVENT_STREAM, NO_BUFFERING, PASS_THROUGH, Response, ResponseContext, Status};
use crate::metrics::{CloseReason, StreamEnd};
use crate::model::{ExchangeId, Id as _, Instant, RouteId, ShardId};
use crate::shard::io::{Io, Part, Read, SocketId};
use crate::shard::snapshot::TopicIndex;
use crate::sse::{Delivery, Filter, Slow, Start, Subscribe};

use super::body::{Body, BodySink, Progress};
use super::client::Client;
use super::request::StreamStart;
use super::responder::Responded;
use super::{Conn, Edge, EdgeContext};
use crate::shard::ciphertext::Flushed;

/// Bytes a client may send on a stream, where nothing is left to say, before it is closed.
const NOISE_BYTES_MAX: u32 = 16 * 1024;

/// One event stream, beside what its feed keeps: the slot of an idle one holds no buffer.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) topic: TopicIndex,
    route: RouteId,
    /// The stream's number among the exchanges of the slot.
    pub(super) exchange: u32,
    noise: u32,
    /// The stream's place in the order of arrival on the shard.
    pub(super) opened: u32,
    body: Body,
    /// Since when the socket takes nothing although something waits.
    full_since: Option<Instant>,
    /// When the drain ends it.
    ends: Option<Instant>,
    /// Set once the feed has released the stream, which is closed when its body's end is sent.
    ending: Option<(StreamEnd, CloseReason)>,
}

impl Edge {
    /// Turns a client into a stream: its head goes out, then the feed has it.
    pub(super) fn start_stream<I: Io>(
        &mut self,
        mut client: Box<Client>,
        start: StreamStart,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let context = start.context;
        // At its limit, on its way out, or while a topic is loaded anew, a gateway takes no new
        // stream.
        let projection = cx.projections.get(start.plan.topic);
        let loading = projection.is_none_or(|projection| projection.feed().is_none());
        let streams_max = self.snapshot.config.settings.streams.streams_max;
        let refused = context.head_only || self.is_leaving() || loading;
        let full = refused || !self.totals.streams.take(streams_max);
        let framed = self.write_stream_head(context).framed;
        if full {
            // A native EventSource gives up for good on any other status: it must come back later.
            if !context.head_only {
                let retry = format!("retry: {}\n\n", self.retry_later());
                self.responder.piece(framed, retry.as_bytes());
            }
            self.responder.end(framed);
            client.state = super::client::State::Closing;
            return self.resume(client, cx);
        }
        if !self.send_responses(&mut client, cx) {
            self.totals.streams.give_back();
            return self.end(client, CloseReason::Client, cx);
        }
        let socket = client.socket;
        let buffer = self.snapshot.config.settings.streams.send_buffer_bytes;
        cx.io.limit_send_buffer(socket, buffer);
        self.forget(&client);
        let exchange_number = client.exchange;
        let (head, transport) = client.into_stream();
        let snapshot = self.snapshot.clone();
        let route = &snapshot.config.streams[start.index];
        let projection = cx.projections.get_mut(start.plan.topic);
        let Some(feed) = projection.and_then(|projection| projection.feed_mut()) else {
            debug_assert!(false, "the request was refused before the topic was live");
            self.totals.streams.give_back();
            return self.close(socket, CloseReason::Refused, cx);
        };
        let key = start.key.as_ref().map(|(hash, key)| (*hash, &key[..]));
        let request = Subscribe {
            encoding: start.plan.encoding,
            filter: Filter { key },
            start: match route.start {
                crate::config::Start::Live => Start::Live,
                crate::config::Start::Earliest => Start::Earliest,
                crate::config::Start::Snapshot => Start::Snapshot,
            },
            last_event_id: start.last_event_id.as_deref(),
            slow: match route.slow {
                crate::config::Slow::Disconnect => Slow::Disconnect,
                crate::config::Slow::Conflate => Slow::Conflate,
            },
        };
        let exchange = stream_exchange(self.me, socket, exchange_number);
        feed.subscribe(exchange, &request, cx.now);
        let stream = Stream {
            topic: start.plan.topic,
            route: start.plan.id,
            exchange: exchange_number,
            noise: 0,
            opened: self.opened,
            full_since: head.is_some().then_some(cx.now.mono),
            body: Body::new(transport, framed, head),
            ends: None,
            ending: None,
        };
        self.opened = self.opened.wrapping_add(1);
        if stream.full_since.is_some() {
            self.arm(socket, cx.now.mono.after(self.write_timeout()));
        }
        self.slots[socket.slot as usize].conn = Conn::Stream(stream);
        self.streams += 1;
        cx.metrics.streams[start.plan.id.index()].open.up();
        // Readiness is edge-like: only a socket that was read to its end is heard of again.
        self.read_stream(socket, cx);
    }

    fn write_stream_head(&mut self, context: ResponseContext) -> Responded {
        let mut response = Response::new(Status::OK);
        response
            .fixed(&EVENT_STREAM)
            .fixed(&PASS_THROUGH)
            .fixed(&NO_BUFFERING)
            .stream();
        self.responder.respond(context, response)
    }

    pub(super) fn write_timeout(&self) -> std::time::Duration {
        self.snapshot.config.settings.http.write_timeout
    }

    /// Milliseconds after which a client that is sent away should come back: spread, so that they
    /// do not come together.
    fn retry_later(&mut self) -> u64 {
        let base = self.snapshot.config.settings.streams.retry.as_millis() as u64;
        base + self.jitter.below(base.max(1))
    }

    /// Sends what is pending to streams, topic by topic, until the part is spent. True: some is
    /// left.
    pub(in crate::shard) fn deliver<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        let topics = self.snapshot.topics.end();
        for _ in 0..topics {
            let topic = TopicIndex(self.deliver_next as u16);
            // The next turn begins with the next topic, also where this one has more.
            self.deliver_next = (self.deliver_next + 1) % topics;
            while let Some(exchange) = next_pending(cx, topic) {
                self.deliver_to(exchange, topic, cx);
                if cx.io.spent(Part::Deliver) {
                    return true;
                }
            }
        }
        false
    }

    fn deliver_to<I: Io>(
        &mut self,
        exchange: ExchangeId,
        topic: TopicIndex,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let slot = &mut self.slots[exchange.slot as usize];
        let socket = SocketId {
            slot: exchange.slot,
            generation: slot.generation,
        };
        let Conn::Stream(stream) = &mut slot.conn else {
            debug_assert!(false, "the feed knows only streams");
            return;
        };
        let feed = cx.projections.feed_mut(topic);
        let feed = feed.expect("it named the subscriber");
        let route = stream.route.index();
        let full_before = stream.full_since;
        let mut sink = BodySink {
            body: &mut stream.body,
            socket,
            io: cx.io,
            head: &mut self.chunk_head,
            sent: 0,
        };
        let delivery = feed.deliver(exchange, &mut sink, cx.now);
        let sent = sink.sent as u64;
        cx.metrics.general.sent_bytes.add(sent);
        if sent > 0 {
            stream.full_since = None;
        }
        match delivery {
            Delivery::Idle | Delivery::More | Delivery::Full => {
                // The rest of a chunk may wait although the feed has nothing more to send.
                if delivery == Delivery::Full || stream.body.is_waiting() {
                    stream.full_since.get_or_insert(cx.now.mono);
                    if full_before.is_none() {
                        self.arm(socket, cx.now.mono.after(self.write_timeout()));
                    }
                }
            }
            Delivery::Lagged => {
                cx.metrics.streams[route].lagged.bump();
                self.finish_stream(socket, StreamEnd::Slow, CloseReason::Served, cx);
            }
            Delivery::Failed => {
                self.finish_stream(socket, StreamEnd::Failed, CloseReason::Served, cx);
            }
            Delivery::Closed => self.end_stream(socket, StreamEnd::Client, CloseReason::Client, cx),
        }
    }

    /// The socket of a stream takes bytes again.
    pub(super) fn write_stream<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let slot = &mut self.slots[socket.slot as usize];
        let Conn::Stream(stream) = &mut slot.conn else {
            return;
        };
        let Progress {
            flushed,
            sent,
            moved,
        } = stream.body.flush(socket, cx.io);
        cx.metrics.general.sent_bytes.add(sent as u64);
        if moved {
            stream.full_since = stream.full_since.map(|_| cx.now.mono);
        }
        match (flushed, stream.ending) {
            (Flushed::Gone, _) => {
                self.end_stream(socket, StreamEnd::Client, CloseReason::Client, cx);
            }
            (Flushed::Part, _) => {}
            (Flushed::All, Some((end, why))) => self.end_stream(socket, end, why, cx),
            (Flushed::All, None) => {
                stream.full_since = None;
                let topic = stream.topic;
                let feed = cx.projections.feed_mut(topic);
                let exchange = stream_exchange(self.me, socket, stream.exchange);
                feed.expect("a stream has a feed").on_writable(exchange);
            }
        }
    }

    /// A client said something on its stream, or left.
    pub(super) fn read_stream<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let slot = &mut self.slots[socket.slot as usize];
        let Conn::Stream(stream) = &mut slot.conn else {
            return;
        };
        loop {
            match cx.io.read(socket) {
                Read::Blocked => return,
                Read::Closed(_) => break,
                Read::Bytes(bytes) => {
                    stream.noise = stream.noise.saturating_add(bytes.len() as u32);
                    if stream.noise > NOISE_BYTES_MAX {
                        return self.end_stream(
                            socket,
                            StreamEnd::Failed,
                            CloseReason::Refused,
                            cx,
                        );
                    }
                }
            }
        }
        self.end_stream(socket, StreamEnd::Client, CloseReason::Client, cx);
    }

    /// A stream's timer: it is stuck, or its drain has come.
    pub(super) fn expire_stream<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let write_timeout = self.write_timeout();
        let slot = &mut self.slots[socket.slot as usize];
        let Conn::Stream(stream) = &mut slot.conn else {
            return;
        };
        if let Some(ends) = stream.ends.filter(|_| stream.ending.is_none()) {
            if ends <= cx.now.mono {
                return self.finish_stream(socket, StreamEnd::Drain, CloseReason::Drain, cx);
            }
            return self.arm(socket, ends);
        }
        if let Some(since) = stream.full_since {
            let limit = since.after(write_timeout);
            if limit <= cx.now.mono {
                let stuck = (StreamEnd::Slow, CloseReason::Timeout);
                let (end, why) = stream.ending.unwrap_or(stuck);
                return self.end_stream(socket, end, why, cx);
            }
            self.arm(socket, limit);
        }
    }

    /// Gives a stream its moment within the drain.
    pub(super) fn drain_stream(&mut self, socket: SocketId, moment: Instant) {
        if let Conn::Stream(stream) = &mut self.slots[socket.slot as usize].conn {
            stream.ends = Some(moment);
            self.arm(socket, moment);
        }
    }

    /// Ends every stream of a topic: its log is another one now, and each resumes by its id.
    pub(in crate::shard) fn end_streams_of<I: Io>(
        &mut self,
        topic: TopicIndex,
        cx: &mut EdgeContext<'_, I>,
    ) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if matches!(&slot.conn, Conn::Stream(stream) if stream.topic == topic) {
                let socket = SocketId {
                    slot: index as u32,
                    generation: slot.generation,
                };
                self.finish_stream(socket, StreamEnd::Failed, CloseReason::Served, cx);
            }
        }
    }

    /// Ends a stream in an orderly way. Its feed releases it. It is closed once the socket has
    /// taken the owed bytes and the end of the body, or has taken nothing for the write timeout. A
    /// client that reads the end knows that no event was cut.
    pub(super) fn finish_stream<I: Io>(
        &mut self,
        socket: SocketId,
        end: StreamEnd,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let write_timeout = self.write_timeout();
        let Conn::Stream(stream) = &mut self.slots[socket.slot as usize].conn else {
            return;
        };
        if stream.ending.is_some() {
            return;
        }
        if let Some(feed) = cx.projections.feed_mut(stream.topic) {
            feed.unsubscribe(stream_exchange(self.me, socket, stream.exchange));
        }
        stream.body.end();
        stream.ending = Some((end, why));
        let since = *stream.full_since.get_or_insert(cx.now.mono);
        self.arm(socket, since.after(write_timeout));
        self.write_stream(socket, cx);
    }

    /// Closes a stream at once. Within a chunk the client sees a cut.
    pub(super) fn end_stream<I: Io>(
        &mut self,
        socket: SocketId,
        end: StreamEnd,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let slot = &mut self.slots[socket.slot as usize];
        let Conn::Stream(mut stream) = std::mem::take(&mut slot.conn) else {
            return;
        };
        if let Some(feed) = cx.projections.feed_mut(stream.topic) {
            feed.unsubscribe(stream_exchange(self.me, socket, stream.exchange));
        }
        stream.body.close(socket, cx.io);
        self.streams -= 1;
        self.totals.streams.give_back();
        let metrics = &mut cx.metrics.streams[stream.route.index()];
        metrics.open.down();
        metrics.ended.bump(end);
        self.close(socket, why, cx);
    }
}

/// The name of a stream: the last exchange of its connection.
const fn stream_exchange(shard: ShardId, socket: SocketId, generation: u32) -> ExchangeId {
    let slot = socket.slot;
    ExchangeId {
        shard,
        slot,
        generation,
    }
}

/// The next stream of a topic that something is pending for.
fn next_pending<I>(cx: &mut EdgeContext<'_, I>, topic: TopicIndex) -> Option<ExchangeId> {
    cx.projections.feed_mut(topic)?.next_pending()
}

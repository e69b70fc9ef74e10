//! The requests of HTTP/2: as they arrive on the streams of a connection, until they are whole and
//! handled like those of HTTP/1.1.

use crate::http::http2::{BodyPart, IncomingRequest, read_head};
use crate::http::{Fault, Refusal, ResponseContext, Version};
use crate::metrics::{CloseReason, ResetBy, StreamEnd};
use crate::route::{Failure, Refused};
use crate::shard::guard::guarded;
use crate::shard::io::{Io, Read};

use super::context::EdgeContext;
use super::exchanges::{Carrier, StreamSlot};
use super::handlers::Handled;
use super::http2::Http2;
use super::http2_stream::{Http2Stream, PartialRequest, Pieces, StreamState};
use super::requests::{Requests, handlers, rest_of};
use super::responses::class;
use super::streams::Streams;
use super::turns::{READS_MAX, Turns};

/// Requests of one connection that are handled before the next client has its turn.
const REQUESTS_MAX: usize = 64;

/// For a request whose head could not be read.
const UNREAD: ResponseContext = ResponseContext {
    version: Version::Http2,
    keep_alive: true,
    ..ResponseContext::UNREAD
};

/// How reading a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOn {
    /// The socket has no more.
    Blocked,
    /// Other clients must have their turn; continue later.
    Yield,
    /// The client has closed the connection, or it has failed.
    Closed(CloseReason),
}

/// A connection, and what serves its requests.
pub(super) struct Http2Requests<'a> {
    pub(super) http2: &'a mut Http2,
    pub(super) requests: &'a mut Requests,
    pub(super) streams: &'a mut Streams,
    pub(super) turns: &'a mut Turns,
}

impl Http2Requests<'_> {
    /// Reads the connection and serves what its streams ask.
    pub(super) fn read<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> ReadOn {
        // Requests that were received before and had to wait for this turn.
        if self.serve(cx) {
            return ReadOn::Yield;
        }
        for _ in 0..READS_MAX {
            if self.http2.ended().is_some() || self.http2.is_sending() {
                return ReadOn::Blocked;
            }
            let bytes = match cx.io.read(self.http2.socket()) {
                Read::Blocked => return ReadOn::Blocked,
                Read::Closed(_) => return ReadOn::Closed(CloseReason::Client),
                Read::Bytes(bytes) => bytes,
            };
            cx.metrics.general.received_bytes.add(bytes.len() as u64);
            let plain = &mut self.requests.plain;
            match guarded(|| self.http2.receive(bytes, plain, cx.now.mono)) {
                Some(Some(_)) => {}
                Some(None) => return ReadOn::Closed(CloseReason::Refused),
                None => {
                    cx.metrics.general.connection_panics.bump();
                    return ReadOn::Closed(CloseReason::Refused);
                }
            }
            if self.serve(cx) {
                return ReadOn::Yield;
            }
        }
        ReadOn::Yield
    }

    /// Serves what was received. Returns true if requests are left for a later turn.
    pub(super) fn serve<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        self.http2.drive();
        self.drop_reset(cx);
        self.read_bodies(cx);
        for _ in 0..REQUESTS_MAX {
            let Some(incoming) = self.http2.next_request() else {
                return false;
            };
            self.begin(incoming, cx);
        }
        true
    }

    /// Closes the streams that the client has reset, or h2 has because the client broke a rule.
    fn drop_reset<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        let (theirs, ours) = self.http2.session().take_resets();
        let metrics = &mut cx.metrics.general.http2_resets;
        metrics.at(ResetBy::Client).add(theirs);
        metrics.at(ResetBy::Gateway).add(ours);
        if theirs + ours == 0 {
            return;
        }
        for slot in self.http2.slots() {
            let stream = self.http2.stream(slot);
            if stream.is_some_and(|stream| stream.response.is_gone()) {
                self.close(slot, StreamEnd::Client, cx);
            }
        }
    }

    /// Closes a stream and cancels its exchange.
    pub(super) fn close<I: Io>(
        &mut self,
        slot: StreamSlot,
        end: StreamEnd,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let clients = &mut self.turns.clients;
        let exchanges = &mut clients.exchanges;
        if let Some(stream) = self
            .streams
            .end_http2((self.http2, slot), end, exchanges, cx)
        {
            clients.connections.on_http2_stream_end(&stream);
        } else if let Some(stream) = self.http2.remove(slot) {
            clients.cancel(&stream, cx);
        }
    }

    /// A request has arrived on a new stream.
    fn begin<I: Io>(&mut self, incoming: IncomingRequest, cx: &mut EdgeContext<'_, I>) {
        let mut head = std::mem::take(&mut self.requests.head);
        let written = incoming.write_head(&self.turns.site.limits, &mut head);
        let IncomingRequest { body, stream, .. } = incoming;
        let slot = self.http2.open(Http2Stream::new(stream));
        match (written, body) {
            (Err(refusal), _) => self.refuse_unread(slot, (refusal, UNREAD, None), cx),
            (Ok(()), None) => self.handle(slot, &head, &[], cx),
            (Ok(()), Some(source)) => {
                if self.welcomes_body(slot, &head, cx) {
                    let http = self.turns.site.http();
                    let patience = http.head_timeout + http.body_timeout;
                    let partial = PartialRequest {
                        head: head.clone(),
                        body: Vec::new(),
                        source,
                        deadline: cx.now.mono.after(patience),
                    };
                    self.http2
                        .set(slot, StreamState::Receiving(Box::new(partial)));
                    self.read_body(slot, cx);
                }
            }
        }
        self.requests.head = head;
    }

    /// Refuses a request by its head alone, if that is enough. Returns true if its body is welcome.
    fn welcomes_body<I: Io>(
        &mut self,
        slot: StreamSlot,
        head: &[u8],
        cx: &mut EdgeContext<'_, I>,
    ) -> bool {
        let Requests {
            me,
            commands,
            table,
            ..
        } = &mut *self.requests;
        match read_head(head, &self.turns.site.limits, table) {
            Err((refusal, context, origin)) => {
                self.refuse_unread(slot, (refusal, context, origin.as_deref()), cx);
                false
            }
            Ok((_, false)) => true,
            Ok((request, true)) => {
                let whose = (*me, self.http2.peer());
                let mut rest = rest_of(cx);
                let (site, mut cx) = handlers(whose, commands, self.turns, &mut rest);
                if site.refuse_expecting(&request, &mut cx) {
                    self.http2.respond(slot, self.turns.responder.take_http2());
                    return false;
                }
                if let Some(stream) = self.http2.stream(slot) {
                    // If the stream is gone, reading its body will find it so.
                    let _ = stream.response.send_continue();
                }
                true
            }
        }
    }

    /// Reads the bodies that are awaited.
    fn read_bodies<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        for slot in self.http2.slots() {
            if self.http2.partial(slot).is_some() {
                self.read_body(slot, cx);
            }
        }
    }

    fn read_body<I: Io>(&mut self, slot: StreamSlot, cx: &mut EdgeContext<'_, I>) {
        let bytes_max = self.turns.site.limits.body_bytes_max;
        loop {
            let Some(partial) = self.http2.partial(slot) else {
                return;
            };
            match partial.source.poll() {
                BodyPart::Pending => return,
                BodyPart::Gone => return self.close(slot, StreamEnd::Client, cx),
                BodyPart::Bytes(bytes) if partial.body.len() + bytes.len() > bytes_max => {
                    let detail = "the body is larger than the limit";
                    let refusal = Refusal::new(Fault::BodyTooLarge, detail);
                    return self.refuse_partial(slot, &refusal.into(), cx);
                }
                BodyPart::Bytes(bytes) => partial.body.extend_from_slice(&bytes),
                BodyPart::End => {
                    if let Some(partial) = self.http2.take_partial(slot) {
                        self.handle(slot, &partial.head, &partial.body, cx);
                    }
                    return;
                }
            }
        }
    }

    /// Handles a request that is whole.
    fn handle<I: Io>(
        &mut self,
        slot: StreamSlot,
        head: &[u8],
        body: &[u8],
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Requests {
            me,
            commands,
            table,
            ..
        } = &mut *self.requests;
        let mut request = match read_head(head, &self.turns.site.limits, table) {
            Ok((request, _)) => request,
            Err((refusal, context, origin)) => {
                return self.refuse_unread(slot, (refusal, context, origin.as_deref()), cx);
            }
        };
        request.body = body;
        let whose = (*me, self.http2.peer());
        let carrier = Carrier::Http2(self.http2.socket(), slot);
        let mut rest = rest_of(cx);
        let (site, mut handler_cx) = handlers(whose, commands, self.turns, &mut rest);
        match site.handle(&request, carrier, &mut handler_cx) {
            Handled::Done(_) => self.http2.respond(slot, self.turns.responder.take_http2()),
            Handled::Wait(exchange, deadline) => {
                self.http2
                    .set(slot, StreamState::Waiting(exchange, deadline));
            }
            Handled::Pieces(exchange, deadline) => {
                self.http2.respond(slot, self.turns.responder.take_http2());
                let rest = bytes::Bytes::new();
                let pieces = Pieces {
                    exchange,
                    deadline,
                    rest,
                };
                self.http2.set(slot, StreamState::Pieces(pieces));
            }
            Handled::Stream(start) => {
                let Self {
                    http2,
                    streams,
                    turns,
                    ..
                } = self;
                streams.start_http2(http2, slot, &start, turns, cx);
            }
        }
    }

    /// Refuses a request that no route has handled.
    fn refuse_unread<I: Io>(
        &mut self,
        slot: StreamSlot,
        (refusal, context, origin): (Refusal, ResponseContext, Option<&[u8]>),
        cx: &mut EdgeContext<'_, I>,
    ) {
        let refused = Refused::from(refusal);
        self.refuse(slot, &refused, (context, origin), cx);
    }

    fn refuse<I: Io>(
        &mut self,
        slot: StreamSlot,
        refused: &Refused,
        (mut context, origin): (ResponseContext, Option<&[u8]>),
        cx: &mut EdgeContext<'_, I>,
    ) {
        let responder = &mut self.turns.responder;
        context.cors = responder.grant_unrouted(origin);
        let responded = responder.refuse(context, refused);
        cx.metrics.general.unrouted.bump(class(responded.status));
        self.http2.respond(slot, self.turns.responder.take_http2());
    }

    /// Refuses a request whose body is not complete. The client is told to stop once it has the
    /// response (RFC 9113 8.1).
    pub(super) fn refuse_partial<I: Io>(
        &mut self,
        slot: StreamSlot,
        refused: &Refused,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(partial) = self.http2.take_partial(slot) else {
            return;
        };
        let limits = &self.turns.site.limits;
        let origin = match read_head(&partial.head, limits, &mut self.requests.table) {
            Ok((request, _)) => request.headers.one("origin").ok().flatten().map(Box::from),
            Err((_, _, origin)) => origin,
        };
        let origin: Option<Box<[u8]>> = origin;
        self.refuse(slot, refused, (UNREAD, origin.as_deref()), cx);
    }

    /// No memory is left for partially received requests: refuses those of this connection.
    pub(super) fn refuse_partials<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        for slot in self.http2.slots() {
            self.refuse_partial(slot, &Failure::Overloaded.into(), cx);
        }
    }
}

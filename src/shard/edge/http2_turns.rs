//! The turns of connections of HTTP/2: how one begins, is served, flushed and ended, and what its
//! timer does.

use crate::config::HTTP2_STREAMS_MAX;
use crate::http::http2::{STREAMS_MAX, Session, SessionEnd, SessionLimits};
use crate::http::{Fault, Refusal};
use crate::metrics::{AcceptRefusal, CloseReason, GoAwayCause, StreamEnd};
use crate::model::Instant;
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, Read, SocketId};

use super::answers::Answers;
use super::clients::Asker;
use super::context::EdgeContext;
use super::exchanges::StreamSlot;
use super::http1::Http1;
use super::http2::{Http2, Overdue};
use super::http2_requests::{Http2Requests, ReadOn};
use super::requests::{Http2Begins, Requests};
use super::streams::Streams;
use super::turns::{READS_MAX, Turns};

/// What a client gets whose connection is one too many (RFC 9113 6.5 and 6.8): SETTINGS without a
/// setting, and GOAWAY with ENHANCE_YOUR_CALM for no stream.
const ONE_TOO_MANY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";

const _: () = {
    // A session bounds its streams to what a config may ask for.
    assert!(HTTP2_STREAMS_MAX <= STREAMS_MAX);
};

/// Serves connections of HTTP/2.
pub(super) struct Http2Turns<'a> {
    pub(super) requests: &'a mut Requests,
    pub(super) answers: &'a mut Answers,
    pub(super) streams: &'a mut Streams,
    pub(super) turns: &'a mut Turns,
}

impl Http2Turns<'_> {
    /// A client speaks HTTP/2.
    pub(super) fn begin<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        begins: &Http2Begins,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let settings = &self.turns.site.snapshot.config.settings;
        let totals = self.turns.clients.connections.totals();
        if !totals.http2.take(settings.http2.connections_max) {
            let general = &mut cx.metrics.general;
            general.connections_refused.bump(AcceptRefusal::Http2);
            general.http2_goaways.bump(GoAwayCause::Limit);
            if !http1.send(ONE_TOO_MANY, cx.io) {
                return self.turns.close(http1, CloseReason::Client, cx);
            }
            http1.on_early_end();
            return self.turns.end_turn(http1, false, cx);
        }
        let now = cx.now.mono;
        let limits = SessionLimits {
            streams_max: settings.http2.streams_max,
            head_bytes_max: settings.http.head_bytes_max,
            headers_max: settings.http.headers_max,
        };
        let mut session = Session::new(&limits, now);
        session.begin(begins.has_preface, &begins.bytes, now);
        let (socket, peer, transport, counted) = http1.into_http2();
        let http2 = Box::new(Http2::new((socket, peer), transport, session, now));
        let connections = &mut self.turns.clients.connections;
        connections.adopt_http2(counted, http2, cx.metrics);
    }

    /// Serves a connection that was taken out of the rotation.
    pub(super) fn serve<I: Io>(&mut self, mut http2: Box<Http2>, cx: &mut EdgeContext<'_, I>) {
        match http2.flush(cx.io, cx.now.mono) {
            Flushed::Gone => return self.close(http2, CloseReason::Client, cx),
            // Its client must read before it may ask for more.
            Flushed::Part => return self.finish(http2, false, cx),
            Flushed::All => {}
        }
        if http2.is_lingering() {
            return self.discard(http2, cx);
        }
        if self.turns.leaving.has_begun() && !http2.session().is_leaving() {
            http2.session().leave();
            cx.metrics.general.http2_goaways.bump(GoAwayCause::Drain);
        }
        let read = Http2Requests {
            http2: &mut http2,
            requests: self.requests,
            streams: self.streams,
            turns: self.turns,
        }
        .read(cx);
        match read {
            ReadOn::Closed(why) => self.close(http2, why, cx),
            read => self.finish(http2, read == ReadOn::Yield, cx),
        }
    }

    /// Sends what streams have given to a connection in this turn.
    pub(super) fn flush_next<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        if let Some(http2) = self.turns.clients.connections.next_sending() {
            self.finish(http2, false, cx);
        }
    }

    /// Ends the turn of a connection: sends what it has, enforces the limits of memory, and puts it
    /// back. `again`: it has more to read.
    fn finish<I: Io>(&mut self, mut http2: Box<Http2>, again: bool, cx: &mut EdgeContext<'_, I>) {
        let before = http2.sent_total();
        let flushed = http2.flush(cx.io, cx.now.mono);
        cx.metrics
            .general
            .sent_bytes
            .add(http2.sent_total() - before);
        if flushed == Flushed::Gone {
            return self.close(http2, CloseReason::Client, cx);
        }
        if http2.take_panicked() {
            cx.metrics.general.connection_panics.bump();
        }
        if let Some(end) = http2.ended() {
            self.close_streams(&mut http2, cx);
            if end == SessionEnd::Client {
                return self.close(http2, CloseReason::Client, cx);
            }
            if flushed == Flushed::All && !http2.is_lingering() {
                count_goaway(end, cx);
                http2.end_writes(cx.io, cx.now.mono);
            }
        }
        self.streams.on_http2_writable(&mut http2, cx);
        http2.update(cx.now.mono);
        self.put(http2, again, cx);
    }

    fn put<I: Io>(&mut self, http2: Box<Http2>, again: bool, cx: &mut EdgeContext<'_, I>) {
        let socket = http2.socket();
        let pieces = http2.pieces_due();
        let connections = &mut self.turns.clients.connections;
        let settings = self.turns.site.http();
        connections.put_http2(http2, settings);
        if again {
            connections.enqueue(socket);
        }
        let totals = connections.totals();
        let no_requests = totals.request_bytes.get() > settings.bodies_bytes_max;
        let no_responses = totals.response_bytes.get() > settings.responses_bytes_max;
        if (no_requests || no_responses)
            && let Some(mut http2) = connections.take_http2(socket)
        {
            if no_responses && http2.counted.responses > 0 {
                return self.close(http2, CloseReason::Refused, cx);
            }
            if no_requests && http2.counted.requests > 0 {
                // This client asks for more memory than is left for partially received requests.
                self.requests_of(&mut http2).refuse_partials(cx);
            }
            self.turns.put_http2(http2);
        }
        for (exchange, deadline) in pieces {
            if let Some(asker @ Asker::Http2(..)) = self.turns.clients.take_connection(exchange) {
                self.answers
                    .send_pages(asker, exchange, deadline, self.turns, cx);
            }
        }
    }

    fn requests_of<'h>(&'h mut self, http2: &'h mut Http2) -> Http2Requests<'h> {
        Http2Requests {
            http2,
            requests: self.requests,
            streams: self.streams,
            turns: self.turns,
        }
    }

    /// Reads on after the end, so that no reset overtakes the last bytes.
    fn discard<I: Io>(&mut self, mut http2: Box<Http2>, cx: &mut EdgeContext<'_, I>) {
        for _ in 0..READS_MAX {
            let count = match cx.io.read(http2.socket()) {
                Read::Blocked => return self.put(http2, false, cx),
                Read::Closed(_) => None,
                Read::Bytes(bytes) => Some(bytes.len()),
            };
            if !count.is_some_and(|count| http2.discard(count)) {
                let why = self.reason(&http2);
                return self.close(http2, why, cx);
            }
        }
        self.put(http2, true, cx);
    }

    /// Closes a connection that was taken out, and everything that its streams wait for.
    fn close<I: Io>(
        &mut self,
        mut http2: Box<Http2>,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        self.close_streams(&mut http2, cx);
        http2.close(cx.io);
        let connections = &mut self.turns.clients.connections;
        connections.close_http2(&http2, why, cx.close, cx.metrics);
    }

    /// Closes a connection whose client certificate is not trusted any more.
    pub(super) fn revoke<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        if let Some(http2) = self.turns.clients.connections.take_http2(socket) {
            self.close(http2, CloseReason::Refused, cx);
        }
    }

    fn close_streams<I: Io>(&mut self, http2: &mut Http2, cx: &mut EdgeContext<'_, I>) {
        let mut requests = self.requests_of(http2);
        for slot in requests.http2.slots() {
            requests.close(slot, StreamEnd::Client, cx);
        }
    }

    /// Why a connection is closed whose session has ended.
    fn reason(&self, http2: &Http2) -> CloseReason {
        match http2.ended() {
            Some(SessionEnd::Client) => CloseReason::Client,
            Some(SessionEnd::Violation | SessionEnd::Flood) => CloseReason::Refused,
            Some(SessionEnd::Done) | None if self.turns.leaving.has_begun() => CloseReason::Drain,
            Some(SessionEnd::Done) | None => CloseReason::Served,
        }
    }

    /// The timer of a connection.
    pub(super) fn on_timer<I: Io>(&mut self, socket: SocketId, cx: &mut EdgeContext<'_, I>) {
        let connections = &mut self.turns.clients.connections;
        let write_timeout = connections.write_timeout();
        let Some(mut http2) = connections.take_http2(socket) else {
            return;
        };
        let now = cx.now.mono;
        let settings = self.turns.site.http();
        if http2.is_stalled(write_timeout, now) {
            return self.close(http2, CloseReason::Timeout, cx);
        }
        if http2.is_overdue(settings, write_timeout, now) {
            if http2.is_lingering() {
                let why = self.reason(&http2);
                return self.close(http2, why, cx);
            }
            // Nothing is open, or a head does not come to its end.
            cx.metrics.general.http2_goaways.bump(GoAwayCause::Idle);
            http2.session().end_now();
        }
        let mut unanswered = Vec::new();
        for overdue in http2.overdue(write_timeout, now) {
            match overdue {
                Overdue::Answer(exchange) => unanswered.push(exchange),
                Overdue::Body(slot) => self.refuse_late(&mut http2, slot, cx),
                Overdue::Blocked(slot) => {
                    self.requests_of(&mut http2)
                        .close(slot, StreamEnd::Slow, cx);
                }
            }
        }
        self.finish(http2, false, cx);
        for exchange in unanswered {
            self.answers.give_up(exchange, self.turns, cx);
        }
    }

    /// The body of a request did not come in time.
    fn refuse_late<I: Io>(
        &mut self,
        http2: &mut Http2,
        slot: StreamSlot,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let refusal = Refusal::new(Fault::RequestTimeout, "the request did not arrive in time");
        self.requests_of(http2)
            .refuse_partial(slot, &refusal.into(), cx);
    }

    /// The process drains: what waits for other shards may wait until then.
    pub(super) fn drain(&mut self, socket: SocketId, until: Instant) {
        let connections = &mut self.turns.clients.connections;
        if let Some(mut http2) = connections.take_http2(socket) {
            http2.limit_deadlines(until);
            connections.put_http2(http2, self.turns.site.http());
            connections.enqueue(socket);
        }
    }
}

/// Counts the GOAWAY that has ended a session.
fn count_goaway<I>(end: SessionEnd, cx: &mut EdgeContext<'_, I>) {
    let cause = match end {
        SessionEnd::Violation => GoAwayCause::Violation,
        SessionEnd::Flood => GoAwayCause::Flood,
        // Counted when it was sent, or the client's own.
        SessionEnd::Done | SessionEnd::Client => return,
    };
    cx.metrics.general.http2_goaways.bump(cause);
}

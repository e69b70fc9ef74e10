//! A client's turn: send what waits, read, answer what is whole, send the answers in one write.

use crate::http::{
    CONTINUE, Drained, EVENT_STREAM, Fault, HeaderTable, NO_BUFFERING, PASS_THROUGH, Received,
    Refusal, Response, ResponseContext, StatusCode,
};
use crate::metrics::{CloseReason, ShardMetrics};
use crate::model::Instant;
use crate::route::{Failure, Refused};
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, Part, Read, Remote};
use crate::shard::outbox::Outbox;
use crate::shard::projections::Projections;

use super::context::EdgeContext;
use super::handlers::{Handled, HandlerContext, StreamStart};
use super::http1::Http1;
use super::leaving::Leaving;
use super::lifecycle::Edge;
use super::phase::Phase;
use super::responses::class;
use super::site::Site;
use super::streams::Clients;

/// Requests of one client that are answered before the next client has its turn.
const PIPELINED_MAX: usize = 64;

/// Bytes of answers to one client after which the next client has its turn: what is pipelined waits
/// until the socket has taken them.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// Reads of one client in one turn.
const READS_MAX: usize = 4;

/// How long an idle connection may still send a request when the process drains. Its request may be
/// a round trip behind, if the connection just came out of the accept queue or was just answered.
/// Such a request is refused. If the connection were closed at once, the client would get no answer
/// to it.
const LAST_REQUEST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// The result of serving the received bytes of a connection.
enum Progress {
    /// All of them are used; read on.
    More,
    /// A request waits, or the connection ends: do not read.
    Stop,
    /// Other clients must have their turn; continue later.
    Yield,
    /// The response becomes a stream.
    Stream(Box<StreamStart>),
}

impl Edge {
    /// Serves clients in rotation until the part is spent. Returns true if some are left.
    #[must_use]
    pub(in crate::shard) fn serve<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) -> bool {
        while self.connections.has_ready() {
            if cx.io.spent(Part::Serve) {
                return true;
            }
            if let Some(Some(http1)) = self.connections.next_ready() {
                self.serve_client(http1, cx);
            }
        }
        false
    }

    fn serve_client<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        match http1.flush(cx.io, cx.now.mono) {
            Flushed::All => {}
            Flushed::Part => return self.connections.put(http1),
            Flushed::Gone => return self.close(http1, CloseReason::Client, cx),
        }
        match http1.phase() {
            Phase::Closing => self.close(http1, CloseReason::Served, cx),
            Phase::Waiting => self.check_waiting(http1, cx),
            Phase::Sending => self.send_pages(http1, cx),
            Phase::Discarding | Phase::Lingering => self.discard(http1, cx),
            Phase::Reading => self.read(http1, cx),
        }
    }

    fn read<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        // What was pipelined behind the last answer comes before what the socket has.
        let mut progress = if http1.has_pipelined() {
            self.serve_received(&mut http1, &[], &mut rest_of(cx))
        } else {
            Progress::More
        };
        let mut reads = 0;
        let mut ended = None;
        while matches!(progress, Progress::More) {
            if reads == READS_MAX {
                progress = Progress::Yield;
                break;
            }
            reads += 1;
            let bytes = match cx.io.read(http1.socket()) {
                Read::Bytes(bytes) => bytes,
                Read::Blocked => break,
                Read::Closed(error) => {
                    ended = Some(error);
                    break;
                }
            };
            cx.metrics.general.received_bytes.add(bytes.len() as u64);
            let mut plain = std::mem::take(&mut self.plain);
            progress = match http1.decrypt(bytes, &mut plain) {
                Some(bytes) => {
                    // Not the sockets, which hold the bytes.
                    let mut rest = Rest {
                        now: cx.now.mono,
                        projections: cx.projections,
                        out: cx.out,
                        metrics: cx.metrics,
                    };
                    self.serve_received(&mut http1, bytes, &mut rest)
                }
                None => {
                    http1.on_broken_tls();
                    Progress::Stop
                }
            };
            self.plain = plain;
        }
        let gone = !self.send_responses(&mut http1, cx);
        match ended {
            _ if gone => return self.close(http1, CloseReason::Client, cx),
            None => {}
            // A client that sends no more may still read: it gets what it asked for.
            Some(None) if http1.is_sending() => {
                http1.on_client_end();
                progress = Progress::Stop;
            }
            Some(_) => return self.close(http1, CloseReason::Client, cx),
        }
        if let Progress::Stream(start) = progress {
            return self.start_stream(http1, &start, cx);
        }
        if let (Leaving::Drain(until), Progress::More) = (self.leaving, &progress)
            && !http1.is_sending()
        {
            return self.dismiss(http1, until, cx);
        }
        // The client's end may have arrived with its request. Then no further event reports it.
        let waits = http1.phase() == Phase::Waiting;
        let ended = waits && cx.io.remote(http1.socket()) != Remote::Open;
        self.end_turn(http1, ended || matches!(progress, Progress::Yield), cx);
    }

    /// Answers every whole request of `input`, up to the first that must wait.
    fn serve_received(&mut self, http1: &mut Http1, input: &[u8], rest: &mut Rest<'_>) -> Progress {
        let mut table = std::mem::take(&mut self.table);
        let progress = self.serve_requests(http1, input, &mut table, rest);
        self.table = table;
        progress
    }

    fn serve_requests(
        &mut self,
        http1: &mut Http1,
        mut input: &[u8],
        table: &mut HeaderTable,
        rest: &mut Rest<'_>,
    ) -> Progress {
        let socket = http1.socket();
        for _ in 0..PIPELINED_MAX {
            match http1.receive(input, &self.site.limits, table) {
                Received::More => return Progress::More,
                Received::Continue(request) => {
                    let (site, mut cx) = self.handlers(rest);
                    if !site.refuse_expecting(&request, &mut cx) {
                        self.responder.interim(CONTINUE);
                        return Progress::More;
                    }
                    http1.on_early_end();
                    return Progress::Stop;
                }
                Received::Refused(refusal, mut context, origin) => {
                    context.cors = self.responder.grant_to(origin.as_deref());
                    let responded = self.responder.refuse(context, &refusal.into());
                    rest.metrics.general.unrouted.bump(class(responded.status));
                    http1.on_early_end();
                    return Progress::Stop;
                }
                Received::Request(request, used) => {
                    let (site, mut cx) = self.handlers(rest);
                    let handled = site.handle(&request, socket, &mut cx);
                    input = &input[used..];
                    match handled {
                        Handled::Done(framed) if framed.close => {
                            self.end_after(http1);
                            return Progress::Stop;
                        }
                        Handled::Done(_) => http1.on_response(),
                        Handled::Wait(exchange, deadline) => {
                            http1.keep(input);
                            http1.on_wait(exchange, deadline);
                            return Progress::Stop;
                        }
                        Handled::Pieces(exchange, deadline) => {
                            http1.keep(input);
                            http1.on_pieces(exchange, deadline);
                            return Progress::Stop;
                        }
                        Handled::Stream(start) => return Progress::Stream(start),
                    }
                }
            }
            if input.is_empty() && !http1.has_pipelined() {
                return Progress::More;
            }
            if self.responder.len() > ANSWERS_BYTES_MAX {
                break;
            }
        }
        http1.keep(input);
        Progress::Yield
    }

    /// The handlers, and what they work with.
    fn handlers<'a>(&'a mut self, rest: &'a mut Rest<'_>) -> (&'a Site, HandlerContext<'a>) {
        let cx = HandlerContext {
            me: self.me,
            now: rest.now,
            leaving: self.leaving,
            responder: &mut self.responder,
            exchanges: &mut self.exchanges,
            commands: &mut self.commands,
            projections: rest.projections,
            out: rest.out,
            metrics: rest.metrics,
        };
        (&self.site, cx)
    }

    /// The last response of a connection is written. A client that asked for the end sends no more;
    /// if the gateway is leaving, the client may not expect the end.
    pub(super) fn end_after(&self, http1: &mut Http1) {
        if self.leaving.has_begun() {
            http1.on_early_end();
        } else {
            http1.on_last_response();
        }
    }

    /// Sends what was written in this client's turn. Returns false if the connection is broken.
    fn send_responses<I: Io>(&mut self, http1: &mut Http1, cx: &mut EdgeContext<'_, I>) -> bool {
        let out = self.responder.take();
        cx.metrics.general.sent_bytes.add(out.len() as u64);
        let sent = http1.send(&out, cx.io);
        self.responder.give_back(out);
        sent
    }

    /// Sends the response of a request that waited, and continues with what was pipelined behind
    /// it.
    pub(super) fn resume<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        if self.send_responses(&mut http1, cx) {
            self.end_turn(http1, true, cx);
        } else {
            self.close(http1, CloseReason::Client, cx);
        }
    }

    /// Ends the turn of a connection: updates its deadline, enforces the limits of memory, and puts
    /// it back. `again`: the connection has work left.
    fn end_turn<I: Io>(&mut self, mut http1: Box<Http1>, again: bool, cx: &mut EdgeContext<'_, I>) {
        let now = cx.now.mono;
        let flushed = http1.flush(cx.io, now);
        match (flushed, http1.phase()) {
            (Flushed::Gone, _) => return self.close(http1, CloseReason::Client, cx),
            (Flushed::All, Phase::Closing) => return self.close(http1, CloseReason::Served, cx),
            (Flushed::All, _) => http1.end_writes(cx.io, now),
            (Flushed::Part, _) => {}
        }
        let settings = self.site.http();
        http1.update_deadline(settings, now);
        self.connections.count(&mut http1);
        let totals = self.connections.totals();
        if http1.has_started_request() && totals.request_bytes.get() > settings.bodies_bytes_max {
            // This client asks for more memory than is left for partially received requests.
            return self.turn_away(http1, &Failure::Overloaded.into(), cx);
        }
        if http1.backlog() > 0 && totals.response_bytes.get() > settings.responses_bytes_max {
            return self.close(http1, CloseReason::Refused, cx);
        }
        let socket = http1.socket();
        let next_page = http1.phase() == Phase::Sending && http1.backlog() == 0;
        self.connections.put(http1);
        if again || next_page {
            self.connections.enqueue(socket);
        }
    }

    /// Ends a connection on which the last read of the drain found no whole request.
    fn dismiss<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        until: Instant,
        cx: &mut EdgeContext<'_, I>,
    ) {
        if http1.has_started_request() {
            return self.turn_away(http1, &Failure::Draining.into(), cx);
        }
        http1.limit_deadline(cx.now.mono.after(LAST_REQUEST_WAIT).min(until));
        match http1.flush(cx.io, cx.now.mono) {
            Flushed::Gone => self.close(http1, CloseReason::Client, cx),
            Flushed::All | Flushed::Part => self.connections.put(http1),
        }
    }

    /// Checks whether a client still waits for its response. Its socket is not read meanwhile, so
    /// only reported events show that the client has disconnected.
    fn check_waiting<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        let wanted = match cx.io.remote(http1.socket()) {
            Remote::Open => true,
            Remote::Ended => http1.probe(cx.io),
            Remote::Gone => false,
        };
        if wanted {
            self.connections.put(http1);
        } else {
            self.close(http1, CloseReason::Client, cx);
        }
    }

    /// A request was not received in time.
    pub(super) fn refuse_late<I: Io>(&mut self, http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        let refusal = Refusal::new(Fault::RequestTimeout, "the request did not arrive in time");
        self.turn_away(http1, &refusal.into(), cx);
    }

    /// Ends a connection in the middle of a request. The client receives the reason, and the
    /// partial request is dropped.
    fn turn_away<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        refused: &Refused,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let origin = http1.origin(&self.site.limits);
        let context = ResponseContext {
            cors: self.responder.grant_to(origin.as_deref()),
            ..ResponseContext::UNREAD
        };
        let responded = self.responder.refuse(context, refused);
        cx.metrics.general.unrouted.bump(class(responded.status));
        if !self.send_responses(&mut http1, cx) {
            return self.close(http1, CloseReason::Client, cx);
        }
        http1.on_early_end();
        self.end_turn(http1, false, cx);
    }

    /// Reads on after a refusal, so that no reset overtakes the answer.
    fn discard<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        http1.end_writes(cx.io, cx.now.mono);
        let why = if self.leaving.has_begun() {
            CloseReason::Drain
        } else {
            CloseReason::Refused
        };
        for _ in 0..READS_MAX {
            match cx.io.read(http1.socket()) {
                Read::Blocked => return self.connections.put(http1),
                Read::Closed(_) => return self.close(http1, why, cx),
                Read::Bytes(bytes) => {
                    if http1.discard(bytes.len()) == Drained::Close {
                        return self.close(http1, why, cx);
                    }
                }
            }
        }
        let socket = http1.socket();
        self.connections.put(http1);
        self.connections.enqueue(socket);
    }

    /// Turns a connection into a stream's: sends the head of the response, then subscribes to the
    /// feed.
    fn start_stream<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        start: &StreamStart,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let context = start.context;
        // At its limit, while it is leaving, or while the topic is loaded, a gateway takes no new
        // stream.
        let projection = cx.projections.get(start.plan.topic);
        let loading = projection.is_none_or(|projection| projection.feed().is_none());
        let streams_max = self.site.streams().streams_max;
        let refused = context.head_only || self.leaving.has_begun() || loading;
        let full = refused || !self.connections.totals().streams.take(streams_max);
        let mut response = Response::new(StatusCode::OK);
        response
            .fixed(&EVENT_STREAM)
            .fixed(&PASS_THROUGH)
            .fixed(&NO_BUFFERING)
            .stream();
        let framed = self.responder.respond(context, response).framed;
        if full {
            // A native EventSource never reconnects after any other status.
            if !context.head_only {
                let retry = self.streams.retry_later(self.site.streams());
                let retry = format!("retry: {retry}\n\n");
                self.responder.piece(framed, retry.as_bytes());
            }
            self.responder.end(framed);
            http1.on_last_response();
            return self.resume(http1, cx);
        }
        if !self.send_responses(&mut http1, cx) {
            self.connections.totals().streams.give_back();
            return self.close(http1, CloseReason::Client, cx);
        }
        let (connections, exchanges) = (&mut self.connections, &mut self.exchanges);
        let mut clients = Clients {
            connections,
            exchanges,
        };
        let start = (start, framed);
        self.streams
            .open(http1, start, &self.site, &mut clients, cx);
    }
}

/// The parts of the shard that handlers use, without the sockets.
struct Rest<'a> {
    now: Instant,
    projections: &'a Projections,
    out: &'a mut Outbox,
    metrics: &'a mut ShardMetrics,
}

fn rest_of<'a, I>(cx: &'a mut EdgeContext<'_, I>) -> Rest<'a> {
    Rest {
        now: cx.now.mono,
        projections: cx.projections,
        out: cx.out,
        metrics: cx.metrics,
    }
}

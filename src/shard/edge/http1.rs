//! One HTTP/1.1 connection: its transport, what it received, what it has to send, and its
//! deadlines. A plain state machine without a task or a timer; an idle one holds no buffer.

use std::io::IoSlice;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Http as HttpSettings;
use crate::http::http2::PREFACE;
use crate::http::{
    Connection, Drain, Drained, HeaderTable, Limits, ProxyHeader, ProxySource, Received,
};
use crate::model::{ExchangeId, Instant, PanicAt, panic_if_planted};
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, SocketId};
use crate::shard::totals::HandshakePlace;

use super::phase::Phase;
use super::transport::{Sent, Transport};

/// The first byte of every response (RFC 9112 4: `HTTP-name` is case-sensitive).
const RESPONSE_BEGINS: [u8; 1] = *b"H";

/// How long a body may come at any rate: a slow start of TCP, a client that composes it.
const BODY_RATE_GRACE: Duration = Duration::from_secs(5);

/// How long input after the last response is discarded.
pub(super) const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Bytes held for a connection, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryUsed {
    /// Partially received requests, and requests pipelined behind one that waits.
    pub(super) requests: usize,
    /// Responses that the socket has not taken.
    pub(super) responses: usize,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// A part of HTTP/2's preface. More must come.
    Part,
    /// The rest of HTTP/2's preface, and how many bytes of the input belong to it.
    Whole(usize),
    /// HTTP/1.1. These bytes came before the input.
    Other(&'static [u8]),
}

/// An HTTP/1.1 connection. If its response becomes an event stream, it is taken apart with
/// [`Self::into_stream`].
#[derive(Debug)]
pub(super) struct Http1 {
    socket: SocketId,
    /// The address of the client's end.
    peer: IpAddr,
    transport: Transport,
    /// The header of the PROXY protocol that is awaited.
    proxy_header: Option<Box<ProxyHeader>>,
    /// The place among the connections in their handshake, until that is complete.
    handshake: Option<HandshakePlace>,
    decoder: Connection,
    /// How many bytes of HTTP/2's preface have come. `None`: the connection speaks HTTP/1.1.
    preface: Option<u8>,
    phase: Phase,
    /// The open exchange. An HTTP/1.1 connection has one at most.
    exchange: Option<ExchangeId>,
    /// Counts the input that is discarded after the last response.
    drain: Drain,
    /// Whether the first byte of the next response has been sent ahead of the rest.
    begun: bool,
    /// Response bytes that the socket has not taken.
    backlog: Vec<u8>,
    backlog_sent: usize,
    /// When the phase must be over.
    deadline: Instant,
    /// Since when no request is in progress: the accept, or the last response. `None`: a response
    /// was written and its time is not noted yet. Bytes alone, such as part of a TLS record or an
    /// empty line, do not change it.
    idle_since: Option<Instant>,
    /// When the first byte of a partially received request came.
    started: Option<Instant>,
    /// Since when the body of a partially received request is awaited, and the bytes that were
    /// here then.
    body_since: Option<(Instant, usize)>,
    /// Since when the socket has taken nothing although bytes wait for it.
    stalled: Option<Instant>,
    /// What [`Connections`](super::connections::Connections) last counted for the connection.
    pub(super) counted: MemoryUsed,
    /// Whether the connection is in the rotation.
    pub(super) queued: bool,
}

impl Http1 {
    pub(super) fn new(
        (socket, peer): (SocketId, IpAddr),
        transport: Transport,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            socket,
            peer,
            transport,
            proxy_header: None,
            handshake: None,
            decoder: Connection::new(),
            preface: None,
            phase: Phase::Reading,
            exchange: None,
            drain: Drain::new(),
            begun: false,
            backlog: Vec::new(),
            backlog_sent: 0,
            deadline,
            idle_since: Some(now),
            started: None,
            body_since: None,
            stalled: None,
            counted: MemoryUsed::default(),
            queued: false,
        }
    }

    pub(super) const fn socket(&self) -> SocketId {
        self.socket
    }

    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The open exchange, if any.
    pub(super) const fn exchange(&self) -> Option<ExchangeId> {
        self.exchange
    }

    pub(super) fn memory_used(&self) -> MemoryUsed {
        MemoryUsed {
            requests: self.decoder.kept(),
            responses: self.backlog(),
        }
    }

    // HTTP/2.

    /// The client may begin with HTTP/2's preface, because it knows that it may (RFC 9113 3.3).
    pub(super) const fn expect_preface(&mut self) {
        self.preface = Some(0);
    }

    /// Whether the next bytes may belong to HTTP/2's preface.
    pub(super) const fn may_have_preface(&self) -> bool {
        self.preface.is_some()
    }

    /// Compares the first bytes of the connection with HTTP/2's preface.
    pub(super) fn match_preface(&mut self, input: &[u8]) -> Preface {
        let matched = usize::from(self.preface.take().unwrap_or(0));
        let rest = &PREFACE[matched..];
        let compared = rest.len().min(input.len());
        if rest[..compared] != input[..compared] {
            return Preface::Other(&PREFACE[..matched]);
        }
        if compared == rest.len() {
            return Preface::Whole(compared);
        }
        self.preface = u8::try_from(matched + compared).ok();
        Preface::Part
    }

    /// Whether the client has chosen HTTP/2 in its TLS handshake (RFC 9113 3.2).
    pub(super) fn has_chosen_http2(&self) -> bool {
        self.transport.speaks_http2()
    }

    /// What a connection of HTTP/2 takes over.
    pub(super) fn into_http2(self) -> (SocketId, IpAddr, Transport, MemoryUsed) {
        (self.socket, self.peer, self.transport, self.counted)
    }

    // What is received.

    /// Turns received bytes into plaintext. `None` if TLS failed, and the alert then waits to be
    /// sent; or if the header of the PROXY protocol is malformed.
    pub(super) fn decrypt<'b>(
        &mut self,
        bytes: &'b [u8],
        plain: &'b mut Vec<u8>,
    ) -> Option<&'b [u8]> {
        let bytes = self.read_proxy_header(bytes)?;
        let decrypted = match &mut self.transport {
            Transport::Plain => Some(bytes),
            Transport::Tls(session) => {
                plain.clear();
                session.on_bytes(bytes, plain).is_ok().then_some(&plain[..])
            }
        };
        if self.handshake.is_some() && !self.is_handshaking() {
            self.handshake = None;
        }
        decrypted
    }

    /// Reads the header of the PROXY protocol, if one is expected, and takes over the client's
    /// address. Returns the bytes behind it; `None` if it is malformed.
    fn read_proxy_header<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let Some(header) = &mut self.proxy_header else {
            return Some(bytes);
        };
        let Some((taken, source)) = header.on_bytes(bytes).ok()? else {
            return Some(&[]);
        };
        self.proxy_header = None;
        if let ProxySource::Client(address) = source {
            self.peer = address.ip();
        }
        Some(&bytes[taken..])
    }

    /// A handshake begins, which has this place until it is complete or the connection ends.
    pub(super) fn begin_handshake(&mut self, place: HandshakePlace) {
        self.handshake = Some(place);
    }

    /// Before the client's first byte comes a header of the PROXY protocol.
    pub(super) fn expect_proxy_header(&mut self) {
        self.proxy_header = Some(Box::default());
    }

    /// Whether the client has yet to finish what comes before its first request: the header of the
    /// PROXY protocol, and the TLS handshake.
    pub(super) fn is_handshaking(&self) -> bool {
        self.proxy_header.is_some() || self.transport.is_handshaking()
    }

    /// Looks for a whole request in what was kept and `input`.
    pub(super) fn receive<'b>(
        &'b mut self,
        input: &'b [u8],
        limits: &Limits,
        table: &'b mut HeaderTable,
    ) -> Received<'b> {
        panic_if_planted(PanicAt::Parse, input);
        self.decoder.receive(input, limits, table)
    }

    /// Keeps what was pipelined behind a request.
    pub(super) fn keep(&mut self, input: &[u8]) {
        self.decoder.keep(input);
    }

    /// Whether more requests, or part of one, were received behind the last one.
    pub(super) fn has_pipelined(&self) -> bool {
        self.decoder.kept() > 0
    }

    /// Whether a partially received request is here.
    pub(super) fn has_started_request(&self) -> bool {
        let started = self.decoder.started() || self.preface.is_some_and(|matched| matched > 0);
        self.phase == Phase::Reading && started
    }

    /// The single `Origin` of a request whose body is awaited.
    pub(super) fn origin(&self, limits: &Limits) -> Option<Box<[u8]>> {
        self.decoder.origin(limits)
    }

    /// Counts input that is discarded after the last response.
    pub(super) const fn count_discarded(&mut self, count: usize) -> Drained {
        self.drain.on_bytes(count)
    }

    // What happens to exchanges.

    /// The request waits for another shard until `deadline`.
    pub(super) fn on_wait(&mut self, exchange: ExchangeId, deadline: Instant) {
        self.phase.on_wait();
        self.exchange = Some(exchange);
        self.started = None;
        self.deadline = deadline;
    }

    /// The body of the response comes in pieces, the first before `deadline`.
    pub(super) fn on_pieces(&mut self, exchange: ExchangeId, deadline: Instant) {
        self.phase.on_pieces();
        self.exchange = Some(exchange);
        self.started = None;
        self.deadline = deadline;
    }

    /// A piece was sent; the next comes before `deadline`.
    pub(super) const fn extend_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// The open exchange has at most until `until`.
    pub(super) fn limit_deadline(&mut self, until: Instant) {
        self.deadline = self.deadline.min(until);
    }

    /// A response is complete, and another request may follow.
    pub(super) fn on_response(&mut self) {
        self.phase.on_response();
        self.end_exchange();
    }

    /// The last response is complete, as the client expects.
    pub(super) fn on_last_response(&mut self) {
        self.phase.on_last_response();
        self.end_exchange();
    }

    /// The last response is complete, and the client may still send.
    pub(super) fn on_early_end(&mut self) {
        self.phase.on_early_end();
        self.decoder = Connection::new();
        self.end_exchange();
    }

    fn end_exchange(&mut self) {
        self.exchange = None;
        self.started = None;
        self.idle_since = None;
    }

    /// TLS failed. The alert is sent before the connection is closed.
    pub(super) fn on_broken_tls(&mut self) {
        self.phase.on_broken_tls();
    }

    /// Its bytes made the gateway panic. Nothing of the connection is used again.
    pub(super) fn on_panic(&mut self) {
        self.phase.on_panic();
        self.decoder = Connection::new();
    }

    /// The client ended its side and may still read what waits for its socket.
    pub(super) fn on_client_end(&mut self) {
        if self.phase == Phase::Reading {
            self.phase.on_client_end();
        }
    }

    // What is sent.

    /// Bytes of responses that the socket has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.backlog.len() - self.backlog_sent
    }

    /// Whether bytes wait for the socket.
    pub(super) fn is_sending(&self) -> bool {
        self.backlog() + self.transport.waiting() > 0
    }

    /// Sends `bytes` after what waits already, and keeps what is not taken. Returns false if the
    /// connection is broken.
    pub(super) fn send(&mut self, mut bytes: &[u8], io: &mut impl Io) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.begun && self.phase != Phase::Waiting {
            debug_assert!(
                bytes.starts_with(&RESPONSE_BEGINS),
                "every response begins so"
            );
            self.begun = false;
            bytes = &bytes[RESPONSE_BEGINS.len()..];
        }
        self.send_all(bytes, io)
    }

    fn send_all(&mut self, bytes: &[u8], io: &mut impl Io) -> bool {
        let mut taken = 0;
        if self.backlog() == 0 {
            match self.transport.send(self.socket, io, &[IoSlice::new(bytes)]) {
                Sent::Bytes(bytes) => taken = bytes,
                Sent::Gone => return false,
            }
        }
        self.backlog.extend_from_slice(&bytes[taken..]);
        true
    }

    /// Finds out whether a client that sends no more has closed or still reads. Both appear as a
    /// FIN. A closed socket answers bytes with a reset, so the first byte of the response is sent
    /// ahead: it is the same for every response. Returns false if the client has already closed.
    pub(super) fn probe(&mut self, io: &mut impl Io) -> bool {
        debug_assert_eq!(
            self.phase,
            Phase::Waiting,
            "no byte of the response was sent"
        );
        std::mem::replace(&mut self.begun, true) || self.send_all(&RESPONSE_BEGINS, io)
    }

    /// Sends what waits. `All`: nothing waits any more.
    pub(super) fn flush(&mut self, io: &mut impl Io, now: Instant) -> Flushed {
        let before = (self.backlog(), self.transport.ciphertext_sent());
        let flushed = self.send_backlog(io);
        let after = (self.backlog(), self.transport.ciphertext_sent());
        self.stalled = match (flushed, self.stalled) {
            (Flushed::Part, Some(since)) if after == before => Some(since),
            (Flushed::Part, _) => Some(now),
            _ => None,
        };
        flushed
    }

    fn send_backlog(&mut self, io: &mut impl Io) -> Flushed {
        while self.backlog() > 0 {
            let rest = &self.backlog[self.backlog_sent..];
            match self.transport.send(self.socket, io, &[IoSlice::new(rest)]) {
                Sent::Bytes(taken) => {
                    let full = taken < rest.len();
                    self.backlog_sent += taken;
                    if full {
                        return Flushed::Part;
                    }
                }
                Sent::Gone => return Flushed::Gone,
            }
        }
        if self.backlog_sent > 0 {
            self.backlog = Vec::new(); // An idle connection keeps no buffer.
            self.backlog_sent = 0;
        }
        self.transport.flush(self.socket, io)
    }

    /// Ends our side once the last response is sent. The client then sees the end at once, and may
    /// answer with its own end. The socket stays open for a while, because Linux answers bytes
    /// after a close with a reset, which may destroy the response.
    pub(super) fn end_writes(&mut self, io: &mut impl Io, now: Instant) {
        if self.phase == Phase::Discarding {
            self.phase.on_end_writes();
            self.transport.close(self.socket, io);
            io.end_writes(self.socket);
            self.deadline = now.after(DISCARD_TIME);
        }
    }

    /// Sends the transport's close message, if it has one.
    pub(super) fn close(&mut self, io: &mut impl Io) {
        self.transport.close(self.socket, io);
    }

    /// What a stream keeps of its connection: the bytes of the head that the socket has not taken,
    /// and the transport.
    pub(super) fn into_stream(self) -> (Option<Box<[u8]>>, Transport) {
        let rest: Box<[u8]> = self.backlog[self.backlog_sent..].into();
        ((!rest.is_empty()).then_some(rest), self.transport)
    }

    // When it must be over.

    /// Sets the deadline of the present phase.
    pub(super) fn update_deadline(&mut self, settings: &HttpSettings, now: Instant) {
        if self.has_started_request() {
            self.started.get_or_insert(now);
        } else {
            self.started = None;
        }
        let here = self.decoder.kept();
        let awaits_body = self.started.is_some() && self.decoder.awaits_body();
        self.body_since = awaits_body.then(|| self.body_since.unwrap_or((now, here)));
        self.deadline = match (self.phase, self.started) {
            (Phase::Discarding | Phase::Lingering, _) => now.after(DISCARD_TIME),
            // Until the handshake is done, the deadline that the accept has set applies.
            (Phase::Reading, None) if self.is_handshaking() => self.deadline,
            (Phase::Reading, None) => {
                let idle_since = *self.idle_since.get_or_insert(now);
                idle_since.after(settings.idle_timeout)
            }
            (Phase::Reading, Some(began)) if awaits_body => {
                let whole = began.after(settings.head_timeout + settings.body_timeout);
                whole.min(self.body_rate_deadline(settings.body_rate_min))
            }
            (Phase::Reading, Some(began)) => began.after(settings.head_timeout),
            (Phase::Waiting | Phase::Sending | Phase::Closing, _) => self.deadline,
        };
    }

    /// When more of the body must be here than is now, for it to come at the least rate.
    fn body_rate_deadline(&self, rate: Option<usize>) -> Instant {
        let (Some((since, before)), Some(rate)) = (self.body_since, rate) else {
            return Instant::MAX;
        };
        let received = self.decoder.kept().saturating_sub(before) as u64;
        let micros = received.saturating_mul(1_000_000) / rate.max(1) as u64;
        since.after(BODY_RATE_GRACE + Duration::from_micros(micros))
    }

    /// When the connection must be looked at: its phase takes too long, or its socket takes
    /// nothing. While a response is sent, only the second counts: nothing is expected of the
    /// client.
    pub(super) fn next_timeout(&self, write_timeout: Duration) -> Instant {
        let stalled = self.stalled.map(|since| since.after(write_timeout));
        match stalled {
            None => self.deadline,
            Some(at) if self.is_handshaking() => at.min(self.deadline),
            Some(at) if self.phase.has_exchange() => at.min(self.deadline),
            Some(at) => at,
        }
    }

    /// Whether the socket has taken nothing for too long.
    pub(super) fn is_stalled(&self, write_timeout: Duration, now: Instant) -> bool {
        self.stalled
            .is_some_and(|since| since.after(write_timeout) <= now)
    }
}

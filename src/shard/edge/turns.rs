//! How a client's turn ends: its responses leave in one write, and its connection is put back,
//! closed, or read on only to discard what still comes.

use std::net::IpAddr;

use crate::http::{Drained, Fault, Refusal, ResponseContext};
use crate::metrics::CloseReason;
use crate::model::{ExchangeId, Identity, Instant, Tenant};
use crate::route::{Failure, Refused};
use crate::shard::ciphertext::Flushed;
use crate::shard::client_limits::ClientCells;
use crate::shard::io::{Io, Read, Remote};

use super::clients::{Asker, Clients};
use super::context::EdgeContext;
use super::exchanges::OpenRequest;
use super::gzip_cache::GzipCache;
use super::http1::Http1;
use super::http2::Http2;
use super::leaving::Leaving;
use super::phase::Phase;
use super::responder::Responder;
use super::responses::class;
use super::site::Site;

/// Reads of one client in one turn.
pub(super) const READS_MAX: usize = 4;

/// How long an idle connection may still send a request when the process drains. Its request may be
/// a round trip behind, if the connection just came out of the accept queue or was just answered.
/// Such a request is refused. If the connection were closed at once, the client would get no answer
/// to it.
const LAST_REQUEST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// The clients of a shard, what writes their responses, and what limits them.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) site: Site,
    pub(super) clients: Clients,
    pub(super) responder: Responder,
    pub(super) gzip: GzipCache,
    pub(super) leaving: Leaving,
}

/// An address has as many connections as it may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressFull;

impl Turns {
    pub(super) fn new(site: Site, clients: Clients) -> Self {
        Self {
            responder: Responder::new(site.cors.policies()),
            site,
            clients,
            gzip: GzipCache::default(),
            leaving: Leaving::No,
        }
    }

    /// Takes over another snapshot's routes. An open exchange keeps what its answer needs.
    pub(super) fn load(&mut self, site: Site) {
        self.responder.set_cors(site.cors.policies());
        self.site = site;
    }

    /// Takes a place among the connections of an address. `None`: they are not limited.
    pub(super) fn take_address(&self, peer: IpAddr) -> Result<Option<ClientCells>, AddressFull> {
        let settings = &self.site.snapshot.config.settings;
        let Some(max) = settings.http.address_connections_max else {
            return Ok(None);
        };
        // A proxy has the connections of all its clients.
        if settings.proxies.iter().any(|it| it.contains(peer)) {
            return Ok(None);
        }
        let clients = &self.clients.connections.totals().clients;
        let cells = clients.cells(&Tenant::of(&Identity::ANONYMOUS, peer));
        if clients.connections.take(cells, max) {
            Ok(Some(cells))
        } else {
            Err(AddressFull)
        }
    }

    /// Closes a connection that was taken out, and cancels its exchange.
    pub(super) fn close<I: Io>(
        &mut self,
        http1: Box<Http1>,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        self.clients.close(http1, why, cx);
    }

    /// Puts back a connection that waits for its socket, its client or another shard.
    pub(super) fn put(&mut self, http1: Box<Http1>) {
        self.clients.connections.put(http1);
    }

    /// Closes the exchange of a request that waits, and takes out its connection, to answer it.
    /// `None` if the client has disconnected.
    pub(super) fn take_waiting(&mut self, exchange: ExchangeId) -> Option<(Asker, OpenRequest)> {
        let (asker, mut request) = self.clients.take_waiting(exchange)?;
        if let Asker::Http1(http1) = &asker {
            // The process may have begun to drain since the request came.
            request.context.keep_alive &= http1.has_pipelined() || !self.leaving.has_begun();
        }
        Some((asker, request))
    }

    /// Puts back a connection of HTTP/2. What its streams have to send leaves at the end of the
    /// turn.
    pub(super) fn put_http2(&mut self, http2: Box<Http2>) {
        let socket = http2.socket();
        self.clients.connections.put_http2(http2, self.site.http());
        self.clients.connections.send_later(socket);
    }

    /// Puts back the connection of an exchange that stays open.
    pub(super) fn put_asker(&mut self, asker: Asker) {
        match asker {
            Asker::Http1(http1) => self.put(http1),
            Asker::Http2(http2, _) => self.put_http2(http2),
        }
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

    /// Sends what was written in this client's turn. Returns false if the connection is broken, or
    /// a response could not be written.
    pub(super) fn send_responses<I: Io>(
        &mut self,
        http1: &mut Http1,
        cx: &mut EdgeContext<'_, I>,
    ) -> bool {
        let out = self.responder.take();
        cx.metrics.general.sent_bytes.add(out.len() as u64);
        let sent = http1.send(&out, cx.io);
        self.responder.give_back(out);
        let broken = self.responder.take_broken();
        sent && !broken
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
    pub(super) fn end_turn<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        again: bool,
        cx: &mut EdgeContext<'_, I>,
    ) {
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
        self.clients.connections.count(&mut http1);
        let totals = self.clients.connections.totals();
        if http1.has_started_request() && totals.request_bytes.get() > settings.bodies_bytes_max {
            // This client asks for more memory than is left for partially received requests.
            return self.turn_away(http1, &Failure::Overloaded.into(), cx);
        }
        if http1.backlog() > 0 && totals.response_bytes.get() > settings.responses_bytes_max {
            return self.close(http1, CloseReason::Refused, cx);
        }
        let socket = http1.socket();
        let next_page = http1.phase() == Phase::Sending && http1.backlog() == 0;
        self.clients.connections.put(http1);
        if again || next_page {
            self.clients.connections.enqueue(socket);
        }
    }

    /// Ends a connection on which the last read of the drain found no whole request.
    pub(super) fn dismiss<I: Io>(
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
            Flushed::All | Flushed::Part => self.clients.connections.put(http1),
        }
    }

    /// Checks whether a client still waits for its response. Its socket is not read meanwhile, so
    /// only reported events show that the client has disconnected.
    pub(super) fn check_waiting<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let wanted = match cx.io.remote(http1.socket()) {
            Remote::Open => true,
            Remote::Ended => http1.probe(cx.io),
            Remote::Gone => false,
        };
        if wanted {
            self.clients.connections.put(http1);
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
            cors: self.responder.grant_unrouted(origin.as_deref()),
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
    pub(super) fn discard<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        http1.end_writes(cx.io, cx.now.mono);
        let why = if self.leaving.has_begun() {
            CloseReason::Drain
        } else {
            CloseReason::Refused
        };
        for _ in 0..READS_MAX {
            match cx.io.read(http1.socket()) {
                Read::Blocked => return self.clients.connections.put(http1),
                Read::Closed(_) => return self.close(http1, why, cx),
                Read::Bytes(bytes) => {
                    if http1.count_discarded(bytes.len()) == Drained::Close {
                        return self.close(http1, why, cx);
                    }
                }
            }
        }
        let socket = http1.socket();
        self.clients.connections.put(http1);
        self.clients.connections.enqueue(socket);
    }
}

//! A client's turn: send what waits, read, answer what is whole, send the answers in one write.

use crate::http::{
    CONTINUE, Connection, Drained, Fault, HeaderTable, Received, Refusal, ResponseContext,
};
use crate::metrics::CloseReason;
use crate::model::Instant;
use crate::route::{Failure, Refused};
use crate::shard::io::{Io, Read, Remote};

use super::client::{Client, DRAIN_TIME, State};
use super::request::Handled;
use super::transport::Transport;
use super::{Edge, EdgeContext, LAST_REQUEST_WAIT, Leaving};
use crate::shard::ciphertext::Flushed;

/// Requests of one client that are answered before the next client has its turn.
const PIPELINED_MAX: usize = 64;

/// Bytes of answers to one client after which the next client has its turn: what is pipelined waits
/// until the socket has taken them.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// Reads of one client in one turn.
const READS_MAX: usize = 4;

/// What a look at a client's input led to.
enum Look {
    /// All of it is used; read on.
    More,
    /// A request waits, or the connection is ending: do not read.
    Stop,
    /// Others must have their turn; go on later.
    Yield,
    /// The request became a stream.
    Stream(Box<super::request::StreamStart>),
}

impl Edge {
    pub(super) fn serve_client<I: Io>(
        &mut self,
        mut client: Box<Client>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match client.flush(cx.io, cx.now.mono) {
            Flushed::All => {}
            Flushed::Part => return self.put(client),
            Flushed::Gone => return self.end(client, CloseReason::Client, cx),
        }
        match client.state {
            State::Closing => self.end(client, CloseReason::Served, cx),
            State::Waiting(_) => self.check_waiting(client, cx),
            State::Scanning(_) => self.scan(client, cx),
            State::Draining { .. } => self.throw_away(client, cx),
            State::Reading => self.read(client, cx),
        }
    }

    fn read<I: Io>(&mut self, mut client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        // What was pipelined behind the last answer comes before what the socket has.
        let mut look = match client.http.kept() {
            0 => Look::More,
            _ => self.look(
                &mut client,
                &[],
                cx.now.mono,
                cx.projections,
                cx.out,
                cx.metrics,
            ),
        };
        let mut reads = 0;
        let mut ended = None;
        while matches!(look, Look::More) {
            if reads == READS_MAX {
                look = Look::Yield;
                break;
            }
            reads += 1;
            let bytes = match cx.io.read(client.socket) {
                Read::Bytes(bytes) => bytes,
                Read::Blocked => break,
                Read::Closed(error) => {
                    ended = Some(error);
                    break;
                }
            };
            cx.metrics.general.received_bytes.add(bytes.len() as u64);
            let mut plain = std::mem::take(&mut self.plain);
            plain.clear();
            let (bytes, sound) = match &mut client.transport {
                Transport::Plain => (bytes, true),
                Transport::Tls(session) => {
                    let sound = session.on_bytes(bytes, &mut plain).is_ok();
                    (&plain[..], sound)
                }
            };
            look = if sound {
                let (projections, out, metrics) =
                    (&mut *cx.projections, &mut *cx.out, &mut *cx.metrics);
                self.look(&mut client, bytes, cx.now.mono, projections, out, metrics)
            } else {
                client.state = State::Closing; // The alert goes out first.
                Look::Stop
            };
            self.plain = plain;
        }
        let gone = !self.send_responses(&mut client, cx);
        match ended {
            _ if gone => return self.end(client, CloseReason::Client, cx),
            None => {}
            // A client may say no more and still read: it gets what it asked for.
            Some(None) if client.is_sending() => {
                client.state = State::Closing;
                look = Look::Stop;
            }
            Some(_) => return self.end(client, CloseReason::Client, cx),
        }
        if let Look::Stream(start) = look {
            return self.start_stream(client, *start, cx);
        }
        if let (Leaving::Drain(until), Look::More) = (self.leaving, &look)
            && !client.is_sending()
        {
            return self.dismiss(client, until, cx);
        }
        // The client's end may have arrived with its request. Then no further event reports it.
        let waits = matches!(client.state, State::Waiting(_));
        let ended = waits && cx.io.remote(client.socket) != Remote::Open;
        self.settle(client, ended || matches!(look, Look::Yield), cx);
    }

    /// Ends a client in whose socket the last read of the drain found no whole request.
    fn dismiss<I: Io>(
        &mut self,
        mut client: Box<Client>,
        until: Instant,
        cx: &mut EdgeContext<'_, I>,
    ) {
        if client.http.started() {
            return self.turn_away(client, &Failure::Draining.into(), cx);
        }
        let wait = cx.now.mono.after(LAST_REQUEST_WAIT).min(until);
        client.deadline = client.deadline.min(wait);
        match client.flush(cx.io, cx.now.mono) {
            Flushed::Gone => self.end(client, CloseReason::Client, cx),
            Flushed::All | Flushed::Part => self.put(client),
        }
    }

    /// Checks whether a client still wants the answer that it waits for. Its socket is not read
    /// meanwhile, so only reported events show its end.
    fn check_waiting<I: Io>(&mut self, mut client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        let wanted = match cx.io.remote(client.socket) {
            Remote::Open => true,
            Remote::Ended => client.begin_answer(cx.io),
            Remote::Gone => false,
        };
        match wanted {
            true => self.put(client),
            false => self.end(client, CloseReason::Client, cx),
        }
    }

    /// Sets the deadline of what a client is at, puts it back, and queues it if it has work left.
    fn settle<I: Io>(&mut self, mut client: Box<Client>, again: bool, cx: &mut EdgeContext<'_, I>) {
        let now = cx.now.mono;
        let flushed = client.flush(cx.io, now);
        match (flushed, &client.state) {
            (Flushed::Gone, _) => return self.end(client, CloseReason::Client, cx),
            (Flushed::All, State::Closing) => return self.end(client, CloseReason::Served, cx),
            _ => {}
        }
        if flushed == Flushed::All {
            client.end_writes(cx.io, now);
        }
        let reading = matches!(client.state, State::Reading);
        let started = reading && client.http.started();
        client.started = client.started.filter(|_| started);
        if started {
            client.started.get_or_insert(now);
        }
        let settings = &self.snapshot.config.settings.http;
        let (requests_max, responses_max) =
            (settings.bodies_bytes_max, settings.responses_bytes_max);
        client.deadline = match (&client.state, client.started) {
            (State::Draining { .. }, _) => now.after(DRAIN_TIME),
            // Until the handshake is done, the deadline that the accept has set applies.
            (State::Reading, None) if client.transport.is_handshaking() => client.deadline,
            (State::Reading, None) => client.idle_since(now).after(settings.idle_timeout),
            (State::Reading, Some(began)) if client.http.awaits_body() => {
                began.after(settings.head_timeout + settings.body_timeout)
            }
            (State::Reading, Some(began)) => began.after(settings.head_timeout),
            (State::Waiting(_) | State::Scanning(_) | State::Closing, _) => client.deadline,
        };
        self.count(&mut client);
        if started && self.totals.request_bytes.get() > requests_max {
            // This client is the one that asks for more memory than there is for half requests.
            return self.turn_away(client, &Failure::Overloaded.into(), cx);
        }
        if client.backlog() > 0 && self.totals.response_bytes.get() > responses_max {
            return self.end(client, CloseReason::Refused, cx);
        }
        let socket = client.socket;
        let scanning = matches!(client.state, State::Scanning(_)) && client.backlog() == 0;
        self.put(client);
        if again || scanning {
            self.enqueue(socket);
        }
    }

    /// Answers every whole request of `input`, up to the first that must wait.
    fn look(
        &mut self,
        client: &mut Client,
        input: &[u8],
        now: Instant,
        projections: &mut super::Projections,
        out: &mut super::Outbox,
        metrics: &mut super::ShardMetrics,
    ) -> Look {
        let mut table = std::mem::take(&mut self.table);
        let input = (input, &mut table);
        let look = self.look_with(client, input, now, projections, out, metrics);
        self.table = table;
        look
    }

    fn look_with(
        &mut self,
        client: &mut Client,
        (mut input, table): (&[u8], &mut HeaderTable),
        now: Instant,
        projections: &mut super::Projections,
        out: &mut super::Outbox,
        metrics: &mut super::ShardMetrics,
    ) -> Look {
        for _ in 0..PIPELINED_MAX {
            let id = self.exchange(client);
            match client.http.receive(input, &self.limits, table) {
                Received::More => return Look::More,
                Received::Continue(request) => {
                    if !self.refuse_expecting(&request, metrics) {
                        self.responder.interim(CONTINUE);
                        return Look::More;
                    }
                    client.http = Connection::new();
                    client.state = State::draining();
                    return Look::Stop;
                }
                Received::Refused(refusal, mut context, origin) => {
                    context.cors = self.responder.grant_to(origin.as_deref());
                    let responded = self.responder.refuse(context, &refusal.into());
                    let class = super::answer::class(responded.status);
                    metrics.general.unrouted.bump(class);
                    client.state = State::draining();
                    return Look::Stop;
                }
                Received::Request(request, used) => {
                    let handled = self.handle(&request, id, now, projections, out, metrics);
                    input = &input[used..];
                    client.started = None;
                    match handled {
                        Handled::Done(framed) => {
                            client.exchange = client.exchange.wrapping_add(1);
                            if framed.close {
                                client.state = self.closing();
                                return Look::Stop;
                            }
                        }
                        Handled::Wait(wait, deadline) => {
                            client.http.keep(input);
                            client.state = State::Waiting(wait);
                            client.deadline = deadline;
                            return Look::Stop;
                        }
                        Handled::Scan(scan, deadline) => {
                            client.http.keep(input);
                            client.state = State::Scanning(scan);
                            client.deadline = deadline;
                            return Look::Stop;
                        }
                        Handled::Stream(start) => return Look::Stream(start),
                    }
                }
            }
            if input.is_empty() && client.http.kept() == 0 {
                return Look::More;
            }
            if self.responder.len() > ANSWERS_BYTES_MAX {
                break;
            }
        }
        client.http.keep(input);
        Look::Yield
    }

    /// Sends what was written in this client's turn. Returns false if the client is gone.
    pub(super) fn send_responses<I: Io>(
        &mut self,
        client: &mut Client,
        cx: &mut EdgeContext<'_, I>,
    ) -> bool {
        let out = self.responder.take();
        cx.metrics.general.sent_bytes.add(out.len() as u64);
        let sent = client.send(&out, cx.io);
        self.responder.give_back(out);
        sent
    }

    /// A request did not come whole in time.
    pub(super) fn refuse_late<I: Io>(&mut self, client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        let refusal = Refusal::new(Fault::RequestTimeout, "the request did not arrive in time");
        self.turn_away(client, &refusal.into(), cx);
    }

    /// Ends a client in the middle of its request: it is told why, and what it sent is let go.
    fn turn_away<I: Io>(
        &mut self,
        mut client: Box<Client>,
        refused: &Refused,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let origin = client.http.origin(&self.limits);
        let cors = self.responder.grant_to(origin.as_deref());
        let unread = ResponseContext::UNREAD;
        let context = ResponseContext { cors, ..unread };
        let responded = self.responder.refuse(context, refused);
        let class = super::answer::class(responded.status);
        cx.metrics.general.unrouted.bump(class);
        if !self.send_responses(&mut client, cx) {
            return self.end(client, CloseReason::Client, cx);
        }
        client.http = Connection::new();
        client.state = State::draining();
        client.started = None;
        self.settle(client, false, cx);
    }

    /// Reads on after a refusal, so that no reset overtakes the answer.
    fn throw_away<I: Io>(&mut self, mut client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        client.end_writes(cx.io, cx.now.mono);
        let why = match self.is_leaving() {
            true => CloseReason::Drain,
            false => CloseReason::Refused,
        };
        for _ in 0..READS_MAX {
            let State::Draining { drain, .. } = &mut client.state else {
                break;
            };
            match cx.io.read(client.socket) {
                Read::Blocked => return self.put(client),
                Read::Closed(_) => return self.end(client, why, cx),
                Read::Bytes(bytes) => {
                    if drain.on_bytes(bytes.len()) == Drained::Close {
                        return self.end(client, why, cx);
                    }
                }
            }
        }
        let socket = client.socket;
        self.put(client);
        self.enqueue(socket);
    }

    /// Takes up a client whose request has been answered: what it pipelined comes next.
    pub(super) fn resume<I: Io>(&mut self, mut client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        let gone = !self.send_responses(&mut client, cx);
        if gone {
            return self.end(client, CloseReason::Client, cx);
        }
        self.settle(client, true, cx);
    }
}

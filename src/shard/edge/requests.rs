//! The requests of a client's turn: read, answer what is whole, and let the turn end.

use std::net::IpAddr;

use crate::http::{CONTINUE, HeaderTable, Received};
use crate::metrics::{CloseReason, ShardMetrics};
use crate::model::{Now, ShardId};
use crate::shard::guard::guarded;
use crate::shard::io::{Io, Read, Remote};
use crate::shard::outbox::Outbox;
use crate::shard::projections::Projections;
use crate::shard::random::SecureRandom;

use super::commands::CommandMaker;
use super::context::EdgeContext;
use super::exchanges::Carrier;
use super::handlers::{Handled, HandlerContext, StreamStart};
use super::http1::{Http1, Preface};
use super::leaving::Leaving;
use super::phase::Phase;
use super::responses::class;
use super::site::Site;
use super::turns::{READS_MAX, Turns};

/// Requests of one client that are answered before the next client has its turn.
const PIPELINED_MAX: usize = 64;

/// Bytes of answers to one client after which the next client has its turn: what is pipelined waits
/// until the socket has taken them.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

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
    /// The client speaks HTTP/2.
    Http2(Http2Begins),
}

/// What requests are read and handled with.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) me: ShardId,
    pub(super) commands: CommandMaker,
    /// Scratch: the headers of one request, and the plaintext of one read.
    pub(super) table: HeaderTable,
    pub(super) plain: Vec<u8>,
    /// Scratch: the head of one request of HTTP/2.
    pub(super) head: Vec<u8>,
}

/// What a connection becomes.
pub(super) enum Becomes {
    /// The response is an event stream.
    Stream(Box<Http1>, Box<StreamStart>),
    /// The client speaks HTTP/2. These bytes have come behind its preface, or with it if the
    /// client has chosen HTTP/2 in its TLS handshake.
    Http2(Box<Http1>, Http2Begins),
}

/// The first bytes of a connection of HTTP/2.
pub(super) struct Http2Begins {
    /// The preface has come, ahead of the bytes.
    pub(super) has_preface: bool,
    pub(super) bytes: Vec<u8>,
}

impl Requests {
    pub(super) fn new(me: ShardId, random: SecureRandom) -> Self {
        Self {
            me,
            commands: CommandMaker::new(random),
            table: HeaderTable::new(),
            plain: Vec::new(),
            head: Vec::new(),
        }
    }

    /// Reads a connection and serves what it asks. Returns it if it becomes another kind.
    #[must_use]
    pub(super) fn read<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) -> Option<Becomes> {
        // What was pipelined behind the last answer comes before what the socket has.
        let mut progress = if http1.has_pipelined() {
            self.serve_received(&mut http1, &[], turns, &mut rest_of(cx))
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
            progress = match guarded(|| http1.decrypt(bytes, &mut plain)) {
                Some(Some(bytes)) if http1.has_chosen_http2() => Progress::Http2(Http2Begins {
                    has_preface: false,
                    bytes: bytes.to_vec(),
                }),
                Some(Some(bytes)) => {
                    // Not the sockets, which hold the bytes.
                    let mut rest = Rest {
                        now: cx.now,
                        projections: cx.projections,
                        out: cx.out,
                        metrics: cx.metrics,
                    };
                    if http1.may_have_preface() {
                        self.serve_first(&mut http1, bytes, turns, &mut rest)
                    } else {
                        self.serve_received(&mut http1, bytes, turns, &mut rest)
                    }
                }
                Some(None) => {
                    http1.on_broken_tls();
                    Progress::Stop
                }
                None => on_panic(&mut http1, cx.metrics),
            };
            self.plain = plain;
        }
        if !turns.send_responses(&mut http1, cx) {
            turns.close(http1, CloseReason::Client, cx);
            return None;
        }
        match ended {
            None => {}
            // A client that sends no more may still read: it gets what it asked for.
            Some(None) if http1.is_sending() => {
                http1.on_client_end();
                progress = Progress::Stop;
            }
            Some(_) => {
                turns.close(http1, CloseReason::Client, cx);
                return None;
            }
        }
        match (progress, turns.leaving) {
            (Progress::Stream(start), _) => return Some(Becomes::Stream(http1, start)),
            (Progress::Http2(begins), _) => return Some(Becomes::Http2(http1, begins)),
            (Progress::More, Leaving::Drain(until)) if !http1.is_sending() => {
                turns.dismiss(http1, until, cx);
            }
            (progress, _) => {
                // The client's end may have arrived with its request. Then no further event reports
                // it.
                let waits = http1.phase() == Phase::Waiting;
                let ended = waits && cx.io.remote(http1.socket()) != Remote::Open;
                let again = ended || matches!(progress, Progress::Yield);
                turns.end_turn(http1, again, cx);
            }
        }
        None
    }

    /// Serves the first bytes of a connection, which may be HTTP/2's preface.
    #[cold]
    fn serve_first(
        &mut self,
        http1: &mut Http1,
        input: &[u8],
        turns: &mut Turns,
        rest: &mut Rest<'_>,
    ) -> Progress {
        match http1.match_preface(input) {
            Preface::Part => Progress::More,
            Preface::Whole(used) => Progress::Http2(Http2Begins {
                has_preface: true,
                bytes: input[used..].to_vec(),
            }),
            Preface::Other(before) => {
                http1.keep(before);
                self.serve_received(http1, input, turns, rest)
            }
        }
    }

    /// Answers every whole request of `input`, up to the first that must wait.
    fn serve_received(
        &mut self,
        http1: &mut Http1,
        mut input: &[u8],
        turns: &mut Turns,
        rest: &mut Rest<'_>,
    ) -> Progress {
        let Self {
            me,
            commands,
            table,
            ..
        } = self;
        let (socket, peer) = (http1.socket(), http1.peer());
        for _ in 0..PIPELINED_MAX {
            let received = guarded(|| http1.receive(input, &turns.site.limits, table));
            let Some(received) = received else {
                return on_panic(http1, rest.metrics);
            };
            match received {
                Received::More => return Progress::More,
                Received::Continue(request) => {
                    let (site, mut cx) = handlers((*me, peer), commands, turns, rest);
                    if !site.refuse_expecting(&request, &mut cx) {
                        turns.responder.interim(CONTINUE);
                        return Progress::More;
                    }
                    http1.on_early_end();
                    return Progress::Stop;
                }
                Received::Refused(refusal, mut context, origin) => {
                    context.cors = turns.responder.grant_unrouted(origin.as_deref());
                    let responded = turns.responder.refuse(context, &refusal.into());
                    rest.metrics.general.unrouted.bump(class(responded.status));
                    http1.on_early_end();
                    return Progress::Stop;
                }
                Received::Request(request, used) => {
                    let (site, mut cx) = handlers((*me, peer), commands, turns, rest);
                    let handled = site.handle(&request, Carrier::Http1(socket), &mut cx);
                    input = &input[used..];
                    match handled {
                        Handled::Done(framed) if framed.close => {
                            turns.end_after(http1);
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
            if turns.responder.len() > ANSWERS_BYTES_MAX {
                break;
            }
        }
        http1.keep(input);
        Progress::Yield
    }
}

/// The bytes of a connection made the gateway panic: the connection ends.
#[cold]
fn on_panic(http1: &mut Http1, metrics: &mut ShardMetrics) -> Progress {
    metrics.general.connection_panics.bump();
    http1.on_panic();
    Progress::Stop
}

/// The handlers, and what they work with.
pub(super) fn handlers<'a>(
    (me, peer): (ShardId, IpAddr),
    commands: &'a mut CommandMaker,
    turns: &'a mut Turns,
    rest: &'a mut Rest<'_>,
) -> (&'a Site, HandlerContext<'a>) {
    let cx = HandlerContext {
        me,
        peer,
        now: rest.now.mono,
        wall: rest.now.wall,
        leaving: turns.leaving,
        clients: &turns.clients.connections.totals().clients,
        responder: &mut turns.responder,
        gzip: &mut turns.gzip,
        exchanges: &mut turns.clients.exchanges,
        commands,
        projections: rest.projections,
        out: rest.out,
        metrics: rest.metrics,
    };
    (&turns.site, cx)
}

/// The parts of the shard that handlers use, without the sockets.
pub(super) struct Rest<'a> {
    now: Now,
    projections: &'a Projections,
    out: &'a mut Outbox,
    metrics: &'a mut ShardMetrics,
}

pub(super) fn rest_of<'a, I>(cx: &'a mut EdgeContext<'_, I>) -> Rest<'a> {
    Rest {
        now: cx.now,
        projections: cx.projections,
        out: cx.out,
        metrics: cx.metrics,
    }
}

//! The requests of a client's turn: read, answer what is whole, and let the turn end.

use std::net::IpAddr;

use crate::http::{CONTINUE, HeaderTable, Received};
use crate::metrics::{CloseReason, ShardMetrics};
use crate::model::{Now, ShardId};
use crate::shard::io::{Io, Read, Remote};
use crate::shard::outbox::Outbox;
use crate::shard::projections::Projections;
use crate::shard::random::SecureRandom;

use super::commands::CommandMaker;
use super::context::EdgeContext;
use super::handlers::{Handled, HandlerContext, StreamStart};
use super::http1::Http1;
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
}

/// What requests are read and handled with.
#[derive(Debug)]
pub(super) struct Requests {
    me: ShardId,
    commands: CommandMaker,
    /// Scratch: the headers of one request, and the plaintext of one read.
    table: HeaderTable,
    plain: Vec<u8>,
}

/// A connection whose response becomes an event stream.
pub(super) struct BecomesStream {
    pub(super) http1: Box<Http1>,
    pub(super) start: Box<StreamStart>,
}

impl Requests {
    pub(super) fn new(me: ShardId, random: SecureRandom) -> Self {
        Self {
            me,
            commands: CommandMaker::new(random),
            table: HeaderTable::new(),
            plain: Vec::new(),
        }
    }

    /// Reads a connection and serves what it asks. Returns it if its response becomes a stream.
    #[must_use]
    pub(super) fn read<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) -> Option<BecomesStream> {
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
            progress = match http1.decrypt(bytes, &mut plain) {
                Some(bytes) => {
                    // Not the sockets, which hold the bytes.
                    let mut rest = Rest {
                        now: cx.now,
                        projections: cx.projections,
                        out: cx.out,
                        metrics: cx.metrics,
                    };
                    self.serve_received(&mut http1, bytes, turns, &mut rest)
                }
                None => {
                    http1.on_broken_tls();
                    Progress::Stop
                }
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
            (Progress::Stream(start), _) => return Some(BecomesStream { http1, start }),
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
            match http1.receive(input, &turns.site.limits, table) {
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
                    let handled = site.handle(&request, socket, &mut cx);
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

/// The handlers, and what they work with.
fn handlers<'a>(
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
        responder: &mut turns.responder,
        exchanges: &mut turns.clients.exchanges,
        commands,
        projections: rest.projections,
        out: rest.out,
        metrics: rest.metrics,
    };
    (&turns.site, cx)
}

/// The parts of the shard that handlers use, without the sockets.
struct Rest<'a> {
    now: Now,
    projections: &'a Projections,
    out: &'a mut Outbox,
    metrics: &'a mut ShardMetrics,
}

fn rest_of<'a, I>(cx: &'a mut EdgeContext<'_, I>) -> Rest<'a> {
    Rest {
        now: cx.now,
        projections: cx.projections,
        out: cx.out,
        metrics: cx.metrics,
    }
}

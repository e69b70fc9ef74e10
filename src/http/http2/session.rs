//! One HTTP/2 connection without its socket.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::http::Request;
use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake};
use h2::{Reason, RecvStream};

use super::allowance::{Allowance, RESETS_AT_ONCE};
use super::frames::{FrameWalker, kind};
use super::pipe::{Buffers, Pipe};
use super::stream::{RequestBody, ResponseStream};
use crate::model::Instant;

/// The first bytes of every client (RFC 9113 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most streams of one connection under any settings.
pub const STREAMS_MAX: usize = 200;

/// Bytes of a body that a client may send ahead, on a stream and on its connection. What has come
/// is taken within the turn, so these bound one round trip and no memory.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// The largest frame that is received: RFC 9113's least.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of one stream that wait within h2.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// What each field costs beyond its bytes when a list of fields is measured (RFC 9113 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;
/// Streams that the client has reset before they were looked at (CVE-2023-44487).
const RESET_BEFORE_ACCEPT_MAX: usize = 20;
/// Streams that the gateway has reset because the client broke a rule, over the life of the
/// connection (CVE-2025-8671).
const RESET_FOR_ERRORS_MAX: usize = 100;
/// Streams that were reset and are remembered, so that late frames of them are no error, and for
/// how long.
const RESET_REMEMBERED_MAX: usize = 32;
const RESET_REMEMBERED_TIME: Duration = Duration::from_secs(1);

const _: () = {
    // A page that its user leaves may cancel all its streams at once.
    assert!(STREAMS_MAX as u64 <= RESETS_AT_ONCE);
};

/// What one session is bounded by.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Streams at a time, at most 200. h2 refuses more.
    pub streams_max: usize,
    /// Bytes of the head that a request has in HTTP/1.1.
    pub head_bytes_max: usize,
    /// Header lines of that head.
    pub headers_max: usize,
}

/// How a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client has closed the connection, or reported an error of ours.
    Client,
    /// Nothing is left to do after a GOAWAY of either side.
    Done,
    /// The client broke a rule of the protocol and was sent GOAWAY.
    Violation,
    /// The client sent too many frames that ask for nothing, and was sent GOAWAY.
    Flood,
}

/// What driving a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// It goes on.
    Open,
    /// It has ended. Output may still wait for the socket.
    Ended(SessionEnd),
}

/// A request on a stream, with its head read by h2.
#[derive(Debug)]
pub struct IncomingRequest {
    pub(super) request: Request<()>,
    /// `None`: the request has no body.
    pub body: Option<RequestBody>,
    /// The sending side of the stream.
    pub stream: ResponseStream,
}

/// One HTTP/2 connection without its socket. The order is: [`receive`](Self::receive) what came,
/// take every request with [`next_request`](Self::next_request), answer, [`drive`](Self::drive),
/// and send the output.
pub struct Session {
    buffers: Rc<RefCell<Buffers>>,
    state: State,
    walker: FrameWalker,
    allowance: Allowance,
    /// RST_STREAM frames that the client has sent.
    resets: u64,
    /// The client has spent its allowance.
    is_flood: bool,
    is_leaving: bool,
}

enum State {
    Handshake(Box<Handshake<Pipe, Bytes>>),
    Open(Box<Connection<Pipe, Bytes>>),
    Ended(SessionEnd),
}

impl Session {
    /// A session that waits for the client's preface.
    #[must_use]
    pub fn new(limits: &SessionLimits, now: Instant) -> Self {
        let fields = limits.headers_max.saturating_mul(FIELD_OVERHEAD_BYTES);
        let list = limits.head_bytes_max.saturating_add(fields);
        let streams_max = limits.streams_max.clamp(1, STREAMS_MAX);
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(u32::try_from(streams_max).unwrap_or(u32::MAX))
            .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_send_buffer_size(SEND_BYTES_MAX)
            .max_pending_accept_reset_streams(RESET_BEFORE_ACCEPT_MAX)
            .max_local_error_reset_streams(Some(RESET_FOR_ERRORS_MAX))
            .max_concurrent_reset_streams(RESET_REMEMBERED_MAX)
            .reset_stream_duration(RESET_REMEMBERED_TIME);
        let buffers = Rc::new(RefCell::new(Buffers::new()));
        let handshake = builder.handshake(Pipe(buffers.clone()));
        Self {
            buffers,
            state: State::Handshake(Box::new(handshake)),
            walker: FrameWalker::after(PREFACE.len()),
            allowance: Allowance::new(now),
            resets: 0,
            is_flood: false,
            is_leaving: false,
        }
    }

    /// Takes the first bytes of the connection. `has_preface`: the preface came ahead of them and
    /// was recognised.
    pub fn begin(&mut self, has_preface: bool, bytes: &[u8], now: Instant) {
        if has_preface {
            self.receive(PREFACE, now);
        }
        self.receive(bytes, now);
    }

    /// Takes received bytes. Returns the number of RST_STREAM frames among them.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> u64 {
        let Self {
            walker,
            allowance,
            is_flood,
            ..
        } = self;
        let mut resets = 0;
        allowance.on_time(now);
        walker.walk(bytes, |head| {
            let is_reset = head.kind == kind::RST_STREAM;
            resets += u64::from(is_reset);
            if head.is_idle() && !allowance.pay(is_reset) {
                *is_flood = true;
            }
        });
        match (self.is_flood, &self.state) {
            // h2 does not see what was beyond the allowance. Before the handshake is complete it
            // can't send GOAWAY.
            (true, State::Open(_)) => self.abandon(),
            _ => self.buffers.borrow_mut().push(bytes),
        }
        self.resets += resets;
        resets
    }

    /// The client sends no more.
    pub fn end_input(&mut self) {
        self.buffers.borrow_mut().end();
    }

    /// Whether received bytes wait because the socket does not take the output.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.buffers.borrow().unread() > 0
    }

    /// Whether a part of a request's head is here.
    #[must_use]
    pub const fn has_started_head(&self) -> bool {
        self.walker.is_within_fields()
    }

    /// Lets h2 read what was received and write what it has to send. Requests that it finds wait
    /// for [`Self::next_request`].
    pub fn drive(&mut self) -> Drive {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match &mut self.state {
                State::Handshake(handshake) => match Pin::new(&mut **handshake).poll(&mut cx) {
                    Poll::Pending => return Drive::Open,
                    Poll::Ready(Ok(connection)) => self.open(connection),
                    Poll::Ready(Err(error)) => self.end(end_of(&error)),
                },
                State::Open(connection) => match connection.poll_closed(&mut cx) {
                    Poll::Pending => return Drive::Open,
                    Poll::Ready(Ok(())) => self.end(SessionEnd::Done),
                    Poll::Ready(Err(error)) => self.end(end_of(&error)),
                },
                State::Ended(end) => return Drive::Ended(*end),
            }
        }
    }

    /// The next request that has arrived, if its client has not reset it already.
    pub fn next_request(&mut self) -> Option<IncomingRequest> {
        if self.drive() != Drive::Open {
            return None;
        }
        let State::Open(connection) = &mut self.state else {
            return None;
        };
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let Poll::Ready(Some(Ok((request, respond)))) = connection.poll_accept(&mut cx) else {
                return None;
            };
            let (parts, body) = request.into_parts();
            let mut incoming = IncomingRequest {
                request: Request::from_parts(parts, ()),
                body: body_of(body),
                stream: ResponseStream::new(respond),
            };
            if !incoming.stream.is_gone() {
                return Some(incoming);
            }
        }
    }

    fn open(&mut self, connection: Connection<Pipe, Bytes>) {
        self.state = State::Open(Box::new(connection));
        if self.is_flood {
            self.abandon();
        } else if self.is_leaving {
            self.leave();
        }
    }

    fn end(&mut self, end: SessionEnd) {
        let end = if self.is_flood {
            SessionEnd::Flood
        } else {
            end
        };
        self.state = State::Ended(end);
    }

    /// Tells the client that no further request will be served. Those that are in flight are
    /// answered, and then the session ends.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Whether the client was told to leave.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Ends the session at once: no stream is open, or the client does not finish what it began.
    pub fn end_now(&mut self) {
        match &mut self.state {
            State::Open(connection) => connection.abrupt_shutdown(Reason::NO_ERROR),
            State::Handshake(_) => self.state = State::Ended(SessionEnd::Done),
            State::Ended(_) => {}
        }
    }

    /// Ends every stream at once, because the client sends too many frames.
    fn abandon(&mut self) {
        match &mut self.state {
            State::Open(connection) => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            State::Handshake(_) | State::Ended(_) => {}
        }
    }

    /// A DATA frame was given to a stream.
    pub fn on_data_sent(&mut self) {
        self.allowance.on_data_sent();
    }

    /// Bytes that wait for the socket.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.buffers.borrow().output().len()
    }

    /// Gives the output to `send`, which returns how many bytes the socket has taken.
    pub fn send_output(&mut self, send: impl FnOnce(&[u8]) -> usize) {
        let mut buffers = self.buffers.borrow_mut();
        let taken = send(buffers.output());
        buffers.on_sent(taken);
    }

    /// RST_STREAM frames since the last call: of the client, and of the gateway.
    pub fn take_resets(&mut self) -> (u64, u64) {
        let ours = self.buffers.borrow_mut().take_resets();
        (std::mem::replace(&mut self.resets, 0), ours)
    }
}

/// The body of a request. `None`: the request has none.
fn body_of(body: RecvStream) -> Option<RequestBody> {
    (!body.is_end_stream()).then(|| RequestBody::new(body))
}

fn end_of(error: &h2::Error) -> SessionEnd {
    if error.is_io() || error.is_remote() {
        return SessionEnd::Client;
    }
    match error.reason() {
        Some(Reason::ENHANCE_YOUR_CALM) => SessionEnd::Flood,
        Some(Reason::NO_ERROR) | None => SessionEnd::Done,
        Some(_) => SessionEnd::Violation,
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Handshake(_) => "Handshake",
            State::Open(_) => "Open",
            State::Ended(_) => "Ended",
        };
        f.debug_struct("Session")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

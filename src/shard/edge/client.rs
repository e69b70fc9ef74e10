//! One client connection between its requests and their answers: a plain state machine. It reads
//! only when it has nothing to answer and nothing to send: an unread socket is the back-pressure.

use std::io::IoSlice;

use std::time::Duration;

use crate::cache::Page;
use crate::http::{Connection, Drain, Framed, IfNoneMatch, ResponseContext};
use crate::log::Seq;
use crate::model::{CommandKey, Instant, KeyHash, RouteId, ShardId, TopicId};
use crate::shard::io::{Io, SocketId};

use super::MemoryUsed;
use super::transport::{Sent, Transport};
use crate::shard::ciphertext::Flushed;

/// The first byte of every answer (RFC 9112 4: `HTTP-name` is case-sensitive).
const ANSWER_BEGINS: [u8; 1] = *b"H";

/// How long input after the last answer is discarded.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A client that speaks HTTP requests. One that turned into a stream is a [`super::Stream`].
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: SocketId,
    pub(super) transport: Transport,
    pub(super) http: Connection,
    pub(super) state: State,
    /// The number of the present exchange among those of the slot.
    pub(super) exchange: u32,
    /// Whether the first byte of the next answer has been sent ahead of the rest.
    begun: bool,
    /// Response bytes the socket has not taken.
    backlog: Vec<u8>,
    backlog_sent: usize,
    /// When what it is at must be done.
    pub(super) deadline: Instant,
    /// Since when no request is in progress: the accept, or the last answer. Bytes alone, such as
    /// part of a TLS record or an empty line, do not change it.
    idle_since: (u32, Instant),
    /// Since when its socket has taken nothing although bytes wait for it.
    stalled: Option<Instant>,
    /// What was held for it when it was last counted.
    pub(super) counted: MemoryUsed,
    /// In the queue of those to be served.
    pub(super) queued: bool,
    /// When the first byte of a request that is not whole came.
    pub(super) started: Option<Instant>,
}

/// What a client is at.
#[derive(Debug)]
pub(super) enum State {
    /// Between requests, or in the middle of receiving one.
    Reading,
    /// Its request is out; nothing is read meanwhile.
    Waiting(Wait),
    /// A collection is on its way, piece by piece.
    Scanning(Box<Scan>),
    /// The last answer was given, and the client may still send. Its input is discarded, because
    /// closing the socket would reset the connection and could lose the answer. Once `ended`, the
    /// client can see the end.
    Draining {
        /// Counts the discarded input.
        drain: Drain,
        /// Whether our side has been ended, which happens as soon as the backlog is sent.
        ended: bool,
    },
    /// The last answer was given and the client sends no more: closed once the backlog is sent.
    Closing,
}

/// A request that waits for another shard.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) context: ResponseContext,
    pub(super) began: Instant,
    pub(super) route: RouteId,
    /// The topic of a command's replies, or the queried one.
    pub(super) topic: TopicId,
    pub(super) what: What,
}

/// What it waits for.
#[derive(Debug)]
pub(super) enum What {
    /// A command's outcome. If the client disconnects, the command's home must be notified.
    Command(CommandKey),
    /// The newest record of a key.
    Get(Option<Box<IfNoneMatch>>),
}

/// A collection on its way.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) framed: Framed,
    pub(super) topic: TopicId,
    pub(super) began: Instant,
    pub(super) route: RouteId,
    /// The topic's incarnation, and the place in its order that the content covers.
    pub(super) incarnation: u32,
    pub(super) seq: Seq,
    /// The slice being read, and after which key.
    pub(super) shard: ShardId,
    pub(super) after: Option<(KeyHash, Box<[u8]>)>,
    /// Whether an entry was written, so that the next needs a comma.
    pub(super) any: bool,
    /// Whether a page is asked for and not there yet.
    pub(super) asked: bool,
    /// The page that came while the socket was full.
    pub(super) page: Option<Page>,
}

impl State {
    /// For an answer that the client may not expect yet: it still sends, or may at any moment.
    pub(super) const fn draining() -> Self {
        Self::Draining {
            drain: Drain::new(),
            ended: false,
        }
    }
}

impl Client {
    pub(super) fn new(
        socket: SocketId,
        exchange: u32,
        transport: Transport,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            socket,
            transport,
            http: Connection::new(),
            state: State::Reading,
            exchange,
            begun: false,
            backlog: Vec::new(),
            backlog_sent: 0,
            deadline,
            idle_since: (exchange, now),
            stalled: None,
            counted: MemoryUsed::default(),
            queued: false,
            started: None,
        }
    }

    /// Since when no request is in progress. Call it only while none is.
    pub(super) const fn idle_since(&mut self, now: Instant) -> Instant {
        if self.idle_since.0 != self.exchange {
            self.idle_since = (self.exchange, now);
        }
        self.idle_since.1
    }

    /// When it must be looked at: what it is at takes too long, or its socket takes nothing. While
    /// an answer is on its way, only the second counts: nothing is expected of the client.
    pub(super) fn next_timeout(&self, write_timeout: Duration) -> Instant {
        let stalled = self.stalled.map(|since| since.after(write_timeout));
        match (stalled, &self.state) {
            (None, _) => self.deadline,
            (Some(at), _) if self.transport.is_handshaking() => at.min(self.deadline),
            (Some(at), State::Waiting(_) | State::Scanning(_)) => at.min(self.deadline),
            (Some(at), _) => at,
        }
    }

    /// Whether bytes wait for its socket.
    pub(super) fn is_sending(&self) -> bool {
        self.backlog() + self.transport.waiting() > 0
    }

    /// Whether its socket has taken nothing for too long.
    pub(super) fn is_stalled(&self, write_timeout: Duration, now: Instant) -> bool {
        self.stalled
            .is_some_and(|since| since.after(write_timeout) <= now)
    }

    /// Bytes the socket has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.backlog.len() - self.backlog_sent
    }

    /// Sends `bytes` after what waits already; keeps what is not taken. False: it is gone.
    pub(super) fn send(&mut self, bytes: &[u8], io: &mut impl Io) -> bool {
        if bytes.is_empty() {
            return true;
        }
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
    /// FIN. A closed socket answers bytes with a reset, so the first byte of the answer is sent
    /// ahead: it is the same for every answer. Returns false if the client has already closed.
    pub(super) fn begin_answer(&mut self, io: &mut impl Io) -> bool {
        std::mem::replace(&mut self.begun, true) || self.send(&ANSWER_BEGINS, io)
    }

    /// Removes from an answer what was sent ahead.
    pub(super) fn continue_answer(&mut self, answer: &mut Vec<u8>) {
        if std::mem::take(&mut self.begun) {
            debug_assert!(answer.starts_with(&ANSWER_BEGINS), "every answer begins so");
            answer.drain(..ANSWER_BEGINS.len().min(answer.len()));
        }
    }

    /// What a stream keeps of its client: the head's bytes that the socket has not taken, and the
    /// transport.
    pub(super) fn into_stream(self) -> (Option<Box<[u8]>>, Transport) {
        let rest: Box<[u8]> = self.backlog[self.backlog_sent..].into();
        ((!rest.is_empty()).then_some(rest), self.transport)
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

    /// Ends our side once the last answer is sent. The client then sees the end at once, and may
    /// answer with its own end. The socket stays open for a while, because Linux answers bytes
    /// after a close with a reset, which may destroy the answer.
    pub(super) fn end_writes(&mut self, io: &mut impl Io, now: Instant) {
        if let State::Draining { ended, .. } = &mut self.state
            && !std::mem::replace(ended, true)
        {
            self.transport.close(self.socket, io);
            io.end_writes(self.socket);
            self.deadline = now.after(DRAIN_TIME);
        }
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
}

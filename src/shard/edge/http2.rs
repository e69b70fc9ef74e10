//! One HTTP/2 connection: its transport, its session, its open streams and its deadlines. A plain
//! state machine like [`Http1`](super::http1::Http1), without a task or a timer.
//!
//! What streams send goes through the session to the transport. A stream gives the session only
//! what the client's windows let through, and all streams together at most [`GIVEN_BYTES_MAX`]
//! before the socket has taken it. So a client that does not read holds that much and what its
//! responses still have to send, which is counted.

use std::io::IoSlice;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::Http as HttpSettings;
use crate::http::http2::{
    Drive, Http2Response, IncomingRequest, Session, SessionEnd, StreamGone, StreamReset,
};
use crate::http::{Drain, Drained};
use crate::model::{ExchangeId, Instant, TopicId};
use crate::shard::ciphertext::Flushed;
use crate::shard::guard::guarded;
use crate::shard::io::{Io, SocketId};

use super::exchanges::StreamSlot;
use super::http1::{DISCARD_TIME, MemoryUsed};
use super::http2_stream::{Events, Http2Stream, PIECE_BYTES_MAX, PartialRequest, StreamState};
use super::stream_connection::Stream;
use super::transport::{Sent, Transport};

/// Bytes of all streams that the session has and the socket has not taken.
pub(super) const GIVEN_BYTES_MAX: usize = 64 * 1024;

/// How long a connection without a stream stays open after its client was told to leave. A request
/// may be a round trip behind.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// An HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Http2 {
    socket: SocketId,
    /// The address of the client's end.
    peer: IpAddr,
    transport: Transport,
    session: Session,
    streams: Vec<Option<Http2Stream>>,
    free: Vec<u16>,
    /// Bytes given to the session since the socket last took everything.
    given: usize,
    /// The stream that sends first, so that each has its turn.
    first: usize,
    /// Event streams that were full when they were last looked at, or more.
    full: usize,
    sent_total: u64,
    phase: Phase,
    /// Since when no stream is open.
    idle_since: Option<Instant>,
    /// Since when part of a head is here.
    head_since: Option<Instant>,
    /// Since when the socket has taken nothing although bytes wait for it.
    stalled: Option<Instant>,
    /// What [`Connections`](super::connections::Connections) last counted for the connection.
    pub(super) counted: MemoryUsed,
    /// Whether the connection is in the rotation.
    pub(super) queued: bool,
    /// Whether the connection is among those that have something to send.
    pub(super) sends: bool,
    /// Whether its bytes made the gateway panic. The session is not used again.
    panicked: bool,
}

/// What the connection is doing.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It serves streams.
    Open,
    /// The session has ended, and its last bytes are to be sent.
    Ended(SessionEnd),
    /// All bytes are sent and our side is ended. Input is discarded until then: a socket that is
    /// closed with unread input resets the connection, and the client might lose the GOAWAY.
    Lingering(SessionEnd, Drain, Instant),
}

/// What a connection holds, and when it must be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    pub(super) memory: MemoryUsed,
    pub(super) timeout: Instant,
}

/// A stream whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The body of its request did not come in time.
    Body(StreamSlot),
    /// No other shard has answered the exchange.
    Answer(ExchangeId),
    /// Its client lets nothing through.
    Blocked(StreamSlot),
}

impl Http2 {
    pub(super) const fn new(
        (socket, peer): (SocketId, IpAddr),
        transport: Transport,
        session: Session,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            peer,
            transport,
            session,
            streams: Vec::new(),
            free: Vec::new(),
            given: 0,
            first: 0,
            full: 0,
            sent_total: 0,
            phase: Phase::Open,
            idle_since: Some(now),
            head_since: None,
            stalled: None,
            counted: MemoryUsed {
                requests: 0,
                responses: 0,
            },
            queued: false,
            sends: false,
            panicked: false,
        }
    }

    pub(super) const fn socket(&self) -> SocketId {
        self.socket
    }

    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(super) const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// How the session has ended, if it has.
    pub(super) const fn ended(&self) -> Option<SessionEnd> {
        match self.phase {
            Phase::Open => None,
            Phase::Ended(end) | Phase::Lingering(end, ..) => Some(end),
        }
    }

    pub(super) const fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering(..))
    }

    // What is received.

    /// Takes bytes of the socket. `plain` is scratch. Returns the number of streams that the client
    /// has reset in them, or `None` if TLS failed.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        now: Instant,
    ) -> Option<u64> {
        let bytes = match &mut self.transport {
            Transport::Plain => bytes,
            Transport::Tls(session) => {
                plain.clear();
                session.on_bytes(bytes, plain).ok()?;
                &plain[..]
            }
        };
        Some(self.session.receive(bytes, now))
    }

    /// Lets the session read and write.
    pub(super) fn drive(&mut self) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        match guarded(|| self.session.drive()) {
            Some(Drive::Open) => {}
            Some(Drive::Ended(end)) => self.phase = Phase::Ended(end),
            None => {
                self.panicked = true;
                self.phase = Phase::Ended(SessionEnd::Client);
            }
        }
    }

    /// Whether its bytes have made the gateway panic since the last call.
    pub(super) const fn take_panicked(&mut self) -> bool {
        std::mem::replace(&mut self.panicked, false)
    }

    /// The next request that has arrived.
    pub(super) fn next_request(&mut self) -> Option<IncomingRequest> {
        self.session.next_request()
    }

    /// Counts input that is discarded after the end. Returns false if it is enough.
    pub(super) fn discard(&mut self, count: usize) -> bool {
        match &mut self.phase {
            Phase::Lingering(_, drain, _) => drain.on_bytes(count) == Drained::More,
            Phase::Open | Phase::Ended(_) => true,
        }
    }

    // Streams.

    /// Opens a stream.
    pub(super) fn open(&mut self, stream: Http2Stream) -> StreamSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            u16::try_from(self.streams.len() - 1).expect("the session bounds its streams")
        });
        self.streams[usize::from(slot)] = Some(stream);
        StreamSlot(slot)
    }

    /// Closes a stream. If its response is not complete, the client learns that it is reset.
    pub(super) fn remove(&mut self, slot: StreamSlot) -> Option<Http2Stream> {
        let stream = self.streams.get_mut(usize::from(slot.0))?.take()?;
        self.free.push(slot.0);
        Some(stream)
    }

    pub(super) fn stream(&mut self, slot: StreamSlot) -> Option<&mut Http2Stream> {
        self.streams.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// The slots of all streams.
    pub(super) fn slots(&self) -> impl Iterator<Item = StreamSlot> + use<> {
        (0..u16::try_from(self.streams.len()).unwrap_or(u16::MAX)).map(StreamSlot)
    }

    /// The open streams.
    pub(super) fn streams(&self) -> impl Iterator<Item = (StreamSlot, &Http2Stream)> {
        let streams = self.slots().zip(&self.streams);
        streams.filter_map(|(slot, stream)| Some((slot, stream.as_ref()?)))
    }

    /// The event streams.
    pub(super) fn events(&self) -> impl Iterator<Item = (StreamSlot, &Events)> {
        self.streams()
            .filter_map(|(slot, stream)| match &stream.state {
                StreamState::Events(events) => Some((slot, events)),
                _ => None,
            })
    }

    pub(super) const fn has_streams(&self) -> bool {
        self.streams.len() > self.free.len()
    }

    pub(super) fn events_mut(&mut self, slot: StreamSlot) -> Option<&mut Events> {
        match &mut self.stream(slot)?.state {
            StreamState::Events(events) => Some(events),
            _ => None,
        }
    }

    /// A feed has sent so many bytes of events. `full`: it has more to send.
    pub(super) fn on_delivered(&mut self, slot: StreamSlot, sent: usize, full: bool, now: Instant) {
        let Some(stream) = self.stream(slot) else {
            return;
        };
        if let StreamState::Events(events) = &mut stream.state {
            events.is_full = full;
        }
        stream.blocked = match (full, stream.blocked) {
            (false, _) => None,
            (true, Some(since)) if sent == 0 => Some(since),
            (true, _) => Some(now),
        };
        self.full += usize::from(full);
    }

    /// The event streams that were full and may send again.
    pub(super) fn writable(&mut self) -> SmallVec<[(ExchangeId, TopicId); 4]> {
        let mut writable = SmallVec::new();
        if self.full == 0 || self.room() == 0 {
            return writable;
        }
        self.full = 0;
        for stream in self.streams.iter_mut().flatten() {
            let StreamState::Events(events) = &mut stream.state else {
                continue;
            };
            if events.is_full && stream.response.room(PIECE_BYTES_MAX) > 0 {
                events.is_full = false;
                writable.push((events.stream.exchange, events.stream.topic));
            }
            self.full += usize::from(events.is_full);
        }
        writable
    }

    /// Ends an event stream. Behind an event that was cut the client sees a reset, not an end.
    pub(super) fn end_events(&mut self, slot: StreamSlot) -> Option<Stream> {
        let events = self.events_mut(slot)?;
        let (stream, is_cut) = (events.stream, events.is_cut);
        let mut ended = self.remove(slot)?;
        if is_cut || ended.response.send(Bytes::new(), true).is_err() {
            ended.response.reset(StreamReset::Cancelled);
        }
        Some(stream)
    }

    /// The state of a stream with a body that is being received.
    pub(super) fn partial(&mut self, slot: StreamSlot) -> Option<&mut PartialRequest> {
        match &mut self.stream(slot)?.state {
            StreamState::Receiving(partial) => Some(partial),
            _ => None,
        }
    }

    /// Takes out the request of a stream whose body is complete.
    pub(super) fn take_partial(&mut self, slot: StreamSlot) -> Option<Box<PartialRequest>> {
        let state = &mut self.stream(slot)?.state;
        match std::mem::replace(state, StreamState::Opened) {
            StreamState::Receiving(partial) => Some(partial),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Sets the state of a stream.
    pub(super) fn set(&mut self, slot: StreamSlot, state: StreamState) {
        if let Some(stream) = self.stream(slot) {
            stream.state = state;
            stream.blocked = None;
        }
    }

    /// Sends a response, or its head if its body comes in pieces.
    pub(super) fn respond(&mut self, slot: StreamSlot, response: Option<Http2Response>) {
        let Some(response) = response else { return };
        self.given += response.head_bytes();
        let Some(stream) = self.stream(slot) else {
            return;
        };
        match stream.respond(response) {
            Ok(false) => {}
            // A stream that the client has reset needs no response.
            Ok(true) | Err(StreamGone) => drop(self.remove(slot)),
        }
    }

    /// Adds a piece to a response that comes in pieces. `last`: it ends the response.
    /// Otherwise the next comes before `deadline`.
    pub(super) fn push_piece(
        &mut self,
        slot: StreamSlot,
        piece: Bytes,
        last: bool,
        deadline: Instant,
    ) {
        let Some(stream) = self.stream(slot) else {
            return;
        };
        match &mut stream.state {
            StreamState::Pieces(_) if last => stream.state = StreamState::Sending(piece),
            StreamState::Pieces(pieces) => {
                pieces.rest = piece;
                pieces.deadline = deadline;
            }
            _ => debug_assert!(false, "a piece of {:?}", stream.state),
        }
    }

    /// Resets a stream whose response cannot be completed.
    pub(super) fn break_off(&mut self, slot: StreamSlot) {
        if let Some(mut stream) = self.remove(slot) {
            stream.response.reset(StreamReset::Failed);
        }
    }

    /// Responses in pieces that have sent the last piece, and until when the next must come.
    pub(super) fn pieces_due(&self) -> SmallVec<[(ExchangeId, Instant); 4]> {
        let due = self
            .streams()
            .filter_map(|(_, stream)| match &stream.state {
                StreamState::Pieces(pieces) if pieces.rest.is_empty() => {
                    Some((pieces.exchange, pieces.deadline))
                }
                _ => None,
            });
        due.collect()
    }

    // What is sent.

    /// The most bytes that an event stream may send now.
    pub(super) fn room(&self) -> usize {
        match self.session.output_len() {
            0 => GIVEN_BYTES_MAX.saturating_sub(self.given),
            _ => 0,
        }
    }

    /// Bytes of an event stream were given to the session.
    pub(super) fn on_given(&mut self, bytes: usize) {
        self.given += bytes;
        self.session.on_data_sent();
    }

    /// Gives the session what streams have to send, a piece of each in turn.
    fn pump(&mut self, now: Instant) {
        let count = self.streams.len();
        let mut quiet = 0;
        while quiet < count && self.given < GIVEN_BYTES_MAX {
            self.first = (self.first + 1) % count;
            quiet += 1;
            let Some(stream) = &mut self.streams[self.first] else {
                continue;
            };
            let sent = stream.send(GIVEN_BYTES_MAX - self.given, now);
            let (bytes, over) = sent.unwrap_or((0, true));
            if bytes > 0 {
                self.on_given(bytes);
                quiet = 0;
            }
            if over {
                let slot = u16::try_from(self.first).expect("it was opened");
                self.remove(StreamSlot(slot));
            }
        }
    }

    /// Sends what waits, as far as the socket takes it. `All`: nothing waits any more but for the
    /// client's windows.
    pub(super) fn flush(&mut self, io: &mut impl Io, now: Instant) -> Flushed {
        let before = self.transport.ciphertext_sent();
        let mut moved = false;
        let flushed = loop {
            self.pump(now);
            self.drive();
            let waiting = self.session.output_len();
            if waiting == 0 {
                break self.transport.flush(self.socket, io);
            }
            let (transport, socket) = (&mut self.transport, self.socket);
            let mut gone = false;
            self.session.send_output(|bytes| {
                match transport.send(socket, io, &[IoSlice::new(bytes)]) {
                    Sent::Bytes(taken) => taken,
                    Sent::Gone => {
                        gone = true;
                        0
                    }
                }
            });
            let left = self.session.output_len();
            moved |= left < waiting;
            self.sent_total += (waiting - left) as u64;
            if gone {
                break Flushed::Gone;
            }
            if left > 0 {
                break Flushed::Part;
            }
            self.given = 0;
        };
        moved |= self.transport.ciphertext_sent() > before;
        self.stalled = match (flushed, self.stalled) {
            (Flushed::Part, Some(since)) if !moved => Some(since),
            (Flushed::Part, _) => Some(now),
            (Flushed::All | Flushed::Gone, _) => None,
        };
        flushed
    }

    /// Bytes that the socket, or TLS, has taken so far.
    pub(super) const fn sent_total(&self) -> u64 {
        self.sent_total
    }

    /// Whether output waits for the socket.
    pub(super) fn is_sending(&self) -> bool {
        self.session.output_len() + self.transport.waiting() > 0
    }

    /// Ends our side once the last bytes are sent.
    pub(super) fn end_writes(&mut self, io: &mut impl Io, now: Instant) {
        if let Phase::Ended(end) = self.phase {
            self.transport.close(self.socket, io);
            io.end_writes(self.socket);
            self.phase = Phase::Lingering(end, Drain::new(), now.after(DISCARD_TIME));
        }
    }

    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Sends the transport's close message, if it has one.
    pub(super) fn close(&mut self, io: &mut impl Io) {
        self.transport.close(self.socket, io);
    }

    // When it must be over.

    /// Notes since when the connection is idle, and since when a head is incomplete.
    pub(super) fn update(&mut self, now: Instant) {
        self.head_since = if self.session.has_started_head() {
            Some(self.head_since.unwrap_or(now))
        } else {
            None
        };
        self.idle_since = if self.has_streams() {
            None
        } else {
            Some(self.idle_since.unwrap_or(now))
        };
    }

    /// When the connection itself must be over, if nothing changes.
    fn own_timeout(&self, settings: &HttpSettings, write_timeout: Duration) -> Instant {
        if let Phase::Lingering(_, _, until) = self.phase {
            return until;
        }
        let patience = if self.session.is_leaving() {
            LAST_REQUEST_WAIT
        } else {
            settings.idle_timeout
        };
        let idle = self.idle_since.map(|at| at.after(patience));
        let head = self.head_since.map(|at| at.after(settings.head_timeout));
        let stalled = self.stalled.map(|at| at.after(write_timeout));
        let all = [idle, head, stalled].into_iter().flatten();
        all.min().unwrap_or(Instant::MAX)
    }

    /// What the connection holds, and when it must be looked at.
    pub(super) fn survey(&self, settings: &HttpSettings, write_timeout: Duration) -> Survey {
        let mut memory = MemoryUsed {
            requests: 0,
            responses: self.given.max(self.session.output_len()),
        };
        let mut timeout = self.own_timeout(settings, write_timeout);
        for (_, stream) in self.streams() {
            memory.responses += stream.rest();
            if let StreamState::Receiving(partial) = &stream.state {
                memory.requests += partial.bytes();
            }
            timeout = timeout.min(timeout_of(stream, write_timeout));
        }
        Survey { memory, timeout }
    }

    /// Whether the connection itself is overdue.
    pub(super) fn is_overdue(
        &self,
        settings: &HttpSettings,
        write_timeout: Duration,
        now: Instant,
    ) -> bool {
        self.own_timeout(settings, write_timeout) <= now
    }

    /// Whether the socket has taken nothing for too long, or TLS or a head is not complete in time.
    pub(super) fn is_stalled(&self, write_timeout: Duration, now: Instant) -> bool {
        self.stalled
            .is_some_and(|since| since.after(write_timeout) <= now)
    }

    /// The streams whose time is over.
    pub(super) fn overdue(&self, write_timeout: Duration, now: Instant) -> Vec<Overdue> {
        let streams = self.streams();
        let late = streams.filter(|(_, stream)| timeout_of(stream, write_timeout) <= now);
        late.map(|(slot, stream)| match &stream.state {
            StreamState::Receiving(_) => Overdue::Body(slot),
            StreamState::Waiting(exchange, _) => Overdue::Answer(*exchange),
            StreamState::Pieces(pieces) if pieces.rest.is_empty() => {
                Overdue::Answer(pieces.exchange)
            }
            _ => Overdue::Blocked(slot),
        })
        .collect()
    }

    /// The process drains: what waits for another shard may wait until then.
    pub(super) fn limit_deadlines(&mut self, until: Instant) {
        for stream in self.streams.iter_mut().flatten() {
            match &mut stream.state {
                StreamState::Waiting(_, deadline) => *deadline = until.min(*deadline),
                StreamState::Pieces(pieces) => pieces.deadline = until.min(pieces.deadline),
                _ => {}
            }
        }
    }
}

/// When a stream must be looked at.
fn timeout_of(stream: &Http2Stream, write_timeout: Duration) -> Instant {
    let state = match &stream.state {
        StreamState::Receiving(partial) => partial.deadline,
        StreamState::Waiting(_, deadline) => *deadline,
        StreamState::Pieces(pieces) if pieces.rest.is_empty() => pieces.deadline,
        _ => Instant::MAX,
    };
    let blocked = stream.blocked.map(|since| since.after(write_timeout));
    state.min(blocked.unwrap_or(Instant::MAX))
}

//! The connections of a shard: a slab in the order of the driver's sockets, the rotation in which
//! connections are served, their timers, and what is held for all of them. An idle connection is a
//! slot and a small box; one that carries an event stream has no box.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Http as HttpSettings;
use crate::metrics::{CloseReason, ShardMetrics};
use crate::model::{Instant, u32_of};
use crate::shard::client_limits::ClientCells;
use crate::shard::io::SocketId;
use crate::shard::timers::Wheel;
use crate::shard::totals::ClientTotals;
use crate::tls::Session;

use super::exchanges::Carrier;
use super::http1::{Http1, MemoryUsed};
use super::http2::Http2;
use super::stream_connection::{Stream, StreamConnection};

/// A place of the driver's slab, as the edge uses it.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Connection,
    /// Among whose connections it counts, if those of one address are limited.
    client: Option<ClientCells>,
    /// When the wheel wakes the connection. An entry of the wheel that fires earlier is stale.
    armed: Option<Instant>,
}

impl Slot {
    /// The TLS session of the slot's connection, if its client has shown a certificate.
    fn session(&self) -> Option<&Session> {
        let transport = match &self.connection {
            Connection::None => return None,
            Connection::Http1(http1) => http1.transport(),
            Connection::Stream(stream) => stream.transport(),
            Connection::Http2(http2) => http2.transport(),
        };
        let session = transport.session()?;
        session.client_certificate().map(|_| session)
    }

    /// The streams of the slot with this index.
    fn streams(&self, index: u32) -> impl Iterator<Item = (Carrier, &Stream)> {
        let socket = SocketId {
            slot: index,
            generation: self.generation,
        };
        let (one, many) = match &self.connection {
            Connection::Stream(connection) => (Some(&connection.stream), None),
            Connection::Http2(http2) => (None, Some(http2)),
            Connection::None | Connection::Http1(_) => (None, None),
        };
        let one = one.map(|stream| (Carrier::Http1(socket), stream));
        let many = many.into_iter().flat_map(move |http2| {
            let streams = http2.events();
            streams.map(move |(slot, events)| (Carrier::Http2(socket, slot), &events.stream))
        });
        one.into_iter().chain(many)
    }
}

/// Client certificates that one turn verifies again: some 100 µs each.
const CERTIFICATES_CHECKED_MAX: usize = 8;

/// Slots that one turn looks through for client certificates.
const SLOTS_CHECKED_MAX: usize = 4096;

/// The connection in a slot.
#[derive(Debug, Default)]
enum Connection {
    /// Nothing of the edge's, or a connection that is being worked on.
    #[default]
    None,
    Http1(Box<Http1>),
    Stream(StreamConnection),
    Http2(Box<Http2>),
}

/// Which kind of connection a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Http1,
    Stream,
    Http2,
}

/// A connection whose turn it is.
#[derive(Debug)]
pub(super) enum Ready {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    /// The socket was closed meanwhile.
    Closed,
}

/// The connections of one shard.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    /// How many connections of each kind are open.
    http1: usize,
    streams: usize,
    http2: usize,
    /// How many event streams connections of HTTP/2 carry.
    http2_streams: usize,
    /// Connections with something to read, to send or to answer.
    ready: VecDeque<SocketId>,
    /// Connections in their handshake that have something to read or to send.
    handshakes: VecDeque<SocketId>,
    /// Connections of HTTP/2 whose streams have given them something to send.
    sending: VecDeque<SocketId>,
    wheel: Wheel,
    due: Vec<SocketId>,
    /// What clients use, summed over all shards of the process.
    totals: Arc<ClientTotals>,
    write_timeout: Duration,
}

impl Connections {
    pub(super) fn new(totals: Arc<ClientTotals>, write_timeout: Duration, now: Instant) -> Self {
        Self {
            slots: Vec::new(),
            http1: 0,
            streams: 0,
            http2: 0,
            http2_streams: 0,
            ready: VecDeque::new(),
            handshakes: VecDeque::new(),
            sending: VecDeque::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            totals,
            write_timeout,
        }
    }

    /// How long a client may take nothing while bytes wait for it.
    pub(super) const fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    /// Connections that serve requests: those without an event stream, and those of HTTP/2.
    pub(super) const fn serving(&self) -> usize {
        self.http1 + self.http2
    }

    /// Event streams.
    pub(super) const fn streams(&self) -> usize {
        self.streams + self.http2_streams
    }

    /// Connections of HTTP/2.
    pub(super) const fn http2(&self) -> usize {
        self.http2
    }

    /// An event stream of a connection of HTTP/2 has begun.
    pub(super) const fn on_http2_stream(&mut self) {
        self.http2_streams += 1;
    }

    /// An event stream of a connection of HTTP/2 has ended. Its place is free again.
    pub(super) fn on_http2_stream_end(&mut self, stream: &Stream) {
        self.http2_streams = self.http2_streams.saturating_sub(1);
        self.give_back_stream(stream.client);
    }

    /// Gives back the place of a stream, and that among the streams of its client.
    pub(super) fn give_back_stream(&self, client: Option<ClientCells>) {
        self.totals.streams.give_back();
        if let Some(client) = client {
            self.totals.clients.streams.give_back(client);
        }
    }

    pub(super) const fn totals(&self) -> &Arc<ClientTotals> {
        &self.totals
    }

    fn slot(&mut self, socket: SocketId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(socket.slot as usize)?;
        (slot.generation == socket.generation).then_some(slot)
    }

    /// Which kind of connection a socket has. `None`: it is not the edge's, or closed.
    pub(super) fn kind(&mut self, socket: SocketId) -> Option<Kind> {
        match self.slot(socket)?.connection {
            Connection::None => None,
            Connection::Http1(_) => Some(Kind::Http1),
            Connection::Stream(_) => Some(Kind::Stream),
            Connection::Http2(_) => Some(Kind::Http2),
        }
    }

    /// Adds a connection that was accepted, and lets it be served. `client`: among whose
    /// connections it counts.
    pub(super) fn add(
        &mut self,
        mut http1: Box<Http1>,
        client: Option<ClientCells>,
        metrics: &mut ShardMetrics,
    ) {
        let (socket, deadline) = (http1.socket(), http1.deadline());
        let index = socket.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        http1.queued = true;
        let is_handshaking = http1.is_handshaking();
        self.slots[index] = Slot {
            generation: socket.generation,
            connection: Connection::Http1(http1),
            client,
            armed: None,
        };
        self.queue_of(is_handshaking).push_back(socket);
        self.http1 += 1;
        self.arm(socket, deadline);
        self.count_open(metrics);
    }

    /// Takes an HTTP/1.1 connection out of its slot, to work on it. The caller puts it back or
    /// closes it.
    pub(super) fn take(&mut self, socket: SocketId) -> Option<Box<Http1>> {
        let slot = self.slot(socket)?;
        match std::mem::take(&mut slot.connection) {
            Connection::Http1(http1) => Some(http1),
            other => {
                slot.connection = other;
                None
            }
        }
    }

    /// Puts a connection back and arms its timer.
    pub(super) fn put(&mut self, mut http1: Box<Http1>) {
        self.count(&mut http1);
        let socket = http1.socket();
        self.arm(socket, http1.next_timeout(self.write_timeout));
        self.slots[socket.slot as usize].connection = Connection::Http1(http1);
    }

    /// Counts what is held for a connection now.
    pub(super) fn count(&self, http1: &mut Http1) {
        let now = http1.memory_used();
        let before = std::mem::replace(&mut http1.counted, now);
        self.count_used(before, now);
    }

    fn count_used(&self, before: MemoryUsed, now: MemoryUsed) {
        let totals = &self.totals;
        totals.request_bytes.change(before.requests, now.requests);
        totals
            .response_bytes
            .change(before.responses, now.responses);
    }

    /// Closes a connection that was taken out.
    pub(super) fn close(
        &mut self,
        http1: &Http1,
        why: CloseReason,
        close: &mut Vec<SocketId>,
        metrics: &mut ShardMetrics,
    ) {
        self.count_used(http1.counted, MemoryUsed::default());
        self.http1 -= 1;
        self.close_socket(http1.socket(), why, close, metrics);
    }

    fn close_socket(
        &mut self,
        socket: SocketId,
        why: CloseReason,
        close: &mut Vec<SocketId>,
        metrics: &mut ShardMetrics,
    ) {
        close.push(socket);
        self.totals.connections.give_back();
        let client = self.slot(socket).and_then(|slot| slot.client.take());
        if let Some(client) = client {
            self.totals.clients.connections.give_back(client);
        }
        metrics.general.connections_closed.bump(why);
        self.count_open(metrics);
    }

    fn count_open(&self, metrics: &mut ShardMetrics) {
        let open = (self.http1 + self.streams + self.http2) as u64;
        metrics.general.connections_open.set(open);
        metrics
            .general
            .http2_connections_open
            .set(self.http2 as u64);
    }

    /// Replaces a connection that was taken out by the connection of HTTP/2 that it became.
    /// `counted` is what was last counted for it.
    pub(super) fn adopt_http2(
        &mut self,
        counted: MemoryUsed,
        mut http2: Box<Http2>,
        metrics: &mut ShardMetrics,
    ) {
        self.count_used(counted, MemoryUsed::default());
        self.http1 -= 1;
        self.http2 += 1;
        self.count_open(metrics);
        let socket = http2.socket();
        http2.queued = true;
        self.ready.push_back(socket);
        self.slots[socket.slot as usize].connection = Connection::Http2(http2);
    }

    /// A connection of HTTP/2, to work on it in its place.
    pub(super) fn http2_mut(&mut self, socket: SocketId) -> Option<&mut Http2> {
        match &mut self.slot(socket)?.connection {
            Connection::Http2(http2) => Some(http2),
            Connection::None | Connection::Http1(_) | Connection::Stream(_) => None,
        }
    }

    /// Takes a connection of HTTP/2 out of its slot, to work on it. The caller puts it back or
    /// closes it.
    pub(super) fn take_http2(&mut self, socket: SocketId) -> Option<Box<Http2>> {
        let slot = self.slot(socket)?;
        match std::mem::take(&mut slot.connection) {
            Connection::Http2(http2) => Some(http2),
            other => {
                slot.connection = other;
                None
            }
        }
    }

    /// Puts a connection of HTTP/2 back, counts what it holds and arms its timer.
    pub(super) fn put_http2(&mut self, mut http2: Box<Http2>, settings: &HttpSettings) {
        let survey = http2.survey(settings, self.write_timeout);
        let before = std::mem::replace(&mut http2.counted, survey.memory);
        self.count_used(before, survey.memory);
        let socket = http2.socket();
        self.arm(socket, survey.timeout);
        self.slots[socket.slot as usize].connection = Connection::Http2(http2);
    }

    /// Closes a connection of HTTP/2 that was taken out. Its streams are closed before.
    pub(super) fn close_http2(
        &mut self,
        http2: &Http2,
        why: CloseReason,
        close: &mut Vec<SocketId>,
        metrics: &mut ShardMetrics,
    ) {
        self.count_used(http2.counted, MemoryUsed::default());
        self.http2 -= 1;
        self.totals.http2.give_back();
        self.close_socket(http2.socket(), why, close, metrics);
    }

    /// A stream of a connection of HTTP/2 has given it something to send: it is flushed once at the
    /// end of the turn.
    pub(super) fn send_later(&mut self, socket: SocketId) {
        if let Some(http2) = self.http2_mut(socket)
            && !std::mem::replace(&mut http2.sends, true)
        {
            self.sending.push_back(socket);
        }
    }

    /// Whether connections of HTTP/2 have something to send.
    pub(super) fn has_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Takes out the next connection of HTTP/2 that has something to send.
    pub(super) fn next_sending(&mut self) -> Option<Box<Http2>> {
        while let Some(socket) = self.sending.pop_front() {
            if let Some(mut http2) = self.take_http2(socket) {
                http2.sends = false;
                return Some(http2);
            }
        }
        None
    }

    /// Replaces a connection that was taken out by the stream that it became. `counted` is what was
    /// last counted for it.
    pub(super) fn put_stream(
        &mut self,
        socket: SocketId,
        counted: MemoryUsed,
        stream: StreamConnection,
    ) {
        self.count_used(counted, MemoryUsed::default());
        self.http1 -= 1;
        self.streams += 1;
        self.slots[socket.slot as usize].connection = Connection::Stream(stream);
    }

    /// The connection of a stream.
    pub(super) fn stream_mut(&mut self, socket: SocketId) -> Option<&mut StreamConnection> {
        match &mut self.slot(socket)?.connection {
            Connection::Stream(stream) => Some(stream),
            Connection::None | Connection::Http1(_) | Connection::Http2(_) => None,
        }
    }

    /// Takes out the connection of a stream and closes its socket.
    pub(super) fn close_stream(
        &mut self,
        socket: SocketId,
        why: CloseReason,
        close: &mut Vec<SocketId>,
        metrics: &mut ShardMetrics,
    ) -> Option<StreamConnection> {
        let slot = self.slot(socket)?;
        match std::mem::take(&mut slot.connection) {
            Connection::Stream(stream) => {
                self.streams -= 1;
                self.close_socket(socket, why, close, metrics);
                Some(stream)
            }
            other => {
                slot.connection = other;
                None
            }
        }
    }

    /// Puts a connection into the rotation, once.
    pub(super) fn enqueue(&mut self, socket: SocketId) {
        let (queued, is_handshaking) = match self.slot(socket) {
            Some(Slot {
                connection: Connection::Http1(http1),
                ..
            }) => {
                let is_handshaking = http1.is_handshaking();
                (&mut http1.queued, is_handshaking)
            }
            Some(Slot {
                connection: Connection::Http2(http2),
                ..
            }) => (&mut http2.queued, false),
            _ => return,
        };
        if !std::mem::replace(queued, true) {
            self.queue_of(is_handshaking).push_back(socket);
        }
    }

    /// The queue of a connection: a handshake costs as much as hundreds of requests, so the two do
    /// not wait for each other.
    const fn queue_of(&mut self, is_handshaking: bool) -> &mut VecDeque<SocketId> {
        if is_handshaking {
            &mut self.handshakes
        } else {
            &mut self.ready
        }
    }

    /// Whether connections wait to be served.
    pub(super) fn has_ready(&self) -> bool {
        !(self.ready.is_empty() && self.handshakes.is_empty())
    }

    /// Takes out the connection that has waited longest for the next step of its handshake.
    pub(super) fn next_handshake(&mut self) -> Option<Box<Http1>> {
        while let Some(socket) = self.handshakes.pop_front() {
            if let Some(mut http1) = self.take(socket) {
                http1.queued = false;
                return Some(http1);
            }
        }
        None
    }

    /// Connections whose client certificate `is_trusted` rejects, in slots from `from` on, and the
    /// slot to continue with: at most [`CERTIFICATES_CHECKED_MAX`] are asked about at a time.
    pub(super) fn untrusted(
        &self,
        from: usize,
        mut is_trusted: impl FnMut(&Session) -> bool,
    ) -> (Vec<SocketId>, Option<usize>) {
        let (mut untrusted, mut checked) = (Vec::new(), 0);
        let until = self.slots.len().min(from + SLOTS_CHECKED_MAX);
        for (index, slot) in self.slots[..until].iter().enumerate().skip(from) {
            if checked == CERTIFICATES_CHECKED_MAX {
                return (untrusted, Some(index));
            }
            let Some(session) = slot.session() else {
                continue;
            };
            checked += 1;
            if !is_trusted(session) {
                untrusted.push(SocketId {
                    slot: u32_of(index),
                    generation: slot.generation,
                });
            }
        }
        (untrusted, (until < self.slots.len()).then_some(until))
    }

    /// Takes out the next connection in rotation.
    pub(super) fn next_ready(&mut self) -> Option<Ready> {
        let socket = self.ready.pop_front()?;
        let Some(slot) = self.slot(socket) else {
            return Some(Ready::Closed);
        };
        Some(match std::mem::take(&mut slot.connection) {
            Connection::Http1(mut http1) => {
                http1.queued = false;
                Ready::Http1(http1)
            }
            Connection::Http2(mut http2) => {
                http2.queued = false;
                Ready::Http2(http2)
            }
            other => {
                slot.connection = other;
                Ready::Closed
            }
        })
    }

    /// Wakes a connection at a time, unless it wakes before.
    pub(super) fn arm(&mut self, socket: SocketId, at: Instant) {
        let slot = &mut self.slots[socket.slot as usize];
        if slot.armed.is_none_or(|armed| at < armed) {
            slot.armed = Some(self.wheel.arm(at, socket));
        }
    }

    /// Collects the connections whose timers are due, for [`Self::next_due`], once those collected
    /// before are taken.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.due.is_empty() {
            self.wheel.expire(now, &mut self.due);
            self.due.reverse(); // `next_due` takes from the end.
        }
    }

    /// The next connection whose timer is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<SocketId> {
        while let Some(socket) = self.due.pop() {
            // An entry that the slot is not armed for is stale: a newer one is on the wheel, if one
            // is needed.
            if let Some(slot) = self.slot(socket)
                && slot.armed.is_some_and(|armed| armed <= now)
            {
                slot.armed = None;
                return Some(socket);
            }
        }
        None
    }

    /// When [`Self::expire`] next has work. `None`: no timer is armed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(Instant::ZERO);
        }
        self.wheel.next_deadline()
    }

    /// How many slots there are.
    pub(super) const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The streams in a range of slots.
    pub(super) fn streams_in(
        &self,
        slots: Range<usize>,
    ) -> impl Iterator<Item = (Carrier, &Stream)> {
        let first = u32_of(slots.start);
        (first..)
            .zip(&self.slots[slots])
            .flat_map(|(index, slot)| slot.streams(index))
    }

    /// The streams, in the order of the slots.
    pub(super) fn all_streams(&self) -> impl Iterator<Item = (Carrier, &Stream)> {
        self.streams_in(0..self.slots.len())
    }

    /// Every socket with a connection that serves requests.
    pub(super) fn serving_sockets(&self) -> Vec<SocketId> {
        let serves =
            |slot: &Slot| matches!(slot.connection, Connection::Http1(_) | Connection::Http2(_));
        let slots = (0..).zip(&self.slots).filter(|(_, slot)| serves(slot));
        slots
            .map(|(index, slot)| SocketId {
                slot: index,
                generation: slot.generation,
            })
            .collect()
    }
}

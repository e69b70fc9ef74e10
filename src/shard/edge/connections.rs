//! The connections of a shard: a slab in the order of the driver's sockets, the rotation in which
//! connections are served, their timers, and what is held for all of them. An idle connection is a
//! slot and a small box; one that carries an event stream has no box.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{CloseReason, ShardMetrics};
use crate::model::{Instant, u32_of};
use crate::shard::io::SocketId;
use crate::shard::timers::Wheel;
use crate::shard::totals::ClientTotals;

use super::http1::{Http1, MemoryUsed};
use super::stream_connection::{Stream, StreamConnection};

/// A place of the driver's slab, as the edge uses it.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Connection,
    /// When the wheel wakes the connection. An entry of the wheel that fires earlier is stale.
    armed: Option<Instant>,
}

impl Slot {
    /// The stream of the slot with this index, if it has one.
    fn stream(&self, index: u32) -> Option<(SocketId, &Stream)> {
        let Connection::Stream(connection) = &self.connection else {
            return None;
        };
        let socket = SocketId {
            slot: index,
            generation: self.generation,
        };
        Some((socket, &connection.stream))
    }
}

/// The connection in a slot.
#[derive(Debug, Default)]
enum Connection {
    /// Nothing of the edge's, or a connection that is being worked on.
    #[default]
    None,
    Http1(Box<Http1>),
    Stream(StreamConnection),
}

/// Which kind of connection a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Http1,
    Stream,
}

/// The connections of one shard.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    /// How many connections of each kind are open.
    http1: usize,
    streams: usize,
    /// Connections with something to read, to send or to answer.
    ready: VecDeque<SocketId>,
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
            ready: VecDeque::new(),
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

    /// Connections without an event stream.
    pub(super) const fn http1(&self) -> usize {
        self.http1
    }

    /// Connections with an event stream.
    pub(super) const fn streams(&self) -> usize {
        self.streams
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
        }
    }

    /// Adds a connection that was accepted, and lets it be served.
    pub(super) fn add(&mut self, mut http1: Box<Http1>, metrics: &mut ShardMetrics) {
        let (socket, deadline) = (http1.socket(), http1.deadline());
        let index = socket.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        http1.queued = true;
        self.slots[index] = Slot {
            generation: socket.generation,
            connection: Connection::Http1(http1),
            armed: None,
        };
        self.ready.push_back(socket);
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
        &self,
        socket: SocketId,
        why: CloseReason,
        close: &mut Vec<SocketId>,
        metrics: &mut ShardMetrics,
    ) {
        close.push(socket);
        self.totals.connections.give_back();
        metrics.general.connections_closed.bump(why);
        self.count_open(metrics);
    }

    fn count_open(&self, metrics: &mut ShardMetrics) {
        let open = (self.http1 + self.streams) as u64;
        metrics.general.connections_open.set(open);
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
            Connection::None | Connection::Http1(_) => None,
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
        if let Some(Slot {
            connection: Connection::Http1(http1),
            ..
        }) = self.slot(socket)
            && !std::mem::replace(&mut http1.queued, true)
        {
            self.ready.push_back(socket);
        }
    }

    /// Whether connections wait to be served.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out the next connection in rotation. `Some(None)`: the socket was closed meanwhile.
    pub(super) fn next_ready(&mut self) -> Option<Option<Box<Http1>>> {
        let socket = self.ready.pop_front()?;
        let mut http1 = self.take(socket);
        if let Some(http1) = &mut http1 {
            http1.queued = false;
        }
        Some(http1)
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
    ) -> impl Iterator<Item = (SocketId, &Stream)> {
        let first = u32_of(slots.start);
        (first..)
            .zip(&self.slots[slots])
            .filter_map(|(index, slot)| slot.stream(index))
    }

    /// The streams, in the order of the slots.
    pub(super) fn all_streams(&self) -> impl Iterator<Item = (SocketId, &Stream)> {
        self.streams_in(0..self.slots.len())
    }

    /// Every socket with an HTTP/1.1 connection.
    pub(super) fn http1_sockets(&self) -> Vec<SocketId> {
        let slots = (0..).zip(&self.slots);
        let http1 = slots.filter(|(_, slot)| matches!(slot.connection, Connection::Http1(_)));
        http1
            .map(|(index, slot)| SocketId {
                slot: index,
                generation: slot.generation,
            })
            .collect()
    }
}

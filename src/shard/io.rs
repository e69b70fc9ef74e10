//! The interface between a shard and what drives it: the reactor with real sockets and its clock,
//! the fleet with byte pipes and a seed. A shard never waits. [`Inputs`] report what happened, the
//! shard reads and writes sockets through [`Io`], and [`Outputs`] say what it wants next.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{Instant, Now, ShardId};

/// A socket of the driver's slab. Each use of a slot has another generation, so a late event never
/// reaches the wrong connection. Slots are small, dense numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// Index of the slot in the driver's slab.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// A listening address, by its place in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// The shard's number for an outgoing connection that it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenTicket(pub u64);

/// Sockets and the turn's budget, as a shard sees them. No call waits.
pub trait Io {
    /// Returns received bytes, at most one scratch buffer, which the next call reuses. Call again
    /// until `Blocked` or until the part is spent. Readiness is edge-triggered: the shard must
    /// remember a socket that it has not read until `Blocked`.
    fn read(&mut self, socket: SocketId) -> Read<'_>;

    /// Offers bytes. If fewer are taken than offered, the socket is full and `Writable` follows.
    fn write(&mut self, socket: SocketId, slices: &[IoSlice<'_>]) -> Write;

    /// Ends the sending side after all written bytes, so that the other end sees it. Reading
    /// continues.
    fn end_writes(&mut self, _socket: SocketId) {}

    /// Makes the next read ask the kernel: bytes may have arrived that no event has reported yet.
    fn recheck(&mut self, _socket: SocketId) {}

    /// The state of the other end according to the events so far. Bytes that it sent may still be
    /// unread.
    fn remote(&mut self, _socket: SocketId) -> Remote {
        Remote::Open
    }

    /// Bounds the kernel's send buffer: `bytes` of payload, and about as much for its own overhead.
    fn limit_send_buffer(&mut self, _socket: SocketId, _bytes: usize) {}

    /// Whether this part of the turn has used up its time. The first question of a part starts its
    /// clock.
    fn spent(&mut self, part: Part) -> bool;
}

/// The parts of a turn that have a budget of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Messages of other shards. After a stall thousands may have arrived.
    Messages,
    /// Reading and answering the requests of clients.
    Serve,
    /// Pages of collections and of *changes*, to any shard.
    Answer,
    /// What brokers sent: their bytes are read, and records are unpacked, ordered, encoded and
    /// applied. One budget covers all of it, because a client's request may wait for all of it.
    Kafka,
    /// Sending pending events to streams.
    Deliver,
}

impl Part {
    /// How many parts there are.
    pub const COUNT: usize = 5;
}

/// What [`Io::read`] found on the socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// At least one received byte, in a buffer that the next read reuses.
    Bytes(&'a [u8]),
    /// No bytes now. `Readable` follows.
    Blocked,
    /// The other end closed (`None`), or the connection failed. No further event follows. The shard
    /// still closes the socket.
    Closed(Option<ErrorKind>),
}

/// The state of the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// The other end may send more.
    Open,
    /// The other end sends no more. TCP does not say whether it has closed or still waits for our
    /// bytes.
    Ended,
    /// The connection is broken: no bytes reach the other end.
    Gone,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// How many bytes were taken, which may be 0.
    Taken(usize),
    /// The connection is closed or broken.
    Closed,
}

/// What happened to sockets since the last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A client connected to one of the listeners.
    Accepted {
        /// The client's socket, readable or not.
        socket: SocketId,
        /// The listener that the client connected to.
        listener: ListenerId,
        /// The client's address, for limits only.
        peer: SocketAddr,
    },
    /// Bytes, the other end's close or an error can be read.
    Readable(SocketId),
    /// A socket that was full takes bytes again.
    Writable(SocketId),
    /// An outgoing connection is established.
    Opened {
        /// The shard's number for it.
        ticket: OpenTicket,
        /// The socket of the established connection.
        socket: SocketId,
    },
    /// An outgoing connection failed: refused, unreachable, or its name did not resolve
    /// (`NotFound`). Nothing is left to close.
    OpenFailed {
        /// The shard's number for it.
        ticket: OpenTicket,
        /// Why the connection could not be established.
        error: ErrorKind,
    },
}

/// Everything that happened since the last turn. The driver reuses the lists.
#[derive(Debug)]
pub struct Inputs<M> {
    /// Socket events, in the order in which they happened. The shard takes all of them.
    pub sockets: Vec<SocketEvent>,
    /// Messages with their sender, in the order of each sender. [`ShardId::CONTROL`] is the control
    /// thread. The shard takes those in front, as many as its turn has time for. While some are
    /// left, the driver adds none, so that a shard that is behind keeps its senders waiting.
    pub messages: VecDeque<(ShardId, M)>,
    /// How long the last turn took. `None` in the first turn, and from a driver without a clock.
    /// The shard takes it.
    pub last_turn: Option<Duration>,
}

/// A request for an outgoing connection: TCP with `TCP_NODELAY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The shard's number for it.
    pub ticket: OpenTicket,
    /// A name or an address.
    pub host: String,
    /// The TCP port to connect to.
    pub port: u16,
}

/// Everything that a turn asks for. The shard fills it; the driver empties it.
#[derive(Debug)]
pub struct Outputs<M, C> {
    /// Messages to other shards. They are delivered in order, later if an inbox is full, and never
    /// dropped.
    pub messages: Vec<(ShardId, M)>,
    /// Messages to the control thread, in order.
    pub control: Vec<C>,
    /// Outgoing connections that the driver must open.
    pub open: Vec<Open>,
    /// Sockets to close after this turn, both directions, with a FIN. Their ids are void now.
    pub close: Vec<SocketId>,
    /// When the next turn is due at the latest, if nothing happens before.
    pub deadline: Option<Instant>,
    /// Work is left that needs no event: the next turn is due at once.
    pub more: bool,
    /// The shard has stopped and needs no further turn.
    pub ended: bool,
}

impl<M> Default for Inputs<M> {
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            messages: VecDeque::new(),
            last_turn: None,
        }
    }
}

impl<M, C> Default for Outputs<M, C> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            control: Vec::new(),
            open: Vec::new(),
            close: Vec::new(),
            deadline: None,
            more: false,
            ended: false,
        }
    }
}

/// A state machine that a driver drives: [`super::Shard`], or an echo in the reactor's tests.
pub trait Turn {
    /// What a shard receives, from other shards and from the control thread.
    type Message: Send + 'static;
    /// What a shard sends to the control thread.
    type Control: Send + 'static;

    /// One bounded piece of work.
    fn turn<I: Io>(
        &mut self,
        now: Now,
        inputs: &mut Inputs<Self::Message>,
        io: &mut I,
        outputs: &mut Outputs<Self::Message, Self::Control>,
    );
}

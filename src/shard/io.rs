//! The interface between a shard and what drives it: the reactor with real sockets and its clock,
//! the fleet with byte pipes and a seed. A shard never waits: it is given what happened, it reads
//! and writes sockets through [`Io`], and it says what it wants next.

use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{Instant, Now, ShardId};

/// A socket of the driver's slab. The generation differs each time a slot is used again, so a late
/// event never reaches the wrong connection; slots are small, dense numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// Index into the slab.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// Which listening address a client came in by, in the order of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// The shard's own number for an outgoing connection it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenTicket(pub u64);

/// Sockets and the turn's budget, as a shard sees them. No call waits.
pub trait Io {
    /// What the socket has now, in a scratch buffer that the next call reuses. At most one buffer a
    /// call; call again until `Blocked` or the part is spent (readiness is edge-like: a socket not
    /// read to `Blocked` must be remembered by the shard).
    fn read(&mut self, socket: SocketId) -> Read<'_>;

    /// Offers bytes. Less taken than offered means the socket is full: `Writable` follows.
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
    /// Bytes of brokers.
    BrokerReads,
    /// Requests of clients.
    Serve,
    /// Records of brokers: unpacked, ordered, encoded and applied.
    Ingest,
    /// Fan-out to streams.
    Deliver,
}

impl Part {
    /// How many parts there are.
    pub const COUNT: usize = 4;
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// Some bytes, at least one.
    Bytes(&'a [u8]),
    /// None now: `Readable` follows.
    Blocked,
    /// The peer's end (`None`) or a failure. No further event comes but the shard still closes it.
    Closed(Option<ErrorKind>),
}

/// The state of the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// The other end may send more.
    Open,
    /// The other end sends no more. It may have closed, or wait for our bytes: TCP does not say
    /// which.
    Ended,
    /// The connection is broken: no bytes reach the other end.
    Gone,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// How many bytes were taken; 0 is possible.
    Taken(usize),
    /// The connection is gone.
    Closed,
}

/// What happened to sockets since the last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A client came.
    Accepted {
        /// Its socket, readable or not.
        socket: SocketId,
        /// Where it came in.
        listener: ListenerId,
        /// Its address; serves limits only.
        peer: SocketAddr,
    },
    /// Bytes, an end or an error wait to be read.
    Readable(SocketId),
    /// A write that was not taken whole may go on.
    Writable(SocketId),
    /// An outgoing connection stands.
    Opened {
        /// Which was asked for.
        ticket: OpenTicket,
        /// Its socket.
        socket: SocketId,
    },
    /// An outgoing connection failed: refused, unreachable, or its name did not resolve
    /// (`NotFound`). Nothing is left to close.
    OpenFailed {
        /// Which was asked for.
        ticket: OpenTicket,
        /// Why.
        error: ErrorKind,
    },
}

/// What a turn is given. The shard drains both; the driver reuses the buffers.
#[derive(Debug)]
pub struct Inputs<M> {
    /// In the order they happened.
    pub sockets: Vec<SocketEvent>,
    /// By sender; the order of one sender is kept. [`ShardId::CONTROL`] is the control thread.
    pub messages: Vec<(ShardId, M)>,
    /// How long the last turn took; `None`: the driver has no clock, or this is the first turn. The
    /// shard takes it.
    pub last_turn: Option<Duration>,
}

/// An outgoing connection to make: TCP, `TCP_NODELAY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The shard's number for it.
    pub ticket: OpenTicket,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What a turn asks for. The shard fills it; the driver empties it.
#[derive(Debug)]
pub struct Outputs<M, C> {
    /// To other shards. Delivered in order, later if the other's inbox is full; never dropped.
    pub messages: Vec<(ShardId, M)>,
    /// To the control thread, in order.
    pub control: Vec<C>,
    /// Connections to make.
    pub open: Vec<Open>,
    /// Sockets to close after this turn: both sides of them, with a FIN. Their ids are dead now.
    pub close: Vec<SocketId>,
    /// When to turn again at the latest, if nothing happens before.
    pub deadline: Option<Instant>,
    /// Work is left that needs no event: turn again at once (after others had their chance).
    pub more: bool,
    /// The shard has drained and will not ask for another turn.
    pub ended: bool,
}

impl<M> Default for Inputs<M> {
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            messages: Vec::new(),
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

/// What a driver drives. [`super::Shard`] is one; the reactor's own tests have an echo.
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

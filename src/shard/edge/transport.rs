//! What a client's bytes go through on their way to its socket. Delivery and responses see one
//! face: offer slices, learn how many bytes were taken.

use std::io::IoSlice;

use crate::shard::io::{Io, SocketId, Write};
use crate::sse::{Face, Taken};
use crate::tls::Session;

/// Plain TCP, or TLS over it.
#[derive(Debug)]
pub(super) enum Transport {
    /// Bytes go as they are.
    Plain,
    /// Bytes are encrypted into a bounded buffer first.
    Tls(Box<Session>),
}

/// How far an offer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// So many bytes were taken; fewer than offered: the socket is full, `Writable` follows.
    Bytes(usize),
    /// The connection is gone.
    Gone,
}

impl Transport {
    /// Offers bytes.
    pub(super) fn send(
        &mut self,
        socket: SocketId,
        io: &mut impl Io,
        slices: &[IoSlice<'_>],
    ) -> Sent {
        match self {
            Self::Plain => match io.write(socket, slices) {
                Write::Taken(bytes) => Sent::Bytes(bytes),
                Write::Closed => Sent::Gone,
            },
            Self::Tls(session) => {
                // What waits goes first; what is taken now follows at once where there is room.
                if flush(session, socket, io) == Flushed::Gone {
                    return Sent::Gone;
                }
                let taken = session.take(slices);
                match flush(session, socket, io) {
                    Flushed::Gone => Sent::Gone,
                    Flushed::All | Flushed::Part => Sent::Bytes(taken),
                }
            }
        }
    }

    /// Sends ciphertext that waits for the socket.
    pub(super) fn flush(&mut self, socket: SocketId, io: &mut impl Io) -> Flushed {
        match self {
            Self::Plain => Flushed::All,
            Self::Tls(session) => flush(session, socket, io),
        }
    }

    /// Takes leave where the protocol has one.
    pub(super) fn close(&mut self, socket: SocketId, io: &mut impl Io) {
        if let Self::Tls(session) = self {
            session.close();
            flush(session, socket, io);
        }
    }
}

/// Whether ciphertext is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// None is left.
    All,
    /// The socket is full; `Writable` follows.
    Part,
    /// The connection is gone.
    Gone,
}

fn flush(session: &mut Session, socket: SocketId, io: &mut impl Io) -> Flushed {
    while !session.outgoing().is_empty() {
        let offered = session.outgoing().len();
        match io.write(socket, &[IoSlice::new(session.outgoing())]) {
            Write::Taken(taken) => {
                session.on_sent(taken);
                if taken < offered {
                    return Flushed::Part;
                }
            }
            Write::Closed => return Flushed::Gone,
        }
    }
    Flushed::All
}

/// A transport and its socket, for one delivery.
pub(super) struct SocketFace<'a, I> {
    pub(super) transport: &'a mut Transport,
    pub(super) socket: SocketId,
    pub(super) io: &'a mut I,
    /// What was taken, for the counters.
    pub(super) sent: u64,
}

impl<I: Io> Face for SocketFace<'_, I> {
    fn room(&self) -> usize {
        match &*self.transport {
            Transport::Plain => usize::MAX,
            Transport::Tls(session) => session.room(),
        }
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        match self.transport.send(self.socket, self.io, slices) {
            Sent::Bytes(bytes) => {
                self.sent += bytes as u64;
                Taken::Bytes(bytes)
            }
            Sent::Gone => Taken::Closed,
        }
    }
}

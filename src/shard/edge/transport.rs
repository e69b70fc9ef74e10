//! The path of a client's bytes to its socket. The caller offers slices, and the transport returns
//! how many bytes were taken.

use std::io::IoSlice;

use crate::shard::ciphertext::{Flushed, flush};
use crate::shard::io::{Io, SocketId, Write};
use crate::tls::{HTTP2, Session};

/// Plain TCP, or TLS over it.
#[derive(Debug)]
pub(super) enum Transport {
    /// Plain TCP: the socket gets the bytes unchanged.
    Plain,
    /// Bytes are encrypted into a bounded buffer first.
    Tls(Box<Session>),
}

/// What [`Transport::send`] did with the offered bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// How many bytes were taken. If fewer than offered, the socket is full, and `Writable`
    /// follows.
    Bytes(usize),
    /// The connection is broken: nothing can be sent any more.
    Gone,
}

impl Transport {
    /// Offers bytes to the socket.
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
                // As long as the socket takes the ciphertext there is room for more: less than all
                // may be taken only where `Writable` follows.
                let (mut at, mut from, mut total) = (0, 0, 0);
                loop {
                    match flush(session, socket, io) {
                        Flushed::Gone => return Sent::Gone,
                        Flushed::Part => return Sent::Bytes(total),
                        Flushed::All if at == slices.len() => return Sent::Bytes(total),
                        Flushed::All => {}
                    }
                    let mut taken = match from {
                        0 => session.take(&slices[at..]),
                        _ => session.take(&[IoSlice::new(&slices[at][from..])]),
                    };
                    total += taken;
                    while at < slices.len() && from + taken >= slices[at].len() {
                        taken -= slices[at].len() - from;
                        (at, from) = (at + 1, 0);
                    }
                    from += taken;
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

    /// The most bytes that [`Self::send`] would take now. `usize::MAX` if only the socket knows.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Plain => usize::MAX,
            Self::Tls(session) => session.room(),
        }
    }

    /// Ciphertext that waits for the socket, in bytes.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Tls(session) => session.outgoing().len(),
        }
    }

    /// Ciphertext bytes that the socket has taken so far. The socket may take some although there
    /// is no room for plaintext. Always 0 for a plain transport.
    pub(super) fn ciphertext_sent(&self) -> u64 {
        match self {
            Self::Plain => 0,
            Self::Tls(session) => session.sent_total(),
        }
    }

    /// Whether the client has yet to finish its TLS handshake.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(session) => session.is_handshaking(),
        }
    }

    /// Whether the client has chosen HTTP/2 in its TLS handshake.
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(session) => session.protocol() == Some(HTTP2),
        }
    }

    /// The TLS session, if it has one.
    pub(super) const fn session(&self) -> Option<&Session> {
        match self {
            Self::Plain => None,
            Self::Tls(session) => Some(session),
        }
    }

    /// Sends the protocol's close message, if it has one.
    pub(super) fn close(&mut self, socket: SocketId, io: &mut impl Io) {
        if let Self::Tls(session) = self {
            session.close();
            flush(session, socket, io);
        }
    }
}

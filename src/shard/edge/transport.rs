//! The path of a client's bytes to its socket. The caller offers slices, and the transport returns
//! how many bytes were taken.

use std::io::IoSlice;
use std::net::IpAddr;

use crate::http::{BadProxyHeader, ProxyHeader, ProxySource};
use crate::shard::ciphertext::{Flushed, flush};
use crate::shard::io::{Io, SocketId, Write};
use crate::tls::Session;

/// Plain TCP, or TLS over it.
#[derive(Debug)]
pub(super) enum Transport {
    /// Plain TCP: the socket gets the bytes unchanged.
    Plain,
    /// Bytes are encrypted into a bounded buffer first.
    Tls(Box<Session>),
    /// A header of the PROXY protocol comes before the client's first byte. Nothing is sent until
    /// then.
    Proxied(Box<Proxied>),
}

/// A connection whose header of the PROXY protocol is not complete.
#[derive(Debug)]
pub(super) struct Proxied {
    header: ProxyHeader,
    /// The transport behind the header.
    then: Transport,
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
    /// A transport that begins with a header of the PROXY protocol.
    pub(super) fn behind_proxy(then: Self) -> Self {
        let header = ProxyHeader::default();
        Self::Proxied(Box::new(Proxied { header, then }))
    }

    /// Reads the header of the PROXY protocol, if one is expected, and then becomes the transport
    /// behind it. Returns the bytes behind the header, and the client's address if the header names
    /// one.
    ///
    /// # Errors
    /// The bytes are no such header.
    pub(super) fn read_proxy_header<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<(&'b [u8], Option<IpAddr>), BadProxyHeader> {
        let Self::Proxied(proxied) = self else {
            return Ok((bytes, None));
        };
        let Some((taken, source)) = proxied.header.on_bytes(bytes)? else {
            return Ok((&[], None));
        };
        *self = std::mem::replace(&mut proxied.then, Self::Plain);
        let client = match source {
            ProxySource::Client(address) => Some(address.ip()),
            ProxySource::Proxy => None,
        };
        Ok((&bytes[taken..], client))
    }

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
            Self::Proxied(_) => Sent::Gone,
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
            Self::Plain | Self::Proxied(_) => Flushed::All,
            Self::Tls(session) => flush(session, socket, io),
        }
    }

    /// The most bytes that [`Self::send`] would take now. `usize::MAX` if only the socket knows.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Plain | Self::Proxied(_) => usize::MAX,
            Self::Tls(session) => session.room(),
        }
    }

    /// Ciphertext that waits for the socket, in bytes.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Plain | Self::Proxied(_) => 0,
            Self::Tls(session) => session.outgoing().len(),
        }
    }

    /// Ciphertext bytes that the socket has taken so far. The socket may take some although there
    /// is no room for plaintext. Always 0 for a plain transport.
    pub(super) fn ciphertext_sent(&self) -> u64 {
        match self {
            Self::Plain | Self::Proxied(_) => 0,
            Self::Tls(session) => session.sent_total(),
        }
    }

    /// Whether the client has yet to finish what comes before its first request: the header of the
    /// PROXY protocol, and the TLS handshake.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Proxied(_) => true,
            Self::Tls(session) => session.is_handshaking(),
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

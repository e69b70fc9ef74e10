//! What TLS has to send, on a socket: the same for clients and for brokers.

use std::io::IoSlice;

use super::io::{Io, SocketId, Write};
use crate::tls::Session;

/// How far [`flush`] has sent a session's ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The socket has taken all of the ciphertext.
    All,
    /// The socket is full; `Writable` follows.
    Part,
    /// The connection is closed or broken.
    Gone,
}

/// Sends the ciphertext of a session, as far as the socket takes it.
pub(super) fn flush(session: &mut Session, socket: SocketId, io: &mut impl Io) -> Flushed {
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

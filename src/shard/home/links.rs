//! The plane's connections on the shard's sockets.

use std::io::{ErrorKind, IoSlice};

use crate::kafka::{LinkId, Plane};
use crate::model::Now;
use crate::shard::io::{Io, Open, OpenTicket, Outputs, Read, SocketId, Write};

/// Which socket is which connection of the plane: few, a handful a broker.
#[derive(Debug, Default)]
pub(in crate::shard) struct Links {
    open: Vec<(LinkId, SocketId)>,
}

/// Reads of one broker socket in one turn: 64 KiB each, so a large fetch takes some turns and
/// clients theirs between.
const READS_A_TURN_MAX: usize = 16;

impl Links {
    /// A connection stands.
    pub(in crate::shard) fn on_opened(
        &mut self,
        ticket: OpenTicket,
        socket: SocketId,
        plane: &mut Plane,
        now: Now,
    ) -> LinkId {
        let link = LinkId(ticket.0);
        self.open.push((link, socket));
        plane.on_opened(link, now);
        link
    }

    /// A connection did not come to stand.
    pub(in crate::shard) fn on_failed(
        &self,
        ticket: OpenTicket,
        error: ErrorKind,
        plane: &mut Plane,
        now: Now,
    ) {
        plane.on_open_failed(LinkId(ticket.0), error, now);
    }

    /// Reads what a broker sent. True: there is more, read again next turn.
    pub(in crate::shard) fn on_readable<M>(
        &mut self,
        link: LinkId,
        plane: &mut Plane,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M>,
    ) -> bool {
        let Some(at) = self.open.iter().position(|(l, _)| *l == link) else {
            return false;
        };
        for _ in 0..READS_A_TURN_MAX {
            match io.read(self.open[at].1) {
                Read::Bytes(bytes) => plane.on_bytes(link, bytes, now),
                Read::Blocked => return false,
                Read::Closed(_) => {
                    outputs.close.push(self.open.swap_remove(at).1);
                    plane.on_closed(link, now);
                    return false;
                }
            }
        }
        true
    }

    /// Opens, closes and writes what the plane wants.
    pub(in crate::shard) fn pump<M>(
        &mut self,
        plane: &mut Plane,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M>,
    ) {
        while let Some((link, address)) = plane.next_open() {
            let ticket = OpenTicket(link.0);
            outputs.open.push(Open {
                ticket,
                host: address.host,
                port: address.port,
            });
        }
        while let Some(link) = plane.next_writable() {
            self.write(link, plane, io, now, outputs);
        }
        while let Some(link) = plane.next_close() {
            if let Some(at) = self.open.iter().position(|(l, _)| *l == link) {
                outputs.close.push(self.open.swap_remove(at).1);
            }
        }
    }

    /// Writes until the socket is full; the rest goes at its next `Writable`.
    pub(in crate::shard) fn write<M>(
        &mut self,
        link: LinkId,
        plane: &mut Plane,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M>,
    ) {
        let Some(at) = self.open.iter().position(|(l, _)| *l == link) else {
            return;
        };
        loop {
            let bytes = plane.outgoing(link);
            if bytes.is_empty() {
                return;
            }
            let offered = bytes.len();
            match io.write(self.open[at].1, &[IoSlice::new(bytes)]) {
                Write::Taken(taken) => {
                    plane.on_written(link, taken);
                    if taken < offered {
                        return;
                    }
                }
                Write::Closed => {
                    outputs.close.push(self.open.swap_remove(at).1);
                    plane.on_closed(link, now);
                    return;
                }
            }
        }
    }
}

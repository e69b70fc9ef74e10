//! The plane's connections on the shard's sockets.

use std::io::{ErrorKind, IoSlice};

use crate::kafka::{LinkId, Plane};
use crate::model::Now;
use crate::shard::io::{Io, Open, OpenTicket, Outputs, Read, SocketId, Write};
use crate::shard::snapshot::ClusterIndex;

/// The plane's sockets: few, a handful a broker.
#[derive(Debug)]
pub(in crate::shard) struct Links {
    cluster: ClusterIndex,
    open: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    socket: SocketId,
    /// Something waits to be read.
    readable: bool,
}

/// Reads of one broker socket in one turn: 64 KiB each, so a large fetch takes some turns and
/// clients theirs between.
const READS_A_TURN_MAX: usize = 16;

impl Links {
    /// Those to a cluster.
    pub(in crate::shard) const fn of(cluster: ClusterIndex) -> Self {
        let open = Vec::new();
        Self { cluster, open }
    }

    /// The cluster a ticket is for.
    pub(in crate::shard) const fn cluster_of(ticket: OpenTicket) -> ClusterIndex {
        ClusterIndex((ticket.0 >> 32) as u8)
    }

    /// How many stand.
    pub(in crate::shard) const fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a socket is one of these.
    pub(in crate::shard) fn has(&self, socket: SocketId) -> bool {
        self.open.iter().any(|link| link.socket == socket)
    }

    /// A connection stands.
    pub(in crate::shard) fn on_opened(
        &mut self,
        ticket: OpenTicket,
        socket: SocketId,
        plane: &mut Plane,
        now: Now,
    ) {
        let id = LinkId(ticket.0 as u32);
        self.open.push(Link {
            id,
            socket,
            readable: true,
        });
        plane.on_opened(id, now);
    }

    /// A connection did not come to stand.
    pub(in crate::shard) fn on_failed(
        &self,
        ticket: OpenTicket,
        error: ErrorKind,
        plane: &mut Plane,
        now: Now,
    ) {
        plane.on_open_failed(LinkId(ticket.0 as u32), error, now);
    }

    /// A broker sent something.
    pub(in crate::shard) fn on_readable(&mut self, socket: SocketId) {
        if let Some(link) = self.open.iter_mut().find(|link| link.socket == socket) {
            link.readable = true;
        }
    }

    /// Reads what brokers sent. True: there is more, read again next turn.
    pub(in crate::shard) fn read<M>(
        &mut self,
        plane: &mut Plane,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M>,
    ) -> bool {
        self.open.retain_mut(|link| {
            for _ in 0..READS_A_TURN_MAX {
                if !link.readable {
                    break;
                }
                match io.read(link.socket) {
                    Read::Bytes(bytes) => plane.on_bytes(link.id, bytes, now),
                    Read::Blocked => link.readable = false,
                    Read::Closed(_) => {
                        outputs.close.push(link.socket);
                        plane.on_closed(link.id, now);
                        return false;
                    }
                }
            }
            true
        });
        self.open.iter().any(|link| link.readable)
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
            let ticket = OpenTicket(u64::from(self.cluster.0) << 32 | u64::from(link.0));
            outputs.open.push(Open {
                ticket,
                host: address.host,
                port: address.port,
            });
        }
        while let Some(id) = plane.next_writable() {
            if let Some(socket) = self
                .open
                .iter()
                .find(|l| l.id == id)
                .map(|link| link.socket)
            {
                self.write(socket, plane, io, now, outputs);
            }
        }
        while let Some(id) = plane.next_close() {
            if let Some(at) = self.open.iter().position(|link| link.id == id) {
                outputs.close.push(self.open.swap_remove(at).socket);
            }
        }
    }

    /// Writes until the socket is full; the rest goes at its next `Writable`.
    pub(in crate::shard) fn write<M>(
        &mut self,
        socket: SocketId,
        plane: &mut Plane,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M>,
    ) {
        let Some(at) = self.open.iter().position(|link| link.socket == socket) else {
            return;
        };
        let id = self.open[at].id;
        loop {
            let bytes = plane.outgoing(id);
            if bytes.is_empty() {
                return;
            }
            let offered = bytes.len();
            match io.write(socket, &[IoSlice::new(bytes)]) {
                Write::Taken(taken) => {
                    plane.on_written(id, taken);
                    if taken < offered {
                        return;
                    }
                }
                Write::Closed => {
                    outputs.close.push(self.open.swap_remove(at).socket);
                    plane.on_closed(id, now);
                    return;
                }
            }
        }
    }
}

//! The I/O that a shard uses during its turn: sockets and time budgets.

use std::io::{ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use super::sockets::Sockets;
use crate::shard::{Io, Part, Read, Remote, SocketId, Write};
use crate::sys::SLICES_MAX;

/// Bytes of a shard's scratch buffer, and so of one read.
pub(super) const SCRATCH_BYTES: usize = 64 << 10;

/// Time budget of each part of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budgets {
    pub(super) messages: Duration,
    pub(super) serve: Duration,
    pub(super) answer: Duration,
    pub(super) kafka: Duration,
    pub(super) deliver: Duration,
}

impl Budgets {
    const fn of(&self, part: Part) -> Duration {
        match part {
            Part::Messages => self.messages,
            Part::Serve => self.serve,
            Part::Answer => self.answer,
            Part::Kafka => self.kafka,
            Part::Deliver => self.deliver,
        }
    }
}

/// [`Io`] over real sockets, for one turn.
pub(super) struct TurnIo<'a> {
    sockets: &'a mut Sockets,
    scratch: &'a mut [u8],
    budgets: Budgets,
    /// By part: when it is spent, once it has begun.
    until: [Option<Instant>; Part::COUNT],
}

impl<'a> TurnIo<'a> {
    pub(super) fn new(sockets: &'a mut Sockets, scratch: &'a mut [u8], budgets: Budgets) -> Self {
        Self {
            sockets,
            scratch,
            budgets,
            until: [None; Part::COUNT],
        }
    }
}

impl Io for TurnIo<'_> {
    fn read(&mut self, socket: SocketId) -> Read<'_> {
        let Some(entry) = self.sockets.open(socket) else {
            return Read::Closed(Some(ErrorKind::NotConnected));
        };
        if !entry.maybe_readable {
            return Read::Blocked;
        }
        match entry.socket.read(self.scratch) {
            Ok(0) => Read::Closed(None),
            Ok(bytes) => {
                // A short read has emptied the socket, and a poll reports later bytes. But an end
                // that the same poll reported is not reported again, so in that case read on until
                // it.
                entry.maybe_readable = bytes == self.scratch.len() || entry.ended;
                Read::Bytes(&self.scratch[..bytes])
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                entry.maybe_readable = false;
                Read::Blocked
            }
            Err(error) => Read::Closed(Some(error.kind())),
        }
    }

    fn write(&mut self, socket: SocketId, slices: &[IoSlice<'_>]) -> Write {
        let Some(entry) = self.sockets.open(socket) else {
            return Write::Closed;
        };
        let mut taken = 0;
        // One call takes at most `SLICES_MAX` slices. Ask for a writable event only after a short
        // write, because only then does the poll report room.
        for slices in slices.chunks(SLICES_MAX) {
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = match entry.socket.write(slices) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return Write::Closed,
            };
            taken += written;
            if written < offered {
                entry.wants_room = true;
                break;
            }
        }
        Write::Taken(taken)
    }

    fn end_writes(&mut self, socket: SocketId) {
        if let Some(entry) = self.sockets.open(socket) {
            entry.socket.end_writes();
        }
    }

    fn recheck(&mut self, socket: SocketId) {
        if let Some(entry) = self.sockets.open(socket) {
            entry.maybe_readable = true;
        }
    }

    fn remote(&mut self, socket: SocketId) -> Remote {
        match self.sockets.open(socket) {
            Some(entry) if entry.broken => Remote::Gone,
            Some(entry) if entry.ended => Remote::Ended,
            Some(_) => Remote::Open,
            None => Remote::Gone,
        }
    }

    fn limit_send_buffer(&mut self, socket: SocketId, bytes: usize) {
        if let Some(entry) = self.sockets.open(socket) {
            // Fails only for a broken socket, which the next write reports.
            let _ = entry.socket.set_send_buffer(bytes);
        }
    }

    fn spent(&mut self, part: Part) -> bool {
        let now = Instant::now();
        let budget = self.budgets.of(part);
        now > *self.until[part as usize].get_or_insert(now + budget)
    }
}

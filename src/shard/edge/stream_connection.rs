//! A connection that carries an event stream: which stream, the sending side of its body, and what
//! the client still sends. Without bytes that wait for the socket it holds no buffer.

use std::time::Duration;

use crate::http::ChunkHead;
use crate::metrics::{CloseReason, StreamEnd};
use crate::model::{ExchangeId, Instant, RouteId, TopicId, u32_of};
use crate::shard::ciphertext::Flushed;
use crate::shard::client_limits::ClientCells;
use crate::shard::io::{Io, Read, SocketId};

use super::body::{Body, BodySink, FlushProgress};
use super::transport::Transport;

/// Bytes that a client may send on a stream, where nothing is left to say, before it is closed.
const NOISE_BYTES_MAX: u32 = 16 * 1024;

/// The connection of one stream.
#[derive(Debug)]
pub(super) struct StreamConnection {
    pub(super) stream: Stream,
    body: Body,
    /// Bytes that the client has sent on the stream.
    noise: u32,
    /// Since when the socket takes nothing although bytes wait for it.
    full_since: Option<Instant>,
}

/// One event stream, except for the state that its feed keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) exchange: ExchangeId,
    pub(super) topic: TopicId,
    pub(super) route: RouteId,
    /// The stream's place in the order of arrival on the shard.
    pub(super) opened: u32,
    /// Among whose streams it counts, if those of one client are limited.
    pub(super) client: Option<ClientCells>,
    /// Set once the feed has released the stream. The connection is closed when the end of the body
    /// is sent.
    pub(super) ending: Option<(StreamEnd, CloseReason)>,
}

const _: () = {
    // Every idle stream has one: it is to cost a few hundred bytes in all.
    assert!(size_of::<StreamConnection>() <= 72);
};

/// The result of reading the receiving side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The client is still connected.
    Nothing,
    /// The client ended the connection.
    End,
    /// The client sends too much.
    Noise,
}

impl StreamConnection {
    /// A connection whose response head may still wait for the socket.
    pub(super) fn new(stream: Stream, body: Body, now: Instant) -> Self {
        let full_since = body.is_waiting().then_some(now);
        Self {
            stream,
            body,
            noise: 0,
            full_since,
        }
    }

    /// Where the feed sends the events of one delivery.
    pub(super) fn sink<'a, I: Io>(
        &'a mut self,
        socket: SocketId,
        io: &'a mut I,
        head: &'a mut ChunkHead,
    ) -> BodySink<'a, I> {
        BodySink {
            body: &mut self.body,
            socket,
            io,
            head,
            sent: 0,
        }
    }

    /// After a delivery that sent so many bytes. Returns whether the socket has just become full,
    /// so that its timer must be armed. `full`: the feed has more to send.
    #[must_use]
    pub(super) fn on_delivered(&mut self, sent: usize, full: bool, now: Instant) -> bool {
        let before = self.full_since;
        if sent > 0 {
            self.full_since = None;
        }
        // The rest of a chunk may wait although the feed has nothing more to send.
        if !full && !self.body.is_waiting() {
            return false;
        }
        self.full_since.get_or_insert(now);
        before.is_none()
    }

    /// Sends what waits for the socket. Returns the bytes of the body that were sent.
    pub(super) fn flush(
        &mut self,
        socket: SocketId,
        io: &mut impl Io,
        now: Instant,
    ) -> (Flushed, usize) {
        let FlushProgress {
            flushed,
            sent,
            moved,
        } = self.body.flush(socket, io);
        if moved {
            self.full_since = self.full_since.map(|_| now);
        }
        (flushed, sent)
    }

    /// Notes that no bytes wait for the socket any more.
    pub(super) const fn on_flushed(&mut self) {
        self.full_since = None;
    }

    /// Ends the body, behind the bytes that wait. Returns when the socket must have taken it.
    pub(super) fn end(&mut self, now: Instant, write_timeout: Duration) -> Instant {
        self.body.end();
        self.full_since.get_or_insert(now).after(write_timeout)
    }

    /// When the socket must have taken bytes, if some wait for it.
    pub(super) fn stalls_at(&self, write_timeout: Duration) -> Option<Instant> {
        self.full_since.map(|since| since.after(write_timeout))
    }

    /// Reads and discards what the client sends.
    pub(super) fn read(&mut self, socket: SocketId, io: &mut impl Io) -> Heard {
        loop {
            match io.read(socket) {
                Read::Blocked => return Heard::Nothing,
                Read::Closed(_) => return Heard::End,
                Read::Bytes(bytes) => {
                    self.noise = self.noise.saturating_add(u32_of(bytes.len()));
                    if self.noise > NOISE_BYTES_MAX {
                        return Heard::Noise;
                    }
                }
            }
        }
    }

    pub(super) const fn transport(&self) -> &Transport {
        self.body.transport()
    }

    /// Sends the transport's close message, if it has one.
    pub(super) fn close(&mut self, socket: SocketId, io: &mut impl Io) {
        self.body.close(socket, io);
    }
}

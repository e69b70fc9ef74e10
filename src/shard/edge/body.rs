//! The body of a stream's response: how the feed's bytes are framed on the client's connection.
//!
//! Over HTTP/1.1 each send of the feed is one chunk (RFC 9112 7.1): head, the feed's own slices,
//! end. The feed does not know about chunks. It sends whole frames, so a chunk holds whole frames,
//! and a reader can distinguish an orderly end from a cut. Over HTTP/1.0 the bytes are sent
//! unframed, and the close ends them.
//!
//! If a socket takes a part of a chunk, the rest must be sent before anything else. The rest is
//! copied at once, so that its block may leave the window. If a socket takes nothing, no chunk has
//! begun, and nothing is copied.

use std::io::IoSlice;

use smallvec::SmallVec;

use crate::http::{CHUNK_END, ChunkHead, Follows, Framed, LAST_CHUNK};
use crate::shard::ciphertext::Flushed;
use crate::shard::io::{Io, SocketId};
use crate::sse::{SINK_SLICES_MAX, Sink, Taken};

use super::transport::{Sent, Transport};

/// Bytes of a chunk with its head and end: one TLS record (RFC 8446 5.1). A single frame that is
/// larger is a chunk of its own.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// Bytes of such a chunk's head (`3ff8` CR LF) and of its end.
const CHUNK_FRAMING_BYTES: usize = 8;

const _: () = {
    let data = CHUNK_BYTES_MAX - CHUNK_FRAMING_BYTES;
    assert!(data < 1 << 16, "the head has four digits at most");
    assert!(ChunkHead::new(data).len() + CHUNK_END.len() == CHUNK_FRAMING_BYTES);
};

/// The sending side of one stream.
#[derive(Debug)]
pub(super) struct Body {
    transport: Transport,
    chunked: bool,
    /// Bytes that must be sent before the feed sends more. An idle stream holds no buffer.
    owed: Option<Box<Owed>>,
}

/// Bytes that the socket has not taken: of the response's head, of a chunk, or the last chunk.
#[derive(Debug)]
struct Owed {
    bytes: Vec<u8>,
    sent: usize,
}

/// The result of a call to [`Body::flush`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushProgress {
    /// Whether any bytes still wait for the socket.
    pub(super) flushed: Flushed,
    /// Bytes of the body that were sent, for the counters.
    pub(super) sent: usize,
    /// Whether the socket took any bytes, including those that TLS had encrypted before.
    pub(super) moved: bool,
}

impl Body {
    /// A body whose response head still has the bytes `head` to send.
    pub(super) fn new(transport: Transport, framed: Framed, head: Option<Box<[u8]>>) -> Self {
        let owed = head.map(|head| {
            let (bytes, sent) = (head.into_vec(), 0);
            Box::new(Owed { bytes, sent })
        });
        Self {
            transport,
            chunked: framed.follows == Follows::Chunks,
            owed,
        }
    }

    /// Whether any bytes wait for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.owed.is_some() || self.transport.waiting() > 0
    }

    /// Ends the body in an orderly way, after the owed bytes. [`Self::flush`] sends the end.
    pub(super) fn end(&mut self) {
        if self.chunked {
            let (bytes, sent) = (Vec::new(), 0);
            let owed = self
                .owed
                .get_or_insert_with(|| Box::new(Owed { bytes, sent }));
            owed.bytes.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Sends the owed bytes, then ciphertext that waits, as far as the socket takes them.
    pub(super) fn flush(&mut self, socket: SocketId, io: &mut impl Io) -> FlushProgress {
        let waiting = self.transport.waiting();
        let mut sent = 0;
        if let Some(owed) = &mut self.owed {
            let rest = IoSlice::new(&owed.bytes[owed.sent..]);
            match self.transport.send(socket, io, &[rest]) {
                Sent::Bytes(taken) => sent = taken,
                Sent::Gone => {
                    return FlushProgress {
                        flushed: Flushed::Gone,
                        sent,
                        moved: false,
                    };
                }
            }
            owed.sent += sent;
            if owed.sent == owed.bytes.len() {
                self.owed = None;
            }
        }
        let flushed = match self.transport.flush(socket, io) {
            Flushed::All if self.owed.is_some() => Flushed::Part,
            flushed => flushed,
        };
        FlushProgress {
            flushed,
            sent,
            moved: sent > 0 || self.transport.waiting() < waiting,
        }
    }

    /// Sends a chunk of `whole` bytes. Once its first byte is taken, the rest is owed.
    fn send_chunk(
        &mut self,
        slices: &[IoSlice<'_>],
        whole: usize,
        socket: SocketId,
        io: &mut impl Io,
    ) -> Sent {
        let sent = self.transport.send(socket, io, slices);
        if let Sent::Bytes(taken) = sent
            && taken > 0
            && taken < whole
        {
            self.owed = Some(rest_of(slices, taken));
        }
        sent
    }

    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Sends the protocol's close message, if it has one.
    pub(super) fn close(&mut self, socket: SocketId, io: &mut impl Io) {
        self.transport.close(socket, io);
    }
}

/// A body and its socket, for one delivery.
pub(super) struct BodySink<'a, I> {
    pub(super) body: &'a mut Body,
    pub(super) socket: SocketId,
    pub(super) io: &'a mut I,
    /// The head of the last chunk that this shard has sent. A record's chunk has the same head in
    /// every stream.
    pub(super) head: &'a mut ChunkHead,
    /// Bytes taken, framing included, for the counters.
    pub(super) sent: usize,
}

impl<I: Io> BodySink<'_, I> {
    /// Sends one chunk. If the socket takes at least its first byte, the feed learns that all of
    /// it was taken: the rest becomes owed.
    fn take_chunk(&mut self, data: &[IoSlice<'_>]) -> Taken {
        let len = data.iter().map(|slice| slice.len()).sum();
        if self.head.size() != len {
            *self.head = ChunkHead::new(len);
        }
        let (before, behind) = (IoSlice::new(self.head.as_bytes()), IoSlice::new(CHUNK_END));
        let whole = before.len() + len + behind.len();
        // The usual case: a stream that keeps up sends one slice at a time.
        let sent = match data {
            [only] => {
                let slices = [before, *only, behind];
                self.body.send_chunk(&slices, whole, self.socket, self.io)
            }
            many => {
                let slices = framed(before, many, behind);
                self.body.send_chunk(&slices, whole, self.socket, self.io)
            }
        };
        match sent {
            Sent::Gone => Taken::Closed,
            Sent::Bytes(0) => Taken::Bytes(0),
            Sent::Bytes(taken) => {
                self.sent += taken;
                Taken::Bytes(len)
            }
        }
    }
}

impl<I: Io> Sink for BodySink<'_, I> {
    fn room(&self) -> usize {
        let room = self.body.transport.room();
        match self.body.chunked {
            _ if self.body.owed.is_some() => 0,
            true => room
                .min(CHUNK_BYTES_MAX)
                .saturating_sub(CHUNK_FRAMING_BYTES),
            false => room,
        }
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        if self.body.chunked {
            return self.take_chunk(slices);
        }
        match self.body.transport.send(self.socket, self.io, slices) {
            Sent::Gone => Taken::Closed,
            Sent::Bytes(taken) => {
                self.sent += taken;
                Taken::Bytes(taken)
            }
        }
    }
}

/// The slices of a chunk with several data slices. A function of its own, so that the usual case
/// does not reserve the array.
#[inline(never)]
fn framed<'a>(
    before: IoSlice<'a>,
    data: &[IoSlice<'a>],
    behind: IoSlice<'a>,
) -> SmallVec<[IoSlice<'a>; SINK_SLICES_MAX + 2]> {
    let mut slices = SmallVec::new();
    slices.push(before);
    slices.extend_from_slice(data);
    slices.push(behind);
    slices
}

/// A copy of `slices` without their first `taken` bytes.
#[cold]
fn rest_of(slices: &[IoSlice<'_>], mut taken: usize) -> Box<Owed> {
    let len: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut bytes = Vec::with_capacity(len - taken);
    for slice in slices {
        let skipped = taken.min(slice.len());
        bytes.extend_from_slice(&slice[skipped..]);
        taken -= skipped;
    }
    let sent = 0;
    Box::new(Owed { bytes, sent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::io::{Part, Read, Write};

    const SOCKET: SocketId = SocketId {
        slot: 0,
        generation: 0,
    };
    const CHUNKS: Framed = Framed {
        follows: Follows::Chunks,
        close: true,
    };
    const BYTES: Framed = Framed {
        follows: Follows::Bytes,
        close: true,
    };

    /// A socket with room for this many bytes.
    #[derive(Default)]
    struct Pipe {
        bytes: Vec<u8>,
        left: usize,
        gone: bool,
    }

    impl Io for Pipe {
        fn read(&mut self, _: SocketId) -> Read<'_> {
            Read::Blocked
        }

        fn write(&mut self, _: SocketId, slices: &[IoSlice<'_>]) -> Write {
            if self.gone {
                return Write::Closed;
            }
            let all = slices.iter().flat_map(|slice| slice.iter().copied());
            let all: Vec<u8> = all.collect();
            let taken = all.len().min(self.left);
            self.bytes.extend_from_slice(&all[..taken]);
            self.left -= taken;
            Write::Taken(taken)
        }

        fn spent(&mut self, _: Part) -> bool {
            false
        }
    }

    fn take(body: &mut Body, pipe: &mut Pipe, slices: &[IoSlice<'_>]) -> (Taken, usize) {
        let (socket, sent, mut head) = (SOCKET, 0, ChunkHead::new(0));
        let mut sink = BodySink {
            body,
            socket,
            io: pipe,
            head: &mut head,
            sent,
        };
        let taken = sink.take(slices);
        (taken, sink.sent)
    }

    fn room(body: &mut Body, pipe: &mut Pipe) -> usize {
        let (socket, sent, mut head) = (SOCKET, 0, ChunkHead::new(0));
        let sink = BodySink {
            body,
            socket,
            io: pipe,
            head: &mut head,
            sent,
        };
        sink.room()
    }

    const DATA: [&[u8]; 2] = [b"data: 1\n\n", b"data: two\n\n"];
    const CHUNK: &[u8] = b"14\r\ndata: 1\n\ndata: two\n\n\r\n";

    /// RFC 9112 7.1. Wherever a write stops within a chunk, the chunk is finished before anything
    /// else.
    #[test]
    fn a_chunk_that_was_cut_anywhere_is_finished_first() {
        let slices = DATA.map(IoSlice::new);
        let len = DATA.concat().len();
        for at in 0..=CHUNK.len() {
            let mut body = Body::new(Transport::Plain, CHUNKS, None);
            let mut pipe = Pipe {
                left: at,
                ..Pipe::default()
            };
            let (taken, sent) = take(&mut body, &mut pipe, &slices);
            assert_eq!(sent, at);
            if at == 0 {
                // No chunk has begun, so nothing is owed and the feed offers it again.
                assert_eq!((taken, body.is_waiting()), (Taken::Bytes(0), false));
                continue;
            }
            assert_eq!(
                taken,
                Taken::Bytes(len),
                "the feed goes on behind the chunk"
            );
            let owes = at < CHUNK.len();
            assert_eq!(body.is_waiting(), owes);
            assert_eq!(room(&mut body, &mut pipe) == 0, owes);
            // The rest goes out a byte at a time.
            for _ in at..CHUNK.len() {
                let full = body.flush(SOCKET, &mut pipe);
                assert!(matches!(full.flushed, Flushed::Part) && !full.moved);
                pipe.left = 1;
                assert!(body.flush(SOCKET, &mut pipe).moved, "each byte is progress");
            }
            assert_eq!(pipe.bytes, CHUNK);
            assert!(!body.is_waiting() && body.owed.is_none());
            assert_ne!(room(&mut body, &mut pipe), 0);
        }
    }

    #[test]
    fn the_last_chunk_comes_behind_what_is_owed() {
        for at in 1..=CHUNK.len() {
            let mut body = Body::new(Transport::Plain, CHUNKS, None);
            let mut pipe = Pipe {
                left: at,
                ..Pipe::default()
            };
            take(&mut body, &mut pipe, &DATA.map(IoSlice::new));
            body.end();
            pipe.left = usize::MAX;
            let ended = body.flush(SOCKET, &mut pipe);
            assert!(matches!(ended.flushed, Flushed::All));
            assert_eq!(pipe.bytes, [CHUNK, b"0\r\n\r\n"].concat());
        }
    }

    /// RFC 9112 6.3: an HTTP/1.0 client reads until the close.
    #[test]
    fn a_body_without_chunks_is_the_bytes_as_they_are() {
        let mut body = Body::new(Transport::Plain, BYTES, Some(b"head\r\n\r\n"[..].into()));
        let mut pipe = Pipe::default();
        assert_eq!(room(&mut body, &mut pipe), 0, "the head comes first");
        pipe.left = 15;
        assert!(matches!(
            body.flush(SOCKET, &mut pipe).flushed,
            Flushed::All
        ));
        assert_eq!(room(&mut body, &mut pipe), usize::MAX);
        let (taken, sent) = take(&mut body, &mut pipe, &DATA.map(IoSlice::new));
        // Without chunks, the feed keeps track of a partial write.
        assert_eq!((taken, sent), (Taken::Bytes(7), 7));
        body.end();
        pipe.left = 100;
        body.flush(SOCKET, &mut pipe);
        assert_eq!(pipe.bytes, b"head\r\n\r\ndata: 1");
    }

    #[test]
    fn a_full_chunk_is_one_tls_record() {
        let mut body = Body::new(Transport::Plain, CHUNKS, None);
        let mut pipe = Pipe {
            left: usize::MAX,
            ..Pipe::default()
        };
        let room = room(&mut body, &mut pipe);
        take(&mut body, &mut pipe, &[IoSlice::new(&vec![b'x'; room])]);
        assert_eq!(pipe.bytes.len(), 1 << 14);
    }

    #[test]
    fn a_connection_that_is_gone_is_told() {
        let mut body = Body::new(Transport::Plain, CHUNKS, None);
        let mut pipe = Pipe {
            gone: true,
            ..Pipe::default()
        };
        let (taken, _) = take(&mut body, &mut pipe, &DATA.map(IoSlice::new));
        assert_eq!(taken, Taken::Closed);
        body.end();
        let gone = body.flush(SOCKET, &mut pipe);
        assert!(matches!(gone.flushed, Flushed::Gone));
    }
}

//! Where a feed sends the events of a stream of HTTP/2. The bytes become DATA frames, as many as
//! the windows of the client let through. Frames of the feed that do not fit wait in the feed.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use crate::sse::{Sink, Taken};

use super::exchanges::StreamSlot;
use super::http2::Http2;
use super::http2_stream::{PIECE_BYTES_MAX, StreamState};

/// A stream and its connection, for one delivery.
pub(super) struct Http2Sink<'a> {
    http2: &'a mut Http2,
    slot: StreamSlot,
    room: usize,
    /// Bytes taken, for the counters.
    pub(super) sent: usize,
}

impl<'a> Http2Sink<'a> {
    pub(super) fn new(http2: &'a mut Http2, slot: StreamSlot) -> Self {
        let most = http2.room().min(PIECE_BYTES_MAX);
        let stream = http2.stream(slot).filter(|_| most > 0);
        let room = stream.map_or(0, |stream| stream.response.room(most));
        Self {
            http2,
            slot,
            room,
            sent: 0,
        }
    }
}

impl Sink for Http2Sink<'_> {
    fn room(&self) -> usize {
        self.room
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let taken = offered.min(self.room);
        if taken == 0 {
            return Taken::Bytes(0);
        }
        let Some(stream) = self.http2.stream(self.slot) else {
            return Taken::Closed;
        };
        if stream
            .response
            .send(first_of(slices, taken), false)
            .is_err()
        {
            return Taken::Closed;
        }
        if let StreamState::Events(events) = &mut stream.state {
            events.is_cut = taken < offered;
        }
        self.http2.on_given(taken);
        self.room -= taken;
        self.sent += taken;
        Taken::Bytes(taken)
    }
}

impl Drop for Http2Sink<'_> {
    /// What was not used belongs to the other streams again.
    fn drop(&mut self) {
        if self.room > 0
            && let Some(stream) = self.http2.stream(self.slot)
        {
            stream.response.give_back();
        }
    }
}

/// A copy of the first `len` bytes. h2 copies small frames anyway, and a copy pins no block.
fn first_of(slices: &[IoSlice<'_>], len: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(len);
    for slice in slices {
        let part = slice.len().min(len - bytes.len());
        bytes.extend_from_slice(&slice[..part]);
    }
    bytes.freeze()
}

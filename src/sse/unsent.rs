//! Bytes of one subscriber's own that its socket has not taken.

use std::io::IoSlice;

use super::lines;
use super::sink::{Sink, Taken};

/// Bytes due before anything else: first bytes, a page, a gap, the rest of a frame that was cut.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The sink has taken all bytes.
    All,
    /// The offer was taken; more can be offered.
    More,
    /// The sink takes no more bytes until it is writable.
    Full,
    /// The connection is closed: the bytes are lost.
    Closed,
}

impl Unsent {
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes behind those that wait.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Memory that the bytes take, sent ones included.
    pub(super) const fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Frees memory that no byte takes.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Where more lines are written.
    pub(super) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes one offer. `taken` counts the bytes.
    pub(super) fn flush(&mut self, sink: &mut impl Sink, taken: &mut u64) -> Flushed {
        let room = sink.room();
        if room == 0 {
            return Flushed::Full;
        }
        let offer = lines::whole_frames(&self.bytes[self.sent..], room);
        let offered = offer.len();
        let count = match sink.take(&[IoSlice::new(offer)]) {
            Taken::Closed => return Flushed::Closed,
            Taken::Bytes(count) => count,
        };
        *taken += count as u64;
        self.sent += count;
        if self.sent == self.bytes.len() {
            *self = Self::default(); // The buffer is freed: most subscribers never need it again.
            return Flushed::All;
        }
        if count == offered {
            Flushed::More
        } else {
            Flushed::Full
        }
    }
}

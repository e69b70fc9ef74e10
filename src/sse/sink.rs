//! The interface between delivery and transports. The feed asks how many bytes the transport can
//! take, then offers slices. It sends whole frames and knows no framing: HTTP/1.1's chunks and
//! HTTP/1.0's close are implementations, which the shard wraps around a socket for one call.

use std::io::IoSlice;

/// The most slices of one offer.
pub const SINK_SLICES_MAX: usize = 64;

/// The transport that takes a subscriber's bytes.
pub trait Sink {
    /// The most bytes to offer to [`Self::take`] now. `usize::MAX` if only the socket knows. 0
    /// means "full": the subscriber waits for [`super::Feed::on_writable`].
    fn room(&self) -> usize;

    /// Offers bytes in at most [`SINK_SLICES_MAX`] slices, none empty. They are whole frames within
    /// [`Self::room`], or a single larger frame. After an offer that was taken in part, they are
    /// its rest. Taking less than offered also means "full".
    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken;
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// How many bytes were taken, from the front; 0 is possible.
    Bytes(usize),
    /// The connection is closed: the offer was not taken.
    Closed,
}

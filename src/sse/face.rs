//! The one face delivery has to transports: *how many bytes can you take; take these slices.* It
//! knows whole frames and no framing: HTTP/1.1's chunks, HTTP/1.0's close and HTTP/2 are
//! implementations of it, made by the shard round a socket for one call.

use std::io::IoSlice;

/// Slices of one offer at most.
pub const FACE_SLICES_MAX: usize = 64;

/// Where a subscriber's bytes go.
pub trait Face {
    /// How many bytes to offer to [`Self::take`] now at most; `usize::MAX` where only the socket
    /// knows. 0 is "full": the subscriber waits for [`super::Feed::on_writable`].
    fn room(&self) -> usize;

    /// Offers bytes, at most [`FACE_SLICES_MAX`] slices, none empty. They are whole frames within
    /// [`Self::room`], or a single one that is larger, unless the last offer was taken in part:
    /// then its rest. Less taken than offered is "full" as well.
    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken;
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// How many bytes were taken, from the front; 0 is possible.
    Bytes(usize),
    /// The connection is gone.
    Closed,
}

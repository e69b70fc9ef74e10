//! The one face delivery has to transports: *how many bytes can you take; take these slices.* Plain
//! HTTP, TLS and HTTP/2 are three of it, made by the shard round a socket for one call.

use std::io::IoSlice;

/// Where a subscriber's bytes go.
pub trait Face {
    /// How many bytes [`Self::take`] would take now at most; `usize::MAX` where only the socket
    /// knows. 0 is "full": the subscriber waits for [`super::Feed::on_writable`].
    fn room(&self) -> usize;

    /// Offers bytes, at most 64 slices, none empty. Less taken than offered is "full" as well.
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

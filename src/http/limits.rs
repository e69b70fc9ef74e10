//! Limits of one client: sizes of a request, and of the input discarded after an early response.

/// Most bytes of a head under any settings: positions in it have 16 bits.
pub const HEAD_BYTES_MAX: usize = u16::MAX as usize;

/// Most header lines of a request under any settings.
pub const HEADERS_MAX: usize = 64;

/// Most bytes discarded between an early response and the close of its connection.
///
/// A socket closed with unread bytes sends a reset, and the reset makes the client's kernel drop
/// the response it has not read yet. A client that sends more may lose the response.
pub const DRAIN_BYTES_MAX: usize = 64 * 1024;

/// Sizes of a request, in bytes unless said otherwise. A snapshot's limits may differ from the last
/// one's at any time, also in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers with the blank line after them; at most [`HEAD_BYTES_MAX`]. More is
    /// answered with 431.
    pub head_bytes_max: usize,
    /// Header lines; at most [`HEADERS_MAX`]. More is answered with 431.
    pub headers_max: usize,
    /// Request target as it was sent. More is answered with 414.
    pub uri_bytes_max: usize,
    /// Body, decoded; at most 1 GiB. More is answered with 413, by its announced length if it has
    /// one, without waiting for it.
    pub body_bytes_max: usize,
}

impl Limits {
    /// These limits, within the bounds that hold under any settings.
    pub(super) fn clamped(&self) -> Self {
        Self {
            head_bytes_max: self.head_bytes_max.min(HEAD_BYTES_MAX),
            headers_max: self.headers_max.min(HEADERS_MAX),
            uri_bytes_max: self.uri_bytes_max,
            body_bytes_max: self.body_bytes_max.min(1 << 30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 * 1024,
            headers_max: HEADERS_MAX,
            uri_bytes_max: 8 * 1024,
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// Counts the input discarded after an early response. The order is: write the response, end the
/// sending side, then read and count until the count or the client ends it, then close.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    left: usize,
}

/// The next action while input is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Read on, until the client's end or the shard's timeout.
    More,
    /// The limit is reached: close the connection.
    Close,
}

impl Drain {
    /// A drain that may still discard the full `DRAIN_BYTES_MAX`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            left: DRAIN_BYTES_MAX,
        }
    }

    /// Counts `count` more discarded bytes.
    pub const fn on_bytes(&mut self, count: usize) -> Drained {
        self.left = self.left.saturating_sub(count);
        match self.left {
            0 => Drained::Close,
            _ => Drained::More,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_ends_at_its_limit_and_stays_ended() {
        let mut drain = Drain::new();
        assert_eq!(drain.on_bytes(DRAIN_BYTES_MAX - 1), Drained::More);
        assert_eq!(drain.on_bytes(1), Drained::Close);
        assert_eq!(drain.on_bytes(usize::MAX), Drained::Close);
    }
}

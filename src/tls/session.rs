//! One connection, whichever side of it is ours.

use std::io::{IoSlice, Read as _, Write as _};

use rustls::Connection;
use smallvec::SmallVec;

use super::TlsError;

/// Ciphertext that may wait for a slow socket, per connection.
pub(super) const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// The number of slices of most offers: a chunk's head, data and end, or a few frames.
const SLICES_TYPICAL: usize = 8;

/// One connection's TLS state: 6 to 40 kB, most of it rustls's own.
#[derive(Debug)]
pub struct Session {
    inner: Connection,
    outgoing: Vec<u8>,
    sent: usize,
    sent_total: u64,
}

impl Session {
    /// Begins; what is to be sent at once is in [`Self::outgoing`].
    pub(super) fn over(mut inner: Connection) -> Self {
        inner.set_buffer_limit(None); // `room` is the limit: what is taken is encrypted at once.
        let mut session = Self {
            inner,
            outgoing: Vec::new(),
            sent: 0,
            sent_total: 0,
        };
        session.drain();
        session
    }

    /// Whether the peer is not proven yet: plaintext must not be given to it.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// Takes bytes from the socket and appends their plaintext to `plain`. What is to be sent back
    /// (handshake, alerts) is in [`Self::outgoing`] then, also after an error.
    ///
    /// # Errors
    /// If the peer broke the protocol: send what is outgoing, then close.
    pub fn on_bytes(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let taken = self.inner.read_tls(&mut bytes).map_err(|_| {
                rustls::Error::General("more ciphertext than a connection may leave unread".into())
            })?;
            let processed = self.inner.process_new_packets();
            self.drain();
            let state = processed?;
            if state.plaintext_bytes_to_read() > 0 {
                let start = plain.len();
                plain.resize(start + state.plaintext_bytes_to_read(), 0);
                self.inner
                    .reader()
                    .read_exact(&mut plain[start..])
                    .expect("rustls counted them");
            }
            if taken == 0 {
                break; // close_notify was seen: nothing after it counts.
            }
        }
        Ok(())
    }

    /// Plaintext bytes that may be taken now.
    #[must_use]
    pub fn room(&self) -> usize {
        OUTGOING_BYTES_MAX.saturating_sub(self.outgoing.len() - self.sent)
    }

    /// Encrypts from `slices` what there is room for; says how many plaintext bytes that was.
    pub fn take(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let mut room = self.room();
        let mut fitting: SmallVec<[IoSlice<'_>; SLICES_TYPICAL]> = SmallVec::new();
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            room -= part.len();
            fitting.push(IoSlice::new(part));
            if room == 0 {
                break;
            }
        }
        // One call for all: slices that are written one by one would be a record each.
        let taken = self
            .inner
            .writer()
            .write_vectored(&fitting)
            .expect("writing to rustls's unlimited buffer");
        self.drain();
        taken
    }

    /// Says goodbye (`close_notify`), so that the peer can tell an end from a cut.
    pub fn close(&mut self) {
        self.inner.send_close_notify();
        self.drain();
    }

    /// Ciphertext for the socket.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// The socket took `count` bytes of [`Self::outgoing`].
    pub fn on_sent(&mut self, count: usize) {
        self.sent += count;
        self.sent_total += count as u64;
        debug_assert!(
            self.sent <= self.outgoing.len(),
            "more was sent than there was"
        );
        if self.sent == self.outgoing.len() {
            self.outgoing = Vec::new(); // An idle connection keeps no buffer.
            self.sent = 0;
        }
    }

    /// Bytes of [`Self::outgoing`] that the socket took, since the connection began.
    #[must_use]
    pub const fn sent_total(&self) -> u64 {
        self.sent_total
    }

    fn drain(&mut self) {
        while self.inner.wants_write() {
            self.inner
                .write_tls(&mut self.outgoing)
                .expect("writing to memory");
        }
    }
}

//! One TLS connection, as client or as server.

use std::io::{IoSlice, Read as _, Write as _};

use rustls::Connection;
use rustls_pki_types::CertificateDer;
use smallvec::SmallVec;

use super::TlsError;
use super::x509::CertificateFields;
use crate::model::{CertificateName, ClientCertificate, Identity};

/// Most bytes of ciphertext that wait for a slow socket, per connection.
pub(super) const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// Slices of most calls to [`Session::take`]: a chunk's head, data and end, or a few frames.
const SLICES_TYPICAL: usize = 8;

/// The TLS state of one connection: 6 to 40 kB, most of it in rustls.
#[derive(Debug)]
pub struct Session {
    inner: Connection,
    outgoing: Vec<u8>,
    sent: usize,
    sent_total: u64,
    client: Client,
}

/// What a session knows of its client.
#[derive(Debug)]
enum Client {
    /// The handshake is not complete. At the end, this name of a certificate becomes the client's
    /// identity. `None`: this end is the client.
    Unknown(Option<CertificateName>),
    /// The client has no certificate.
    Anonymous,
    Certified(Box<ClientCertificate>),
}

impl Session {
    /// Starts a session. Bytes to send at once are in [`Self::outgoing`]. `named_by`: which name of
    /// a client's certificate is the client's identity, at a server.
    pub(super) fn over(mut inner: Connection, named_by: Option<CertificateName>) -> Self {
        inner.set_buffer_limit(None); // `room` is the limit: what is taken is encrypted at once.
        let mut session = Self {
            inner,
            outgoing: Vec::new(),
            sent: 0,
            sent_total: 0,
            client: Client::Unknown(named_by),
        };
        session.drain();
        session
    }

    /// Whether the handshake is not complete. Until then the other end is not authenticated, so
    /// send it no plaintext.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// Takes bytes from the socket and appends their plaintext to `plain`. Bytes to send back
    /// (handshake, alerts) are in [`Self::outgoing`] afterwards, even after an error.
    ///
    /// # Errors
    /// The other end violated the protocol. Send the outgoing bytes, then close.
    pub fn on_bytes(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let taken = self.inner.read_tls(&mut bytes).map_err(|_| {
                rustls::Error::General("more ciphertext than a connection may leave unread".into())
            })?;
            let processed = self.inner.process_new_packets();
            self.drain();
            let state = processed?;
            self.identify()?;
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

    /// Reads the client's certificate once the handshake is complete.
    fn identify(&mut self) -> Result<(), TlsError> {
        let Client::Unknown(Some(named_by)) = self.client else {
            return Ok(());
        };
        if self.inner.is_handshaking() {
            return Ok(());
        }
        let chain = self.inner.peer_certificates();
        self.client = match chain.and_then(<[_]>::first) {
            None => Client::Anonymous,
            Some(own) => {
                let fields = CertificateFields::read(own).ok_or(TlsError::Unreadable)?;
                let name = fields.only_name(named_by).ok_or(TlsError::Unnamed)?;
                Client::Certified(Box::new(ClientCertificate {
                    identity: Identity::new(ClientCertificate::ISSUER, name),
                    valid_until: fields.valid_until,
                }))
            }
        };
        Ok(())
    }

    /// The client's certificate, if it has shown one. `None` until the handshake is complete.
    #[must_use]
    pub const fn client_certificate(&self) -> Option<&ClientCertificate> {
        match &self.client {
            Client::Certified(certificate) => Some(certificate),
            Client::Unknown(_) | Client::Anonymous => None,
        }
    }

    /// The certificates that the other end has shown, its own first.
    pub(super) fn shown_chain(&self) -> &[CertificateDer<'static>] {
        self.inner.peer_certificates().unwrap_or_default()
    }

    /// The protocol that both ends have agreed on (ALPN). `None` until the handshake is complete.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        let protocol = self.inner.alpn_protocol();
        protocol.filter(|_| !self.is_handshaking())
    }

    /// Plaintext bytes that [`Self::take`] accepts now.
    #[must_use]
    pub fn room(&self) -> usize {
        OUTGOING_BYTES_MAX.saturating_sub(self.outgoing.len() - self.sent)
    }

    /// Encrypts as much of `slices` as there is room for, and returns the number of plaintext
    /// bytes.
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
        // Write all slices in one call: one by one, each would become a TLS record of its own.
        let taken = self
            .inner
            .writer()
            .write_vectored(&fitting)
            .expect("writing to rustls's unlimited buffer");
        self.drain();
        taken
    }

    /// Sends `close_notify`, so that the other end can distinguish the end from a truncation.
    pub fn close(&mut self) {
        self.inner.send_close_notify();
        self.drain();
    }

    /// Ciphertext to write to the socket.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// Reports that the socket accepted `count` bytes of [`Self::outgoing`].
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

    /// Bytes of [`Self::outgoing`] that the socket accepted since the connection started.
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

//! The server's side of a client connection.

use std::io::{IoSlice, Read as _, Write as _};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// Ciphertext that may wait for a slow socket, per connection.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// One certificate and its rules, shared by every session that starts from it.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    /// Reads a PEM chain and a PEM private key (PKCS#8, PKCS#1 or SEC1). ALPN offers `http/1.1`.
    ///
    /// # Errors
    /// If either holds no such item, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::Certificate(
                rustls_pki_types::pem::Error::NoItemsFound,
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// One connection's TLS state: 6 to 40 kB, most of it rustls's own.
#[derive(Debug)]
pub struct Session {
    inner: ServerConnection,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Session {
    /// A session that waits for the client's first bytes.
    ///
    /// # Errors
    /// If rustls refuses its own configuration.
    pub fn new(acceptor: &Acceptor) -> Result<Self, TlsError> {
        let mut inner = ServerConnection::new(acceptor.0.clone())?;
        inner.set_buffer_limit(None); // `room` is the limit: what is taken is encrypted at once.
        Ok(Self {
            inner,
            outgoing: Vec::new(),
            sent: 0,
        })
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
        let mut taken = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            self.inner
                .writer()
                .write_all(part)
                .expect("writing to rustls's unlimited buffer");
            taken += part.len();
            room -= part.len();
            if room == 0 {
                break;
            }
        }
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
        debug_assert!(
            self.sent <= self.outgoing.len(),
            "more was sent than there was"
        );
        if self.sent == self.outgoing.len() {
            self.outgoing = Vec::new(); // An idle connection keeps no buffer.
            self.sent = 0;
        }
    }

    fn drain(&mut self) {
        while self.inner.wants_write() {
            self.inner
                .write_tls(&mut self.outgoing)
                .expect("writing to memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn client_and_session() -> (ClientConnection, Session) {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
        let key = made.signing_key.serialize_pem();
        let acceptor = Acceptor::from_pem(made.cert.pem().as_bytes(), key.as_bytes());
        let session = Session::new(&acceptor.expect("they fit")).expect("a session");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        (
            ClientConnection::new(Arc::new(config), name).expect("a client"),
            session,
        )
    }

    /// Moves bytes both ways until nothing moves; `piece` bytes at a time towards the server.
    fn settle(client: &mut ClientConnection, session: &mut Session, piece: usize) -> Vec<u8> {
        let mut plain = Vec::new();
        loop {
            let mut up = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut up).expect("memory");
            }
            for part in up.chunks(piece) {
                session
                    .on_bytes(part, &mut plain)
                    .expect("a well-behaved client");
            }
            let down = session.outgoing().to_vec();
            session.on_sent(down.len());
            if up.is_empty() && down.is_empty() {
                return plain;
            }
            let mut rest = &down[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("memory");
                client.process_new_packets().expect("a well-behaved server");
            }
        }
    }

    #[test]
    fn plaintext_crosses_both_ways_however_the_ciphertext_is_cut() {
        for piece in [1, 7, 16_000] {
            let (mut client, mut session) = client_and_session();
            client
                .writer()
                .write_all(b"GET / HTTP/1.1\r\n\r\n")
                .expect("memory");
            assert_eq!(
                settle(&mut client, &mut session, piece),
                b"GET / HTTP/1.1\r\n\r\n"
            );
            let slices = [IoSlice::new(b"data: one\n"), IoSlice::new(b"\n")];
            assert_eq!(session.take(&slices), 11);
            settle(&mut client, &mut session, piece);
            let mut got = [0; 11];
            client.reader().read_exact(&mut got).expect("it arrived");
            assert_eq!(&got, b"data: one\n\n");
        }
    }

    #[test]
    fn a_slow_socket_bounds_what_is_taken() {
        let (mut client, mut session) = client_and_session();
        settle(&mut client, &mut session, 16_000);
        let megabyte = vec![b'x'; 1 << 20];
        let taken = session.take(&[IoSlice::new(&megabyte)]);
        assert_eq!(taken, OUTGOING_BYTES_MAX);
        assert_eq!(session.take(&[IoSlice::new(&megabyte)]), 0);
        session.on_sent(session.outgoing().len());
        assert_eq!(session.room(), OUTGOING_BYTES_MAX);
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let error = Acceptor::from_pem(b"hello", b"hello").expect_err("no PEM");
        assert!(matches!(error, TlsError::Certificate(_)), "{error}");
    }

    #[test]
    fn a_peer_that_speaks_plain_http_gets_an_alert() {
        let (_, mut session) = client_and_session();
        let mut plain = Vec::new();
        session
            .on_bytes(b"GET / HTTP/1.1\r\n\r\n", &mut plain)
            .expect_err("that is no TLS");
        assert!(plain.is_empty() && !session.outgoing().is_empty());
    }
}

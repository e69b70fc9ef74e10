//! The server side of TLS, towards clients.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{Connection, ServerConfig, ServerConnection};

use super::{Session, TlsError, pem};

/// The names of protocols in ALPN (RFC 7301 6, RFC 9113 3.1).
const HTTP1: &[u8] = b"http/1.1";
/// HTTP/2.
pub const HTTP2: &[u8] = b"h2";

/// A certificate with its TLS settings, shared by all sessions that it starts.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// Offers HTTP/1.1.
    http1: Arc<ServerConfig>,
    /// Offers HTTP/2 too.
    http2: Arc<ServerConfig>,
}

impl Acceptor {
    /// Creates an acceptor from a PEM chain and a PEM private key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// A text has no certificate or key, or they do not match.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let (chain, key) = (pem::certificates(chain)?, pem::key(key)?);
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols.insert(0, HTTP2.to_vec());
        let http2 = Arc::new(config);
        Ok(Self { http1, http2 })
    }
}

impl Session {
    /// Starts a session that waits for the client's first bytes. `offer_http2`: the client may
    /// choose HTTP/2 by ALPN.
    ///
    /// # Errors
    /// rustls rejects its own configuration.
    pub fn new(acceptor: &Acceptor, offer_http2: bool) -> Result<Self, TlsError> {
        let config = match offer_http2 {
            true => &acceptor.http2,
            false => &acceptor.http1,
        };
        let inner = ServerConnection::new(config.clone())?;
        Ok(Self::over(Connection::Server(inner)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read as _, Write as _};

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::tls::session::OUTGOING_BYTES_MAX;

    fn client_and_session() -> (ClientConnection, Session) {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
        let key = made.signing_key.serialize_pem();
        let acceptor = Acceptor::from_pem(made.cert.pem().as_bytes(), key.as_bytes());
        let session = Session::new(&acceptor.expect("they fit"), true).expect("a session");
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

    /// Moves bytes both ways until none are left, `piece` bytes at a time towards the server.
    fn exchange_bytes(
        client: &mut ClientConnection,
        session: &mut Session,
        piece: usize,
    ) -> Vec<u8> {
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
                exchange_bytes(&mut client, &mut session, piece),
                b"GET / HTTP/1.1\r\n\r\n"
            );
            let slices = [IoSlice::new(b"data: one\n"), IoSlice::new(b"\n")];
            assert_eq!(session.take(&slices), 11);
            exchange_bytes(&mut client, &mut session, piece);
            let mut got = [0; 11];
            client.reader().read_exact(&mut got).expect("it arrived");
            assert_eq!(&got, b"data: one\n\n");
        }
    }

    /// RFC 8446 5.1: a chunk of a stream (head, frames, end) is one record of at most 2^14 bytes.
    #[test]
    fn slices_of_one_offer_share_records() {
        let (mut client, mut session) = client_and_session();
        exchange_bytes(&mut client, &mut session, 16_000);
        let frames = vec![b'x'; (1 << 14) - 8];
        let slices = [
            IoSlice::new(b"3ff8\r\n"),
            IoSlice::new(&frames[..1000]),
            IoSlice::new(&frames[1000..]),
            IoSlice::new(b"\r\n"),
        ];
        assert_eq!(session.take(&slices), 1 << 14);
        let record = session.outgoing();
        let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
        assert_eq!(record.len(), 5 + len, "one record and no more");
    }

    #[test]
    fn a_slow_socket_bounds_what_is_taken() {
        let (mut client, mut session) = client_and_session();
        exchange_bytes(&mut client, &mut session, 16_000);
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

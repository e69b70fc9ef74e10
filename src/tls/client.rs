//! The client side of TLS, towards brokers.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore};
use rustls_pki_types::ServerName;

use super::wall::Wall;
use super::{Session, TlsError, pem};
use crate::model::Now;

/// Certificate authorities that may sign a broker's certificate.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'a> {
    /// A PEM file that the config names. Every certificate in it must be usable.
    Given(&'a [u8]),
    /// The system's bundle. Certificates of obsolete kinds in it are ignored.
    System(&'a [u8]),
}

/// TLS settings of one cluster: trusted authorities and the client certificate. All its connections
/// share them.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    wall: Arc<Wall>,
}

impl Connector {
    /// Creates a connector. `identity` is a PEM chain and its PEM key, for clusters that
    /// authenticate clients by certificate.
    ///
    /// # Errors
    /// A text has no certificate or key, or chain and key do not match.
    pub fn new(roots: Roots<'_>, identity: Option<(&[u8], &[u8])>) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        match roots {
            Roots::Given(text) => {
                for root in pem::certificates(text)? {
                    store.add(root)?;
                }
            }
            Roots::System(text) => {
                store.add_parsable_certificates(pem::certificates(text)?);
            }
        }
        let wall = Arc::new(Wall::default());
        let provider = aws_lc_rs::default_provider().into();
        let builder = ClientConfig::builder_with_details(provider, wall.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(pem::certificates(chain)?, pem::key(key)?)?
            }
        };
        // Do not resume sessions: connections to brokers last for hours, and rustls keeps sessions
        // behind a lock, which has no place on a shard.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        Ok(Self { config, wall })
    }
}

impl Session {
    /// Starts a session to the broker `host`, a name or an address. The broker's certificate must
    /// be valid for it. A name is sent unencrypted (SNI, RFC 6066 3).
    ///
    /// # Errors
    /// `host` is not a name that a certificate can have.
    pub fn connect(connector: &Connector, host: &str, now: Now) -> Result<Self, TlsError> {
        connector.wall.set(now);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TlsError::Name(host.to_owned()))?;
        let inner = ClientConnection::new(connector.config.clone(), name)?;
        Ok(Self::over(Connection::Client(inner), None))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;

    use super::*;
    use crate::model::{Instant, UnixMillis};
    use crate::tls::{Acceptor, Blame, TicketKeys};

    /// A CA, and a certificate signed by it with its key, in PEM.
    struct Made {
        ca: String,
        chain: String,
        key: String,
    }

    fn made(names: &[&str]) -> Made {
        let (ca_key, key) = (KeyPair::generate(), KeyPair::generate());
        let (ca_key, key) = (ca_key.expect("a key"), key.expect("a key"));
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a certificate").pem();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let named = CertificateParams::new(names).expect("names");
        let chain = named.signed_by(&key, &Issuer::new(params, ca_key));
        Made {
            ca,
            chain: chain.expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }

    const fn at(wall: i64) -> Now {
        Now {
            mono: Instant::ZERO,
            wall: UnixMillis(wall),
        }
    }

    const NOW: Now = at(1_800_000_000_000);

    fn server(made: &Made) -> Session {
        let tickets = TicketKeys::new(&[7; 32]);
        let acceptor = Acceptor::from_pem(made.chain.as_bytes(), made.key.as_bytes(), tickets);
        Session::new(&acceptor.expect("they fit"), false, NOW).expect("a session")
    }

    fn client(ca: &str, host: &str, now: Now) -> Session {
        let connector = Connector::new(Roots::Given(ca.as_bytes()), None).expect("a CA");
        Session::connect(&connector, host, now).expect("a name")
    }

    /// Moves bytes both ways, `piece` at a time, until none are left. Returns what each side
    /// received.
    fn exchange_bytes(
        client: &mut Session,
        server: &mut Session,
        piece: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
        loop {
            let up = client.outgoing().to_vec();
            client.on_sent(up.len());
            for part in up.chunks(piece) {
                server.on_bytes(part, &mut at_server)?;
            }
            let down = server.outgoing().to_vec();
            server.on_sent(down.len());
            for part in down.chunks(piece) {
                client.on_bytes(part, &mut at_client)?;
            }
            if up.is_empty() && down.is_empty() {
                return Ok((at_client, at_server));
            }
        }
    }

    #[test]
    fn plaintext_crosses_both_ways_however_the_ciphertext_is_cut() {
        let made = made(&["kafka.example", "10.1.2.3"]);
        for (piece, host) in [(1, "kafka.example"), (7, "10.1.2.3"), (16_000, "10.1.2.3")] {
            let (mut client, mut server) = (client(&made.ca, host, NOW), server(&made));
            assert!(client.is_handshaking() && !client.outgoing().is_empty());
            exchange_bytes(&mut client, &mut server, piece).expect("a handshake");
            assert!(!client.is_handshaking());
            let megabyte = vec![b'k'; 1 << 20];
            let taken = client.take(&[IoSlice::new(&megabyte)]);
            let (_, got) = exchange_bytes(&mut client, &mut server, piece).expect("it crosses");
            assert_eq!(got, megabyte[..taken]);
            server.take(&[IoSlice::new(b"answer")]);
            let (got, _) = exchange_bytes(&mut client, &mut server, piece).expect("it crosses");
            assert_eq!(got, b"answer");
        }
    }

    #[test]
    fn each_way_of_not_being_trusted_has_its_own_name() {
        let right = made(&["kafka.example"]);
        let later = at(300_000_000_000_000); // rcgen's certificates end in the year 4096.
        let earlier = at(1);
        let cases = [
            (made(&["x"]).ca, "kafka.example", NOW, Blame::UnknownIssuer),
            (right.ca.clone(), "other.example", NOW, Blame::WrongName),
            (right.ca.clone(), "10.1.2.3", NOW, Blame::WrongName),
            (right.ca.clone(), "kafka.example", later, Blame::NotValid),
            (right.ca.clone(), "kafka.example", earlier, Blame::NotValid),
        ];
        for (ca, host, now, blame) in cases {
            let (mut client, mut server) = (client(&ca, host, now), server(&right));
            let error = exchange_bytes(&mut client, &mut server, 99).expect_err("not trusted");
            assert_eq!(error.blame(), blame, "{error}");
            assert!(client.is_handshaking());
            assert!(!client.outgoing().is_empty(), "the server is told");
        }
    }

    /// A server that requires a client certificate.
    fn choosy(made: &Made) -> Session {
        let mut roots = RootCertStore::empty();
        for root in pem::certificates(made.ca.as_bytes()).expect("a CA") {
            roots.add(root).expect("a root");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(
                pem::certificates(made.chain.as_bytes()).expect("a chain"),
                pem::key(made.key.as_bytes()).expect("a key"),
            );
        let inner = rustls::ServerConnection::new(Arc::new(config.expect("they fit")));
        Session::over(Connection::Server(inner.expect("a session")), None)
    }

    #[test]
    fn a_server_that_asks_gets_our_certificate_and_refuses_us_without() {
        let made = made(&["kafka.example"]);
        let identity = Some((made.chain.as_bytes(), made.key.as_bytes()));
        let connector = Connector::new(Roots::Given(made.ca.as_bytes()), identity);
        let connector = connector.expect("they fit");
        let known = Session::connect(&connector, "kafka.example", NOW);
        let (mut known, mut server) = (known.expect("a name"), choosy(&made));
        exchange_bytes(&mut known, &mut server, 500).expect("both are known");
        let (mut unknown, mut server) = (client(&made.ca, "kafka.example", NOW), choosy(&made));
        exchange_bytes(&mut unknown, &mut server, 500).expect_err("the server says no");
        let alert = server.outgoing().to_vec();
        let error = unknown.on_bytes(&alert, &mut Vec::new());
        assert_eq!(error.expect_err("it was told").blame(), Blame::Us);
    }

    #[test]
    fn who_does_not_speak_tls_is_found_out() {
        let made = made(&["kafka.example"]);
        let mut client = client(&made.ca, "kafka.example", NOW);
        let error = client.on_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut Vec::new());
        assert_eq!(error.expect_err("no TLS").blame(), Blame::NotTls);
        let connector = Connector::new(Roots::System(made.ca.as_bytes()), None).expect("a CA");
        let error = Session::connect(&connector, "no name", NOW).expect_err("a space");
        assert!(matches!(error, TlsError::Name(_)));
    }
}

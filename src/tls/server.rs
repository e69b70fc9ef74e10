//! The server side of TLS, towards clients.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{Connection, ServerConfig, ServerConnection};

use super::client_authorities::ClientAuthorities;
use super::server_certificate::{ByName, ServerCertificate};
use super::tickets::TicketKeys;
use super::wall::Wall;
use super::{Session, TlsError};
use crate::model::{CertificateName, Now};

/// The names of protocols in ALPN (RFC 7301 6, RFC 9113 3.1).
const HTTP1: &[u8] = b"http/1.1";
/// HTTP/2.
pub const HTTP2: &[u8] = b"h2";

/// TLS settings towards clients: certificates, authorities of clients, and the keys of session
/// tickets. A snapshot: the control thread makes another one when files or keys change, and
/// sessions keep the one that they began with.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// Offers HTTP/1.1.
    http1: Arc<ServerConfig>,
    /// Offers HTTP/2 too.
    http2: Arc<ServerConfig>,
    wall: Arc<Wall>,
    authorities: Option<ClientAuthorities>,
}

impl Acceptor {
    /// Creates an acceptor. Clients get `default`, or the certificate of `others` for the name that
    /// they ask for. Without `authorities`, clients are not asked for a certificate.
    ///
    /// # Errors
    /// rustls rejects the settings, which has never been seen.
    pub fn new(
        default: &ServerCertificate,
        others: &[ServerCertificate],
        authorities: Option<ClientAuthorities>,
        tickets: TicketKeys,
    ) -> Result<Self, TlsError> {
        let wall = Arc::new(Wall::default());
        let provider = aws_lc_rs::default_provider().into();
        let verifier = authorities.as_ref().map_or_else(
            WebPkiClientVerifier::no_client_auth,
            ClientAuthorities::verifier,
        );
        let mut config = ServerConfig::builder_with_details(provider, wall.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(ByName::new(default, others)));
        config.ticketer = Arc::new(tickets);
        // Sessions are resumed by tickets only: a store would need a lock that all shards share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let (http1, http2) = both(config);
        Ok(Self {
            http1,
            http2,
            wall,
            authorities,
        })
    }

    /// Creates an acceptor with one certificate, for any client.
    ///
    /// # Errors
    /// A text has no certificate or key, or they do not match.
    pub fn from_pem(chain: &[u8], key: &[u8], tickets: TicketKeys) -> Result<Self, TlsError> {
        Self::new(
            &ServerCertificate::from_pem(chain, key)?,
            &[],
            None,
            tickets,
        )
    }

    /// The same settings with other keys of tickets.
    #[must_use]
    pub fn with_tickets(&self, tickets: TicketKeys) -> Self {
        let mut config = (*self.http1).clone();
        config.ticketer = Arc::new(tickets);
        let (http1, http2) = both(config);
        Self {
            http1,
            http2,
            ..self.clone()
        }
    }
}

/// The settings that offer HTTP/1.1, and those that offer HTTP/2 before it.
fn both(mut config: ServerConfig) -> (Arc<ServerConfig>, Arc<ServerConfig>) {
    config.alpn_protocols = vec![HTTP1.to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, HTTP2.to_vec());
    (http1, Arc::new(config))
}

impl Session {
    /// Starts a session that waits for the client's first bytes. `offer_http2`: the client may
    /// choose HTTP/2 by ALPN.
    ///
    /// # Errors
    /// rustls rejects its own configuration.
    pub fn new(acceptor: &Acceptor, offer_http2: bool, now: Now) -> Result<Self, TlsError> {
        acceptor.wall.set(now);
        let config = if offer_http2 {
            &acceptor.http2
        } else {
            &acceptor.http1
        };
        let inner = ServerConnection::new(config.clone())?;
        let authorities = acceptor.authorities.as_ref();
        // Without authorities no client shows a certificate, and the choice does not matter.
        let named_by = authorities.map_or(CertificateName::Subject, ClientAuthorities::named_by);
        Ok(Self::over(Connection::Server(inner), Some(named_by)))
    }

    /// Whether the client may stay connected under the authorities of another acceptor: it has no
    /// certificate, or one that they have signed.
    ///
    /// A session that was resumed by a ticket needs the question too: rustls does not look at the
    /// certificate of the first handshake again.
    #[must_use]
    pub fn is_trusted_by(&self, acceptor: &Acceptor, now: Now) -> bool {
        if self.client_certificate().is_none() {
            return true;
        }
        let chain = self.shown_chain();
        let authorities = acceptor.authorities.as_ref();
        authorities.is_some_and(|it| it.have_signed(chain, now))
    }
}

//! TLS as a machine over bytes: what came from the socket goes in, plaintext comes out, and the
//! other way round. rustls does the protocol; this room knows neither sockets nor files.

mod server;

pub use server::{Acceptor, Session};

/// Why TLS could not be set up or has failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain holds no certificate or is no PEM.
    #[error("the certificate file holds no PEM certificate: {0}")]
    Certificate(rustls_pki_types::pem::Error),
    /// The key file holds no private key.
    #[error("the key file holds no PEM private key: {0}")]
    Key(rustls_pki_types::pem::Error),
    /// Certificate and key do not fit, or the peer broke the protocol (RFC 8446).
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
}

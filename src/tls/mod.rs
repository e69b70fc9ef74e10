//! TLS as a machine over bytes: what came from the socket goes in, plaintext comes out, and the
//! other way round. rustls does the protocol; this room knows neither sockets nor files.
//!
//! One [`Session`] for both sides: an [`Acceptor`] begins it towards a client, a [`Connector`]
//! towards a broker.

mod client;
mod pem;
mod server;
mod session;

pub use client::{Connector, Roots};
pub use server::Acceptor;
pub use session::Session;

/// Why TLS could not be set up or has failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain holds no certificate or is no PEM.
    #[error("no PEM certificate is in it: {0}")]
    Certificate(rustls_pki_types::pem::Error),
    /// The key file holds no private key.
    #[error("no PEM private key is in it: {0}")]
    Key(rustls_pki_types::pem::Error),
    /// Certificate and key do not fit, or the peer broke the protocol (RFC 8446).
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// What is called is neither a DNS name nor an address.
    #[error("`{0}` is no name that a certificate could be for")]
    Name(String),
}

/// What is to be done about a failure towards a server, as far as the failure shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody we trust has signed its certificate.
    UnknownIssuer,
    /// Its certificate is for other names.
    WrongName,
    /// Its certificate is over, not yet valid, or revoked.
    NotValid,
    /// Its certificate is no good otherwise.
    Certificate,
    /// It refused us: our certificate is missing, or not to its liking.
    Us,
    /// It does not speak TLS.
    NotTls,
    /// Both speak TLS, and have nothing in common.
    NothingCommon,
    /// None of these.
    Other,
}

impl TlsError {
    /// Who has to change what.
    #[must_use]
    pub fn blame(&self) -> Blame {
        use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
        let Self::Protocol(error) = self else {
            return Blame::Other;
        };
        match error {
            Error::InvalidCertificate(bad) => match bad {
                // A bad signature is what an authority made anew under its old name looks like.
                Bad::UnknownIssuer | Bad::BadSignature => Blame::UnknownIssuer,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Blame::WrongName,
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. }
                | Bad::Revoked => Blame::NotValid,
                _ => Blame::Certificate,
            },
            Error::AlertReceived(alert) => match alert {
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied => Blame::Us,
                Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
                    Blame::NothingCommon
                }
                _ => Blame::Other,
            },
            Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => Blame::NotTls,
            Error::PeerIncompatible(_) => Blame::NothingCommon,
            _ => Blame::Other,
        }
    }
}

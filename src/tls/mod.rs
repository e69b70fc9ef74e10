//! TLS as a state machine over bytes: ciphertext from the socket goes in and plaintext comes out,
//! and the reverse. rustls implements the protocol. This room knows neither sockets nor files.
//!
//! A [`Session`] is one side of a connection: an [`Acceptor`] starts one towards a client, a
//! [`Connector`] one towards a broker.

mod client;
mod client_authorities;
mod pem;
mod server;
mod server_certificate;
#[cfg(test)]
mod server_tests;
mod session;
mod tickets;
mod wall;
mod x509;

pub use client::{Connector, Roots};
pub use client_authorities::ClientAuthorities;
pub use server::{Acceptor, HTTP2};
pub use server_certificate::ServerCertificate;
pub use session::Session;
pub use tickets::{TICKET_KEY_AGE_MAX, TicketKeys};
pub use x509::CertificateFields;

/// Why TLS could not be set up or has failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text has no certificate, or is not PEM.
    #[error("no PEM certificate is in it: {0}")]
    Certificate(rustls_pki_types::pem::Error),
    /// The text has no private key, or is not PEM.
    #[error("no PEM private key is in it: {0}")]
    Key(rustls_pki_types::pem::Error),
    /// Certificate and key do not match, or the other end violated the protocol (RFC 8446).
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// A certificate has fields that cannot be read (RFC 5280 4.1), or a name with control
    /// characters.
    #[error("its first certificate is malformed")]
    Unreadable,
    /// A certificate's time was over this many days ago.
    #[error("it expired {0} days ago")]
    Expired(i64),
    /// A certificate's time begins in this many days.
    #[error("it is not valid yet, for another {0} days")]
    NotYetValid(i64),
    /// A client's certificate does not have exactly one name of the kind that is the client's
    /// identity.
    #[error("its certificate has no name that could be its identity, or several")]
    Unnamed,
    /// The host is neither a DNS name nor an address.
    #[error("`{0}` is no name that a certificate could be for")]
    Name(String),
}

/// The cause of a failed handshake with a server, as far as the error shows it. Each cause has
/// another remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// No trusted authority has signed the server's certificate.
    UnknownIssuer,
    /// The server's certificate is for other names.
    WrongName,
    /// The server's certificate has expired, is not yet valid, or is revoked.
    NotValid,
    /// The server's certificate is invalid for another reason.
    Certificate,
    /// The server rejected the client's certificate, or requires one.
    Us,
    /// The server does not use TLS.
    NotTls,
    /// Client and server have no version or cipher suite in common.
    NothingCommon,
    /// Any other error, without advice.
    Other,
}

impl TlsError {
    /// Classifies the error by its cause.
    #[must_use]
    pub fn blame(&self) -> Blame {
        use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
        let Self::Protocol(error) = self else {
            return Blame::Other;
        };
        match error {
            Error::InvalidCertificate(bad) => match bad {
                // An authority that was re-created under its old name shows as a bad signature.
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

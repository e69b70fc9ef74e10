//! What a client's TLS certificate says about the client.

use super::{Identity, UnixMillis};

/// The part of a certificate that names its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The subject, as RFC 4514 writes it: `CN=till-7,O=Example`.
    Subject,
    /// The DNS name of the subject alternative names.
    Dns,
    /// The URI of the subject alternative names, such as a SPIFFE id.
    Uri,
    /// The e-mail address of the subject alternative names.
    Email,
}

/// A client's certificate. It exists only after the client has proved that it has the key, and an
/// authority of `tls.client_ca` was found to have signed the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The client's identity: the issuer is [`Self::ISSUER`], the subject is the name of the
    /// certificate that `tls.client_identity` chooses.
    pub identity: Identity,
    /// The last moment at which the certificate is valid.
    pub valid_until: UnixMillis,
}

impl ClientCertificate {
    /// The issuer of every identity of a certificate. All authorities of `tls.client_ca` sign for
    /// the same clients, so the authority is no part of the identity.
    pub const ISSUER: &str = "certificate";
}

//! The server's certificates, and which of them a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::x509::CertificateFields;
use super::{TlsError, pem};
use crate::model::{CertificateName, UnixMillis};

/// A certificate chain of the server with its private key.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    key: Arc<CertifiedKey>,
    fields: CertificateFields,
}

impl ServerCertificate {
    /// Reads a PEM chain, the server's own certificate first, and a PEM private key (PKCS#8, PKCS#1
    /// or SEC1).
    ///
    /// # Errors
    /// A text has no certificate or key, they do not match, or the certificate cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let (chain, key) = (pem::certificates(chain)?, pem::key(key)?);
        let fields = chain.first().and_then(|own| CertificateFields::read(own));
        let fields = fields.ok_or(TlsError::Unreadable)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
        let key = Arc::new(key);
        Ok(Self { key, fields })
    }

    /// # Errors
    /// It has expired, or is not valid yet.
    pub fn check_valid(&self, now: UnixMillis) -> Result<(), TlsError> {
        let days = |from: UnixMillis, until: UnixMillis| (until.0 - from.0) / 86_400_000;
        if now > self.valid_until() {
            return Err(TlsError::Expired(days(self.valid_until(), now)));
        }
        if now < self.valid_from() {
            return Err(TlsError::NotYetValid(days(now, self.valid_from())));
        }
        Ok(())
    }

    /// The first moment at which it is valid.
    #[must_use]
    pub const fn valid_from(&self) -> UnixMillis {
        self.fields.valid_from
    }

    /// The last moment at which it is valid.
    #[must_use]
    pub const fn valid_until(&self) -> UnixMillis {
        self.fields.valid_until
    }

    /// The DNS names that it is for. The first label may be `*`.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.fields.names_of(CertificateName::Dns)
    }
}

/// Chooses a certificate by the name that the client asks for (SNI, RFC 6066 3). An exact name
/// comes before a wildcard. A client that names no host, or one that no certificate is for, gets
/// the default certificate: the client decides whether to trust it.
#[derive(Debug)]
pub(super) struct ByName {
    /// Of several certificates for one name, such as one with an RSA and one with an ECDSA key, the
    /// first with a signature scheme that the client knows.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    /// The first certificate is the default.
    pub(super) fn new(default: &ServerCertificate, others: &[ServerCertificate]) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in std::iter::once(default).chain(others) {
            for name in certificate.dns_names() {
                let name = name.to_ascii_lowercase();
                let all = by_name.entry(name).or_default();
                all.push(certificate.key.clone());
            }
        }
        Self {
            by_name,
            default: default.key.clone(),
        }
    }

    /// The certificates for a host, in order. RFC 6125 6.4.3: `*` stands for one whole label.
    fn of(&self, host: &str) -> Option<&[Arc<CertifiedKey>]> {
        let wildcard = || {
            let (_, parent) = host.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        let found = self.by_name.get(host).or_else(wildcard);
        found.map(Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let Some(all) = host.and_then(|host| self.of(&host)) else {
            return Some(self.default.clone());
        };
        let schemes = hello.signature_schemes();
        let usable = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(schemes).is_some();
        let chosen = all.iter().find(usable).or(all.first());
        chosen.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> ServerCertificate {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("they match")
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard_of_one_label() {
        let default = certificate(&["default.example"]);
        let wide = certificate(&["*.shop.example", "shop.example"]);
        let exact = certificate(&["API.shop.example"]);
        let other = certificate(&["api.shop.example"]);
        let all = [wide.clone(), exact.clone(), other.clone()];
        let by_name = ByName::new(&default, &all);
        let of = |host: &str| by_name.of(host).unwrap_or_default().to_vec();
        let is = |found: &[Arc<CertifiedKey>], wanted: &[&ServerCertificate]| {
            let wanted = wanted.iter().map(|it| &it.key);
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        assert!(is(&of("api.shop.example"), &[&exact, &other]));
        assert!(is(&of("www.shop.example"), &[&wide]));
        assert!(is(&of("shop.example"), &[&wide]));
        assert!(is(&of("default.example"), &[&default]));
        for none in ["a.b.shop.example", "example", "", ".shop.example.x"] {
            assert!(of(none).is_empty(), "{none}");
        }
    }
}

//! The authorities that may sign the certificates of clients.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;

use super::wall::unix_time;
use super::{TlsError, pem};
use crate::model::{CertificateName, Now};

/// The authorities that may sign a client's certificate, whether a client must have one, and which
/// of its names is the client's identity. Every certificate of the text must be usable: a text that
/// is not is refused, and never replaced by other authorities.
#[derive(Clone)]
pub struct ClientAuthorities {
    verifier: Arc<dyn ClientCertVerifier>,
    named_by: CertificateName,
}

impl ClientAuthorities {
    /// Reads the authorities from PEM. `required`: a client without a certificate is refused. One
    /// whose certificate does not have exactly one name `named_by` is refused too.
    ///
    /// # Errors
    /// The text has no certificate, or one that cannot be an authority.
    pub fn from_pem(
        text: &[u8],
        required: bool,
        named_by: CertificateName,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in pem::certificates(text)? {
            roots.add(root)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let builder = if required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let verifier = builder.build();
        Ok(Self {
            verifier: verifier.expect("`certificates` returns one at least"),
            named_by,
        })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }

    pub(super) const fn named_by(&self) -> CertificateName {
        self.named_by
    }

    /// Whether one of the authorities has signed this chain, the client's own certificate first,
    /// and the chain is valid now.
    pub(super) fn have_signed(&self, chain: &[CertificateDer<'_>], now: Now) -> bool {
        let Some((own, intermediates)) = chain.split_first() else {
            return false;
        };
        let now = unix_time(now);
        let verified = self.verifier.verify_client_cert(own, intermediates, now);
        verified.is_ok()
    }
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.verifier.root_hint_subjects();
        write!(f, "ClientAuthorities({})", names.len())
    }
}

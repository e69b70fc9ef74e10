//! Reads certificates and keys from PEM text.

use rustls_pki_types::pem::{Error, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// Returns all certificates of a PEM text, at least one.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(TlsError::Certificate)?;
    if all.is_empty() {
        Err(TlsError::Certificate(Error::NoItemsFound))
    } else {
        Ok(all)
    }
}

/// Returns the private key of a PEM text: PKCS#8, PKCS#1 or SEC1.
pub(super) fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(TlsError::Key)
}

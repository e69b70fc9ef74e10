//! What vouches for clients' credentials: key sets of issuers and API keys. Files are read before
//! anything is bound, so a file that cannot be used stops the start. Addresses are fetched later, in
//! the background.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::BootError;
use super::security::{file, system_authorities};
use crate::config::{Config, IssuerConfig, JwksSource};
use crate::control::{ApiKeyFile, FetchTls, IssuerKeys};

/// Sources of keys, each ready to report changes.
#[derive(Debug)]
pub(super) struct KeySources {
    /// By the issuer's place in the config.
    pub(super) issuers: Vec<IssuerKeys>,
    pub(super) api_keys: Option<ApiKeyFile>,
}

/// Every source of keys that the config names.
pub(super) fn all(config: &Config) -> Result<KeySources, BootError> {
    let issuers = config.issuers.iter().map(issuer);
    Ok(KeySources {
        issuers: issuers.collect::<Result<_, _>>()?,
        api_keys: api_keys(config)?,
    })
}

/// Every source of keys that can't be used.
pub(super) fn refusals(config: &Config) -> Vec<BootError> {
    let issuers = config.issuers.iter();
    let issuers = issuers.filter_map(|it| issuer(it).err());
    issuers.chain(api_keys(config).err()).collect()
}

fn issuer(config: &IssuerConfig) -> Result<IssuerKeys, BootError> {
    let tls = match &config.jwks {
        JwksSource::Url(url) if url.https => Some(tls(config)?),
        JwksSource::Url(_) | JwksSource::File(_) => None,
    };
    IssuerKeys::new(config.clone(), tls).map_err(|why| BootError::Keys {
        setting: format!("the keys of issuer `{}`", config.name),
        why,
        at: Some(config.jwks_at.clone()),
    })
}

fn api_keys(config: &Config) -> Result<Option<ApiKeyFile>, BootError> {
    let Some(path) = &config.settings.credentials.api_keys else {
        return Ok(None);
    };
    let keys = ApiKeyFile::new(path).map_err(|why| BootError::Keys {
        setting: "credentials.api_keys".into(),
        why,
        at: None,
    });
    keys.map(Some)
}

/// How TLS connections to the server of an issuer's keys are made.
fn tls(config: &IssuerConfig) -> Result<FetchTls, BootError> {
    let key = format!("issuer.ca of issuer `{}`", config.name);
    let text = match &config.ca {
        Some(path) => file(Path::new(path), &key)?,
        None => system_authorities(&key)?,
    };
    let refused = |why: String| BootError::Keys {
        setting: key.clone(),
        why,
        at: Some(config.jwks_at.clone()),
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    // The system's bundle may have certificates of obsolete kinds, which are ignored.
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 || config.ca.is_some() && ignored > 0 {
        let why = "it must hold certificates of authorities, in PEM";
        return Err(refused(why.into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| refused(error.to_string()))?;
    let tls = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(tls))
}

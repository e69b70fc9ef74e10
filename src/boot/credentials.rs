//! What vouches for clients' credentials: key sets of issuers and API keys. Files are read before
//! anything is bound, so a file that cannot be used stops the start. Addresses are fetched later,
//! in the background.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::security::{file, resolve, system_authorities};
use super::{BootError, Shards, deliver};
use crate::auth::{ApiKeys, FLEET_SECRET_BYTES_MIN, KeySet, Keys, TicketKeys};
use crate::config::{Config, IssuerConfig, JwksSource, SecretSource};
use crate::control::{ApiKeyFile, FetchTls, IssuerKeys, KeysHealth};
use crate::metrics::{Check, CheckState, General};
use crate::model::ShardId;
use crate::shard::{Message, ShardMessage, Snapshot};

/// Sources of keys, each ready to report changes.
#[derive(Debug)]
pub(super) struct KeySources {
    /// By the issuer's place in the config.
    pub(super) issuers: Vec<IssuerKeys>,
    pub(super) api_keys: Option<ApiKeyFile>,
    pub(super) tickets: Option<Arc<TicketKeys>>,
}

/// Every source of keys that the config names.
pub(super) fn all(config: &Config) -> Result<KeySources, BootError> {
    let issuers = config.issuers.iter().map(issuer);
    Ok(KeySources {
        issuers: issuers.collect::<Result<_, _>>()?,
        api_keys: api_keys(config)?,
        tickets: tickets(config)?,
    })
}

/// Every source of keys that can't be used.
pub(super) fn refusals(config: &Config) -> Vec<BootError> {
    let issuers = config.issuers.iter();
    let issuers = issuers.filter_map(|it| issuer(it).err());
    let others = [api_keys(config).err(), tickets(config).err()];
    issuers.chain(others.into_iter().flatten()).collect()
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

/// The keys of stream tickets, from the fleet secret.
fn tickets(config: &Config) -> Result<Option<Arc<TicketKeys>>, BootError> {
    let credentials = &config.settings.credentials;
    let read = |source: &Option<SecretSource>, key: &str| {
        let Some(source) = source else {
            return Ok(None);
        };
        let secret = resolve(source, key)?;
        if secret.expose().len() < FLEET_SECRET_BYTES_MIN {
            return Err(BootError::Secret {
                key: key.to_owned(),
                why: "it has fewer than 32 bytes; make one: openssl rand -base64 48".into(),
            });
        }
        Ok(Some(secret))
    };
    let now = read(&credentials.fleet_secret, "credentials.fleet_secret")?;
    let old = read(
        &credentials.fleet_secret_old,
        "credentials.fleet_secret_old",
    )?;
    Ok(now.map(|now| Arc::new(TicketKeys::new(&now, old.as_ref()))))
}

/// How TLS connections to the server of an issuer's keys are made.
fn tls(config: &IssuerConfig) -> Result<FetchTls, BootError> {
    let key = format!("issuer.ca of issuer `{}`", config.name);
    let text = match &config.ca {
        Some(path) => file(Path::new(path), &key, Some(config.jwks_at.clone()))?,
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

/// What vouches for credentials, as the shards have it, and the state of its sources.
pub(super) struct KeyRing {
    keys: tokio::sync::Mutex<Keys>,
    issuers: Vec<WatchedIssuer>,
    running: Arc<Shards>,
    shards: u16,
}

/// An issuer whose keys a task keeps up to date.
struct WatchedIssuer {
    name: String,
    /// Notified when a token names an unknown key.
    wanted: Arc<Notify>,
    health: Arc<Mutex<KeysHealth>>,
}

impl KeyRing {
    /// The keys that the sources have read so far.
    pub(super) fn new(sources: &KeySources, snapshot: &Snapshot, running: Arc<Shards>) -> Self {
        let named = sources.issuers.iter().zip(&snapshot.config.issuers);
        let issuers = named.map(|(source, issuer)| WatchedIssuer {
            name: issuer.name.clone(),
            wanted: source.wanted(),
            health: source.health(),
        });
        let known = sources.issuers.iter().map(|it| it.set().cloned());
        let api_keys = sources.api_keys.as_ref();
        let keys = Keys {
            issuers: known.collect(),
            api_keys: api_keys.map_or_else(Arc::default, |it| it.keys().clone()),
            tickets: sources.tickets.clone(),
        };
        Self {
            issuers: issuers.collect(),
            keys: keys.into(),
            running,
            shards: snapshot.layout.shards,
        }
    }

    /// Sends the keys to all shards.
    pub(super) async fn send(&self) {
        self.change(|_| ()).await;
    }

    /// Changes the keys, and sends them to all shards.
    async fn change(&self, change: impl FnOnce(&mut Keys)) {
        // The lock is kept while they are sent: a later change must not be overtaken.
        let mut keys = self.keys.lock().await;
        change(&mut keys);
        let all = Arc::new(keys.clone());
        for shard in (0..self.shards).map(ShardId) {
            let message = Message::Shard(ShardMessage::Keys(all.clone()));
            deliver(&self.running, shard, message).await;
        }
    }

    /// Keeps the keys up to date. Each source has a task of its own, so an issuer that does not
    /// answer delays no other. Never returns.
    pub(super) async fn watch(self: &Arc<Self>, sources: KeySources) {
        let mut each = JoinSet::new();
        for (place, mut source) in sources.issuers.into_iter().enumerate() {
            let ring = self.clone();
            each.spawn(async move {
                loop {
                    let read = source.next().await;
                    ring.on_key_set(place, read).await;
                }
            });
        }
        if let Some(mut file) = sources.api_keys {
            let ring = self.clone();
            each.spawn(async move {
                loop {
                    let read = file.next().await;
                    ring.on_api_keys(read).await;
                }
            });
        }
        // Each runs forever, so the first that ends has panicked.
        if let Some(ended) = each.join_next().await {
            ended.expect("it runs forever and does not panic");
        }
        std::future::pending::<()>().await;
    }

    async fn on_key_set(&self, place: usize, read: Result<Arc<KeySet>, String>) {
        match read {
            Err(why) => tracing::warn!("{why}"),
            Ok(set) => {
                let name = &self.issuers[place].name;
                let (count, skipped) = (set.len(), set.skipped);
                tracing::info!(count, skipped, "keys of issuer `{name}` read");
                self.change(|keys| keys.issuers[place] = Some(set)).await;
            }
        }
    }

    async fn on_api_keys(&self, read: Result<Arc<ApiKeys>, String>) {
        match read {
            Err(why) => tracing::warn!("credentials.api_keys: {why}"),
            Ok(api_keys) => {
                tracing::info!(count = api_keys.len(), "API keys read");
                self.change(|keys| keys.api_keys = api_keys).await;
            }
        }
    }

    /// A token names a key that the issuer does not have here.
    pub(super) fn on_unknown_key(&self, issuer: usize) {
        if let Some(issuer) = self.issuers.get(issuer) {
            issuer.wanted.notify_one();
        }
    }

    /// The checks of `/readyz` about issuers. None of them keeps the process from being ready:
    /// other credentials work, and the routes of this issuer's clients answer 503 meanwhile.
    pub(super) fn checks(&self) -> impl Iterator<Item = Check> {
        self.issuers.iter().map(|issuer| {
            let health = issuer.health.lock().unwrap_or_else(PoisonError::into_inner);
            let age = health.read.map(|read| read.elapsed().as_secs());
            let (state, detail) = match (age, &health.error) {
                (Some(_), None) => (CheckState::Ready, String::new()),
                (Some(age), Some(why)) => {
                    let detail = format!("in use: those of {age} s ago; {why}");
                    (CheckState::Degraded, detail)
                }
                (None, Some(why)) => (CheckState::Degraded, why.clone()),
                (None, None) => (CheckState::Degraded, "not read yet".into()),
            };
            Check::new(format!("keys of issuer `{}`", issuer.name), state, detail)
        })
    }

    /// Counts attempts to read keys, over all issuers.
    pub(super) fn count(&self, general: &mut General) {
        for issuer in &self.issuers {
            let health = issuer.health.lock().unwrap_or_else(PoisonError::into_inner);
            general.issuer_reads.add(health.attempts);
            general.issuer_read_failures.add(health.failures);
        }
    }
}

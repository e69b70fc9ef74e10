//! The public keys of issuers, from a file or an address. They are fetched in the background, so a
//! request never waits for an issuer, and the last good set stays in use whatever fails.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fetch::{FetchTls, fetch};
use crate::auth::{JWKS_BYTES_MAX, KeySet};
use crate::config::{IssuerConfig, JwksSource, JwksUrl};

/// How often a file is looked at.
const FILE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a key set is fetched if no token asks for it. Issuers publish a key before they use
/// it.
const FETCH_EVERY: Duration = Duration::from_secs(300);
/// Time between two fetches, whatever tokens ask for: a flood of invented key ids must not become
/// a flood of requests to the issuer.
const FETCH_GAP: Duration = Duration::from_secs(30);
/// Longest wait after a fetch has failed, before any set is known.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time for a fetch, from the name's resolution to the last byte.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);

/// What is known about the keys of an issuer, for `/readyz` and the metrics.
#[derive(Clone, Debug, Default)]
pub struct KeysHealth {
    /// When the set was last read.
    pub read: Option<Instant>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// Attempts so far, and those that failed.
    pub attempts: u64,
    /// Failed attempts.
    pub failures: u64,
}

/// Keeps the keys of one issuer up to date.
#[derive(Debug)]
pub struct IssuerKeys {
    issuer: IssuerConfig,
    source: Source,
    /// The last good set.
    set: Option<Arc<KeySet>>,
    wanted: Arc<Notify>,
    health: Arc<Mutex<KeysHealth>>,
}

#[derive(Debug)]
enum Source {
    File {
        path: PathBuf,
        seen: Option<Seen>,
    },
    Url {
        url: JwksUrl,
        tls: Option<FetchTls>,
        due: Instant,
        last: Option<Instant>,
        failures: u32,
    },
}

/// What shows that a file has changed.
type Seen = (SystemTime, u64);

impl IssuerKeys {
    /// The keys of an issuer. A file is read at once; an address is fetched by [`Self::next`].
    ///
    /// # Errors
    /// The file can't be used.
    pub fn new(issuer: IssuerConfig, tls: Option<FetchTls>) -> Result<Self, String> {
        let source = match &issuer.jwks {
            JwksSource::File(path) => Source::File {
                path: path.clone(),
                seen: None,
            },
            JwksSource::Url(url) => Source::Url {
                url: url.clone(),
                tls,
                due: Instant::now(),
                last: None,
                failures: 0,
            },
        };
        let mut keys = Self {
            issuer,
            source,
            set: None,
            wanted: Arc::default(),
            health: Arc::default(),
        };
        if let Source::File { path, .. } = &keys.source {
            let path = path.clone();
            let seen = seen(&path);
            let read = read_file(&path).and_then(|text| keys.accept(&text));
            keys.note(&read);
            read?;
            keys.source = Source::File { path, seen };
        }
        Ok(keys)
    }

    /// The last good set.
    #[must_use]
    pub const fn set(&self) -> Option<&Arc<KeySet>> {
        self.set.as_ref()
    }

    /// Notify it when a token names a key that the set lacks.
    #[must_use]
    pub fn wanted(&self) -> Arc<Notify> {
        self.wanted.clone()
    }

    /// What is known about the keys, kept up to date.
    #[must_use]
    pub fn health(&self) -> Arc<Mutex<KeysHealth>> {
        self.health.clone()
    }

    /// Waits until the set has changed. Returns what to log: `Ok` for another set, `Err` for a
    /// failure that differs from the last one.
    pub async fn next(&mut self) -> Result<Arc<KeySet>, String> {
        loop {
            let text = self.next_text().await;
            let before = self.error();
            let read = text.and_then(|text| self.accept(&text));
            self.note(&read);
            self.plan(read.is_ok());
            match read {
                Ok(Some(set)) => return Ok(set),
                Err(why) if before.as_ref() != Some(&why) => {
                    let name = &self.issuer.name;
                    let stays = match self.set {
                        Some(_) => "the keys read before stay in use",
                        None => "its tokens get 503",
                    };
                    return Err(format!("no keys of issuer `{name}`: {why}; {stays}"));
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    fn error(&self) -> Option<String> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.error.clone()
    }

    /// Waits for the next text of the source that is due, and reads it.
    async fn next_text(&mut self) -> Result<Vec<u8>, String> {
        match &mut self.source {
            Source::File { path, seen: last } => loop {
                sleep(FILE_LOOK_EVERY).await;
                let now = seen(path);
                // A file that is gone is reported each time; the caller logs it once.
                if now.is_none() || now != *last {
                    *last = now;
                    return read_file(path);
                }
            },
            Source::Url {
                url,
                tls,
                due,
                last,
                ..
            } => {
                tokio::select! {
                    () = sleep_until(*due) => {}
                    () = self.wanted.notified() => {
                        if let Some(last) = *last {
                            sleep_until(last + FETCH_GAP).await;
                        }
                    }
                }
                *last = Some(Instant::now());
                let fetched = timeout(FETCH_TIME_MAX, fetch(url, tls.as_ref(), JWKS_BYTES_MAX));
                let late = || format!("{url} did not answer within 5 s");
                fetched.await.map_err(|_| late())?
            }
        }
    }

    /// Reads a document. Returns its set if that differs from the present one.
    fn accept(&mut self, text: &[u8]) -> Result<Option<Arc<KeySet>>, String> {
        let set = KeySet::parse(text, &self.issuer.algorithms);
        let set = set.map_err(|error| format!("{}: {error}", self.place()))?;
        if self.set.as_deref() == Some(&set) {
            return Ok(None);
        }
        let set = Arc::new(set);
        self.set = Some(set.clone());
        Ok(Some(set))
    }

    fn place(&self) -> String {
        match &self.source {
            Source::File { path, .. } => path.display().to_string(),
            Source::Url { url, .. } => url.to_string(),
        }
    }

    fn note(&self, read: &Result<Option<Arc<KeySet>>, String>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.attempts += 1;
        health.failures += u64::from(read.is_err());
        health.error = read.as_ref().err().cloned();
        if read.is_ok() {
            health.read = Some(Instant::now());
        }
    }

    /// Decides when to fetch next.
    fn plan(&mut self, ok: bool) {
        let known = self.set.is_some();
        if let Source::Url { due, failures, .. } = &mut self.source {
            *failures = if ok { 0 } else { failures.saturating_add(1) };
            let doublings = failures.saturating_sub(1).min(5);
            let wait = match (ok, known) {
                (true, _) => FETCH_EVERY,
                (false, true) => FETCH_GAP,
                (false, false) => RETRY_MAX.min(Duration::from_secs(1 << doublings)),
            };
            *due = Instant::now() + wait;
        }
    }
}

fn seen(path: &std::path::Path) -> Option<Seen> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let wrong = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mut text = Vec::new();
    let limit = JWKS_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut text).map_err(wrong)?;
    Ok(text)
}

//! The file of API keys, which is read again whenever it changes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use crate::auth::{API_KEY_FILE_BYTES_MAX, ApiKeys};

/// How often the file is looked at: a removed key stops working within a second. Half of it, since
/// the shards need some of that second, too.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Keeps the API keys of a file up to date.
#[derive(Debug)]
pub struct ApiKeyFile {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
    keys: Arc<ApiKeys>,
    error: Option<String>,
}

impl ApiKeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn new(path: &Path) -> Result<Self, String> {
        let seen = seen(path);
        Ok(Self {
            keys: Arc::new(read(path)?),
            path: path.to_owned(),
            seen,
            error: None,
        })
    }

    /// The keys that were read last.
    #[must_use]
    pub const fn keys(&self) -> &Arc<ApiKeys> {
        &self.keys
    }

    /// Waits until the keys have changed. A file that can't be used is reported once, and the keys
    /// read before stay in use: half a file would shut out clients whose keys are all right.
    pub async fn next(&mut self) -> Result<Arc<ApiKeys>, String> {
        loop {
            sleep(LOOK_EVERY).await;
            let now = seen(&self.path);
            if now.is_some() && now == self.seen {
                continue;
            }
            self.seen = now;
            match read(&self.path) {
                Ok(keys) => {
                    self.error = None;
                    if keys != *self.keys {
                        self.keys = Arc::new(keys);
                        return Ok(self.keys.clone());
                    }
                }
                Err(why) if self.error.as_ref() != Some(&why) => {
                    self.error = Some(why.clone());
                    return Err(format!("{why}; the keys read before stay in use"));
                }
                Err(_) => {}
            }
        }
    }
}

fn seen(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<ApiKeys, String> {
    let shown = path.display();
    let wrong = |error: std::io::Error| format!("can't read {shown}: {error}");
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mut text = String::new();
    let limit = API_KEY_FILE_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_string(&mut text).map_err(wrong)?;
    if text.len() > API_KEY_FILE_BYTES_MAX {
        return Err(format!("{shown} has more than 1 MiB"));
    }
    ApiKeys::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

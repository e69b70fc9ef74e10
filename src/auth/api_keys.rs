//! API keys: random texts that an operator gives to machines. The file has only their hashes, so
//! a reader of the file can't use them. A key has at least 128 random bits: nothing slower than
//! SHA-256 is needed to hide it.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::grant::{Grant, KeyRef, Scopes};
use crate::config::OWN_ISSUERS;
use crate::model::{Claims, Identity, Principal};

/// Most bytes of the file.
pub const API_KEY_FILE_BYTES_MAX: usize = 1 << 20;

/// Most keys of the file.
const API_KEYS_MAX: usize = 10_000;

/// Why a file of API keys can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ApiKeysError {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// What is wrong with it. Never a part of the line, which may hold a key by mistake.
    pub why: &'static str,
}

/// The keys of one file, by hash.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ApiKeys {
    grants: BTreeMap<[u8; 32], Arc<Grant>>,
    /// The key of each grant.
    keys: BTreeSet<KeyRef>,
}

impl ApiKeys {
    /// Reads a file: one key a line, `name:SHA-256 of the key in hex:scopes`. Empty lines and those
    /// that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, ApiKeysError> {
        let mut keys = Self::default();
        let mut names = BTreeSet::new();
        for (at, line) in text.lines().enumerate() {
            let wrong = |why| ApiKeysError { line: at + 1, why };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, ':');
            let (Some(name), Some(hash)) = (fields.next(), fields.next()) else {
                return Err(wrong("a key is `name:SHA-256 in hex:scopes`"));
            };
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
                return Err(wrong(
                    "a name has 1 to 64 letters, digits, `.`, `_`, `-` and `@`",
                ));
            }
            let hash = hex(hash).ok_or(wrong("the hash must have 64 hex digits"))?;
            let scopes = Scopes::of_text(fields.next().unwrap_or_default());
            if !names.insert(name.to_owned()) {
                return Err(wrong("two keys have this name; give each its own"));
            }
            let grant = Grant {
                principal: Principal {
                    identity: Identity::new(OWN_ISSUERS[0], name),
                    claims: Claims::NONE,
                },
                scopes,
                expires: None,
                key: KeyRef::ApiKey(line_hash(line)),
            };
            keys.keys.insert(grant.key);
            if keys.grants.insert(hash, grant.into()).is_some() {
                return Err(wrong("two names have this key; make another"));
            }
            if keys.grants.len() > API_KEYS_MAX {
                return Err(wrong("there are more than 10000 keys"));
            }
        }
        Ok(keys)
    }

    /// The grant of the key with this SHA-256. The search takes a time that depends on the hash,
    /// which tells nothing about any key.
    pub(super) fn find(&self, hash: &[u8; 32]) -> Option<&Arc<Grant>> {
        self.grants.get(hash)
    }

    pub(super) fn has(&self, key: KeyRef) -> bool {
        self.keys.contains(&key)
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether the file has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }
}

/// Identifies a line with its scopes: a key whose scopes changed is another key.
fn line_hash(line: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let hash = digest(&SHA256, line.as_bytes());
    for (to, from) in out.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    out
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
    };
    let mut out = [0; 32];
    for (to, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

//! What a verified credential allows.

use crate::model::{Principal, UnixMillis};

/// By how much the clocks of issuer and gateway may differ, in milliseconds.
pub(super) const LEEWAY_MS: i64 = 5_000;

/// A client with a verified credential, and what the credential allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client.
    pub principal: Principal,
    /// What the client may do.
    pub scopes: Scopes,
    /// When the credential expires. `None`: not by itself.
    pub expires: Option<UnixMillis>,
    /// The key that vouches for the credential. The grant ends with it.
    pub key: KeyRef,
}

impl Grant {
    /// The first moment at which the credential is no longer accepted: its expiry and the leeway
    /// for clocks that differ.
    #[must_use]
    pub fn ends(&self) -> Option<UnixMillis> {
        let expires = self.expires?;
        Some(UnixMillis(expires.0.saturating_add(LEEWAY_MS)))
    }

    /// Whether the credential has expired.
    #[must_use]
    pub fn has_expired(&self, now: UnixMillis) -> bool {
        self.ends().is_some_and(|ends| ends <= now)
    }
}

/// Names the key that vouches for a credential, so that a grant ends when the key is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyRef {
    /// A key of an issuer: the issuer's place in the config, and a hash of the key.
    Issuer(u8, [u8; 16]),
    /// An API key: a hash of its line in the file, scopes included.
    ApiKey([u8; 16]),
    /// No key: a client certificate, which TLS checked.
    Certificate,
}

/// Scopes of a client, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Box<[Box<str>]>);

impl Scopes {
    /// Scopes as words separated by spaces (RFC 6749 3.3).
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::of_words(text.split(' '))
    }

    /// Scopes from single words.
    #[must_use]
    pub fn of_words<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let words = words.filter(|word| !word.is_empty());
        let mut all: Vec<Box<str>> = words.map(Box::from).collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into())
    }

    /// Whether the client has all of these.
    #[must_use]
    pub fn have(&self, required: &[String]) -> bool {
        let has = |scope: &String| self.0.iter().any(|it| **it == **scope);
        required.iter().all(has)
    }

    /// Every scope, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|it| &**it)
    }
}

//! Who a client is, as its verified credential says: an identity, and named claims.

use std::fmt;
use std::sync::Arc;

/// Issuer and subject of a verified credential. Both count, because two issuers may use the same
/// subject for different clients. Anonymous clients have neither. Their address is used for limits
/// only, never as an identity: a phone that changes networks and retries must reach the same
/// command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Option<Arc<(Box<str>, Box<str>)>>);

impl Identity {
    /// The identity of a client without a credential.
    pub const ANONYMOUS: Self = Self(None);

    /// Creates the identity of a verified credential.
    #[must_use]
    pub fn new(issuer: &str, subject: &str) -> Self {
        Self(Some(Arc::new((issuer.into(), subject.into()))))
    }

    /// Issuer and subject. `None` if the client is anonymous.
    #[must_use]
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.0.as_deref().map(|(i, s)| (&**i, &**s))
    }

    /// Whether the client has no credential.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }
}

/// Named claims of a verified credential, which the config lists (`claims` of an `[[issuer]]`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claims(Option<Arc<ClaimSet>>);

#[derive(PartialEq, Eq)]
struct ClaimSet {
    texts: Box<[(Box<str>, Box<str>)]>,
    json: Box<str>,
}

impl Claims {
    /// No claims: those of an anonymous client.
    pub const NONE: Self = Self(None);

    /// `texts` has the claims that are text, a number or a boolean. `json` is an object of all
    /// carried claims, arrays and objects included.
    #[must_use]
    pub fn new(texts: Vec<(Box<str>, Box<str>)>, json: Box<str>) -> Self {
        let texts = texts.into_boxed_slice();
        Self(Some(Arc::new(ClaimSet { texts, json })))
    }

    /// The text of one claim. `None`: the credential lacks it, or it is an array or an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let set = self.0.as_ref()?;
        let found = set.texts.iter().find(|(known, _)| **known == *name);
        found.map(|(_, text)| &**text)
    }

    /// Every claim that has a text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.0.iter().flat_map(|set| &set.texts);
        texts.map(|(name, text)| (&**name, &**text))
    }

    /// All carried claims as a JSON object. `None` if there are none.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        self.0.as_ref().map(|set| &*set.json)
    }
}

/// Names only: values are personal data.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.0.iter().flat_map(|set| &set.texts);
        f.debug_list().entries(texts.map(|(name, _)| name)).finish()
    }
}

/// A client: its identity, and its claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Issuer and subject.
    pub identity: Identity,
    /// The claims that the config carries.
    pub claims: Claims,
}

impl Principal {
    /// A client without a credential.
    pub const ANONYMOUS: Self = Self {
        identity: Identity::ANONYMOUS,
        claims: Claims::NONE,
    };
}

/// The textual form for templates and record headers: `issuer#subject`. In the issuer, `%` is
/// written as `%25` and `#` as `%23`, so that different identities have different texts. Anonymous
/// is empty.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((issuer, subject)) = self.parts() else {
            return Ok(());
        };
        for piece in issuer.split_inclusive(['%', '#']) {
            match piece.as_bytes().last() {
                Some(b'%') => write!(f, "{}%25", &piece[..piece.len() - 1])?,
                Some(b'#') => write!(f, "{}%23", &piece[..piece.len() - 1])?,
                _ => f.write_str(piece)?,
            }
        }
        write!(f, "#{subject}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_identities_apart() {
        let text = |i, s| Identity::new(i, s).to_string();
        assert_eq!(text("https://idp", "ann"), "https://idp#ann");
        assert_ne!(text("a#b", "c"), text("a", "b#c"));
        assert_eq!(text("a#b%", "c"), "a%23b%25#c");
        assert_eq!(Identity::ANONYMOUS.to_string(), "");
        assert_ne!(text("", ""), "");
    }
}

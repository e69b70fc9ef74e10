//! The identity of a client, as its verified credential says.

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

//! Stream tickets. An `EventSource` can't send `Authorization`, and repeats its URL whenever it
//! reconnects. A ticket is a credential that may be in that URL. It opens one route for one client.
//!
//! A ticket is base64url of an HMAC-SHA-256 under `credentials.fleet_secret`, and the JSON that it
//! protects. The JSON is read only after the HMAC was found to be right. It names the key that
//! vouched for the client, so a ticket ends with the credential that it was made from.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use aws_lc_rs::hmac::{self, HMAC_SHA256, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::grant::{Grant, KeyRef, Scopes};
use super::rejected::Denial;
use crate::config::IssuerConfig;
use crate::model::{Claims, Identity, Principal, Secret, UnixMillis, u8_of};

/// Most bytes of a ticket: it must fit a request target, with the path and an event id.
pub const TICKET_BYTES_MAX: usize = 4096;

/// Fewest bytes of a fleet secret.
pub const FLEET_SECRET_BYTES_MIN: usize = 32;

/// What the HMAC covers before the JSON, so that it can't be one of another purpose.
const DOMAIN: &[u8] = b"sluicegate stream-ticket 1\0";

const TAG_BYTES: usize = 32;

/// The keys of tickets.
pub struct TicketKeys {
    /// Makes and accepts tickets.
    now: hmac::Key,
    /// Accepts tickets that were made before the secret was changed.
    old: Option<hmac::Key>,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a ticket says.
#[derive(Serialize, Deserialize)]
struct Said<'t> {
    /// The pattern of the stream's path.
    path: &'t str,
    iss: String,
    sub: String,
    /// Milliseconds since 1970.
    exp: Option<i64>,
    scopes: Vec<String>,
    /// Claims as JSON, and those that are text for templates.
    claims: Option<String>,
    texts: Vec<(String, String)>,
    key: SaidKey,
}

/// [`KeyRef`] without the issuer's place, which may differ at another instance.
#[derive(Serialize, Deserialize)]
enum SaidKey {
    Issuer([u8; 16]),
    ApiKey([u8; 16]),
    Certificate,
}

impl TicketKeys {
    /// Keys from the fleet secret, and the one before it.
    #[must_use]
    pub fn new(now: &Secret, old: Option<&Secret>) -> Self {
        let key = |secret: &Secret| hmac::Key::new(HMAC_SHA256, secret.expose().as_bytes());
        Self {
            now: key(now),
            old: old.map(key),
        }
    }

    /// A ticket for the route with this path. `None`: the client's claims are too long for one.
    pub(super) fn make(&self, grant: &Grant, path: &str) -> Option<String> {
        let Principal { identity, claims } = &grant.principal;
        let (iss, sub) = identity.parts()?;
        let texts = claims.texts();
        let said = Said {
            path,
            iss: iss.into(),
            sub: sub.into(),
            exp: grant.expires.map(|it| it.0),
            scopes: grant.scopes.iter().map(Into::into).collect(),
            claims: claims.json().map(Into::into),
            texts: texts
                .map(|(name, text)| (name.into(), text.into()))
                .collect(),
            key: match grant.key {
                KeyRef::Issuer(_, id) => SaidKey::Issuer(id),
                KeyRef::ApiKey(id) => SaidKey::ApiKey(id),
                KeyRef::Certificate => SaidKey::Certificate,
            },
        };
        let said = serde_json::to_vec(&said).expect("texts and numbers are JSON");
        let tag = tag(&self.now, &said);
        let ticket = URL_SAFE_NO_PAD.encode([tag.as_ref(), &said].concat());
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    /// The grant of a ticket for the route with this path.
    ///
    /// # Errors
    /// The first check that failed. The caller checks the key and the expiry.
    pub(super) fn read(
        &self,
        ticket: &str,
        path: &str,
        issuers: &[IssuerConfig],
    ) -> Result<Grant, Denial> {
        if ticket.len() > TICKET_BYTES_MAX {
            return Err(Denial::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(ticket)
            .map_err(|_| Denial::Malformed)?;
        let (tag, said) = bytes.split_at_checked(TAG_BYTES).ok_or(Denial::Malformed)?;
        let mut keys = std::iter::once(&self.now).chain(&self.old);
        // `verify` compares in a time that does not depend on the tag.
        let message = message(said);
        if !keys.any(|key| hmac::verify(key, &message, tag).is_ok()) {
            return Err(Denial::Signature);
        }
        let said: Said<'_> = serde_json::from_slice(said).map_err(|_| Denial::Malformed)?;
        if said.path != path {
            return Err(Denial::OtherRoute);
        }
        let key = match said.key {
            SaidKey::Issuer(id) => {
                let place = issuers.iter().position(|it| it.issuer == said.iss);
                KeyRef::Issuer(u8_of(place.ok_or(Denial::UnknownIssuer)?), id)
            }
            SaidKey::ApiKey(id) => KeyRef::ApiKey(id),
            SaidKey::Certificate => KeyRef::Certificate,
        };
        let texts = said.texts.into_iter();
        let texts = texts
            .map(|(name, text)| (name.into(), text.into()))
            .collect();
        let claims = said.claims.map(|json| Claims::new(texts, json.into()));
        Ok(Grant {
            principal: Principal {
                identity: Identity::new(&said.iss, &said.sub),
                claims: claims.unwrap_or_default(),
            },
            scopes: Scopes::of_words(said.scopes.iter().map(String::as_str)),
            expires: said.exp.map(UnixMillis),
            key,
        })
    }
}

fn message(said: &[u8]) -> Vec<u8> {
    [DOMAIN, said].concat()
}

fn tag(key: &hmac::Key, said: &[u8]) -> Tag {
    hmac::sign(key, &message(said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "/accounts/{id}/events";

    fn keys(now: u8, old: Option<u8>) -> TicketKeys {
        let secret = |byte: u8| Secret::new(char::from(byte).to_string().repeat(32));
        TicketKeys::new(&secret(now), old.map(secret).as_ref())
    }

    fn grant() -> Grant {
        let texts = vec![("tenant".into(), "acme".into())];
        Grant {
            principal: Principal {
                identity: Identity::new("api-key", "a\"b"),
                claims: Claims::new(texts, r#"{"roles":["x"],"tenant":"acme"}"#.into()),
            },
            scopes: Scopes::of_text("read write"),
            expires: Some(UnixMillis(1_800_000_000_000)),
            key: KeyRef::ApiKey([7; 16]),
        }
    }

    #[test]
    fn a_ticket_says_what_its_grant_said_for_one_route() {
        let made = keys(b'a', None).make(&grant(), PATH).expect("short");
        assert_eq!(keys(b'a', None).read(&made, PATH, &[]), Ok(grant()));
        let other = keys(b'a', None).read(&made, "/accounts/{id}", &[]);
        assert_eq!(other, Err(Denial::OtherRoute));
        // Rotation: the old secret still counts, and one before it does not.
        assert_eq!(keys(b'b', Some(b'a')).read(&made, PATH, &[]), Ok(grant()));
        let forgotten = keys(b'c', Some(b'b')).read(&made, PATH, &[]);
        assert_eq!(forgotten, Err(Denial::Signature));
        let mut long = grant();
        long.principal.claims = Claims::new(Vec::new(), "x".repeat(TICKET_BYTES_MAX).into());
        assert_eq!(keys(b'a', None).make(&long, PATH), None);
    }

    proptest! {
        /// No changed ticket opens a stream, and no bytes make the reader panic.
        #[test]
        fn a_changed_ticket_is_rejected(at in 0usize..500, to in "[A-Z0-9=-]", any in ".{0,80}") {
            let keys = keys(b'a', None);
            let made = keys.make(&grant(), PATH).expect("short");
            let at = at % made.len();
            let mut changed = made.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(keys.read(&changed, PATH, &[]).is_ok(), changed == made);
            prop_assert!(keys.read(&any, PATH, &[]).is_err());
        }
    }
}

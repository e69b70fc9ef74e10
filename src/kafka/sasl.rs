//! SASL within Kafka's frames (KIP-43, KIP-152): after the versions are known, before any request
//! of the client, and again when a session ends (KIP-368).
//!
//! Each connection has its own [`Exchange`]. All connections of a client share [`Auth`].

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;

use super::error::{SaslError, sanitize};
use super::scram::{SaltRequest, Salted, SaslStep, Scram, ScramHash};
use crate::model::Secret;

/// How the gateway authenticates to brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// RFC 4616: name and password in plain text.
    Plain {
        /// The name of the Kafka user.
        user: String,
        /// The user's password, sent in plain text.
        password: Secret,
    },
    /// RFC 5802 and RFC 7677: the password itself is never sent.
    Scram {
        /// The hash function that names the mechanism.
        hash: ScramHash,
        /// The name of the Kafka user.
        user: String,
        /// The user's password, used only salted and hashed.
        password: Secret,
    },
    /// RFC 7628: a token, which [`super::Client::set_token`] sets. Until then no connection is
    /// made.
    OauthBearer,
}

impl Sasl {
    /// The mechanism's name in SASL.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::Scram { hash, .. } => match hash {
                ScramHash::Sha256 => "SCRAM-SHA-256",
                ScramHash::Sha512 => "SCRAM-SHA-512",
            },
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// 32 random bytes of the operating system, for nonces. The generator of a client's jitter would
/// not do: its state can be computed from its numbers. `Debug` does not show them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entropy(pub [u8; 32]);

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

/// What the connections of a client share.
#[derive(Debug)]
pub(super) struct Auth {
    sasl: Option<Sasl>,
    /// The token of OAUTHBEARER, once it is set.
    token: Option<Secret>,
    salted: Option<Salted>,
    /// The request for another thread, until the driver takes it.
    to_salt: Option<SaltRequest>,
    /// The request that has no answer yet. Several connections may wait for one answer.
    salting: Option<SaltRequest>,
    nonces: hmac::Key,
    nonce: u64,
}

impl Auth {
    pub(super) fn new(sasl: Option<Sasl>, entropy: Entropy) -> Self {
        Self {
            sasl,
            token: None,
            salted: None,
            to_salt: None,
            salting: None,
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &entropy.0),
            nonce: 0,
        }
    }

    /// The mechanism, if connections begin with SASL.
    pub(super) const fn mechanism(&self) -> Option<&'static str> {
        match &self.sasl {
            Some(sasl) => Some(sasl.mechanism()),
            None => None,
        }
    }

    /// Whether a connection made now could authenticate.
    pub(super) const fn is_able(&self) -> bool {
        !matches!((&self.sasl, &self.token), (Some(Sasl::OauthBearer), None))
    }

    pub(super) fn set_token(&mut self, token: Option<Secret>) {
        self.token = token;
    }

    /// The next password that another thread must salt. Each is returned once.
    pub(super) const fn next_salt(&mut self) -> Option<SaltRequest> {
        self.to_salt.take()
    }

    /// Takes the salted password. The caller then resumes the exchanges that wait for it.
    pub(super) fn on_salted(&mut self, salted: Salted) {
        (self.salted, self.salting) = (Some(salted), None);
    }

    /// Asks for a salted password, unless the same request is pending.
    pub(super) fn salt(&mut self, request: SaltRequest) {
        if self.salting.as_ref() != Some(&request) {
            self.salting = Some(request.clone());
            self.to_salt = Some(request);
        }
    }

    /// The error for credentials that the broker rejects. `message` is the broker's text.
    pub(super) fn refused(&self, message: &str) -> SaslError {
        let user = match &self.sasl {
            Some(Sasl::Plain { user, .. } | Sasl::Scram { user, .. }) => user.clone(),
            Some(Sasl::OauthBearer) | None => String::new(),
        };
        SaslError::Refused {
            mechanism: self.mechanism().unwrap_or_default(),
            user,
            message: sanitize(message),
        }
    }

    fn next_nonce(&mut self) -> String {
        self.nonce += 1;
        let tag = hmac::sign(&self.nonces, &self.nonce.to_be_bytes());
        BASE64_URL.encode(&tag.as_ref()[..24])
    }

    /// Begins an exchange. Returns it with its first message.
    pub(super) fn begin(&mut self) -> (Exchange, Vec<u8>) {
        let nonce = self.next_nonce();
        match &self.sasl {
            Some(Sasl::Plain { user, password }) => {
                let message = format!("\0{user}\0{}", password.expose());
                (Exchange::Plain, message.into_bytes())
            }
            Some(Sasl::Scram { hash, user, .. }) => {
                let (scram, message) = Scram::new(*hash, user, nonce);
                (Exchange::Scram(scram), message)
            }
            Some(Sasl::OauthBearer) | None => {
                let token = self.token.as_ref().map_or("", Secret::expose);
                let message = format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}");
                (Exchange::Bearer(None), message.into_bytes())
            }
        }
    }
}

/// The state of one exchange.
#[derive(Debug)]
pub(super) enum Exchange {
    Plain,
    Scram(Scram),
    /// Why the broker rejects the token, once it has responded so (RFC 7628 3.2.2).
    Bearer(Option<String>),
}

impl Exchange {
    /// Handles the broker's message and returns the next step.
    pub(super) fn on_message(
        &mut self,
        message: &[u8],
        auth: &mut Auth,
    ) -> Result<SaslStep, SaslError> {
        match self {
            Self::Plain if message.is_empty() => Ok(SaslStep::Over),
            Self::Plain => Err(SaslError::Endless("PLAIN")),
            Self::Scram(scram) => {
                let Some(Sasl::Scram { password, .. }) = &auth.sasl else {
                    return Err(SaslError::Scram("no password to go with it"));
                };
                scram.on_message(message, password, auth.salted.as_ref())
            }
            Self::Bearer(None) if message.is_empty() => Ok(SaslStep::Over),
            Self::Bearer(against @ None) => {
                *against = Some(sanitize(&String::from_utf8_lossy(message)));
                // RFC 7628 3.2.3: a lone kvsep ends the exchange; the refusal itself follows.
                Ok(SaslStep::Send(vec![1]))
            }
            Self::Bearer(Some(against)) => {
                let against = std::mem::take(against);
                Err(auth.refused(&against))
            }
        }
    }

    /// Why the broker is about to reject the token, if it has said so.
    pub(super) fn against(&self) -> Option<&str> {
        match self {
            Self::Bearer(against) => against.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(sasl: Sasl) -> Auth {
        Auth::new(Some(sasl), Entropy([7; 32]))
    }

    #[test]
    fn plain_is_one_message() {
        let (user, password) = ("alice".into(), Secret::new("pass"));
        let mut auth = auth(Sasl::Plain { user, password });
        let (mut exchange, first) = auth.begin();
        assert_eq!(first, b"\0alice\0pass");
        assert_eq!(exchange.on_message(b"", &mut auth), Ok(SaslStep::Over));
        assert!(exchange.on_message(b"more", &mut auth).is_err());
        assert!(!format!("{auth:?}").contains("pass\""));
    }

    #[test]
    fn a_token_is_waited_for_and_a_refusal_is_answered() {
        let mut auth = auth(Sasl::OauthBearer);
        assert!(!auth.is_able());
        auth.set_token(Some(Secret::new("a.b.c")));
        assert!(auth.is_able());
        let (mut exchange, first) = auth.begin();
        assert_eq!(first, b"n,,\x01auth=Bearer a.b.c\x01\x01");
        let said = br#"{"status":"invalid_token"}"#;
        assert_eq!(
            exchange.on_message(said, &mut auth),
            Ok(SaslStep::Send(vec![1]))
        );
        assert_eq!(exchange.against(), Some(r#"{"status":"invalid_token"}"#));
        let refused = exchange.on_message(b"", &mut auth).expect_err("refused");
        assert!(refused.to_string().contains("invalid_token"), "{refused}");
        let (mut exchange, _) = auth.begin();
        assert_eq!(exchange.on_message(b"", &mut auth), Ok(SaslStep::Over));
    }

    #[test]
    fn nonces_differ_and_hold_no_comma() {
        let hash = ScramHash::Sha512;
        let (user, password) = ("u".into(), Secret::new("p"));
        let mut one = auth(Sasl::Scram {
            hash,
            user,
            password,
        });
        let nonces: Vec<_> = (0..100).map(|_| one.next_nonce()).collect();
        let mut distinct = nonces.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 100);
        assert!(nonces.iter().all(|it| it.len() == 32 && !it.contains(',')));
    }
}

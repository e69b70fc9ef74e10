//! The location of an asynchronous command, where its sender reads the reply. It holds all that an
//! instance needs to find the reply, so every instance can answer it without a state of its own.
//!
//! A token is base64url of these 45 bytes:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 16 | idempotency hash |
//! | 16 | fingerprint |
//! | 4 | when the location was given, in seconds since 1970, big endian |
//! | 8 | proof: a hash over command key, fingerprint and time |
//!
//! The command key is not in the token. The reader computes it from the route, from *its own*
//! identity and from the idempotency hash. For another identity the proof is wrong, so its token
//! is no better than a malformed one.

// A token comes from a client: an index that the client chooses must not end the process.
#![warn(clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::recipe::{IdempotencyHash, command_key, location_proof};
use crate::model::{Bug, CommandKey, CorrelationId, Fingerprint, Identity, UnixMillis, is_planted};

/// What the token of a command's location says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLocation {
    hash: IdempotencyHash,
    fingerprint: Fingerprint,
    /// Seconds since 1970.
    since: u32,
}

/// The command that a location names, for the identity that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocatedCommand {
    /// The command key and the fingerprint of the request.
    pub id: CorrelationId,
    /// When the location was given.
    pub since: UnixMillis,
}

const VERSION: u8 = 1;
const BYTES: usize = 1 + 16 + 16 + 4 + 8;

impl CommandLocation {
    /// Characters of a token.
    pub const TOKEN_LEN: usize = 60;

    /// The fewest bytes of an idempotency key for which an anonymous client gets a location: 22
    /// characters of base64url hold 128 bits. A client that guesses the key of an anonymous client
    /// could read its reply, so the key must not be short.
    pub const ANONYMOUS_KEY_BYTES_MIN: usize = 22;

    /// The location of a command that is in flight now.
    #[must_use]
    pub fn new(hash: IdempotencyHash, fingerprint: Fingerprint, now: UnixMillis) -> Self {
        Self {
            hash,
            fingerprint,
            // Until the year 2106.
            since: u32::try_from(now.0 / 1000).unwrap_or_default(),
        }
    }

    /// The token for a client with this identity.
    #[must_use]
    pub fn token(&self, route: &str, identity: &Identity) -> String {
        let id = self.id(route, identity);
        let proof = location_proof(id.key, id.fingerprint, self.since);
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        let shows_key = is_planted(Bug::ForeignPoll);
        bytes.extend_from_slice(if shows_key { &id.key.0 } else { &self.hash.0 });
        bytes.extend_from_slice(&self.fingerprint.0);
        bytes.extend_from_slice(&self.since.to_be_bytes());
        bytes.extend_from_slice(&proof);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The command that a token names, for a client with this identity. `None`: the token is
    /// malformed, or of another route or identity.
    #[must_use]
    pub fn read(token: &str, route: &str, identity: &Identity) -> Option<LocatedCommand> {
        let bytes = decode(token)?;
        let (version, rest) = bytes.split_first()?;
        let (hash, rest) = rest.split_first_chunk()?;
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (since, proof) = rest.split_first_chunk()?;
        if *version != VERSION {
            return None;
        }
        let location = Self {
            hash: IdempotencyHash(*hash),
            fingerprint: Fingerprint(*fingerprint),
            since: u32::from_be_bytes(*since),
        };
        let mut id = location.id(route, identity);
        if is_planted(Bug::ForeignPoll) {
            id.key = CommandKey(location.hash.0);
        }
        let since = i64::from(location.since) * 1000;
        let right = location_proof(id.key, id.fingerprint, location.since);
        (proof == right).then_some(LocatedCommand {
            id,
            since: UnixMillis(since),
        })
    }

    fn id(&self, route: &str, identity: &Identity) -> CorrelationId {
        CorrelationId {
            key: command_key(route, identity, self.hash),
            fingerprint: self.fingerprint,
        }
    }
}

/// The bytes of a token. 45 bytes are 60 characters exactly, so each token has one spelling.
fn decode(token: &str) -> Option<[u8; BYTES]> {
    if token.len() != CommandLocation::TOKEN_LEN {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    bytes.try_into().ok()
}

const _: () = assert!(BYTES * 4 == CommandLocation::TOKEN_LEN * 3);

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: UnixMillis = UnixMillis(1_796_000_000_999);

    fn location() -> CommandLocation {
        let hash = IdempotencyHash::of(b"8e03978e-40d5-43dd-bc93-6894a57f9324");
        let fingerprint = 0x02cc_e239_9faa_5aa5_b648_9743_1982_708a_u128;
        CommandLocation::new(hash, Fingerprint(fingerprint.to_be_bytes()), TIME)
    }

    /// Instances of different builds must read each other's locations. These were computed with
    /// Python's hashlib from the description of the token.
    #[test]
    fn golden_vectors() {
        let anonymous = "AUdw1vJODshhVM8QpEB3e48CzOI5n6papbZIl0MZgnCKawzJAPwVBdieIv3p";
        let known = "AUdw1vJODshhVM8QpEB3e48CzOI5n6papbZIl0MZgnCKawzJAJj0AIAyWYbl";
        let ann = Identity::new("https://idp", "ann");
        assert_eq!(location().token("pay", &Identity::ANONYMOUS), anonymous);
        assert_eq!(location().token("pay", &ann), known);
        let read = CommandLocation::read(known, "pay", &ann).expect("its own");
        assert_eq!(read.since, UnixMillis(1_796_000_000_000));
        assert_eq!(read.id, location().id("pay", &ann));
    }

    #[test]
    fn only_the_sender_can_read_it_and_only_at_its_route() {
        let ann = Identity::new("https://idp", "ann");
        let token = location().token("pay", &ann);
        assert!(CommandLocation::read(&token, "pay", &ann).is_some());
        for (route, identity) in [
            ("pay", Identity::new("https://idp", "bob")),
            ("pay", Identity::new("https://other", "ann")),
            ("pay", Identity::ANONYMOUS),
            ("refund", ann.clone()),
        ] {
            let read = CommandLocation::read(&token, route, &identity);
            assert_eq!(read, None, "{route} {identity}");
        }
    }

    /// Another fingerprint or time is another location, and the proof covers both.
    #[test]
    fn a_token_can_not_be_changed() {
        let token = location().token("pay", &Identity::ANONYMOUS);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            let read = CommandLocation::read(&changed, "pay", &Identity::ANONYMOUS);
            assert_eq!(read, None, "{changed}");
        }
        for malformed in [
            "",
            "AUdw",
            &token[1..],
            &format!("{token}A"),
            &"=".repeat(60),
        ] {
            let read = CommandLocation::read(malformed, "pay", &Identity::ANONYMOUS);
            assert_eq!(read, None, "{malformed}");
        }
    }

    #[test]
    fn a_short_key_of_an_anonymous_client_is_not_unguessable() {
        let bits = CommandLocation::ANONYMOUS_KEY_BYTES_MIN * 6;
        assert!((128..134).contains(&bits));
    }
}

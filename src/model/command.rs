//! Names of a command: what makes two requests the same command, and how its reply finds it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// K of DESIGN: SHA-256 over (route name, identity, idempotency key), 16 bytes kept. The same on
/// every peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandKey(pub [u8; 16]);

/// F of DESIGN: what the request asked for, 16 bytes, the first of which is the recipe's number.
/// A retry under the same key must have the same fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// `K.F` in base64url without padding: what travels on the commands topic and comes back on the
/// replies topic. 45 ASCII characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CorrelationId {
    /// Which command.
    pub key: CommandKey,
    /// What it asked for.
    pub fingerprint: Fingerprint,
}

impl CorrelationId {
    /// Characters of the textual form: 22 + 1 + 22.
    pub const LEN: usize = 45;

    /// Reads the textual form. `None` for anything else: a reply that is not ours is not an error.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::LEN || text[22] != b'.' {
            return None;
        }
        let part = |bytes: &[u8]| -> Option<[u8; 16]> {
            let mut out = [0; 16];
            let n = URL_SAFE_NO_PAD
                .decode_slice_unchecked(bytes, &mut out)
                .ok()?;
            (n == 16).then_some(out)
        };
        let key = CommandKey(part(&text[..22])?);
        let fingerprint = Fingerprint(part(&text[23..])?);
        Some(Self { key, fingerprint })
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = URL_SAFE_NO_PAD.encode(self.key.0);
        let print = URL_SAFE_NO_PAD.encode(self.fingerprint.0);
        write!(f, "{key}.{print}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correlation_id_reads_back_as_it_was_written() {
        let id = CorrelationId {
            key: CommandKey([0xfe; 16]),
            fingerprint: Fingerprint([7; 16]),
        };
        let text = id.to_string();
        assert_eq!(text.len(), CorrelationId::LEN);
        assert_eq!(CorrelationId::parse(text.as_bytes()), Some(id));
    }

    #[test]
    fn what_is_not_a_correlation_id_is_nobodys() {
        for text in [&b""[..], b"x", &[b'.'; 45], &[b'A'; 45], &[b'A'; 46]] {
            assert_eq!(CorrelationId::parse(text), None);
        }
    }
}

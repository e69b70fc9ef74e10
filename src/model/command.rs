//! Identifiers of a command: the key that makes two requests the same command, and the correlation
//! id by which a reply finds it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The command key: SHA-256 over (route name, identity, idempotency key), of which 16 bytes are
/// kept. The same on every instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandKey(pub [u8; 16]);

/// A hash of what the request asks for: 16 bytes, the first of which is the number of the hash
/// recipe. A retry with the same key must have the same fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

/// Command key and fingerprint. The textual form is both in base64url without padding, separated by
/// a dot: 45 ASCII characters. It is a header on commands, which services copy to their replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CorrelationId {
    /// The key of the command.
    pub key: CommandKey,
    /// The fingerprint of the attempt's request.
    pub fingerprint: Fingerprint,
}

impl CorrelationId {
    /// Characters of the textual form: 22 + 1 + 22.
    pub const LEN: usize = 45;

    /// The least id, in the order of their bytes.
    pub const MIN: Self = Self::filled(0);
    /// The greatest id.
    pub const MAX: Self = Self::filled(u8::MAX);

    const fn filled(byte: u8) -> Self {
        Self {
            key: CommandKey([byte; 16]),
            fingerprint: Fingerprint([byte; 16]),
        }
    }

    /// Parses the textual form. Returns `None` for any other text: replies to other producers are
    /// normal.
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

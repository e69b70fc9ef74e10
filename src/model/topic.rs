//! Topic names, and the identity of the log behind a name.

use std::fmt;
use std::sync::Arc;

use siphasher::sip::SipHasher24;
use std::hash::Hasher;

use super::narrow::low_u32;

/// A topic's name: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..` (Kafka's own rule).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Most characters of a name.
    pub const LEN_MAX: usize = 249;

    /// Creates a name, if it follows Kafka's rule.
    ///
    /// # Errors
    /// The part of the rule that `name` violates, as a sentence.
    pub fn new(name: &str) -> Result<Self, &'static str> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        match name {
            "" => Err("a topic name can't be empty"),
            "." | ".." => Err("a topic can't be named `.` or `..`"),
            _ if name.len() > Self::LEN_MAX => Err("a topic name has at most 249 characters"),
            _ if !name.bytes().all(legal) => {
                Err("a topic name has only letters, digits, `.`, `_` and `-`")
            }
            _ => Ok(Self(name.into())),
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a topic's log: the broker's topic id (KIP-516). A re-created topic has the same
/// name and another log. Offsets of the two logs mean different records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogIdentity(pub [u8; 16]);

impl LogIdentity {
    /// The identity of a topic in a cluster with the setting `log_id`. It is the same wherever
    /// copies of the log with the same offsets have the same `log_id`.
    #[must_use]
    pub fn declared(log_id: &str, topic: &TopicName) -> Self {
        let half = |key| {
            let mut hasher = SipHasher24::new_with_keys(key, 1);
            hasher.write_u64((log_id.len() as u64).to_be());
            hasher.write(log_id.as_bytes());
            hasher.write(topic.as_str().as_bytes());
            hasher.finish().to_be_bytes()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half(1));
        bytes[8..].copy_from_slice(&half(2));
        Self(bytes)
    }

    /// The four bytes of this identity that event ids and etags carry. The same on every instance.
    #[must_use]
    pub fn tag(self) -> LogTag {
        let mut hasher = SipHasher24::new_with_keys(0, 0);
        hasher.write(&self.0);
        LogTag(low_u32(hasher.finish()).to_be_bytes())
    }
}

/// A short hash of a [`LogIdentity`]. It distinguishes a topic from its re-creation, but does not
/// identify a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogTag(pub [u8; 4]);

impl fmt::Display for LogTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

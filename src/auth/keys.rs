//! A snapshot of every key that can vouch for a credential. The control thread makes it, and it is
//! replaced as a whole.

use std::sync::Arc;

use super::api_keys::ApiKeys;
use super::grant::KeyRef;
use super::jwk::KeySet;
use super::ticket::TicketKeys;

/// Every key that can vouch for a credential.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Public keys, by the issuer's place in the config. `None`: they have not been read yet.
    pub issuers: Vec<Option<Arc<KeySet>>>,
    /// Hashes of API keys.
    pub api_keys: Arc<ApiKeys>,
    /// Keys of stream tickets. `None`: there are no tickets.
    pub tickets: Option<Arc<TicketKeys>>,
}

impl Keys {
    /// The keys of the issuer at this place in the config.
    pub(super) fn of_issuer(&self, place: usize) -> Option<&KeySet> {
        self.issuers.get(place)?.as_deref()
    }

    /// Whether a grant's key is still there.
    #[must_use]
    pub fn has(&self, key: KeyRef) -> bool {
        match key {
            KeyRef::Issuer(place, id) => {
                let set = self.of_issuer(usize::from(place));
                set.is_some_and(|set| set.has(&id))
            }
            KeyRef::ApiKey(_) => self.api_keys.has(key),
            KeyRef::Certificate => true,
        }
    }
}

//! Session tickets: the state of a TLS session, encrypted for the client to keep. A client that
//! returns resumes its session on any shard, without the signature that a full handshake costs.
//!
//! The keys are an immutable snapshot. The control thread makes new ones and sends them to the
//! shards with the next acceptor, so no lock is needed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

/// How long a key encrypts new tickets. It decrypts them for as long again. A thief of a key can
/// decrypt what was sent in TLS 1.2 sessions of that time.
pub const TICKET_KEY_AGE_MAX: Duration = Duration::from_secs(6 * 3600);

/// Most bytes of a ticket that is decrypted. A ticket holds the client's certificates, if it has
/// some.
const TICKET_BYTES_MAX: usize = 16 * 1024;

/// The keys of session tickets: the present one, and the one before it. AES-256-GCM with random
/// nonces.
#[derive(Clone, Debug)]
pub struct TicketKeys {
    present: Arc<RandomizedNonceKey>,
    previous: Option<Arc<RandomizedNonceKey>>,
}

impl TicketKeys {
    /// Keys that decrypt no earlier ticket. `secret` must be random.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            present: key(secret),
            previous: None,
        }
    }

    /// The next keys: the present one becomes the previous one.
    #[must_use]
    pub fn rotated(&self, secret: &[u8; 32]) -> Self {
        Self {
            present: key(secret),
            previous: Some(self.present.clone()),
        }
    }
}

fn key(secret: &[u8; 32]) -> Arc<RandomizedNonceKey> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, secret);
    Arc::new(key.expect("AES-256 has keys of 32 bytes"))
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_KEY_AGE_MAX.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() + NONCE_LEN + AES_256_GCM.tag_len() > TICKET_BYTES_MAX {
            return None; // The client gets no ticket.
        }
        let mut text = plain.to_vec();
        let nonce = self
            .present
            .seal_in_place_append_tag(Aad::empty(), &mut text);
        let mut ticket = nonce.ok()?.as_ref().to_vec();
        ticket.append(&mut text);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (nonce, text) = ticket.split_at_checked(NONCE_LEN)?;
        let keys = [Some(&self.present), self.previous.as_ref()];
        keys.into_iter().flatten().find_map(|key| {
            let mut text = text.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let plain = key.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
            Some(plain.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_two_keys_and_no_longer() {
        let first = TicketKeys::new(&[1; 32]);
        let ticket = first.encrypt(b"session").expect("a ticket");
        assert_eq!(first.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let second = first.rotated(&[2; 32]);
        assert_eq!(second.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(second.rotated(&[3; 32]).decrypt(&ticket), None);
        assert_eq!(TicketKeys::new(&[2; 32]).decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_that_was_cut_or_changed_is_no_ticket() {
        let keys = TicketKeys::new(&[1; 32]);
        let ticket = keys.encrypt(b"session").expect("a ticket");
        assert_ne!(keys.encrypt(b"session"), Some(ticket.clone()), "same nonce");
        for end in 0..ticket.len() {
            assert_eq!(keys.decrypt(&ticket[..end]), None, "{end}");
            let mut changed = ticket.clone();
            changed[end] ^= 1;
            assert_eq!(keys.decrypt(&changed), None, "{end}");
        }
        assert_eq!(keys.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
        assert_eq!(keys.encrypt(&vec![0; TICKET_BYTES_MAX]), None);
    }

    #[test]
    fn keys_are_never_printed() {
        let shown = format!("{:?}", TicketKeys::new(&[77; 32]));
        assert!(!shown.contains("77"), "{shown}");
    }
}

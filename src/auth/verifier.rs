//! What a shard authenticates its clients with.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::grant::Grant;
use super::keys::Keys;
use super::rejected::{Denial, Rejected};
use super::token;
use super::verified::VerifiedTokens;
use crate::config::IssuerConfig;
use crate::model::{Instant, UnixMillis};

/// Signatures that a shard checks in one turn. A check takes 20 to 250 µs. The caller stops serving
/// clients when they are used up, so that a flood of tokens delays nothing else for longer.
pub const CHECKS_PER_TURN: u32 = 4;

/// How often a shard asks for a newer key set. The control thread fetches more rarely.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Verifies credentials of clients.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<IssuerConfig>,
    keys: Arc<Keys>,
    verified: VerifiedTokens,
    checks_left: u32,
    /// Signatures checked, right or wrong, and not counted yet.
    checks: u64,
    /// By the issuer's place: when a newer key set was last asked for.
    asked: Vec<Option<Instant>>,
}

impl Verifier {
    /// A verifier of these issuers' tokens, which knows no keys yet.
    #[must_use]
    pub fn new(issuers: Vec<IssuerConfig>) -> Self {
        Self {
            keys: Arc::default(),
            asked: vec![None; issuers.len()],
            issuers,
            verified: VerifiedTokens::new(),
            checks_left: CHECKS_PER_TURN,
            checks: 0,
        }
    }

    /// Takes over another snapshot of keys. Credentials whose key is gone are forgotten.
    pub fn set_keys(&mut self, keys: Arc<Keys>) {
        self.verified.retain(|grant| keys.has(grant.key));
        self.keys = keys;
    }

    /// The keys that credentials are verified with.
    #[must_use]
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Begins a turn: its signature checks are free again.
    pub const fn begin_turn(&mut self) {
        self.checks_left = CHECKS_PER_TURN;
    }

    /// Whether the signature checks of this turn are used up. Verification still works, so the
    /// caller must stop.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.checks_left == 0
    }

    /// Whether to ask for a newer key set of an issuer now. A flood of tokens with invented key ids
    /// asks once a second.
    #[must_use]
    pub fn may_ask(&mut self, issuer: usize, now: Instant) -> bool {
        let Some(asked) = self.asked.get_mut(issuer) else {
            return false;
        };
        let may = asked.is_none_or(|at| now.since(at) >= ASK_EVERY);
        if may {
            *asked = Some(now);
        }
        may
    }

    /// Signatures that were checked since the last call, for the metrics.
    #[must_use]
    pub const fn take_checks(&mut self) -> u64 {
        std::mem::replace(&mut self.checks, 0)
    }

    /// Verifies a token or an API key.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn verify(&mut self, credential: &[u8], now: UnixMillis) -> Result<Arc<Grant>, Rejected> {
        let hash = sha256(credential);
        if let Some(grant) = self.keys.api_keys.find(&hash) {
            return Ok(grant.clone());
        }
        if let Some(grant) = self.verified.get(&hash) {
            return if grant.has_expired(now) {
                Err(Denial::Expired.into())
            } else {
                Ok(grant)
            };
        }
        let verified = token::verify(credential, &self.issuers, &self.keys, now);
        let checked = match &verified {
            Ok(_) => true,
            Err(rejected) => rejected.denial.is_after_signature(),
        };
        if checked {
            self.checks_left = self.checks_left.saturating_sub(1);
            self.checks += 1;
        }
        let grant = Arc::new(verified?);
        self.verified.insert(hash, grant.clone());
        Ok(grant)
    }

    /// Verifies a ticket for the stream route with this path.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn verify_ticket(
        &self,
        ticket: &str,
        path: &str,
        now: UnixMillis,
    ) -> Result<Arc<Grant>, Rejected> {
        let keys = self.keys.tickets.as_ref().ok_or(Denial::Malformed)?;
        let grant = keys.read(ticket, path, &self.issuers)?;
        if !self.keys.has(grant.key) {
            return Err(Denial::Revoked.into());
        }
        if grant.has_expired(now) {
            return Err(Denial::Expired.into());
        }
        Ok(Arc::new(grant))
    }

    /// Makes a ticket for the stream route with this path. `None`: there are no tickets, or the
    /// client's claims are too long for one.
    #[must_use]
    pub fn ticket(&self, grant: &Grant, path: &str) -> Option<String> {
        self.keys.tickets.as_ref()?.make(grant, path)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.verified.len()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

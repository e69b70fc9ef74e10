//! Authentication: a credential becomes a [`Grant`], the identity, claims and scopes of its client,
//! or a [`Rejected`].
//!
//! A shard owns a [`Verifier`]. Its [`Keys`] are a snapshot that the control thread makes and
//! replaces as a whole: public keys of issuers, hashes of API keys, and the keys of stream tickets.
//! Nothing here fetches a key or reads a file or a clock. A token whose signature was checked once
//! is remembered by its hash until it expires, so a request costs one SHA-256 and one look-up.
//!
//! aws-lc checks signatures. The rest of a JSON Web Token is checked here, strictly, because that
//! is where libraries have failed: which algorithm a key may have, which issuer a key belongs
//! to, and what type a claim has.

mod api_keys;
mod grant;
mod jwk;
mod keys;
mod object;
mod rejected;
#[cfg(test)]
mod tests;
mod ticket;
mod token;
mod verified;
mod verifier;

pub use api_keys::{API_KEY_FILE_BYTES_MAX, ApiKeys, ApiKeysError};
pub use grant::{Grant, KeyRef, Scopes};
pub use jwk::{JWKS_BYTES_MAX, KeySet, KeySetError};
pub use keys::Keys;
pub use rejected::{Denial, Rejected};
pub use ticket::{FLEET_SECRET_BYTES_MIN, TICKET_BYTES_MAX, TicketKeys};
pub use token::TOKEN_BYTES_MAX;
pub use verifier::{CHECKS_PER_TURN, Verifier};

//! The recipes of K and F: SHA-256 over parts that are counted and length-prefixed, under a domain of
//! their own, so distinct tuples have distinct preimages and no part can pose as another
//! (CVE-2026-39972 was `a + "_" + b`). Every peer must cook the same: a change is a new [`RECIPE`].

use crate::model::{CommandKey, Fingerprint, Identity};

/// The number of the recipe for F, its first byte.
pub const RECIPE: u8 = 1;

/// x of DESIGN: SHA-256 of the idempotency key, 16 bytes kept; or 16 random bytes where the client
/// sent none. What a `Location` may show: without the identity it leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyHash(pub [u8; 16]);

impl IdempotencyHash {
    /// x of the client's key: the key's content, quotes removed.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        todo!()
    }
}

/// What a request asked for: the parts of F. `Authorization`, `traceparent` and `User-Agent` are not
/// among them: a retry may have others.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method, as received.
    pub method: &'a str,
    /// Path and query, as received.
    pub path_and_query: &'a str,
    /// The body, whole.
    pub body: &'a [u8],
    /// The `Content-Type` value; absent differs from empty.
    pub content_type: Option<&'a [u8]>,
    /// The `If-Match` value.
    pub if_match: Option<&'a [u8]>,
    /// The headers the route names, in the route's order; several values of one name in the
    /// request's order. Names in lower case.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// K: SHA-256 over (route name, identity, x), 16 bytes kept.
#[must_use]
pub fn command_key(route: &str, identity: &Identity, x: IdempotencyHash) -> CommandKey {
    todo!()
}

/// F: the recipe's number and 15 bytes of the SHA-256 over what was asked.
#[must_use]
pub fn fingerprint(asked: &Asked<'_>) -> Fingerprint {
    todo!()
}

/// Whether the two say that different things were asked. Fingerprints of different recipes can't say:
/// in a rolling change that is no mismatch.
#[must_use]
pub fn fingerprints_differ(a: Fingerprint, b: Fingerprint) -> bool {
    a.0[0] == b.0[0] && a != b
}

//! The recipes of command keys and fingerprints: SHA-256 over counted and length-prefixed parts,
//! under a domain of their own. Distinct tuples have distinct preimages, and no part can pose as
//! another (CVE-2026-39972 was `a + "_" + b`). All instances must compute the same, so a change is
//! a new [`RECIPE`].

use aws_lc_rs::digest::{Context, SHA256};

use crate::model::{Bug, CommandKey, Fingerprint, Identity, is_planted};

/// The number of the recipe for fingerprints, which is the first byte of each.
pub const RECIPE: u8 = 2;

/// The first 16 bytes of SHA-256 of the idempotency key. If the client sent no key, 16 bytes of the
/// shard's secure generator, which no client can guess. A `Location` may show it: without the
/// identity it leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyHash(pub [u8; 16]);

impl IdempotencyHash {
    /// The hash of the client's idempotency key, which comes without its quotes.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut sink = Context::new(&SHA256);
        Parts::new(&mut sink, "sluicegate idempotency-key 1").part(key);
        Self(first_16(sink))
    }
}

/// What a request asks for: the parts of its fingerprint. `Authorization`, `traceparent` and
/// `User-Agent` are not among them, because they may differ in a retry.
#[derive(Clone, Copy, Debug)]
pub struct FingerprintParts<'a> {
    /// The HTTP method, in the spelling of the request.
    pub method: &'a str,
    /// Path and query, as received.
    pub path_and_query: &'a str,
    /// The whole request body, as the record's value carries it.
    pub body: &'a [u8],
    /// The `Content-Type` value; absent differs from empty.
    pub content_type: Option<&'a [u8]>,
    /// The `If-Match` condition, as the record carries it.
    pub if_match: Option<&'a [u8]>,
    /// The `If-None-Match` condition, as the record carries it.
    pub if_none_match: Option<&'a [u8]>,
    /// The headers the route names, in the route's order; several values of one name in the
    /// request's order. Names in lower case.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// The command key: the first 16 bytes of SHA-256 over route name, identity and idempotency hash.
#[must_use]
pub fn command_key(route: &str, identity: &Identity, hash: IdempotencyHash) -> CommandKey {
    let mut sink = Context::new(&SHA256);
    command_key_parts(&mut sink, route, identity, hash);
    CommandKey(first_16(sink))
}

/// The fingerprint: the recipe's number, and 15 bytes of SHA-256 over what the request asks for.
#[must_use]
pub fn fingerprint(asked: &FingerprintParts<'_>) -> Fingerprint {
    let mut sink = Context::new(&SHA256);
    fingerprint_parts(&mut sink, asked);
    let mut fingerprint = first_16(sink);
    fingerprint.rotate_right(1);
    fingerprint[0] = RECIPE;
    Fingerprint(fingerprint)
}

/// Whether the two fingerprints are of different requests. Fingerprints of different recipes can't
/// be compared, so they count as equal: during a rolling upgrade that is no mismatch.
#[must_use]
pub fn fingerprints_differ(a: Fingerprint, b: Fingerprint) -> bool {
    a.0[0] == b.0[0] && a != b
}

/// The proof in a command's location that it names a command of its sender: the first 8 bytes of
/// SHA-256 over command key, fingerprint and time in seconds since 1970. The command key covers
/// the route and the identity, so for another identity the proof is wrong. It is no secret: who
/// can compute it knows the command already.
pub(super) fn location_proof(key: CommandKey, fingerprint: Fingerprint, seconds: u32) -> [u8; 8] {
    let mut sink = Context::new(&SHA256);
    let mut parts = Parts::new(&mut sink, "sluicegate command-location 1");
    parts.part(&key.0);
    parts.part(&fingerprint.0);
    parts.part(&seconds.to_be_bytes());
    let [proof @ .., _, _, _, _, _, _, _, _] = first_16(sink);
    proof
}

fn command_key_parts(
    sink: &mut impl Sink,
    route: &str,
    identity: &Identity,
    hash: IdempotencyHash,
) {
    let mut parts = Parts::new(sink, "sluicegate command-key 1");
    parts.part(route.as_bytes());
    match identity
        .parts()
        .filter(|_| !is_planted(Bug::ForeignIdentity))
    {
        None => parts.count(0),
        Some((issuer, subject)) => {
            parts.count(2);
            parts.part(issuer.as_bytes());
            parts.part(subject.as_bytes());
        }
    }
    parts.part(&hash.0);
}

fn fingerprint_parts(sink: &mut impl Sink, asked: &FingerprintParts<'_>) {
    let mut parts = Parts::new(sink, "sluicegate fingerprint 2");
    parts.part(asked.method.as_bytes());
    parts.part(asked.path_and_query.as_bytes());
    parts.part(asked.body);
    parts.optional(asked.content_type);
    parts.optional(asked.if_match);
    parts.optional(asked.if_none_match);
    parts.count(asked.headers.len());
    for (name, value) in asked.headers {
        parts.part(name.as_bytes());
        parts.part(value);
    }
}

/// Takes the bytes of a preimage: a digest, or in tests a vector.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Context {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

/// Writes parts so that they could be read back, which makes the preimage injective: every part
/// after its length, and every list after its count, both as 8 bytes in big endian.
struct Parts<'a, S>(&'a mut S);

impl<'a, S: Sink> Parts<'a, S> {
    fn new(sink: &'a mut S, domain: &str) -> Self {
        let mut parts = Self(sink);
        parts.part(domain.as_bytes());
        parts
    }

    fn count(&mut self, count: usize) {
        self.0.put(&(count as u64).to_be_bytes());
    }

    fn part(&mut self, bytes: &[u8]) {
        if !is_planted(Bug::NoLengthPrefixes) {
            self.count(bytes.len());
        }
        self.0.put(bytes);
    }

    fn optional(&mut self, part: Option<&[u8]>) {
        self.count(usize::from(part.is_some()));
        if let Some(bytes) = part {
            self.part(bytes);
        }
    }
}

fn first_16(sink: Context) -> [u8; 16] {
    let digest = sink.finish();
    let first = digest.as_ref().first_chunk();
    *first.expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Sink for Vec<u8> {
        fn put(&mut self, bytes: &[u8]) {
            self.extend_from_slice(bytes);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    const ASKED: FingerprintParts<'static> = FingerprintParts {
        method: "POST",
        path_and_query: "/accounts/7/payments?x=1",
        body: b"{\"amount\":5}",
        content_type: Some(b"application/json"),
        if_match: None,
        if_none_match: None,
        headers: &[("x-tenant", b"acme")],
    };

    /// Instances of different builds must agree, or a retry at another instance runs twice. These
    /// were computed with Python's hashlib from the description of the recipe.
    #[test]
    fn golden_vectors() {
        let x = IdempotencyHash::of(b"8e03978e-40d5-43dd-bc93-6894a57f9324");
        assert_eq!(hex(&x.0), "4770d6f24e0ec86154cf10a440777b8f");
        let known = command_key("pay", &Identity::new("https://idp", "ann"), x);
        assert_eq!(hex(&known.0), "320454b137d8d6cd421fdc480d8adfd6");
        let anonymous = command_key("pay", &Identity::ANONYMOUS, x);
        assert_eq!(hex(&anonymous.0), "0ce33ded05423752b4fad28ed161dfca");
        for (if_match, if_none_match, vector) in [
            (None, None, "02cce2399faa5aa5b64897431982708a"),
            (Some(&b"7"[..]), None, "023a97c751642623df922c193ef81b25"),
            (None, Some(&b"*"[..]), "02b920d5b87ce9258fb94bb9110f7d96"),
            (
                Some(b"1.2"),
                Some(b"\"a\", W/\"b\""),
                "020c5ed1643bac3c9645ab045a262985",
            ),
        ] {
            let asked = FingerprintParts {
                if_match,
                if_none_match,
                ..ASKED
            };
            assert_eq!(hex(&fingerprint(&asked).0), vector);
        }
    }

    #[test]
    fn another_recipe_is_no_mismatch() {
        let ours = fingerprint(&ASKED);
        let mut other = ours;
        other.0[5] ^= 1;
        assert!(fingerprints_differ(ours, other) && !fingerprints_differ(ours, ours));
        other.0[0] = RECIPE + 1;
        assert!(!fingerprints_differ(ours, other));
    }

    /// Few letters and short parts, so that a collision by concatenation would be found at once.
    fn any_part() -> impl Strategy<Value = String> {
        "[ab:.]{0,3}"
    }

    fn any_identity() -> impl Strategy<Value = Identity> {
        prop::option::of((any_part(), any_part())).prop_map(|known| match known {
            None => Identity::ANONYMOUS,
            Some((issuer, subject)) => Identity::new(&issuer, &subject),
        })
    }

    type Tuple = (
        (String, String, String),
        Option<String>,
        [Option<String>; 2],
        Vec<(String, String)>,
    );

    fn any_tuple() -> impl Strategy<Value = Tuple> {
        let header = (any_part(), any_part());
        (
            (any_part(), any_part(), any_part()),
            prop::option::of(any_part()),
            [prop::option::of(any_part()), prop::option::of(any_part())],
            prop::collection::vec(header, 0..3),
        )
    }

    fn preimage(((method, path, body), kind, conditions, headers): &Tuple) -> Vec<u8> {
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let [if_match, if_none_match] = conditions;
        let asked = FingerprintParts {
            method,
            path_and_query: path,
            body: body.as_bytes(),
            content_type: kind.as_ref().map(String::as_bytes),
            if_match: if_match.as_ref().map(String::as_bytes),
            if_none_match: if_none_match.as_ref().map(String::as_bytes),
            headers: &headers,
        };
        let mut bytes = Vec::new();
        fingerprint_parts(&mut bytes, &asked);
        bytes
    }

    proptest! {
        /// CVE-2026-39972: two different tuples that are one string.
        #[test]
        fn distinct_keys_have_distinct_preimages(
            a in (any_part(), any_identity(), any::<[bool; 2]>()),
            b in (any_part(), any_identity(), any::<[bool; 2]>()),
        ) {
            let preimage = |(route, identity, x): &(String, Identity, [bool; 2])| {
                let x = IdempotencyHash([u8::from(x[0]) + 2 * u8::from(x[1]); 16]);
                let mut bytes = Vec::new();
                command_key_parts(&mut bytes, route, identity, x);
                bytes
            };
            prop_assert_eq!(a == b, preimage(&a) == preimage(&b));
        }

        #[test]
        fn distinct_requests_have_distinct_preimages(a in any_tuple(), b in any_tuple()) {
            prop_assert_eq!(a == b, preimage(&a) == preimage(&b));
        }
    }
}

//! JSON Web Tokens (RFC 7519, RFC 7515), checked as RFC 8725 advises.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::grant::{Grant, KeyRef, LEEWAY_MS, Scopes};
use super::keys::Keys;
use super::object::Object;
use super::rejected::{Denial, Rejected};
use crate::config::{Algorithm, IssuerConfig};
use crate::model::{Claims, Identity, Principal, UnixMillis, u8_of};

/// Most bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Most bytes of a subject. It becomes a part of keys and record headers.
const SUBJECT_BYTES_MAX: usize = 256;

/// The end of the year 9999 in seconds. A later time is a mistake of units.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// Header members that say how a token is to be checked, by the token itself: embedded keys,
/// addresses of keys, extensions and the unencoded payload (RFC 7515 4.1, RFC 7797). A token does
/// not decide that.
const REFUSED_MEMBERS: [&str; 8] = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "enc", "zip"];

/// The media types that a token may declare (`typ`, RFC 8725 3.11). Tokens for other uses, such as
/// `logout+jwt`, have types of their own.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A token in its parts. Nothing about it is verified.
struct Parts<'t> {
    /// The bytes that are signed.
    signed: &'t [u8],
    signature: Vec<u8>,
    algorithm: Algorithm,
    header: Object,
    claims: Object,
}

/// Whether the bytes have the form of a token: three parts.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == b'.').count() == 2
}

fn parse(token: &[u8]) -> Result<Parts<'_>, Denial> {
    if token.len() > TOKEN_BYTES_MAX || !is_token(token) {
        return Err(Denial::Malformed);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let mut next = || {
        let part = parts.next().unwrap_or_default();
        // Without padding, and without bits behind the last byte: one token has one spelling.
        URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::Malformed)
    };
    let (header, claims, signature) = (next()?, next()?, next()?);
    let last_dot = token.iter().rposition(|byte| *byte == b'.');
    let signed = last_dot.and_then(|at| token.get(..at));
    let header = Object::parse(&header).ok_or(Denial::Malformed)?;
    if REFUSED_MEMBERS.iter().any(|name| header.has(name)) {
        return Err(Denial::Malformed);
    }
    let typ = header.text("typ").ok_or(Denial::Malformed)?;
    if !typ.is_none_or(|typ| TYPES.iter().any(|it| typ.eq_ignore_ascii_case(it))) {
        return Err(Denial::Malformed);
    }
    let algorithm = header.text("alg").flatten().and_then(Algorithm::parse);
    Ok(Parts {
        signed: signed.ok_or(Denial::Malformed)?,
        signature,
        // `none` and the algorithms with shared secrets have no variant.
        algorithm: algorithm.ok_or(Denial::Algorithm)?,
        claims: Object::parse(&claims).ok_or(Denial::Malformed)?,
        header,
    })
}

/// The parts of the claims that every token must have, and when it is valid.
struct Required<'t> {
    subject: &'t str,
    expires: UnixMillis,
    not_before: Option<UnixMillis>,
}

/// Verifies a token. The cheap checks come first, the signature before the times: only a token
/// that is right otherwise is reported as expired.
///
/// # Errors
/// The first check that failed.
pub(super) fn verify(
    token: &[u8],
    issuers: &[IssuerConfig],
    keys: &Keys,
    now: UnixMillis,
) -> Result<Grant, Rejected> {
    let parts = parse(token)?;
    let iss = parts.claims.text("iss").flatten().ok_or(Denial::Claims)?;
    let place = issuers.iter().position(|it| it.issuer == iss);
    let (place, issuer) = place
        .and_then(|place| Some((place, issuers.get(place)?)))
        .ok_or(Denial::UnknownIssuer)?;
    if !issuer.algorithms.contains(&parts.algorithm) {
        return Err(Denial::Algorithm.into());
    }
    let required = required(&parts.claims, issuer)?;
    let kid = parts.header.text("kid").ok_or(Denial::Malformed)?;
    // Keys are looked up by issuer and `kid`: an issuer that chooses another's `kid` gets its own
    // key, or none.
    let set = keys.of_issuer(place).ok_or(Denial::NoKeys)?;
    let Some(key) = set.find(kid, parts.algorithm) else {
        return Err(Rejected {
            denial: Denial::UnknownKey,
            issuer: Some(place),
        });
    };
    if !key.has_signed(parts.signed, &parts.signature) {
        return Err(Denial::Signature.into());
    }
    if required
        .not_before
        .is_some_and(|it| it.0 > now.0.saturating_add(LEEWAY_MS))
    {
        return Err(Denial::NotYetValid.into());
    }
    let grant = Grant {
        principal: Principal {
            identity: Identity::new(&issuer.issuer, required.subject),
            claims: carried(&parts.claims, &issuer.claims),
        },
        scopes: scopes(parts.claims.get(&issuer.scope_claim)),
        expires: Some(required.expires),
        key: KeyRef::Issuer(u8_of(place), key.id),
    };
    if grant.has_expired(now) {
        return Err(Denial::Expired.into());
    }
    Ok(grant)
}

fn required<'t>(claims: &'t Object, issuer: &IssuerConfig) -> Result<Required<'t>, Denial> {
    let subject = claims.text("sub").flatten().ok_or(Denial::Claims)?;
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
        return Err(Denial::Claims);
    }
    // A mistyped `exp` counted as absent in a library (CVE-2026-25537). Here a time of another
    // type is an error, whether it is required or not.
    let expires = time(claims, "exp")?.ok_or(Denial::Claims)?;
    let not_before = time(claims, "nbf")?;
    let _ = time(claims, "iat")?;
    let audience = claims.get(&issuer.audience_claim).ok_or(Denial::Audience)?;
    let is_ours = |it: &Value| {
        it.as_str()
            .is_some_and(|it| issuer.audience.iter().any(|a| a == it))
    };
    // RFC 7519 4.1.3: one text, or a list of texts.
    let fits = match audience {
        Value::Array(list) if list.iter().all(Value::is_string) => list.iter().any(is_ours),
        Value::String(_) => is_ours(audience),
        _ => return Err(Denial::Claims),
    };
    if !fits {
        return Err(Denial::Audience);
    }
    Ok(Required {
        subject,
        expires,
        not_before,
    })
}

/// A time in seconds (RFC 7519 2: NumericDate, which may have a fraction).
fn time(claims: &Object, name: &str) -> Result<Option<UnixMillis>, Denial> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|it| (0.0..=SECONDS_MAX).contains(it));
    let seconds = seconds.ok_or(Denial::Claims)?;
    let millis = Duration::from_secs_f64(seconds).as_millis();
    let millis = i64::try_from(millis).map_err(|_| Denial::Claims)?;
    Ok(Some(UnixMillis(millis)))
}

/// The named claims, with their texts for templates.
fn carried(claims: &Object, names: &[String]) -> Claims {
    if names.is_empty() {
        return Claims::NONE;
    }
    let (mut texts, mut all) = (Vec::new(), serde_json::Map::new());
    for name in names {
        let Some(value) = claims.get(name) else {
            continue;
        };
        all.insert(name.clone(), value.clone());
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        texts.push((name.as_str().into(), text.into()));
    }
    let json = Value::Object(all).to_string();
    Claims::new(texts, json.into())
}

/// Scopes as one text (RFC 8693 4.2) or as a list. Anything else grants nothing.
fn scopes(value: Option<&Value>) -> Scopes {
    match value {
        Some(Value::String(text)) => Scopes::of_text(text),
        Some(Value::Array(list)) => Scopes::of_words(list.iter().filter_map(Value::as_str)),
        _ => Scopes::default(),
    }
}

//! Key sets of issuers (RFC 7517). Each key is bound to one algorithm when it is read, so a token
//! can't choose how its signature is checked.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::object::Object;
use crate::config::Algorithm;

/// Most bytes of a key set.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// Most keys of a set that are used. Issuers have two to ten.
const KEYS_MAX: usize = 64;

/// Why a document is no key set that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is larger than [`JWKS_BYTES_MAX`].
    #[error("it has more than 256 KiB")]
    TooLarge,
    /// It is not a JSON object with a list `keys`.
    #[error("it is not a JSON object with a list `keys` (RFC 7517 5)")]
    NotASet,
    /// A key is secret: a shared secret, or the private half of a key pair.
    #[error("it holds a secret or private key, which must never be published")]
    Secret,
    /// No key of the set fits the issuer's algorithms.
    #[error("none of its keys can check a signature of the issuer's algorithms")]
    NoUsableKey,
}

/// The public keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    /// Keys of the document that are not used: for encryption, of an unknown kind, or invalid.
    pub skipped: usize,
}

/// A key and the one algorithm that it may be used with.
#[derive(Debug)]
pub(super) struct PublicKey {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    /// A hash of the key and its algorithm.
    pub(super) id: [u8; 16],
    key: ParsedPublicKey,
}

impl PublicKey {
    /// Whether this key made the signature.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&PublicKey, &PublicKey)| a.id == b.id && a.kid == b.kid;
        self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(same)
    }
}

impl KeySet {
    /// Reads a key set. `algorithms` are those of the issuer, in the order of the config.
    ///
    /// # Errors
    /// Why the document can't be used. The keys known so far should then stay in use.
    pub fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        let document = Object::parse(text).ok_or(KeySetError::NotASet)?;
        let listed = document.get("keys").and_then(Value::as_array);
        let listed = listed.ok_or(KeySetError::NotASet)?;
        let mut set = Self::default();
        for value in listed {
            let jwk = Object::of(value).ok_or(KeySetError::NotASet)?;
            // A set with a shared secret would let everyone who reads the set make tokens.
            if ["d", "k", "p", "q", "dp", "dq", "qi"]
                .iter()
                .any(|it| jwk.has(it))
            {
                return Err(KeySetError::Secret);
            }
            match public_key(&jwk, algorithms) {
                Some(key) if set.keys.len() < KEYS_MAX && !set.has_name_of(&key) => {
                    set.keys.push(key);
                }
                _ => set.skipped += 1,
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        Ok(set)
    }

    /// Whether the set has a key of the same name and algorithm, so that it would be a guess which
    /// of them is meant.
    fn has_name_of(&self, key: &PublicKey) -> bool {
        let same = |it: &PublicKey| it.kid == key.kid && it.algorithm == key.algorithm;
        key.kid.is_some() && self.keys.iter().any(same)
    }

    /// The key of a token. A token without `kid` is accepted only if one key fits.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        let named = |it: &&PublicKey| kid.is_none() || it.kid.as_deref() == kid;
        let mut fitting = self.keys.iter();
        let fits = |it: &&PublicKey| it.algorithm == algorithm && named(it);
        let first = fitting.find(fits)?;
        match fitting.find(fits) {
            Some(_) => None,
            None => Some(first),
        }
    }

    /// Whether the set has the key with this hash.
    pub(super) fn has(&self, id: &[u8; 16]) -> bool {
        self.keys.iter().any(|it| it.id == *id)
    }

    /// The number of keys that are used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the set has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Reads one key. `None`: it can't be used here.
fn public_key(jwk: &Object, algorithms: &[Algorithm]) -> Option<PublicKey> {
    // RFC 7517 4.2, 4.3: a key for encryption must not check signatures.
    if jwk.text("use")?.is_some_and(|it| it != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        let mut operations = operations.as_array()?.iter();
        operations.find(|it| it.as_str() == Some("verify"))?;
    }
    let declared = match jwk.text("alg")? {
        None => None,
        Some(name) => Some(Algorithm::parse(name)?),
    };
    let kid = jwk.text("kid")?.map(Box::from);
    let (algorithm, key) = match jwk.text("kty")?? {
        "RSA" => rsa(jwk, declared, algorithms)?,
        "EC" => elliptic(jwk)?,
        "OKP" => edwards(jwk)?,
        _ => return None,
    };
    if declared.is_some_and(|it| it != algorithm) || !algorithms.contains(&algorithm) {
        return None;
    }
    let mut hash = Context::new(&SHA256);
    hash.update(algorithm.as_str().as_bytes());
    hash.update(key.as_ref());
    let mut id = [0; 16];
    id.copy_from_slice(hash.finish().as_ref().get(..16)?);
    Some(PublicKey {
        kid,
        algorithm,
        id,
        key,
    })
}

/// RFC 7518 6.3. A key without `alg` is bound to the issuer's first RSA algorithm.
fn rsa(
    jwk: &Object,
    declared: Option<Algorithm>,
    algorithms: &[Algorithm],
) -> Option<(Algorithm, ParsedPublicKey)> {
    let of = |algorithm: Algorithm| rsa_parameters(algorithm).map(|it| (algorithm, it));
    let (algorithm, parameters) = match declared {
        Some(declared) => of(declared)?,
        None => algorithms.iter().find_map(|it| of(*it))?,
    };
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // 2048 to 8192 bits. aws-lc checks the range with each signature; a key of another size would
    // never accept one.
    if !(256..=1024).contains(&n.len()) || e.len() > 8 {
        return None;
    }
    let key = RsaPublicKeyComponents { n, e };
    let key = key.to_parsed_public_key(parameters).ok()?;
    Some((algorithm, key))
}

const fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}

/// RFC 7518 6.2. The curve decides the algorithm (RFC 7518 3.4).
fn elliptic(jwk: &Object) -> Option<(Algorithm, ParsedPublicKey)> {
    let (algorithm, parameters, size) = match jwk.text("crv")?? {
        "P-256" => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        _ => return None,
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != size || y.len() != size {
        return None;
    }
    // SEC 1 2.3.3: an uncompressed point. aws-lc rejects one that is not on the curve.
    let point = [&[4], &*x, &*y].concat();
    let key = ParsedPublicKey::new(parameters, point).ok()?;
    Some((algorithm, key))
}

/// RFC 8037 2.
fn edwards(jwk: &Object) -> Option<(Algorithm, ParsedPublicKey)> {
    let x = bytes(jwk, "x")?;
    if jwk.text("crv")?? != "Ed25519" || x.len() != 32 {
        return None;
    }
    let key = ParsedPublicKey::new(&signature::ED25519, x).ok()?;
    Some((Algorithm::EdDsa, key))
}

fn bytes(jwk: &Object, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.text(name)??).ok()
}

//! Tokens that must be rejected, as Wycheproof's JWS and JWT files list their kinds, re-derived as
//! facts: each is made here, with a key that is right in every other respect.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Algorithm, IssuerConfig, JwksSource};
use crate::model::{Instant, UnixMillis};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const NOW_S: i64 = NOW.0 / 1000;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn issuer(name: &str, iss: &str) -> IssuerConfig {
    IssuerConfig {
        name: name.into(),
        line: 1,
        issuer: iss.into(),
        audience: vec!["orders".into(), "payments".into()],
        audience_claim: "aud".into(),
        jwks: JwksSource::File("unused".into()),
        jwks_at: 0..0,
        algorithms: Algorithm::ALL.to_vec(),
        claims: vec!["tenant".into(), "roles".into(), "level".into()],
        scope_claim: "scope".into(),
        ca: None,
    }
}

enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding, &'static str),
}

impl Signer {
    fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self::P256(pair.expect("a key"))
    }

    fn rsa(encoding: &'static dyn RsaEncoding, alg: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        Self::Rsa(pair, encoding, alg)
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed(_) => "EdDSA",
            Self::Rsa(_, _, alg) => alg,
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) | Self::P384(pair) => {
                let signature = pair.sign(&random, message).expect("it signs");
                signature.as_ref().to_vec()
            }
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair, encoding, _) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(*encoding, &random, message, &mut signature);
                signed.expect("it signs");
                signature
            }
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let point = |pair: &EcdsaKeyPair, crv: &str| {
            let bytes = pair.public_key().as_ref();
            let (x, y) = bytes[1..].split_at(bytes.len() / 2);
            json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y), "kid": kid})
        };
        match self {
            Self::P256(pair) => point(pair, "P-256"),
            Self::P384(pair) => point(pair, "P-384"),
            Self::Ed(pair) => json!({
                "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref()), "kid": kid,
            }),
            Self::Rsa(pair, _, alg) => {
                let key = pair.public_key();
                json!({
                    "kty": "RSA", "alg": alg, "kid": kid, "use": "sig",
                    "n": b64(key.modulus().big_endian_without_leading_zero()),
                    "e": b64(key.exponent().big_endian_without_leading_zero()),
                })
            }
        }
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    fn header(&self, kid: &str) -> String {
        json!({"alg": self.alg(), "kid": kid}).to_string()
    }

    fn good(&self, kid: &str, claims: &Value) -> String {
        self.token(&self.header(kid), &claims.to_string())
    }
}

fn set(keys: &[Value]) -> Arc<KeySet> {
    let text = json!({"keys": keys}).to_string();
    Arc::new(KeySet::parse(text.as_bytes(), &Algorithm::ALL).expect("a set"))
}

fn keys(sets: &[&Arc<KeySet>]) -> Arc<Keys> {
    Arc::new(Keys {
        issuers: sets.iter().map(|&set| Some(set.clone())).collect(),
        ..Keys::default()
    })
}

fn verifier(set: &Arc<KeySet>) -> Verifier {
    let mut verifier = Verifier::new(vec![issuer("idp", "https://idp")]);
    verifier.set_keys(keys(&[set]));
    verifier
}

fn claims() -> Value {
    json!({
        "iss": "https://idp", "sub": "ann", "aud": "orders", "exp": NOW_S + 600,
        "scope": "read write", "tenant": "acme", "roles": ["a", "b"], "level": 3, "secret": "x",
    })
}

/// The claims with one of them changed, or removed for `null`.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn denial(verifier: &mut Verifier, token: &str) -> Option<Denial> {
    let verified = verifier.verify(token.as_bytes(), NOW);
    verified.err().map(|rejected| rejected.denial)
}

#[test]
fn a_token_of_each_algorithm_names_its_client() {
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    for signer in [
        Signer::p256(),
        Signer::P384(p384),
        Signer::Ed(Ed25519KeyPair::generate().expect("a key")),
        Signer::rsa(&RSA_PKCS1_SHA256, "RS256"),
        Signer::rsa(&RSA_PKCS1_SHA384, "RS384"),
        Signer::rsa(&RSA_PSS_SHA256, "PS256"),
    ] {
        let mut verifier = verifier(&set(&[signer.jwk("k1")]));
        let token = signer.good("k1", &claims());
        let grant = verifier.verify(token.as_bytes(), NOW);
        let grant = grant.unwrap_or_else(|denial| panic!("{}: {denial:?}", signer.alg()));
        let principal = &grant.principal;
        assert_eq!(principal.identity.parts(), Some(("https://idp", "ann")));
        assert_eq!(principal.claims.get("tenant"), Some("acme"));
        assert_eq!(principal.claims.get("level"), Some("3"));
        assert_eq!(principal.claims.get("roles"), None, "it is no text");
        assert_eq!(
            principal.claims.get("secret"),
            None,
            "the config does not list it"
        );
        let json = principal.claims.json();
        assert_eq!(
            json,
            Some(r#"{"level":3,"roles":["a","b"],"tenant":"acme"}"#)
        );
        assert!(grant.scopes.have(&["write".into(), "read".into()]));
        assert!(!grant.scopes.have(&["write".into(), "admin".into()]));
        assert_eq!(grant.expires, Some(UnixMillis((NOW_S + 600) * 1000)));
    }
}

/// CVE-2015-9235 and its kin: the token must not choose how it is checked.
#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let rsa = Signer::rsa(&RSA_PKCS1_SHA256, "RS256");
    let public = rsa.jwk("k1");
    let mut verifier = verifier(&set(std::slice::from_ref(&public)));
    let claims = claims().to_string();
    for none in ["none", "None", "NONE", "nOnE", "", "RS256 ", "rs256"] {
        let header = json!({"alg": none, "kid": "k1"}).to_string();
        let unsigned = format!("{}.{}.", b64(&header), b64(&claims));
        assert_eq!(
            denial(&mut verifier, &unsigned),
            Some(Denial::Algorithm),
            "{none}"
        );
        let signed = rsa.token(&header, &claims);
        assert_eq!(
            denial(&mut verifier, &signed),
            Some(Denial::Algorithm),
            "{none}"
        );
    }
    // HMAC under the public key, which everyone has.
    let header = json!({"alg": "HS256", "kid": "k1"}).to_string();
    let message = format!("{}.{}", b64(&header), b64(&claims));
    let key =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.to_string().as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    let confused = format!("{message}.{}", b64(tag.as_ref()));
    assert_eq!(denial(&mut verifier, &confused), Some(Denial::Algorithm));
    // The same key pair, with another padding and another hash.
    let Signer::Rsa(pair, ..) = rsa else {
        unreachable!()
    };
    let pss = Signer::Rsa(pair, &RSA_PSS_SHA256, "PS256");
    let other = pss.token(&pss.header("k1"), &claims);
    assert_eq!(denial(&mut verifier, &other), Some(Denial::UnknownKey));
    let posing = pss.token(&json!({"alg": "RS256", "kid": "k1"}).to_string(), &claims);
    assert_eq!(denial(&mut verifier, &posing), Some(Denial::Signature));
    // An issuer's list rules out what its key could do.
    let mut only_es = issuer("idp", "https://idp");
    only_es.algorithms = vec![Algorithm::Es256];
    let p256 = Signer::p256();
    let mut choosy = Verifier::new(vec![only_es]);
    choosy.set_keys(keys(&[&set(&[p256.jwk("k1"), public])]));
    let Signer::Rsa(pair, ..) = pss else {
        unreachable!()
    };
    let rsa = Signer::Rsa(pair, &RSA_PKCS1_SHA256, "RS256");
    let token = rsa.token(&rsa.header("k1"), &claims);
    assert_eq!(denial(&mut choosy, &token), Some(Denial::Algorithm));
    assert_eq!(
        denial(&mut choosy, &p256.token(&p256.header("k1"), &claims)),
        None
    );
}

/// CVE-2022-21449 (ECDSA with r = s = 0), and encodings of a signature that JWS does not have.
#[test]
fn a_signature_that_is_not_one_is_wrong() {
    let signer = Signer::p256();
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    let message = format!("{}.{}", b64(signer.header("k1")), b64(claims().to_string()));
    let right = signer.sign(message.as_bytes());
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    // SEQUENCE of two INTEGERs, as X.509 has it (RFC 7518 3.4 does not).
    let der = [&[0x30, 68, 2, 32][..], &right[..32], &[2, 32], &right[32..]].concat();
    for wrong in [
        vec![],
        vec![0; 64],
        vec![0; 63],
        [&[0; 32], &right[32..]].concat(),
        [&right[..32], &[0; 32]].concat(),
        [&order[..], &order].concat(),
        [&right[..], &[0]].concat(),
        [&[0], &right[..]].concat(),
        right[..63].to_vec(),
        der,
    ] {
        let token = format!("{message}.{}", b64(&wrong));
        assert_eq!(
            denial(&mut verifier, &token),
            Some(Denial::Signature),
            "{wrong:?}"
        );
    }
    assert_eq!(
        denial(&mut verifier, &format!("{message}.{}", b64(right))),
        None
    );
}

/// RFC 8725 3.9 and 3.10, RFC 7515 4.1, RFC 7797: a token says nothing about how to check it.
#[test]
fn a_header_that_says_how_to_check_the_token_is_refused() {
    let (signer, theirs) = (Signer::p256(), Signer::p256());
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    for (name, value) in [
        ("crit", json!(["b64"])),
        ("crit", json!([])),
        ("crit", Value::Null),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("jwk", theirs.jwk("k1")),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!([])),
        ("zip", json!("DEF")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!(7)),
        ("kid", json!(7)),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        header[name] = value;
        let token = signer.token(&header.to_string(), &claims().to_string());
        assert_eq!(
            denial(&mut verifier, &token),
            Some(Denial::Malformed),
            "{header}"
        );
        let token = theirs.token(&header.to_string(), &claims().to_string());
        assert!(denial(&mut verifier, &token).is_some(), "{header}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ}).to_string();
        let token = signer.token(&header, &claims().to_string());
        assert_eq!(denial(&mut verifier, &token), None, "{typ}");
    }
}

/// CVE-2026-25537: a mistyped time counted as absent.
#[test]
fn a_time_is_a_number_and_exp_is_there() {
    let signer = Signer::p256();
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    let wrong = [
        json!("9999999999"),
        json!(true),
        json!([NOW_S + 600]),
        json!({"a": 1}),
        Value::Null,
        json!(-1),
        json!(1e300),
        json!(NOW.0 + 600_000), // Milliseconds by mistake: the year 59,000.
    ];
    for name in ["exp", "nbf", "iat"] {
        for value in &wrong {
            let token = signer.good("k1", &with(name, value.clone()));
            assert_eq!(
                denial(&mut verifier, &token),
                Some(Denial::Claims),
                "{name} {value}"
            );
        }
    }
    let mut without = claims();
    without.as_object_mut().expect("an object").remove("exp");
    assert_eq!(
        denial(&mut verifier, &signer.good("k1", &without)),
        Some(Denial::Claims)
    );
    for (name, value, expected) in [
        ("exp", json!(NOW_S - 4), None),
        ("exp", json!(NOW_S as f64 - 4.5), None),
        ("exp", json!(NOW_S - 5), Some(Denial::Expired)),
        ("exp", json!(0), Some(Denial::Expired)),
        ("nbf", json!(NOW_S + 5), None),
        ("nbf", json!(NOW_S + 6), Some(Denial::NotYetValid)),
        ("iat", json!(NOW_S + 60), None),
    ] {
        let token = signer.good("k1", &with(name, value.clone()));
        assert_eq!(denial(&mut verifier, &token), expected, "{name} {value}");
    }
}

/// zitadel GHSA-g5h5-m4hm-xjrr: `aud` was not checked.
#[test]
fn the_audience_is_one_of_ours() {
    let signer = Signer::p256();
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    for (value, expected) in [
        (json!("payments"), None),
        (json!(["other", "orders"]), None),
        (json!("other"), Some(Denial::Audience)),
        (json!("order"), Some(Denial::Audience)),
        (json!("orders "), Some(Denial::Audience)),
        (json!([]), Some(Denial::Audience)),
        (json!(["other"]), Some(Denial::Audience)),
        (json!(["orders", 7]), Some(Denial::Claims)),
        (json!({"orders": true}), Some(Denial::Claims)),
        (json!(7), Some(Denial::Claims)),
        (Value::Null, Some(Denial::Claims)),
    ] {
        let token = signer.good("k1", &with("aud", value.clone()));
        assert_eq!(denial(&mut verifier, &token), expected, "{value}");
    }
    let mut without = claims();
    without.as_object_mut().expect("an object").remove("aud");
    let token = signer.good("k1", &without);
    assert_eq!(denial(&mut verifier, &token), Some(Denial::Audience));
    let mut cognito = issuer("idp", "https://idp");
    cognito.audience_claim = "client_id".into();
    let mut verifier = Verifier::new(vec![cognito]);
    verifier.set_keys(keys(&[&set(&[signer.jwk("k1")])]));
    without["client_id"] = json!("orders");
    assert_eq!(denial(&mut verifier, &signer.good("k1", &without)), None);
    assert_eq!(
        denial(&mut verifier, &signer.good("k1", &claims())),
        Some(Denial::Audience)
    );
}

#[test]
fn a_subject_is_a_text_that_is_not_empty() {
    let signer = Signer::p256();
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    for wrong in [
        json!(""),
        json!(7),
        Value::Null,
        json!(["ann"]),
        json!("a".repeat(257)),
    ] {
        let token = signer.good("k1", &with("sub", wrong.clone()));
        assert_eq!(
            denial(&mut verifier, &token),
            Some(Denial::Claims),
            "{wrong}"
        );
    }
}

#[test]
fn a_name_that_occurs_twice_makes_a_token_malformed() {
    let signer = Signer::p256();
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    let claims = claims().to_string();
    let twice = format!("{}, \"sub\": \"bob\"}}", &claims[..claims.len() - 1]);
    let token = signer.token(&signer.header("k1"), &twice);
    assert_eq!(denial(&mut verifier, &token), Some(Denial::Malformed));
    let token = signer.token(r#"{"alg":"none","alg":"ES256","kid":"k1"}"#, &claims);
    assert_eq!(denial(&mut verifier, &token), Some(Denial::Malformed));
    let token = signer.token(r#"["ES256","k1"]"#, &claims);
    assert_eq!(denial(&mut verifier, &token), Some(Denial::Malformed));
}

/// CVE-2026-49998: keys that were looked up by `kid` alone.
#[test]
fn issuers_with_the_same_kid_have_their_own_keys() {
    let (a, b) = (Signer::p256(), Signer::p256());
    let (set_a, set_b) = (set(&[a.jwk("k1")]), set(&[b.jwk("k1")]));
    let of = |iss: &str| with("iss", json!(iss));
    for swapped in [false, true] {
        let mut issuers = vec![issuer("a", "https://a"), issuer("b", "https://b")];
        let mut sets = [&set_a, &set_b];
        if swapped {
            issuers.reverse();
            sets.reverse();
        }
        let mut verifier = Verifier::new(issuers);
        verifier.set_keys(keys(&sets));
        for _ in 0..2 {
            assert_eq!(denial(&mut verifier, &a.good("k1", &of("https://a"))), None);
            assert_eq!(denial(&mut verifier, &b.good("k1", &of("https://b"))), None);
            let posing = a.good("k1", &of("https://b"));
            assert_eq!(denial(&mut verifier, &posing), Some(Denial::Signature));
            let posing = b.good("k1", &of("https://a"));
            assert_eq!(denial(&mut verifier, &posing), Some(Denial::Signature));
        }
        let nobody = a.good("k1", &of("https://a/"));
        assert_eq!(denial(&mut verifier, &nobody), Some(Denial::UnknownIssuer));
    }
}

#[test]
fn a_key_is_named_or_the_only_one_that_fits() {
    let (a, b) = (Signer::p256(), Signer::p256());
    let bare = json!({"alg": "ES256"}).to_string();
    let token = a.token(&bare, &claims().to_string());
    assert_eq!(denial(&mut verifier(&set(&[a.jwk("k1")])), &token), None);
    let mut two = verifier(&set(&[a.jwk("k1"), b.jwk("k2")]));
    assert_eq!(denial(&mut two, &token), Some(Denial::UnknownKey));
    let rejected = two.verify(a.good("k3", &claims()).as_bytes(), NOW);
    let rejected = rejected.expect_err("no such key");
    assert_eq!(
        (rejected.denial, rejected.issuer),
        (Denial::UnknownKey, Some(0))
    );
    // A flood of invented key ids asks for another set once a second.
    let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    let asked = (0..3_000).filter(|ms| two.may_ask(0, at(*ms))).count();
    assert_eq!(asked, 3);
    let mut none = Verifier::new(vec![issuer("idp", "https://idp")]);
    assert_eq!(denial(&mut none, &token), Some(Denial::NoKeys));
}

#[test]
fn a_key_set_with_a_secret_or_without_a_usable_key_is_refused() {
    let good = Signer::p256().jwk("k1");
    let parse = |keys: Value| {
        let text = json!({"keys": keys}).to_string();
        KeySet::parse(text.as_bytes(), &Algorithm::ALL)
    };
    let change = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    for secret in [
        json!({"kty": "oct", "k": "AAAA"}),
        change("d", json!("AAAA")),
    ] {
        assert_eq!(parse(json!([good, secret])), Err(KeySetError::Secret));
    }
    let rsa = Signer::rsa(&RSA_PKCS1_SHA256, "RS256").jwk("k1");
    let mut short = rsa.clone();
    short["n"] = json!(b64([0xff; 128]));
    let mut as_ec = rsa.clone();
    as_ec["alg"] = json!("ES256");
    for useless in [
        change("use", json!("enc")),
        change("key_ops", json!(["sign"])),
        change("alg", json!("ES384")),
        change("alg", json!("HS256")),
        change("alg", json!(7)),
        change("crv", json!("secp256k1")),
        change("x", json!(b64([0; 32]))), // Not on the curve.
        change("x", json!(b64([0; 31]))),
        change("kty", json!("new")),
        short,
        as_ec,
    ] {
        let read = parse(json!([useless, good])).expect("one can be used");
        assert_eq!((read.len(), read.skipped), (1, 1), "{useless}");
        assert_eq!(parse(json!([useless])), Err(KeySetError::NoUsableKey));
    }
    // RFC 8725 3.1: one algorithm a key. Without `alg`, the issuer's list decides.
    let mut bare = rsa;
    bare.as_object_mut().expect("an object").remove("alg");
    let text = json!({"keys": [bare]}).to_string();
    for (list, fits) in [
        (
            vec![Algorithm::Es256, Algorithm::Ps256, Algorithm::Rs256],
            Algorithm::Ps256,
        ),
        (vec![Algorithm::Rs512], Algorithm::Rs512),
    ] {
        let set = KeySet::parse(text.as_bytes(), &list).expect("a set");
        for algorithm in Algorithm::ALL {
            assert_eq!(set.find(Some("k1"), algorithm).is_some(), algorithm == fits);
        }
    }
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[7]}"#,
        r#"{"keys":[],"keys":[]}"#,
    ] {
        let read = KeySet::parse(text.as_bytes(), &Algorithm::ALL);
        assert_eq!(read, Err(KeySetError::NotASet), "{text}");
    }
    let large = vec![b' '; JWKS_BYTES_MAX + 1];
    assert_eq!(
        KeySet::parse(&large, &Algorithm::ALL),
        Err(KeySetError::TooLarge)
    );
}

#[test]
fn a_token_is_checked_once_until_its_key_is_gone() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let both = set(&[signer.jwk("k1"), other.jwk("k2")]);
    let mut verifier = verifier(&both);
    let token = signer.good("k1", &with("exp", json!(NOW_S + 60)));
    for _ in 0..3 {
        assert_eq!(denial(&mut verifier, &token), None);
    }
    assert_eq!(verifier.take_checks(), 1);
    // The same key in another set: another key was added, and the token is still known.
    let more = set(&[signer.jwk("k1"), other.jwk("k2"), Signer::p256().jwk("k3")]);
    verifier.set_keys(keys(&[&more]));
    assert_eq!(
        (denial(&mut verifier, &token), verifier.take_checks()),
        (None, 0)
    );
    // It expires although it is known.
    let later = UnixMillis(NOW.0 + 65_000);
    let late = verifier.verify(token.as_bytes(), later);
    assert_eq!(late.expect_err("expired").denial, Denial::Expired);
    assert_eq!(verifier.take_checks(), 0);
    verifier.set_keys(keys(&[&set(&[other.jwk("k2")])]));
    assert_eq!(denial(&mut verifier, &token), Some(Denial::UnknownKey));
    // Under its `kid`, but another key.
    verifier.set_keys(keys(&[&set(&[other.jwk("k1")])]));
    assert_eq!(denial(&mut verifier, &token), Some(Denial::Signature));
}

#[test]
fn a_turn_has_four_checks_and_known_tokens_cost_none() {
    let signer = Signer::p256();
    let mut verifier = verifier(&set(&[signer.jwk("k1")]));
    let wrong = |n: u32| {
        let mut token = signer.good("k1", &with("sub", json!(format!("s{n}"))));
        token.replace_range(token.len() - 8.., "AAAAAAAA");
        token
    };
    let known = signer.good("k1", &claims());
    assert_eq!(denial(&mut verifier, &known), None);
    verifier.begin_turn();
    for n in 0..4 {
        assert!(!verifier.is_spent());
        assert_eq!(denial(&mut verifier, &known), None);
        assert_eq!(denial(&mut verifier, &wrong(n)), Some(Denial::Signature));
    }
    assert!(verifier.is_spent());
    assert_eq!(verifier.remembered(), 1, "wrong tokens are not remembered");
    verifier.begin_turn();
    assert!(!verifier.is_spent());
}

#[test]
fn api_keys_are_found_by_their_hash_and_files_are_read_strictly() {
    let hash = |key: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        let bytes = digest.as_ref().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let line = |name: &str, key: &str, scopes: &str| format!("{name}:{}:{scopes}\n", hash(key));
    let file = format!(
        "# keys\n\n{}{}",
        line("a", "key-a", "orders:read x"),
        line("b", "key-b", "")
    );
    let api_keys = Arc::new(ApiKeys::parse(&file).expect("a file"));
    let mut verifier = Verifier::new(Vec::new());
    verifier.set_keys(Arc::new(Keys {
        api_keys,
        ..Keys::default()
    }));
    let grant = verifier.verify(b"key-a", NOW).expect("a key");
    assert_eq!(grant.principal.identity.parts(), Some(("api-key", "a")));
    assert!(grant.scopes.have(&["orders:read".into()]) && grant.expires.is_none());
    for wrong in ["", "key-c", "key-a ", &hash("key-a"), "a.b.c"] {
        assert_eq!(
            denial(&mut verifier, wrong),
            Some(Denial::Malformed),
            "{wrong}"
        );
    }
    assert!(verifier.keys().has(grant.key));
    // A key whose scopes changed is another key: its streams end.
    let changed = ApiKeys::parse(&line("a", "key-a", "orders:read")).expect("a file");
    verifier.set_keys(Arc::new(Keys {
        api_keys: Arc::new(changed),
        ..Keys::default()
    }));
    assert!(!verifier.keys().has(grant.key));
    for (text, at) in [
        ("a", 1),
        ("a:12", 1),
        (":00:x", 1),
        ("# x\na b:00:x", 2),
        (&*format!("{}{}", line("a", "1", ""), line("a", "2", "")), 2),
        (&*format!("{}{}", line("a", "1", ""), line("b", "1", "")), 2),
        (&*format!("a:{}:x", "g".repeat(64)), 1),
        (&*format!("a:{}:x", "é".repeat(32)), 1),
    ] {
        let error = ApiKeys::parse(text).expect_err(text);
        assert_eq!(error.line, at, "{text}");
    }
}

proptest! {
    /// No change of a token is accepted, and no bytes make the verifier panic.
    #[test]
    fn a_changed_token_is_rejected(at in 0usize..400, byte in any::<u8>(), junk in ".{0,60}") {
        let signer = Signer::p256();
        let mut verifier = verifier(&set(&[signer.jwk("k1")]));
        let token = signer.good("k1", &claims());
        let mut changed = token.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = byte;
        let verified = verifier.verify(&changed, NOW);
        prop_assert_eq!(verified.is_ok(), changed == token.as_bytes());
        prop_assert!(verifier.verify(junk.as_bytes(), NOW).is_err());
        let parts = format!("{}.{}.{}", b64(&junk), b64(&junk), b64(&junk));
        prop_assert!(verifier.verify(parts.as_bytes(), NOW).is_err());
        let headed = format!("{}.{}.", b64(signer.header("k1")), b64(&junk));
        prop_assert!(verifier.verify(headed.as_bytes(), NOW).is_err());
    }

    /// A token cut or padded in any way has no second spelling.
    #[test]
    fn a_token_has_one_spelling(suffix in "[=. A-Za-z0-9]{1,4}", cut in 1usize..90) {
        let signer = Signer::p256();
        let mut verifier = verifier(&set(&[signer.jwk("k1")]));
        let token = signer.good("k1", &claims());
        let spellings = [format!("{token}{suffix}"), format!("{suffix}{token}")];
        for other in spellings {
            prop_assert!(verifier.verify(other.as_bytes(), NOW).is_err());
        }
        prop_assert!(verifier.verify(&token.as_bytes()[..token.len() - cut], NOW).is_err());
    }
}

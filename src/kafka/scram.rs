//! The client's side of SCRAM (RFC 5802, RFC 7677): the password is never sent, and the broker must
//! prove that it knows it too.
//!
//! Names and passwords are sent as UTF-8 without SASLprep, which the RFC asks for. Kafka's brokers
//! do not apply it either (`ScramFormatter.normalize` takes the bytes), so applying it here would
//! reject users that all other clients can log in.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::error::SaslError;
use crate::model::Secret;

/// The minimum of RFC 7677 4, and of Kafka's brokers. An impostor that poses as the broker would
/// ask for one iteration, which makes passwords cheap to guess from the messages.
const ITERATIONS_MIN: u32 = 4_096;
/// Kafka's tools reject more than 16,384. Every 4,096 iterations take 1 to 2 ms.
const ITERATIONS_MAX: u32 = 65_536;

/// Bytes of a salt. Brokers use 16 to 32.
const SALT_BYTES_MAX: usize = 1_024;

const _: () = {
    // RFC 7677 4: at least 4,096 iterations, and what brokers use is accepted.
    assert!(ITERATIONS_MIN >= 4_096 && ITERATIONS_MIN < ITERATIONS_MAX);
};

/// The hash function of SCRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256, with hashes of 32 bytes.
    Sha256,
    /// SCRAM-SHA-512, with hashes of 64 bytes.
    Sha512,
}

impl ScramHash {
    const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn digest(self, bytes: &[u8]) -> digest::Digest {
        match self {
            Self::Sha256 => digest::digest(&digest::SHA256, bytes),
            Self::Sha512 => digest::digest(&digest::SHA512, bytes),
        }
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text)
    }
}

/// A password to salt (PBKDF2), which takes up to some 30 ms. A shard asks another thread for it
/// and serves its clients meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaltRequest {
    hash: ScramHash,
    password: Secret,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl SaltRequest {
    /// Computes the salted password by PBKDF2, which takes milliseconds.
    #[must_use]
    pub fn derive(&self) -> Salted {
        let mut salted = vec![0; self.hash.bytes()];
        let algorithm = match self.hash {
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramHash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let password = self.password.expose().as_bytes();
        pbkdf2::derive(
            algorithm,
            self.iterations,
            &self.salt,
            password,
            &mut salted,
        );
        Salted {
            iterations: self.iterations,
            salt: self.salt.clone(),
            salted,
        }
    }
}

/// A salted password. All brokers of a cluster have the same salt, so one is enough for all
/// connections to the cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Salted {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    salted: Vec<u8>,
}

impl std::fmt::Debug for Salted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salted")
    }
}

impl Salted {
    /// Whether it is the answer to `request`, given the same password.
    #[must_use]
    pub fn answers(&self, request: &SaltRequest) -> bool {
        self.iterations == request.iterations && self.salt == request.salt
    }
}

/// The next step after a broker's message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SaslStep {
    /// Send this to the broker.
    Send(Vec<u8>),
    /// The exchange is complete: both sides have authenticated.
    Over,
    /// Salt the password, then give the same message again.
    Salt(SaltRequest),
}

/// The state of one exchange.
#[derive(Debug)]
pub(super) struct Scram {
    hash: ScramHash,
    nonce: String,
    /// `client-first-message-bare`, a part of the message that both sides sign (RFC 5802 3).
    first: String,
    /// The signature that the broker must send, once the client's proof is sent.
    expected: Option<hmac::Tag>,
}

impl Scram {
    /// Begins an exchange. Returns `client-first-message`. No channel is bound (`n`), because Kafka
    /// has no `-PLUS` mechanism.
    pub(super) fn new(hash: ScramHash, user: &str, nonce: String) -> (Self, Vec<u8>) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first = format!("n={user},r={nonce}");
        let message = format!("n,,{first}").into_bytes();
        let expected = None;
        let scram = Self {
            hash,
            nonce,
            first,
            expected,
        };
        (scram, message)
    }

    /// Takes the broker's message: answers the first one with the client's proof, and checks the
    /// broker's proof in the second one.
    pub(super) fn on_message(
        &mut self,
        message: &[u8],
        password: &Secret,
        salted: Option<&Salted>,
    ) -> Result<SaslStep, SaslError> {
        let message = std::str::from_utf8(message).map_err(|_| SaslError::Scram("no UTF-8"))?;
        if let Some(refusal) = attribute(message, 'e') {
            return Err(SaslError::Server(super::error::sanitize(refusal)));
        }
        match self.expected.take() {
            None => self.on_first(message, password, salted),
            Some(expected) => on_final(message, &expected).map(|()| SaslStep::Over),
        }
    }

    fn on_first(
        &mut self,
        message: &str,
        password: &Secret,
        salted: Option<&Salted>,
    ) -> Result<SaslStep, SaslError> {
        // RFC 5802 5.1: an `m` at the start is an extension that must be understood.
        if message.starts_with("m=") {
            return Err(SaslError::Scram("an extension that nobody here knows"));
        }
        let nonce = attribute(message, 'r').ok_or(SaslError::Scram("no nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(SaslError::Scram("a nonce that does not go on from ours"));
        }
        let salt = attribute(message, 's').and_then(|salt| BASE64.decode(salt).ok());
        let salt = salt.filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()));
        let salt = salt.ok_or(SaslError::Scram("no salt"))?;
        let iterations = attribute(message, 'i').and_then(|count| count.parse::<u32>().ok());
        let iterations = iterations.ok_or(SaslError::Scram("no iteration count"))?;
        let fits = (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations);
        let counted = NonZeroU32::new(iterations).filter(|_| fits);
        let counted = counted.ok_or(SaslError::Iterations {
            iterations,
            min: ITERATIONS_MIN,
            max: ITERATIONS_MAX,
        })?;
        let request = SaltRequest {
            hash: self.hash,
            password: password.clone(),
            salt,
            iterations: counted,
        };
        let Some(salted) = salted.filter(|it| it.answers(&request)) else {
            return Ok(SaslStep::Salt(request));
        };
        let salted = &salted.salted;
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{message},{without_proof}", self.first);
        let client_key = self.hash.hmac(salted, b"Client Key");
        let stored_key = self.hash.digest(client_key.as_ref());
        let signature = self.hash.hmac(stored_key.as_ref(), signed.as_bytes());
        let proof = client_key.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = proof.map(|(key, mask)| key ^ mask).collect();
        let server_key = self.hash.hmac(salted, b"Server Key");
        self.expected = Some(self.hash.hmac(server_key.as_ref(), signed.as_bytes()));
        let answer = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok(SaslStep::Send(answer.into_bytes()))
    }
}

fn on_final(message: &str, expected: &hmac::Tag) -> Result<(), SaslError> {
    let verifier = attribute(message, 'v').and_then(|text| BASE64.decode(text).ok());
    let verifier = verifier.ok_or(SaslError::Scram("no signature"))?;
    constant_time::verify_slices_are_equal(&verifier, expected.as_ref())
        .map_err(|_| SaslError::Impostor)
}

/// The value of an attribute. Values may contain `=`, but no comma.
fn attribute(message: &str, name: char) -> Option<&str> {
    let mut parts = message.split(',');
    parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 3, and the same for SHA-512 as other libraries have it.
    fn vector() -> (Scram, Vec<u8>) {
        Scram::new(ScramHash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into())
    }

    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn pencil() -> Secret {
        Secret::new("pencil")
    }

    /// Answers the broker's first message with the salted password.
    fn answer(scram: &mut Scram, first: &[u8]) -> Result<(SaslStep, Option<Salted>), SaslError> {
        match scram.on_message(first, &pencil(), None)? {
            SaslStep::Salt(request) => {
                let salted = request.derive();
                let next = scram.on_message(first, &pencil(), Some(&salted))?;
                Ok((next, Some(salted)))
            }
            next => Ok((next, None)),
        }
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let (mut scram, first) = vector();
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (answer, salted) = answer(&mut scram, SERVER_FIRST.as_bytes()).expect("an answer");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(answer, SaslStep::Send(expected.as_bytes().to_vec()));
        let last = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        let end = scram.on_message(last, &pencil(), salted.as_ref());
        assert_eq!(end, Ok(SaslStep::Over));
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_no_broker() {
        for last in [
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl9",
            "v=AAAA",
            "x=1",
            "",
        ] {
            let (mut scram, _) = vector();
            let sent = answer(&mut scram, SERVER_FIRST.as_bytes());
            let (_, salted) = sent.expect("an answer");
            let end = scram.on_message(last.as_bytes(), &pencil(), salted.as_ref());
            assert!(end.is_err(), "{last}");
        }
    }

    #[test]
    fn what_the_broker_begins_with_is_looked_at() {
        let nonce = "r=rOprNGfwEbeRWgbNEkqO";
        let refused = [
            "e=unknown-user".to_owned(),
            "m=x,r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096".into(),
            format!("{nonce},s=AAAA,i=4096"),
            "r=other,s=AAAA,i=4096".into(),
            format!("{nonce}x,s=,i=4096"),
            format!("{nonce}x,s=!,i=4096"),
            format!("{nonce}x,s=AAAA"),
            format!("{nonce}x,s=AAAA,i=1"),
            format!("{nonce}x,s=AAAA,i=4294967295"),
            format!("{nonce}x,s=AAAA,i=-1"),
            format!("{nonce}x,s={},i=4096", "AAAA".repeat(1_000)),
        ];
        for first in refused {
            let (mut scram, _) = vector();
            let answer = scram.on_message(first.as_bytes(), &pencil(), None);
            assert!(answer.is_err(), "{first}");
        }
        let (mut scram, _) = vector();
        assert!(scram.on_message(&[0xff], &pencil(), None).is_err());
    }

    #[test]
    fn a_name_may_hold_what_separates_attributes() {
        let (_, first) = Scram::new(ScramHash::Sha512, "a=b,c", "n".into());
        assert_eq!(first, b"n,,n=a=3Db=2Cc,r=n");
    }

    #[test]
    fn a_salted_password_serves_every_exchange_with_its_salt() {
        let first = SERVER_FIRST.as_bytes();
        let (_, salted) = answer(&mut vector().0, first).expect("an answer");
        let salted = salted.expect("none was there before");
        let again = vector().0.on_message(first, &pencil(), Some(&salted));
        assert!(matches!(again, Ok(SaslStep::Send(_))), "{again:?}");
        for other in ["s=X22Z", "i=8192"] {
            let (name, _) = other.split_once('=').expect("an attribute");
            let changed = match name {
                "s" => SERVER_FIRST.replace("s=W22Z", other),
                _ => SERVER_FIRST.replace("i=4096", other),
            };
            let asked = vector()
                .0
                .on_message(changed.as_bytes(), &pencil(), Some(&salted));
            assert!(matches!(asked, Ok(SaslStep::Salt(_))), "{other}: {asked:?}");
        }
    }
}

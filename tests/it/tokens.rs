//! An issuer of JSON Web Tokens for tests: a key pair, its key set, and tokens.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An issuer with one key.
pub struct Issuer {
    iss: String,
    kid: String,
    pair: EcdsaKeyPair,
}

impl Issuer {
    pub fn new(iss: &str, kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let (iss, kid) = (iss.to_owned(), kid.to_owned());
        Self { iss, kid, pair }
    }

    /// The key set with the issuer's key.
    pub fn jwks(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (b64(&point[1..33]), b64(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.kid, "x": x, "y": y})
    }

    /// A token that is valid for this many seconds, with further claims.
    pub fn token(&self, subject: &str, seconds: i64, more: &Value) -> String {
        let mut claims = json!({
            "iss": self.iss, "sub": subject, "aud": "app", "exp": unix_now() + seconds,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "ES256", "kid": self.kid}).to_string();
        let signed = format!("{}.{}", b64(header), b64(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", b64(signature.expect("it signs").as_ref()))
    }

    /// The value of `Authorization` for an hour.
    pub fn bearer(&self, subject: &str, scope: &str) -> String {
        let token = self.token(subject, 3600, &json!({"scope": scope}));
        format!("Bearer {token}")
    }

    /// The table of the config. `jwks` is a path or an address.
    pub fn table(&self, name: &str, jwks: &str) -> String {
        format!(
            "\n[[issuer]]\nname = \"{name}\"\nissuer = \"{}\"\naudience = [\"app\"]\n\
             jwks = \"{jwks}\"\nclaims = [\"tenant\"]\n",
            self.iss
        )
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs() as i64
}

/// A server of key sets that counts its requests.
pub struct JwksServer {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
}

impl JwksServer {
    /// Answers each request with this body.
    pub fn start(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new(String::new()));
        let requests = Arc::new(AtomicUsize::new(0));
        let (answers, counted) = (answer.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let server = Self {
            address,
            answer,
            requests,
        };
        server.answer(200, body);
        server
    }

    /// Answers each later request so.
    pub fn answer(&self, status: u16, body: &str) {
        let text = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nlocation: http://127.0.0.1:1/\r\n\r\n{body}",
            body.len()
        );
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

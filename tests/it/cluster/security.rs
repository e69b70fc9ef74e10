//! Security of a cluster: listeners that require passwords, tokens or certificates, besides the
//! plain one that the tests' own clients use. Certificates are created for the cluster's lifetime,
//! users when it is formatted.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};

/// The user that exists for every mechanism.
pub const USER: &str = "alice";
/// The user's password, with a character beyond ASCII.
pub const PASSWORD: &str = "alice-sécret=x";

/// Lines of `server.properties` that give users only the rights of their ACLs.
pub const RIGHTS: &str = "authorizer.class.name=\
    org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n";

/// A listener of a secured cluster, by the security it requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// SASL on a plaintext connection.
    Sasl,
    /// The same, with re-authentication every 2 s (KIP-368).
    Reauth,
    /// TLS. A client certificate is optional and checked if present.
    Tls,
    /// TLS with a required client certificate.
    Mtls,
    /// SASL on a TLS connection.
    SaslTls,
}

impl Listener {
    /// Every listener, in order of its port.
    pub const ALL: [Self; 5] = [
        Self::Sasl,
        Self::Reauth,
        Self::Tls,
        Self::Mtls,
        Self::SaslTls,
    ];

    /// Name, protocol, and advertised host, which is the name of its certificate.
    const fn about(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Sasl => ("SASL", "SASL_PLAINTEXT", "127.0.0.1"),
            Self::Reauth => ("REAUTH", "SASL_PLAINTEXT", "127.0.0.1"),
            Self::Tls => ("TLS", "SSL", "localhost"),
            Self::Mtls => ("MTLS", "SSL", "localhost"),
            Self::SaslTls => ("SASLTLS", "SASL_SSL", "localhost"),
        }
    }

    /// The listener's port on a node with plain port `port`. The next port is the controller's.
    pub const fn port(self, port: u16) -> u16 {
        port + 2 + self as u16
    }
}

/// The certificates of a cluster and its clients, as files.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Creates them: a CA, a server certificate for `localhost` only, a client certificate; and
    /// another CA, which no client trusts, with a server certificate of the same name.
    pub fn make(folder: &Path) -> Self {
        let folder = folder.join("tls");
        fs::create_dir_all(&folder).expect("a folder for certificates");
        let this = Self { folder };
        let (ca, issuer) = authority("sluicegate test CA");
        let (other_ca, other_issuer) = authority("somebody else");
        this.write("ca.pem", &ca.pem());
        this.write("other-ca.pem", &other_ca.pem());
        for (name, subject, issuer) in [
            ("server", "localhost", &issuer),
            ("client", "sluicegate", &issuer),
            ("other-server", "localhost", &other_issuer),
        ] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new([subject.to_owned()]).expect("a name");
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, subject);
            let made = params.signed_by(&key, issuer).expect("a certificate");
            let (key, made) = (key.serialize_pem(), made.pem());
            this.write(&format!("{name}.key"), &key);
            this.write(&format!("{name}.pem"), &made);
            this.write(&format!("{name}-both.pem"), &format!("{key}{made}"));
        }
        this
    }

    /// Path of a file: `ca.pem`, `other-ca.pem`; for `server`, `client` and `other-server` the
    /// `.pem`, the `.key`, and `-both.pem`, the form that a broker reads.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write a certificate");
    }
}

fn authority(name: &str) -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate, Issuer::new(params, key))
}

/// `NAME://host:port` of each secured listener, separated by commas, as advertised or as bound.
pub fn listeners(port: u16, advertised: bool) -> String {
    let each = Listener::ALL.map(|listener| {
        let (name, _, host) = listener.about();
        let host = if advertised { host } else { "127.0.0.1" };
        format!(",{name}://{host}:{}", listener.port(port))
    });
    each.concat()
}

/// `NAME:PROTOCOL` of each listener, separated by commas.
pub fn protocols() -> String {
    let each = Listener::ALL.map(|listener| {
        let (name, protocol, _) = listener.about();
        format!(",{name}:{protocol}")
    });
    each.concat()
}

/// Lines of `server.properties` for the secured listeners.
pub fn properties(certificates: &Certificates) -> String {
    let mut text = String::from(
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
         ssl.keystore.type=PEM\nssl.truststore.type=PEM\nssl.client.auth=requested\n\
         listener.name.mtls.ssl.client.auth=required\n\
         listener.name.reauth.connections.max.reauth.ms=2000\n",
    );
    let (keys, trusted) = (
        certificates.path("server-both.pem"),
        certificates.path("ca.pem"),
    );
    let _ = writeln!(text, "ssl.keystore.location={}", keys.display());
    let _ = writeln!(text, "ssl.truststore.location={}", trusted.display());
    let login = "org.apache.kafka.common.security";
    for listener in ["sasl", "reauth", "sasltls"] {
        let prefix = format!("listener.name.{listener}");
        let password = escaped(PASSWORD);
        let _ = writeln!(
            text,
            "{prefix}.plain.sasl.jaas.config={login}.plain.PlainLoginModule required \
             user_{USER}=\"{password}\";"
        );
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            let _ = writeln!(
                text,
                "{prefix}.{mechanism}.sasl.jaas.config={login}.scram.ScramLoginModule required;"
            );
        }
        // The broker accepts unsigned tokens, which is enough to test the exchange.
        let _ = writeln!(
            text,
            "{prefix}.oauthbearer.sasl.jaas.config=\
             {login}.oauthbearer.OAuthBearerLoginModule required;"
        );
    }
    text
}

/// Escapes characters beyond ASCII, because some readers of properties files use Latin-1.
fn escaped(text: &str) -> String {
    let each = text.chars().map(|c| {
        if c.is_ascii() {
            c.to_string()
        } else {
            format!("\\u{:04x}", c as u32)
        }
    });
    each.collect()
}

/// Arguments of the format tool that create the user.
pub fn users() -> Vec<String> {
    let each = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|mechanism| {
        let user = format!("{mechanism}=[name={USER},password=\"{PASSWORD}\"]");
        ["--add-scram".to_owned(), user]
    });
    each.concat()
}

/// An unsigned token (RFC 7519 6) of the test's user that expires `life_s` seconds from now.
pub fn token(life_s: i64) -> String {
    use base64::Engine as _;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs() as i64;
    let part = |json: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
    let header = part("{\"alg\":\"none\"}".into());
    let claims = format!(
        "{{\"sub\":\"{USER}\",\"iat\":{},\"exp\":{}}}",
        now - 60,
        now + life_s
    );
    format!("{header}.{}.", part(claims))
}

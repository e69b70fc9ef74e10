//! What connections to a cluster need, from the config and the files it names. Read once, before
//! anything is bound: what can't be read stops the start, and is never taken for "none".

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::BootError;
use crate::config::{
    ClusterKeys, Config, KafkaSasl, KafkaTls, Mechanism, SECRET_BYTES_MAX, SecretSource,
};
use crate::kafka::{Entropy, Sasl, ScramHash};
use crate::model::Secret;
use crate::shard::ClusterSecurity;
use crate::tls::{Connector, Roots};

/// Bytes of a certificate, key or bundle; the bundles of distributions have some 250 KB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where distributions keep the authorities they trust: Debian, Fedora, RHEL, SUSE, Alpine. The
/// list is that of Go's crypto/x509.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// For every cluster its own, by [`crate::config::ClusterIndex`].
pub(super) fn all(config: &Config) -> Result<Vec<ClusterSecurity>, BootError> {
    let each = config.cluster_indexes().map(|index| {
        let (tls, sasl) = config.cluster_security(index);
        read(tls, sasl, &config.cluster_keys(index))
    });
    each.collect()
}

/// The same for another shard: no two connections to a cluster make the same nonces.
pub(super) fn another(all: &[ClusterSecurity]) -> Result<Vec<ClusterSecurity>, BootError> {
    let each = all.iter().map(|it| {
        Ok(ClusterSecurity {
            entropy: entropy()?,
            ..it.clone()
        })
    });
    each.collect()
}

fn read(
    tls: &KafkaTls,
    sasl: &KafkaSasl,
    keys: &ClusterKeys,
) -> Result<ClusterSecurity, BootError> {
    Ok(ClusterSecurity {
        tls: tls.enabled.then(|| connector(tls, keys)).transpose()?,
        sasl: sasl_of(sasl, keys)?,
        entropy: entropy()?,
    })
}

/// 32 bytes from the system.
fn entropy() -> Result<Entropy, BootError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| BootError::System {
        what: "ask for randomness",
        source: std::io::ErrorKind::Other.into(),
    })?;
    Ok(Entropy(bytes))
}

fn connector(tls: &KafkaTls, keys: &ClusterKeys) -> Result<Connector, BootError> {
    let system;
    let given;
    let (roots, from) = match &tls.ca {
        Some(path) => {
            given = file(path)?;
            (Roots::Given(&given), keys.key("tls.ca"))
        }
        None => {
            system = system_bundle(keys)?;
            let from = format!("{}, with the system's authorities", keys.key("tls"));
            (Roots::System(&system), from)
        }
    };
    let refused = |what: String| move |source| BootError::BrokerTls { what, source };
    let Some((certificate, key)) = tls.certificate.as_ref().zip(tls.key.as_ref()) else {
        return Connector::new(roots, None).map_err(refused(from));
    };
    let (certificate, key) = (file(certificate)?, file(key)?);
    let from = format!("{from}, {}", keys.key("tls.certificate and key"));
    Connector::new(roots, Some((&certificate, &key))).map_err(refused(from))
}

fn sasl_of(sasl: &KafkaSasl, keys: &ClusterKeys) -> Result<Option<Sasl>, BootError> {
    let Some(mechanism) = sasl.mechanism else {
        return Ok(None);
    };
    let hash = match mechanism {
        Mechanism::OauthBearer => return Ok(Some(Sasl::OauthBearer)),
        Mechanism::Plain => None,
        Mechanism::ScramSha256 => Some(ScramHash::Sha256),
        Mechanism::ScramSha512 => Some(ScramHash::Sha512),
    };
    let user = sasl.username.clone().unwrap_or_default();
    let password = match &sasl.password {
        Some(source) => resolve(source, &keys.key("sasl.password"))?,
        None => Secret::new(""),
    };
    Ok(Some(match hash {
        None => Sasl::Plain { user, password },
        Some(hash) => Sasl::Scram {
            hash,
            user,
            password,
        },
    }))
}

/// A secret from where it is.
fn resolve(source: &SecretSource, key: &str) -> Result<Secret, BootError> {
    let missing = |why: String| BootError::Secret {
        key: key.to_owned(),
        why,
    };
    let path = match source {
        SecretSource::Here(secret) => return Ok(secret.clone()),
        SecretSource::Env(name) => {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value
                .map(Secret::new)
                .ok_or_else(|| missing(format!("the environment has no `{name}`")));
        }
        SecretSource::File(path) => path.clone(),
        SecretSource::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let why = "there is no $CREDENTIALS_DIRECTORY: set LoadCredential= in the unit";
                missing(why.into())
            })?;
            PathBuf::from(folder).join(name)
        }
    };
    let text = String::from_utf8(file(&path)?).ok();
    let text = text.filter(|text| text.len() <= SECRET_BYTES_MAX);
    let text = text
        .as_deref()
        .map(|text| text.trim_end_matches(['\r', '\n']));
    match text {
        Some(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => Err(missing(format!(
            "{} is empty, too long, or no text",
            path.display()
        ))),
    }
}

fn system_bundle(keys: &ClusterKeys) -> Result<Vec<u8>, BootError> {
    // As OpenSSL and most of what stands on it.
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return file(Path::new(&path));
    }
    let found = SYSTEM_BUNDLES
        .iter()
        .find_map(|path| file(Path::new(path)).ok());
    found.ok_or_else(|| BootError::Secret {
        key: keys.key("tls.ca"),
        why: format!(
            "it is not set, and the system has no bundle of authorities at any of {}: install \
             `ca-certificates`, or set it",
            SYSTEM_BUNDLES.join(", ")
        ),
    })
}

/// A file, whole, if it is of a size such a file may have.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, BootError> {
    let failed = |source| BootError::File {
        path: path.display().to_string(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_where_it_is_said_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "pass word\r\n").expect("write");
        let found = resolve(&SecretSource::File(path), "k").expect("found");
        assert_eq!(found.expose(), "pass word");
        let here = SecretSource::Here(Secret::new("x"));
        assert_eq!(resolve(&here, "k").expect("found").expose(), "x");
        let env = SecretSource::Env("PATH".into());
        assert!(resolve(&env, "k").is_ok());
        let nowhere = [
            SecretSource::Env("SLUICEGATE_TEST_NO_SUCH".into()),
            SecretSource::File(folder.path().join("none")),
            SecretSource::File("/dev/null".into()),
            SecretSource::Credential("none".into()),
        ];
        for source in nowhere {
            let error = resolve(&source, "kafka.sasl.password").expect_err("nowhere");
            assert_eq!(error.exit_code(), 78, "{error}");
        }
    }

    #[test]
    fn an_authority_that_is_none_stops_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "hello").expect("write");
        let tls = KafkaTls {
            enabled: true,
            ca: Some(path),
            ..KafkaTls::default()
        };
        let error = read(&tls, &KafkaSasl::default(), &ClusterKeys::default()).expect_err("no PEM");
        assert!(error.to_string().contains("kafka.tls.ca"), "{error}");
        assert_eq!(error.exit_code(), 78);
    }
}

//! Certificates, keys and secrets for connections to clusters, and the admin port's token, from the
//! config and the files that it names. They are read once, before anything is bound. A file that
//! cannot be read stops the start; it is never treated as absent.

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::BootError;
use crate::config::{
    ClusterKeys, Config, KafkaSasl, KafkaTls, Mechanism, SECRET_BYTES_MAX, SecretSource,
};
use crate::kafka::{Entropy, Sasl, ScramHash};
use crate::model::Secret;
use crate::shard::ClusterSecurity;
use crate::tls::{Connector, Roots, TlsError};

/// Most bytes of a certificate, key or bundle. The bundles of distributions have about 250 KB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Paths of the distributions' trusted authorities: Debian, Fedora, RHEL, SUSE, Alpine. The list is
/// that of Go's crypto/x509.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Every problem with the files and secrets that the config names.
pub(super) fn refusals(config: &Config) -> Vec<BootError> {
    let clusters = config.cluster_indexes().flat_map(|index| {
        let (tls, sasl) = config.cluster_security(index);
        let keys = config.cluster_keys(index);
        let connector = tls.enabled.then(|| connector(tls, &keys));
        let sasl = sasl_of(sasl, &keys);
        [connector.and_then(Result::err), sasl.err()]
    });
    let admin = admin_token(config).err();
    admin.into_iter().chain(clusters.flatten()).collect()
}

/// TLS and SASL of every cluster, by [`crate::config::ClusterIndex`].
pub(super) fn all(config: &Config) -> Result<Vec<ClusterSecurity>, BootError> {
    let each = config.cluster_indexes().map(|index| {
        let (tls, sasl) = config.cluster_security(index);
        read(tls, sasl, &config.cluster_keys(index))
    });
    each.collect()
}

/// Copies them for another shard with fresh entropy, so that no two connections to a cluster use
/// the same nonces.
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

fn entropy() -> Result<Entropy, BootError> {
    Ok(Entropy(random_bytes()?))
}

/// 32 bytes that the operating system's entropy decides (by way of aws-lc's generator).
pub(super) fn random_bytes() -> Result<[u8; 32], BootError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| BootError::System {
        what: "ask for randomness",
        source: std::io::ErrorKind::Other.into(),
    })?;
    Ok(bytes)
}

fn connector(tls: &KafkaTls, keys: &ClusterKeys) -> Result<Connector, BootError> {
    let bundle = match &tls.ca {
        Some(path) => Pem::read(keys.key("tls.ca"), path)?,
        None => system_bundle(keys)?,
    };
    let roots = match &tls.ca {
        Some(_) => Roots::Given(&bundle.text),
        None => Roots::System(&bundle.text),
    };
    // Build it first without an identity: an error then concerns the authorities.
    let help = "it must hold the certificates of the authorities that sign for the brokers, in PEM";
    let plain = Connector::new(roots, None).map_err(|error| bundle.refused(error, help))?;
    let Some((certificate, key)) = tls.certificate.as_ref().zip(tls.key.as_ref()) else {
        return Ok(plain);
    };
    let certificate = Pem::read(keys.key("tls.certificate"), certificate)?;
    let key = Pem::read(keys.key("tls.key"), key)?;
    let both = Some((&*certificate.text, &*key.text));
    Connector::new(roots, both).map_err(|error| refused(error, &certificate, &key))
}

/// The text of a PEM file, with the setting that names it.
#[derive(Debug)]
pub(super) struct Pem {
    key: String,
    /// Byte range of the path in the config file, if the key is no setting.
    at: Option<Range<usize>>,
    path: String,
    pub(super) text: Vec<u8>,
}

impl Pem {
    /// Reads the file that the setting `key` names.
    pub(super) fn read(key: String, path: &Path) -> Result<Self, BootError> {
        Self::read_at(key, path, None)
    }

    /// Reads the file that a value at `at` of the config file names.
    pub(super) fn read_at(
        key: String,
        path: &Path,
        at: Option<Range<usize>>,
    ) -> Result<Self, BootError> {
        let text = file(path, &key, at.clone())?;
        let path = path.display().to_string();
        Ok(Self {
            key,
            at,
            path,
            text,
        })
    }

    pub(super) fn refused(&self, source: TlsError, help: impl Into<String>) -> BootError {
        BootError::Pem {
            key: self.key.clone(),
            at: self.at.clone(),
            path: self.path.clone(),
            source: source.into(),
            help: help.into(),
        }
    }
}

/// Blames the certificate or the key, by the kind of error.
pub(super) fn refused(error: TlsError, certificate: &Pem, key: &Pem) -> BootError {
    match error {
        TlsError::Certificate(_) | TlsError::Unreadable => {
            let help = "it must hold our certificate and those that sign it, in PEM";
            certificate.refused(error, help)
        }
        TlsError::Key(_) => key.refused(error, "it must hold the private key, in PEM"),
        _ => {
            let help = format!(
                "it must be the key of the first certificate of {}",
                certificate.path
            );
            key.refused(error, help)
        }
    }
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

/// Fewest bytes of `admin.token`: too many tokens to try.
const ADMIN_TOKEN_BYTES_MIN: usize = 16;

/// The token of the admin port, if the config has one.
pub(super) fn admin_token(config: &Config) -> Result<Option<Secret>, BootError> {
    let Some(source) = &config.settings.admin.token else {
        return Ok(None);
    };
    let token = resolve(source, "admin.token")?;
    let is_plain = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if token.expose().len() < ADMIN_TOKEN_BYTES_MIN || !is_plain {
        return Err(BootError::Secret {
            key: "admin.token".into(),
            why: format!(
                "it must have at least {ADMIN_TOKEN_BYTES_MIN} characters, none of them a space: \
                 `openssl rand -hex 32` prints a good one"
            ),
        });
    }
    Ok(Some(token))
}

/// Reads a secret from its source.
fn resolve(source: &SecretSource, key: &str) -> Result<Secret, BootError> {
    let missing = |why: String| BootError::Secret {
        key: key.to_owned(),
        why,
    };
    let path = match source {
        SecretSource::Here(secret) => return Ok(secret.clone()),
        SecretSource::Env(name) => {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value.map(Secret::new).ok_or_else(|| {
                let why = format!("the environment has no `{name}`; set it, or correct its name");
                missing(why)
            });
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
    let text = String::from_utf8(file(&path, key, None)?).ok();
    let text = text.filter(|text| text.len() <= SECRET_BYTES_MAX);
    let text = text
        .as_deref()
        .map(|text| text.trim_end_matches(['\r', '\n']));
    match text {
        Some(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => Err(missing(format!(
            "{} is empty, too long, or no text; it must hold the secret and nothing else",
            path.display()
        ))),
    }
}

fn system_bundle(keys: &ClusterKeys) -> Result<Pem, BootError> {
    let key = || format!("{} is not set", keys.key("tls.ca"));
    // OpenSSL and the programs that use it read this variable too.
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        let key = format!("{}, so $SSL_CERT_FILE counts", key());
        return Pem::read(key, Path::new(&path));
    }
    let mut places = SYSTEM_BUNDLES.iter();
    let found = places.find_map(|path| Pem::read(key(), Path::new(path)).ok());
    found.ok_or_else(|| BootError::Secret {
        key: keys.key("tls.ca"),
        why: format!(
            "it is not set, and the system has no bundle of authorities at any of {}: install \
             `ca-certificates`, or set it",
            SYSTEM_BUNDLES.join(", ")
        ),
    })
}

/// Reads the file that the setting `key` names, up to [`FILE_BYTES_MAX`].
fn file(path: &Path, key: &str, at: Option<Range<usize>>) -> Result<Vec<u8>, BootError> {
    let failed = |source| BootError::File {
        key: key.to_owned(),
        at: at.clone(),
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
    use crate::config::{ConfigFile, Sources, load};

    /// The keys of shards are the system's: two starts never share one.
    #[test]
    fn no_two_keys_are_the_same() {
        let mut keys: Vec<_> = (0..100)
            .map(|_| random_bytes().expect("there is entropy"))
            .collect();
        keys.push([0; 32]);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 101);
    }

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

    /// The error for a config with these tables, which name files in a temporary folder.
    fn said(tables: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let made = || {
            let made = rcgen::generate_simple_self_signed(["x".into()]).expect("a certificate");
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let ((chain, key), (_, other)) = (made(), made());
        for (name, text) in [
            ("chain", &*chain),
            ("key", &key),
            ("other", &other),
            ("junk", "hello"),
            ("empty", ""),
        ] {
            std::fs::write(folder.path().join(name), text).expect("write");
        }
        let place = format!("{}/", folder.path().display());
        let route = "[[stream]]\nroute = \"GET /x\"\ntopic = \"x\"\n";
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text: tables.replace("@", &place) + route,
        };
        let sources = Sources {
            file: Some(file),
            cpus: 1,
            ..Sources::default()
        };
        let loaded = load(sources).map_err(|report| report.render(false));
        let config = loaded.expect("the config is right in itself").config;
        let error = all(&config).expect_err("it names what can't be used");
        assert_eq!(error.exit_code(), 78, "{error}");
        let said = error.to_string();
        // `check` must report the same.
        let refusals = refusals(&config);
        assert!(refusals.iter().any(|it| it.to_string() == said), "{said}");
        said.replace(&place, "@")
    }

    /// Every error has the key, the path, the cause, and what to do.
    #[test]
    fn a_file_that_can_not_be_used_is_named_with_its_key() {
        let cases = [
            (
                "ca = \"@no\"",
                &["tls.ca", "can't read @no", "No such file"][..],
            ),
            ("ca = \"@\"", &["tls.ca", "can't read @", "directory"]),
            ("ca = \"@junk\"", &["tls.ca", "@junk", "no PEM certificate"]),
            (
                "ca = \"@empty\"",
                &["tls.ca", "@empty", "no PEM certificate"],
            ),
            (
                "ca = \"@chain\"\ncertificate = \"@no\"\nkey = \"@key\"",
                &["tls.certificate", "can't read @no"],
            ),
            (
                "ca = \"@chain\"\ncertificate = \"@junk\"\nkey = \"@key\"",
                &["tls.certificate", "@junk", "no PEM certificate"],
            ),
            (
                "ca = \"@chain\"\ncertificate = \"@chain\"\nkey = \"@no\"",
                &["tls.key", "can't read @no"],
            ),
            (
                "ca = \"@chain\"\ncertificate = \"@chain\"\nkey = \"@junk\"",
                &["tls.key", "@junk", "no PEM private key"],
            ),
            (
                "ca = \"@chain\"\ncertificate = \"@chain\"\nkey = \"@other\"",
                &["tls.key", "@other", "certificate of @chain"],
            ),
        ];
        let edge = "[[cluster]]\nname = \"edge\"\nbootstrap = [\"e:1\"]\n";
        for (keys, words) in cases {
            for (table, key, whose) in [
                ("[kafka.tls]\n".to_owned(), "kafka", ""),
                (
                    format!("{edge}[cluster.tls]\n"),
                    "cluster",
                    " of cluster `edge`",
                ),
            ] {
                let said = said(&format!("{table}enabled = true\n{keys}\n"));
                let named = format!("{key}.{}{whose}: ", words[0]);
                assert!(said.starts_with(&named), "{named} {said}");
                for word in &words[1..] {
                    assert!(said.contains(word), "{word}: {said}");
                }
            }
        }
        for (password, words) in [
            ("{ file = \"@no\" }", "can't read @no"),
            ("{ file = \"@empty\" }", "@empty is empty"),
            (
                "{ env = \"SLUICEGATE_NO_SUCH\" }",
                "no `SLUICEGATE_NO_SUCH`; set it",
            ),
        ] {
            let sasl = "mechanism = \"SCRAM-SHA-256\"\nusername = \"u\"\npassword = ";
            let said = said(&format!("{edge}[cluster.sasl]\n{sasl}{password}\n"));
            let named = "cluster.sasl.password of cluster `edge`: ";
            assert!(said.starts_with(named) && said.contains(words), "{said}");
        }
    }
}

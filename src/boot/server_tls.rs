//! TLS towards clients: certificates, keys and authorities, from the files that the config names.
//! They are read before anything is bound, and again whenever a file changes. A set of files is
//! used as a whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::BootError;
use super::security::{Pem, random_bytes, refused};
use crate::config::{ClientAuth, Config};
use crate::model::{UnixMillis, millis};
use crate::tls::{Acceptor, ClientAuthorities, ServerCertificate, TicketKeys};

/// The files that the config names, read and valid.
#[derive(Debug)]
struct Files {
    default: ServerCertificate,
    others: Vec<ServerCertificate>,
    authorities: Option<ClientAuthorities>,
    /// The texts of all files, the authorities' first.
    texts: Vec<Vec<u8>>,
}

/// What the process needs of TLS towards clients while it runs.
#[derive(Debug)]
pub(super) struct ServerTls {
    config: Arc<Config>,
    files: Files,
    tickets: TicketKeys,
    acceptor: Acceptor,
}

/// What a renewal has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// The files are as they were.
    Unchanged,
    /// The acceptor has other certificates, keys or authorities.
    Changed,
}

/// Every reason against the files. At most one: the first file that cannot be used.
pub(super) fn refusals(config: &Config) -> impl Iterator<Item = BootError> {
    let files = Files::read(config, unix_now());
    files.err().into_iter()
}

impl ServerTls {
    /// Reads the files. `None`: the config has no address for HTTPS.
    pub(super) fn new(config: &Arc<Config>) -> Result<Option<Self>, BootError> {
        let Some(files) = Files::read(config, unix_now())? else {
            return Ok(None);
        };
        let tickets = TicketKeys::new(&random_bytes()?);
        Ok(Some(Self {
            config: config.clone(),
            acceptor: files.acceptor(&tickets)?,
            files,
            tickets,
        }))
    }

    /// What shards accept clients with.
    pub(super) const fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// Reads all files again. If one of them cannot be used, everything stays as it is. It may
    /// wait for a file system.
    pub(super) fn renew(&mut self) -> Result<Renewed, BootError> {
        let Some(files) = Files::read(&self.config, unix_now())? else {
            return Ok(Renewed::Unchanged);
        };
        if files.texts == self.files.texts {
            return Ok(Renewed::Unchanged);
        }
        let tickets = if files.authorities_text() == self.files.authorities_text() {
            self.tickets.clone()
        } else {
            // A ticket holds the client's certificate, which is not verified again when its session
            // is resumed. So no ticket outlives the authorities under which it was issued.
            TicketKeys::new(&random_bytes()?)
        };
        self.acceptor = files.acceptor(&tickets)?;
        (self.files, self.tickets) = (files, tickets);
        Ok(Renewed::Changed)
    }

    /// Changes the keys of session tickets.
    pub(super) fn rotate_tickets(&mut self) -> Result<(), BootError> {
        self.tickets = self.tickets.rotated(&random_bytes()?);
        self.acceptor = self.acceptor.with_tickets(self.tickets.clone());
        Ok(())
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let tls = &self.config.settings.tls;
        let own = [&tls.certificate, &tls.key, &tls.client_ca];
        let others = self.config.certificates.iter();
        let others = others.flat_map(|it| [&it.certificate, &it.key]);
        own.into_iter().flatten().chain(others).cloned().collect()
    }

    /// When the first of the certificates ends, and how much of its lifetime is left then: between
    /// 0 and 1.
    pub(super) fn first_to_end(&self) -> (UnixMillis, f64) {
        let all = std::iter::once(&self.files.default).chain(&self.files.others);
        let first = all.min_by_key(|it| it.valid_until()).expect("one at least");
        let (from, until) = (first.valid_from().0, first.valid_until().0);
        let left = until.saturating_sub(unix_now().0).max(0);
        #[expect(clippy::cast_precision_loss, reason = "a share of a lifetime is rough")]
        let share = left as f64 / until.saturating_sub(from).max(1) as f64;
        (first.valid_until(), share)
    }
}

impl Files {
    fn read(config: &Config, now: UnixMillis) -> Result<Option<Self>, BootError> {
        let tls = &config.settings.tls;
        let Some((certificate, key)) = tls.certificate.as_ref().zip(tls.key.as_ref()) else {
            return Ok(None);
        };
        let mut texts = Vec::new();
        let authorities = match (&tls.client_ca, tls.client_auth) {
            (None, _) | (_, ClientAuth::None) => None,
            (Some(path), auth) => {
                let pem = Pem::read("tls.client_ca".into(), path)?;
                let required = auth == ClientAuth::Required;
                let read = ClientAuthorities::from_pem(&pem.text, required, tls.client_identity);
                let help = "it must hold the certificates of the authorities that sign for your \
                            clients, in PEM";
                let read = read.map_err(|error| pem.refused(error, help))?;
                texts.push(pem.text);
                Some(read)
            }
        };
        if authorities.is_none() {
            texts.push(Vec::new());
        }
        let certificate = Pem::read("tls.certificate".into(), certificate)?;
        let key = Pem::read("tls.key".into(), key)?;
        let default = server_certificate(&certificate, &key, now)?;
        texts.extend([certificate.text, key.text]);
        let mut others = Vec::new();
        for files in &config.certificates {
            let at = Some(files.certificate_at.clone());
            let name = "[[certificate]] certificate".into();
            let certificate = Pem::read_at(name, &files.certificate, at)?;
            let at = Some(files.key_at.clone());
            let key = Pem::read_at("[[certificate]] key".into(), &files.key, at)?;
            others.push(server_certificate(&certificate, &key, now)?);
            texts.extend([certificate.text, key.text]);
        }
        Ok(Some(Self {
            default,
            others,
            authorities,
            texts,
        }))
    }

    fn authorities_text(&self) -> &[u8] {
        &self.texts[0]
    }

    fn acceptor(&self, tickets: &TicketKeys) -> Result<Acceptor, BootError> {
        let authorities = self.authorities.clone();
        let acceptor = Acceptor::new(&self.default, &self.others, authorities, tickets.clone());
        acceptor.map_err(|source| BootError::Pem {
            key: "tls.certificate".into(),
            at: None,
            path: String::new(),
            source: source.into(),
            help: "please report this".into(),
        })
    }
}

fn server_certificate(
    certificate: &Pem,
    key: &Pem,
    now: UnixMillis,
) -> Result<ServerCertificate, BootError> {
    let read = ServerCertificate::from_pem(&certificate.text, &key.text);
    let read = read.map_err(|error| refused(error, certificate, key))?;
    let valid = read.check_valid(now);
    valid.map_err(|error| {
        let help = "renew it; if it is good elsewhere, look at the clock of this machine";
        certificate.refused(error, help)
    })?;
    Ok(read)
}

/// The wall time.
pub(super) fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |it| i64::try_from(millis(it)).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    /// A folder with certificates, and a config that names them.
    struct Ground {
        folder: tempfile::TempDir,
        config: Arc<Config>,
    }

    /// A certificate that is valid until this year, and its key.
    fn made(until: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["x".into()]).expect("a name");
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    impl Ground {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| folder.path().join(name).display().to_string();
            let text = format!(
                "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\n\
                 client_ca = \"{}\"\nclient_auth = \"optional\"\n\
                 [[certificate]]\ncertificate = \"{}\"\nkey = \"{}\"\n\
                 [[stream]]\nroute = \"GET /x\"\ntopic = \"x\"\n",
                path("a.pem"),
                path("a.key"),
                path("ca.pem"),
                path("b.pem"),
                path("b.key"),
            );
            let file = ConfigFile {
                name: "gateway.toml".into(),
                text,
            };
            let sources = Sources {
                file: Some(file),
                cpus: 1,
                ..Sources::default()
            };
            let loaded = load(sources).map_err(|report| report.render(false));
            let config = Arc::new(loaded.expect("a good config").config);
            let ground = Self { folder, config };
            ground.certificate("a", 2100);
            ground.certificate("b", 2099);
            ground.write("ca.pem", &made(2100).0);
            ground
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).expect("write");
        }

        fn certificate(&self, name: &str, until: i32) {
            let (chain, key) = made(until);
            self.write(&format!("{name}.pem"), &chain);
            self.write(&format!("{name}.key"), &key);
        }

        fn tls(&self) -> ServerTls {
            let tls = ServerTls::new(&self.config).expect("good files");
            tls.expect("the config has HTTPS")
        }

        /// Why the files are refused, without the folder's path.
        fn said(&self) -> String {
            let error = refusals(&self.config).next().expect("it is refused");
            assert_eq!(error.exit_code(), 78, "{error}");
            let folder = format!("{}/", self.folder.path().display());
            error.to_string().replace(&folder, "@")
        }
    }

    #[test]
    fn files_are_renewed_as_a_whole_or_not_at_all() {
        let ground = Ground::new();
        let mut tls = ground.tls();
        assert_eq!(tls.paths().len(), 5);
        assert_eq!(tls.first_to_end().0, UnixMillis(4_070_908_800_000));
        assert_eq!(tls.renew().expect("good"), Renewed::Unchanged);
        ground.certificate("b", 2098);
        assert_eq!(tls.renew().expect("good"), Renewed::Changed);
        assert_eq!(tls.first_to_end().0, UnixMillis(4_039_372_800_000));
        // One bad file of five, and a certificate without its key.
        for (name, text) in [("a.key", "junk"), ("ca.pem", ""), ("b.pem", &*made(2100).0)] {
            ground.certificate("a", 2097);
            let good = std::fs::read_to_string(ground.folder.path().join(name)).expect("read");
            ground.write(name, text);
            tls.renew().expect_err(name);
            assert_eq!(
                tls.first_to_end().0,
                UnixMillis(4_039_372_800_000),
                "{name}"
            );
            ground.write(name, &good);
        }
        assert_eq!(tls.renew().expect("good"), Renewed::Changed);
    }

    #[test]
    fn tickets_survive_new_certificates_and_not_new_authorities() {
        use rustls::server::ProducesTickets as _;
        let ground = Ground::new();
        let mut tls = ground.tls();
        let ticket = tls.tickets.encrypt(b"a session").expect("a ticket");
        ground.certificate("a", 2100);
        tls.renew().expect("good");
        tls.rotate_tickets().expect("there is entropy");
        assert!(tls.tickets.decrypt(&ticket).is_some());
        ground.write("ca.pem", &made(2100).0);
        tls.renew().expect("good");
        assert_eq!(tls.tickets.decrypt(&ticket), None);
    }

    #[test]
    fn each_file_that_cannot_be_used_is_named_with_its_key_and_the_fix() {
        let other = made(2100);
        let cases = [
            (
                "a.pem",
                Some("junk"),
                "tls.certificate: @a.pem: no PEM certificate",
            ),
            (
                "a.pem",
                None,
                "tls.certificate: can't read @a.pem: No such file",
            ),
            ("a.key", Some("junk"), "tls.key: @a.key: no PEM private key"),
            ("a.key", None, "tls.key: can't read @a.key: No such file"),
            ("a.key", Some(&*other.1), "tls.key: @a.key: "),
            ("ca.pem", Some("junk"), "tls.client_ca: @ca.pem: no PEM"),
            ("ca.pem", None, "tls.client_ca: can't read @ca.pem"),
            (
                "b.pem",
                Some("junk"),
                "[[certificate]] certificate: @b.pem: no PEM",
            ),
            ("b.key", Some(&*other.1), "[[certificate]] key: @b.key: "),
        ];
        for (name, text, wanted) in cases {
            let ground = Ground::new();
            match text {
                Some(text) => ground.write(name, text),
                None => std::fs::remove_file(ground.folder.path().join(name)).expect("remove"),
            }
            let said = ground.said();
            assert!(said.starts_with(wanted), "{wanted}: {said}");
            let is_other = text == Some(&*other.1);
            let pem = name.replace("key", "pem");
            let names_both = said.contains(&format!("first certificate of @{pem}"));
            assert_eq!(is_other, names_both, "{said}");
        }
        let ground = Ground::new();
        ground.certificate("a", 2020);
        let said = ground.said();
        assert!(
            said.starts_with("tls.certificate: @a.pem: it expired"),
            "{said}"
        );
        let ground = Ground::new();
        std::fs::remove_file(ground.folder.path().join("b.key")).expect("remove");
        let error = refusals(&ground.config).next().expect("it is refused");
        let reason = error.reason();
        assert!(reason.at.is_some(), "it has a place in the file");
        assert!(reason.message.contains("can't read"), "{}", reason.message);
    }
}

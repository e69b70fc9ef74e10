//! Certificates towards clients: chosen by name, renewed while clients are served, and asked of
//! clients.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::app::App;
use crate::client::{Connection, Request};
use crate::events::Events;
use crate::ground::development;

/// An authority that signs certificates of servers and of clients.
pub(super) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
pub(super) struct Signed {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate for these DNS names. The first is the common name too.
    pub(super) fn sign(&self, names: &[&str]) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let all: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(all).expect("names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts this authority, with a certificate of its own or without.
    fn client(&self, own: Option<&Signed>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes());
        roots.add(root.expect("PEM")).expect("a root");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.chain.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
                let config =
                    builder.with_client_auth_cert(vec![chain.expect("PEM")], key.expect("PEM"));
                config.expect("they match")
            }
        };
        Arc::new(config)
    }
}

/// A folder with the files of a gateway.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file by a rename, as careful programs do.
    pub(super) fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).expect("write");
        std::fs::rename(new, self.path(name)).expect("rename");
    }

    pub(super) fn certificate(&self, name: &str, signed: &Signed) {
        self.write(&format!("{name}.pem"), &signed.chain);
        self.write(&format!("{name}.key"), &signed.key);
    }

    /// The table `[tls]` with the certificate `own` and further keys.
    pub(super) fn table(&self, more: &str) -> String {
        let (chain, key) = (self.path("own.pem"), self.path("own.key"));
        format!(
            "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\n{more}",
            chain.display(),
            key.display()
        )
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects, and completes the handshake.
fn handshake(address: SocketAddr, client: &Arc<ClientConfig>, name: &str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(client.clone(), name).expect("a session");
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends one request on a connection of its own. An error is one of the connection.
fn try_get(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    let mut stream = handshake(address, client, "localhost")?;
    stream.write_all(b"GET /items/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The certificate that the server shows.
fn shown(address: SocketAddr, client: &Arc<ClientConfig>, name: &str) -> Option<Vec<u8>> {
    let stream = handshake(address, client, name).ok()?;
    Some(stream.conn.peer_certificates()?[0].to_vec())
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_get_the_certificate_of_the_host_that_they_ask_for() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let own = authority.sign(&["localhost"]);
    folder.certificate("own", &own);
    folder.certificate("shop", &authority.sign(&["shop.example", "*.shop.example"]));
    folder.certificate("api", &authority.sign(&["api.shop.example"]));
    let mut settings = folder.table("");
    for name in ["shop", "api"] {
        let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
        settings.push_str(&format!(
            "[[certificate]]\ncertificate = \"{}\"\nkey = \"{}\"\n",
            folder.path(&chain).display(),
            folder.path(&key).display()
        ));
    }
    let app = App::new(development());
    let gateway = app.gateway_with(1, &settings);
    let (address, client) = (gateway.tls_address(), authority.client(None));
    let der = |name: &str| {
        let text = std::fs::read(folder.path(name)).expect("read");
        CertificateDer::from_pem_slice(&text).expect("PEM").to_vec()
    };
    for (host, file) in [
        ("localhost", "own.pem"),
        ("shop.example", "shop.pem"),
        ("WWW.shop.example", "shop.pem"),
        ("api.shop.example", "api.pem"),
    ] {
        assert_eq!(shown(address, &client, host), Some(der(file)), "{host}");
    }
    // The default certificate is not for these, so the client gives up.
    for host in ["other.example", "a.b.shop.example"] {
        assert_eq!(shown(address, &client, host), None, "{host}");
    }
}

/// Ten renewals under load: no request fails, and connections that are open stay open.
#[test]
fn certificates_are_renewed_under_load_and_no_request_fails() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.certificate("own", &authority.sign(&["localhost"]));
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = app.gateway_with(2, &folder.table(""));
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let (address, client) = (gateway.tls_address(), authority.client(None));
    let stream = handshake(address, &client, "localhost").expect("connected");
    let stream = Connection::over(Box::new(stream));
    let mut events = Events::over(stream, Request::get("/events/live"));
    events.wait_for_id();
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // A client without tickets: each connection makes a full handshake.
            let mut config = (*client).clone();
            config.resumption = rustls::client::Resumption::disabled();
            let config = Arc::new(config);
            let (stop, asked) = (&stop, &asked);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = try_get(address, &config).expect("no request fails");
                    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for renewal in 1..=10 {
            let next = authority.sign(&["localhost"]);
            folder.certificate("own", &next);
            let der = CertificateDer::from_pem_slice(next.chain.as_bytes());
            let der = der.expect("PEM").to_vec();
            wait("the new certificate is shown", || {
                shown(address, &client, "localhost").as_ref() == Some(&der)
            });
            wait("it is counted", || {
                gateway.metric("sluicegate_tls_renewals_total", "") >= f64::from(renewal)
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    let asked = asked.load(Ordering::Relaxed);
    println!("10 renewals: {asked} requests on connections of their own, 0 failed");
    assert!(asked >= 100, "{asked} requests are no load");
    app.produce(&app.events).partition(0).values(["still here"]);
    assert_eq!(events.next().data, "still here");
    assert_eq!(
        gateway.metric("sluicegate_tls_renewals_refused_total", ""),
        0.0
    );
}

#[test]
fn files_that_cannot_be_used_change_nothing_and_are_reported() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let first = authority.sign(&["localhost"]);
    folder.certificate("own", &first);
    let app = App::new(development());
    let gateway = app.gateway_with(1, &folder.table(""));
    let (address, client) = (gateway.tls_address(), authority.client(None));
    let before = shown(address, &client, "localhost").expect("a certificate");
    // A key without its certificate.
    folder.write("own.key", &authority.sign(&["localhost"]).key);
    let detail = |it: &crate::client::Response| {
        let text = it.text();
        it.status == 200 && text.contains("\"degraded\":true") && text.contains("tls.key")
    };
    gateway.wait_admin("/readyz", detail);
    gateway.wait_said_text("TLS files are not renewed, the earlier ones stay in use: tls.key");
    assert_eq!(shown(address, &client, "localhost").as_ref(), Some(&before));
    assert_eq!(
        gateway.metric("sluicegate_tls_renewals_refused_total", ""),
        1.0
    );
    // SIGHUP reads the files too, and finds them as bad.
    gateway.signal(Signal::HUP);
    wait("SIGHUP is counted", || {
        gateway.metric("sluicegate_tls_renewals_refused_total", "") == 2.0
    });
    gateway.wait_said_text("settings, routes and limits need a restart");
    folder.write("own.key", &first.key);
    gateway.wait_admin("/readyz", |it| it.text().contains("\"degraded\":false"));
    gateway.signal(Signal::HUP);
    gateway.wait_said_text("TLS certificates, keys and authorities are unchanged");
    assert_eq!(gateway.metric("sluicegate_tls_renewals_total", ""), 0.0);
    let expiry = gateway.metric("sluicegate_tls_certificate_expiry_timestamp_seconds", "");
    assert!(expiry > 4e9, "{expiry}");
}

/// The kernel gives each connection to either shard. Sessions are resumed on both.
#[test]
fn a_session_is_resumed_on_any_shard() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.certificate("own", &authority.sign(&["localhost"]));
    let app = App::new(development());
    let gateway = app.gateway_with(2, &folder.table(""));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes());
        roots.add(root.expect("PEM")).expect("a root");
        let client = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Arc::new(client);
        let mut kinds = Vec::new();
        for _ in 0..32 {
            use std::io::{Read as _, Write as _};
            let address = gateway.tls_address();
            let mut stream = handshake(address, &client, "localhost").expect("connected");
            kinds.push(stream.conn.handshake_kind().expect("complete"));
            // A ticket of TLS 1.3 comes after the handshake, with the answer at the latest.
            let request = b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(request).expect("room");
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let resumed = kinds.iter().filter(|it| **it == HandshakeKind::Resumed);
        assert_eq!((kinds[0], resumed.count()), (HandshakeKind::Full, 31));
    }
}

#[test]
fn clients_need_a_certificate_of_an_authority_that_the_config_names() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    folder.certificate("own", &authority.sign(&["localhost"]));
    folder.write("clients.pem", authority.pem());
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let ca = folder.path("clients.pem");
    let with = |auth: &str| {
        let more = format!(
            "client_ca = \"{}\"\nclient_auth = \"{auth}\"\n",
            ca.display()
        );
        let gateway = app.gateway_with(1, &folder.table(&more));
        gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
        gateway
    };
    let (own, foreign) = (authority.sign(&["till"]), other.sign(&["till"]));
    for (auth, without) in [("required", false), ("optional", true)] {
        let gateway = with(auth);
        let get = |own| try_get(gateway.tls_address(), &authority.client(own));
        let answer = get(Some(&own)).expect("it is trusted");
        assert!(answer.ends_with(b"1"), "{answer:?}");
        assert_eq!(get(None).is_ok(), without, "{auth}");
        assert!(get(Some(&foreign)).is_err(), "{auth}");
    }
}

/// Streams, idle connections and HTTP/2 connections of a client whose authority is removed are
/// closed. Others stay, and a ticket is no way back.
#[test]
fn a_removed_authority_closes_its_connections() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    folder.certificate("own", &authority.sign(&["localhost"]));
    folder.write(
        "clients.pem",
        &format!("{}{}", authority.pem(), other.pem()),
    );
    let app = App::new(development());
    let more = format!(
        "client_ca = \"{}\"\nclient_auth = \"optional\"\n",
        folder.path("clients.pem").display()
    );
    let gateway = app.gateway_with(2, &folder.table(&more));
    let address = gateway.tls_address();
    let (kept, removed) = (authority.sign(&["till"]), other.sign(&["till"]));
    let stream = |client: &Arc<ClientConfig>| {
        let stream = handshake(address, client, "localhost").expect("trusted");
        let connection = Connection::over(Box::new(stream));
        let mut events = Events::over(connection, Request::get("/events/live"));
        events.wait_for_id();
        events
    };
    let [without, with, gone] = [None, Some(&kept), Some(&removed)].map(|it| authority.client(it));
    let mut staying = [&without, &with].map(stream);
    let mut ending: Vec<_> = (0..20).map(|_| stream(&gone)).collect();
    let mut idle = handshake(address, &gone, "localhost").expect("trusted");
    folder.write("clients.pem", authority.pem());
    wait("the authorities are renewed", || {
        gateway.metric("sluicegate_tls_renewals_total", "") == 1.0
    });
    let renewed = Instant::now();
    for events in &mut ending {
        assert_eq!(events.next_within(Duration::from_secs(20)), None);
        assert!(events.ended());
    }
    let closed = std::io::Read::read(&mut idle, &mut [0; 16]);
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    let took = renewed.elapsed();
    println!("20 streams of a removed authority were closed {took:?} after the renewal");
    let revoked = gateway.metric("sluicegate_streams_ended_total", "revoked");
    assert_eq!(revoked, 20.0);
    app.produce(&app.events).partition(0).values(["still here"]);
    for events in &mut staying {
        assert_eq!(events.next().data, "still here");
    }
    // The client has a ticket of its earlier session.
    assert!(
        handshake_and_ask(address, &gone).is_err(),
        "a ticket is no way around"
    );
    assert!(handshake_and_ask(address, &with).is_ok());
}

fn handshake_and_ask(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<()> {
    let answer = try_get(address, client)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

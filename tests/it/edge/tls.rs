//! Tests over TLS, with rustls as the client and a certificate created for the test.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::pressure::is_closed_under;
use crate::app::App;
use crate::client::{Connection, PATIENCE, Request, Transport};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::development;
use crate::service::Reply;

impl Transport for StreamOwned<ClientConnection, TcpStream> {
    fn wait_at_most(&mut self, time: Duration) {
        self.sock.wait_at_most(time);
    }
}

fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> Connection {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(client.clone(), name).expect("a session");
    let socket = TcpStream::connect(address).expect("connect");
    Connection::over(Box::new(StreamOwned::new(session, socket)))
}

/// A certificate for `localhost`, in files, and a client that trusts it.
pub(super) struct Identity {
    folder: tempfile::TempDir,
    client: Arc<ClientConfig>,
}

impl Identity {
    pub(super) fn new() -> Self {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("write a PEM file");
        };
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        let mut roots = RootCertStore::empty();
        roots
            .add(made.cert.der().clone())
            .expect("our own certificate");
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            folder,
            client: Arc::new(client),
        }
    }

    /// The table `[tls]` with additional settings.
    pub(super) fn settings(&self, more: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{folder}/cert.pem\"\n\
             key = \"{folder}/key.pem\"\n{more}"
        )
    }

    /// The first bytes that a client sends.
    pub(super) fn client_hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        let mut session = self.session();
        session.write_tls(&mut hello).expect("memory");
        hello
    }

    fn session(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(self.client.clone(), name).expect("a session")
    }
}

/// The time for a handshake is limited, however its bytes arrive.
#[test]
fn a_handshake_that_does_not_end_is_closed_in_time() {
    let identity = Identity::new();
    let app = App::new(development());
    let settings = identity.settings("handshake_timeout = \"500ms\"\n");
    let gateway = app.gateway_with(1, &settings);
    let hello = identity.client_hello();
    // Nothing at all, half a ClientHello and silence, and one byte after the other.
    for sent in [0, hello.len() / 2, 1] {
        let mut socket = TcpStream::connect(gateway.tls_address()).expect("connect");
        socket.write_all(&hello[..sent]).expect("room");
        let told = read_to_end(&mut socket);
        // No more than a closing alert.
        assert!(told.len() < 16, "{told:?}");
    }
    let mut socket = TcpStream::connect(gateway.tls_address()).expect("connect");
    assert!(
        is_closed_under(&mut socket, &hello),
        "one byte after the other"
    );
    // Send a ClientHello and then nothing.
    let mut socket = TcpStream::connect(gateway.tls_address()).expect("connect");
    socket.write_all(&hello).expect("room");
    assert!(
        read_to_end(&mut socket).len() > 16,
        "it answers, and closes"
    );
}

/// The bytes until the gateway closes.
fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).expect("socket");
    let mut all = Vec::new();
    socket.read_to_end(&mut all).expect("closed in time");
    all
}

/// Part of a TLS record is not a request: the idle time continues.
#[test]
fn bytes_of_a_record_that_never_ends_keep_no_connection() {
    let identity = Identity::new();
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let settings = identity.settings("[http]\nidle_timeout = \"500ms\"\n");
    let gateway = app.gateway_with(1, &settings);
    let socket = TcpStream::connect(gateway.tls_address()).expect("connect");
    let mut stream = StreamOwned::new(identity.session(), socket);
    let request = Request::get("/items/a").bytes();
    stream.write_all(&request).expect("room");
    assert!(stream.read(&mut [0; 4096]).expect("an answer") > 0);
    // Application data (RFC 8446 5.1) of 16 KiB, of which little comes.
    let mut record = vec![23, 3, 3, 0x40, 0];
    record.resize(5 + 0x4000, 0);
    assert!(is_closed_under(&mut stream.sock, &record), "it is kept");
}

/// A TLS stream has ciphertext that waits for its socket, up to 64 KiB. A reader that takes it in
/// parts is slow, not stalled.
#[test]
fn a_tls_stream_that_reads_slowly_is_not_cut() {
    let identity = Identity::new();
    let app = App::new(development());
    let more = "[http]\nwrite_timeout = \"2s\"\n[streams]\nsend_buffer_bytes = \"16KiB\"\n";
    let settings = identity.settings(more);
    let gateway = app.gateway_with(1, &settings);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    // A small receive buffer, as small as the gateway's send buffer.
    socket.set_recv_buffer_size(4096).expect("a buffer");
    socket
        .connect(&gateway.tls_address().into())
        .expect("connect");
    let mut stream = StreamOwned::new(identity.session(), TcpStream::from(socket));
    let request = Request::get("/events/live").bytes();
    stream.write_all(&request).expect("room");
    assert!(stream.read(&mut [0; 512]).expect("a head") > 0);
    let value = "v".repeat(20_000);
    let produce = app.produce(&app.events).partition(0);
    produce.values(std::iter::repeat_n(value.as_str(), 60));
    // About 24 kB/s, for five times the timeout. The ciphertext alone takes longer than the
    // timeout.
    let mut buffer = [0; 2400];
    let began = Instant::now();
    let mut got = 0;
    while began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(100));
        let count = stream.sock.read(&mut buffer).expect("it goes on");
        assert!(count > 0, "cut after {got} bytes in {:?}", began.elapsed());
        got += count;
    }
    assert_eq!(gateway.metric("sluicegate_streams_open", ""), 1.0);
}

#[test]
fn commands_queries_and_streams_over_tls() {
    let identity = Identity::new();
    let app = App::new(development());
    let _service = app.service(|_| Some(Reply::new(201, "done")));
    let big = "x".repeat(300_000);
    app.produce(&app.items).keyed([("a", "1"), ("big", &big)]);
    let config = app.config(2, &identity.settings(""));
    let gateway = Gateway::launch_with(&config, &["--drain=1s"]);
    gateway.wait_serving();
    let (client, address) = (identity.client.clone(), gateway.tls_address());

    let mut connection = connect(address, &client);
    assert_eq!(connection.ask(&Request::get("/items/a")).text(), "1");
    assert_eq!(connection.ask(&Request::get("/items/big")).text(), big);
    let order = Request::post("/items/a/orders", "{}");
    assert_eq!(connection.ask(&order).text(), "done");
    let pipeline: Vec<u8> = (0..100)
        .flat_map(|_| Request::get("/items/a").bytes())
        .collect();
    connection.send(&pipeline);
    (0..100).for_each(|_| assert_eq!(connection.response(false).text(), "1"));

    let mut stream = Events::over(connect(address, &client), Request::get("/events/live"));
    let place = stream.wait_for_id();
    let values: Vec<_> = (0..200)
        .map(|n| format!("{n} {}", "y".repeat(2_000)))
        .collect();
    let produce = app.produce(&app.events).partition(0);
    produce.values(values.iter().map(String::as_str));
    for value in &values {
        assert_eq!(&stream.next().data, value);
    }
    // An id from TLS is valid on plain HTTP too.
    let mut plain = Events::resume(gateway.address(), "/events/live", &place);
    assert_eq!(plain.next().data, values[0]);

    // Plain HTTP to the TLS port ends, and nothing else does.
    let mut wrong = Connection::open(address);
    wrong.send(&Request::get("/items/a").bytes());
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while wrong.try_more(until) == Ok(true) {}
    assert_eq!(connection.ask(&Request::get("/items/a")).text(), "1");

    gateway.terminate();
    assert_eq!(stream.next_within(PATIENCE), None);
    assert!(stream.ended_whole(), "the last chunk comes by TLS too");
}

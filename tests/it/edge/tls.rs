//! The same over TLS: rustls as the client, a certificate made for the test.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

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

#[test]
fn commands_queries_and_streams_over_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&certificate, made.cert.pem()).expect("write the certificate");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("write the key");
    let app = App::new(development());
    let _service = app.service(|_| Some(Reply::new(201, "done")));
    let big = "x".repeat(300_000);
    app.produce(&app.items).keyed([("a", "1"), ("big", &big)]);
    let settings = format!(
        "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let gateway = Gateway::launch_with(&app.config(2, &settings), &["--drain=1s"]);
    gateway.wait_serving();
    let mut roots = RootCertStore::empty();
    roots
        .add(made.cert.der().clone())
        .expect("our own certificate");
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, address) = (Arc::new(client), gateway.tls_address());

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
    // An id from here is as good there: transports share it.
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

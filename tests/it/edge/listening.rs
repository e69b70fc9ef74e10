//! When a gateway listens, and whether it shares its port.

use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::app::App;
use crate::client::{PATIENCE, Request, ask};
use crate::events::Events;
use crate::gateway::{self, Gateway, config_file, run_to_end};
use crate::ground::{Ground, development, random, unique};
use sluicegate::broker::Settings;
use sluicegate::demo::listener::BrokerHandle;

/// A port that no process uses now.
fn free_port() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("it is bound")
}

/// Runs a second gateway with the first one's config, on its port. Returns its exit code and
/// output.
fn second(config: &str, address: SocketAddr) -> (i32, String) {
    let (_folder, path) = config_file(config);
    let path = path.to_str().expect("UTF-8");
    let listen = format!("--listen={address}");
    let (code, _, said) = run_to_end(&["run", "--config", path, &listen], &[]);
    (code, said)
}

#[test]
fn a_second_process_on_a_port_is_refused_whatever_the_first_does() {
    let app = App::new(development());
    let config = app.config(2, "");
    // The first gateway serves, shares its port, or waits for its brokers.
    let waiting = gateway::settings("127.0.0.1:1", 1)
        + "\n[[query]]\nroute = \"GET /x/{id}\"\ntopic = \"t\"\nkey = \"{path.id}\"\n";
    for (config, flags, says) in [
        (&config, &[][..], "serving"),
        (&config, &["--reuse-port"], "serving"),
        (&waiting, &[], "listening"),
    ] {
        let first = Gateway::launch_with(config, flags);
        first.wait_said_text(says);
        let address = first.addresses_said(says)[0];
        let (code, said) = second(config, address);
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(&address.to_string()), "{said}");
        assert!(
            said.contains("in use") && said.contains("reuse-port"),
            "{said}"
        );
    }
}

#[test]
fn two_processes_share_a_port_if_they_say_so() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let config = app.config(2, "");
    let first = Gateway::launch_with(&config, &["--reuse-port"]);
    first.wait_serving();
    let listen = format!("--listen={}", first.address());
    let second = Gateway::launch_with(&config, &["--reuse-port", &listen]);
    second.wait_serving();
    assert_eq!(first.address(), second.address());
    for gateway in [&first, &second] {
        gateway.wait_admin("/readyz", |it| it.status == 200);
    }
    first.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let accepted = |gateway: &Gateway| gateway.metric("sluicegate_connections_accepted_total", "");
    for _ in 0..64 {
        assert_eq!(first.get("/items/a").text(), "1");
    }
    assert!(accepted(&first) > 0.0 && accepted(&second) > 0.0);
}

#[test]
fn addresses_that_overlap_are_one_processs_own() {
    let app = App::new(development());
    let port = free_port().port();
    let config = app.config(2, "").replacen(
        "listen = [\"127.0.0.1:0\"]",
        &format!("auth = \"none\"\nlisten = [\"0.0.0.0:{port}\", \"[::]:{port}\"]"),
        1,
    );
    let gateway = Gateway::launch(&config);
    gateway.wait_serving();
    let get = Request::get("/items/none");
    assert_eq!(ask(([127, 0, 0, 1], port).into(), &get).status, 404);
    let loopback = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port);
    assert_eq!(ask(loopback, &get).status, 404);
}

/// An address of the second process that overlaps one of its own does not hide the first process.
#[test]
fn addresses_that_overlap_are_refused_if_another_process_has_the_port() {
    let app = App::new(development());
    let first = Gateway::start(&app.config(2, ""));
    let port = first.address().port();
    for listen in [
        format!("127.0.0.2:{port},0.0.0.0:{port}"),
        format!("127.0.0.2:{port},[::]:{port}"),
        format!("0.0.0.0:{port},[::]:{port}"),
    ] {
        let (_folder, path) = config_file(&app.config(2, ""));
        let path = path.to_str().expect("UTF-8");
        let listen = format!("--listen={listen}");
        let line = ["run", "--config", path, "--auth=none", &listen];
        let (code, _, said) = run_to_end(&line, &[]);
        assert_eq!(code, 69, "{listen}: {said}");
        assert!(said.contains("in use"), "{listen}: {said}");
    }
}

/// Every kind of route while its topics can't be read yet: the gateway listens and reports why.
#[test]
fn a_gateway_listens_at_once_and_says_that_its_routes_are_not_ready() {
    let broker_at = free_port();
    let topic = unique("late");
    let config = gateway::settings(&broker_at.to_string(), 2)
        + &format!(
            "\n[[query]]\nroute = \"GET /x/{{id}}\"\ntopic = \"{topic}\"\nkey = \"{{path.id}}\"\n\
             \n[[query]]\nroute = \"GET /x\"\ntopic = \"{topic}\"\n\
             \n[[stream]]\nroute = \"GET /events\"\ntopic = \"{topic}\"\n\
             \n[[stream]]\nroute = \"GET /events/{{id}}\"\ntopic = \"{topic}\"\n\
             filter.key = \"{{path.id}}\"\n\
             \n[[command]]\nname = \"do\"\nroute = \"POST /x\"\ntopic = \"{topic}-c\"\nreplies = \"{topic}-r\"\n"
        );
    let gateway = Gateway::launch(&config);
    gateway.wait_said_text("listening");
    let address = gateway.addresses_said("listening")[0];
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    let requests = [
        Request::get("/x/a"),
        Request::get("/x"),
        Request::post("/x", "{}"),
    ];
    for request in &requests {
        let answer = ask(address, request);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (503, "not-ready")
        );
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let detail = answer.json()["detail"].clone();
        assert!(
            !detail.as_str().unwrap_or_default().is_empty(),
            "{answer:?}"
        );
    }
    let sent_away = |address| {
        for target in ["/events", "/events/a"] {
            let mut stream = Events::open(address, target);
            assert_eq!(stream.next_within(PATIENCE), None);
            assert!(stream.ended() && stream.retry().is_some(), "{target}");
        }
    };
    sent_away(address);
    // The broker starts, but the topic is missing: another cause, and a stream may still reconnect.
    let broker = BrokerHandle::start(Settings::default(), random(), broker_at).expect("the port");
    gateway.wait_until_at(address, &requests[0], |it| {
        it.status == 503 && it.problem() == "topic-unavailable"
    });
    sent_away(address);
    let ground = Ground::at(&broker.bootstrap());
    ground.named_topic(&topic, 2, &[("cleanup.policy", "compact")]);
    ground.named_topic(&format!("{topic}-c"), 1, &[]);
    ground.named_topic(&format!("{topic}-r"), 1, &[]);
    gateway.wait_serving();
    assert_eq!(gateway.address(), address);
    gateway.wait_until(&requests[0], |it| it.status == 404);
    let mut stream = Events::open(address, "/events");
    stream.wait_for_id();
}

/// The kernel would give a process that shares its port a share of the clients.
#[test]
fn a_gateway_that_shares_its_port_listens_when_it_can_answer() {
    let address = free_port();
    let broker_at = free_port();
    let topic = unique("late");
    let config = gateway::settings(&broker_at.to_string(), 2)
        + &format!(
            "\n[[query]]\nroute = \"GET /x/{{id}}\"\ntopic = \"{topic}\"\nkey = \"{{path.id}}\"\n"
        );
    let listen = format!("--listen={address}");
    let gateway = Gateway::launch_with(&config, &["--reuse-port", &listen]);
    gateway.wait_admin("/readyz", |it| it.text().contains("kafka"));
    TcpStream::connect(address).expect_err("nobody listens");
    let broker = BrokerHandle::start(Settings::default(), random(), broker_at).expect("the port");
    let ground = Ground::at(&broker.bootstrap());
    ground.named_topic(&topic, 1, &[("cleanup.policy", "compact")]);
    gateway.wait_serving();
    assert_eq!(gateway.get("/x/none").status, 404);
}

/// A client of a Unix socket.
impl crate::client::Transport for std::os::unix::net::UnixStream {
    fn wait_at_most(&mut self, time: std::time::Duration) {
        self.set_read_timeout(Some(time)).expect("a socket");
    }
}

fn get_unix(path: &std::path::Path, target: &str) -> crate::client::Response {
    let socket = std::os::unix::net::UnixStream::connect(path).expect("it listens");
    let mut connection = crate::client::Connection::over(Box::new(socket));
    connection.ask(&Request::get(target))
}

/// Clients of a Unix socket reach all shards, and the file is there as long as the gateway listens.
#[test]
fn unix_sockets_are_listened_on_and_left_tidy() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let config = app
        .config(2, "")
        .replacen("listen = [\"127.0.0.1:0\"]", &listen, 1);
    let mut first = Gateway::launch(&config);
    first.wait_serving();
    first.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    for _ in 0..64 {
        assert_eq!(get_unix(&path, "/items/a").text(), "1");
    }
    let socket = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    let connection = crate::client::Connection::over(Box::new(socket));
    let mut events = Events::over(connection, Request::get("/events/live"));
    events.wait_for_id();
    app.produce(&app.events).partition(0).values(["by a path"]);
    assert_eq!(events.next().data, "by a path");

    // A second process finds it in use.
    let (_folder, file) = config_file(&config);
    let file = file.to_str().expect("UTF-8");
    let (code, _, said) = run_to_end(&["run", "--config", file], &[]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("unix:") && said.contains("in use"), "{said}");

    // After a crash the file is left behind, and the next process takes its place.
    first.kill_9();
    assert!(path.exists());
    let mut second = Gateway::launch(&config);
    second.wait_serving();
    assert_eq!(get_unix(&path, "/items/none").status, 404);
    second.terminate();
    assert_eq!(second.wait().code(), Some(0));
    assert!(!path.exists(), "an orderly end removes it");
}

/// With `--reuse-port`, the next process takes the path when it is ready, and no request fails.
#[test]
fn unix_sockets_pass_from_one_process_to_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let listen = format!("listen = [\"unix:{}\"]", path.display());
    let config = app
        .config(1, "")
        .replacen("listen = [\"127.0.0.1:0\"]", &listen, 1);
    let mut first = Gateway::launch_with(&config, &["--reuse-port"]);
    first.wait_said_text("serving");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut asked = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(get_unix(&path, "/items/a").text(), "1");
                asked += 1;
            }
            asked
        });
        let second = Gateway::launch_with(&config, &["--reuse-port"]);
        second.wait_said_text("serving");
        first.terminate();
        assert_eq!(first.wait().code(), Some(0));
        std::thread::sleep(std::time::Duration::from_millis(200));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let asked = asks.join().expect("no request fails");
        assert!(asked > 10, "{asked} requests are no load");
        assert!(path.exists(), "it is the second's");
        println!("{asked} requests by a Unix socket over two processes, 0 failed");
    });
}

/// The header of the PROXY protocol comes before everything, in any pieces.
#[test]
fn unix_sockets_with_a_proxy_header() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let listen = format!(
        "listen = [\"127.0.0.1:0\", \"unix:{} proxy_protocol\"]",
        path.display()
    );
    let more = "[tls]\nhandshake_timeout = \"500ms\"\n";
    let config = app
        .config(1, "")
        .replacen("listen = [\"127.0.0.1:0\"]", &listen, 1)
        + more;
    let gateway = Gateway::start(&config);
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend_from_slice(&[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb]);
    let request = b"GET /items/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let whole = [&header[..], request].concat();
    let talk = |pieces: &[&[u8]]| {
        let mut socket = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        for piece in pieces {
            let _ = socket.write_all(piece);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8(answer).expect("UTF-8")
    };
    assert!(talk(&[&whole]).starts_with("HTTP/1.1 200 "));
    for at in 0..=header.len() + 1 {
        let answer = talk(&[&whole[..at], &whole[at..]]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "cut at {at}: {answer}");
    }
    // No header, another version, and a header that never ends: closed without a word.
    assert_eq!(talk(&[request]), "");
    assert_eq!(
        talk(&[b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n", request]),
        ""
    );
    assert_eq!(talk(&[&header[..20]]), "");
}

#[test]
fn localhost_is_both_loopback_addresses() {
    let app = App::new(development());
    let port = free_port().port();
    let listen = format!("listen = [\"localhost:{port}\"]");
    let config = app
        .config(1, "")
        .replacen("listen = [\"127.0.0.1:0\"]", &listen, 1);
    let gateway = Gateway::launch(&config);
    gateway.wait_serving();
    let get = Request::get("/items/none");
    assert_eq!(ask(([127, 0, 0, 1], port).into(), &get).status, 404);
    if TcpListener::bind("[::1]:0").is_ok() {
        let loopback = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port);
        assert_eq!(ask(loopback, &get).status, 404);
    }
}

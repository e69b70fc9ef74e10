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

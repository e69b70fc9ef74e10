//! Limits of single clients, compression and panics over HTTP/2: as over HTTP/1.1, and each ends
//! its stream only.

use std::io::Read as _;

use super::client::Client;
use crate::app::App;
use crate::client::Request;
use crate::gateway::Gateway;
use crate::ground::development;

#[test]
fn a_rate_holds_over_both_protocols_and_the_connection_goes_on() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let config = app.config(2, "");
    let route = "route = \"GET /items/{id}\"\n";
    assert!(config.contains(route));
    let rated = format!("{route}rate = {{ requests = 3, per = \"60s\" }}\n");
    let gateway = Gateway::start(&config.replace(route, &rated));
    gateway.wait_until(&Request::get("/items"), |it| it.text() == "[1]\n");
    let mut client = Client::open(gateway.address());
    for _ in 0..2 {
        let answer = client.get("/items/a");
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("ratelimit-policy"),
            Some("\"client\";q=3;w=60")
        );
    }
    assert_eq!(
        gateway.get("/items/a").status,
        200,
        "the third, over HTTP/1.1"
    );
    let answer = client.get("/items/a");
    assert_eq!(
        (answer.status, &*answer.problem()),
        (429, "too-many-requests")
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(client.get("/items").status, 200, "another route");
}

#[test]
fn streams_of_one_client_are_counted_over_its_connections() {
    let app = App::new(development());
    let gateway = app.gateway_with(2, "[streams]\nclient_streams_max = 2\n");
    let open = Request::get("/events/live");
    let mut clients = [(); 2].map(|()| Client::open(gateway.address()));
    let mut streams = Vec::new();
    for client in &mut clients {
        let mut stream = client.stream(&open);
        client.read_to(&mut stream, "id: ");
        streams.push(stream);
    }
    let refused = clients[0].stream(&open);
    assert_eq!(refused.status, 200);
    let text = clients[0].read_to_end(refused).expect("an end in order");
    assert!(
        text.starts_with("retry: ") && text.ends_with("\n\n"),
        "{text}"
    );
    let count = gateway.metric("sluicegate_streams_refused_total", "client_streams");
    assert!((count - 1.0).abs() < 0.1, "{count}");
    // The place of a stream that is reset is free again.
    streams.truncate(1);
    gateway.wait_admin("/status", |_| gateway.status_sum("streams") == 1);
    let mut again = clients[0].stream(&open);
    clients[0].read_to(&mut again, "id: ");
}

#[test]
fn answers_are_compressed() {
    let app = App::new(development());
    let value = format!("\"{}\"", "text ".repeat(1000));
    app.produce(&app.items).keyed([("a", &*value)]);
    let gateway = app.gateway(2);
    gateway.wait_until(&Request::get("/items/a"), |it| it.status == 200);
    let mut client = Client::open(gateway.address());
    for (target, expected) in [
        ("/items/a", value.clone()),
        ("/items", format!("[{value}]\n")),
    ] {
        let answer = client.ask(&Request::get(target).header("accept-encoding", "gzip"));
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{target}");
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&answer.body[..]);
        decoder.read_to_string(&mut text).expect("a gzip member");
        assert_eq!(text, expected);
    }
}

/// A response that can't be encoded ends its stream with 500, and the others go on.
#[cfg(feature = "planted")]
#[test]
fn a_panic_over_one_response_ends_its_stream() {
    let app = App::new(development());
    app.produce(&app.items)
        .keyed([("good", "1"), ("bad", "planted-encode")]);
    let planted = ["env".to_owned(), "PLANT_PANICS=1".to_owned()];
    let gateway = Gateway::launch_under(&planted, &app.config(1, ""), &[]);
    gateway.wait_serving();
    gateway.wait_until(&Request::get("/items/good"), |it| it.status == 200);
    let mut client = Client::open(gateway.address());
    for n in 1..4 {
        assert_eq!(client.get("/items/bad").status, 500);
        assert_eq!(client.get("/items/good").text(), "1");
        let panics = gateway.metric("sluicegate_connection_panics_total", "");
        assert!((panics - f64::from(n)).abs() < 0.1, "{panics}");
    }
}

//! Raw requests to the page's server.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::addresses::{Addresses, GatewayAddresses};
use super::page::Page;

async fn ask(request: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let page = listener.local_addr().expect("bound");
    let gateway = |listen, admin| GatewayAddresses {
        listen: ([127, 0, 0, 1], listen).into(),
        admin: ([127, 0, 0, 1], admin).into(),
    };
    let addresses = Addresses {
        gateways: [gateway(1, 2), gateway(5, 6)],
        kafka: ([127, 0, 0, 1], 3).into(),
        page,
    };
    let server = tokio::spawn(Page::new(addresses, None, Arc::default()).serve(listener));
    let mut stream = TcpStream::connect(page).await.expect("it listens");
    let request = request.replace("HERE", &page.to_string());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .expect("closed in order");
    server.abort();
    String::from_utf8(answer).expect("UTF-8")
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn files_come_with_an_etag_and_once() {
    let scripts = [
        "/demo.js",
        "/person.js",
        "/kit.js",
        "/wire.js",
        "/sluicegate.js",
    ];
    for path in ["/", "/demo.css"].iter().chain(&scripts) {
        let get = format!("GET {path} HTTP/1.1\r\nHost: HERE\r\nConnection: close\r\n");
        let answer = ask(&format!("{get}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        let policy = header(&answer, "content-security-policy").expect("a policy");
        assert!(
            policy.contains("connect-src 'self' http://127.0.0.1:1 http://127.0.0.1:5;"),
            "{policy}"
        );
        let etag = header(&answer, "etag").expect("an etag").to_owned();
        let again = ask(&format!("{get}If-None-Match: {etag}\r\n\r\n")).await;
        assert!(again.starts_with("HTTP/1.1 304 "), "{path}: {again}");
        assert!(again.ends_with("\r\n\r\n"), "a 304 has no body: {again}");
    }
    let answer = ask("GET /no HTTP/1.1\r\nHost: HERE\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn the_page_is_told_where_things_are() {
    let answer = ask("GET /demo.json HTTP/1.1\r\nHost: HERE\r\nConnection: close\r\n\r\n").await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let addresses: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(addresses["gateways"][0]["url"], "http://127.0.0.1:1");
    assert_eq!(addresses["gateways"][1]["url"], "http://127.0.0.1:5");
    assert_eq!(addresses["gateways"][0]["state"], "apart");
    assert_eq!(addresses["can_disturb"], false);
}

#[tokio::test]
async fn only_the_page_itself_may_disturb_the_demo() {
    let table = [
        ("Host: HERE\r\n", 403),
        ("Host: HERE\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: HERE\r\nOrigin: null\r\n", 403),
        ("Host: HERE\r\nOrigin: https://HERE\r\n", 403),
        // DNS rebinding: another site's name that resolves to this host.
        ("Host: evil.example\r\nOrigin: http://evil.example\r\n", 421),
        (
            "Host: localhost.evil.example:80\r\nOrigin: http://localhost.evil.example:80\r\n",
            421,
        ),
        // The page itself. The gateway of this test was started separately.
        ("Host: HERE\r\nOrigin: http://HERE\r\n", 404),
        ("Host: localhost:1\r\nOrigin: http://localhost:1\r\n", 404),
    ];
    for (headers, status) in table {
        for path in ["/gateways/kill", "/gateways/1/kill", "/broker/stop"] {
            let request = format!("POST {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
            let answer = ask(&request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{path} {headers}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let answer = ask("DELETE / HTTP/1.1\r\nHost: HERE\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

//! Answers to queries in gzip, for clients that take it.

use std::io::Read as _;
use std::time::Instant;

use crate::app::App;
use crate::client::{PATIENCE, Request, Response};
use crate::gateway::Gateway;
use crate::ground::development;

/// A value that shrinks, with its number.
fn value(n: usize, len: usize) -> String {
    let text: String = format!("{n} of many, ").chars().cycle().take(len).collect();
    format!("{{\"text\":\"{text}\"}}")
}

fn unpacked(answer: &Response) -> String {
    assert_eq!(
        answer.header("content-encoding"),
        Some("gzip"),
        "{answer:?}"
    );
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&answer.body[..]);
    decoder.read_to_string(&mut text).expect("a gzip member");
    text
}

fn gateway(app: &App) -> Gateway {
    let large: Vec<(String, String)> = (0..20)
        .map(|n| (format!("k{n}"), value(n, 20_000)))
        .collect();
    app.produce(&app.items)
        .keyed(large.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    app.produce(&app.items)
        .keyed([("small", "1"), ("huge", &value(0, 100_000))]);
    let gateway = app.gateway_with(2, "");
    let all = |it: &Response| it.status == 200 && it.text().matches("of many").count() > 20_000;
    gateway.wait_until(&Request::get("/items"), all);
    gateway
}

// RFC 9110 8.8.3.3 and 12.5.3: each coding has its own tag, and the answer says that it varies.
#[test]
fn a_value_is_compressed_for_those_who_take_it_and_has_a_tag_of_its_own() {
    let app = App::new(development());
    let gateway = gateway(&app);
    // Keys of both shards, each asked at both.
    for n in 0..20 {
        let target = format!("/items/k{n}");
        let get = || Request::get(&target);
        let plain = gateway.ask(&get());
        assert_eq!((plain.status, plain.text()), (200, &*value(n, 20_000)));
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(plain.header("vary"), Some("accept-encoding"));
        let etag = plain.header("etag").expect("a tag").to_owned();

        let packed = gateway.ask(&get().header("accept-encoding", "br, gzip"));
        assert_eq!(unpacked(&packed), value(n, 20_000));
        assert!(packed.body.len() < 2000);
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert_eq!(packed.header("content-type"), Some("application/json"));
        let own = packed.header("etag").expect("a tag").to_owned();
        assert_eq!(own, format!("\"{};gzip\"", etag.trim_matches('"')));

        // A client that has either is told so, with the tag of what it has.
        for (tag, coding) in [
            (&etag, "identity"),
            (&own, "gzip"),
            (&etag, "gzip"),
            (&own, "br"),
        ] {
            let again = get()
                .header("if-none-match", tag)
                .header("accept-encoding", coding);
            let known = gateway.ask(&again);
            assert_eq!((known.status, known.header("etag")), (304, Some(&**tag)));
            assert_eq!(known.header("vary"), Some("accept-encoding"));
        }
        let head = Request::new("HEAD", &target).header("accept-encoding", "gzip");
        let head = gateway.ask(&head);
        assert_eq!(
            head.header("content-length"),
            packed.header("content-length")
        );
        assert_eq!(head.header("etag"), Some(&*own));
    }
    let small = Request::get("/items/small").header("accept-encoding", "gzip");
    let small = gateway.ask(&small);
    assert_eq!(
        (small.header("content-encoding"), small.text()),
        (None, "1")
    );
    // A large value is compressed while its first clients get it as it is.
    let huge = Request::get("/items/huge").header("accept-encoding", "gzip");
    let mut client = gateway.connect();
    assert_eq!(client.ask(&huge).text(), value(0, 100_000));
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = client.ask(&huge);
        if answer.header("content-encoding").is_some() {
            assert_eq!(unpacked(&answer), value(0, 100_000));
            break;
        }
        assert_eq!(answer.text(), value(0, 100_000));
        assert!(Instant::now() < until, "it is never compressed");
    }
    let refused = gateway.ask(&Request::get("/items/k0").header("accept-encoding", "gzip;q=0"));
    assert_eq!(refused.header("content-encoding"), None);
}

#[test]
fn a_collection_is_compressed_as_it_is_read() {
    let app = App::new(development());
    let gateway = gateway(&app);
    let plain = gateway.get("/items");
    let packed = gateway.ask(&Request::get("/items").header("accept-encoding", "gzip"));
    assert_eq!(unpacked(&packed), plain.text());
    assert!(
        packed.body.len() * 10 < plain.body.len(),
        "{} bytes",
        packed.body.len()
    );
    assert_eq!(packed.header("transfer-encoding"), Some("chunked"));
    let own = packed.header("etag").expect("a tag");
    assert!(own.starts_with("W/\"") && own.ends_with(";gzip\""), "{own}");
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let again = Request::get("/items").header("if-none-match", own);
    let known = gateway.ask(&again.header("accept-encoding", "gzip"));
    assert_eq!((known.status, known.header("etag")), (304, Some(own)));
    let head = Request::new("HEAD", "/items").header("accept-encoding", "gzip");
    assert_eq!(gateway.ask(&head).header("etag"), Some(own));
    // Twice as many at a time as are compressed: the others are sent as they are.
    let mut clients: Vec<_> = (0..64).map(|_| gateway.connect()).collect();
    let get = Request::get("/items").header("accept-encoding", "gzip");
    for client in &mut clients {
        client.send(&get.bytes());
    }
    for client in &mut clients {
        let answer = client.response(false);
        let text = match answer.header("content-encoding") {
            Some(_) => unpacked(&answer),
            None => answer.text().to_owned(),
        };
        assert_eq!(text, plain.text());
    }
    // Their encoders are free again.
    for _ in 0..40 {
        assert_eq!(unpacked(&gateway.ask(&get)), plain.text());
    }
}

/// A client sends back the tag that it got, and the service reads the tag that it wrote.
#[test]
fn a_service_never_sees_the_tag_of_a_coding() {
    let app = App::new(development());
    let gateway = app.gateway_with(1, "");
    let post = Request::post("/hasty/a", "{}").header("if-match", "\"7;gzip\"");
    assert_eq!(gateway.ask(&post).status, 504, "no service answers");
    let commands = app.commands_in_log();
    assert_eq!(commands.len(), 1);
    assert_eq!(commands[0].header("if-match"), Some("7"));
}

#[test]
fn streams_and_what_is_switched_off_are_never_compressed() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", &*value(1, 5000))]);
    let gateway = app.gateway_with(1, "[http]\ncompress = false\n");
    let get = Request::get("/items/a").header("accept-encoding", "gzip");
    let answer = gateway.wait_until(&get, |it| it.status == 200);
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.header("vary"), None);
    let mut stream = gateway.connect();
    let open = Request::get("/items-now").header("accept-encoding", "gzip");
    stream.send(&open.bytes());
    let (status, headers) = stream.head(Instant::now() + PATIENCE).expect("a head");
    assert_eq!(status, 200);
    assert!(headers.iter().all(|(name, _)| name != "content-encoding"));
}

//! Clients with credentials, over real sockets: who is admitted, what a service learns of them, and
//! when a stream ends because its credential does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::app::App;
use crate::client::{Request, Response};
use crate::events::{Event, Events};
use crate::gateway::{Gateway, config_file, run_to_end};
use crate::ground::development;
use crate::service::Reply;
use crate::tokens::{Issuer, JwksServer};

/// A folder with a key set, and the routes that the tests use.
struct Secured {
    app: App,
    folder: tempfile::TempDir,
}

impl Secured {
    fn new() -> Self {
        Self {
            app: App::new(development()),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        // Replace the file as a whole, as an operator's tool does.
        let whole = self.folder.path().join("new");
        std::fs::write(&whole, text).expect("write");
        std::fs::rename(&whole, &path).expect("rename");
        path
    }

    /// A gateway with these tables of issuers and credentials.
    fn gateway(&self, tables: &str) -> Gateway {
        let App {
            commands,
            replies,
            items,
            events,
            ..
        } = &self.app;
        let mut config = crate::gateway::settings(self.app.bootstrap(), 2);
        config.push_str(tables);
        let ticket = if tables.contains("fleet_secret") {
            "ticket = \"/mine/ticket\"\n"
        } else {
            ""
        };
        config.push_str(&format!(
            "\n[[command]]\nname = \"pay\"\nroute = \"POST /pay/{{id}}\"\ntopic = \"{commands}\"\n\
             replies = \"{replies}\"\nkey = \"{{path.id}}\"\nscopes = [\"pay\"]\n\
             forward = [\"x-identity\"]\n\
             \n[[query]]\nroute = \"GET /items/{{id}}\"\ntopic = \"{items}\"\nkey = \"{{path.id}}\"\n\
             \n[[query]]\nroute = \"GET /open/{{id}}\"\ntopic = \"{items}\"\nkey = \"{{path.id}}\"\n\
             auth = \"optional\"\n\
             \n[[query]]\nroute = \"GET /free/{{id}}\"\ntopic = \"{items}\"\nkey = \"{{path.id}}\"\n\
             auth = \"none\"\n\
             \n[[stream]]\nroute = \"GET /mine\"\ntopic = \"{events}\"\nstart = \"earliest\"\n\
             filter.identity = true\n{ticket}\
             \n[[stream]]\nroute = \"GET /mine-now\"\ntopic = \"{items}\"\nstart = \"snapshot\"\n\
             filter.identity = true\n"
        ));
        Gateway::start(&config)
    }
}

fn with(request: Request, bearer: &str) -> Request {
    request.header("authorization", bearer)
}

fn pay(bearer: &str, key: &str) -> Request {
    with(Request::post("/pay/7", "{}"), bearer).header("idempotency-key", key)
}

fn assert_unauthenticated(answer: &Response) {
    assert_eq!(
        (answer.status, &*answer.problem()),
        (401, "unauthenticated"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

#[test]
fn only_clients_with_a_valid_credential_are_admitted() {
    let secured = Secured::new();
    let service = secured.app.service(|_| Some(Reply::new(201, "{}")));
    let (idp, other) = (
        Issuer::new("https://idp", "k1"),
        Issuer::new("https://idp", "k1"),
    );
    let jwks = secured.write("jwks.json", &idp.jwks());
    let gateway = secured.gateway(&idp.table("idp", jwks.to_str().expect("UTF-8")));
    secured.app.produce(&secured.app.items).keyed([("a", "{}")]);

    // One answer for every cause, and nothing is produced.
    let expired = format!("Bearer {}", idp.token("ann", -60, &json!({"scope": "pay"})));
    let foreign = format!("Bearer {}", idp.token("ann", 60, &json!({"aud": "else"})));
    let texts: Vec<String> = [
        pay("", "a").bytes(),
        pay("Bearer x.y.z", "a").bytes(),
        pay("Basic YTpi", "a").bytes(),
        pay(&expired, "a").bytes(),
        pay(&foreign, "a").bytes(),
        pay(&other.bearer("ann", "pay"), "a").bytes(),
        Request::post("/pay/7", "{}").bytes(),
    ]
    .iter()
    .map(|bytes| {
        let mut connection = gateway.connect();
        connection.send(bytes);
        let answer = connection.response(false);
        assert_unauthenticated(&answer);
        answer.text().to_owned()
    })
    .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let poor = gateway.ask(&pay(&idp.bearer("ann", "read"), "a"));
    assert_eq!((poor.status, &*poor.problem()), (403, "forbidden"));
    let repeated = with(
        pay(&idp.bearer("ann", "pay"), "a"),
        &idp.bearer("bob", "pay"),
    );
    assert_eq!(gateway.ask(&repeated).status, 400);
    assert_eq!(service.seen().len(), 0);
    for (cause, count) in [
        ("missing", 1.0),
        ("malformed", 4.0),
        ("expired", 1.0),
        ("scope", 1.0),
    ] {
        let label = format!("cause=\"{cause}\"");
        assert_eq!(
            gateway.metric("sluicegate_auth_denials_total", &label),
            count,
            "{cause}"
        );
    }

    // The body of a request that will be refused is not asked for.
    let mut connection = gateway.connect();
    connection.send(
        b"POST /pay/7 HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
    );
    assert_unauthenticated(&connection.response(false));

    // Nor is a credential ignored where it is optional.
    let token = idp.token("ann", 3600, &json!({"scope": "pay", "tenant": "acme"}));
    let good = format!("Bearer {token}");
    let get = |path: &str| with(Request::get(path), &good);
    gateway.wait_until(&get("/items/a"), |answer| answer.status == 200);
    assert_eq!(gateway.get("/open/a").status, 200);
    assert_eq!(gateway.ask(&get("/open/a")).status, 200);
    assert_unauthenticated(&gateway.ask(&with(Request::get("/open/a"), "Bearer x")));
    assert_eq!(
        gateway
            .ask(&with(Request::get("/free/a"), "Bearer x"))
            .status,
        200
    );
    assert_unauthenticated(&gateway.get("/items/a"));

    // The service learns who it was, and no client can say it.
    let posing = pay(&good, "b")
        .header("x-identity", "root")
        .header("identity", "root");
    assert_eq!(gateway.ask(&posing).status, 201);
    let records = secured.app.commands_in_log();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].header("identity"), Some("https://idp#ann"));
    assert_eq!(records[0].header("claims"), Some(r#"{"tenant":"acme"}"#));
    assert_eq!(
        records[0].header("x-identity"),
        Some("root"),
        "forwarded as itself"
    );
    let underscore = pay(&good, "c").header("x_identity", "root");
    assert_eq!(gateway.ask(&underscore).status, 400);
    let checks = gateway.metric("sluicegate_auth_signature_checks_total", "");
    // On two shards: each token once a shard at most.
    assert!((3.0..=8.0).contains(&checks), "{checks}");
}

#[test]
fn clients_never_share_a_command_a_reply_or_a_stream() {
    let secured = Secured::new();
    let mut number = 0;
    let service = secured.app.service(move |_| {
        number += 1;
        Some(Reply::new(201, &format!("{{\"number\":{number}}}")))
    });
    let (one, two) = (
        Issuer::new("https://one", "k"),
        Issuer::new("https://two", "k"),
    );
    let (jwks_one, jwks_two) = (
        secured.write("one.json", &one.jwks()),
        secured.write("two.json", &two.jwks()),
    );
    let tables = one.table("one", jwks_one.to_str().expect("UTF-8"))
        + &two.table("two", jwks_two.to_str().expect("UTF-8"));
    let gateway = secured.gateway(&tables);
    // The same subject at two issuers is two clients.
    let clients = [
        one.bearer("ann", "pay"),
        one.bearer("bob", "pay"),
        two.bearer("ann", "pay"),
    ];
    let mut replies = Vec::new();
    for client in &clients {
        let first = gateway.ask(&pay(client, "same-key"));
        let again = gateway.ask(&pay(client, "same-key"));
        assert_eq!((first.status, again.status), (201, 201));
        assert_eq!(first.text(), again.text(), "a retry has the stored reply");
        replies.push(first.text().to_owned());
    }
    replies.sort();
    replies.dedup();
    assert_eq!((replies.len(), service.seen().len()), (3, 3));

    // The location of a command belongs to its sender.
    for (owner, client) in clients.iter().enumerate() {
        let asked = pay(client, "async-key").header("prefer", "respond-async, wait=0");
        let accepted = gateway.ask(&asked);
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        let location = accepted.header("location").expect("a location").to_owned();
        for (reader, client) in clients.iter().enumerate() {
            let poll = with(Request::get(&location), client).header("prefer", "wait=10");
            let answer = gateway.ask(&poll);
            let expected = if reader == owner { 201 } else { 404 };
            assert_eq!(
                answer.status,
                expected,
                "{owner} {reader}: {}",
                answer.text()
            );
        }
        assert_unauthenticated(&gateway.get(&location));
    }

    // Streams: live, resumed, from history and from a snapshot, a client sees its own.
    let keys = [
        "https://one#ann",
        "https://one#bob",
        "https://two#ann",
        "nobody",
    ];
    for topic in [&secured.app.events, &secured.app.items] {
        for round in ["first", "second"] {
            let values = keys.map(|key| (key, format!("{round} of {key}")));
            let records = values.iter().map(|(key, value)| (*key, value.as_str()));
            secured.app.produce(topic).keyed(records);
        }
    }
    for (client, key) in clients.iter().zip(keys) {
        let open = |target: &str, id: Option<&str>| {
            let request = with(Request::get(target), client);
            let request = match id {
                Some(id) => request.header("last-event-id", id),
                None => request,
            };
            Events::ask(gateway.address(), request)
        };
        let wanted = |round: &str| format!("{round} of {key}");
        let mut history = open("/mine", None);
        let (first, second) = (history.next(), history.next());
        assert_eq!([first.data, second.data], ["first", "second"].map(wanted));
        assert_eq!(open("/mine", Some(&first.id)).next().data, wanted("second"));
        assert_eq!(open("/mine-now", None).next().data, wanted("second"));
        secured
            .app
            .produce(&secured.app.events)
            .keyed([("nobody", "live"), (key, "mine")]);
        assert_eq!(history.next().data, "mine");
        assert_eq!(history.next_within(Duration::from_millis(200)), None);
    }
    let mut nobody = gateway.connect();
    nobody.send(&Request::get("/mine").bytes());
    assert_unauthenticated(&nobody.response(false));
}

/// The next event of any name.
fn named(events: &mut Events, name: &str) -> Option<Event> {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        let event = events.next_within(Duration::from_millis(500))?;
        if event.name == name {
            return Some(event);
        }
    }
    None
}

#[test]
fn a_stream_asks_for_another_credential_and_ends_with_its_own() {
    let secured = Secured::new();
    let idp = Issuer::new("https://idp", "k1");
    let jwks = secured.write("jwks.json", &idp.jwks());
    let gateway = secured.gateway(&idp.table("idp", jwks.to_str().expect("UTF-8")));
    let ask = |seconds| {
        let bearer = format!("Bearer {}", idp.token("ann", seconds, &json!({})));
        Events::ask(gateway.address(), with(Request::get("/mine"), &bearer))
    };
    // A credential that has expired: 200, so that a native EventSource comes again.
    let mut expired = ask(-60);
    assert!(named(&mut expired, "challenge").is_some() && expired.retry().is_some());
    assert_eq!(expired.next_within(Duration::from_secs(5)), None);
    assert!(expired.ended_whole());

    // It has less than 30 s left: the page is asked at once. It ends with the leeway of 5 s.
    let began = Instant::now();
    let mut short = ask(2);
    assert!(named(&mut short, "challenge").is_some());
    secured
        .app
        .produce(&secured.app.events)
        .keyed([("https://idp#ann", "one")]);
    let event = short.next();
    assert_eq!(event.data, "one");
    let end = short.next_within(Duration::from_secs(20));
    assert_eq!((end, short.ended_whole()), (None, true));
    let took = began.elapsed();
    let expected = Duration::from_millis(5_500)..Duration::from_millis(9_500);
    assert!(expected.contains(&took), "{took:?}");

    // It resumes by its id, with another credential, without loss.
    secured
        .app
        .produce(&secured.app.events)
        .keyed([("https://idp#ann", "two")]);
    let request = with(Request::get("/mine"), &idp.bearer("ann", ""));
    let request = request.header("last-event-id", &event.id);
    assert_eq!(Events::ask(gateway.address(), request).next().data, "two");
    let label = "reason=\"revoked\"";
    assert_eq!(gateway.metric("sluicegate_streams_ended_total", label), 1.0);
}

#[test]
fn a_removed_key_ends_its_streams_within_a_second() {
    let secured = Secured::new();
    let (first, second) = (
        Issuer::new("https://idp", "k1"),
        Issuer::new("https://idp", "k2"),
    );
    let both = json!({"keys": [first.jwk(), second.jwk()]}).to_string();
    let jwks = secured.write("jwks.json", &both);
    // SHA-256 of "machine-key" and of "other-key".
    let line = |name: &str, key: &str| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        let hex: String = hash.as_ref().iter().map(|it| format!("{it:02x}")).collect();
        format!("{name}:{hex}:pay\n")
    };
    let keys = line("machine", "machine-key") + &line("other", "other-key");
    let file = secured.write("api-keys", &keys);
    let tables = format!("[credentials]\napi_keys = \"{}\"\n", file.display())
        + &first.table("idp", jwks.to_str().expect("UTF-8"));
    let gateway = secured.gateway(&tables);
    let open = |bearer: &str| Events::ask(gateway.address(), with(Request::get("/mine"), bearer));
    let mut streams = [
        open("Bearer machine-key"),
        open("Bearer other-key"),
        open(&first.bearer("ann", "")),
        open(&second.bearer("ann", "")),
    ];
    secured.write("api-keys", &line("other", "other-key"));
    secured.write("jwks.json", &second.jwks());
    let changed = Instant::now();
    let ends = |events: &mut Events| {
        while events.next_within(Duration::from_secs(5)).is_some() {}
        events.ended()
    };
    assert!(ends(&mut streams[0]) && changed.elapsed() < Duration::from_secs(2));
    assert!(ends(&mut streams[2]) && changed.elapsed() < Duration::from_secs(3));
    // The keys that stay keep theirs.
    for key in ["api-key#other", "https://idp#ann"] {
        secured
            .app
            .produce(&secured.app.events)
            .keyed([(key, "still")]);
    }
    assert_eq!(streams[1].next().data, "still");
    assert_eq!(streams[3].next().data, "still");
    assert_unauthenticated(&gateway.ask(&with(Request::get("/items/a"), "Bearer machine-key")));
    assert_unauthenticated(&gateway.ask(&with(Request::get("/items/a"), &first.bearer("a", ""))));
    // A file that can't be used changes nothing.
    secured.write("api-keys", "other:zz:\n");
    gateway.wait_said_text("line 1: the hash must have 64 hex digits");
    secured.write("jwks.json", "{}");
    gateway.wait_said_text("the keys read before stay in use");
    let request = with(Request::get("/items/a"), "Bearer other-key");
    assert_eq!(gateway.ask(&request).status, 404);
}

#[test]
fn keys_are_fetched_in_the_background_and_a_flood_of_key_ids_fetches_once() {
    let secured = Secured::new();
    let (old, new) = (
        Issuer::new("https://idp", "k1"),
        Issuer::new("https://idp", "k2"),
    );
    let server = JwksServer::start(&old.jwks());
    let gateway = secured.gateway(&old.table("idp", &server.url()));
    let get = |bearer: &str| with(Request::get("/items/a"), bearer);
    gateway.wait_until(&get(&old.bearer("ann", "")), |answer| answer.status == 404);
    assert_eq!(server.requests(), 1);
    // A server that fails, or redirects, changes nothing.
    server.answer(302, "");
    for n in 0..300 {
        let flood = Issuer::new("https://idp", &format!("invented-{n}"));
        assert_unauthenticated(&gateway.ask(&get(&flood.bearer("ann", ""))));
    }
    assert_unauthenticated(&gateway.ask(&get(&new.bearer("ann", ""))));
    assert_eq!(server.requests(), 1, "at most once in 30 s");
    assert_eq!(gateway.ask(&get(&old.bearer("ann", ""))).status, 404);
    let ready = gateway.admin_get("/readyz");
    assert!(
        ready.text().contains("keys of issuer `idp`"),
        "{}",
        ready.text()
    );
}

#[test]
fn a_ticket_opens_its_stream_and_ends_with_its_credential() {
    let secured = Secured::new();
    let idp = Issuer::new("https://idp", "k1");
    let jwks = secured.write("jwks.json", &idp.jwks());
    let table = idp.table("idp", jwks.to_str().expect("UTF-8"));
    let secrets = |now: &str, old: &str| {
        let old = match old {
            "" => String::new(),
            old => format!("fleet_secret_old = \"{}\"\n", old.repeat(32)),
        };
        format!(
            "[credentials]\nfleet_secret = \"{}\"\n{old}",
            now.repeat(32)
        )
    };
    let gateway = secured.gateway(&(secrets("a", "") + &table));
    let ask = |bearer: &str| gateway.ask(&with(Request::post("/mine/ticket", ""), bearer));
    assert_unauthenticated(&gateway.ask(&Request::post("/mine/ticket", "")));
    let answer = ask(&idp.bearer("ann", ""));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    let ticket = answer.json()["ticket"]
        .as_str()
        .expect("a ticket")
        .to_owned();
    let target = format!("/mine?ticket={ticket}");
    let own = [("https://idp#bob", "not hers"), ("https://idp#ann", "hers")];
    secured.app.produce(&secured.app.events).keyed(own);
    let mut events = Events::open(gateway.address(), &target);
    let first = events.next();
    assert_eq!(first.data, "hers");
    // A native `EventSource` comes again with the same URL.
    secured
        .app
        .produce(&secured.app.events)
        .keyed([("https://idp#ann", "more")]);
    let mut again = Events::resume(gateway.address(), &target, &first.id);
    assert_eq!(again.next().data, "more");
    // It opens nothing else, and no other ticket opens this.
    for target in [
        format!("/mine-now?ticket={ticket}"),
        format!("/items/a?ticket={ticket}"),
        format!("/mine?ticket={}", ticket.replace('A', "B")),
        format!("/mine?ticket={}x", ticket),
        "/mine?ticket=".to_owned(),
    ] {
        let mut connection = gateway.connect();
        connection.send(&Request::get(&target).bytes());
        assert_unauthenticated(&connection.response(false));
    }
    let mut twice = gateway.connect();
    twice.send(&Request::get(&format!("{target}&ticket={ticket}")).bytes());
    assert_eq!(twice.response(false).status, 400);
    // An instance with a newer secret accepts it while it has the old one.
    let newer = secured.gateway(&(secrets("b", "a") + &table));
    assert_eq!(Events::open(newer.address(), &target).next().data, "hers");
    let newest = secured.gateway(&(secrets("c", "b") + &table));
    let mut connection = newest.connect();
    connection.send(&Request::get(&target).bytes());
    assert_unauthenticated(&connection.response(false));
    // It ends with the key that vouched for it.
    secured.write("jwks.json", &Issuer::new("https://idp", "k2").jwks());
    while again.next_within(Duration::from_secs(5)).is_some() {}
    assert!(again.ended());
    let mut connection = gateway.connect();
    connection.send(&Request::get(&target).bytes());
    assert_unauthenticated(&connection.response(false));
    assert!(!gateway.said().contains(&ticket) && !gateway.said().contains("aaaaaaaa"));
}

#[test]
fn a_cookie_is_a_credential_of_pages_that_may_use_it() {
    let secured = Secured::new();
    let service = secured.app.service(|_| Some(Reply::new(201, "{}")));
    let idp = Issuer::new("https://idp", "k1");
    let jwks = secured.write("jwks.json", &idp.jwks());
    let tables = "[credentials]\ncookie = \"session\"\n\
                  [cors]\norigins = [\"https://shop.example\"]\ncredentials = true\n";
    let table = idp.table("idp", jwks.to_str().expect("UTF-8"));
    let gateway = secured.gateway(&(tables.to_owned() + &table));
    let token = idp.token("ann", 3600, &json!({"scope": "pay"}));
    let cookie = format!("theme=dark; session={token}; x=session=y");
    let with_cookie = |request: Request| request.header("cookie", &cookie);
    for (origin, status) in [
        (None, 403),
        (Some("https://evil.example"), 403),
        (Some("null"), 403),
        (Some("https://shop.example"), 201),
        (Some("http://test"), 201),
    ] {
        let request = with_cookie(Request::post("/pay/7", "{}"));
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        let answer = gateway.ask(&request);
        assert_eq!(answer.status, status, "{origin:?}: {}", answer.text());
    }
    assert_eq!(service.seen().len(), 2);
    assert_eq!(
        gateway.ask(&with_cookie(Request::get("/items/a"))).status,
        404
    );
    // Which of two cookies counts would be a guess.
    let two = Request::get("/items/a").header("cookie", &format!("session={token}; session=x"));
    assert_unauthenticated(&gateway.ask(&two));
    assert_unauthenticated(&gateway.ask(&Request::get("/items/a").header("cookie", "session=")));
}

#[test]
fn credentials_that_cannot_be_used_stop_the_start() {
    let issuer = "[[issuer]]\nname = \"idp\"\nissuer = \"https://idp\"\naudience = [\"a\"]\n";
    let route = "\n[[query]]\nroute = \"GET /a\"\ntopic = \"a\"\n";
    for (tables, parts) in [
        (
            format!("{issuer}jwks = \"none.json\"\n{route}"),
            &["gateway.toml:6", "none.json", "No such file"][..],
        ),
        (
            format!("{issuer}jwks = \"bad.json\"\n{route}"),
            &["bad.json", "JSON object with a list `keys`"],
        ),
        (
            format!("{issuer}jwks = \"secret.json\"\n{route}"),
            &["secret.json", "must never be published"],
        ),
        (
            format!("{issuer}jwks = \"http://idp.example/x\"\n{route}"),
            &["gateway.toml:6", "without TLS", "https://"],
        ),
        (
            format!("{issuer}jwks = \"a.json\"\nalgorithms = [\"HS256\"]\n{route}"),
            &["gateway.toml:7", "HS256"],
        ),
        (
            format!("{issuer}jwks = \"a.json\"\nalgorithms = [\"none\"]\n{route}"),
            &["gateway.toml:7", "none"],
        ),
        (
            "[credentials]\napi_keys = \"no-such-file\"\n".to_owned() + route,
            &["credentials.api_keys", "no-such-file"],
        ),
        (
            format!("{route}scopes = [\"x\"]\n"),
            &["the route has scopes", "auth = \"required\""],
        ),
        (
            format!("{route}auth = \"required\"\n"),
            &["no client could authenticate", "[[issuer]]"],
        ),
        (
            "[[stream]]\nroute = \"GET /a\"\ntopic = \"a\"\nfilter.identity = true\n".to_owned(),
            &["anonymous clients have no records"],
        ),
        (
            format!("[credentials]\nfleet_secret = \"short\"\n{route}"),
            &["credentials.fleet_secret", "fewer than 32 bytes"],
        ),
        (
            format!(
                "{issuer}jwks = \"a.json\"\n{}ticket = \"/t\"\n",
                route.replace("query", "stream")
            ),
            &["secret that all instances share"],
        ),
        (
            "[[query]]\nroute = \"GET /a\"\ntopic = \"a\"\nkey = \"{claim.x}\"\n".to_owned(),
            &["no [[issuer]] carries the claim `x`"],
        ),
    ] {
        let config = format!("listen = [\"127.0.0.1:0\"]\n{tables}");
        let (folder, path) = config_file(&config);
        std::fs::write(folder.path().join("bad.json"), "[]").expect("write");
        let secret = r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#;
        std::fs::write(folder.path().join("secret.json"), secret).expect("write");
        let path = path.to_str().expect("UTF-8");
        for verb in ["check", "run"] {
            let (code, _, said) = run_to_end(&[verb, "--config", path], &[]);
            assert_eq!(code, 78, "{verb} {tables}: {said}");
            for part in parts {
                assert!(said.contains(part), "{verb} {tables}: {part}: {said}");
            }
        }
    }
}

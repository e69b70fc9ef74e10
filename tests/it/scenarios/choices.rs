//! What a command route may choose: no replies, tombstones, required conditions. And what clients
//! may get wrong in the headers of a command.

use crate::app::App;
use crate::client::{Connection, Request, Response};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat;
use crate::service::{Reply, reply_to};

/// A gateway whose application has these routes too.
fn gateway(app: &App, routes: &[(&str, &str, &str)]) -> Gateway {
    let mut more = String::new();
    for (name, route, choices) in routes {
        more.push_str(&format!(
            "[[command]]\nname = \"{name}\"\nroute = \"{route}\"\ntopic = \"{}\"\n\
             key = \"{{path.id}}\"\n{choices}\n",
            app.commands
        ));
    }
    app.gateway_with(2, &more)
}

/// A route's choices, beside its replies.
fn with_replies(app: &App, choices: &str) -> String {
    format!("replies = \"{}\"\n{choices}\n", app.replies)
}

/// Status and type of a problem.
fn problem(answer: &Response) -> (u16, String) {
    (answer.status, answer.problem())
}

pub fn a_one_way_command_is_answered_once_it_is_appended(ground: &Ground) {
    let app = App::new(ground);
    let routes = [
        ("log", "POST /log/{id}", ""),
        ("quiet", "POST /quiet/{id}", "one_way_status = 204"),
    ];
    let gateway = gateway(&app, &routes);
    let log = Request::post("/log/i", "{\"n\":1}").header("idempotency-key", "\"k\"");
    let accepted = gateway.ask(&log.clone().header("prefer", "respond-async"));
    assert_eq!((accepted.status, accepted.text()), (202, ""));
    for name in ["location", "preference-applied", "idempotent-replayed"] {
        assert_eq!(accepted.header(name), None, "there is no reply to read");
    }
    let records = app.commands_in_log();
    let [record] = &records[..] else {
        panic!("the record is committed: {records:?}")
    };
    assert_eq!(record.value.as_deref(), Some("{\"n\":1}"));
    assert_eq!(record.header("reply-to"), None);
    assert!(record.header("correlation-id").is_some());
    let quiet = gateway.ask(&Request::post("/quiet/i", "{}"));
    assert_eq!((quiet.status, quiet.header("content-length")), (204, None));
    // Without replies, a key is recognised only while its record is on the way.
    assert_eq!(gateway.ask(&log).status, 202);
    assert_eq!(app.commands_in_log().len(), 3);
    let located = gateway.ask(&Request::get("/_sluicegate/commands/log/x"));
    assert_eq!(problem(&located), (404, "no-such-route".into()));
    let open = gateway.status_sum("commands_open");
    assert_eq!(open, 0, "what is appended is done");
}

/// The records of a one-way route are no replies, even where the gateway reads them: for streams,
/// and to recognise retries.
pub fn a_strict_one_way_route_appends_once_and_its_topic_can_be_streamed(ground: &Ground) {
    let app = App::new(ground);
    let strict = "dedupe = \"strict\"\nidempotency = \"required\"";
    let stream = format!(
        "{strict}\n[[stream]]\nroute = \"GET /log\"\ntopic = \"{}\"\nstart = \"earliest\"\n",
        app.commands
    );
    let routes = [("log", "POST /log/{id}", &*stream)];
    let gateways = [gateway(&app, &routes), gateway(&app, &routes)];
    let log = |n: usize| {
        let key = format!("\"k{n}\"");
        Request::post("/log/i", &format!("{{\"n\":{n}}}")).header("idempotency-key", &key)
    };
    for n in 0..3 {
        for gateway in [&gateways[0], &gateways[1], &gateways[0]] {
            assert_eq!(gateway.ask(&log(n)).status, 202);
        }
    }
    assert_eq!(app.commands_in_log().len(), 3, "one record each");
    let other = Request::post("/log/j", "{}").header("idempotency-key", "\"k0\"");
    let other = gateways[1].ask(&other);
    assert_eq!(problem(&other), (422, "idempotency-key-reused".into()));
    let mut events = Events::open(gateways[1].address(), "/log");
    let values: Vec<String> = (0..3).map(|_| events.next().data).collect();
    assert_eq!(values, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"]);
}

pub fn a_tombstone_is_written_only_where_the_route_says_so(ground: &Ground) {
    let app = App::new(ground);
    let tombstone = with_replies(&app, "tombstone = true");
    let routes = [("clear", "DELETE /cleared/{id}", &*tombstone)];
    let gateway = gateway(&app, &routes);
    let service = app.service(|_| Some(Reply::new(204, "")));
    let delete = |path: &str| gateway.ask(&Request::new("DELETE", path)).status;
    assert_eq!(delete("/cleared/a"), 204);
    // A request without a body is an empty value, never null.
    assert_eq!(delete("/items/b"), 204);
    assert_eq!(
        gateway.ask(&Request::post("/items/c/orders", "")).status,
        204
    );
    let with_body = gateway.ask(&Request::new("DELETE", "/cleared/d").json("{}"));
    assert_eq!(problem(&with_body), (400, "malformed-body".into()));
    let mut values: Vec<_> = app
        .commands_in_log()
        .into_iter()
        .map(|it| (it.key.unwrap_or_default(), it.value))
        .collect();
    values.sort();
    let empty = Some(String::new());
    let expected = [("a", None), ("b", empty.clone()), ("c", empty)];
    assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value)));
    assert_eq!(service.seen().len(), 3);
}

/// The other choice for a request whose command is in flight: it need not wait.
pub fn a_route_may_refuse_what_is_in_flight(ground: &Ground) {
    let app = App::new(ground);
    let conflict = with_replies(&app, "in_flight = \"conflict\"");
    let routes = [("once", "POST /once/{id}", &*conflict)];
    let gateway = gateway(&app, &routes);
    let once = Request::post("/once/i", "{}").header("idempotency-key", "\"k\"");
    let (address, first) = (gateway.address(), once.clone());
    let first = std::thread::spawn(move || Connection::open(address).ask(&first));
    let command = kcat::read_until(app.bootstrap(), &app.commands, 1).remove(0);
    let second = gateway.ask(&once);
    assert_eq!(problem(&second), (409, "command-in-progress".into()));
    assert_eq!(second.header("retry-after"), Some("1"));
    reply_to(
        app.bootstrap(),
        &app.replies,
        &command,
        Reply::new(201, "once"),
    );
    let first = first.join().expect("an answer");
    assert_eq!(
        (first.status, first.header("idempotent-replayed")),
        (201, None)
    );
    let again = gateway.ask(&once);
    assert_eq!((again.status, again.text()), (201, "once"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(app.commands_in_log().len(), 1, "one record");
}

pub fn a_route_may_require_a_condition(ground: &Ground) {
    let app = App::new(ground);
    let required = with_replies(&app, "condition = \"required\"");
    let routes = [("save", "PUT /saved/{id}", &*required)];
    let gateway = gateway(&app, &routes);
    let service = app.service(|command| {
        Some(match command.header("if-match") {
            Some("v1") => Reply::new(412, "{\"title\":\"Changed\"}").header("etag", "v2"),
            _ => Reply::new(200, "saved").header("etag", "v3"),
        })
    });
    let save = || Request::new("PUT", "/saved/i").json("{}");
    let missing = gateway.ask(&save());
    assert_eq!(problem(&missing), (428, "precondition-required".into()));
    // A client that asks before it sends its body is refused before that.
    let expecting = gateway.ask(&save().header("expect", "100-continue"));
    assert_eq!(expecting.status, 428);
    let weak = gateway.ask(&save().header("if-match", "W/\"v1\", W/\"v2\""));
    assert_eq!(problem(&weak), (412, "precondition-failed".into()));
    assert_eq!(service.seen().len(), 0, "nothing was appended");
    // The service says which version there is.
    let changed = gateway.ask(&save().header("if-match", "\"v1\""));
    assert_eq!(
        (changed.status, changed.header("etag")),
        (412, Some("\"v2\""))
    );
    for (name, value) in [
        ("if-match", "\"v2\""),
        ("if-match", "*"),
        ("if-none-match", "*"),
    ] {
        let saved = gateway.ask(&save().header(name, value));
        assert_eq!(
            (saved.status, saved.header("etag")),
            (200, Some("\"v3\"")),
            "{name}"
        );
    }
}

/// Malformed, repeated and overlong headers are refused by name, and nothing is appended. A
/// preference is never an error.
pub fn headers_of_a_command_that_are_wrong_are_refused(ground: &Ground) {
    let app = App::new(ground);
    let gateway = app.gateway(1);
    let service = app.service(|_| Some(Reply::new(200, "done")));
    let order = || Request::post("/items/i/orders", "{}");
    let long = "k".repeat(256);
    let tag = format!("\"{}\"", "t".repeat(128));
    let tags = vec![tag.as_str(); 40].join(", ");
    let many = vec!["\"t\""; 65].join(", ");
    for (name, value, expected) in [
        ("idempotency-key", "\"a", "malformed-header"),
        ("idempotency-key", "a, b", "malformed-header"),
        ("idempotency-key", "\"\"", "malformed-header"),
        ("idempotency-key", &*long, "malformed-header"),
        ("if-match", "\"a", "malformed-header"),
        ("if-match", "*, \"a\"", "malformed-header"),
        ("if-match", &*many, "malformed-header"),
        ("if-match", &*tags, "head-too-large"),
        ("if-none-match", "a b", "malformed-header"),
    ] {
        let refused = gateway.ask(&order().header(name, value));
        let status = if expected == "head-too-large" {
            431
        } else {
            400
        };
        assert_eq!(
            problem(&refused),
            (status, expected.into()),
            "{name}: {value}"
        );
        assert!(
            !refused.text().contains(value),
            "what was sent is not repeated"
        );
    }
    let key = || order().header("idempotency-key", "\"a\"");
    let twice = gateway.ask(&key().header("Idempotency-Key", "\"a\""));
    assert_eq!(problem(&twice), (400, "malformed-header".into()));
    assert_eq!(service.seen().len(), 0, "nothing was appended");
    for prefer in ["", "respond-async=", ";;,=", "wait=", &*long] {
        let answer = gateway.ask(&order().header("prefer", prefer).header("prefer", "wait=x"));
        assert!([200, 202].contains(&answer.status), "{prefer}: {answer:?}");
    }
    let repeated = order().header("prefer", "respond-async, wait=20");
    let first_counts = gateway.ask(&repeated.header("prefer", "wait=0"));
    assert_eq!((first_counts.status, first_counts.text()), (200, "done"));
}

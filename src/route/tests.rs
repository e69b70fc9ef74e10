//! Tests of routing, templates and problems with whole requests.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::command::{Limit, ReplyError};
use crate::config::{
    ClusterIndex, CommandMethod, CommandRoute, Condition, Config, Dedupe, Idempotency, InFlight,
    OneWayStatus, PathPattern, QueryRoute, RouteEdge, Template, TemplateContext,
};
use crate::http::{Connection, Fault, HeaderTable, Limits, Method, Path, Received};
use crate::kafka::{Code, CodeMeaning};
use crate::model::{Identity, TopicName};

fn topic() -> TopicName {
    TopicName::new("t").expect("legal")
}

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).expect("a good pattern")
}

fn command(method: CommandMethod, path: &str, line: usize) -> CommandRoute {
    CommandRoute {
        name: format!("c{line}"),
        line,
        method,
        path: pattern(path),
        cluster: ClusterIndex::default(),
        topic: topic(),
        replies: Some(topic()),
        key: None,
        headers: vec![],
        idempotency: Idempotency::Optional,
        timeout: Duration::from_secs(10),
        forward: vec![],
        schema: None,
        params: vec![],
        dedupe: Dedupe::default(),
        in_flight: InFlight::default(),
        condition: Condition::default(),
        tombstone: false,
        one_way_status: OneWayStatus::default(),
        edge: RouteEdge::default(),
    }
}

fn query(path: &str, line: usize) -> QueryRoute {
    QueryRoute {
        name: format!("q{line}"),
        line,
        path: pattern(path),
        cluster: ClusterIndex::default(),
        topic: topic(),
        key: None,
        partitioner: None,
        edge: RouteEdge::default(),
    }
}

fn config() -> Config {
    Config {
        commands: vec![
            command(CommandMethod::Post, "/accounts/{id}/payments", 1),
            command(CommandMethod::Put, "/accounts/{id}", 2),
            command(CommandMethod::Post, "/accounts/new", 3),
        ],
        queries: vec![
            query("/", 4),
            query("/accounts", 5),
            query("/accounts/{id}", 6),
            query("/accounts/{id}/{what}", 7),
            query("/accounts/all/totals", 8),
        ],
        ..Config::default()
    }
}

/// The route and its parameters, or the `Allow` header, or nothing.
fn route(router: &Router, method: Method, path: &str) -> String {
    let path = Path::parse(path).expect("a good path");
    match router.route(method, &path) {
        Routed::To(Match { route, params }) => format!("{route:?} {}", params.join(",")),
        Routed::MethodNotAllowed(methods) => methods.to_string(),
        Routed::NotFound => String::new(),
    }
}

#[test]
fn requests_find_their_routes() {
    use Method::{Delete, Get, Head, Post, Put};
    let router = Router::new(&config()).expect("no conflict");
    for (method, path, found) in [
        (Get, "/", "Query(0) "),
        (Get, "/accounts", "Query(1) "),
        (Get, "/accounts/7", "Query(2) 7"),
        (Head, "/accounts/7", "Query(2) 7"),
        (Get, "/accounts/a%20b", "Query(2) a b"),
        (Get, "/accounts/%2541", "Query(2) %41"),
        (Post, "/accounts/7/payments", "Command(0) 7"),
        (Get, "/accounts/7/payments", "Query(3) 7,payments"),
        (Get, "/accounts/all/totals", "Query(4) "),
        // The literal's subtree has no match, so the parameter is tried.
        (Get, "/accounts/all/others", "Query(3) all,others"),
        (Post, "/accounts/all/payments", "Command(0) all"),
        // The literal matches the path but not the method.
        (Put, "/accounts/new", "Command(1) new"),
        (Post, "/accounts/new", "Command(2) "),
        (Delete, "/accounts/new", "GET, HEAD, POST, PUT"),
        (Delete, "/accounts/7", "GET, HEAD, PUT"),
        (Post, "/", "GET, HEAD"),
        (Get, "/accounts/", ""),
        (Get, "/Accounts", ""),
        (Get, "/nope", ""),
        (Get, "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q", ""),
    ] {
        assert_eq!(route(&router, method, path), found, "{method:?} {path}");
    }
}

#[test]
fn options_finds_what_a_path_takes() {
    let router = Router::new(&config()).expect("no conflict");
    let methods = |path| {
        let path = Path::parse(path).expect("good");
        match router.route(Method::Options, &path) {
            Routed::MethodNotAllowed(methods) => Some(methods.to_string()),
            Routed::To(_) | Routed::NotFound => None,
        }
    };
    let all = Some("GET, HEAD, POST, PUT".to_owned());
    assert_eq!(methods("/accounts/new"), all);
    assert_eq!(methods("/nope"), None);
}

#[test]
fn two_routes_for_the_same_requests_are_a_conflict() {
    let mut config = config();
    config.queries.push(query("/accounts/{other}", 9));
    let conflict = Router::new(&config).expect_err("a conflict");
    let text = "`GET /accounts/{other}` is defined twice (lines 6 and 9)";
    assert_eq!(conflict.to_string(), text);
}

fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof!["[ab]", Just("{x}".to_owned())];
    prop::collection::vec(segment, 1..5).prop_map(|segments| {
        let mut path = String::new();
        for (index, segment) in segments.iter().enumerate() {
            path.push('/');
            path.push_str(&segment.replace('x', &format!("x{index}")));
        }
        path
    })
}

proptest! {
    /// The tree finds the same route as a search of all patterns, literals before parameters from
    /// the left.
    #[test]
    fn the_tree_finds_what_a_list_finds(
        patterns in prop::collection::btree_set(any_pattern(), 1..12),
        path in "(/[abc]){1,4}",
    ) {
        let queries = patterns.iter().enumerate().map(|(n, p)| query(p, n)).collect();
        let config = Config { queries, ..Config::default() };
        let router = Router::new(&config).expect("shapes differ");
        let segments: Vec<&str> = path[1..].split('/').collect();
        let fits = |pattern: &str| {
            let parts: Vec<&str> = pattern[1..].split('/').collect();
            parts.len() == segments.len()
                && parts.iter().zip(&segments).all(|(p, s)| p == s || p.starts_with('{'))
        };
        // `{` sorts after letters, so the first pattern that matches is the most literal from the
        // left.
        let sorted: BTreeSet<&String> = patterns.iter().collect();
        let expected = sorted.into_iter().find(|pattern| fits(pattern));
        let path = Path::parse(&path).expect("a good path");
        match (router.route(Method::Get, &path), expected) {
            (Routed::To(found), Some(expected)) => {
                let RouteIndex::Query(index) = found.route else {
                    return Err(TestCaseError::fail("not a query"));
                };
                prop_assert_eq!(&config.queries[index].path.to_string(), expected);
                prop_assert_eq!(found.params.len(), expected.matches('{').count());
            }
            (Routed::NotFound, None) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

/// Expands the template for a request with these lines and body, and the path `/a/{id}`.
fn fill(template: &str, target: &str, lines: &str, body: &str) -> Result<String, String> {
    let template =
        Template::parse(template, &pattern("/a/{id}"), TemplateContext::Command).expect("good");
    let text = format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::new();
    let limits = Limits::default();
    let mut table = HeaderTable::new();
    let Received::Request(request, _) = connection.receive(text.as_bytes(), &limits, &mut table)
    else {
        panic!("not a request: {text}");
    };
    let params: Vec<&str> = request.path.segments().skip(1).collect();
    let inputs = Inputs {
        params: &params,
        query: request.query,
        headers: &request.headers,
        body: request.body,
        identity: &Identity::new("idp", "ann"),
    };
    let filled = evaluate(&template, &inputs);
    let filled = filled.map(|bytes| String::from_utf8(bytes).expect("text"));
    filled.map_err(|error| {
        let refused = Refused::from(error);
        format!("{} {}", refused.kind.path, refused.detail)
    })
}

#[test]
fn templates_are_filled_from_all_of_a_request() {
    let all = "{path.id}/{query.q}/{header.x-t}/{identity}/{body:/a/0}-";
    let filled = fill(all, "/a/i%20d?q=v+w&r=1", "X-T: tt\r\n", r#"{"a":[7]}"#);
    assert_eq!(filled.as_deref(), Ok("i d/v w/tt/idp#ann/7-"));
}

#[test]
fn an_empty_value_is_a_value() {
    for (template, target, lines, body) in [
        ("{query.q}", "/a/1?q=", "", ""),
        ("{query.q}", "/a/1?q", "", ""),
        ("{header.x-t}", "/a/1", "x-t:\r\n", ""),
        ("{body:/a}", "/a/1", "", r#"{"a":""}"#),
    ] {
        assert_eq!(
            fill(template, target, lines, body).as_deref(),
            Ok(""),
            "{template}"
        );
    }
    let null = fill("{body:/a}", "/a/1", "", r#"{"a":null}"#);
    let missing = "/problems/missing-parameter `/a` of the body is missing";
    assert_eq!(null, Err(missing.to_owned()));
}

#[test]
fn a_value_is_decoded_once() {
    for (template, target, expected) in [
        ("{path.id}", "/a/%2520+%C3%A4", "%20+ä"),
        ("{query.q}", "/a/1?q=%2520+%2B", "%20 +"),
    ] {
        assert_eq!(
            fill(template, target, "", "").as_deref(),
            Ok(expected),
            "{template}"
        );
    }
}

#[test]
fn a_hole_that_is_not_filled_is_a_400_that_names_it() {
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(VALUE_BYTES_MAX + 1));
    for (template, target, lines, body, problem) in [
        (
            "{header.x-t}",
            "/a/1",
            "",
            "",
            "/problems/missing-parameter the header `x-t` is missing",
        ),
        (
            "{header.x-t}",
            "/a/1",
            "x-t: a\r\nX-T: a\r\n",
            "",
            "/problems/bad-parameter the header `x-t` is there more than once",
        ),
        (
            "{query.q}",
            "/a/1?r=1",
            "",
            "",
            "/problems/missing-parameter the query parameter `q` is missing",
        ),
        (
            "{query.q}",
            "/a/1?q=1&%71=2",
            "",
            "",
            "/problems/bad-parameter the query parameter `q` is there more than once",
        ),
        (
            "{body:/a/b}",
            "/a/1",
            "",
            r#"{"a":1}"#,
            "/problems/missing-parameter `/a/b` of the body is missing",
        ),
        (
            "{body:/a}",
            "/a/1",
            "",
            r#"{"a":{}}"#,
            "/problems/bad-parameter `/a` of the body is an object or an array",
        ),
        (
            "{body:/a}",
            "/a/1",
            "",
            "a=1",
            "/problems/malformed-body this route reads the body as JSON, but it is not JSON",
        ),
        (
            "{body:/a}",
            "/a/1",
            "",
            &long,
            "/problems/bad-parameter `/a` of the body is too long",
        ),
    ] {
        let filled = fill(template, target, lines, body);
        assert_eq!(filled.as_ref().map_err(String::as_str), Err(problem));
    }
}

#[test]
fn every_failure_has_a_path_of_its_own_and_stands_in_the_docs() {
    let docs = include_str!("../../docs/http.md");
    for failure in Failure::ALL {
        let kind = failure.kind();
        let row = format!("| `{}` | {} |", kind.path, kind.status.as_u16());
        assert!(docs.contains(&row), "{row} is missing in docs/http.md");
        let again = kind.status.as_u16() == 503 && failure != Failure::CacheDegraded;
        assert!(!again || failure.retry_after().is_some(), "{row}");
    }
    let mut paths: Vec<&str> = Failure::ALL.iter().map(|f| f.kind().path).collect();
    paths.extend(Fault::ALL.iter().map(|f| f.kind().path));
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count);
}

/// One row per error code of a broker: the response if the record is certainly not in the log, and
/// whether only an operator can end the error.
#[test]
fn each_error_code_of_a_broker_has_its_answer() {
    let told = |code: i16| {
        let refused = Refused::of_code(Code(code));
        let again = refused.detail.contains("try again");
        (
            refused.kind.path.trim_start_matches("/problems/"),
            refused.kind.status.as_u16(),
            refused.retry_after,
            again,
        )
    };
    const PASSING: (&str, u16, Option<u32>, bool) = ("broker-unavailable", 503, Some(2), true);
    const DENIED: (&str, u16, Option<u32>, bool) = ("topic-unavailable", 503, Some(60), false);
    const BAD: (&str, u16, Option<u32>, bool) = ("record-refused", 400, None, false);
    const LARGE: (&str, u16, Option<u32>, bool) = ("command-too-large", 413, None, false);
    let table: &[(&[i16], _)] = &[
        (&[10, 18], LARGE),
        (&[32, 87], BAD),
        (&[17, 21, 29, 31, 35, 42, 43, 44, 53, 76], DENIED),
        (&[2, 3, 5, 6, 7, 8, 9, 13, 19, 20, 45, 47, 49, 56], PASSING),
        (&[59, 74, 75, 89, 90, 100, 103], PASSING),
        // Codes without a meaning of their own here, known ones and future ones.
        (
            &[-1, 1, 4, 41, 55, 120, 134, 9_999, i16::MIN, i16::MAX],
            PASSING,
        ),
    ];
    for (codes, expected) in table {
        for code in *codes {
            assert_eq!(told(*code), *expected, "code {code}");
        }
    }
    let listed = |code: &i16| table.iter().any(|(codes, _)| codes.contains(code));
    for code in (-1..=200).filter(|code| !listed(code)) {
        assert!(
            matches!(
                Code(code).meaning(),
                CodeMeaning::Unknown | CodeMeaning::Success
            ),
            "code {code} has a meaning of its own and no line in the table above"
        );
    }
}

/// A response to a command that may have been executed must not suggest a retry under a new key. If
/// the command was not executed, the response must say so.
#[test]
fn errors_of_commands_become_the_right_problems() {
    for (refused, path, status) in [
        (
            Failure::IdempotencyKeyReused.into(),
            "/problems/idempotency-key-reused",
            422,
        ),
        (
            Failure::CommandInProgress.into(),
            "/problems/command-in-progress",
            409,
        ),
        (Refused::from(Limit::Commands), "/problems/overloaded", 503),
        (Limit::TenantCommands.into(), "/problems/overloaded", 503),
        (ReplyError::Status.into(), "/problems/bad-reply", 502),
    ] {
        let found = (refused.kind.path, refused.kind.status.as_u16());
        assert_eq!(found, (path, status));
    }
    let unknown = Refused::from(Failure::OutcomeUnknown);
    assert_eq!(unknown.kind.status.as_u16(), 504);
    assert!(unknown.detail.contains("same Idempotency-Key"));
}

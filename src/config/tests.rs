//! What is refused, and in which words: these texts are read by people at bad moments.

use super::*;

const GOOD: &str = r#"
[kafka]
bootstrap = ["localhost:9092"]

[kafka.headers]
preset = "zilla"
status = "status"

[[command]]
name = "pay"
route = "POST /accounts/{id}/payments"
topic = "payments-commands"
replies = "payments-replies"
key = "{path.id}"
headers = { operation = "pay" }
idempotency = "required"
timeout = "5s"
forward = ["Content-Language"]

[[query]]
route = "GET /accounts/{id}"
topic = "balances"
key = "{path.id}"

[[query]]
route = "GET /accounts"
topic = "balances"

[[stream]]
route = "GET /accounts/{id}/events"
topic = "payments"
filter.key = "{path.id}"
start = "snapshot"
slow = "conflate"
"#;

fn file(text: &str) -> Sources {
    let (name, text) = ("gateway.toml".into(), text.into());
    Sources {
        file: Some(ConfigFile { name, text }),
        cpus: 2,
        ..Sources::default()
    }
}

fn refused(text: &str) -> String {
    load(file(text)).expect_err("must be refused").render(false)
}

fn with(variables: &[(&str, &str)], flags: &[(&'static str, &str)], text: &str) -> Sources {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    Sources {
        environment: variables.iter().map(owned).collect(),
        flags: flags
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
        ..file(text)
    }
}

#[test]
fn the_example_reads_as_it_says() {
    let loaded = load(file(GOOD)).expect("a good config");
    assert_eq!(loaded.report.findings, []);
    let config = loaded.config;
    let pay = &config.commands[0];
    assert_eq!((pay.name.as_str(), pay.line), ("pay", 11));
    assert_eq!(pay.method, CommandMethod::Post);
    assert_eq!(pay.path.to_string(), "/accounts/{id}/payments");
    assert_eq!(pay.key.as_ref().expect("given").to_string(), "{path.id}");
    assert_eq!(pay.idempotency, Idempotency::Required);
    assert_eq!(pay.timeout, std::time::Duration::from_secs(5));
    assert_eq!(pay.forward, ["content-language"]);
    assert_eq!(config.queries[1].key, None);
    assert_eq!(config.queries[1].name, "GET /accounts");
    assert_eq!(config.streams[0].start, Start::Snapshot);
    assert_eq!(config.streams[0].slow, Slow::Conflate);
    assert_eq!(config.headers.correlation_id, "zilla:correlation-id");
    assert_eq!(config.headers.status, "status");
}

#[test]
fn what_routes_ask_of_topics() {
    let config = load(file(GOOD)).expect("a good config").config;
    let compacted: Vec<_> = config
        .topics()
        .into_iter()
        .filter(|it| it.compacted)
        .collect();
    assert_eq!(compacted.len(), 1);
    assert_eq!(compacted[0].topic.as_str(), "payments");
    assert_eq!(
        compacted[0].because,
        Some(("GET /accounts/{id}/events".into(), 30))
    );
    let linked = config.linked_topics();
    let linked: Vec<Vec<&str>> = linked
        .iter()
        .map(|it| it.iter().map(|topic| topic.as_str()).collect())
        .collect();
    let pair = vec!["payments-commands", "payments-replies"];
    assert_eq!(linked, [vec!["balances"], vec!["payments"], pair]);
}

#[test]
fn links_are_followed_over_routes() {
    let command = |name: &str, topic: &str, replies: &str| {
        format!(
            "[[command]]\nname = \"{name}\"\nroute = \"POST /{name}\"\ntopic = \"{topic}\"\n\
             replies = \"{replies}\"\n"
        )
    };
    let text = command("a", "c1", "r1") + &command("b", "c2", "r2") + &command("c", "c2", "r1");
    let config = load(file(&text))
        .expect("links are no conflict at start")
        .config;
    assert_eq!(config.linked_topics().len(), 1);
}

#[test]
fn an_unknown_key_is_shown_with_what_was_meant() {
    insta::assert_snapshot!(refused("[[query]]\nroute = \"GET /a\"\ntopc = \"a\"\n"), @r#"
    error: [[query]] has no `topic`
     --> gateway.toml:1:1
      |
    1 | [[query]]
      | ^^^^^^^^^
      |
      = help: add `topic = "entities"`

    error: unknown key `topc` in [[query]]
     --> gateway.toml:3:1
      |
    3 | topc = "a"
      | ^^^^
      |
      = help: did you mean `topic`?
    "#);
}

#[test]
fn a_setting_in_the_wrong_table_is_told_where_it_belongs() {
    insta::assert_snapshot!(refused("[http]\nwindow_bytes_max = \"1MiB\"\nnonsense = 1\n"), @r#"
    error: unknown key `window_bytes_max` in [http]
     --> gateway.toml:2:1
      |
    2 | window_bytes_max = "1MiB"
      | ^^^^^^^^^^^^^^^^
      |
      = help: `window_bytes_max` stands in `[streams]`

    error: unknown key `nonsense` in [http]
     --> gateway.toml:3:1
      |
    3 | nonsense = 1
      | ^^^^^^^^
      |
      = help: known here: connections_max, head_bytes_max, headers_max, body_bytes_max, bodies_bytes_max, responses_bytes_max, head_timeout, body_timeout, idle_timeout, write_timeout, query_timeout
    "#);
}

#[test]
fn a_bare_number_gets_both_readings() {
    insta::assert_snapshot!(refused("drain = 10\n[http]\nhead_bytes_max = 64\n"), @r#"
    error: `drain`: `10` has no unit: write "10s" or "10ms", whichever is meant
     --> gateway.toml:1:9
      |
    1 | drain = 10
      |         ^^
      |
      = help: 0s to 1h

    error: `http.head_bytes_max`: `64` has no unit: write "64B" or "64KiB", whichever is meant
     --> gateway.toml:3:18
      |
    3 | head_bytes_max = 64
      |                  ^^
      |
      = help: 1KiB to 1MiB
    "#);
}

#[test]
fn all_errors_are_shown_at_once() {
    let text = r#"
listen = ["0.0.0.0:8080"]
[[command]]
name = "pay"
route = "POST /accounts/{id}"
topic = "pay ments"
replies = "r"
key = "{path.nope}"
[[command]]
name = "pay"
route = "POST /accounts/{account}"
topic = "c"
replies = "c"
timeout = "1h"
[[query]]
route = "GET /a/{x}"
topic = "t"
[[stream]]
route = "POST /a"
topic = "t"
start = "snapshoot"
"#;
    insta::assert_snapshot!(refused(text), @r#"
    error: `listen` 0.0.0.0:8080 is open to others without authentication
     --> gateway.toml:2:10
      |
    2 | listen = ["0.0.0.0:8080"]
      |          ^^^^^^^^^^^^^^^^
      |
      = help: set auth = "none" (or --auth none) if that is meant, or listen on 127.0.0.1

    error: `pay ments` can't be a topic
     --> gateway.toml:6:9
      |
    6 | topic = "pay ments"
      |         ^^^^^^^^^^^
      |
      = help: a topic name has only letters, digits, `.`, `_` and `-`

    error: the path `/accounts/{id}` has no `{nope}`
     --> gateway.toml:8:8
      |
    8 | key = "{path.nope}"
      |        ^^^^^^^^^^^
      |
      = help: it has `{path.id}`

    error: two routes are named `pay`
      --> gateway.toml:10:8
       |
     4 | name = "pay"
       |        ----- the first is here
    ...
    10 | name = "pay"
       |        ^^^^^
       |
       = help: give each its own name

    error: `POST /accounts/{account}` has two owners
      --> gateway.toml:11:9
       |
     5 | route = "POST /accounts/{id}"
       |         --------------------- the first is here
    ...
    11 | route = "POST /accounts/{account}"
       |         ^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: change the path of one, or remove it

    error: `c` is a topic of commands and of replies
      --> gateway.toml:13:11
       |
    12 | topic = "c"
       |         --- commands go here
    13 | replies = "c"
       |           ^^^
       |
       = help: give the replies a topic of their own

    error: `timeout`: 1h is out of bounds
      --> gateway.toml:14:11
       |
    14 | timeout = "1h"
       |           ^^^^
       |
       = help: 10ms to 5min

    error: `{x}` in the path is not used
      --> gateway.toml:16:9
       |
    16 | route = "GET /a/{x}"
       |         ^^^^^^^^^^^^
       |
       = help: add `key = "{path.x}"`, or take it out of the path

    error: a stream is a GET, not a POST
      --> gateway.toml:19:9
       |
    19 | route = "POST /a"
       |         ^^^^^^^^^
       |
       = help: write "GET /a", or use `[[command]]`

    error: `start`: `snapshoot` is not known here: did you mean `snapshot`?
      --> gateway.toml:21:9
       |
    21 | start = "snapshoot"
       |         ^^^^^^^^^^^
       |
       = help: `live`, `earliest` or `snapshot`
    "#);
}

#[test]
fn two_owners_are_both_shown() {
    let text = "[[query]]\nroute = \"GET /a/{x}\"\ntopic = \"t\"\nkey = \"{path.x}\"\n\
                [[stream]]\nroute = \"GET /a/{y}\"\ntopic = \"t\"\nfilter.key = \"{path.y}\"\n";
    insta::assert_snapshot!(refused(text), @r#"
    error: `GET /a/{y}` has two owners
     --> gateway.toml:6:9
      |
    2 | route = "GET /a/{x}"
      |         ------------ the first is here
    ...
    6 | route = "GET /a/{y}"
      |         ^^^^^^^^^^^^
      |
      = help: change the path of one, or remove it
    "#);
}

#[test]
fn caps_over_the_memory_are_refused_with_the_table() {
    let text = "memory = \"512MiB\"\nshards = 2\n[[query]]\nroute = \"GET /a\"\ntopic = \"t\"\n";
    insta::assert_snapshot!(refused(text), @r#"
    error: the caps add up to 706 MiB, and `memory` allows 512MiB
     --> gateway.toml:1:10
      |
    1 | memory = "512MiB"
      |          ^^^^^^^^
      |
      = help: lower some, or raise `memory`:
                   256 MiB  caches (cache.bytes_max)
                   128 MiB  request bodies (http.bodies_bytes_max)
                   128 MiB  responses (http.responses_bytes_max)
                    98 MiB  connections, 100000 × 1KiB (http.connections_max)
                    48 MiB  the process itself
                    32 MiB  topics being read (kafka.topic_in_flight_bytes_max)
                    16 MiB  shards, 2 × 8MiB (shards)
                   706 MiB  in all
    "#);
}

#[test]
fn syntax_that_is_not_toml() {
    insta::assert_snapshot!(refused("listen = [\n"), @r#"
    error: not TOML: unclosed array, expected `]`
     --> gateway.toml:1:11
      |
    1 | listen = [
      |           ^
      |
      = help: docs/config.md has examples; TOML is described at https://toml.io
    "#);
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = "shards = 1\nkafka_shards = 0\n[log]\nlevel = \"warn\"\n";
    let sources = with(
        &[
            ("SLUICEGATE_SHARDS", "2"),
            ("SLUICEGATE_LOG_LEVEL", "debug"),
        ],
        &[("shards", "3")],
        file,
    );
    let loaded = load(sources).expect("good");
    assert_eq!(loaded.config.settings.shards, Some(3));
    assert_eq!(loaded.config.settings.log.level, LogLevel::Debug);
    let origin = |key: &str| {
        let index = TABLE.iter().position(|it| it.key == key).expect("a key");
        loaded.origins.of(index).clone()
    };
    assert_eq!(origin("shards"), Origin::Flag);
    assert_eq!(origin("log.level"), Origin::Environment);
    assert!(matches!(
        origin("kafka_shards"),
        Origin::File { line: 2, .. }
    ));
    assert_eq!(origin("memory"), Origin::Default);
}

#[test]
fn errors_of_flags_and_environment_name_them() {
    let sources = with(
        &[("SLUICEGATE_DRAIN", "10"), ("SLUICEGATE_LISTEN", "8080")],
        &[("shards", "0"), ("tls.listen", "127.0.0.1:1, x")],
        "",
    );
    let text = load(sources).expect_err("four errors").render(false);
    insta::assert_snapshot!(text, @r#"
    error: `SLUICEGATE_DRAIN`: `10` has no unit: write "10s" or "10ms", whichever is meant
     |
     = help: 0s to 1h

    error: `SLUICEGATE_LISTEN`: `8080` has no address: "127.0.0.1:8080" or "0.0.0.0:8080"?
     |
     = help: a list of at most 16: ip:port such as 127.0.0.1:8080 or [::]:8080; port 0 takes any free one

    error: `--shards`: 0 is out of bounds
     |
     = help: 1 to 256; `none`: one a CPU

    error: `--tls-listen`: `x` is not an IP address and a port
     |
     = help: a list of at most 16: ip:port such as 127.0.0.1:8080 or [::]:8080; port 0 takes any free one
    "#);
}

#[test]
fn a_strange_variable_is_a_warning_and_a_service_link_is_not() {
    let sources = with(
        &[
            ("SLUICEGATE_SHARD", "2"),
            ("SLUICEGATE_CONFIG", "x"),
            ("SLUICEGATE_PORT", "tcp://10.0.0.1:80"),
            ("SLUICEGATE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("SLUICEGATE_PORT_80_TCP_PORT", "80"),
            ("SLUICEGATE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("SLUICEGATE_SERVICE_HOST", "10.0.0.1"),
            ("SLUICEGATE_SERVICE_PORT_HTTP", "80"),
            ("SLUICEGATE_ADMIN_SERVICE_PORT", "80"),
            ("SLUICEGATE_MEMORY", ""),
            ("PATH", "/bin"),
        ],
        &[],
        GOOD,
    );
    let loaded = load(sources).expect("warnings only");
    let messages: Vec<_> = loaded
        .report
        .findings
        .iter()
        .map(|it| it.message.as_str())
        .collect();
    assert_eq!(
        messages,
        ["`SLUICEGATE_SHARD` is set in the environment and is no setting"]
    );
    assert_eq!(
        loaded.report.findings[0].help,
        "did you mean `SLUICEGATE_SHARDS`?"
    );
}

/// Kubernetes injects variables with these endings; a setting named so would read them.
#[test]
fn no_variable_looks_like_a_service_link() {
    for setting in TABLE {
        let name = setting.variable();
        for ending in ["_PORT", "_HOST", "_ADDR"] {
            assert!(!name.ends_with(ending), "{name}");
        }
    }
}

#[test]
fn every_default_reads_back_and_lies_within_its_bounds() {
    let defaults = Settings::default();
    for setting in TABLE {
        let mut read = Settings::default();
        let shown = (setting.show)(&defaults);
        let put = (setting.put)(&mut read, &kind::Raw::Word(shown.clone()));
        assert_eq!(put, Ok(()), "{} = {shown}", setting.key);
        assert_eq!(read, defaults, "{} = {shown}", setting.key);
        assert!(setting.doc.trim().ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn the_defaults_alone_are_a_good_config() {
    let loaded = load(Sources::default()).expect("good");
    assert_eq!(loaded.report.findings.len(), 1, "that there are no routes");
}

#[test]
fn listening_beyond_loopback_must_be_meant() {
    for text in ["listen = [\"0.0.0.0:80\"]", "listen = [\"[::]:80\"]"] {
        assert!(refused(text).contains("without authentication"), "{text}");
        load(file(&format!("auth = \"none\"\n{text}"))).expect("it is meant");
    }
    load(file("listen = [\"[::1]:80\", \"127.1.2.3:80\"]")).expect("loopback");
    let admin = refused("auth = \"none\"\n[admin]\nlisten = \"0.0.0.0:9464\"");
    assert!(admin.contains("the admin port"), "auth is not about it");
}

#[test]
fn tls_is_whole_or_not_there() {
    let tls = |lines: &str| format!("[tls]\n{lines}");
    for lines in [
        "certificate = \"c\"\nkey = \"k\"",
        "listen = [\"127.0.0.1:1\"]\nkey = \"k\"",
        "listen = [\"127.0.0.1:1\"]\ncertificate = \"c\"",
        "listen = [\"127.0.0.1:1\"]",
        "key = \"k\"",
        "certificate = \"c\"",
    ] {
        refused(&tls(lines));
    }
    let whole = "listen = [\"127.0.0.1:1\"]\ncertificate = \"c\"\nkey = \"k\"";
    load(file(&tls(whole))).expect("whole");
}

#[test]
fn origins_are_exact() {
    let cors = |origin: &str| format!("[cors]\norigins = [\"{origin}\"]");
    for bad in [
        "*",
        "null",
        "https://a.example/",
        "https://A.example",
        "a.example",
        "https://*.example",
        "https://a.example:443",
        "https://",
        "https://a:0",
    ] {
        refused(&cors(bad));
    }
    for good in [
        "https://a.example",
        "http://127.0.0.1:8081",
        "http://[::1]:8081",
    ] {
        load(file(&cors(good))).expect(good);
    }
}

#[test]
fn credentials_and_the_gateways_own_headers_are_not_for_routes() {
    let command = |line: &str| {
        let head = "name = \"a\"\nroute = \"POST /a\"\ntopic = \"c\"\nreplies = \"r\"";
        format!("[[command]]\n{head}\n{line}\n")
    };
    for line in [
        "forward = [\"Authorization\"]",
        "forward = [\"cookie\"]",
        "forward = [\"reply-to\"]",
        "forward = [\"a b\"]",
        "headers = { correlation-id = \"x\" }",
        "headers = { a = \"{header.Authorization}\" }",
        "headers = { a = 1 }",
        "headers = { \"\" = \"x\" }",
    ] {
        refused(&command(line));
    }
    load(file(&command("headers = { \":op\" = \"x-{header.A}\" }"))).expect("fine");
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that a config is made of, so that nonsense gets deep.
    fn piece() -> impl Strategy<Value = String> {
        let words = TABLE
            .iter()
            .flat_map(|it| it.key.split('.'))
            .map(str::to_owned);
        let words: Vec<_> = words.collect();
        prop_oneof![
            Just("[[command]]\n".to_owned()),
            Just("[[query]]\n".to_owned()),
            Just("[[stream]]\n".to_owned()),
            Just("name = \"n\"\n".to_owned()),
            Just("topic = \"t\"\nreplies = \"r\"\n".to_owned()),
            "route = \"(GET|POST|X)? ?/?[a-z{}/%ä]{0,12}\"\n",
            "(key|filter.key|filter|headers|forward|start) = [\"'{]?[a-z{}.:/ä]{0,12}[\"'}]?\n",
            proptest::sample::select(words.clone()).prop_map(|it| format!("[{it}]\n")),
            (
                proptest::sample::select(words),
                "[0-9a-zA-Z\"\\[\\]{},.:\\\\-]{0,12}"
            )
                .prop_map(|(key, value)| format!("{key} = {value}\n")),
            "\\PC{0,8}",
            "[\\x00-\\x7f]{0,6}",
        ]
    }

    proptest! {
        /// Whatever the file: no panic, every place lies in it, and it can be shown.
        #[test]
        fn any_text_is_a_config_or_placed_findings(
            pieces in proptest::collection::vec(piece(), 0..12)
        ) {
            let text = pieces.concat();
            let report = match load(file(&text)) {
                Ok(loaded) => loaded.report,
                Err(report) => {
                    prop_assert!(report.errors() > 0);
                    report
                }
            };
            for finding in &report.findings {
                for at in finding.at.iter().chain(finding.also.iter().map(|(at, _)| at)) {
                    prop_assert!(text.get(at.clone()).is_some(), "{:?}", finding);
                }
            }
            let _ = report.render(false);
        }
    }
}

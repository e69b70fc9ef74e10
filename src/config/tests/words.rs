//! The exact texts of findings, as an operator reads them.

use super::*;

#[test]
fn an_unknown_key_is_shown_with_what_was_meant() {
    insta::assert_snapshot!(refused("[[query]]\nroute = \"GET /a\"\ntopc = \"a\"\n"), @r#"
    error: unknown key `topc` in [[query]]
     --> gateway.toml:3:1
      |
    3 | topc = "a"
      | ^^^^
      |
      = help: did you mean `topic`?
    "#);
}

/// One mistake is one error, at the place of the mistake.
#[test]
fn a_mistake_has_no_errors_that_follow_from_it() {
    let cases = [
        // A table of the wrong kind: its other keys are not looked at.
        (
            "[[command]]\nroute = \"GET /a/{id}\"\ntopic = \"a\"\nkey = \"{path.id}\"\nstart = \"live\"\n",
            "a command is not a GET",
            "gateway.toml:2:9",
            "`[[query]]`",
        ),
        (
            "[[query]]\nname = \"a\"\nroute = \"POST /a\"\ntopic = \"a\"\nreplies = \"r\"\n",
            "a query is a GET, not a POST",
            "gateway.toml:3:9",
            "or use `[[command]]`",
        ),
        (
            "[[stream]]\nroute = \"PUT /a/{id}\"\ntopic = \"a\"\n",
            "a stream is a GET, not a PUT",
            "gateway.toml:2:9",
            "write \"GET /a/{id}\"",
        ),
        // A filter as text: the parameter of the path is not unused.
        (
            "[[stream]]\nroute = \"GET /a/{id}\"\ntopic = \"a\"\nfilter = \"{path.id}\"\n",
            "`filter` is a table",
            "gateway.toml:4:10",
            "write `filter.key = \"{path.id}\"`",
        ),
        (
            "[[stream]]\nroute = \"GET /a/{id}\"\ntopic = \"a\"\nfilter.keys = \"{path.id}\"\n",
            "unknown key `keys` in [stream.filter]",
            "gateway.toml:4:8",
            "did you mean `key`?",
        ),
        // A misspelt key, required or not.
        (
            "[[command]]\nnam = \"a\"\nroute = \"POST /a\"\ntopic = \"a\"\n",
            "unknown key `nam` in [[command]]",
            "gateway.toml:2:1",
            "did you mean `name`?",
        ),
        (
            "[[query]]\nroute = \"GET /a/{id}\"\ntopic = \"a\"\nkye = \"{path.id}\"\n",
            "unknown key `kye` in [[query]]",
            "gateway.toml:4:1",
            "did you mean `key`?",
        ),
        (
            "[[quary]]\nroute = \"GET /a\"\ntopic = \"a\"\n",
            "unknown key `quary`",
            "gateway.toml:1:3",
            "did you mean `query`?",
        ),
        // Another language, and a text that is not closed.
        (
            "# routes\nkafka:\n  bootstrap: [localhost:9092]\nquery:\n  - route: GET /a\n",
            "this is YAML, and a config is TOML",
            "gateway.toml:2:1",
            "bootstrap = [",
        ),
        (
            "{ \"kafka\": { \"bootstrap\": [] } }\n",
            "this is JSON, and a config is TOML",
            "gateway.toml:1:1",
            "`sluicegate init`",
        ),
        (
            "[[query]]\nroute = \"GET /a\ntopic = \"a\"\nkey = \"b\"\n",
            "not TOML",
            "gateway.toml:2:",
            "docs/config.md",
        ),
        // TLS with nothing to show: both files are named at once.
        (
            "tls.listen = [\"127.0.0.1:8443\"]\n[[query]]\nroute = \"GET /a\"\ntopic = \"a\"\n",
            "HTTPS needs `tls.certificate` and `tls.key`",
            "gateway.toml:1:14",
            "PEM",
        ),
    ];
    for (text, message, place, help) in cases {
        let said = refused(text);
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        for wanted in [message, place, help] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }
}

#[test]
fn an_event_of_the_gateways_own_is_no_name_for_a_routes() {
    let stream = |event: &str| {
        format!("[[stream]]\nroute = \"GET /a\"\ntopic = \"a\"\nevent = \"{event}\"\n")
    };
    for event in crate::model::EventName::RESERVED
        .into_iter()
        .chain([" led by a space"])
    {
        let said = refused(&stream(event));
        assert!(said.contains("choose another name"), "{event}: {said}");
        assert!(said.contains("gateway.toml:4:9"), "{event}: {said}");
    }
    assert!(load(file(&format!("{GOOD}{}", stream("payment")))).is_ok());
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
      = help: `window_bytes_max` belongs in `[streams]`

    error: unknown key `nonsense` in [http]
     --> gateway.toml:3:1
      |
    3 | nonsense = 1
      | ^^^^^^^^
      |
      = help: known keys: connections_max, address_connections_max, head_bytes_max, headers_max, body_bytes_max, bodies_bytes_max, responses_bytes_max, head_timeout, body_timeout, body_rate_min, idle_timeout, write_timeout, vanished_timeout, compress, query_timeout
    "#);
}

#[test]
fn a_bare_number_gets_both_readings() {
    insta::assert_snapshot!(refused("drain = 10\n[http]\nhead_bytes_max = 64\n"), @r#"
    error: `drain`: `10` has no unit: write "10s" or "10ms"
     --> gateway.toml:1:9
      |
    1 | drain = 10
      |         ^^
      |
      = help: 0s to 1h

    error: `http.head_bytes_max`: `64` has no unit: write "64B" or "64KiB"
     --> gateway.toml:3:18
      |
    3 | head_bytes_max = 64
      |                  ^^
      |
      = help: 1KiB to 63KiB
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
[[stream]]
route = "GET /b"
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

    error: `pay ments` is not a valid topic name
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

    error: `POST /accounts/{account}` is defined twice (lines 5 and 11)
      --> gateway.toml:11:9
       |
     5 | route = "POST /accounts/{id}"
       |         --------------------- the first is here
    ...
    11 | route = "POST /accounts/{account}"
       |         ^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: change the path of one, or remove it

    error: `c` is used for commands and for replies
      --> gateway.toml:13:11
       |
    12 | topic = "c"
       |         --- commands are written to it
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

    error: `start`: `snapshoot` is not a known value: did you mean `snapshot`?
      --> gateway.toml:24:9
       |
    24 | start = "snapshoot"
       |         ^^^^^^^^^^^
       |
       = help: `live`, `earliest` or `snapshot`
    "#);
}

#[test]
fn a_path_defined_twice_shows_both_lines() {
    let text = "[[query]]\nroute = \"GET /a/{x}\"\ntopic = \"t\"\nkey = \"{path.x}\"\n\
                [[stream]]\nroute = \"GET /a/{y}\"\ntopic = \"t\"\nfilter.key = \"{path.y}\"\n";
    insta::assert_snapshot!(refused(text), @r#"
    error: `GET /a/{y}` is defined twice (lines 2 and 6)
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
    error: the caps add up to 1474 MiB, and `memory` allows 512MiB
     --> gateway.toml:1:10
      |
    1 | memory = "512MiB"
      |          ^^^^^^^^
      |
      = help: lower some, or raise `memory`:
                   625 MiB  connections of HTTP/2, 10000 × 64KiB (http2.connections_max)
                   256 MiB  caches (cache.bytes_max)
                   128 MiB  request bodies (http.bodies_bytes_max)
                   128 MiB  responses (http.responses_bytes_max)
                    98 MiB  connections, 100000 × 1KiB (http.connections_max)
                    64 MiB  responses of brokers with records, 8 × 8MiB (kafka.fetch_bytes_max)
                    48 MiB  the process itself
                    48 MiB  record batches being unpacked, 3 × 16MiB (kafka.batch_bytes_max)
                    32 MiB  topics being read (kafka.topic_in_flight_bytes_max)
                    28 MiB  compressed answers to queries, 2 × 14MiB (http.compress)
                    16 MiB  shards, 2 × 8MiB (shards)
                     2 MiB  counters of single clients
                     1 MiB  records waiting for their order
                  1474 MiB  in all
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
fn errors_of_flags_and_environment_name_them() {
    let sources = with(
        &[("SLUICEGATE_DRAIN", "10"), ("SLUICEGATE_LISTEN", "8080")],
        &[("shards", "0"), ("tls.listen", "127.0.0.1:1, x")],
        "",
    );
    let text = load(sources).expect_err("four errors").render(false);
    insta::assert_snapshot!(text, @r#"
    error: `SLUICEGATE_DRAIN`: `10` has no unit: write "10s" or "10ms"
     |
     = help: 0s to 1h

    error: `SLUICEGATE_LISTEN`: `8080` has no address: "127.0.0.1:8080" or "0.0.0.0:8080"?
     |
     = help: a list of at most 16: ip:port such as 127.0.0.1:8080 or [::]:8080 (port 0: any free one), localhost:port, or unix:/path

    error: `--shards`: 0 is out of bounds
     |
     = help: 1 to 256; `none`: one per CPU

    error: `--tls-listen`: `x` is not an IP address and a port
     |
     = help: a list of at most 16: ip:port such as 127.0.0.1:8080 or [::]:8080 (port 0: any free one), localhost:port, or unix:/path
    "#);
}

#[test]
fn streams_do_not_show_replies() {
    let text = r#"
[[command]]
name = "pay"
route = "POST /pay"
topic = "c"
replies = "r"
[[stream]]
name = "replies"
route = "GET /replies"
topic = "r"
"#;
    insta::assert_snapshot!(refused(text), @r#"
    error: `r` is a replies topic, which streams can't send
      --> gateway.toml:10:9
       |
     6 | replies = "r"
       |           --- replies are read from it
    ...
    10 | topic = "r"
       |         ^^^
       |
       = help: let the service write what clients may see to another topic
    "#);
}

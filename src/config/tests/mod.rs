//! Configs that are accepted and configs that are rejected.

mod choices;
mod clusters;
mod kafka;
mod properties;
mod schemas;
mod words;

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
dedupe = "strict"
in_flight = "conflict"
condition = "required"

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
    assert_eq!(pay.dedupe, Dedupe::Strict);
    assert_eq!(pay.in_flight, InFlight::Conflict);
    assert_eq!(pay.condition, Condition::Required);
    assert!(!pay.tombstone);
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
        compacted[0].compacted_by,
        Some(("GET /accounts/{id}/events".into(), 33))
    );
    let linked = config.linked_topics();
    let linked: Vec<Vec<&str>> = linked
        .iter()
        .map(|it| it.iter().map(|(_, topic)| topic.as_str()).collect())
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
        ["`SLUICEGATE_SHARD` is set in the environment but is not a setting"]
    );
    assert_eq!(
        loaded.report.findings[0].help,
        "did you mean `SLUICEGATE_SHARDS`?"
    );
}

/// Kubernetes sets variables with these endings, so no setting's variable may have one.
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
fn shards_fit_the_cpus_and_leave_some_for_clients() {
    assert_eq!(
        load(file("")).expect("good").config.settings.shards_on(2),
        2
    );
    let named = load(file("cpus = \"0,2-3\"")).expect("good").config;
    assert_eq!(named.settings.shards_on(2), 3);
    for text in [
        "shards = 2\nkafka_shards = 2",
        "kafka_shards = 2",
        "shards = 3\ncpus = \"0-1\"",
    ] {
        refused(text);
    }
    load(file("shards = 2\nkafka_shards = 1\ncpus = \"0-1\"")).expect("one is left");
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
fn the_admin_port_overlaps_no_listener() {
    let with = |listen: &str| {
        format!("auth = \"none\"\nlisten = [{listen}]\n[admin]\nlisten = \"127.0.0.1:9464\"")
    };
    for listen in [
        "\"0.0.0.0:9464\"",
        "\"[::]:9464\"",
        "\"[::ffff:127.0.0.1]:9464\"",
    ] {
        let said = refused(&with(listen));
        let names = said.contains("overlap") && said.contains("admin.listen");
        assert!(names, "{listen}: {said}");
    }
    let clients = "\"0.0.0.0:80\", \"[::]:80\", \"127.0.0.2:9464\", \"[::1]:9464\"";
    load(file(&with(clients))).expect("client listeners may overlap");
    let twice = "\"127.0.0.1:80\", \"[::ffff:127.0.0.1]:80\"";
    assert!(refused(&with(twice)).contains("overlap"));
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

/// A route's `cors` overrides `[cors]` key by key.
#[test]
fn a_route_may_have_other_origins() {
    let route = |cors: &str| {
        format!(
            "[cors]\norigins = [\"https://a.example\"]\ncredentials = true\nmax_age = \"1min\"\n\
             [[query]]\nroute = \"GET /a\"\ntopic = \"q\"\n{cors}\n"
        )
    };
    let policy = |cors: &str| {
        let loaded = load(file(&route(cors))).map_err(|report| report.render(false));
        let config = loaded.expect("a good config").config;
        config.queries[0].edge.cors(&config.settings)
    };
    let all = policy("");
    assert_eq!(all.origins, ["https://a.example"]);
    let own = policy("cors = { origins = [\"https://b.example\"] }");
    assert_eq!(own.origins, ["https://b.example"]);
    assert_eq!((own.credentials, own.max_age), (true, all.max_age));
    let public = policy("cors = { origins = [\"*\"], credentials = false, max_age = \"1h\" }");
    assert_eq!((public.origins.len(), public.credentials), (1, false));
    assert_ne!(public.max_age, all.max_age);
    assert!(policy("cors = { origins = [] }").origins.is_empty());
    for bad in [
        "cors = { origins = [\"*\"] }",
        "cors = { origins = [\"*\"], credentials = true }",
        "cors = { origins = [\"*\", \"https://b.example\"], credentials = false }",
        "cors = { origins = [\"null\"] }",
        "cors = { origins = [\"https://b.example/\"] }",
        "cors = { origins = \"https://b.example\" }",
        "cors = { allow_headers = [\"a b\"] }",
        "cors = { expose_headers = [\"*\"] }",
        "cors = { max_age = \"2d\" }",
        "cors = { origin = [\"https://b.example\"] }",
        "cors = true",
    ] {
        refused(&route(bad));
    }
    let said = refused(&route("cors = { origins = [\"*\"] }"));
    assert!(
        said.contains("credentials = false for this route"),
        "{said}"
    );
}

#[test]
fn a_rate_has_requests_and_a_time() {
    let route = |rate: &str| format!("[[query]]\nroute = \"GET /a\"\ntopic = \"q\"\n{rate}\n");
    let rate = |text: &str| {
        let config = load(file(&route(text))).expect("a good config").config;
        config.queries[0].edge.rate
    };
    assert_eq!(rate(""), None);
    let full = rate("rate = { requests = 100, per = \"1min\" }").expect("a rate");
    assert_eq!(
        (full.requests, full.burst, full.per.as_secs()),
        (100, 100, 60)
    );
    let even = rate("rate = { requests = 10, per = \"1s\", burst = 1 }").expect("a rate");
    assert_eq!((even.requests, even.burst), (10, 1));
    for bad in [
        "rate = { requests = 100 }",
        "rate = { per = \"1s\" }",
        "rate = { requests = 0, per = \"1s\" }",
        "rate = { requests = 1, per = \"1ms\" }",
        "rate = { requests = 1, per = \"2d\" }",
        "rate = { requests = 1, per = \"1s\", burst = 0 }",
        "rate = { requests = 9, per = \"1s\", burst = 10 }",
        "rate = { requests = 1, per = \"1s\", brst = 1 }",
        "rate = 100",
    ] {
        refused(&route(bad));
    }
}

#[test]
fn pages_may_send_what_routes_forward_and_read() {
    let routes = r#"
[cors]
origins = ["https://a.example"]
allow_headers = ["X-Listed", "x-key"]
[[command]]
name = "a"
route = "POST /a"
topic = "c"
replies = "r"
key = "{header.x-key}"
headers = { tenant = "{header.x-tenant}-1", fixed = "x" }
forward = ["X-Forwarded", "content-language"]
[[query]]
route = "GET /a"
topic = "q"
key = "{header.x-user}"
[[stream]]
route = "GET /e"
topic = "e"
filter.key = "{header.x-filter}"
"#;
    let loaded = load(file(routes)).expect("a good config");
    let config = &loaded.config;
    let names = config.cors_request_headers(&config.settings.cors);
    let names: Vec<String> = names.into_iter().collect();
    let expected = [
        "content-language",
        "x-filter",
        "x-forwarded",
        "x-key",
        "x-listed",
        "x-tenant",
        "x-user",
    ];
    assert_eq!(names, expected);
    for bad in ["a b", "*", "\u{fc}", "a:"] {
        for key in ["allow_headers", "expose_headers"] {
            refused(&format!("[cors]\n{key} = [\"{bad}\"]"));
        }
    }
    let forward = |n: usize| format!("\"{}{n:03}\"", "x".repeat(120));
    let route = |n: usize| {
        let forward: Vec<String> = (n * 30..(n + 1) * 30).map(forward).collect();
        format!(
            "[[command]]\nname = \"c{n}\"\nroute = \"POST /c{n}\"\ntopic = \"c\"\nreplies = \"r\"\n\
             forward = [{}]\n",
            forward.join(", ")
        )
    };
    let many = format!("{}{}", route(0), route(1));
    load(file(&many)).expect("without CORS no list is sent");
    refused(&format!(
        "[cors]\norigins = [\"https://a.example\"]\n{many}"
    ));
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

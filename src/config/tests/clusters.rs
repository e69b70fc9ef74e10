//! `[[cluster]]`: each has TLS and SASL settings of its own, declared as those of `[kafka]`.

use super::*;
use crate::config::{Mechanism, SecretSource, settings_json, settings_text};

/// A file with TLS and SASL in `[kafka]`, and a second cluster with these tables.
fn two(tables: &str) -> String {
    format!(
        "[kafka]\nbootstrap = [\"a:9092\"]\n[kafka.tls]\nenabled = true\nca = \"/ca.pem\"\n\
         [kafka.sasl]\nmechanism = \"plain\"\nusername = \"first\"\npassword = \"hunter1\"\n\
         [[cluster]]\nname = \"edge\"\nbootstrap = [\"b:9092\"]\n{tables}\
         [[query]]\nroute = \"GET /x\"\ncluster = \"edge\"\ntopic = \"t\"\n"
    )
}

fn loaded(tables: &str) -> Loaded {
    let loaded = load(file(&two(tables))).expect("a good config");
    assert_eq!(loaded.report.findings, []);
    loaded
}

const EDGE: ClusterIndex = ClusterIndex(1);

#[test]
fn a_cluster_without_tables_gets_nothing_of_kafkas() {
    let config = loaded("").config;
    let security = config.cluster_security(EDGE);
    assert_eq!(security, (&KafkaTls::default(), &KafkaSasl::default()));
    assert!(!security.0.enabled && security.1.mechanism.is_none());
    let first = config.cluster_security(ClusterIndex::default());
    assert!(first.0.enabled && first.1.password.is_some());
}

#[test]
fn each_cluster_has_what_its_own_tables_say() {
    let text = two("[cluster.tls]\nenabled = true\n[cluster.sasl]\n\
         mechanism = \"scram-sha-512\"\nusername = \"second\"\n\
         password = { env = \"EDGE\" }\n\
         [[cluster]]\nname = \"third\"\nbootstrap = [\"c:9092\"]\n\
         sasl = { mechanism = \"oauthbearer\", token_file = \"/t\", token_interval = \"1min\" }\n\
         tls.enabled = true\n");
    let config = load(file(&text)).expect("a good config").config;
    let (tls, sasl) = config.cluster_security(EDGE);
    assert!(tls.enabled && tls.ca.is_none(), "{tls:?}");
    assert_eq!(sasl.mechanism, Some(Mechanism::ScramSha512));
    assert_eq!(sasl.username.as_deref(), Some("second"));
    assert_eq!(sasl.password, Some(SecretSource::Env("EDGE".into())));
    let (tls, sasl) = config.cluster_security(ClusterIndex(2));
    assert!(tls.enabled);
    assert_eq!(sasl.mechanism, Some(Mechanism::OauthBearer));
    assert_eq!((&sasl.username, &sasl.password), (&None, &None));
    let keys = config.cluster_keys(EDGE);
    let key = keys.key("sasl.password");
    assert_eq!(key, "cluster.sasl.password of cluster `edge`");
    let keys = config.cluster_keys(ClusterIndex::default());
    assert_eq!(keys.key("sasl.password"), "kafka.sasl.password");
}

#[test]
fn a_typo_has_its_line_and_what_was_meant() {
    let said = refused(&two("[cluster.sasl]\nmechanizm = \"plain\"\n"));
    for words in [
        "unknown key `mechanizm` in [cluster.sasl]",
        "did you mean `mechanism`?",
        "gateway.toml:14:",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn what_does_not_go_together_is_named_by_the_clusters_keys() {
    let sasl = "[cluster.sasl]\nmechanism = ";
    let cases = [
        (
            "[cluster.tls]\nenabled = true\ncertificate = \"/c\"\n".to_owned(),
            "`cluster.tls.certificate` is set without `cluster.tls.key`",
        ),
        (
            "[cluster.tls]\nca = \"/ca.pem\"\n".into(),
            "set cluster.tls.enabled = true",
        ),
        (
            format!("{sasl}\"plain\"\n"),
            "needs `cluster.sasl.username`",
        ),
        (
            format!("{sasl}\"oauthbearer\"\n"),
            "set cluster.sasl.token_file",
        ),
        (
            format!("{sasl}\"gssapi\"\n"),
            "`cluster.sasl.mechanism`: `gssapi`",
        ),
        (
            "[cluster.sasl]\ntoken_interval = \"1ms\"\n".into(),
            "`cluster.sasl.token_interval`: 1ms is out of bounds",
        ),
        ("sasl = \"plain\"\n".into(), "write `[cluster.sasl]`"),
        (
            "mechanism = \"plain\"\n".into(),
            "belongs in `[cluster.sasl]`",
        ),
        (
            "[cluster.sasl]\nca = \"/c\"\n".into(),
            "belongs in `[cluster.tls]`",
        ),
        (
            "fetch_wait = \"1s\"\n".into(),
            "`fetch_wait` belongs in `[kafka]`, for all clusters",
        ),
    ];
    for (tables, words) in cases {
        let said = refused(&two(&tables));
        assert!(said.contains(words), "{tables}\n{said}");
    }
    let bare = format!("{sasl}\"plain\"\nusername = \"u\"\npassword = \"p\"\n");
    let report = load(file(&two(&bare))).expect("warned only").report;
    let said = report.render(false);
    assert!(said.contains("cluster.tls.enabled"), "{said}");
}

#[test]
fn a_clusters_settings_are_shown_with_their_lines_and_without_secrets() {
    let loaded = loaded(
        "log_id = \"l\"\n[cluster.sasl]\nmechanism = \"scram-sha-256\"\n\
         username = \"second\"\npassword = \"hunter2\"\n",
    );
    let text = settings_text(&loaded);
    let json = settings_json(&loaded);
    let all = format!("{text}{json}{:?}", loaded.config);
    assert!(!all.contains("hunter"), "{all}");
    for (key, value, origin) in [
        ("bootstrap", "b:9092", "gateway.toml:12"),
        ("log_id", "l", "gateway.toml:13"),
        ("tls.enabled", "false", "default"),
        ("sasl.username", "second", "gateway.toml:16"),
        ("sasl.password", "[secret]", "gateway.toml:17"),
    ] {
        let key = format!("cluster.edge.{key}");
        let mut lines = text.lines().map(|line| line.split_whitespace());
        let line = lines.find_map(|mut it| (it.next() == Some(&key)).then_some(it));
        let words: Vec<_> = line.unwrap_or_else(|| panic!("{key}: {text}")).collect();
        assert_eq!(words, [value, origin], "{key}");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json[&key]["value"], value);
    }
    let first = "kafka.sasl.username";
    assert!(
        text.lines()
            .any(|it| it.starts_with(first) && it.contains("first"))
    );
}

/// `check` prints excerpts of the file, and its output ends up in logs of pipelines.
#[test]
fn no_excerpt_shows_a_secret() {
    for tables in [
        "password = \"hunter2\"\n",
        "pasword = \"hunter2\"\n",
        "password = \"\"\"hunter2\n\"\"\"\nusername = \"\"\n",
        "password = [\"hunter2\"]\n",
        "password = { value = \"hunter2\" }\n",
        "password = hunter2\n",
        "password = \"hunter2\n",
    ] {
        for section in ["kafka", "cluster"] {
            let text = match section {
                "kafka" => format!("[kafka.sasl]\n{tables}"),
                _ => format!(
                    "[[cluster]]\nname = \"e\"\nbootstrap = [\"b:1\"]\n[cluster.sasl]\n{tables}"
                ),
            };
            let said = refused(&text);
            assert!(!said.contains("hunter2"), "{text}\n{said}");
            assert!(
                said.contains("[secret]") || said.contains("username"),
                "{said}"
            );
        }
    }
    // The source of a secret may be printed, and findings keep their lines.
    let place = "[kafka.sasl]\npassword = { env = \"NAME\" }\n[kafka.tls]\ncertificat = \"/c\"\n";
    assert!(refused(place).contains("env = \"NAME\""));
    let after = "[kafka.sasl]\npassword = \"hunter2\"\nusername = \"u\"\n[kafka.tls]\nx = 1\n";
    let said = refused(after);
    assert!(
        said.contains("gateway.toml:3:12") && said.contains("gateway.toml:5:1"),
        "{said}"
    );
}

//! Checks of TLS and SASL settings towards brokers, and secrets that must not be printed.

use super::*;
use crate::config::{Mechanism, SecretSource, settings_text};

const ROUTE: &str = "[[query]]\nroute = \"GET /x\"\ntopic = \"t\"\n";

fn routed(tables: &str) -> String {
    format!("{tables}{ROUTE}")
}

/// Messages and help of all findings.
fn wrong(tables: &str) -> String {
    let report = match load(file(&routed(tables))) {
        Ok(loaded) => loaded.report,
        Err(report) => report,
    };
    let each = report.findings.iter();
    let each = each.map(|it| format!("{:?} {}: {}\n", it.severity, it.message, it.help));
    each.collect()
}

#[test]
fn a_secured_cluster_reads_as_it_says() {
    let text = routed(
        "[kafka]\nbootstrap = [\"b:9093\"]\n[kafka.tls]\nenabled = true\nca = \"/ca.pem\"\n\
         [kafka.headers]\npreset = \"zilla\"\n\
         [kafka.sasl]\nmechanism = \"scram-sha-512\"\nusername = \"gw\"\n\
         password = { env = \"KAFKA_PASSWORD\" }\n",
    );
    let loaded = load(file(&text)).expect("a good config");
    assert_eq!(loaded.report.findings, []);
    let settings = &loaded.config.settings;
    assert!(settings.kafka_tls.enabled);
    assert_eq!(settings.kafka_sasl.mechanism, Some(Mechanism::ScramSha512));
    let source = SecretSource::Env("KAFKA_PASSWORD".into());
    assert_eq!(settings.kafka_sasl.password, Some(source));
    assert_eq!(loaded.config.headers.correlation_id, "zilla:correlation-id");
    assert_eq!(settings.kafka.bootstrap[0].port, 9093);
}

#[test]
fn a_password_is_never_shown_and_has_no_flag() {
    let text = routed(
        "[kafka.tls]\nenabled = true\n[kafka.sasl]\nmechanism = \"plain\"\n\
         username = \"gw\"\npassword = \"hunter2\"\n",
    );
    let loaded = load(file(&text)).expect("a good config");
    let shown = settings_text(&loaded) + &format!("{:?}", loaded.config);
    assert!(shown.contains("[secret]") && !shown.contains("hunter2"));
    let variables = [("SLUICEGATE_KAFKA_SASL_PASSWORD", "hunter3")];
    let loaded = load(with(&variables, &[], &text)).expect("a good config");
    let SecretSource::Here(secret) = loaded.config.settings.kafka_sasl.password.expect("set")
    else {
        panic!("the environment has it");
    };
    assert_eq!(secret.expose(), "hunter3");
}

#[test]
fn what_does_not_go_together_is_named() {
    let sasl = "[kafka.sasl]\nmechanism = ";
    let cases = [
        (
            "[kafka.tls]\nca = \"/ca.pem\"\n".to_owned(),
            "kafka.tls.enabled = true",
        ),
        (
            "[kafka.tls]\nenabled = true\nkey = \"/k\"\n".into(),
            "set without `kafka.tls.certificate`",
        ),
        (format!("{sasl}\"plain\"\n"), "needs `kafka.sasl.username`"),
        (format!("{sasl}\"oauthbearer\"\n"), "has no token"),
        (
            format!("{sasl}\"oauthbearer\"\ntoken_file = \"/t\"\ntoken_command = [\"t\"]\n"),
            "from a file and from a command",
        ),
        (
            format!("{sasl}\"oauthbearer\"\ntoken_file = \"/t\"\nusername = \"u\"\n"),
            "`kafka.sasl.username` is not used",
        ),
        ("[kafka.sasl]\nusername = \"u\"\n".into(), "is not used"),
        (
            format!("{sasl}\"plain\"\nusername = \"u\"\npassword = \"p\"\n"),
            "without encryption",
        ),
        (
            "[kafka.sasl]\npassword = { vault = \"x\" }\n".into(),
            "does not say where it is",
        ),
        (format!("{sasl}\"gssapi\"\n"), "not a known value"),
        (
            "[kafka.tls]\ncertificat = \"/c\"\n".into(),
            "did you mean `certificate`",
        ),
    ];
    for (tables, words) in cases {
        let said = wrong(&tables);
        assert!(said.contains(words), "{tables}\n{said}");
    }
}

/// A table with a misspelt key causes only that finding: what seems to be missing or unused beside
/// it would mislead.
#[test]
fn a_mistyped_value_or_key_is_all_that_is_told() {
    let rest = "username = \"u\"\npassword = \"p\"\n";
    let mistyped = "mechanism = \"scram-sha-521\"\n";
    let unknown = "mechanizm = \"scram-sha-512\"\n";
    let edge = "[[cluster]]\nname = \"edge\"\nbootstrap = [\"e:1\"]\n";
    for (table, name) in [
        ("[kafka.sasl]\n".to_owned(), "kafka"),
        (format!("{edge}[cluster.sasl]\n"), "cluster"),
    ] {
        let said = wrong(&format!("{table}{mistyped}{rest}"));
        let expected = format!(
            "Error `{name}.sasl.mechanism`: `scram-sha-521` is not a known value: did you mean \
             `scram-sha-512`?"
        );
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let said = wrong(&format!("{table}{unknown}{rest}"));
        assert!(said.contains("did you mean `mechanism`?"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = wrong("[kafka.tls]\nenabled = \"yes\"\nca = \"/ca.pem\"\n");
    assert_eq!(said.lines().count(), 1, "{said}");
    // A variable sets a secret as well.
    let text = routed(&format!("[kafka.sasl]\n{rest}"));
    let variables = [("SLUICEGATE_KAFKA_SASL_MECHANISM", "plane")];
    let report = load(with(&variables, &[], &text)).expect_err("no such mechanism");
    let messages: Vec<_> = report.findings.iter().map(|it| &*it.message).collect();
    let [message] = messages[..] else {
        panic!("{messages:?}");
    };
    assert!(message.contains("did you mean `plain`?"), "{message}");
}

/// Kafka's own spelling of the mechanisms.
#[test]
fn mechanisms_are_known_in_any_case() {
    let rest = "username = \"u\"\npassword = \"p\"\n";
    let tls = "[kafka.tls]\nenabled = true\n";
    for (word, wanted) in [
        ("PLAIN", Mechanism::Plain),
        ("SCRAM-SHA-256", Mechanism::ScramSha256),
        ("Scram-SHA-512", Mechanism::ScramSha512),
    ] {
        let read = |sources| {
            let loaded = load(sources).expect("a good config");
            let mechanism = loaded.config.settings.kafka_sasl.mechanism;
            assert_eq!(mechanism, Some(wanted), "{word}");
            let shown = settings_text(&loaded);
            assert!(!shown.contains(word), "it is shown as it is documented");
        };
        let said = format!("mechanism = \"{word}\"\n");
        read(file(&routed(&format!("{tls}[kafka.sasl]\n{said}{rest}"))));
        let text = routed(&format!("{tls}[kafka.sasl]\n{rest}"));
        let variable = ("SLUICEGATE_KAFKA_SASL_MECHANISM", word);
        read(with(&[variable], &[], &text));
        read(with(&[], &[("kafka.sasl.mechanism", word)], &text));
        let edge = "[[cluster]]\nname = \"edge\"\nbootstrap = [\"e:1\"]\n\
                    [cluster.tls]\nenabled = true\n";
        let text = routed(&format!("{edge}[cluster.sasl]\n{said}{rest}"));
        let loaded = load(file(&text)).expect("a good config");
        assert_eq!(loaded.config.clusters[0].sasl.mechanism, Some(wanted));
    }
    let said = wrong(&format!(
        "[kafka.sasl]\nmechanism = \"SCRAM-SHA-521\"\n{rest}"
    ));
    assert!(said.contains("did you mean `scram-sha-512`?"), "{said}");
    let said = wrong(&format!("[kafka.sasl]\nmechanism = \"GSSAPI\"\n{rest}"));
    assert!(said.contains("`scram-sha-512` or `oauthbearer`"), "{said}");
}

/// Requests wait behind a broker's retry, so no setting makes that wait longer than this.
#[test]
fn backoff_is_a_second_at_most() {
    let text = routed("[kafka]\nbackoff_max = \"2s\"\n");
    let said = refused(&text);
    assert!(
        said.contains("kafka.backoff_max") && said.contains("1s"),
        "{said}"
    );
    let text = routed("[kafka]\nbackoff_max = \"1s\"\n");
    assert!(load(file(&text)).is_ok());
}

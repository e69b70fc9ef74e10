//! `check --live` and `topics` on real Kafka, by every way to log in, and with a user's real rights.

use crate::admin::{Admin, Operation, Permission};
use crate::cluster::Cluster;
use crate::cluster::security::{Listener, PASSWORD, USER};
use crate::gateway::{config_file, run_to_end};

const ROUTES: &str = r#"
[[command]]
name = "pay"
route = "POST /payments"
topic = "live-commands"
replies = "live-replies"
[[query]]
route = "GET /accounts/{id}"
topic = "live-accounts"
key = "{path.id}"
"#;

fn run(kafka: &str, arguments: &[&str]) -> (i32, String, String) {
    let (_folder, path) = config_file(&(kafka.to_owned() + ROUTES));
    let config = ["--config", path.to_str().expect("UTF-8")];
    run_to_end(&[arguments, &config].concat(), &[])
}

/// The settings of a login by this mechanism.
fn login(cluster: &Cluster, mechanism: &str) -> String {
    let port = cluster.secured_port(1, Listener::Sasl);
    format!(
        "[kafka]\nbootstrap = [\"127.0.0.1:{port}\"]\n[kafka.sasl]\nmechanism = \
         \"{mechanism}\"\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\n"
    )
}

#[test]
fn rights_are_found_by_trying_them() {
    let cluster = Cluster::start_with_rights(1);
    let admin = Admin::of(&cluster.bootstrap());
    let plain = format!("[kafka]\nbootstrap = [\"{}\"]\n", cluster.bootstrap());
    let (code, _, said) = run(&plain, &["topics", "--create"]);
    assert_eq!(code, 0, "{said}");
    // The user may do nothing, and then everything.
    let scram = login(&cluster, "scram-sha-256");
    let (code, out, said) = run(&scram, &["check", "--live"]);
    assert_eq!(code, 78, "{said}{out}");
    assert!(
        out.contains("Describe the topic") || out.contains("does not exist"),
        "{out}"
    );
    admin.rule(USER, "*", Operation::All, Permission::Allow);
    for mechanism in ["scram-sha-256", "scram-sha-512"] {
        let (code, out, said) = run(&login(&cluster, mechanism), &["check", "--live"]);
        assert_eq!(code, 0, "{mechanism}: {said}{out}");
    }
    for (topic, operation, name) in [
        ("live-commands", Operation::Write, "Write"),
        ("live-replies", Operation::Read, "Read"),
    ] {
        admin.rule(USER, topic, operation, Permission::Deny);
        let (code, out, said) = run(&scram, &["check", "--live"]);
        assert_eq!(code, 78, "{said}{out}");
        let fix = format!("--allow-principal User:{USER} --operation {name} --topic {topic}");
        assert!(out.contains(&fix), "{out}");
        admin.unrule(USER, topic, operation, Permission::Deny);
    }
    // Another password: the login is refused, with the user's name and not the password.
    let wrong = scram.replace(PASSWORD, "wrong-password");
    let (code, _, said) = run(&wrong, &["check", "--live"]);
    assert_eq!(code, 69, "{said}");
    assert!(
        said.contains("refuses the login") && said.contains(USER),
        "{said}"
    );
    assert!(!said.contains("wrong-password"), "{said}");
}

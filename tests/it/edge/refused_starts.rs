//! Starts that fail, each with a message that names the cause and the remedy; and an unavailable
//! broker, which is not an error.

use std::net::TcpListener;

use sluicegate::broker::Settings;
use sluicegate::demo::listener::BrokerHandle;

use crate::gateway::{self, Gateway, config_file, run_to_end};
use crate::ground::{Ground, development, random};
use crate::scenarios::starting::wait_not_ready;

/// Runs a config that must be rejected. Returns the output.
fn refused(config: &str, code: i32, flags: &[&str]) -> String {
    let (_folder, path) = config_file(config);
    let path = path.to_str().expect("UTF-8");
    let arguments: Vec<&str> = ["run", "--config", path]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    let (got, out, said) = run_to_end(&arguments, &[]);
    assert_eq!(got, code, "{said}");
    assert_eq!(out, "", "errors go to standard error");
    said
}

#[test]
fn an_unknown_key_is_shown_with_what_was_meant() {
    let config = "listen = [\"127.0.0.1:0\"]\n\n[[query]]\nroute = \"GET /a\"\ntopc = \"a\"\n";
    let said = refused(config, 78, &[]);
    for part in [
        "unknown key `topc`",
        "did you mean `topic`?",
        "gateway.toml:5",
        "topc = \"a\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let config = "shards = \"many\"\n[http]\nhead_timeout = 10\n[[query]]\nroute = \"GET /a\"\ntopic = \"a\"\n\
                  [[stream]]\nroute = \"GET /a\"\ntopic = \"b\"\n";
    let said = refused(config, 78, &[]);
    for part in ["shards", "`10` has no unit", "`GET /a` is defined twice"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let (code, _, said) = run_to_end(&["run", "--config", "/nowhere/gateway.toml"], &[]);
    assert!(matches!(code, 78 | 69 | 2), "{code}: {said}");
    assert!(said.contains("/nowhere/gateway.toml"), "{said}");
}

#[test]
fn bad_usage_is_2() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["fly"],
        &["run", "--shards=0"],
    ] {
        let (code, _, said) = run_to_end(arguments, &[]);
        let wanted = if arguments[1..] == ["--shards=0"] {
            78
        } else {
            2
        };
        assert_eq!(code, wanted, "{arguments:?}: {said}");
        assert!(!said.is_empty());
    }
    let (code, out, _) = run_to_end(&["--help"], &[]);
    assert_eq!(code, 0);
    assert!(out.contains("run") && out.contains("demo"), "{out}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let topic = development().compacted("port-in-use", 1);
    let route = format!("\n[[query]]\nroute = \"GET /x\"\ntopic = \"{topic}\"\n");
    let config = gateway::settings(development().bootstrap(), 2) + &route;
    let listen = format!("--listen={address}");
    let said = refused(&config, 69, &[&listen]);
    assert!(said.contains(&address), "{said}");
    let admin = format!("--admin-listen={address}");
    let said = refused(&config, 69, &[&admin]);
    assert!(
        said.contains(&address) && said.contains("admin.listen"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_is_not_there_is_named() {
    let config = gateway::settings(development().bootstrap(), 1)
        + "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"/nowhere.pem\"\nkey = \"/nowhere.key\"\n\
           [[query]]\nroute = \"GET /x\"\ntopic = \"t\"\n";
    let said = refused(&config, 78, &[]);
    let expected = "tls.certificate: can't read /nowhere.pem";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn what_the_environment_says_counts() {
    let topic = development().compacted("environment", 1);
    let route = format!("\n[[query]]\nroute = \"GET /x\"\ntopic = \"{topic}\"\n");
    let (_folder, path) = config_file(&(gateway::settings("127.0.0.1:1", 1) + &route));
    let path = path.to_str().expect("UTF-8");
    let environment = [
        ("SLUICEGATE_HTTP_HEAD_TIMEOUT", "7s"),
        ("SLUICEGATE_CONFIG", path),
    ];
    let (code, out, said) = run_to_end(&["config", "show", "-o", "json"], &environment);
    assert_eq!(code, 0, "{said}");
    let line = out
        .lines()
        .find(|line| line.contains("head_timeout"))
        .unwrap_or(&out);
    assert!(line.contains("7s"), "{line}");
    let (code, _, said) = run_to_end(&["check"], &environment);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_broker_that_is_not_there_is_named_and_waited_for() {
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("it is bound").port()
    };
    let bootstrap = format!("127.0.0.1:{port}");
    let mut config = gateway::settings(&bootstrap, 2);
    config
        .push_str("\n[[query]]\nroute = \"GET /x/{id}\"\ntopic = \"late\"\nkey = \"{path.id}\"\n");
    let gateway = Gateway::launch(&config);
    wait_not_ready(&gateway, &bootstrap);
    gateway.wait_said_text(&bootstrap);
    assert_eq!(
        gateway.admin_get("/livez").status,
        200,
        "it lives, and waits"
    );
    let listen = ([127, 0, 0, 1], port).into();
    let broker = BrokerHandle::start(Settings::default(), random(), listen).expect("the port");
    let ground = Ground::at(&broker.bootstrap());
    ground.named_topic("late", 2, &[("cleanup.policy", "compact")]);
    gateway.wait_serving();
    assert_eq!(gateway.get("/x/none").status, 404);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
}

/// The exit code and standard error of `check` for a config.
fn checked(arguments: &[&str]) -> (i32, String) {
    let all: Vec<&str> = ["check"].iter().chain(arguments).copied().collect();
    let (code, _, said) = run_to_end(&all, &[]);
    (code, said)
}

/// `run` rejects each of these before it opens a socket.
#[test]
fn check_refuses_what_run_refuses_in_the_same_words() {
    let route = "[[query]]\nroute = \"GET /x\"\ntopic = \"t\"\n";
    let tls =
        "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"/nowhere.pem\"\nkey = \"/no.key\"\n";
    let ca = "[kafka.tls]\nenabled = true\nca = \"/nowhere.ca\"\n";
    let secret = "[kafka.sasl]\nmechanism = \"scram-sha-256\"\nusername = \"u\"\n\
                  password = { env = \"SLUICEGATE_NO_SUCH\" }\n";
    let edge = "[[cluster]]\nname = \"edge\"\nbootstrap = [\"e:1\"]\n[cluster.tls]\nenabled = true\n\
                ca = \"/nowhere.ca\"\n";
    let cases = [
        ("", "no routes"),
        ("# nothing\n", "no routes"),
        ("[log]\nlevel = \"warn\"\n", "no routes"),
        ("shards = 0\n", "shards"),
        ("x\n", "not TOML"),
        (
            &format!("{tls}{route}"),
            "tls.certificate: can't read /nowhere.pem",
        ),
        (
            &format!("{ca}{route}"),
            "kafka.tls.ca: can't read /nowhere.ca",
        ),
        (
            &format!("{secret}{route}"),
            "no `SLUICEGATE_NO_SUCH`; set it",
        ),
        (
            &format!("{edge}{route}"),
            "cluster.tls.ca of cluster `edge`",
        ),
        (&format!("shards = 1\ncpus = \"1023\"\n{route}"), "CPU 1023"),
        // All errors, not only the first.
        (&format!("{tls}{secret}{route}"), "SLUICEGATE_NO_SUCH"),
    ];
    for (config, words) in cases {
        let (_folder, path) = config_file(config);
        let path = path.to_str().expect("UTF-8");
        let said = refused(config, 78, &[]);
        assert!(said.contains(words), "{words}: {said}");
        let (code, same) = checked(&["--config", path]);
        let folder = |said: &str| {
            said.lines()
                .filter(|it| !it.contains("-->"))
                .collect::<String>()
        };
        assert_eq!((code, folder(&same)), (78, folder(&said)), "{config}");
        let (code, out, _) = run_to_end(&["check", "-o", "json", "--config", path], &[]);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, &json["ok"]), (78, &false.into()), "{out}");
    }
    // `run` without any config.
    let (code, _, said) = run_to_end(&["run"], &[]);
    assert_eq!((code, checked(&[])), (78, (78, said.clone())));
    assert!(
        said.contains("--config FILE") && said.contains("sluicegate demo"),
        "{said}"
    );
    // `config show` needs no routes.
    let (code, _, said) = run_to_end(&["config", "show"], &[]);
    assert_eq!(code, 0, "{said}");
}

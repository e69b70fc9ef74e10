//! Who gets what from the admin port and from the health port, and `sluicegate healthcheck`.

use std::net::SocketAddr;

use crate::app::App;
use crate::client::{Connection, Response};
use crate::gateway::{Gateway, config_file, run_to_end};
use crate::ground::development;

const TOKEN: &str = "a-token-of-24-characters";

fn get(address: SocketAddr, path: &str, more: &str) -> Response {
    let mut connection = Connection::open(address);
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 10.9.8.7:1\r\n{more}Connection: close\r\n\r\n");
    connection.send(request.as_bytes());
    connection.response(false)
}

fn health_port(gateway: &Gateway) -> SocketAddr {
    gateway.wait_said_text("health port open");
    gateway.addresses_said("health port open")[0]
}

#[test]
fn beyond_loopback_the_admin_port_needs_its_token() {
    let app = App::new(development());
    let (folder, path) = config_file(TOKEN);
    let token = format!("[admin]\ntoken = {{ file = \"{}\" }}\n", path.display());
    let config = app.config(1, "").replacen("[admin]\n", &token, 1);
    let config = config.replacen("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"", 1);
    let gateway = Gateway::launch(&config);
    gateway.wait_serving();
    let admin = gateway.admin();
    assert!(admin.ip().is_unspecified(), "{admin}");
    let admin = SocketAddr::new([127, 0, 0, 1].into(), admin.port());
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/metrics", "/status"] {
        assert_eq!(get(admin, path, "").status, 401, "{path}");
        assert_eq!(get(admin, path, &right).status, 200, "{path}");
    }
    assert_eq!(get(admin, "/readyz", "").text(), r#"{"ready":true}"#);
    assert!(get(admin, "/readyz", &right).text().contains("checks"));
    // The token is nowhere to be read.
    let everything = gateway.said() + get(admin, "/status", &right).text();
    assert!(!everything.contains(TOKEN));
    drop(folder);
    // The token is read at the start: the file is not there any more.
    let (_folder, path) = config_file(&config);
    let path = path.to_str().expect("UTF-8");
    let (code, _, said) = run_to_end(&["run", "--config", path], &[]);
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("admin.token: can't read") && said.contains("token = "),
        "{said}"
    );
}

#[test]
fn an_admin_port_that_is_open_to_others_without_a_token_is_refused() {
    let app = App::new(development());
    let config = app.config(1, "");
    let open = config.replacen(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        "[admin]\nlisten = \"0.0.0.0:0\"",
        1,
    );
    let short = config.replacen("[admin]\n", "[admin]\ntoken = \"too-short\"\n", 1);
    for (config, part) in [(open, "admin.token"), (short, "at least 16 characters")] {
        let (_folder, path) = config_file(&config);
        let path = path.to_str().expect("UTF-8");
        for command in ["run", "check"] {
            let (code, _, said) = run_to_end(&[command, "--config", path], &[]);
            assert_eq!(code, 78, "{said}");
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn the_health_port_answers_probes_and_healthcheck_asks_it() {
    let app = App::new(development());
    let config = app.config(1, "");
    let mut gateway = Gateway::launch_with(&config, &["--health-listen=0.0.0.0:0"]);
    gateway.wait_serving();
    let health = SocketAddr::new([127, 0, 0, 1].into(), health_port(&gateway).port());
    assert_eq!(get(health, "/livez", "").text(), r#"{"live":true}"#);
    assert_eq!(get(health, "/readyz", "").text(), r#"{"ready":true}"#);
    for path in ["/metrics", "/status", "/", "/items/a"] {
        assert_eq!(get(health, path, "").status, 404, "{path}");
    }
    let (_folder, path) = config_file(&config);
    let path = path.to_str().expect("UTF-8");
    let listen = format!("--health-listen=0.0.0.0:{}", health.port());
    let check = |more: &[&str]| {
        let line = [&["healthcheck", "--config", path, &listen], more].concat();
        run_to_end(&line, &[])
    };
    let (code, out, said) = check(&[]);
    assert_eq!((code, out.trim()), (0, r#"{"ready":true}"#), "{said}");
    assert_eq!(check(&["--live"]).0, 0);
    gateway.terminate();
    gateway.wait();
    let (code, _, said) = check(&[]);
    assert_eq!(code, 1);
    assert!(said.contains(&health.to_string()), "{said}");
    // The config itself names a free port only.
    let (code, _, said) = run_to_end(&["healthcheck", "--config", path], &[]);
    assert_eq!(code, 1);
    assert!(said.contains("set health.listen"), "{said}");
}

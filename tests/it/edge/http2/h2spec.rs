//! h2spec, the conformance suite of HTTP/2, with its strict cases. It is a Go program; where Go or
//! its module is not to be had, the tests print that they were skipped.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::certificate::Certificate;
use crate::app::App;
use crate::ground::development;
use crate::kafka::kfake::go;

const MODULE: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";

/// All cases of the suite.
const CASES: usize = 146;

/// Cases that fail on a listener without TLS, and why: such a listener speaks HTTP/1.1 too, and what
/// does not begin with HTTP/2's preface is a request of HTTP/1.1. It is answered with 400 and the
/// end, where the case expects a GOAWAY or the end alone.
const WITHOUT_TLS: [&str; 1] = ["Sends invalid connection preface"];

/// The program, if it can be built.
fn h2spec() -> Option<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("h2spec");
        let built = Command::new(go())
            .args(["install", MODULE])
            .env("GOBIN", &folder)
            .output()
            .map_err(|error| format!("go: {error}"))?;
        if built.status.success() {
            Ok(folder.join("h2spec"))
        } else {
            Err(String::from_utf8_lossy(&built.stderr).into_owned())
        }
    });
    match built {
        Ok(program) => Some(program.clone()),
        Err(why) => {
            let _shown = writeln!(std::io::stderr(), "SKIPPED, there is no h2spec: {why}");
            None
        }
    }
}

/// Runs all cases. Every one passes but those that are named.
fn run(address: SocketAddr, more: &[&str], exceptions: &[&str]) {
    let Some(program) = h2spec() else { return };
    let port = address.port().to_string();
    let done = Command::new(program)
        .args([
            "--strict",
            "-o",
            "10",
            "-h",
            "127.0.0.1",
            "-P",
            "/items/a",
            "-p",
            &port,
        ])
        .args(more)
        .output()
        .expect("it was built");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let failed = exceptions.len();
    let passed = CASES - failed;
    let sum = format!("{CASES} tests, {passed} passed, 0 skipped, {failed} failed");
    assert!(said.contains(&sum), "{said}");
    let (_, failures) = said.split_once("Failures:").unwrap_or_default();
    for name in exceptions {
        assert!(failures.contains(name), "{name} passes now: {said}");
    }
}

#[test]
fn without_tls() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "{\"n\":1}")]);
    let gateway = app.gateway(1);
    run(gateway.address(), &[], &WITHOUT_TLS);
}

#[test]
fn over_tls() {
    let certificate = Certificate::new();
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "{\"n\":1}")]);
    let gateway = app.gateway_with(1, &certificate.settings());
    run(gateway.tls_address(), &["-t", "-k"], &[]);
}

//! Other people's TLS clients: `openssl s_client` with each version, cipher and name, and curl.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::certificates::{Authority, Folder};
use crate::app::App;
use crate::client::Request;
use crate::ground::development;

/// What `openssl s_client` prints about a connection, and whether the handshake succeeded.
fn s_client(address: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-verify_return_error",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed (tests/setup)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text + &errors)
}

/// Runs curl over TLS. Returns its exit code and what it printed.
fn curl(address: SocketAddr, ca: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let port = address.port();
    let output = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            "--cacert",
            &ca.display().to_string(),
        ])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("https://localhost:{port}/items/a"))
        .output()
        .expect("curl is installed (tests/setup)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text + &errors)
}

#[test]
fn other_clients_agree_on_versions_ciphers_names_and_protocols() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.certificate("own", &authority.sign(&["localhost"]));
    folder.certificate("shop", &authority.sign(&["*.shop.example"]));
    folder.write("ca.pem", authority.pem());
    let other = format!(
        "[[certificate]]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        folder.path("shop.pem").display(),
        folder.path("shop.key").display()
    );
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = app.gateway_with(1, &folder.table(&other));
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let (address, ca) = (gateway.tls_address(), folder.path("ca.pem"));
    let ca_text = ca.display().to_string();
    let trusting = ["-CAfile", &ca_text, "-servername", "localhost"];

    // Each row: arguments, and what the output has. Empty: the handshake must fail.
    let rows: [(&[&str], &str); 18] = [
        (&["-tls1_3"], "TLSv1.3, Cipher is"),
        (&["-tls1_2"], "TLSv1.2, Cipher is"),
        (&["-tls1_1"], ""),
        (&["-tls1"], ""),
        (
            &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
            "Cipher is TLS_AES_128_GCM_SHA256",
        ),
        (
            &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
            "Cipher is TLS_AES_256_GCM_SHA384",
        ),
        (
            &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            "Cipher is TLS_CHACHA20_POLY1305_SHA256",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
            "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
            "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305",
        ),
        // Without forward secrecy, with CBC, or without encryption.
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], ""),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], ""),
        (&["-tls1_2", "-cipher", "NULL:eNULL"], ""),
        (&["-groups", "X25519"], "Server Temp Key: X25519"),
        (&["-groups", "P-256"], "Server Temp Key: ECDH, prime256v1"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "nonsense"], ""),
        (&["-verify_hostname", "localhost"], "Verification: OK"),
    ];
    let mut passed = 0;
    for (arguments, wanted) in rows {
        let all: Vec<&str> = trusting.iter().chain(arguments).copied().collect();
        let (connected, text) = s_client(address, &all);
        if wanted.is_empty() {
            assert!(!connected, "{arguments:?}: {text}");
        } else {
            assert!(connected && text.contains(wanted), "{arguments:?}: {text}");
        }
        passed += 1;
    }
    for (name, common) in [
        ("a.shop.example", "*.shop.example"),
        ("localhost", "localhost"),
        ("unknown.example", "localhost"),
    ] {
        let (_, text) = s_client(address, &["-CAfile", &ca_text, "-servername", name]);
        assert!(text.contains(&format!("CN = {common}")), "{name}: {text}");
        passed += 1;
    }
    let no_name = ["-CAfile", &ca_text, "-noservername"];
    assert!(s_client(address, &no_name).1.contains("CN = localhost"));
    // Six connections: a session, and five times the same by its ticket.
    let (_, text) = s_client(address, &["-tls1_2", "-reconnect", "-CAfile", &ca_text]);
    assert_eq!(text.matches("Reused, TLSv1.2").count(), 5, "{text}");
    passed += 2;

    for arguments in [
        &["--tlsv1.2", "--tls-max", "1.2"][..],
        &["--tlsv1.3"],
        &["--http1.1"],
        &["--no-alpn"],
        &["--no-sessionid"],
    ] {
        let (code, text) = curl(address, &ca, arguments);
        assert_eq!((code, &*text), (Some(0), "1"), "{arguments:?}");
        passed += 1;
    }
    let (code, text) = curl(address, &ca, &["--tls-max", "1.1"]);
    assert_eq!(code, Some(35), "{text}");
    println!(
        "{} rows of openssl and curl: {} as they must be",
        passed + 1,
        passed + 1
    );
}

#[test]
fn client_certificates_of_openssl_and_curl_are_asked_for() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    folder.certificate("own", &authority.sign(&["localhost"]));
    folder.certificate("till", &authority.sign(&["till"]));
    folder.certificate("foreign", &other.sign(&["till"]));
    folder.write("ca.pem", authority.pem());
    let ca = folder.path("ca.pem");
    let more = format!(
        "client_ca = \"{}\"\nclient_auth = \"required\"\n",
        ca.display()
    );
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = app.gateway_with(1, &folder.table(&more));
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let address = gateway.tls_address();
    let files = |name: &str| {
        let path = |end: &str| folder.path(&format!("{name}.{end}")).display().to_string();
        (path("pem"), path("key"))
    };
    for version in ["1.2", "1.3"] {
        let (chain, key) = files("till");
        let limits = ["--tlsv1.2", "--tls-max", version];
        let with = [&limits[..], &["--cert", &chain, "--key", &key]].concat();
        assert_eq!(curl(address, &ca, &with), (Some(0), "1".to_owned()));
        let (chain, key) = files("foreign");
        let foreign = [&limits[..], &["--cert", &chain, "--key", &key]].concat();
        for refused in [&foreign[..], &limits] {
            let (code, text) = curl(address, &ca, refused);
            assert_ne!(code, Some(0), "{version} {refused:?}: {text}");
        }
    }
    let (_, text) = s_client(address, &["-CAfile", &ca.display().to_string(), "-tls1_2"]);
    let names = "Acceptable client certificate CA names";
    assert!(
        text.contains(names) && text.contains("CN = authority"),
        "{text}"
    );
}

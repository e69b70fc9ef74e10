//! HTTP/2 over TLS: chosen by ALPN, by curl and by a browser.

use std::process::Command;

use super::certificate::Certificate;
use crate::app::App;
use crate::demo::browser::Browser;
use crate::ground::development;

/// What curl receives, and over which version of HTTP.
fn curl(url: &str, version: &str) -> String {
    let done = Command::new("curl")
        .args(["-sSk", version, "-w", " %{http_version}", url, url])
        .output()
        .expect("curl, which tests/setup installs");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn the_client_chooses_the_protocol() {
    let certificate = Certificate::new();
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "{\"n\":1}")]);
    let gateway = app.gateway_with(2, &certificate.settings());
    let url = format!("https://{}/items/a", gateway.tls_address());
    assert_eq!(curl(&url, "--http2"), "{\"n\":1} 2{\"n\":1} 2");
    assert_eq!(curl(&url, "--http1.1"), "{\"n\":1} 1.1{\"n\":1} 1.1");
    // At the limit TLS clients are not refused: HTTP/2 is not offered to them.
    for settings in [
        "[http2]\nconnections_max = 1\n",
        "[http2]\nenabled = false\n",
    ] {
        let gateway = app.gateway_with(1, &format!("{}{settings}", certificate.settings()));
        let url = format!("https://{}/items/a", gateway.tls_address());
        let _one = settings
            .contains("max")
            .then(|| super::client::Client::open(gateway.address()));
        gateway.wait_admin("/metrics", |page| {
            let open = u8::from(settings.contains("max"));
            let text = format!("sluicegate_http2_connections_open {open}\n");
            page.text().contains(&text)
        });
        assert_eq!(curl(&url, "--http2"), "{\"n\":1} 1.1{\"n\":1} 1.1");
    }
}

/// A browser opens six connections to an origin over HTTP/1.1, so the seventh stream would wait.
#[test]
fn a_browser_has_twenty_streams_on_one_connection() {
    let certificate = Certificate::new();
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "{\"n\":1}")]);
    let gateway = app.gateway_with(2, &certificate.settings());
    let mut browser = Browser::start();
    browser.ignore_certificates();
    browser.open(&format!("https://{}/items/a", gateway.tls_address()));
    browser.wait_for("document.body.innerText.includes('n')");
    browser.eval(
        "window.got = []; window.streams = []; for (let n = 0; n < 20; n++) { \
           const stream = new EventSource('/events/live'); \
           stream.onmessage = event => got.push(n + ':' + event.data); \
           streams.push(stream); } 0",
    );
    browser.wait_for("streams.every(stream => stream.readyState == EventSource.OPEN)");
    app.produce(&app.events).keyed([("k", "hello")]);
    browser.wait_for("new Set(got).size == 20 && got.every(it => it.endsWith(':hello'))");
    // A request passes between the streams.
    let asked = "fetch('/items/a').then(it => it.text())";
    assert_eq!(browser.eval(asked), "{\"n\":1}");
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.eval(protocol), "h2");
    assert_eq!(gateway.metric("sluicegate_streams_open", ""), 20.0);
    assert_eq!(gateway.metric("sluicegate_http2_connections_open", ""), 1.0);
    // The page closes them, and nothing of them stays.
    browser.eval("streams.forEach(stream => stream.close()) || 0");
    gateway.wait_admin("/metrics", |page| {
        let open = page.text().lines();
        let mut open = open.filter(|line| line.starts_with("sluicegate_streams_open{"));
        open.all(|line| line.ends_with(" 0"))
    });
}

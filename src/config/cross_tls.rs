//! Checks between the settings of TLS towards clients. What cannot be honoured is refused: a
//! certificate that no client would get, and authorities that nobody would ask.

use super::diagnose::Findings;
use super::origin::Origins;
use super::{CertificateFiles, ClientAuth, Settings};

/// Runs the checks.
pub(super) fn server(
    s: &Settings,
    others: &[CertificateFiles],
    from: &Origins,
    findings: &mut Findings,
) {
    certificate(s, from, findings);
    if let Some(first) = others.first()
        && s.tls.listen.is_empty()
    {
        let help = "add tls.listen, tls.certificate and tls.key: they are the default certificate";
        let message = "a [[certificate]] is set, but no address for HTTPS";
        findings.error(first.certificate_at.clone(), message, help);
    }
    client_certificates(s, from, findings);
}

fn certificate(s: &Settings, from: &Origins, findings: &mut Findings) {
    match (&s.tls.certificate, &s.tls.key, s.tls.listen.is_empty()) {
        (Some(_), Some(_), false) | (None, None, true) => {}
        (Some(_), Some(_), true) => {
            let help = "add tls.listen = [\"127.0.0.1:8443\"]";
            let at = from.at("tls.certificate");
            findings.error(at, "a certificate is set, but no address for HTTPS", help);
        }
        (None, None, false) => {
            let message = "HTTPS needs `tls.certificate` and `tls.key`";
            let help = "set both to PEM files: the certificate chain, and its key";
            findings.error(from.at("tls.listen"), message, help);
        }
        (certificate, _, no_listener) => {
            let missing = if certificate.is_none() {
                "tls.certificate"
            } else {
                "tls.key"
            };
            let given = if no_listener { "tls.key" } else { "tls.listen" };
            let at = from.at(given).or(from.at("tls.certificate"));
            let help = format!("set {missing} to the PEM file");
            findings.error(at, format!("HTTPS needs `{missing}`"), help);
        }
    }
}

fn client_certificates(s: &Settings, from: &Origins, findings: &mut Findings) {
    let asks = s.tls.client_auth != ClientAuth::None;
    let (auth, ca) = (from.name("tls.client_auth"), from.name("tls.client_ca"));
    match (asks, &s.tls.client_ca) {
        (true, None) => {
            let message = format!("{auth} needs `tls.client_ca`");
            let help = "set it to the PEM file with the authorities that sign for your clients";
            findings.error(from.at("tls.client_auth"), message, help);
        }
        (false, Some(_)) => {
            let message = format!("{ca} is set, but no client is asked for a certificate");
            let help = "set tls.client_auth = \"required\" or \"optional\"";
            findings.error(from.at("tls.client_ca"), message, help);
        }
        (true, Some(_)) if s.tls.listen.is_empty() => {
            let message = format!("{auth} is set, but no address for HTTPS");
            let help = "add tls.listen = [\"127.0.0.1:8443\"]";
            findings.error(from.at("tls.client_auth"), message, help);
        }
        _ => {}
    }
}

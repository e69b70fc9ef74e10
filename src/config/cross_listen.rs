//! Checks between the places to listen for clients.

use std::path::PathBuf;

use super::diagnose::Findings;
use super::origin::Origins;
use super::{ListenOn, Settings};

/// Runs the checks that concern no single address.
pub(super) fn places(s: &Settings, from: &Origins, findings: &mut Findings) {
    let mut seen: Vec<(&PathBuf, &str)> = Vec::new();
    for (key, all) in [("listen", &s.listen), ("tls.listen", &s.tls.listen)] {
        let name = from.name(key);
        for listen in all {
            if let ListenOn::Unix { path, .. } = &listen.on {
                if let Some((_, other)) = seen.iter().find(|(other, _)| *other == path) {
                    let both = format!("{} and {name}", from.name(other));
                    let message = format!("{both} both have unix:{}", path.display());
                    findings.error(from.at(key), message, "give each its own path");
                }
                seen.push((path, key));
            } else if listen.proxy_protocol && s.proxies.is_empty() {
                let message = format!("{name} has proxy_protocol, and no proxy may use it");
                let help = "set proxies = [\"10.0.0.0/8\"] to the networks of your proxies";
                findings.error(from.at(key), message, help);
            }
        }
    }
}

//! Checks of CORS: `[cors]`, and what each route changes of it.

use std::ops::Range;

use super::diagnose::Findings;
use super::origin::Origins;
use super::route_edge::RouteEdge;
use super::template::is_token;
use super::unit::KIB;
use super::{Config, Settings};

/// Most bytes of header names that routes and `allow_headers` add to a preflight's response.
pub const CORS_NAMES_BYTES_MAX: usize = 7 * KIB;

/// Checks `[cors]`. `*` is rejected there: a page of any origin could then use every route, those
/// of the next month included. A single route may say it.
pub(super) fn settings(s: &Settings, from: &Origins, findings: &mut Findings) {
    for origin in &s.cors.origins {
        let help = match origin.as_str() {
            "*" => {
                "list the origins; or let one route say `cors = { origins = [\"*\"] }`, which any \
                 page may then use"
            }
            other => match fault(other) {
                Some(help) => help,
                None => continue,
            },
        };
        let message = format!("`{origin}` is not an origin");
        findings.error(from.at("cors.origins"), message, help);
    }
    for (key, names) in [
        ("cors.allow_headers", &s.cors.allow_headers),
        ("cors.expose_headers", &s.cors.expose_headers),
    ] {
        header_names(names, from.at(key), findings);
    }
}

/// Checks what a route changes of `[cors]`.
pub(super) fn route(edge: &RouteEdge, settings: &Settings, findings: &mut Findings) {
    let Some(own) = &edge.cors else {
        return;
    };
    let at = || Some(own.at.clone());
    let policy = edge.cors(settings);
    for origin in own.origins.iter().flatten() {
        let help = match origin.as_str() {
            "*" if policy.origins.len() > 1 => "`*` includes the others: write it alone",
            "*" => continue,
            other => match fault(other) {
                Some(help) => help,
                None => continue,
            },
        };
        findings.error(at(), format!("`{origin}` is not an origin"), help);
    }
    if policy.origins == ["*"] && policy.credentials {
        let message = "any page could use this route with its visitor's cookies";
        let help = match own.credentials {
            Some(_) => "list the origins that may send cookies, or set credentials = false",
            None => "set credentials = false for this route: `[cors]` has `true`",
        };
        findings.error(at(), message, help);
    }
    header_names(own.allow_headers.iter().flatten(), at(), findings);
    header_names(own.expose_headers.iter().flatten(), at(), findings);
}

fn header_names<'a>(
    names: impl IntoIterator<Item = &'a String>,
    at: Option<Range<usize>>,
    findings: &mut Findings,
) {
    for name in names {
        if !is_token(name) || name == "*" {
            let message = format!("`{name}` is not the name of a header");
            let help = "name each header; a name has letters, digits and -";
            findings.error(at.clone(), message, help);
        }
    }
}

/// Checks that the header names of each policy fit a preflight's response.
pub(super) fn names(config: &Config, from: &Origins, findings: &mut Findings) {
    let of_settings = (config.settings.cors.clone(), from.at("cors.origins"));
    let of_routes = config.route_edges().filter_map(|edge| {
        let own = edge.cors.as_ref()?;
        Some((edge.cors(&config.settings), Some(own.at.clone())))
    });
    for (policy, at) in [of_settings].into_iter().chain(of_routes) {
        let names = config.cors_request_headers(&policy);
        let bytes: usize = names.iter().map(|name| name.len() + ", ".len()).sum();
        if !policy.origins.is_empty() && bytes > CORS_NAMES_BYTES_MAX {
            let message = format!(
                "pages may send {} headers, more than a preflight can list",
                names.len()
            );
            let help = format!(
                "forward and read fewer: their names may have {CORS_NAMES_BYTES_MAX} bytes"
            );
            findings.error(at, message, help);
        }
    }
}

/// Why no browser would ever send this origin. `None`: one may.
fn fault(origin: &str) -> Option<&'static str> {
    match origin {
        "null" => Some("`null` is every sandboxed page and file: list real origins"),
        text if is_origin(text) => None,
        text if text.ends_with('/') => Some("an origin has no slash at its end"),
        _ => Some("write scheme and host as browsers send them, such as https://shop.example:8443"),
    }
}

/// Whether `text` is an origin as browsers serialise it (RFC 6454 6.2): lower case, no path, no
/// default port.
fn is_origin(text: &str) -> bool {
    let (rest, default) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, ":443"),
        (_, Some(rest)) => (rest, ":80"),
        _ => return false,
    };
    let host_end = rest
        .rfind(':')
        .filter(|at| !rest[*at..].contains(']'))
        .unwrap_or(rest.len());
    let (host, port) = rest.split_at(host_end);
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._[]:".contains(&b);
    let port_ok = port.is_empty() || port[1..].parse::<u16>().is_ok_and(|n| n > 0);
    !host.is_empty() && host.bytes().all(legal) && port_ok && port != default
}

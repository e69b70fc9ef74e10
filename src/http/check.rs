//! The one function that properties and fuzzing share: what must hold for any bytes.

#![allow(clippy::indexing_slicing)] // A panic here is a finding.

use super::{Connection, HeaderTable, Limits, Method, Received, Refusal, ResponseContext, Version};

/// All that was read from a connection: requests in order, then how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) requests: Vec<Seen>,
    pub(super) refused: Option<(Refusal, ResponseContext)>,
    /// The `Origin` of the request that was refused.
    pub(super) origin: Option<Box<[u8]>>,
    /// Whether a partially received request is left at the end.
    pub(super) started: bool,
}

/// A copy of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) raw: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) host: String,
}

/// Reads `bytes` in pieces that end at `cuts` (places, in any order, taken modulo the length).
///
/// # Panics
/// If one of them disagrees with the whole, or a bound is broken. That is the point.
pub fn check_any_bytes(bytes: &[u8], cuts: &[u16]) {
    let limits = small_limits();
    let whole = read_pieces(&[bytes], &limits);
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|&cut| usize::from(cut) % (bytes.len() + 1))
        .collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places {
        pieces.push(&bytes[from..place]);
        from = place;
    }
    pieces.push(&bytes[from..]);
    assert_eq!(read_pieces(&pieces, &limits), whole, "cut into {pieces:?}");
}

/// Limits that short inputs can reach.
pub(super) fn small_limits() -> Limits {
    Limits {
        head_bytes_max: 512,
        headers_max: 8,
        uri_bytes_max: 64,
        body_bytes_max: 128,
    }
}

/// Feeds the pieces as a shard would: the rest behind a request is kept or read on, by turns.
pub(super) fn read_pieces(pieces: &[&[u8]], limits: &Limits) -> Reading {
    let (mut connection, mut table) = (Connection::new(), HeaderTable::new());
    let mut requests = Vec::new();
    for &piece in pieces {
        let mut input = piece;
        loop {
            let before = connection.kept();
            match connection.receive(input, limits, &mut table) {
                Received::Request(request, used) => {
                    check_request(&request, limits);
                    requests.push(see(&request));
                    assert!(used <= input.len(), "it takes only what is there");
                    assert!(used + before > 0, "a request has bytes, so this ends");
                    input = &input[used..];
                    if requests.len().is_multiple_of(2) {
                        connection.keep(input);
                        input = &[];
                    }
                }
                Received::More | Received::Continue(_) => {
                    let most = limits.head_bytes_max + limits.body_bytes_max;
                    assert!(connection.kept() <= most, "what is kept is bounded");
                    break;
                }
                Received::Refused(refusal, context, origin) => {
                    assert!(!context.keep_alive, "a refusal ends the connection");
                    assert_eq!(connection.kept(), 0, "and keeps nothing");
                    return Reading {
                        requests,
                        refused: Some((refusal, context)),
                        origin,
                        started: connection.started(),
                    };
                }
            }
        }
    }
    Reading {
        requests,
        refused: None,
        origin: None,
        started: connection.started(),
    }
}

fn check_request(request: &super::Request<'_>, limits: &Limits) {
    assert!(request.body.len() <= limits.body_bytes_max);
    assert!(request.headers.len() <= limits.headers_max);
    assert!(request.path.raw().len() <= limits.uri_bytes_max);
    let path = request.path.as_str();
    assert!(path.starts_with('/') || path == "*");
    assert!(!path.contains("//") && !path.contains('\\') && !path.contains('\0'));
    for (name, value) in request.headers.iter() {
        assert!(!name.is_empty() && !name.contains('_'));
        assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        assert!(request.headers.get_all(name).any(|v| v == value));
    }
    // None of the readers of headers may panic, whatever they hold.
    let headers = &request.headers;
    let none = |_: &[u8]| None;
    let _ = super::IfMatch::parse(headers, none).map(|it| it.map(|it| it.for_record()));
    let _ = super::IfNoneMatch::parse(headers, none).map(|it| it.map(|it| it.for_record()));
    let _ = super::IdempotencyKey::parse(headers);
    let _ = super::Prefer::parse(headers);
    let _ = super::accepts(headers, "application", "json");
    let _ = super::is_preflight(request);
    let _ = super::preflight_method(request);
    let _ = super::accepts_gzip(headers);
    let peer = std::net::Ipv4Addr::LOCALHOST.into();
    for by in [
        super::ForwardedBy::XForwardedFor,
        super::ForwardedBy::Forwarded,
    ] {
        let _ = super::client_address(peer, headers, by, |address| address.is_ipv4());
        let other = super::client_address(peer, headers, by, |_| false);
        assert_eq!(other, peer, "only a proxy is believed");
    }
    let mut policies = super::CorsPolicies::default();
    let policy = policies.add(None);
    let grant = policies.grant(policy, headers);
    let _ = policies.page_origin(request, grant);
}

fn see(request: &super::Request<'_>) -> Seen {
    let owned = |(n, v): (std::borrow::Cow<'_, str>, _)| (n.into_owned(), into_string(v));
    Seen {
        method: request.method,
        path: request.path.as_str().to_owned(),
        raw: request.path.raw().to_owned(),
        query: request.query.pairs().map(owned).collect(),
        headers: request
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect(),
        body: request.body.to_vec(),
        version: request.version,
        keep_alive: request.keep_alive,
        host: String::from_utf8(request.host.to_vec()).expect("it is ASCII"),
    }
}

fn into_string(text: std::borrow::Cow<'_, str>) -> String {
    text.into_owned()
}

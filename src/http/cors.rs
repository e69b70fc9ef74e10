//! Cross-origin requests (the Fetch standard's CORS protocol): exact origins, or any.
//!
//! A request's [`CorsGrant`] is decided when the request arrives, and outlives its bytes. Every
//! response of a route with CORS has `Vary: Origin`, even if the request had no `Origin`: otherwise
//! a shared cache could serve one origin's response to another.

use super::context::CorsGrant;
use super::fields::{ALLOW_ANY_ORIGIN, ALLOW_CREDENTIALS, VARY_ORIGIN};
use super::head::one_origin;
use super::headers::Headers;
use super::request::{Method, Request};
use super::response::Response;

/// Request headers that a page may send beside the safelisted ones: those that the gateway
/// understands, and the trace context that instrumented pages add to every request.
const ALLOW_HEADERS: [&str; 12] = [
    "authorization",
    "baggage",
    "cache-control",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "sluicegate-min-position",
    "traceparent",
    "tracestate",
];

/// Response headers that a page may read beside the safelisted ones: those that the gateway sets.
const EXPOSE_HEADERS: [&str; 10] = [
    "age",
    "allow",
    "date",
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "preference-applied",
    "retry-after",
    "www-authenticate",
];

/// Which pages of other origins may use a route. Part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    max_age_s: u32,
    allow_headers: String,
    expose_headers: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origins {
    Any,
    Listed(Vec<String>),
}

impl Cors {
    /// Most bytes of a list of header names. A response head with such a list and with a reply's
    /// headers stays below 32 KiB.
    pub const NAMES_BYTES_MAX: usize = 8 * 1024;

    /// A policy for `origins`, each as a browser sends it: `https://app.example`, lower case, no
    /// path, no default port; or `*` alone. `credentials`: cookies may be sent. `max_age_s`: how
    /// long a browser may keep the answer to a preflight. `allow` and `expose`: names of headers
    /// beyond those that the gateway itself understands and sets.
    ///
    /// # Errors
    /// A sentence that names what no browser would ever match, or what no policy should allow.
    pub fn new(
        origins: &[String],
        credentials: bool,
        max_age_s: u32,
        allow: &[String],
        expose: &[String],
    ) -> Result<Self, &'static str> {
        let origins = match origins {
            [any] if any == "*" && credentials => {
                return Err("credentials need a list of origins, not `*`");
            }
            [any] if any == "*" => Origins::Any,
            listed if listed.len() > usize::from(u16::MAX) => return Err("too many origins"),
            listed => {
                listed.iter().try_for_each(|origin| check_origin(origin))?;
                Origins::Listed(listed.to_vec())
            }
        };
        let is_name = |n: &String| !n.is_empty() && n.bytes().all(super::names::is_token_byte);
        if !allow.iter().chain(expose).all(is_name) {
            return Err("a header name is malformed");
        }
        let with = |ours: &[&str], more: &[String]| {
            let mut names: Vec<String> = ours.iter().map(|&name| name.into()).collect();
            for name in more {
                let name = name.to_ascii_lowercase();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names.join(", ")
        };
        let allow_headers = with(&ALLOW_HEADERS, allow);
        let expose_headers = with(&EXPOSE_HEADERS, expose);
        if allow_headers.len().max(expose_headers.len()) > Self::NAMES_BYTES_MAX {
            return Err("there are more header names than fit a response");
        }
        Ok(Self {
            origins,
            credentials,
            max_age_s,
            allow_headers,
            expose_headers,
        })
    }

    /// Which pages may read the response to a request with these headers.
    #[must_use]
    pub fn grant(&self, headers: &Headers<'_>) -> CorsGrant {
        self.grant_to(one_origin(headers.get_all("origin")))
    }

    /// Which pages may read the response to a request with this single `Origin`.
    #[must_use]
    pub fn grant_to(&self, origin: Option<&[u8]>) -> CorsGrant {
        let Some(origin) = origin else {
            return CorsGrant::None;
        };
        match &self.origins {
            Origins::Any => CorsGrant::Any,
            Origins::Listed(listed) => listed
                .iter()
                .position(|o| o.as_bytes() == origin)
                .and_then(|at| u16::try_from(at).ok())
                .map_or(CorsGrant::None, CorsGrant::Origin),
        }
    }

    /// Adds the fields of a response of any status: a page must be able to read a problem too.
    pub fn add_to<'r>(&'r self, grant: CorsGrant, response: &mut Response<'r>) {
        self.add_origin(grant, response);
        if grant != CorsGrant::None {
            let exposed = self.expose_headers.as_bytes();
            response.checked("access-control-expose-headers", exposed);
        }
    }

    /// Adds the fields of the response to a preflight ([`is_preflight`]), a 204. `methods` lists
    /// the methods of the path's routes. If the page's origin has no grant, the response names
    /// none, and the browser refuses the request.
    pub fn add_preflight<'r>(
        &'r self,
        grant: CorsGrant,
        methods: &'r str,
        response: &mut Response<'r>,
    ) {
        self.add_origin(grant, response);
        if grant != CorsGrant::None {
            response
                .checked("access-control-allow-methods", methods.as_bytes())
                .checked(
                    "access-control-allow-headers",
                    self.allow_headers.as_bytes(),
                )
                .number("access-control-max-age", u64::from(self.max_age_s));
        }
    }

    fn add_origin<'r>(&'r self, grant: CorsGrant, response: &mut Response<'r>) {
        let listed = match &self.origins {
            Origins::Listed(listed) => listed,
            // Every origin gets the same response, so `Vary` is not needed.
            Origins::Any if grant == CorsGrant::None => return,
            Origins::Any => {
                response.fixed(&ALLOW_ANY_ORIGIN);
                return;
            }
        };
        response.fixed(&VARY_ORIGIN);
        let CorsGrant::Origin(at) = grant else {
            return;
        };
        if let Some(origin) = listed.get(usize::from(at)) {
            response.checked("access-control-allow-origin", origin.as_bytes());
            if self.credentials {
                response.fixed(&ALLOW_CREDENTIALS);
            }
        }
    }
}

/// Whether the request is a CORS preflight: a browser asks for permission before the real request.
#[must_use]
pub fn is_preflight(request: &Request<'_>) -> bool {
    let has = |name| request.headers.get(name).is_some();
    request.method == Method::Options && has("origin") && has("access-control-request-method")
}

/// An origin as browsers serialise it, or it would never match (RFC 6454 6.2).
fn check_origin(origin: &str) -> Result<(), &'static str> {
    let host = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"))
        .ok_or("an origin begins with `https://` or `http://`")?;
    let legal = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'-' | b'.' | b':' | b'[' | b']' | b'_')
    };
    if host.is_empty() || !host.bytes().all(legal) {
        return Err("an origin is scheme, lower-case host and port, nothing more");
    }
    let default_port = if origin.starts_with("https") {
        ":443"
    } else {
        ":80"
    };
    if host.ends_with(default_port) {
        return Err("an origin names no default port: browsers leave it out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::context::ResponseContext;
    use super::super::encode::write_response;
    use super::super::tests::headers_of;
    use super::*;
    use ::http::StatusCode;

    fn cors(origins: &[&str], credentials: bool) -> Result<Cors, &'static str> {
        let origins: Vec<_> = origins.iter().map(|&o| o.to_owned()).collect();
        Cors::new(
            &origins,
            credentials,
            600,
            &["X-Trace".into(), "IF-MATCH".into(), "x-trace".into()],
            &["X-Cost".into()],
        )
    }

    fn answer(cors: &Cors, origin: Option<&str>, preflight: bool) -> String {
        let origin: Vec<_> = origin.iter().map(|o| ("Origin", *o)).collect();
        let grant = cors.grant(&headers_of(&origin).headers());
        let mut out = Vec::new();
        let mut response = Response::new(StatusCode::NO_CONTENT);
        if preflight {
            cors.add_preflight(grant, "GET, POST", &mut response);
        } else {
            cors.add_to(grant, &mut response);
        }
        let _ = write_response(&response, ResponseContext::UNREAD, b"", &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    // Fetch standard, "CORS protocol and HTTP caches": the answer varies by Origin.
    #[test]
    fn exact_origins_are_named_and_others_are_not() {
        let cors = cors(&["https://a.example", "http://b.example:8080"], true).expect("legal");
        let named = answer(&cors, Some("http://b.example:8080"), false);
        assert!(named.contains("access-control-allow-origin: http://b.example:8080\r\n"));
        assert!(named.contains("access-control-allow-credentials: true\r\n"));
        assert!(named.contains("access-control-expose-headers: age, allow, date, etag, "));
        assert!(named.contains(", idempotent-replayed, "));
        assert!(named.contains(", x-cost\r\n") && named.contains("vary: origin\r\n"));
        for origin in [
            None,
            Some("https://A.example"),
            Some("https://a.example.evil"),
            Some("https://a.example/"),
            Some("http://a.example"),
            Some("https://xa.example"),
            Some("null"),
            Some("*"),
            Some(""),
        ] {
            for preflight in [true, false] {
                let other = answer(&cors, origin, preflight);
                assert!(!other.contains("access-control"), "{origin:?}");
                assert!(other.contains("vary: origin\r\n"), "{origin:?}");
            }
        }
    }

    #[test]
    fn a_preflight_lists_methods_and_headers() {
        let cors = cors(&["https://a.example"], false).expect("legal");
        let answer = answer(&cors, Some("https://a.example"), true);
        assert!(answer.contains("access-control-allow-methods: GET, POST\r\n"));
        assert!(answer.contains("idempotency-key, if-match, if-none-match, last-event-id, "));
        assert!(answer.contains("headers: authorization, baggage, "));
        assert!(answer.contains(", traceparent, tracestate, x-trace\r\n"));
        assert_eq!(answer.matches("if-match").count(), 1, "each name once");
        assert!(answer.contains("access-control-max-age: 600\r\n"));
        assert!(!answer.contains("credentials"));
    }

    #[test]
    fn any_origin_is_a_star() {
        let cors = cors(&["*"], false).expect("legal");
        let given = answer(&cors, Some("https://x.example"), false);
        assert!(given.contains("access-control-allow-origin: *\r\n") && !given.contains("vary"));
        assert!(!answer(&cors, None, false).contains("access-control"));
    }

    #[test]
    fn a_policy_that_can_not_be_meant_is_refused() {
        assert!(cors(&["*"], true).is_err());
        for origin in [
            "*",
            "a.example",
            "https://",
            "https://A.example",
            "https://a.example/",
            "https://a.example:443",
            "http://a.example:80",
            "null",
            "https://a b",
            "ftp://a",
            "https://*.example",
            "https://a\r\nb",
        ] {
            assert!(
                cors(&["https://ok.example", origin], false).is_err(),
                "{origin}"
            );
        }
        assert!(Cors::new(&[], false, 0, &["a\r\nb".into()], &[]).is_err());
        let many: Vec<String> = (0..100).map(|n| format!("{n:0>100}")).collect();
        assert!(Cors::new(&[], false, 0, &many, &[]).is_err());
    }

    #[test]
    fn two_origins_are_none() {
        let cors = cors(&["https://a.example"], false).expect("legal");
        let two = [
            ("origin", "https://a.example"),
            ("Origin", "https://b.example"),
        ];
        assert_eq!(cors.grant(&headers_of(&two).headers()), CorsGrant::None);
    }
}

//! Cross-origin requests (the Fetch standard's CORS protocol): exact origins, or any.
//!
//! A request's [`CorsGrant`] is decided when the request arrives, and outlives its bytes. Every
//! response of a route with CORS has `Vary: Origin`, even if the request had no `Origin`: otherwise
//! a shared cache could serve one origin's response to another.
//!
//! | type | decides |
//! |---|---|
//! | [`Cors`] | one policy: which pages of other origins may use a route |
//! | [`CorsPolicies`] | all policies of a snapshot, by number; that of a request names one |
//! | [`PageOrigin`] | whether a page may send a request with cookies |

use super::context::{CorsGrant, CorsReaders};
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
const EXPOSE_HEADERS: [&str; 12] = [
    "age",
    "allow",
    "date",
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "preference-applied",
    "ratelimit",
    "ratelimit-policy",
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

    /// Which pages may read the response to a request with this single `Origin`.
    fn readers(&self, origin: Option<&[u8]>) -> CorsReaders {
        let Some(origin) = origin else {
            return CorsReaders::None;
        };
        match &self.origins {
            Origins::Any => CorsReaders::Any,
            Origins::Listed(listed) => listed
                .iter()
                .position(|o| o.as_bytes() == origin)
                .and_then(|at| u16::try_from(at).ok())
                .map_or(CorsReaders::None, CorsReaders::Origin),
        }
    }

    /// Adds the fields of a response of any status: a page must be able to read a problem too.
    fn add_to<'r>(&'r self, readers: CorsReaders, response: &mut Response<'r>) {
        self.add_origin(readers, response);
        if readers != CorsReaders::None {
            let exposed = self.expose_headers.as_bytes();
            response.checked("access-control-expose-headers", exposed);
        }
    }

    fn add_preflight<'r>(
        &'r self,
        readers: CorsReaders,
        methods: &'r str,
        response: &mut Response<'r>,
    ) {
        self.add_origin(readers, response);
        if readers != CorsReaders::None {
            response
                .checked("access-control-allow-methods", methods.as_bytes())
                .checked(
                    "access-control-allow-headers",
                    self.allow_headers.as_bytes(),
                )
                .number("access-control-max-age", u64::from(self.max_age_s));
        }
    }

    fn add_origin<'r>(&'r self, readers: CorsReaders, response: &mut Response<'r>) {
        let listed = match &self.origins {
            Origins::Listed(listed) => listed,
            // Every origin gets the same response, so `Vary` is not needed.
            Origins::Any if readers == CorsReaders::None => return,
            Origins::Any => {
                response.fixed(&ALLOW_ANY_ORIGIN);
                return;
            }
        };
        response.fixed(&VARY_ORIGIN);
        let CorsReaders::Origin(at) = readers else {
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

/// The number of a policy among [`CorsPolicies`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorsPolicyId(u16);

/// The policies of a snapshot. The first is for routes that say nothing of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsPolicies(Vec<Option<Cors>>);

impl CorsPolicies {
    /// Adds a policy, unless an equal one is there. `None`: no page of another origin.
    pub fn add(&mut self, policy: Option<Cors>) -> CorsPolicyId {
        let known = self.0.iter().position(|it| *it == policy);
        let at = known.unwrap_or_else(|| {
            self.0.push(policy);
            self.0.len() - 1
        });
        CorsPolicyId(u16::try_from(at).expect("a config has fewer routes"))
    }

    fn policy(&self, number: u16) -> Option<&Cors> {
        self.0.get(usize::from(number))?.as_ref()
    }

    /// Which pages may read the response to a request with these headers, of a route with this
    /// policy.
    #[must_use]
    pub fn grant(&self, CorsPolicyId(policy): CorsPolicyId, headers: &Headers<'_>) -> CorsGrant {
        let readers = self.policy(policy).map_or(CorsReaders::None, |cors| {
            cors.readers(one_origin(headers.get_all("origin")))
        });
        CorsGrant { policy, readers }
    }

    /// Which pages may read a response that no route makes: the request has no route, or was
    /// refused before its route was known. Such a response says nothing about a route, so a page of
    /// any policy may read it.
    #[must_use]
    pub fn grant_unrouted(&self, origin: Option<&[u8]>) -> CorsGrant {
        // Without a reader, the response still says that it varies, if any policy has a list.
        let mut none = CorsGrant::NONE;
        let mut varies = false;
        for (policy, cors) in (0..).zip(&self.0) {
            let Some(cors) = cors else { continue };
            let readers = cors.readers(origin);
            if readers != CorsReaders::None {
                return CorsGrant { policy, readers };
            }
            if !varies && matches!(cors.origins, Origins::Listed(_)) {
                (none.policy, varies) = (policy, true);
            }
        }
        none
    }

    /// Adds the fields of a response of any status: a page must be able to read a problem too.
    pub fn add_to<'r>(&'r self, grant: CorsGrant, response: &mut Response<'r>) {
        if let Some(cors) = self.policy(grant.policy) {
            cors.add_to(grant.readers, response);
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
        if let Some(cors) = self.policy(grant.policy) {
            cors.add_preflight(grant.readers, methods, response);
        }
    }

    /// Where the page that sent a request is from. `grant` is the request's.
    #[must_use]
    pub fn page_origin(&self, request: &Request<'_>, grant: CorsGrant) -> PageOrigin {
        let mut origins = request.headers.get_all("origin");
        let Some(origin) = origins.next() else {
            return PageOrigin::Absent;
        };
        if origins.next().is_some() {
            return PageOrigin::Foreign;
        }
        if is_own(origin, request.host) {
            return PageOrigin::Own;
        }
        let credentials = self.policy(grant.policy).is_some_and(|it| it.credentials);
        match grant.readers {
            CorsReaders::None => PageOrigin::Foreign,
            CorsReaders::Origin(_) | CorsReaders::Any => PageOrigin::Granted { credentials },
        }
    }
}

/// Where the page that sent a request is from, as its browser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrigin {
    /// The request has no `Origin`: it is not from a page, or a browser's GET of its own origin.
    Absent,
    /// The page's host and port are those that the request is for.
    Own,
    /// The policy of the route lists the page's origin.
    Granted {
        /// Whether the policy lets it send cookies.
        credentials: bool,
    },
    /// A page that has nothing to do with the gateway, or `null`.
    Foreign,
}

/// Whether an origin names the same host and port as a request is for. The scheme is not compared:
/// a proxy may have ended TLS.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    let (rest, default): (_, &[u8]) = match origin {
        [b'h', b't', b't', b'p', b's', b':', b'/', b'/', rest @ ..] => (rest, b":443"),
        [b'h', b't', b't', b'p', b':', b'/', b'/', rest @ ..] => (rest, b":80"),
        _ => return false,
    };
    let host = host.strip_suffix(default).unwrap_or(host);
    !rest.is_empty() && rest.eq_ignore_ascii_case(host)
}

/// The method that a preflight asks about, if it is one of the gateway's.
#[must_use]
pub fn preflight_method(request: &Request<'_>) -> Option<Method> {
    let method = request.headers.get("access-control-request-method")?;
    Method::parse(std::str::from_utf8(method).ok()?)
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
        let mut cors_of_all = CorsPolicies::default();
        let id = cors_of_all.add(Some(cors.clone()));
        answer_of(&cors_of_all, id, origin, preflight)
    }

    fn answer_of(
        cors: &CorsPolicies,
        id: CorsPolicyId,
        origin: Option<&str>,
        preflight: bool,
    ) -> String {
        let origin: Vec<_> = origin.iter().map(|o| ("Origin", *o)).collect();
        let grant = cors.grant(id, &headers_of(&origin).headers());
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
        let mut policies = CorsPolicies::default();
        let id = policies.add(Some(cors(&["https://a.example"], false).expect("legal")));
        let two = [
            ("origin", "https://a.example"),
            ("Origin", "https://b.example"),
        ];
        let grant = policies.grant(id, &headers_of(&two).headers());
        assert_eq!(grant, CorsGrant::NONE);
    }

    /// Two routes with a policy each, and a default without one.
    #[test]
    fn each_route_has_its_own_policy() {
        let mut policies = CorsPolicies::default();
        let closed = policies.add(None);
        let one = policies.add(Some(cors(&["https://a.example"], true).expect("legal")));
        let any = policies.add(Some(cors(&["*"], false).expect("legal")));
        let same = policies.add(Some(cors(&["https://a.example"], true).expect("legal")));
        assert_eq!(one, same, "an equal policy is kept once");
        let page = Some("https://a.example");
        assert!(!answer_of(&policies, closed, page, false).contains("access-control"));
        assert!(!answer_of(&policies, closed, page, false).contains("vary"));
        let named = answer_of(&policies, one, page, false);
        assert!(named.contains("allow-origin: https://a.example\r\n"));
        let other = answer_of(&policies, one, Some("https://b.example"), true);
        assert!(!other.contains("access-control") && other.contains("vary: origin"));
        let star = answer_of(&policies, any, Some("https://b.example"), true);
        assert!(star.contains("allow-origin: *\r\n") && !star.contains("credentials"));
    }

    /// A refusal before the route is known is readable for a page of any route.
    #[test]
    fn what_no_route_answers_is_readable_for_each_listed_page() {
        let mut policies = CorsPolicies::default();
        policies.add(None);
        let id = policies.add(Some(cors(&["https://a.example"], true).expect("legal")));
        let listed = policies.grant_unrouted(Some(b"https://a.example"));
        let head = headers_of(&[("origin", "https://a.example")]);
        assert_eq!(listed, policies.grant(id, &head.headers()));
        for origin in [None, Some(&b"https://b.example"[..])] {
            let grant = policies.grant_unrouted(origin);
            let mut response = Response::new(StatusCode::NOT_FOUND);
            policies.add_to(grant, &mut response);
            let mut out = Vec::new();
            let _ = write_response(&response, ResponseContext::UNREAD, b"", &mut out);
            let text = String::from_utf8(out).expect("ASCII");
            assert!(text.contains("vary: origin") && !text.contains("allow-origin"));
        }
        assert_eq!(
            CorsPolicies::default().grant_unrouted(None),
            CorsGrant::NONE
        );
    }

    #[test]
    fn a_page_is_of_the_gateways_host_of_a_listed_one_or_foreign() {
        let own = |origin: &str, host: &str| is_own(origin.as_bytes(), host.as_bytes());
        for (origin, host, same) in [
            ("https://shop.example", "shop.example", true),
            ("https://shop.example", "Shop.example:443", true),
            ("http://shop.example", "shop.example:80", true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("https://[::1]:8443", "[::1]:8443", true),
            ("https://shop.example", "shop.example:8443", false),
            ("https://shop.example:8443", "shop.example", false),
            ("https://shop.example.evil", "shop.example", false),
            ("https://evil.example", "shop.example", false),
            ("http://shop.example", "shop.example:443", false),
            ("null", "null", false),
            ("https://", "", false),
            ("", "", false),
        ] {
            assert_eq!(own(origin, host), same, "{origin} {host}");
        }
    }
}

//! The admin port: `/metrics`, `/livez`, `/readyz`, `/status`. It is read-only: it reads no request
//! body and changes nothing. With `admin.token`, all but probes need the token. Without it the port
//! is on loopback, where a web page can reach it through its visitor's browser, so all but probes
//! need a `Host` that is listed (protection against DNS rebinding).
//!
//! Probes are the exception, because health checkers send no token and any `Host`, or none
//! (HAProxy's default is HTTP/1.0 without it). `/livez` and `/readyz` answer every client with the
//! status and one boolean. The details need what the other pages need.
//!
//! The health port is the same without everything else: it has the probes, and never details.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use super::health::{self, ANSWER_WAIT, HealthResponse, RouteNeeds};
use super::process;
use super::tls_status::TlsStatus;
use crate::metrics::{self, Exposition, ShardReport};
use crate::model::{Secret, ShardId};

/// Connections at one time. A further connection closes the one that has been idle longest, so a
/// client that opens many cannot delay a probe.
pub const CONNECTIONS_MAX: usize = 64;
/// How often a new connection checks for an idle one to close while all are being answered. An
/// answer takes [`ANSWER_WAIT`] at most.
const ROOM_CHECK_EVERY: Duration = Duration::from_millis(5);
/// Time from one response to the end of the next request's head.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// Longest life of a connection, so that a client that reads nothing does not keep its slot.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Asks one shard for its report. It runs on the control thread and must not wait: if the shard's
/// inbox is full, drop the sender. An answer after [`ANSWER_WAIT`] is ignored.
pub type AskShard = Arc<dyn Fn(ShardId, oneshot::Sender<ShardReport>) + Send + Sync>;

/// The requests that a port answers, and the rights they need.
#[derive(Clone, Debug)]
pub enum AdminAccess {
    /// The health port: probes without details, to anyone.
    Probes,
    /// All pages, to clients that know a name of the port: these, loopback's or its address.
    Hosts(Vec<String>),
    /// All pages, to clients with this token.
    Token(Secret),
}

/// Settings of the admin port, and what it reports about.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// The address to listen on. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// The requests that the port answers, and the rights they need.
    pub access: AdminAccess,
    /// Number of shards of the process.
    pub shards: u16,
    /// The checks that each route needs, for `/readyz`.
    pub routes: Vec<RouteNeeds>,
    /// Returns the number of log lines dropped since the start.
    pub log_lines_dropped: fn() -> u64,
    /// The state of TLS towards clients.
    pub tls: Arc<TlsStatus>,
}

/// The admin port, bound and ready to serve.
pub struct Admin {
    listener: TcpListener,
    state: Arc<AdminState>,
}

/// State that all connections share.
struct AdminState {
    settings: AdminSettings,
    ask: AskShard,
    since: Instant,
}

impl Admin {
    /// Binds the port. The caller runs on the control thread's tokio runtime.
    ///
    /// # Errors
    /// The address is in use, or does not belong to this machine.
    pub async fn bind(settings: AdminSettings, ask: AskShard) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let since = Instant::now();
        let state = Arc::new(AdminState {
            settings,
            ask,
            since,
        });
        Ok(Self { listener, state })
    }

    /// The address that was bound, with the port that was chosen.
    ///
    /// # Errors
    /// The system does not report it, which has never been seen on a bound socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` completes. Open connections are then dropped.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        let mut connections: Vec<AdminConnection> = Vec::new();
        tokio::pin!(stop);
        loop {
            let next = async {
                let accepted = self.listener.accept().await;
                while accepted.is_ok() && !make_room(&mut connections) {
                    tokio::time::sleep(ROOM_CHECK_EVERY).await;
                }
                accepted
            };
            let accepted = tokio::select! {
                next = next => next,
                () = &mut stop => return,
            };
            while tasks.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let state = Arc::clone(&self.state);
                    let activity = Arc::new(Activity::new(self.state.since));
                    let connection = connect(stream, state, activity.clone());
                    // A timeout or an error ends the connection. There is no client left to answer.
                    let task = tasks.spawn(async move {
                        let _ = tokio::time::timeout(CONNECTION_AGE_MAX, connection).await;
                    });
                    connections.push(AdminConnection { task, activity });
                }
                // Usually no file descriptor is free (EMFILE). `accept` would fail again at once,
                // so wait.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// An open connection of the admin port.
struct AdminConnection {
    task: AbortHandle,
    activity: Arc<Activity>,
}

/// The state of a connection: a request is being answered, or the connection is idle since some
/// moment. While a client does not take its response, its connection counts as idle.
struct Activity {
    since: Instant,
    /// Microseconds from `since`; [`Self::ANSWERING`] while a request is being answered.
    idle: AtomicU64,
}

impl Activity {
    const ANSWERING: u64 = u64::MAX;

    fn new(since: Instant) -> Self {
        let activity = Self {
            since,
            idle: AtomicU64::new(0),
        };
        activity.on_idle();
        activity
    }

    fn on_request(&self) {
        self.idle.store(Self::ANSWERING, Ordering::Relaxed);
    }

    fn on_idle(&self) {
        let idle = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.idle.store(idle, Ordering::Relaxed);
    }

    fn idle_since(&self) -> Option<u64> {
        let idle = self.idle.load(Ordering::Relaxed);
        (idle != Self::ANSWERING).then_some(idle)
    }
}

/// Makes room for one more connection, if necessary by closing the one that has been idle longest.
/// Returns false if all slots are taken and none is idle.
fn make_room(connections: &mut Vec<AdminConnection>) -> bool {
    connections.retain(|connection| !connection.task.is_finished());
    if connections.len() < CONNECTIONS_MAX {
        return true;
    }
    let idle = connections.iter().enumerate();
    let idle = idle.filter_map(|(at, connection)| Some((connection.activity.idle_since()?, at)));
    let Some((_, oldest)) = idle.min() else {
        return false;
    };
    connections.swap_remove(oldest).task.abort();
    true
}

async fn connect(
    stream: TcpStream,
    state: Arc<AdminState>,
    activity: Arc<Activity>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let (state, activity) = (Arc::clone(&state), Arc::clone(&activity));
        async move {
            activity.on_request();
            let answer = state.answer(&request).await;
            activity.on_idle();
            Ok::<_, Infallible>(answer)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        // A probe may shut down its sending side at once and still read (`nc -N`).
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// What a health checker asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Live,
    Ready,
}

impl Probe {
    /// Returns the probe that a request is. HAProxy sends `OPTIONS /` if its `option httpchk` names
    /// nothing else.
    fn of(method: &Method, path: &str) -> Option<Self> {
        match (method, path) {
            (&Method::GET | &Method::HEAD | &Method::OPTIONS, "/livez") => Some(Self::Live),
            (&Method::GET | &Method::HEAD | &Method::OPTIONS, "/readyz")
            | (&Method::OPTIONS, "/" | "*") => Some(Self::Ready),
            _ => None,
        }
    }

    /// The body for a client without a listed `Host`.
    fn without_details(self, good: bool) -> String {
        match self {
            Self::Live => format!(r#"{{"live":{good}}}"#),
            Self::Ready => format!(r#"{{"ready":{good}}}"#),
        }
    }
}

type AdminResponse = Response<Full<Bytes>>;

impl AdminState {
    async fn answer(&self, request: &Request<Incoming>) -> AdminResponse {
        let refusal = self.refusal(request);
        if let Some(probe) = Probe::of(request.method(), request.uri().path()) {
            let details = refusal.is_none() && request.method() != Method::OPTIONS;
            return self.probe(probe, details).await;
        }
        if let Some(refusal) = refusal {
            return refusal;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "this port is read-only");
            let allow = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/status" => json(health::status(&self.reports().await)),
            _ => {
                let detail = "there are /metrics, /livez, /readyz and /status";
                problem(StatusCode::NOT_FOUND, detail)
            }
        }
    }

    async fn probe(&self, probe: Probe, details: bool) -> AdminResponse {
        let reports = self.reports().await;
        let mut response = match probe {
            Probe::Live => health::live(&reports),
            Probe::Ready => health::ready(&reports, &self.settings.routes),
        };
        if !details {
            response.json = probe.without_details(response.good);
        }
        json(response)
    }

    /// The answer to a client that may not see more than a probe without details.
    fn refusal(&self, request: &Request<Incoming>) -> Option<AdminResponse> {
        match &self.settings.access {
            AdminAccess::Probes => {
                let detail = "there are /livez and /readyz; the rest is on the admin port";
                Some(problem(StatusCode::NOT_FOUND, detail))
            }
            AdminAccess::Hosts(names) if self.is_listed(request, names) => None,
            AdminAccess::Hosts(_) => {
                let detail = "Host is not a name of this port; list it in admin.hosts";
                Some(problem(StatusCode::MISDIRECTED_REQUEST, detail))
            }
            AdminAccess::Token(token) if has_token(request, token) => None,
            AdminAccess::Token(_) => {
                let detail = "send the token of admin.token: `Authorization: Bearer …`";
                let mut refusal = problem(StatusCode::UNAUTHORIZED, detail);
                let scheme = HeaderValue::from_static("Bearer realm=\"admin\"");
                let headers = refusal.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, scheme);
                Some(refusal)
            }
        }
    }

    /// Whether `Host` is one of these names, or another name of this port. Any other name that
    /// resolves to this address may be an attacker's.
    fn is_listed(&self, request: &Request<Incoming>, names: &[String]) -> bool {
        let from_target = request.uri().host();
        let from_header = || {
            let mut hosts = request.headers().get_all(header::HOST).iter();
            let host = hosts.next()?.to_str().ok()?;
            // A request with two `Host` fields has no valid one (RFC 9112 3.2).
            host_of(host).filter(|_| hosts.next().is_none())
        };
        let Some(host) = from_target.or_else(from_header) else {
            return false;
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let by_address = |ip: IpAddr| ip.is_loopback() || ip == self.settings.listen.ip();
        let listed = |name: &String| name.eq_ignore_ascii_case(host);
        host.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(by_address)
            || names.iter().any(listed)
    }

    async fn reports(&self) -> Vec<Option<ShardReport>> {
        let until = tokio::time::Instant::now() + ANSWER_WAIT;
        let ask = |shard| {
            let (reply, answer) = oneshot::channel();
            (self.ask)(ShardId(shard), reply);
            answer
        };
        // Ask all shards before waiting for the first, so that one wait covers them all.
        let answers: Vec<_> = (0..self.settings.shards).map(ask).collect();
        let mut reports = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = tokio::time::timeout_at(until, answer).await;
            reports.push(answer.ok().and_then(Result::ok));
        }
        reports
    }

    async fn metrics(&self) -> AdminResponse {
        let reports = self.reports().await;
        let stuck = health::stuck(&reports).len();
        let mut out = Exposition::default();
        let dropped = (self.settings.log_lines_dropped)();
        let mut metrics = process::read(self.since.elapsed(), reports.len(), stuck, dropped);
        self.settings.tls.expose(&mut metrics);
        metrics.expose(&mut out);
        health::expose(&reports, &mut out);
        answer(StatusCode::OK, metrics::CONTENT_TYPE, out.into_text())
    }
}

/// Whether the request has one `Authorization` field, with this bearer token (RFC 6750 2.1). The
/// comparison takes as long for every token of the same length.
fn has_token(request: &Request<Incoming>, token: &Secret) -> bool {
    let mut fields = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return false;
    };
    let Some((scheme, given)) = field.as_bytes().split_at_checked("Bearer ".len()) else {
        return false;
    };
    let equal = verify_slices_are_equal(given, token.expose().as_bytes());
    scheme.eq_ignore_ascii_case(b"Bearer ") && equal.is_ok()
}

/// The host of `host[:port]`, with the brackets of an IPv6 address.
fn host_of(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('[') {
        Some(_) => text.find(']')? + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let port = port.strip_prefix(':').or(port.is_empty().then_some("80"))?;
    port.parse::<u16>().ok().map(|_| host)
}

fn json(response: HealthResponse) -> AdminResponse {
    let status = if response.good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(status, "application/json", response.json)
}

/// Problem details without a `type`: the status says it all (RFC 9457 4.2.1).
fn problem(status: StatusCode, detail: &str) -> AdminResponse {
    let title = status.canonical_reason().unwrap_or_default();
    let code = status.as_u16();
    let body = serde_json::json!({ "title": title, "status": code, "detail": detail });
    answer(status, "application/problem+json", body.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> AdminResponse {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Serves with `ask` while `client` runs. The client receives the port's address.
    fn serve<T>(ask: AskShard, client: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let access = AdminAccess::Hosts(vec!["gate.example".into()]);
        serve_to(access, ask, client)
    }

    fn serve_to<T>(
        access: AdminAccess,
        ask: AskShard,
        client: impl AsyncFnOnce(SocketAddr) -> T,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let settings = AdminSettings {
                listen: ([127, 0, 0, 1], 0).into(),
                access,
                shards: 2,
                routes: Vec::new(),
                log_lines_dropped: || 3,
                tls: Arc::default(),
            };
            let admin = Admin::bind(settings, ask).await.expect("a free port");
            let address = admin.local_addr().expect("bound");
            let (stop, stopped) = oneshot::channel::<()>();
            let served = tokio::spawn(admin.serve(async { drop(stopped.await) }));
            let result = client(address).await;
            drop(stop);
            served.await.expect("no panic");
            result
        })
    }

    /// Serves with `ask`, sends `request` and returns the response up to the close.
    fn talk(ask: AskShard, request: &str) -> String {
        serve(ask, async |address| exchange(address, request).await)
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(request.as_bytes()).await.expect("room");
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("an answer");
        text
    }

    fn body(response: &str) -> &str {
        response.split_once("\r\n\r\n").expect("a head").1
    }

    fn get(path: &str, host: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    }

    fn all_answer() -> AskShard {
        Arc::new(|_, reply| drop(reply.send(ShardReport::default())))
    }

    #[test]
    fn the_four_pages_answer() {
        for path in ["/metrics", "/livez", "/readyz", "/status"] {
            let text = talk(all_answer(), &get(path, "localhost:9464"));
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {text}");
        }
        let text = talk(all_answer(), &get("/metrics", "[::1]:1"));
        assert!(text.contains("\nsluicegate_turns_total 0\n"), "{text}");
        assert!(text.contains("\nsluicegate_shards 2\n"), "{text}");
        assert!(text.contains("\nsluicegate_log_lines_dropped_total 3\n"));
        assert!(talk(all_answer(), &get("/x", "127.0.0.1")).starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn a_shard_that_does_not_answer_is_stuck_after_a_second() {
        let kept = std::sync::Mutex::new(Vec::new());
        let ask: AskShard = Arc::new(move |shard, reply| match shard {
            ShardId(0) => drop(reply.send(ShardReport::default())),
            _ => kept.lock().expect("no panic before").push(reply),
        });
        let text = talk(ask, &get("/livez", "localhost"));
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.ends_with(r#"{"live":false,"stuck":[1]}"#), "{text}");
    }

    #[test]
    fn a_full_inbox_is_known_at_once() {
        let before = Instant::now();
        let text = talk(
            Arc::new(|_, reply| drop(reply)),
            &get("/livez", "localhost"),
        );
        assert!(text.ends_with(r#"{"live":false,"stuck":[0,1]}"#), "{text}");
        assert!(before.elapsed() < ANSWER_WAIT);
    }

    #[test]
    fn a_name_nobody_listed_is_refused() {
        for host in [
            "evil.example",
            "evil.example:9464",
            "10.0.0.1",
            "",
            "localhost:x",
            "[::1",
            "localhost\r\nHost: localhost",
        ] {
            let text = talk(all_answer(), &get("/status", host));
            assert!(text.starts_with("HTTP/1.1 421 "), "{host}: {text}");
        }
        let text = talk(all_answer(), &get("/status", "Gate.example:80"));
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }

    #[test]
    fn nothing_can_be_changed_and_no_body_is_read() {
        let request = "POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                       Connection: close\r\n\r\nhello";
        let text = talk(all_answer(), request);
        assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
        assert!(
            text.to_lowercase().contains("\r\nallow: get, head\r\n"),
            "{text}"
        );
    }

    #[test]
    fn probes_answer_any_host_and_version_with_the_status_and_one_boolean() {
        let heads = [
            "HTTP/1.0\r\n\r\n",
            "HTTP/1.0\r\nHost: evil.example\r\n\r\n",
            "HTTP/1.1\r\nConnection: close\r\n\r\n",
            "HTTP/1.1\r\nHost: 10.0.0.1:9464\r\nConnection: close\r\n\r\n",
            "HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
            "HTTP/1.1\r\nHost: a:b:c\r\nConnection: close\r\n\r\n",
        ];
        for head in heads {
            for (path, word) in [
                ("/livez", "live"),
                ("/readyz", "ready"),
                ("/readyz?x", "ready"),
            ] {
                let text = talk(all_answer(), &format!("GET {path} {head}"));
                assert!(text.contains(" 200 OK\r\n"), "{path} {head}: {text}");
                assert_eq!(body(&text), format!("{{\"{word}\":true}}"), "{path} {head}");
                let text = talk(all_answer(), &format!("HEAD {path} {head}"));
                assert!(text.contains(" 200 OK\r\n"), "{path} {head}: {text}");
                assert_eq!(body(&text), "", "{path} {head}");
                // Other paths still need a listed host.
                for path in ["/status", "/metrics"] {
                    let text = talk(all_answer(), &format!("GET {path} {head}"));
                    assert!(text.contains(" 421 "), "{path} {head}: {text}");
                }
                let text = talk(all_answer(), &format!("POST {path} {head}"));
                assert!(text.contains(" 421 "), "{path} {head}: {text}");
            }
        }
        let listed = talk(all_answer(), &get("/readyz", "localhost"));
        assert!(body(&listed).contains("\"checks\":"), "{listed}");
    }

    #[test]
    fn a_probe_that_fails_says_so_to_anybody_and_why_to_those_listed() {
        let stuck: AskShard = Arc::new(|_, reply| drop(reply));
        for (path, told) in [
            ("/livez", r#"{"live":false}"#),
            ("/readyz", r#"{"ready":false}"#),
        ] {
            let text = talk(stuck.clone(), &format!("GET {path} HTTP/1.0\r\n\r\n"));
            assert!(text.contains(" 503 "), "{path}: {text}");
            assert_eq!(body(&text), told);
        }
    }

    #[test]
    fn the_default_checks_of_haproxy_are_answered() {
        for target in ["/", "*", "/readyz", "/livez"] {
            for version in ["HTTP/1.0", "HTTP/1.1\r\nConnection: close"] {
                let text = talk(all_answer(), &format!("OPTIONS {target} {version}\r\n\r\n"));
                assert!(text.contains(" 200 OK\r\n"), "{target}: {text}");
            }
        }
        assert!(talk(all_answer(), &get("/", "localhost")).contains(" 404 "));
    }

    #[test]
    fn with_a_token_every_page_needs_it_and_no_host() {
        let token = "s3cr3t-of-more-than-16-bytes";
        let talk = |request: String| {
            let access = AdminAccess::Token(Secret::new(token));
            serve_to(access, all_answer(), async |address| {
                exchange(address, &request).await
            })
        };
        let get = |path: &str, host: &str, more: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n")
        };
        let right = format!("Authorization: bearer {token}\r\n");
        for host in ["10.1.2.3:9464", "localhost"] {
            for path in ["/metrics", "/status"] {
                let text = talk(get(path, host, &right));
                assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
            }
            let text = talk(get("/readyz", host, &right));
            assert!(body(&text).contains("\"checks\":"), "{text}");
        }
        let wrong = [
            String::new(),
            right.replace(token, ""),
            right.replace(token, &token[1..]),
            right.replace("s3cr3t", "s3cr3T"),
            right.replace("bearer", "Basic"),
            format!("{right}{right}"),
        ];
        for wrong in &wrong {
            for path in ["/metrics", "/status", "/other"] {
                let text = talk(get(path, "localhost", wrong));
                assert!(text.starts_with("HTTP/1.1 401 "), "{wrong}: {text}");
                assert!(text.contains("www-authenticate: Bearer"), "{text}");
            }
            let text = talk(get("/readyz", "localhost", wrong));
            assert_eq!(body(&text), r#"{"ready":true}"#, "{wrong}");
        }
    }

    #[test]
    fn the_health_port_has_probes_without_details_and_nothing_else() {
        let talk = |path: &str, method: &str| {
            let request = get(path, "localhost").replacen("GET", method, 1);
            serve_to(AdminAccess::Probes, all_answer(), async |address| {
                exchange(address, &request).await
            })
        };
        assert_eq!(body(&talk("/livez", "GET")), r#"{"live":true}"#);
        assert_eq!(body(&talk("/readyz", "GET")), r#"{"ready":true}"#);
        assert!(talk("/", "OPTIONS").starts_with("HTTP/1.1 200 "));
        for path in ["/metrics", "/status", "/", "/livez/", "//livez"] {
            let text = talk(path, "GET");
            assert!(text.starts_with("HTTP/1.1 404 "), "{path}: {text}");
        }
        assert!(talk("/livez", "POST").starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn a_probe_may_end_its_side_before_the_answer() {
        let text = serve(all_answer(), async |address| {
            let mut client = TcpStream::connect(address).await.expect("it listens");
            let request = b"GET /readyz HTTP/1.0\r\n\r\n";
            client.write_all(request).await.expect("room");
            client.shutdown().await.expect("connected");
            let mut text = String::new();
            client.read_to_string(&mut text).await.expect("an answer");
            text
        });
        assert!(text.contains(" 200 OK\r\n"), "{text}");
    }

    #[test]
    fn idle_connections_keep_no_probe_waiting() {
        serve(all_answer(), async |address| {
            let mut idle = Vec::new();
            for n in 0..CONNECTIONS_MAX {
                let mut client = TcpStream::connect(address).await.expect("it listens");
                // A third has begun a request, a third does not read its response.
                let sent = [
                    &b""[..],
                    b"GET /liv",
                    b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                ];
                client.write_all(sent[n % 3]).await.expect("room");
                idle.push(client);
                // Yield, so that the port sees the connections in this order.
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                let request = get("/livez", "localhost");
                let answer = exchange(address, &request);
                let answer = tokio::time::timeout(HEAD_WAIT / 2, answer).await;
                let answer = answer.expect("it waits for none of them");
                assert!(answer.contains(" 200 OK\r\n"), "{answer}");
            }
            // The oldest connections were closed. The youngest are open and are served.
            let mut oldest = idle.swap_remove(0);
            let ended = oldest.read(&mut [0; 16]).await;
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            let mut youngest = idle.pop().expect("some are left");
            let begun = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            youngest.write_all(begun.as_bytes()).await.expect("open");
            let mut text = String::new();
            youngest.read_to_string(&mut text).await.expect("an answer");
            assert!(text.contains(" 200 OK\r\n"), "{text}");
        });
    }
}

//! The admin port: `/metrics`, `/livez`, `/readyz`, `/status`. Read-only: no body is read and
//! nothing can be changed from here, so a web page that reaches it through a browser can at most
//! look, and `Host` has to be a name it may have (DNS rebinding).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use super::health::{self, ANSWER_WAIT, RouteNeeds, Verdict};
use super::process;
use crate::metrics::{self, Exposition, ShardReport};
use crate::model::ShardId;

/// Connections at one time; the next waits in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// From one response to the end of the next request's head.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// No connection lives longer, so one that takes no bytes does not hold its place for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Asks one shard for its report. Called on the control thread and must not wait; if the shard's
/// inbox is full, drop the sender. An answer after [`ANSWER_WAIT`] is ignored.
pub type AskShard = Arc<dyn Fn(ShardId, oneshot::Sender<ShardReport>) + Send + Sync>;

/// Where it listens and for what.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names `Host` may have besides loopback's and the address itself.
    pub hosts: Vec<String>,
    /// Shards of the process.
    pub shards: u16,
    /// What each route hangs on, for `/readyz`.
    pub routes: Vec<RouteNeeds>,
}

/// The bound admin port.
pub struct Admin {
    listener: TcpListener,
    desk: Arc<Desk>,
}

/// What every connection shares.
struct Desk {
    settings: AdminSettings,
    ask: AskShard,
    since: Instant,
}

impl Admin {
    /// Binds the port. Needs the tokio runtime of the control thread.
    ///
    /// # Errors
    /// The address is in use or not this machine's.
    pub async fn bind(settings: AdminSettings, ask: AskShard) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let since = Instant::now();
        let desk = Arc::new(Desk {
            settings,
            ask,
            since,
        });
        Ok(Self { listener, desk })
    }

    /// The address it has.
    ///
    /// # Errors
    /// The system does not say; never seen on a bound socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready; then connections in flight are dropped.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = tokio::task::JoinSet::new();
        tokio::pin!(stop);
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = &mut stop => return,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&self.desk);
                    connections.spawn(async move {
                        // Both bounds are ends like any other: nobody is left to be told.
                        let _ =
                            tokio::time::timeout(CONNECTION_AGE_MAX, connect(stream, desk)).await;
                        drop(place);
                    });
                }
                // Out of files, mostly: the pause keeps it from spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn connect(stream: TcpStream, desk: Arc<Desk>) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

type Answer = Response<Full<Bytes>>;

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !self.may_be_called(request) {
            let detail = "Host is not a name of this port; list it in admin.hosts";
            return problem(StatusCode::MISDIRECTED_REQUEST, detail);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "this port is read-only");
            let allow = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/livez" => json(health::live(&self.reports().await)),
            "/readyz" => json(health::ready(&self.reports().await, &self.settings.routes)),
            "/status" => json(health::status(&self.reports().await)),
            _ => {
                let detail = "there are /metrics, /livez, /readyz and /status";
                problem(StatusCode::NOT_FOUND, detail)
            }
        }
    }

    /// RFC 9112 3.2: HTTP/1.1 has a `Host`. A name that merely resolves to this address may be an
    /// attacker's, so only known ones are answered.
    fn may_be_called(&self, request: &Request<Incoming>) -> bool {
        let from_target = request.uri().host();
        let from_header = || {
            let host = request.headers().get(header::HOST)?.to_str().ok()?;
            host_of(host)
        };
        let Some(host) = from_target.or_else(from_header) else {
            return false;
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let by_address = |ip: IpAddr| ip.is_loopback() || ip == self.settings.listen.ip();
        let listed = |name: &String| name.eq_ignore_ascii_case(host);
        host.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(by_address)
            || self.settings.hosts.iter().any(listed)
    }

    async fn reports(&self) -> Vec<Option<ShardReport>> {
        let until = tokio::time::Instant::now() + ANSWER_WAIT;
        let ask = |shard| {
            let (reply, answer) = oneshot::channel();
            (self.ask)(ShardId(shard), reply);
            answer
        };
        // All are asked before the first is waited for.
        let answers: Vec<_> = (0..self.settings.shards).map(ask).collect();
        let mut reports = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = tokio::time::timeout_at(until, answer).await;
            reports.push(answer.ok().and_then(Result::ok));
        }
        reports
    }

    async fn metrics(&self) -> Answer {
        let reports = self.reports().await;
        let stuck = health::stuck(&reports).len();
        let mut out = Exposition::default();
        process::read(self.since.elapsed(), reports.len(), stuck).expose(&mut out);
        health::expose(&reports, &mut out);
        answer(StatusCode::OK, metrics::CONTENT_TYPE, out.into_text())
    }
}

/// The host of `host[:port]`, brackets kept.
fn host_of(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('[') {
        Some(_) => text.find(']')? + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let port = port.strip_prefix(':').or(port.is_empty().then_some("80"))?;
    port.parse::<u16>().ok().map(|_| host)
}

fn json(verdict: Verdict) -> Answer {
    let status = match verdict.good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(status, "application/json", verdict.json)
}

/// RFC 9457: without a type of its own, the status says it all.
fn problem(status: StatusCode, detail: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    let code = status.as_u16();
    let body = serde_json::json!({ "title": title, "status": code, "detail": detail });
    answer(status, "application/problem+json", body.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
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

    /// Serves with `ask`, sends `request` and gives the response up to the close.
    fn talk(ask: AskShard, request: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let settings = AdminSettings {
                listen: ([127, 0, 0, 1], 0).into(),
                hosts: vec!["gate.example".into()],
                shards: 2,
                routes: Vec::new(),
            };
            let admin = Admin::bind(settings, ask).await.expect("a free port");
            let address = admin.local_addr().expect("bound");
            let (stop, stopped) = oneshot::channel::<()>();
            let served = tokio::spawn(admin.serve(async { drop(stopped.await) }));
            let mut client = TcpStream::connect(address).await.expect("it listens");
            client.write_all(request.as_bytes()).await.expect("room");
            let mut text = String::new();
            client.read_to_string(&mut text).await.expect("an answer");
            drop(stop);
            served.await.expect("no panic");
            text
        })
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
}

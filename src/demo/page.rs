//! The demo's web page: static files, JSON about the demo's parts and about the path of a command,
//! and the requests that kill gateways and stop the broker.
//!
//! The page has another origin than the gateways, as in production. All its data crosses origins,
//! by the CORS settings of the generated configs.

use crate::model::millis;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::addresses::{Addresses, GatewayAddresses};
use super::child::{RestartError, Restarted};
use super::faults::Faults;
use super::service::{WireLog, now_us};

/// Most connections at one time. Others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time from the start of a connection, or the last response, to the end of the next request's
/// head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest life of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

type PageResponse = Response<Full<Bytes>>;

/// One file of the page.
struct File {
    path: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const FILES: [File; 7] = [
    File {
        path: "/",
        media_type: "text/html; charset=utf-8",
        bytes: include_bytes!("page/index.html"),
    },
    File {
        path: "/demo.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/demo.js"),
    },
    File {
        path: "/person.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/person.js"),
    },
    File {
        path: "/kit.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/kit.js"),
    },
    File {
        path: "/wire.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/wire.js"),
    },
    File {
        path: "/demo.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("page/demo.css"),
    },
    File {
        path: "/sluicegate.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../clients/js/sluicegate.js"),
    },
];

/// The HTTP server of the page.
pub(crate) struct Page {
    addresses: Addresses,
    /// `None` if gateways were started separately, so the page cannot kill any.
    faults: Option<Faults>,
    wire: Arc<WireLog>,
    /// The files' etags, in the order of [`FILES`].
    etags: [HeaderValue; FILES.len()],
    security_policy: HeaderValue,
}

impl Page {
    pub(crate) fn new(addresses: Addresses, faults: Option<Faults>, wire: Arc<WireLog>) -> Self {
        let gateways = addresses.gateways.each_ref().map(GatewayAddresses::url);
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src data:; connect-src 'self' {}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            gateways.join(" ")
        );
        Self {
            faults,
            wire,
            etags: FILES.each_ref().map(etag),
            security_policy: HeaderValue::from_str(&policy).expect("addresses are ASCII"),
            addresses,
        }
    }

    /// Serves until the future is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let page = Arc::new(self);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("the page's listener: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let page = Arc::clone(&page);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let page = Arc::clone(&page);
                    async move { Ok::<_, Infallible>(page.answer(&request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_headers(64)
                    .max_buf_size(16 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // Ignore how it ended: the browser opens another connection.
                let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
                drop(permit);
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> PageResponse {
        let (method, path) = (request.method(), request.uri().path());
        let mut answer = match (method, path) {
            _ if !is_own_host(request.headers()) => problem(
                StatusCode::MISDIRECTED_REQUEST,
                "this host is not served here",
            ),
            (&Method::GET | &Method::HEAD, "/demo.json") => self.status(),
            (&Method::GET | &Method::HEAD, "/wire.json") => self.wire(request.uri().query()),
            (&Method::POST, path) => self.disturb(path, request.headers()).await,
            (&Method::GET | &Method::HEAD, path) => self.file(path, request.headers()),
            _ => problem(StatusCode::METHOD_NOT_ALLOWED, "no such method here"),
        };
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            self.security_policy.clone(),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        answer
    }

    fn file(&self, path: &str, headers: &HeaderMap) -> PageResponse {
        let Some(place) = FILES.iter().position(|file| file.path == path) else {
            return problem(StatusCode::NOT_FOUND, "no such page");
        };
        let (file, etag) = (&FILES[place], &self.etags[place]);
        let is_known = headers.get(header::IF_NONE_MATCH) == Some(etag);
        let (status, bytes) = if is_known {
            (StatusCode::NOT_MODIFIED, &b""[..])
        } else {
            (StatusCode::OK, file.bytes)
        };
        let mut answer = respond(status, file.media_type, Bytes::from_static(bytes));
        let headers = answer.headers_mut();
        headers.insert(header::ETAG, etag.clone());
        // Another build has files of the same names, so browsers must revalidate.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer
    }

    /// The addresses and states of the demo's parts.
    fn status(&self) -> PageResponse {
        let mut statuses = self.faults.iter().flat_map(Faults::statuses);
        let gateways = self.addresses.gateways.iter().map(|gateway| {
            let status = statuses.next();
            json!({
                "url": gateway.url(),
                "state": status.as_ref().map_or("apart", |status| status.state.as_str()),
                "pid": status.as_ref().and_then(|status| status.pid),
                "restarts": status.as_ref().map_or(0, |status| status.restarts),
            })
        });
        let gateways: Vec<_> = gateways.collect();
        let is_stopped = self.faults.as_ref().is_some_and(Faults::is_broker_stopped);
        let body = json!({
            "gateways": gateways,
            "can_disturb": self.faults.is_some(),
            "kafka": self.addresses.kafka.to_string(),
            "broker": if is_stopped { "stopped" } else { "up" },
            "watchers": self.faults.as_ref().and_then(Faults::watched),
        });
        json_answer(StatusCode::OK, "application/json", &body)
    }

    /// The path of every command under an idempotency key (`?key=…`), and this process's time.
    fn wire(&self, query: Option<&str>) -> PageResponse {
        let key = query.and_then(|query| query.strip_prefix("key="));
        let commands = self.wire.of_key(key.unwrap_or_default());
        let body = json!({ "now_us": now_us(), "commands": commands });
        json_answer(StatusCode::OK, "application/json", &body)
    }

    /// Disturbs the demo, for the page itself only. Another site's page can make a browser send a
    /// POST here, but not with this page's origin.
    async fn disturb(&self, path: &str, headers: &HeaderMap) -> PageResponse {
        if !is_same_origin(headers) {
            return problem(
                StatusCode::FORBIDDEN,
                "only the demo's own page may do this",
            );
        }
        let Some(faults) = &self.faults else {
            return problem(StatusCode::NOT_FOUND, "the gateways are run apart");
        };
        match path {
            "/gateways/1/kill" => kill(faults, Some(0)).await,
            "/gateways/2/kill" => kill(faults, Some(1)).await,
            "/gateways/kill" => kill(faults, None).await,
            "/broker/stop" | "/broker/start" => {
                faults.stop_broker(path == "/broker/stop");
                self.status()
            }
            "/watchers/start" => {
                let addresses = self.addresses.gateways.map(|gateway| gateway.listen);
                match faults.start_watchers(addresses.to_vec()) {
                    Ok(()) => self.status(),
                    Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
                }
            }
            "/watchers/stop" => {
                faults.stop_watchers();
                self.status()
            }
            _ => problem(StatusCode::NOT_FOUND, "nothing to do here"),
        }
    }
}

/// Kills one gateway or all, and answers when they run again.
async fn kill(faults: &Faults, place: Option<usize>) -> PageResponse {
    let killed = match faults.kill(place).await {
        Ok(killed) => killed,
        Err(error @ RestartError::Busy) => {
            return problem(StatusCode::CONFLICT, &error.to_string());
        }
        Err(error) => return problem(StatusCode::BAD_GATEWAY, &error.to_string()),
    };
    let restart = |restart: &Restarted| {
        json!({
            "killed_pid": restart.killed_pid,
            "pid": restart.pid,
            "away_ms": millis(restart.down_for),
            "restarts": restart.restarts,
        })
    };
    let restarts: Vec<_> = killed.restarts.iter().map(restart).collect();
    let commands = killed.commands_meanwhile;
    let body = json!({ "restarts": restarts, "commands_meanwhile": commands });
    json_answer(StatusCode::OK, "application/json", &body)
}

/// The etag of a file: a hash of its bytes, so it is the same in every process.
fn etag(file: &File) -> HeaderValue {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.bytes);
    let hex: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).expect("hex digits in quotes")
}

/// Whether `Host` is an address or `localhost`. Any other name may belong to an attacker and
/// resolve to this host (DNS rebinding), which would make the attacker's page the same origin.
fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|h: &HeaderValue| h.to_str().ok())
    };
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("http://") == Some(host),
        _ => false,
    }
}

fn problem(status: StatusCode, detail: &str) -> PageResponse {
    let body = json!({ "status": status.as_u16(), "detail": detail });
    json_answer(status, "application/problem+json", &body)
}

fn json_answer(
    status: StatusCode,
    media_type: &'static str,
    body: &serde_json::Value,
) -> PageResponse {
    let mut answer = respond(status, media_type, Bytes::from(body.to_string()));
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn respond(status: StatusCode, media_type: &'static str, body: Bytes) -> PageResponse {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

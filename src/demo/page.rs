//! The demo's web page: five static files, a JSON file with the demo's addresses, and the request
//! that kills the gateway.
//!
//! The page has another origin than the gateway, as in production. All its data crosses origins, by
//! the CORS settings of the generated config.

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

use super::addresses::Addresses;
use super::child::{Gateway, RestartError};

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

const FILES: [File; 5] = [
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
        path: "/demo.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("page/demo.css"),
    },
    File {
        path: "/sluicegate.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/sluicegate.js"),
    },
];

/// The HTTP server of the page.
pub(crate) struct Page {
    addresses: Addresses,
    /// The gateway's supervisor. `None` if the gateway was started separately, so the page cannot
    /// restart it.
    gateway: Option<Gateway>,
    /// The files' etags, in the order of [`FILES`].
    etags: [HeaderValue; FILES.len()],
    security_policy: HeaderValue,
}

impl Page {
    pub(crate) fn new(addresses: Addresses, gateway: Option<Gateway>) -> Self {
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src data:; connect-src 'self' {}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            addresses.gateway_url()
        );
        Self {
            gateway,
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
            (&Method::GET | &Method::HEAD, "/demo.json") => self.addresses(),
            (&Method::POST, "/gateway/restart") => self.restart(request.headers()).await,
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

    fn addresses(&self) -> PageResponse {
        let status = self.gateway.as_ref().map(Gateway::status);
        let body = json!({
            "gateway": self.addresses.gateway_url(),
            "kafka": self.addresses.kafka.to_string(),
            "can_restart": status.is_some(),
            "state": status.as_ref().map_or("apart", |status| status.state.as_str()),
            "pid": status.as_ref().and_then(|status| status.pid),
            "restarts": status.as_ref().map_or(0, |status| status.restarts),
        });
        json_answer(StatusCode::OK, "application/json", &body)
    }

    /// Kills and restarts the gateway, for the page itself only. Another site's page can make a
    /// browser send a POST here, but not with this page's origin.
    async fn restart(&self, headers: &HeaderMap) -> PageResponse {
        if !is_same_origin(headers) {
            return problem(
                StatusCode::FORBIDDEN,
                "only the demo's own page may do this",
            );
        }
        let Some(gateway) = &self.gateway else {
            return problem(StatusCode::NOT_FOUND, "the gateway is run apart");
        };
        match gateway.restart().await {
            Ok(restarted) => json_answer(
                StatusCode::OK,
                "application/json",
                &json!({
                    "killed_pid": restarted.killed_pid,
                    "pid": restarted.pid,
                    "away_ms": millis(restarted.down_for),
                    "commands_meanwhile": restarted.commands_meanwhile,
                    "restarts": restarted.restarts,
                }),
            ),
            Err(error @ RestartError::Busy) => problem(StatusCode::CONFLICT, &error.to_string()),
            Err(error) => problem(StatusCode::BAD_GATEWAY, &error.to_string()),
        }
    }
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

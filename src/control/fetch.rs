//! Fetches one document over HTTP/1.1. Redirects are not followed: only the config names addresses.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::JwksUrl;

/// How TLS connections to a server of key sets are made.
pub type FetchTls = Arc<ClientConfig>;

/// Fetches a document of at most `bytes_max` bytes.
pub(super) async fn fetch(
    url: &JwksUrl,
    tls: Option<&FetchTls>,
    bytes_max: usize,
) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("can't fetch {url}: {error}");
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| wrong(&error))?;
    if !url.https {
        return request(url, stream, bytes_max).await;
    }
    let tls = tls.ok_or_else(|| wrong(&"there are no certificate authorities"))?;
    let name = ServerName::try_from(url.host.clone()).map_err(|error| wrong(&error))?;
    let connector = TlsConnector::from(tls.clone());
    let stream = connector.connect(name, stream).await;
    request(url, stream.map_err(|error| wrong(&error))?, bytes_max).await
}

async fn request<S>(url: &JwksUrl, stream: S, bytes_max: usize) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wrong = |error: &dyn std::fmt::Display| format!("can't fetch {url}: {error}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| wrong(&error))?;
    let host = match (url.host.contains(':'), url.port) {
        (true, port) => format!("[{}]:{port}", url.host),
        (false, 80 | 443) => url.host.clone(),
        (false, port) => format!("{}:{port}", url.host),
    };
    let request = hyper::Request::get(url.path.as_str())
        .header(HOST, host)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(
            USER_AGENT,
            concat!("sluicegate/", env!("CARGO_PKG_VERSION")),
        )
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| wrong(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| wrong(&error))?;
        let status = response.status();
        if status != hyper::StatusCode::OK {
            return Err(wrong(&format!("it answered {status}, not 200")));
        }
        let body = Limited::new(response.into_body(), bytes_max)
            .collect()
            .await;
        Ok(body.map_err(|error| wrong(&error))?.to_bytes().to_vec())
    };
    // The connection makes progress only while it is polled. Dropping it closes the socket.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(wrong(&error)),
        },
    }
}

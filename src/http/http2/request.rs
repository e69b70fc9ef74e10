//! A request as the head that it would have in HTTP/1.1, so that [`head`](super::super::head) reads
//! both. h2 has checked the rules that only HTTP/2 has: pseudo-headers come first and once, names
//! are lower case, fields of a connection are absent, and the DATA frames add up to the
//! `content-length` (RFC 9113 8.2 and 8.3).

use ::http::header::{CONTENT_LENGTH, COOKIE, HOST};
use ::http::{HeaderMap, HeaderValue, Method, Uri};

use super::super::context::{ResponseContext, Version};
use super::super::head::{self, Framing, Head, malformed};
use super::super::headers::HeaderTable;
use super::super::limits::Limits;
use super::super::problem::{Fault, Refusal};
use super::super::request::Request;
use super::session::IncomingRequest;

/// The head of a request in the form of HTTP/1.1.
pub type HeadBytes = Vec<u8>;

/// A head that was refused: why, in which context, and the request's single `Origin`.
type RefusedHead = (Refusal, ResponseContext, Option<Box<[u8]>>);

impl IncomingRequest {
    /// Writes the head into `out`, which is emptied first.
    ///
    /// # Errors
    /// The request names no host or two, a value has a blank at one end, or the head is larger than
    /// the limit.
    pub fn write_head(&self, limits: &Limits, out: &mut HeadBytes) -> Result<(), Refusal> {
        out.clear();
        let (uri, fields) = (self.request.uri(), self.request.headers());
        let method = self.request.method();
        write_request_line(method, uri, out);
        write_host(uri, fields, out)?;
        for (name, value) in fields {
            let value = value.as_bytes();
            // RFC 9113 8.2.1. HTTP/1.1 would cut the blank off, so two readers would differ.
            if value != value.trim_ascii() {
                return Err(malformed("a header value begins or ends with a blank"));
            }
            if name != HOST && name != COOKIE {
                write_field(name.as_str(), value, out);
            }
        }
        write_cookies(fields, out);
        if self.body.is_some() && !fields.contains_key(CONTENT_LENGTH) {
            // RFC 9113 8.1: the body ends with its stream. In HTTP/1.1 it would be chunked.
            write_field("transfer-encoding", b"chunked", out);
        }
        out.extend_from_slice(b"\r\n");
        if out.len() > limits.clamped().head_bytes_max {
            let detail = "the head, in the form of HTTP/1.1, is larger than the limit";
            return Err(Refusal::new(Fault::HeadTooLarge, detail));
        }
        Ok(())
    }
}

/// Reads a head that [`IncomingRequest::write_head`] wrote. The request's body is empty. Returns
/// also whether the client waits for `100 Continue`.
///
/// # Errors
/// The head breaks a rule.
pub fn read_head<'b>(
    head: &'b [u8],
    limits: &Limits,
    table: &'b mut HeaderTable,
) -> Result<(Request<'b>, bool), RefusedHead> {
    let limits = limits.clamped();
    match head::parse(head, &limits, table) {
        Ok(Head {
            mut request,
            expects,
            framing,
        }) => {
            request.headers = table.headers(head);
            request.version = Version::Http2;
            // A connection carries other requests whatever becomes of this one.
            request.keep_alive = true;
            Ok((request, expects && framing != Framing::Sized(0)))
        }
        Err(refused) => {
            let context = ResponseContext {
                version: Version::Http2,
                keep_alive: true,
                ..refused.context
            };
            Err((refused.refusal, context, refused.origin))
        }
    }
}

fn write_request_line(method: &Method, uri: &Uri, out: &mut HeadBytes) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    // CONNECT has no path (RFC 9113 8.5), and gets 501 like in HTTP/1.1.
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

// RFC 9113 8.3.1: `:authority` takes the place of `Host`. If both are there they are the same.
fn write_host(uri: &Uri, fields: &HeaderMap, out: &mut HeadBytes) -> Result<(), Refusal> {
    let authority = uri.authority().map(|it| it.as_str().as_bytes());
    let mut hosts = fields.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("there are two Host headers"));
    }
    match (authority, first) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(malformed("`:authority` and Host differ"))
        }
        (Some(host), _) | (None, Some(host)) => {
            write_field("host", host, out);
            Ok(())
        }
        (None, None) => Err(malformed("there is neither `:authority` nor Host")),
    }
}

// RFC 9113 8.2.3: a client may split its cookies for better compression.
fn write_cookies(fields: &HeaderMap, out: &mut HeadBytes) {
    let mut cookies = fields.get_all(COOKIE).iter();
    let Some(first) = cookies.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.as_bytes());
    for cookie in cookies {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(cookie.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(name: &str, value: &[u8], out: &mut HeadBytes) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

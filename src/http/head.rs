//! The head of an HTTP/1 request: where it ends, what it says, how its body is framed.
//!
//! httparse reads the grammar. The rules that keep one request from being read as two are here
//! (RFC 9112 6.3), and they are strict where the RFC lets a recipient be kind.

use std::mem::MaybeUninit;

use memchr::memchr_iter;

use super::headers::{HEADERS_MAX, Headers};
use super::limits::Limits;
use super::list;
use super::names::is_token_byte;
use super::path::Path;
use super::problem::{Fault, Refusal};
use super::query::Query;
use super::request::{Exchange, Method, Request, Version};

/// How the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes follow.
    Sized(usize),
    /// Chunks follow (RFC 9112 7.1).
    Chunked,
}

/// A head that was read: a request without its body yet.
pub(super) struct Head<'b> {
    pub(super) request: Request<'b>,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
}

/// Why a head was refused, and what is known of its request for the answer.
pub(super) type HeadError = (Refusal, Exchange);

/// Length of the head at the start of `bytes`, blank line included; `None` if it is not all here.
/// The first `scanned` bytes were looked at before without finding it.
///
/// Each byte is looked at once, however the head was cut, and the answer to any prefix that is
/// refused is the answer to the whole.
///
/// # Errors
/// A line ends without CR (RFC 9112 2.2 lets us refuse it), or no method stands at the start.
pub(super) fn find_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Refusal> {
    let start = blank_line(bytes);
    match bytes.get(start) {
        Some(b'\r') if start == 0 && bytes.len() == 1 => return Ok(None),
        Some(&byte) if !is_token_byte(byte) => {
            return Err(malformed("the request does not begin with a method"));
        }
        _ => {}
    }
    for at in memchr_iter(b'\n', &bytes[scanned..]) {
        let line = &bytes[..scanned + at];
        match line {
            [.., b'\r', b'\n', b'\r'] => return Ok(Some(line.len() + 1)),
            [.., b'\r'] => {}
            _ => {
                return Err(malformed(
                    "a line of the head ends without a carriage return",
                ));
            }
        }
    }
    Ok(None)
}

/// Length of the empty line that may stand before a request (RFC 9112 2.2); one is ignored.
fn blank_line(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

/// Reads a whole head, as [`find_end`] found it.
///
/// # Errors
/// Whatever is wrong with it. The connection can't go on.
pub(super) fn parse<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Head<'b>, HeadError> {
    let bytes = &bytes[blank_line(bytes)..];
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let end = parsed.parse_with_uninit_headers(bytes, &mut slots[..limits.headers_max]);
    match end {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(unread(malformed("the head is malformed"))),
        Err(error) => return Err(unread(grammar(error, bytes))),
    }
    let (Some(name), Some(target)) = (parsed.method, parsed.path) else {
        return Err(unread(malformed("the request line is malformed")));
    };
    let method = Method::parse(name).ok_or_else(|| {
        let detail = "the method is none of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS";
        unread(Refusal::new(Fault::MethodNotImplemented, detail))
    })?;
    let version = match parsed.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let exchange = Exchange {
        version,
        head_only: method == Method::Head,
        keep_alive: false,
    };
    build(bytes, method, target, version, parsed.headers, limits)
        .map_err(|refusal| (refusal, exchange))
}

fn build<'b>(
    bytes: &'b [u8],
    method: Method,
    target: &'b str,
    version: Version,
    lines: &[httparse::Header<'b>],
    limits: &Limits,
) -> Result<Head<'b>, Refusal> {
    if target.len() > limits.uri_bytes_max {
        let detail = "the request target is longer than the limit";
        return Err(Refusal::new(Fault::UriTooLong, detail));
    }
    let mut headers = Headers::new(bytes);
    let mut rules = Rules::default();
    for line in lines {
        rules.on_header(line.name, line.value)?;
        headers.push(line.name, line.value);
    }
    let target = Target::parse(method, target)?;
    let host = rules.host(version)?;
    let framing = rules.framing(version, limits)?;
    let expects = rules.expects(version)?;
    let request = Request {
        method,
        path: target.path,
        query: target.query,
        headers,
        body: &[],
        version,
        keep_alive: match version {
            Version::Http10 => rules.keep_alive && !rules.close,
            Version::Http11 => !rules.close,
        },
        host: target.authority.unwrap_or(host),
    };
    Ok(Head {
        request,
        framing,
        expects,
    })
}

/// The headers that decide how a request is read, gathered in one pass.
#[derive(Default)]
struct Rules<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<&'b [u8]>,
    transfer_encoding: Option<&'b [u8]>,
    expect: Option<&'b [u8]>,
    coded: bool,
    close: bool,
    keep_alive: bool,
}

impl<'b> Rules<'b> {
    fn on_header(&mut self, name: &'b str, value: &'b [u8]) -> Result<(), Refusal> {
        // An underscore is a hyphen to many a CGI: `x_identity` would pass for `x-identity`.
        if name.as_bytes().contains(&b'_') {
            return Err(malformed("a header name has an underscore"));
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => once(&mut self.host, value, "there are two Host headers"),
            6 if is("expect") => once(&mut self.expect, value, "there are two Expect headers"),
            10 if is("connection") => {
                self.on_connection(value);
                Ok(())
            }
            14 if is("content-length") => {
                // RFC 9112 6.3: two lengths, refuse; also when they agree.
                let detail = "there are two Content-Length headers";
                once(&mut self.content_length, value, detail)
            }
            16 if is("content-encoding") => {
                self.coded |= !value.eq_ignore_ascii_case(b"identity") && !value.is_empty();
                Ok(())
            }
            17 if is("transfer-encoding") => {
                let detail = "there are two Transfer-Encoding headers";
                once(&mut self.transfer_encoding, value, detail)
            }
            _ => Ok(()),
        }
    }

    fn on_connection(&mut self, value: &[u8]) {
        for member in list::members(value) {
            self.close |= member.eq_ignore_ascii_case(b"close");
            self.keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    // RFC 9112 3.2: none, two, or an invalid one: 400. RFC 9110 4.2.1: an empty one is invalid.
    fn host(&self, version: Version) -> Result<&'b str, Refusal> {
        match self.host {
            Some(value) => authority(value).ok_or_else(|| malformed("the Host header is invalid")),
            None if version == Version::Http10 => Ok(""),
            None => Err(malformed("there is no Host header")),
        }
    }

    // RFC 9112 6.3, with every choice it leaves taken as a refusal.
    fn framing(&self, version: Version, limits: &Limits) -> Result<Framing, Refusal> {
        let framing = match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => {
                let detail = "there are both Transfer-Encoding and Content-Length";
                return Err(malformed(detail));
            }
            (Some(_), None) if version == Version::Http10 => {
                return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (Some(_), None) => return Err(malformed("Transfer-Encoding is not `chunked`")),
            (None, Some(length)) => {
                let length = content_length(length)?;
                match usize::try_from(length) {
                    Ok(length) if length <= limits.body_bytes_max => Framing::Sized(length),
                    _ => return Err(body_too_large()),
                }
            }
            (None, None) => Framing::Sized(0),
        };
        if self.coded && framing != Framing::Sized(0) {
            // No decoder, no bomb (RFC 9110 15.5.16).
            let detail = "the body has a Content-Encoding; send it uncoded";
            return Err(Refusal::new(Fault::ContentCoding, detail));
        }
        Ok(framing)
    }

    // RFC 9110 10.1.1: unknown expectations fail; HTTP/1.0 has none.
    fn expects(&self, version: Version) -> Result<bool, Refusal> {
        match self.expect {
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
                Ok(version == Version::Http11)
            }
            Some(_) => {
                let detail = "the only expectation that can be met is `100-continue`";
                Err(Refusal::new(Fault::ExpectationFailed, detail))
            }
            None => Ok(false),
        }
    }
}

fn once<'b>(
    slot: &mut Option<&'b [u8]>,
    value: &'b [u8],
    detail: &'static str,
) -> Result<(), Refusal> {
    match slot.replace(value) {
        Some(_) => Err(malformed(detail)),
        None => Ok(()),
    }
}

/// RFC 9110 8.6: digits and nothing else; no sign, no list, no 20th digit.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok());
    match number {
        Some(number) if digits && value.len() < 20 => Ok(number),
        _ => Err(malformed("Content-Length is not a number of bytes")),
    }
}

/// RFC 9110 7.2: `uri-host [ ":" port ]`, by its characters. No user info: it has misled many.
fn authority(value: &[u8]) -> Option<&str> {
    let legal = |b: &u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
            || matches!(
                b,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
            )
    };
    let whole = !value.is_empty() && value[0] != b':' && value.iter().all(legal);
    std::str::from_utf8(value).ok().filter(|_| whole)
}

/// A request target in its parts (RFC 9112 3.2).
struct Target<'b> {
    authority: Option<&'b str>,
    path: Path<'b>,
    query: Query<'b>,
}

impl<'b> Target<'b> {
    fn parse(method: Method, target: &'b str) -> Result<Self, Refusal> {
        // RFC 9112 3.2.4: the asterisk form is for OPTIONS.
        if target == "*" && method == Method::Options {
            return Ok(Self {
                authority: None,
                path: Path::asterisk(),
                query: Query::default(),
            });
        }
        let (authority, rest) = split_authority(target)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        // RFC 9110 4.2.3: an empty path of an absolute form is `/`.
        let path = match (authority, path) {
            (Some(_), "") => "/",
            _ => path,
        };
        Ok(Self {
            authority,
            path: Path::parse(path)?,
            query: Query::parse(query)?,
        })
    }
}

/// RFC 9112 3.2.2: a server accepts the absolute form; its authority wins over `Host`.
fn split_authority(target: &str) -> Result<(Option<&str>, &str), Refusal> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let wrong = || {
        Refusal::new(
            Fault::AmbiguousTarget,
            "the request target has no known form",
        )
    };
    let (scheme, rest) = target.split_once("://").ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(wrong());
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at(end);
    let host = authority(host.as_bytes()).ok_or_else(wrong)?;
    Ok((Some(host), rest))
}

/// What httparse found wrong, in our words.
fn grammar(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(Fault::HeadTooLarge, "there are more headers than the limit")
        }
        httparse::Error::Version if names_a_version(head) => {
            let detail = "the version is neither HTTP/1.0 nor HTTP/1.1";
            Refusal::new(Fault::VersionNotSupported, detail)
        }
        httparse::Error::HeaderName => malformed("a header name is malformed"),
        httparse::Error::HeaderValue => malformed("a header value has a control byte"),
        httparse::Error::NewLine => malformed("a line of the head is not ended by CR LF"),
        httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => {
            malformed("the request line is malformed")
        }
    }
}

/// Whether the request line has three parts, the last one as `HTTP/2.0`: a version, only not ours.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&b| b == b'\r').next().unwrap_or(head);
    let mut parts = line.splitn(3, |&b| b == b' ').skip(2);
    matches!(parts.next(), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

pub(super) const fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Fault::MalformedRequest, detail)
}

pub(super) const fn body_too_large() -> Refusal {
    Refusal::new(Fault::BodyTooLarge, "the body is larger than the limit")
}

/// A head too large to be read at all: whose fault it is, the target's or the headers'.
pub(super) fn too_large(bytes: &[u8]) -> Refusal {
    match memchr::memchr(b'\n', &bytes[blank_line(bytes)..]) {
        Some(_) => Refusal::new(Fault::HeadTooLarge, "the head is larger than the limit"),
        None => Refusal::new(
            Fault::UriTooLong,
            "the request line is longer than the limit",
        ),
    }
}

const fn unread(refusal: Refusal) -> HeadError {
    (refusal, Exchange::REFUSED)
}

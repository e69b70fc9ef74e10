//! The head of an HTTP/1 request: where it ends, what it asks for, how its body is framed.
//!
//! httparse reads the grammar. The rules that keep one request from being read as two are here
//! (RFC 9112 6.3). Where the RFC lets a recipient be lenient, they refuse.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use memchr::memchr_iter;

use super::context::{CorsGrant, ResponseContext, Version};
use super::headers::{HeaderTable, Headers};
use super::limits::{HEADERS_MAX, Limits};
use super::list;
use super::names::is_token_byte;
use super::path::{Path, decode_byte};
use super::problem::{Fault, Refusal};
use super::query::Query;
use super::request::{Method, Request};
use super::split::split_once;

/// How the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The body has this many bytes.
    Sized(usize),
    /// The body comes in chunks (RFC 9112 7.1).
    Chunked,
}

/// A head that was read: a request without its headers, which are in the table, and its body.
pub(super) struct Head<'b> {
    pub(super) request: Request<'b>,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
}

/// Why a request was refused, and what its response needs to know.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) context: ResponseContext,
    /// The request's single `Origin`, if the head was read.
    pub(super) origin: Option<Box<[u8]>>,
}

impl Refused {
    /// A request that was refused before its head was read.
    pub(super) const fn unread(refusal: Refusal) -> Self {
        Self {
            refusal,
            context: ResponseContext::UNREAD,
            origin: None,
        }
    }
}

/// Most bytes of an `Origin` that a policy may list.
const ORIGIN_BYTES_MAX: usize = 255;

/// The value of `Origin` if there is exactly one.
pub(super) fn one_origin<'b>(mut values: impl Iterator<Item = &'b [u8]>) -> Option<&'b [u8]> {
    let first = values.next()?;
    let one = values.next().is_none() && first.len() <= ORIGIN_BYTES_MAX;
    one.then_some(first)
}

/// The length of the head at the start of `bytes`, blank line included. `None`: the head is
/// incomplete. The first `scanned` bytes were searched before.
///
/// Each byte is examined once, however the head was split. If a prefix is refused, the whole head
/// is refused for the same reason.
///
/// # Errors
/// A line ends without CR (RFC 9112 2.2 lets a server refuse it), or the head does not begin with a
/// method.
pub(super) fn find_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Refusal> {
    match after_blank_line(bytes).first() {
        Some(b'\r') if bytes.len() == 1 => return Ok(None),
        Some(&byte) if !is_token_byte(byte) => {
            return Err(malformed("the request does not begin with a method"));
        }
        _ => {}
    }
    let rest = bytes.get(scanned..).unwrap_or_default();
    for at in memchr_iter(b'\n', rest) {
        let line = bytes.get(..scanned + at).unwrap_or_default();
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

/// The bytes behind the empty line that may precede a request (RFC 9112 2.2). Only the first empty
/// line is ignored.
fn after_blank_line(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes)
}

/// Reads a whole head, as [`find_end`] found it. Its headers are left in `table`, as places in
/// `bytes`.
///
/// # Errors
/// The head breaks a rule. The connection must not be used again.
pub(super) fn parse<'b>(
    bytes: &'b [u8],
    limits: &Limits,
    table: &mut HeaderTable,
) -> Result<Head<'b>, Refused> {
    table.clear();
    let whole = bytes;
    let bytes = after_blank_line(bytes);
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let (slots, _) = slots.split_at_mut(limits.headers_max.min(HEADERS_MAX));
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, slots) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(Refused::unread(malformed("the head is malformed"))),
        Err(httparse::Error::Version) => return parse_later_version(whole, limits, table),
        Err(error) => return Err(Refused::unread(grammar(error))),
    }
    let (Some(name), Some(target)) = (parsed.method, parsed.path) else {
        return Err(Refused::unread(malformed("the request line is malformed")));
    };
    let version = match parsed.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let line = RequestLine {
        whole,
        name,
        target,
        version,
    };
    read(&line, parsed.headers, limits, table)
}

/// RFC 9110 2.5: a request of a later minor version is read as the highest known one, so HTTP/1.2
/// to HTTP/1.9 are HTTP/1.1. httparse knows two versions, so the request line is parsed here.
fn parse_later_version<'b>(
    whole: &'b [u8],
    limits: &Limits,
    table: &mut HeaderTable,
) -> Result<Head<'b>, Refused> {
    let wrong = || Refused::unread(malformed("the request line is malformed"));
    let bytes = after_blank_line(whole);
    let end = memchr::memchr(b'\r', bytes).ok_or_else(wrong)?;
    let (line, rest) = bytes.split_at(end);
    // A bare CR does not end a line (RFC 9112 2.2).
    let lines = rest.strip_prefix(b"\r\n").ok_or_else(wrong)?;
    let mut parts = line.split(|&b| b == b' ');
    let (Some(name), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    // A target is visible ASCII. `Target::parse` checks the rest.
    let visible = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_graphic);
    if !name.iter().copied().all(is_token_byte) || !visible(name) || !visible(target) {
        return Err(wrong());
    }
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            let detail = "the version is neither HTTP/1.0 nor HTTP/1.1";
            let refusal = Refusal::new(Fault::VersionNotSupported, detail);
            return Err(Refused::unread(refusal));
        }
        _ => return Err(wrong()),
    }
    let text = |part| std::str::from_utf8(part).expect("it is ASCII");
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let (slots, _) = slots.split_at_mut(limits.headers_max.min(HEADERS_MAX));
    match httparse::parse_headers(lines, slots) {
        Ok(httparse::Status::Complete((end, headers))) if end == lines.len() => {
            let line = RequestLine {
                whole,
                name: text(name),
                target: text(target),
                version: Version::Http11,
            };
            read(&line, headers, limits, table)
        }
        Ok(_) => Err(Refused::unread(malformed("the head is malformed"))),
        Err(error) => Err(Refused::unread(grammar(error))),
    }
}

/// A head and the parts of its request line.
struct RequestLine<'b> {
    whole: &'b [u8],
    name: &'b str,
    target: &'b str,
    version: Version,
}

/// Applies the gateway's own rules to a head that follows the grammar.
fn read<'b>(
    line: &RequestLine<'b>,
    headers: &[httparse::Header<'b>],
    limits: &Limits,
    table: &mut HeaderTable,
) -> Result<Head<'b>, Refused> {
    let Some(method) = Method::parse(line.name) else {
        let detail = "the method is none of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS";
        let refusal = Refusal::new(Fault::MethodNotImplemented, detail);
        return Err(refuse(refusal, ResponseContext::UNREAD, headers));
    };
    let context = ResponseContext {
        version: line.version,
        head_only: method == Method::Head,
        keep_alive: false,
        cors: CorsGrant::NONE,
        quota: None,
    };
    build(method, line, headers, limits, table).map_err(|refusal| refuse(refusal, context, headers))
}

/// Refuses a head after its headers were read.
#[cold]
fn refuse(refusal: Refusal, context: ResponseContext, headers: &[httparse::Header<'_>]) -> Refused {
    let origins = headers.iter();
    let origins = origins.filter(|it| it.name.eq_ignore_ascii_case("origin"));
    let origin = one_origin(origins.map(|it| it.value)).map(Box::from);
    Refused {
        refusal,
        context,
        origin,
    }
}

/// A head without its headers yet.
fn build<'b>(
    method: Method,
    line: &RequestLine<'b>,
    headers: &[httparse::Header<'b>],
    limits: &Limits,
    table: &mut HeaderTable,
) -> Result<Head<'b>, Refusal> {
    let version = line.version;
    if line.target.len() > limits.uri_bytes_max {
        let detail = "the request target is longer than the limit";
        return Err(Refusal::new(Fault::UriTooLong, detail));
    }
    let mut rules = Rules::default();
    for header in headers {
        rules.on_header(header.name, header.value)?;
        table.push(line.whole, header.name, header.value);
    }
    let target = Target::parse(method, line.target)?;
    let host = rules.host(version)?;
    let framing = rules.framing(version, limits)?;
    let expects = rules.expects(version)?;
    let request = Request {
        method,
        path: target.path,
        query: target.query,
        headers: Headers::default(),
        body: &[],
        version,
        pipelined: false,
        keep_alive: match version {
            Version::Http10 => rules.keep_alive && !rules.close,
            Version::Http11 | Version::Http2 => !rules.close,
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
        // CGI-like servers map `_` and `-` to the same name: `x_identity` would be mistaken for
        // `x-identity`.
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
                // RFC 9112 6.3: refuse two lengths, even if they agree.
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

    // RFC 9112 3.2: answer 400 if `Host` is missing, repeated or invalid. RFC 9110 4.2.1: an empty
    // host is invalid.
    fn host(&self, version: Version) -> Result<&'b [u8], Refusal> {
        match self.host {
            Some(value) if is_authority(value) => Ok(value),
            Some(_) => Err(malformed("the Host header is invalid")),
            None if version == Version::Http10 => Ok(b""),
            None => Err(malformed("there is no Host header")),
        }
    }

    // RFC 9112 6.3. Where the clause leaves a choice, refuse.
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
            // A body that is never decompressed cannot be a bomb (RFC 9110 15.5.16).
            let detail = "the body has a Content-Encoding; send it uncoded";
            return Err(Refusal::new(Fault::ContentCoding, detail));
        }
        Ok(framing)
    }

    // RFC 9110 10.1.1: refuse an unknown expectation. HTTP/1.0 has no expectations.
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

/// RFC 9110 8.6: digits only. A sign, a list and a 20th digit are refused.
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

/// RFC 9112 3.2, RFC 9110 7.2: `uri-host [ ":" port ]` of RFC 3986. User info is refused, because
/// it is used to mislead people. A host is not empty (RFC 9110 4.2.1). A port may be empty, and is
/// 65,535 at most.
fn is_authority(value: &[u8]) -> bool {
    match value {
        [b'[', rest @ ..] => is_bracketed_authority(rest),
        _ => behind_reg_name(value).is_some_and(|rest| rest.len() < value.len() && is_port(rest)),
    }
}

/// An authority with an IP literal for its host, behind the opening bracket.
fn is_bracketed_authority(rest: &[u8]) -> bool {
    split_once(rest, b']').is_some_and(|(literal, port)| is_ip_literal(literal) && is_port(port))
}

/// RFC 3986 3.2.3: empty, or a colon and digits.
fn is_port(text: &[u8]) -> bool {
    let [b':', digits @ ..] = text else {
        return text.is_empty();
    };
    let mut number = 0_u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return false;
        }
        number = number * 10 + u32::from(digit - b'0');
        // Checked for each digit, so that a long number cannot overflow.
        if number > u32::from(u16::MAX) {
            return false;
        }
    }
    true
}

/// What is behind the registered name (RFC 3986 3.2.2): nothing or a port. `None` if the name is
/// malformed. IPv4 addresses consist of the same characters.
fn behind_reg_name(mut value: &[u8]) -> Option<&[u8]> {
    // Each request has a `Host`: one lookup a byte.
    while let [byte, rest @ ..] = value {
        value = match *byte {
            byte if is_reg_name_byte(byte) => rest,
            b':' => break,
            b'%' => {
                decode_byte(rest)?;
                rest.get(2..)?
            }
            _ => return None,
        }
    }
    Some(value)
}

#[expect(
    clippy::indexing_slicing,
    reason = "the table has an entry for every byte"
)]
const fn is_reg_name_byte(byte: u8) -> bool {
    REG_NAME[byte as usize]
}

/// RFC 3986 2.2 and 2.3: `unreserved` and `sub-delims`, by byte.
#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, for bytes"
)]
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_unreserved(byte as u8) || is_sub_delim(byte as u8);
        byte += 1;
    }
    table
};

/// RFC 3986 3.2.2, the text in brackets: an IPv6 address, or one of a future version. Zones
/// (`fe80::1%25eth0`) are refused, because they mean something only on the sender's host.
fn is_ip_literal(text: &[u8]) -> bool {
    match text {
        [b'v' | b'V', rest @ ..] => is_future_ip(rest),
        _ => std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
    }
}

/// An address of a future IP version, behind its `v`: version, dot, address.
fn is_future_ip(rest: &[u8]) -> bool {
    let Some((version, address)) = split_once(rest, b'.') else {
        return false;
    };
    let legal = |b: &u8| is_reg_name_byte(*b) || *b == b':';
    let whole = !version.is_empty() && !address.is_empty();
    whole && version.iter().all(u8::is_ascii_hexdigit) && address.iter().all(legal)
}

/// `unreserved` of RFC 3986 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `sub-delims` of RFC 3986 2.2.
const fn is_sub_delim(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    )
}

/// A request target in its parts (RFC 9112 3.2).
struct Target<'b> {
    authority: Option<&'b [u8]>,
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

/// RFC 9112 3.2.2: a server accepts the absolute form. Its authority takes precedence over `Host`.
fn split_authority(target: &str) -> Result<(Option<&[u8]>, &str), Refusal> {
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
    if is_authority(host.as_bytes()) {
        Ok((Some(host.as_bytes()), rest))
    } else {
        Err(wrong())
    }
}

/// Translates an error of httparse.
fn grammar(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(Fault::HeadTooLarge, "there are more headers than the limit")
        }
        httparse::Error::HeaderName => malformed("a header name is malformed"),
        httparse::Error::HeaderValue => malformed("a header value has a control byte"),
        httparse::Error::NewLine => malformed("a line of the head is not ended by CR LF"),
        httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => {
            malformed("the request line is malformed")
        }
    }
}

pub(super) const fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Fault::MalformedRequest, detail)
}

pub(super) const fn body_too_large() -> Refusal {
    Refusal::new(Fault::BodyTooLarge, "the body is larger than the limit")
}

/// The refusal of a head over its limit: 414 if the request line alone exceeds it, otherwise 431.
pub(super) fn too_large(bytes: &[u8]) -> Refusal {
    match memchr::memchr(b'\n', after_blank_line(bytes)) {
        Some(_) => Refusal::new(Fault::HeadTooLarge, "the head is larger than the limit"),
        None => Refusal::new(
            Fault::UriTooLong,
            "the request line is longer than the limit",
        ),
    }
}

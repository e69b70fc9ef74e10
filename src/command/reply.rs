//! A record of the replies topic as an HTTP response. The service is trusted with the answer, but
//! not with HTTP: everything it writes is checked before it reaches a client.

use std::sync::Arc;

use crate::log::Record;
use crate::model::Etag;

/// The names of the record headers of a reply that mean something to the gateway (a preset of the
/// config), and which other headers clients may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyHeaders {
    /// The correlation id of the request that the reply answers.
    pub correlation_id: Box<str>,
    /// The status, in decimal ASCII. If it is absent, the status is 200.
    pub status: Box<str>,
    /// If its value is `true`, nothing was applied, and the client may retry.
    pub retry: Box<str>,
    /// The validator of the entity, without quotes as on events. The client receives it as the
    /// `ETag` that a GET returns.
    pub etag: Box<str>,
    /// Further headers that clients do not get (reply topic, identity, …), in any case.
    pub internal: Vec<Box<str>>,
    /// Whether services may set cookies. If not, `set-cookie` is dropped.
    pub set_cookie: bool,
}

/// Name and value of a header.
pub type Header = (Box<str>, Box<[u8]>);

/// A reply that can be written as HTTP: HTTP can carry each of its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status, from 200 to 599.
    pub status: u16,
    /// In the record's order. Names are in lower case.
    pub headers: Vec<Header>,
    /// The content. Empty for a null value, and for statuses without content (204, 205, 304).
    pub body: Arc<[u8]>,
}

/// A reply, or why it can't be shown. The command is answered either way.
pub type ReplyResult = Result<Arc<Reply>, ReplyError>;

/// Why a reply can't become an HTTP response (502).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReplyError {
    /// The status is not a number from 200 to 599. Any other status would be a guess at the
    /// outcome.
    #[error("the reply's status is not a number from 200 to 599")]
    Status,
}

/// A header of a reply that HTTP can't carry, so that the client does not get it. A service that
/// gets one header wrong gets it wrong in every reply, so the rest of the reply is still used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The header's name, for the log.
    pub name: Box<str>,
    /// Why HTTP can't carry it.
    pub flaw: Flaw,
}

/// What is wrong with a header of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// The header's value contains a control byte.
    ControlByte,
    /// The value is not an entity tag.
    NoEntityTag,
    /// The header is beyond [`Reply::HEADERS_MAX`] or [`Reply::HEADER_BYTES_MAX`].
    NoRoom,
}

impl Flaw {
    /// The explanation for the operator.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::ControlByte => "its value has control bytes; write it as text",
            Self::NoEntityTag => {
                "it is no entity tag: 1 to 128 bytes without spaces, quotes and control bytes"
            }
            Self::NoRoom => "the reply has more than 64 headers, or 16 KiB of them",
        }
    }
}

/// Headers that a service can't set: those about the connection and the message (RFC 9110 7.6.1,
/// RFC 9112 6), those that the gateway sets itself, and credentials. Names are in lower case.
const GATEWAYS_OWN: [&str; 17] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "date",
    "idempotent-replayed",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
];

impl Reply {
    /// Headers of a reply that reach the client, at most.
    pub const HEADERS_MAX: usize = 64;
    /// Bytes of their names and values together, at most.
    pub const HEADER_BYTES_MAX: usize = 16 * 1024;

    /// Reads a record. Drops headers that the gateway, the connection or the framing sets, names
    /// that are not HTTP's (`zilla:…`, or with `_` as in Spring's type headers), null values, and
    /// all but the last `content-type` and etag. Any other header that can't be written goes to
    /// `left_out`.
    ///
    /// # Errors
    /// The status is not a valid one.
    pub fn read(
        record: &Record<'_>,
        names: &ReplyHeaders,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Self, ReplyError> {
        let status = read_status(record.headers.last(&names.status))?;
        let (mut headers, mut bytes) = (Vec::new(), 0);
        let mut content_type = None;
        for (name, value) in record.headers {
            let (Some(name), Some(value)) = (passing(name, names), value) else {
                continue;
            };
            let value = value.trim_ascii();
            let size = name.len() + value.len();
            // Reserve the last two places for the content type and the etag.
            let full = headers.len() + 2 >= Self::HEADERS_MAX;
            if !value.iter().all(is_value_byte) {
                let flaw = Flaw::ControlByte;
                left_out.push(LeftOut { name, flaw });
            } else if bytes + size > Self::HEADER_BYTES_MAX || full && &*name != "content-type" {
                let flaw = Flaw::NoRoom;
                left_out.push(LeftOut { name, flaw });
            } else if &*name == "content-type" {
                bytes += size;
                content_type = Some((name, value.into()));
            } else {
                bytes += size;
                headers.push((name, value.into()));
            }
        }
        headers.extend(content_type);
        if let Some(value) = record.headers.last(&names.etag) {
            match Etag::from_header(value) {
                // In the form that a GET of the entity returns.
                Some(etag) => headers.push(("etag".into(), etag.as_bytes().into())),
                None => left_out.push(LeftOut {
                    name: names.etag.clone(),
                    flaw: Flaw::NoEntityTag,
                }),
            }
        }
        let body = match status {
            204 | 205 | 304 => &[][..],
            _ => record.value.unwrap_or_default(),
        };
        let body = body.into();
        Ok(Self {
            status,
            headers,
            body,
        })
    }

    /// Whether the service reports that nothing was applied. Such a reply is returned but not
    /// stored.
    #[must_use]
    pub fn is_retry(record: &Record<'_>, names: &ReplyHeaders) -> bool {
        record.headers.last(&names.retry) == Some(b"true")
    }

    /// The memory that the reply takes, approximately.
    pub(super) fn bytes_held(&self) -> usize {
        let header = size_of::<Header>();
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(n, v)| n.len() + v.len() + header).sum();
        size_of::<Self>() + headers + self.body.len()
    }
}

/// RFC 9110 15: three digits. A service can't send a 1xx.
fn read_status(text: Option<&[u8]>) -> Result<u16, ReplyError> {
    let Some(text) = text.map(<[u8]>::trim_ascii) else {
        return Ok(200);
    };
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else {
        return Err(ReplyError::Status);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    Ok(digit(a) * 100 + digit(b) * 10 + digit(c))
}

/// The name in lower case. `None` if a header of that name does not reach the client.
fn passing(name: &[u8], names: &ReplyHeaders) -> Option<Box<str>> {
    let ReplyHeaders {
        correlation_id,
        status,
        retry,
        etag,
        internal,
        set_cookie,
    } = names;
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(b);
    if name.is_empty() || !name.iter().all(legal) {
        return None;
    }
    let is = |own: &str| own.as_bytes().eq_ignore_ascii_case(name);
    let set = [correlation_id, status, retry, etag];
    if set.into_iter().chain(internal).any(|own| is(own)) {
        return None;
    }
    let name = std::str::from_utf8(name).expect("only ASCII is let in");
    let name = name.to_ascii_lowercase();
    let own = GATEWAYS_OWN.contains(&name.as_str())
        || name.starts_with("access-control-")
        || name == "etag"
        || name == "set-cookie" && !set_cookie;
    (!own).then(|| name.into())
}

/// RFC 9110 5.5: no control byte except the tab.
const fn is_value_byte(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::testing::{Draft, batch};
    use crate::model::HashSecret;

    pub(in crate::command) fn names() -> ReplyHeaders {
        ReplyHeaders {
            correlation_id: "correlation-id".into(),
            status: ":status".into(),
            retry: "retry".into(),
            etag: "etag".into(),
            internal: vec!["reply-to".into(), "Identity".into()],
            set_cookie: false,
        }
    }

    fn read_with(draft: Draft, names: &ReplyHeaders) -> Result<Reply, ReplyError> {
        let batch = batch(0, &[draft], &HashSecret::new([0; 16]));
        let record = batch.iter().next().expect("one");
        Reply::read(&record, names, &mut Vec::new())
    }

    /// The reply, and the headers that were left out of it.
    fn read_flawed(draft: Draft) -> (Reply, Vec<(String, Flaw)>) {
        let batch = batch(0, &[draft], &HashSecret::new([0; 16]));
        let record = batch.iter().next().expect("one");
        let mut left_out = Vec::new();
        let reply = Reply::read(&record, &names(), &mut left_out).expect("it has a status");
        let left_out = left_out.into_iter().map(|it| (it.name.into(), it.flaw));
        (reply, left_out.collect())
    }

    fn read(draft: Draft) -> Result<Reply, ReplyError> {
        read_with(draft, &names())
    }

    fn reply(value: &str) -> Draft {
        Draft::new(0, "k", Some(value))
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a [u8]> {
        let found = reply.headers.iter().find(|(n, _)| &**n == name);
        found.map(|(_, value)| &**value)
    }

    #[test]
    fn status_headers_and_body_pass_the_rest_stays() {
        let draft = reply("{}")
            .header(":status", "201")
            .header("Content-Type", "text/plain")
            .header("content-type", "application/json")
            .header("X-Request", " a ")
            .header("correlation-id", "x")
            .header("IDENTITY", "ann")
            .header("reply-to", "t")
            .header("__TypeId__", "java.lang.String")
            .header("zilla:x", "y")
            .header("Content-Length", "99")
            .header("transfer-encoding", "chunked")
            .header("connection", "x-request")
            .header("Access-Control-Allow-Origin", "*")
            .header("set-cookie", "a=b")
            .header("Idempotent-Replayed", "true")
            .header("kafka_replyPartition", [0, 0, 0, 1]);
        let reply = read(draft).expect("well-formed");
        assert_eq!((reply.status, &reply.body[..]), (201, &b"{}"[..]));
        let headers: Vec<(&str, &[u8])> = reply.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected: [(&str, &[u8]); 2] =
            [("x-request", b"a"), ("content-type", b"application/json")];
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_cookie_passes_if_it_is_allowed() {
        let draft = reply("").header("Set-Cookie", "a=b");
        let names = ReplyHeaders {
            set_cookie: true,
            ..names()
        };
        let reply = read_with(draft, &names).expect("well-formed");
        assert_eq!(header(&reply, "set-cookie"), Some(&b"a=b"[..]));
    }

    #[test]
    fn a_status_is_three_digits_of_a_final_response() {
        assert_eq!(read(reply("")).map(|r| r.status), Ok(200));
        for good in ["200", "299", "409", "599", " 200", "409\n"] {
            let status = read(reply("").header(":status", good)).map(|r| r.status);
            assert_eq!(status, Ok(good.trim().parse().expect("a number")));
        }
        for bad in [
            "", "100", "199", "600", "20", "2000", "2x0", "2 0", "+20", "OK",
        ] {
            let error = read(reply("").header(":status", bad));
            assert_eq!(error, Err(ReplyError::Status), "{bad}");
        }
    }

    #[test]
    fn an_etag_reads_as_a_get_shows_it() {
        for (written, shown) in [
            ("7", "\"7\""),
            ("a/b", "\"a/b\""),
            ("1.2", "\"1.2\""),
            ("\"7\"", "\"7\""),
            ("W/\"7\"", "W/\"7\""),
        ] {
            let reply = read(reply("").header("etag", written)).expect("well-formed");
            assert_eq!(header(&reply, "etag"), Some(shown.as_bytes()), "{written}");
        }
    }

    /// A flawed header is left out, and the reply does not become a 502.
    #[test]
    fn a_header_that_http_can_not_carry_is_left_out() {
        let big = "x".repeat(Reply::HEADER_BYTES_MAX);
        for (name, value, flaw) in [
            ("x-binary", &[0, 0, 0, 1][..], Flaw::ControlByte),
            ("x-split", b"a\r\nset-cookie: b", Flaw::ControlByte),
            ("content-type", b"a\0b", Flaw::ControlByte),
            ("x-big", big.as_bytes(), Flaw::NoRoom),
            ("etag", b"a b", Flaw::NoEntityTag),
            ("etag", &[0, 0, 0, 0, 0, 0, 0, 7], Flaw::NoEntityTag),
            ("etag", b"", Flaw::NoEntityTag),
            ("etag", &[b'x'; Etag::LEN_MAX + 1], Flaw::NoEntityTag),
        ] {
            let draft = reply("{}").header("x-first", "1").header(name, value);
            let (reply, left_out) = read_flawed(draft.header("x-last", "2"));
            assert_eq!((reply.status, &reply.body[..]), (200, &b"{}"[..]));
            assert_eq!(left_out, [(name.to_owned(), flaw)]);
            let names: Vec<&str> = reply.headers.iter().map(|(n, _)| &**n).collect();
            assert_eq!(names, ["x-first", "x-last"], "{name}");
        }
    }

    #[test]
    fn statuses_without_content_have_none() {
        for status in ["204", "205", "304"] {
            let reply = read(reply("body").header(":status", status)).expect("well-formed");
            assert!(reply.body.is_empty(), "RFC 9110 15.3.5, 15.3.6, 15.4.5");
        }
    }

    #[test]
    fn headers_are_bounded() {
        let mut draft = reply("").header("content-type", "text/plain");
        for n in 0..2 * Reply::HEADERS_MAX {
            draft = draft.header(&format!("x-{n}"), "v");
        }
        let (reply, left_out) = read_flawed(draft.header("etag", "7"));
        assert_eq!(reply.headers.len(), Reply::HEADERS_MAX);
        assert_eq!(header(&reply, "etag"), Some(&b"\"7\""[..]));
        assert_eq!(header(&reply, "content-type"), Some(&b"text/plain"[..]));
        assert_eq!(left_out.len(), Reply::HEADERS_MAX + 2);
    }

    proptest! {
        /// RELIABILITY: any bytes in a reply header are a well-formed response or a 502.
        #[test]
        fn whatever_a_service_writes_nothing_breaks_a_response(
            name in prop::collection::vec(any::<u8>(), 0..6),
            value in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let mut draft = reply("");
            draft.headers.push((name, Some(value)));
            if let Ok(reply) = read(draft) {
                for (name, value) in &reply.headers {
                    let delimiters = b"\"(),/:;<=>?@[\\]{}";
                    let token = |b: u8| b.is_ascii_graphic() && !delimiters.contains(&b);
                    prop_assert!(!name.is_empty() && name.bytes().all(token));
                    prop_assert!(value.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7f));
                }
            }
        }
    }
}

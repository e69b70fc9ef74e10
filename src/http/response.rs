//! Response heads, written into a buffer that the shard reuses, and the framing of what follows.

use crate::model::Etag;

use super::framed::{Follows, Framed};
use super::names::{is_credential, is_gateway_owned, is_token_byte, is_value_byte};
use super::problem::{Fault, Problem, Refusal};
use super::request::{Exchange, Version};
use super::status::Status;

/// Bytes of one response head. Above it the reply that asks for it is refused: many a client and
/// proxy takes no more.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Room for `connection: keep-alive`, `transfer-encoding: chunked` or a length, and the blank line.
const FRAMING_BYTES_MAX: usize = 96;

/// What a reply record may set in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyRules {
    /// `Set-Cookie` passes; else it is dropped like what the gateway owns.
    pub set_cookie: bool,
}

/// A response head that is being written. It is appended to a buffer and removed again unless one
/// of the finishing methods ([`body`](Self::body), [`sized`](Self::sized),
/// [`streamed`](Self::streamed), [`empty`](Self::empty), [`problem`](Self::problem)) ends it. A
/// caller that returns early therefore leaves no bytes behind.
#[derive(Debug)]
pub struct ResponseHead<'o> {
    out: &'o mut Vec<u8>,
    begin: usize,
    status: Status,
    exchange: Exchange,
    typed: bool,
    finished: bool,
}

impl<'o> ResponseHead<'o> {
    /// Begins a head with its status line and date. `date` is a line of
    /// [`DateCache`](super::DateCache).
    pub fn begin(
        out: &'o mut Vec<u8>,
        status: Status,
        exchange: Exchange,
        date: &[u8],
    ) -> ResponseHead<'o> {
        let begin = out.len();
        status.write_line(out);
        out.extend_from_slice(date);
        ResponseHead {
            out,
            begin,
            status,
            exchange,
            typed: false,
            finished: false,
        }
    }

    /// A header whose name and value stand in our source.
    pub fn fixed(&mut self, name: &'static str, value: &'static str) -> &mut Self {
        debug_assert!(name.bytes().all(is_token_byte) && value.bytes().all(is_value_byte));
        self.typed |= name == "content-type";
        self.line(name.as_bytes(), value.as_bytes());
        self
    }

    /// A header with a number for its value (`Age`, `Retry-After` in seconds).
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.line(
            name.as_bytes(),
            itoa::Buffer::new().format(value).as_bytes(),
        );
        self
    }

    /// `ETag`.
    pub fn etag(&mut self, etag: &Etag) -> &mut Self {
        self.line(b"etag", etag.as_bytes());
        self
    }

    /// `Content-Type`, unless a header gave one already.
    pub fn content_type(&mut self, media_type: &'static str) -> &mut Self {
        if !self.typed {
            self.fixed("content-type", media_type);
        }
        self
    }

    /// A header whose value came from elsewhere: config, a key, a client.
    ///
    /// # Errors
    /// The name is no token, the value holds a control byte, or the head grows over 32 KiB.
    pub fn header(&mut self, name: &str, value: &[u8]) -> Result<&mut Self, Refusal> {
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(bad_reply("a header name of the reply is malformed"));
        }
        if !value.iter().copied().all(is_value_byte) {
            return Err(bad_reply("a header value of the reply has a control byte"));
        }
        let len = self.out.len() - self.begin + name.len() + value.len();
        if len > HEAD_BYTES_MAX - FRAMING_BYTES_MAX {
            return Err(bad_reply("the headers of the reply are larger than 32 KiB"));
        }
        if name.eq_ignore_ascii_case("content-type") {
            if self.typed {
                return Err(bad_reply("the reply has two content types"));
            }
            self.typed = true;
        }
        self.line(name.as_bytes(), value.trim_ascii());
        Ok(self)
    }

    /// A header of a reply record. False if it was dropped: framing, connection, date and CORS are
    /// the gateway's, and a credential passes only if the rules say so.
    ///
    /// # Errors
    /// As [`header`](Self::header); the shard then answers 502 in its place.
    pub fn reply_header(
        &mut self,
        name: &str,
        value: &[u8],
        rules: ReplyRules,
    ) -> Result<bool, Refusal> {
        let cookie = name.eq_ignore_ascii_case("set-cookie");
        let dropped = if cookie {
            !rules.set_cookie
        } else {
            is_gateway_owned(name) || is_credential(name)
        };
        if dropped {
            return Ok(false);
        }
        self.header(name, value)?;
        Ok(true)
    }

    /// Ends the head and appends the body, if this response may have one.
    pub fn body(mut self, bytes: &[u8]) -> Framed {
        let framed = self.finish_sized(bytes.len() as u64);
        if framed.follows == Follows::Bytes {
            self.out.extend_from_slice(bytes);
        }
        Framed {
            follows: Follows::Nothing,
            ..framed
        }
    }

    /// Ends the head of a response whose body of `len` bytes is sent from elsewhere.
    pub fn sized(mut self, len: u64) -> Framed {
        self.finish_sized(len)
    }

    /// Ends the head of a response whose length is not known yet: chunks, or for an HTTP/1.0 client
    /// bytes until the close (RFC 9112 6.3, last rules).
    pub fn streamed(mut self) -> Framed {
        if !self.status.allows_content() {
            return self.finish_sized(0);
        }
        match self.exchange.version {
            Version::Http10 => self.finish(Follows::Bytes, true),
            Version::Http11 => {
                self.line(b"transfer-encoding", b"chunked");
                self.finish(Follows::Chunks, !self.exchange.keep_alive)
            }
        }
    }

    /// Ends the head of a response without content.
    pub fn empty(self) -> Framed {
        self.sized(0)
    }

    /// Ends the head with problem details for its body. The status is the head's: begin it with the
    /// problem's own.
    pub fn problem(mut self, problem: &Problem<'_>) -> Framed {
        debug_assert_eq!(
            self.status, problem.kind.status,
            "RFC 9457 3.1.2: they agree"
        );
        self.content_type(Problem::CONTENT_TYPE);
        let mut body = Vec::with_capacity(256);
        problem.write_json(&mut body);
        self.body(&body)
    }

    fn finish_sized(&mut self, len: u64) -> Framed {
        let len = match self.status.allows_content() {
            true => len,
            false => 0,
        };
        // RFC 9110 8.6: never in a 204; in a 304 it would be that of the 200.
        if !matches!(self.status, Status::NO_CONTENT | Status::NOT_MODIFIED) {
            self.number("content-length", len);
        }
        let follows = match len {
            0 => Follows::Nothing,
            _ => Follows::Bytes,
        };
        self.finish(follows, !self.exchange.keep_alive)
    }

    /// The connection header and the blank line.
    fn finish(&mut self, follows: Follows, close: bool) -> Framed {
        if close {
            self.line(b"connection", b"close");
        } else if self.exchange.version == Version::Http10 {
            self.line(b"connection", b"keep-alive");
        }
        self.out.extend_from_slice(b"\r\n");
        self.finished = true;
        // RFC 9112 6.3, first rule.
        let follows = match self.exchange.head_only || !self.status.allows_content() {
            true => Follows::Nothing,
            false => follows,
        };
        Framed { follows, close }
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }
}

impl Drop for ResponseHead<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.begin);
        }
    }
}

const fn bad_reply(detail: &'static str) -> Refusal {
    Refusal::new(Fault::BadReply, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATE: &[u8] = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn exchange(version: Version, keep_alive: bool) -> Exchange {
        Exchange {
            version,
            head_only: false,
            keep_alive,
        }
    }

    const PLAIN: Exchange = Exchange {
        version: Version::Http11,
        head_only: false,
        keep_alive: true,
    };

    fn text(out: &[u8]) -> &str {
        std::str::from_utf8(out).expect("the test wrote text")
    }

    #[test]
    fn a_plain_response() {
        let mut out = b"before".to_vec();
        let etag = Etag::from_header(b"v7").expect("legal");
        let mut head = ResponseHead::begin(&mut out, Status::OK, PLAIN, DATE);
        head.etag(&etag)
            .content_type("application/json")
            .number("age", 3);
        let framed = head.body(b"{}");
        assert_eq!(
            framed,
            Framed {
                follows: Follows::Nothing,
                close: false
            }
        );
        assert_eq!(
            text(&out),
            "beforeHTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\netag: \"v7\"\r\n\
             content-type: application/json\r\nage: 3\r\ncontent-length: 2\r\n\r\n{}"
        );
    }

    // RFC 9112 6.3, first rule; RFC 9110 8.6 and 15.3.6.
    #[test]
    fn responses_without_content_have_none() {
        let head_only = Exchange {
            head_only: true,
            ..PLAIN
        };
        for (status, exchange, length) in [
            (Status::NO_CONTENT, PLAIN, None),
            (Status::NOT_MODIFIED, PLAIN, None),
            (Status::RESET_CONTENT, PLAIN, Some("content-length: 0\r\n")),
            (Status::OK, head_only, Some("content-length: 4\r\n")),
        ] {
            let mut out = Vec::new();
            let framed = ResponseHead::begin(&mut out, status, exchange, DATE).body(b"body");
            assert_eq!(framed.follows, Follows::Nothing);
            assert!(out.ends_with(b"\r\n\r\n"), "{}", text(&out));
            assert_eq!(text(&out).contains("content-length"), length.is_some());
            assert!(text(&out).contains(length.unwrap_or("")), "{}", text(&out));
            let framed = ResponseHead::begin(&mut out, status, exchange, DATE).streamed();
            framed.piece(&mut out, b"body");
            framed.end(&mut out);
            assert!(out.ends_with(b"\r\n\r\n"), "{}", text(&out));
            assert!(!text(&out).contains("body"));
        }
    }

    // RFC 9112 7.1; a 1.0 client knows no chunks and gets the close instead (6.1).
    #[test]
    fn a_streamed_body_is_chunked_for_whom_it_can_be() {
        let write = |exchange| {
            let mut out = Vec::new();
            let framed = ResponseHead::begin(&mut out, Status::OK, exchange, b"").streamed();
            for piece in [&b"["[..], b"", &[b'x'; 31]] {
                framed.piece(&mut out, piece);
            }
            framed.end(&mut out);
            (text(&out).to_owned(), framed.close)
        };
        let x = "x".repeat(31);
        let (chunked, close) = write(PLAIN);
        assert_eq!(
            chunked,
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\n[\r\n1f\r\n{x}\r\n0\r\n\r\n"
            )
        );
        assert!(!close);
        let (plain, close) = write(exchange(Version::Http10, true));
        assert_eq!(
            plain,
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[{x}")
        );
        assert!(close);
    }

    // RFC 9112 9.3: the header says what will happen, per version.
    #[test]
    fn the_connection_header_says_what_will_happen() {
        for (version, keep_alive, expected) in [
            (Version::Http11, true, None),
            (Version::Http11, false, Some("connection: close\r\n")),
            (Version::Http10, true, Some("connection: keep-alive\r\n")),
            (Version::Http10, false, Some("connection: close\r\n")),
        ] {
            let mut out = Vec::new();
            let exchange = exchange(version, keep_alive);
            let framed = ResponseHead::begin(&mut out, Status::OK, exchange, DATE).empty();
            assert_eq!(framed.close, !keep_alive);
            assert_eq!(text(&out).contains("connection:"), expected.is_some());
            assert!(text(&out).contains(expected.unwrap_or("")));
        }
    }

    #[test]
    fn a_head_given_up_leaves_nothing() {
        let mut out = b"before".to_vec();
        let mut head = ResponseHead::begin(&mut out, Status::OK, PLAIN, DATE);
        head.fixed("x", "y");
        head.header("a\r\nb", b"").expect_err("no token");
        drop(head);
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_reply_sets_only_what_is_its_own() {
        let mut out = Vec::new();
        let mut head = ResponseHead::begin(&mut out, Status::OK, PLAIN, DATE);
        let no_cookie = ReplyRules::default();
        let cookie = ReplyRules { set_cookie: true };
        for name in [
            "Content-Length",
            "transfer-encoding",
            "CONNECTION",
            ":status",
            "Date",
            "access-control-allow-origin",
            "set-cookie",
            "Authorization",
            "upgrade",
        ] {
            assert_eq!(
                head.reply_header(name, b"x", no_cookie),
                Ok(false),
                "{name}"
            );
        }
        assert_eq!(head.reply_header("Set-Cookie", b"a=b", cookie), Ok(true));
        assert_eq!(head.reply_header("X-Note", b" \xfc ", no_cookie), Ok(true));
        assert_eq!(
            head.reply_header("Content-Type", b"text/plain", no_cookie),
            Ok(true)
        );
        assert!(
            head.reply_header("content-type", b"text/html", no_cookie)
                .is_err()
        );
        assert!(
            head.reply_header("x", &vec![b'x'; HEAD_BYTES_MAX], no_cookie)
                .is_err()
        );
        head.content_type("application/json");
        let _ = head.empty();
        let written = String::from_utf8_lossy(&out).into_owned();
        let lines: Vec<_> = written.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "Set-Cookie: a=b",
                "X-Note: \u{fffd}",
                "Content-Type: text/plain",
                "content-length: 0",
                ""
            ]
        );
    }

    // RFC 9110 5.5: a value has no control byte but the tab.
    #[test]
    fn a_control_byte_is_no_value() {
        for byte in 0..=u8::MAX {
            let mut out = Vec::new();
            let mut head = ResponseHead::begin(&mut out, Status::OK, PLAIN, DATE);
            let legal = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!(
                head.header("x", &[b'a', byte, b'b']).is_ok(),
                legal,
                "{byte}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Response splitting: whatever bytes a reply's headers hold, what is written is one head
        /// with at most the headers that were asked for, or an error.
        #[test]
        fn any_reply_header_gives_one_well_formed_head(
            headers in prop::collection::vec(("[a-zA-Z:\r\n\0 _-]{0,12}", any_value()), 0..6),
        ) {
            let mut out = Vec::new();
            let mut head = ResponseHead::begin(&mut out, Status::OK, PLAIN, DATE);
            let mut passed = 0;
            for (name, value) in &headers {
                match head.reply_header(name, value, ReplyRules::default()) {
                    Ok(kept) => passed += usize::from(kept),
                    Err(refusal) => prop_assert_eq!(refusal.fault, Fault::BadReply),
                }
            }
            let _ = head.body(b"body");
            let mut slots = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut slots);
            let end = response.parse(&out).expect("well-formed").unwrap();
            prop_assert_eq!(&out[end..], b"body");
            // Those that passed, the date and the length.
            prop_assert_eq!(response.headers.len(), passed + 2);
        }
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            prop::collection::vec(prop::sample::select(&b"\r\n\0 \t:a\x7f"[..]), 0..12),
            prop::collection::vec(b' '..=b'~', 0..12),
        ]
    }
}

//! Responses as bytes of HTTP/1.1: the head, the framing of the body, and a body that is whole.

use super::context::{ResponseContext, Version};
use super::fields::Field;
use super::framed::{Follows, Framed};

use super::response::{Body, Response};
use super::status;
use ::http::StatusCode;

/// Appends a response to `out`: all of it, or its head if its body comes in pieces. `date` is a
/// line of [`DateCache`](super::DateCache).
pub fn write_response(
    response: &Response<'_>,
    context: ResponseContext,
    date: &[u8],
    out: &mut Vec<u8>,
) -> Framed {
    let status = response.status();
    status::write_line(status, out);
    out.extend_from_slice(date);
    for field in response.fields() {
        match field {
            Field::Fixed(fixed) => out.extend_from_slice(fixed.line()),
            Field::Number(name, value) => write_number(out, name, *value),
            Field::Text(name, value) => write_line(out, name.as_bytes(), value),
        }
    }
    let whole: &[u8] = match response.content() {
        Body::Whole(bytes) => bytes,
        _ if !status::allows_content(status) => &[],
        Body::Pieces => return begin_pieces(out, context),
        Body::Stream => {
            let keep_alive = false;
            return begin_pieces(
                out,
                ResponseContext {
                    keep_alive,
                    ..context
                },
            );
        }
    };
    write_whole(out, status, whole, context)
}

/// Ends the head of a response of known length, and appends its body.
fn write_whole(
    out: &mut Vec<u8>,
    status: StatusCode,
    body: &[u8],
    context: ResponseContext,
) -> Framed {
    // RFC 9112 6.3, first rule.
    let body = if status::allows_content(status) {
        body
    } else {
        &[]
    };
    // RFC 9110 8.6: never in a 204; in a 304 it would be that of the 200.
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        write_number(out, "content-length", body.len() as u64);
    }
    let close = !context.keep_alive;
    end_head(out, context.version, close);
    if !context.head_only {
        out.extend_from_slice(body);
    }
    let follows = Follows::Nothing;
    Framed { follows, close }
}

/// Ends the head of a response of unknown length. The body follows in chunks, or for an HTTP/1.0
/// client as bytes until the close (RFC 9112 6.3, last rules).
fn begin_pieces(out: &mut Vec<u8>, context: ResponseContext) -> Framed {
    let (follows, close) = match context.version {
        Version::Http10 => (Follows::Bytes, true),
        Version::Http11 | Version::Http2 => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            (Follows::Chunks, !context.keep_alive)
        }
    };
    end_head(out, context.version, close);
    let follows = if context.head_only {
        Follows::Nothing
    } else {
        follows
    };
    Framed { follows, close }
}

/// The connection field (RFC 9112 9.3) and the blank line.
fn end_head(out: &mut Vec<u8>, version: Version, close: bool) {
    let end: &[u8] = match (close, version) {
        (true, _) => b"connection: close\r\n\r\n",
        (false, Version::Http10) => b"connection: keep-alive\r\n\r\n",
        (false, Version::Http11 | Version::Http2) => b"\r\n",
    };
    out.extend_from_slice(end);
}

fn write_number(out: &mut Vec<u8>, name: &str, value: u64) {
    let mut digits = itoa::Buffer::new();
    write_line(out, name.as_bytes(), digits.format(value).as_bytes());
}

fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::context::CorsGrant;
    use super::super::fields::{JSON, PROBLEM_JSON};
    use super::super::problem::Fault;
    use super::super::response::ReplyRules;
    use super::*;
    use crate::model::Etag;

    const DATE: &[u8] = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    const PLAIN: ResponseContext = ResponseContext {
        version: Version::Http11,
        head_only: false,
        keep_alive: true,
        cors: CorsGrant::NONE,
        quota: None,
    };

    fn context(version: Version, keep_alive: bool) -> ResponseContext {
        ResponseContext {
            version,
            keep_alive,
            ..PLAIN
        }
    }

    fn text(out: &[u8]) -> &str {
        std::str::from_utf8(out).expect("the test wrote text")
    }

    #[test]
    fn a_plain_response() {
        let mut out = b"before".to_vec();
        let etag = Etag::from_header(b"v7").expect("legal");
        let mut response = Response::new(StatusCode::OK);
        response.etag(&etag).json_unless_typed().number("age", 3);
        let framed = write_response(response.body(b"{}"), PLAIN, DATE, &mut out);
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
        let head_only = ResponseContext {
            head_only: true,
            ..PLAIN
        };
        for (status, context, length) in [
            (StatusCode::NO_CONTENT, PLAIN, None),
            (StatusCode::NOT_MODIFIED, PLAIN, None),
            (
                StatusCode::RESET_CONTENT,
                PLAIN,
                Some("content-length: 0\r\n"),
            ),
            (StatusCode::OK, head_only, Some("content-length: 4\r\n")),
        ] {
            let mut out = Vec::new();
            let mut response = Response::new(status);
            let framed = write_response(response.body(b"body"), context, DATE, &mut out);
            assert_eq!(framed.follows, Follows::Nothing);
            assert!(out.ends_with(b"\r\n\r\n"), "{}", text(&out));
            assert_eq!(text(&out).contains("content-length"), length.is_some());
            assert!(text(&out).contains(length.unwrap_or("")), "{}", text(&out));
            for response in [response.clone().pieces(), response.stream()] {
                let mut out = Vec::new();
                let framed = write_response(response, context, DATE, &mut out);
                framed.piece(&mut out, b"body");
                framed.end(&mut out);
                assert!(out.ends_with(b"\r\n\r\n"), "{}", text(&out));
                assert!(!text(&out).contains("body"));
            }
        }
    }

    // RFC 9112 7.1; a 1.0 client knows no chunks and gets the close instead (6.1).
    #[test]
    fn a_body_in_pieces_is_chunked_if_the_client_knows_chunks() {
        let write = |response: &Response<'_>, context| {
            let mut out = Vec::new();
            let framed = write_response(response, context, b"", &mut out);
            for piece in [&b"["[..], b"", &[b'x'; 31]] {
                framed.piece(&mut out, piece);
            }
            framed.end(&mut out);
            (text(&out).to_owned(), framed.close)
        };
        let mut response = Response::new(StatusCode::OK);
        let x = "x".repeat(31);
        let (chunked, close) = write(response.pieces(), PLAIN);
        assert_eq!(
            chunked,
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\n[\r\n1f\r\n{x}\r\n0\r\n\r\n"
            )
        );
        assert!(!close);
        let (plain, close) = write(&response, context(Version::Http10, true));
        assert_eq!(
            plain,
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[{x}")
        );
        assert!(close);
    }

    #[test]
    fn nothing_follows_a_stream_on_its_connection() {
        for version in [Version::Http10, Version::Http11] {
            let mut out = Vec::new();
            let mut response = Response::new(StatusCode::OK);
            let context = context(version, true);
            let framed = write_response(response.stream(), context, DATE, &mut out);
            assert!(framed.close && text(&out).contains("connection: close\r\n"));
            assert_ne!(framed.follows, Follows::Nothing);
        }
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
            let context = context(version, keep_alive);
            let framed = write_response(&Response::new(StatusCode::OK), context, DATE, &mut out);
            assert_eq!(framed.close, !keep_alive);
            assert_eq!(text(&out).contains("connection:"), expected.is_some());
            assert!(text(&out).contains(expected.unwrap_or("")));
        }
    }

    #[test]
    fn a_problem_has_its_status_and_type() {
        let mut out = Vec::new();
        let problem = Fault::BodyTooLarge.kind();
        let problem = super::super::problem::Problem {
            kind: problem,
            detail: "",
            instance: None,
            errors: &[],
            members: &[],
        };
        let _ = write_response(&Response::problem(&problem), PLAIN, b"", &mut out);
        assert!(text(&out).starts_with("HTTP/1.1 413 Content Too Large\r\n"));
        assert!(text(&out).contains(text(PROBLEM_JSON.line())));
        assert!(!text(&out).contains(text(JSON.line())));
    }

    #[test]
    fn a_reply_sets_only_what_is_its_own() {
        let mut out = Vec::new();
        let mut response = Response::new(StatusCode::OK);
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
                response.reply_field(name, b"x", no_cookie),
                Ok(false),
                "{name}"
            );
        }
        assert_eq!(response.reply_field("Set-Cookie", b"a=b", cookie), Ok(true));
        assert_eq!(
            response.reply_field("X-Note", b" \xfc ", no_cookie),
            Ok(true)
        );
        assert_eq!(
            response.reply_field("Content-Type", b"text/plain", no_cookie),
            Ok(true)
        );
        assert!(
            response
                .reply_field("content-type", b"text/html", no_cookie)
                .is_err()
        );
        response.json_unless_typed();
        let _ = write_response(&response, PLAIN, DATE, &mut out);
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Response splitting: whatever bytes a reply's headers hold, what is written is one head
        /// with at most the headers that were asked for, or an error.
        #[test]
        fn any_reply_header_gives_one_well_formed_head(
            headers in prop::collection::vec(("[a-zA-Z:\r\n\0 _-]{0,12}", any_value()), 0..6),
        ) {
            let mut out = Vec::new();
            let mut response = Response::new(StatusCode::OK);
            let mut passed = 0;
            for (name, value) in &headers {
                match response.reply_field(name, value, ReplyRules::default()) {
                    Ok(kept) => passed += usize::from(kept),
                    Err(refusal) => prop_assert_eq!(refusal.fault, Fault::BadReply),
                }
            }
            let _ = write_response(response.body(b"body"), PLAIN, DATE, &mut out);
            let mut slots = [httparse::EMPTY_HEADER; 16];
            let mut parsed = httparse::Response::new(&mut slots);
            let end = parsed.parse(&out).expect("well-formed").unwrap();
            prop_assert_eq!(&out[end..], b"body");
            // Those that passed, the date and the length.
            prop_assert_eq!(parsed.headers.len(), passed + 2);
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

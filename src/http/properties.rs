//! Properties of the receiving side: any bytes, cut anywhere.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // A panic here is a finding.

use proptest::prelude::*;

use super::check::read_pieces;
use super::tests::post;
use super::*;

fn any_value() -> impl Strategy<Value = String> {
    "[ -~\u{e9}]{0,20}"
}

/// Well-formed requests, most of them.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]);
    let target = prop_oneof![
        "/([a-z/.]|%[2-7C][0-9A-F]|%B){0,8}(\\?([a-z=&+]|%4[1-9]){0,8})?",
        Just("http://h/".into())
    ];
    let headers = prop::collection::vec(("[A-Za-z-]{1,12}", any_value()), 0..5);
    let body = prop_oneof![
        Just((String::new(), Vec::new())),
        prop::collection::vec(any::<u8>(), 0..140)
            .prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        any_chunked().prop_map(|body| ("Transfer-Encoding: chunked\r\n".to_owned(), body)),
    ];
    let expect = prop_oneof![4 => Just(""), 1 => Just("Expect: 100-continue\r\n")];
    (method, target, headers, body, expect).prop_map(|(method, target, headers, body, expect)| {
        let mut out = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{expect}").into_bytes();
        for (name, value) in headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(body.0.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&body.1);
        out
    })
}

fn any_chunked() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        "(;[a-z=\"]{0,5})?",
    );
    let trailer = prop_oneof![3 => Just(""), 1 => Just("X-T: v\r\n")];
    (prop::collection::vec(chunk, 0..4), trailer).prop_map(|(chunks, trailer)| {
        let mut out = Vec::new();
        for (data, extension) in chunks {
            out.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        out
    })
}

/// Requests in a row with a few bytes changed to what parsers trip over.
fn any_hostile() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(b"\r\n\0 \t:;,%/.#?_0f\x7f\xff".to_vec()),
        any::<u8>()
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte, any::<bool>()), 0..3);
    let row = prop::collection::vec(any_request(), 1..3);
    (row, changes).prop_map(|(row, changes)| {
        let mut bytes = row.concat();
        for (at, byte, insert) in changes {
            let at = at.index(bytes.len());
            if insert {
                bytes.insert(at, byte);
            } else {
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// TCP may cut a request anywhere. Where it was cut must never change what was read.
    #[test]
    fn a_request_reads_the_same_however_it_was_cut(
        bytes in prop::collection::vec(any_request(), 1..4).prop_map(|r| r.concat()),
        cuts in prop::collection::vec(any::<u16>(), 0..8),
    ) {
        check_any_bytes(&bytes, &cuts);
    }

    #[test]
    fn hostile_bytes_read_the_same_however_they_were_cut(
        bytes in any_hostile(),
        cuts in prop::collection::vec(any::<u16>(), 0..8),
    ) {
        check_any_bytes(&bytes, &cuts);
        let all: Vec<u16> = (0..bytes.len() as u16).collect();
        check_any_bytes(&bytes, &all);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        cuts in prop::collection::vec(any::<u16>(), 0..4),
    ) {
        check_any_bytes(&bytes, &cuts);
    }

    /// A body comes out as it was put in, whichever way it was framed.
    #[test]
    fn a_chunked_body_is_the_body(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let context = ResponseContext { keep_alive: true, ..ResponseContext::UNREAD };
        let mut bytes = post("Transfer-Encoding: chunked", "");
        let mut response = Response::new(StatusCode::OK);
        let framed = write_response(response.pieces(), context, b"", &mut Vec::new());
        for piece in &pieces {
            framed.piece(&mut bytes, piece);
        }
        framed.end(&mut bytes);
        let (a, b) = bytes.split_at(cut.index(bytes.len()));
        let reading = read_pieces(&[a, b], &Limits::default());
        prop_assert_eq!(reading.requests.len(), 1);
        prop_assert_eq!(&reading.requests[0].body, &pieces.concat());
    }
}

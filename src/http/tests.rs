//! Tests of the receiving side as a whole: clauses, attack vectors, properties.

use proptest::prelude::*;

use super::check::{Reading, Seen, read_pieces, small_limits};
use super::*;

/// A head with the given headers, for tests of what reads them.
pub(super) struct HeadersOf(Vec<u8>);

pub(super) fn headers_of(headers: &[(&str, &str)]) -> HeadersOf {
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for (name, value) in headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    HeadersOf(head)
}

impl HeadersOf {
    pub(super) fn headers(&self) -> Headers<'_> {
        let head = head::parse(&self.0, &Limits::default());
        head.map_err(|(refusal, _)| refusal)
            .expect("a test's own head")
            .request
            .headers
    }
}

fn read(bytes: &[u8]) -> Reading {
    read_pieces(&[bytes], &Limits::default())
}

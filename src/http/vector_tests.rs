//! Framing vectors, each with the clause that decides it: bytes that smuggled requests past other
//! servers, and requests on the border of the grammar. Each is read whole, cut in two at every
//! position, and byte by byte, and must be read the same.
//!
//! A vector is written as the part that it is about; its group says what stands around it.

use super::check::{Reading, read_pieces};
use super::*;

/// What stands around a vector.
#[derive(Clone, Copy)]
enum Around {
    /// It is the headers of a POST, and a chunked body and a smuggled GET follow.
    Post,
    /// It is the headers of a GET, and a smuggled GET follows.
    Get,
    /// It is the body of a chunked POST, and a smuggled GET follows.
    Chunked,
    /// It is all bytes of the connection.
    Bytes,
    /// It is the `Host` header of a GET.
    Host,
    /// It is the target of a GET.
    Target,
}

/// How a vector is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    /// Refused before any request is read; what follows is not read either.
    As(Fault),
    /// So many requests, and nothing is refused.
    Requests(usize),
}

/// Vectors with one clause.
struct Group {
    clause: &'static str,
    around: Around,
    read: Read,
    vectors: &'static [&'static str],
}

const SMUGGLED: &str = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";

const MALFORMED: Read = Read::As(Fault::MalformedRequest);

/// What smuggled requests past others: a second reading of where a request ends.
const SMUGGLING: &[Group] = &[
    Group {
        clause: "RFC 9112 6.3 (3): Transfer-Encoding and Content-Length together",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "content-length: 0\r\ntransfer-encoding: chunked",
            "Transfer-Encoding: identity\r\nContent-Length: 5",
            "Content-Length: 5\r\nX: y\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length:",
        ],
    },
    Group {
        clause: "RFC 9112 6.3 (5), RFC 9110 8.6: several lengths",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 0",
            "Content-Length: 5\r\ncontent-length: 6",
            "Content-Length: 5\r\nX: y\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: 5,",
            "Content-Length: ,5",
            "Content-Length: 5, 6",
        ],
    },
    Group {
        clause: "RFC 9110 8.6: Content-Length = 1*DIGIT",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Content-Length:",
            "Content-Length: +5",
            "Content-Length: -1",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length: 5;",
            "Content-Length: 5.0",
            "Content-Length: \"5\"",
            "Content-Length: 1e3",
            "Content-Length: 0b1",
            "Content-Length: 1_0",
            "Content-Length: 5\u{a0}",
            "Content-Length: \u{b2}",
            "Content-Length: \u{ff15}",
            "Content-Length: five",
            "Content-Length: 18446744073709551616",
            "Content-Length: 99999999999999999999999999",
        ],
    },
    Group {
        clause: "RFC 9112 6.1, 7: the only transfer coding here is `chunked`, once and last",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Transfer-Encoding:",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: , chunked",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: 'chunked'",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: chunk",
            "Transfer-Encoding: ch\u{212a}unked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ],
    },
    Group {
        clause: "RFC 9110 5.5: no control byte in a value",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Transfer-Encoding: chunked\u{b}",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding: \u{c}chunked",
            "Transfer-Encoding: chunked\u{0}",
            "Content-Length: 5\u{0}",
            "X: y\0\r\nContent-Length: 5",
        ],
    },
    Group {
        clause: "RFC 9112 5.1: no whitespace between name and colon",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Content-Length : 5",
            "Content-Length\t : 5",
        ],
    },
    Group {
        clause: "RFC 9112 5.2: no line folding",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\r\n\tContent-Length: 5",
            "X:\r\n Content-Length: 5",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding\r\n: chunked",
            "Content-Length: 5\r\n 0",
        ],
    },
    Group {
        clause: "RFC 9110 5.1, 5.6.2: a name is a token; `_` is an alias of `-` elsewhere",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "Transfer_Encoding: chunked",
            "Content_Length: 5",
            "Transfer-Encoding\0: chunked",
            "\0Transfer-Encoding: chunked",
            "Transfer-Encoding\u{a0}: chunked",
            "Transfer Encoding: chunked",
            ": chunked",
            "Transfer-Encoding",
            "(Transfer-Encoding): chunked",
            "Transfer-Encoding;: chunked",
            "Content-Length=5: 5",
        ],
    },
    Group {
        clause: "RFC 9112 2.2: a line ends with CR LF, and a bare CR or LF is malformed",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "X: y\r\rTransfer-Encoding: chunked",
            "X: y\n\rTransfer-Encoding: chunked",
            "X: y\r\n\rTransfer-Encoding: chunked",
            "X: y\r\n\nContent-Length: 5",
            "Content-Length: 5\n",
            "Content-Length: 5\r",
        ],
    },
    Group {
        clause: "RFC 9112 2.2: whitespace before the first header",
        around: Around::Post,
        read: MALFORMED,
        vectors: &[
            " Transfer-Encoding: chunked",
            "\tTransfer-Encoding: chunked",
        ],
    },
    Group {
        clause: "RFC 9112 7.1: chunk-size = 1*HEXDIG, then CR LF or an extension",
        around: Around::Chunked,
        read: MALFORMED,
        vectors: &[
            "\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5\r\rhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "g\r\nhello\r\n0\r\n\r\n",
            "5_\r\nhello\r\n0\r\n\r\n",
            "\u{ff15}\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: y\nZ: y\r\n\r\n",
            "5\r\nhello\r\n0\n\n",
            "0\r\n\n",
            "5,5\r\nhello\r\n0\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 7.1.1: chunk-ext, and no bare LF within (CVE-2025-22871)",
        around: Around::Chunked,
        read: MALFORMED,
        vectors: &[
            "5;\r\nhello\r\n0\r\n\r\n",
            "5;x\nhello\r\n0\r\n\r\n",
            "5;x=\r\nhello\r\n0\r\n\r\n",
            "5;x=\"\n\"\r\nhello\r\n0\r\n\r\n",
            "5;x=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
            "5;=x\r\nhello\r\n0\r\n\r\n",
            "5;x\0\r\nhello\r\n0\r\n\r\n",
            "5;x=\"\r\nhello\r\n0\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 7.1.2: a trailer line is a field line",
        around: Around::Chunked,
        read: MALFORMED,
        vectors: &[
            "0\r\nX : y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nX: y\rZ: y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 6.1: HTTP/1.0 has no transfer coding",
        around: Around::Bytes,
        read: MALFORMED,
        vectors: &[
            "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\
             \r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 6.3 (7): a request without a length has no body",
        around: Around::Get,
        read: Read::Requests(2),
        vectors: &[
            "X: y",
            "Content-Length: 0",
            "Connection: upgrade\r\nUpgrade: h2c",
        ],
    },
    Group {
        clause: "RFC 9110 9.3.1: a GET with a body is framed as any request",
        around: Around::Bytes,
        read: Read::Requests(2),
        vectors: &[
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET \
             GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    },
];

/// Requests on the border of the grammar: what must be refused, and what must not.
const COMPLIANCE: &[Group] = &[
    Group {
        clause: "RFC 9112 2.2: lines end with CR LF",
        around: Around::Bytes,
        read: MALFORMED,
        vectors: &[
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "GET / HTTP/1.1\rHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\rGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 2.2: one empty line before a request is ignored",
        around: Around::Bytes,
        read: Read::Requests(1),
        vectors: &["\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    },
    Group {
        clause: "RFC 9112 3: request-line = method SP request-target SP HTTP-version",
        around: Around::Bytes,
        read: MALFORMED,
        vectors: &[
            " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            "GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\r\nHost: x\r\n\r\n",
            "GET HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
            "G<T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "{\"json\": true}\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
        ],
    },
    Group {
        clause: "RFC 9112 2.3: HTTP-version = \"HTTP/\" DIGIT \".\" DIGIT",
        around: Around::Bytes,
        read: MALFORMED,
        vectors: &[
            "GET / HTTP/1.1,\r\nHost: x\r\n\r\n",
            "GET / http/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1\r\nHost: x\r\n\r\n",
            "GET / HTTP/11\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.10\r\nHost: x\r\n\r\n",
            "GET / HTTP /1.1\r\nHost: x\r\n\r\n",
            "GET / HTTX/1.1\r\nHost: x\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9110 15.6.6: another major version",
        around: Around::Bytes,
        read: Read::As(Fault::VersionNotSupported),
        vectors: &[
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/3.0\r\nHost: x\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9110 2.5: a later minor version is the highest known one",
        around: Around::Bytes,
        read: Read::Requests(1),
        vectors: &[
            "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.9\r\nHost: x\r\nContent-Length: 2\r\n\r\nab",
            "GET / HTTP/1.0\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9110 9.1, 15.6.2: methods are case-sensitive, unknown ones are 501",
        around: Around::Bytes,
        read: Read::As(Fault::MethodNotImplemented),
        vectors: &[
            "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
            "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
            "get / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GETT / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 3.2: exactly one Host",
        around: Around::Bytes,
        read: MALFORMED,
        vectors: &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        ],
    },
    Group {
        clause: "RFC 3986 3.2.2, 3.2.3: uri-host [ \":\" port ]",
        around: Around::Host,
        read: Read::Requests(1),
        vectors: &[
            "a",
            "a:",
            "a:80",
            "a:0",
            "a:65535",
            "a:00080",
            "A.example.",
            "xn--nxasmq6b",
            "under_score",
            "a~!$&'()*+,;=",
            "%41%7a",
            "127.0.0.1:8080",
            "999.1.1.1",
            "[::1]",
            "[::1]:8080",
            "[2001:DB8::ffff:192.0.2.1]",
            "[v1.a:b]",
            "[vF.~!]:1",
        ],
    },
    Group {
        clause: "RFC 9112 3.2, RFC 3986 3.2.2, 3.2.3: an invalid Host",
        around: Around::Host,
        read: MALFORMED,
        vectors: &[
            "",
            "a:http",
            "a:b:c",
            "a:1:2",
            "a:99999",
            "a:65536",
            "a:+1",
            "a:-1",
            "a: 1",
            ":",
            ":80",
            "::1",
            "[[[",
            "[",
            "]",
            "[]",
            "[::1",
            "::1]",
            "[::1]a",
            "[::1]]",
            "[::1]:x",
            "[::1%25eth0]",
            "[::1%eth0]",
            "[1.2.3.4]",
            "[::1::]",
            "[12345::]",
            "[v.a]",
            "[v1.]",
            "[v1]",
            "[vg.a]",
            "[v1.a/b]",
            "a[::1]",
            "a%zz",
            "a%4",
            "a%",
            "a b",
            "a, b",
            "a\"b",
            "a<b>",
            "a|b",
            "a^b",
            "a{b}",
            "a`b",
            "a\\b",
            "a#b",
            "a?b",
            "a/b",
            "http://a",
            "user@a",
            "\u{fc}",
        ],
    },
    Group {
        clause: "RFC 9112 3.2.1 to 3.2.4: the forms of a target",
        around: Around::Target,
        read: Read::Requests(1),
        vectors: &[
            "/",
            "/a%20b?x=%2F",
            "/a?q={}|",
            "http://b.example:81/p?q",
            "https://b?q=1",
            "http://b",
            "/a/",
            "/~a/b;c=1,d",
        ],
    },
    Group {
        clause: "RFC 9112 3.2, RFC 3986 3.3, 6.2.2: a target with two readings",
        around: Around::Target,
        read: Read::As(Fault::AmbiguousTarget),
        vectors: &[
            "/\u{fc}",
            "*",
            "a",
            "a:80",
            "ftp://b/",
            "http:/b",
            "http:///p",
            "http://u@b/",
            "http://:80/",
            "//b/p",
            "/a//b",
            "/a/../b",
            "/./a",
            "/%2e%2e",
            "/a%2fb",
            "/a%5cb",
            "/a#f",
            "/?%zz",
            "http://b#f",
            "?q",
            "/a\\b",
            "http://b/a/./b",
            "/a%00",
            "/%ff",
            "/a%",
            "/a?b#c",
        ],
    },
    Group {
        clause: "RFC 9110 5.1, 5.5: names are tokens, values have no control byte",
        around: Around::Get,
        read: MALFORMED,
        vectors: &[
            "X-A_B: y",
            "X: \u{7f}",
            "X: \u{1b}[2J",
            "X",
            "\u{fc}: y",
            "X: \0",
            "X y: z",
            "\"X\": y",
        ],
    },
    Group {
        clause: "RFC 9110 5.5, 5.6.3: values may have any other byte, and whitespace around them",
        around: Around::Get,
        read: Read::Requests(2),
        vectors: &[
            "X: \u{fc}",
            "X:y",
            "X:\ty\t",
            "X:",
            "X: a\tb",
            "!#$%&'*+-.^`|~: y",
        ],
    },
    Group {
        clause: "RFC 9110 10.1.1: an expectation that can't be met",
        around: Around::Post,
        read: Read::As(Fault::ExpectationFailed),
        vectors: &[
            "Expect: 200-ok\r\nContent-Length: 1",
            "Expect: 100-continue, x\r\nContent-Length: 1",
        ],
    },
    Group {
        clause: "RFC 9110 5.3, 10.1.1: one Expect",
        around: Around::Get,
        read: MALFORMED,
        vectors: &["Expect: 100-continue\r\nExpect: 100-continue"],
    },
    Group {
        clause: "RFC 9110 15.5.16, 8.4: a coded body",
        around: Around::Post,
        read: Read::As(Fault::ContentCoding),
        vectors: &[
            "Content-Encoding: gzip\r\nContent-Length: 1",
            "Content-Encoding: br\r\nTransfer-Encoding: chunked",
            "Content-Encoding: identity, gzip\r\nContent-Length: 1",
            "Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 1",
        ],
    },
    Group {
        clause: "RFC 9110 15.5.14: a body beyond the limit, by its length or its first chunk",
        around: Around::Post,
        read: Read::As(Fault::BodyTooLarge),
        vectors: &[
            "Content-Length: 1048577",
            "Content-Length: 9999999999999999999",
        ],
    },
    Group {
        clause: "RFC 9110 15.5.14: … by a chunk",
        around: Around::Chunked,
        read: Read::As(Fault::BodyTooLarge),
        vectors: &[
            "100001\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "1\r\na\r\n100000\r\n",
        ],
    },
    Group {
        clause: "RFC 9112 7.1: chunked bodies, with extensions and trailers",
        around: Around::Chunked,
        read: Read::Requests(2),
        vectors: &[
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n00\r\n\r\n",
            "0000000000000005\r\nhello\r\n0\r\n\r\n",
            "1;x\r\na\r\n1;y=z;w=\"q\\\"\"\r\nb\r\n0;last\r\n\r\n",
            "1\r\na\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n",
        ],
    },
];

impl Group {
    /// The bytes of each vector.
    fn bytes(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.vectors.iter().map(|vector| {
            let text = match self.around {
                Around::Post => {
                    format!("POST / HTTP/1.1\r\nHost: x\r\n{vector}\r\n\r\n0\r\n\r\n{SMUGGLED}")
                }
                Around::Get => format!("GET / HTTP/1.1\r\nHost: x\r\n{vector}\r\n\r\n{SMUGGLED}"),
                Around::Chunked => format!(
                    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                     {vector}{SMUGGLED}"
                ),
                Around::Bytes => (*vector).to_owned(),
                Around::Host => format!("GET / HTTP/1.1\r\nHost: {vector}\r\n\r\n"),
                Around::Target => format!("GET {vector} HTTP/1.1\r\nHost: x\r\n\r\n"),
            };
            text.into_bytes()
        })
    }
}

fn outcome(reading: &Reading) -> Read {
    match &reading.refused {
        Some((refusal, _)) if reading.requests.is_empty() => Read::As(refusal.fault),
        Some(_) => panic!("a request was read before the refusal: {reading:?}"),
        None => Read::Requests(reading.requests.len()),
    }
}

/// Reads every vector whole and in all cuts. Returns the numbers of vectors and of readings.
fn run(groups: &[Group]) -> (usize, usize) {
    let limits = Limits::default();
    let (mut vectors, mut readings) = (0, 0);
    for group in groups {
        for bytes in group.bytes() {
            let whole = read_pieces(&[&bytes], &limits);
            let shown = bytes.escape_ascii();
            assert_eq!(outcome(&whole), group.read, "{}: {shown}", group.clause);
            for at in 0..=bytes.len() {
                let (one, two) = bytes.split_at(at);
                let cut = read_pieces(&[one, two], &limits);
                assert_eq!(cut, whole, "{}: cut at {at}: {shown}", group.clause);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(
                read_pieces(&single, &limits),
                whole,
                "byte by byte: {shown}"
            );
            vectors += 1;
            readings += bytes.len() + 3;
        }
    }
    (vectors, readings)
}

#[test]
fn no_vector_smuggles_a_request() {
    let (vectors, readings) = run(SMUGGLING);
    println!("smuggling: {vectors} vectors, {readings} readings");
    assert!(vectors >= 80);
}

#[test]
fn the_grammar_is_followed_to_its_border() {
    let (vectors, readings) = run(COMPLIANCE);
    println!("compliance: {vectors} vectors, {readings} readings");
    assert!(vectors >= 70);
}

/// The host of a request, in `Host` and in the target.
#[test]
fn a_host_is_read_as_it_was_sent() {
    let hosts = COMPLIANCE
        .iter()
        .filter(|it| matches!(it.around, Around::Host));
    for group in hosts {
        for host in group.vectors {
            let target = format!("GET http://{host}/p HTTP/1.1\r\nHost: x\r\n\r\n");
            let reading = read_pieces(&[target.as_bytes()], &Limits::default());
            match group.read {
                Read::Requests(_) => {
                    assert_eq!(reading.requests[0].host, *host);
                    assert_eq!(reading.requests[0].path, "/p");
                }
                // `http://a/b/p` has another host and path.
                Read::As(_) if host.contains(['/', '?', '#']) => {}
                Read::As(_) => {
                    assert!(
                        reading.requests.is_empty() && reading.refused.is_some(),
                        "{host}"
                    );
                }
            }
        }
    }
}

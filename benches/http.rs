//! Reading requests and writing response heads: what one hot GET costs in `http`, and what it costs
//! when its head comes in two pieces.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::http::{
    Connection, DateCache, HeaderTable, IfNoneMatch, Limits, REVALIDATE, Received, Response,
    StatusCode, write_response,
};
use sluicegate::log::EventId;
use sluicegate::model::{Etag, UnixMillis};

/// A request as a load generator sends it.
const SHORT: &[u8] = b"GET /accounts/alice HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";

/// A request as curl sends it, with `If-None-Match`.
const CURL: &[u8] = b"GET /accounts/alice HTTP/1.1\r\nHost: localhost:8080\r\n\
    User-Agent: curl/8.14.1\r\nAccept: */*\r\nIf-None-Match: \"1f2e3d4c-3-123456\"\r\n\r\n";

/// A request as a browser sends it from a page of another origin.
const BROWSER: &[u8] = b"GET /accounts/alice HTTP/1.1\r\nHost: api.example:8443\r\n\
    Connection: keep-alive\r\nsec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\nsec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\nAccept: */*\r\nOrigin: https://app.example\r\n\
    Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
    Referer: https://app.example/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\
    If-None-Match: \"1f2e3d4c-3-123456\"\r\n\r\n";

fn read(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("http/read");
    for (name, bytes) in [("short", SHORT), ("curl", CURL), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            let (mut connection, mut table) = (Connection::new(), HeaderTable::new());
            b.iter(
                || match connection.receive(black_box(bytes), &limits, &mut table) {
                    Received::Request(request, used) => used + request.path.as_str().len(),
                    other => panic!("{other:?}"),
                },
            );
        });
    }
    group.bench_function("browser, in two pieces", |b| {
        let (mut connection, mut table) = (Connection::new(), HeaderTable::new());
        let (first, second) = BROWSER.split_at(300);
        b.iter(|| {
            assert!(matches!(
                connection.receive(black_box(first), &limits, &mut table),
                Received::More
            ));
            match connection.receive(black_box(second), &limits, &mut table) {
                Received::Request(request, used) => used + request.path.as_str().len(),
                other => panic!("{other:?}"),
            }
        });
    });
    group.bench_function("16 curl, kept", |b| {
        let all = CURL.repeat(16);
        let (mut connection, mut table) = (Connection::new(), HeaderTable::new());
        b.iter(|| {
            connection.keep(black_box(&all));
            for _ in 0..16 {
                match connection.receive(b"", &limits, &mut table) {
                    Received::Request(request, used) => {
                        black_box(used + request.path.as_str().len());
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    });
    group.finish();
}

/// Everything that `http` does for one hot GET: it reads the request, looks at its condition, and
/// writes the answer.
fn hot_get(c: &mut Criterion) {
    let limits = Limits::default();
    let etag = Etag::from_header(b"1f2e3d4c-3-123457").expect("legal");
    let body = [b'x'; 200];
    let mut group = c.benchmark_group("http/hot get");
    for (name, bytes) in [("short", SHORT), ("curl", CURL), ("browser", BROWSER)] {
        group.bench_function(name, |b| {
            let (mut connection, mut table) = (Connection::new(), HeaderTable::new());
            let mut dates = DateCache::new();
            let mut out = Vec::with_capacity(4096);
            b.iter(|| {
                let Received::Request(request, _) =
                    connection.receive(black_box(bytes), &limits, &mut table)
                else {
                    panic!("a whole request");
                };
                let condition =
                    IfNoneMatch::parse(&request.headers, EventId::etag_in).expect("well-formed");
                let status = match condition {
                    Some(condition) if condition.has(Some(&etag)) => StatusCode::NOT_MODIFIED,
                    _ => StatusCode::OK,
                };
                out.clear();
                let date = dates.line(UnixMillis(1_764_000_000_123));
                let mut response = Response::new(status);
                response.etag(&etag).fixed(&REVALIDATE);
                response.json_unless_typed().body(&body);
                let framed = write_response(&response, request.context(), date, &mut out);
                black_box(out.len() + usize::from(framed.close))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read, hot_get);
criterion_main!(benches);

//! HTTP as a state machine over bytes: received bytes become [`Request`]s, responses become bytes.
//! No socket, no clock, no meaning of a path.
//!
//! A [`Connection`] is the parsing side of one HTTP/1 connection. It holds a buffer only while a
//! partially received request is here. A request that arrives whole is parsed where it lies,
//! without copying and without allocating. Parsing is strict: bytes that could be read in two ways
//! are refused (RFC 9112 6.3). After a refusal the connection is never used again, so a byte of one
//! request is never read as part of another.
//!
//! A [`Request`] does not know how it was framed, so HTTP/2 can make the same one. A handler
//! answers it with a [`Response`]: status, fields and body, whatever protocol carries it.
//! [`write_response`] is HTTP/1.1's encoder. Of its request a response needs only the
//! [`ResponseContext`]: four small facts that the shard keeps while an exchange waits.
//!
//! The room has one error, the [`Refusal`]: a kind of problem ([`Fault`]) and a sentence. The
//! client receives it as `application/problem+json` (RFC 9457).

// Bytes of strangers: an index that they choose must not end the process, and a length that is cut
// to fewer bits would read one request as another.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod accept;
#[cfg(any(test, fuzzing))]
mod check;
mod chunked;
mod conditional;
mod connection;
mod context;
mod cors;
mod date;
mod encode;
mod fields;
mod forwarded;
mod framed;
mod gzip;
mod head;
mod headers;
pub mod http2;
mod idempotency;
mod last_event_id;
mod limits;
mod list;
mod names;
mod path;
mod prefer;
mod problem;
#[cfg(test)]
mod properties;
mod proxy_header;
mod query;
mod request;
mod response;
mod split;
mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vector_tests;

pub use ::http::StatusCode;
pub use accept::accepts;
#[cfg(any(test, fuzzing))]
pub use check::check_any_bytes;
pub use conditional::{EventIds, IfMatch, IfNoneMatch, Representation};
pub use connection::{CONTINUE, Connection, Received};
pub use context::{CorsGrant, Quota, ResponseContext, Version};
pub use cors::{Cors, CorsPolicies, CorsPolicyId, PageOrigin, is_preflight, preflight_method};
pub use date::DateCache;
pub use encode::write_response;
pub use fields::{
    EVENT_STREAM, Field, FixedField, GZIP, JSON, NO_BUFFERING, PASS_THROUGH, PRIVATE, REPLAYED,
    RESPOND_ASYNC, REVALIDATE, VARY_AUTHORIZATION, VARY_ENCODING,
};
pub use forwarded::{ForwardedBy, client_address};
pub use framed::{CHUNK_END, ChunkHead, Follows, Framed, LAST_CHUNK};
pub use gzip::{GZIP_BYTES_MIN, GzipEncoder, accepts_gzip, gzip, is_compressible};
pub use headers::{HeaderTable, Headers};
pub use idempotency::IdempotencyKey;
pub use last_event_id::last_event_id;
pub use limits::{DRAIN_BYTES_MAX, Drain, Drained, HEAD_BYTES_MAX, HEADERS_MAX, Limits};
pub use names::{is_credential, is_gateway_owned, is_hop_by_hop};
pub use path::Path;
pub use prefer::Prefer;
pub use problem::{Fault, Member, PointedError, Problem, ProblemKind, Refusal};
#[cfg(any(test, fuzzing))]
pub use proxy_header::check_any_bytes as check_any_proxy_header;
pub use proxy_header::{BadProxyHeader, ProxyHeader, ProxySource};
pub use query::Query;
pub use request::{Method, Request};
pub use response::{Body, ReplyRules, Response};

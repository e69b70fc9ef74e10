//! HTTP as a machine over bytes: what a client sent becomes [`Request`]s, what the house answers
//! becomes bytes. No socket, no clock, no meaning of a path.
//!
//! A [`Connection`] is the parsing side of one client connection. It is small, and holds a buffer
//! only while half a request is here; a request that arrives whole is parsed where it lies, without
//! copying and without allocating. It is strict: of two readings of the same bytes it takes none
//! (RFC 9112 6.3), and after a refusal the connection is never used again, so a byte that belongs
//! to one request is never read as part of another.
//!
//! A [`Request`] does not know how it was framed, so HTTP/2 can make the same one. A response needs
//! of its request only the [`Exchange`]: three small facts that the shard keeps while it waits. It
//! is written by a [`ResponseHead`] into a buffer that the shard reuses; a head that is not
//! finished leaves nothing behind, so a bad reply can become a 502 at any point before its end.
//!
//! The room has one error, the [`Refusal`]: a kind of problem ([`Fault`]) and a sentence. Every one
//! goes out as `application/problem+json` (RFC 9457).

mod accept;
#[cfg(any(test, fuzzing))]
mod check;
mod chunked;
mod conditional;
mod connection;
mod cors;
mod date;
mod framed;
mod head;
mod headers;
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
mod query;
mod request;
mod response;
mod status;
#[cfg(test)]
mod tests;

pub use accept::accepts;
#[cfg(any(test, fuzzing))]
pub use check::check_any_bytes;
pub use conditional::{EventIds, IfMatch, IfNoneMatch};
pub use connection::{CONTINUE, Connection, Received};
pub use cors::{Cors, CorsGrant, is_preflight};
pub use date::DateCache;
pub use framed::{CHUNK_END, ChunkHead, Follows, Framed, LAST_CHUNK};
pub use headers::{HEADERS_MAX, Headers};
pub use idempotency::IdempotencyKey;
pub use last_event_id::last_event_id;
pub use limits::{DRAIN_BYTES_MAX, Drain, Drained, HEAD_BYTES_MAX, Limits};
pub use names::{is_credential, is_gateway_owned, is_hop_by_hop};
pub use path::Path;
pub use prefer::Prefer;
pub use problem::{Fault, Member, Problem, ProblemKind, Refusal};
pub use query::Query;
pub use request::{Exchange, Method, Request, Version};
pub use response::{ReplyRules, ResponseHead};
pub use status::Status;

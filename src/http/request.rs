//! Requests, independent of the protocol that framed them.

use super::context::{CorsGrant, ResponseContext, Version};
use super::headers::Headers;
use super::path::Path;
use super::query::Query;

/// The methods that the gateway serves. Others are answered with 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// `GET`: reads a resource or a stream.
    Get,
    /// `HEAD`: as `GET`, without the body.
    Head,
    /// `POST` (RFC 9110 9.3.3): neither safe nor idempotent.
    Post,
    /// `PUT` (RFC 9110 9.3.4): idempotent by its definition.
    Put,
    /// `PATCH` (RFC 5789): neither safe nor idempotent.
    Patch,
    /// `DELETE` (RFC 9110 9.3.5): idempotent by its definition.
    Delete,
    /// `OPTIONS`: what a resource allows, and CORS preflights.
    Options,
}

impl Method {
    /// Parses a method's name, which is case-sensitive (RFC 9110 9.1).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "GET" => Some(Self::Get),
            "HEAD" => Some(Self::Head),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            "PATCH" => Some(Self::Patch),
            "DELETE" => Some(Self::Delete),
            "OPTIONS" => Some(Self::Options),
            _ => None,
        }
    }

    /// The name, as requests spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether the method is safe: its request changes nothing (RFC 9110 9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

/// One whole request. Its parts are views of the bytes it came in, or of what its [`Connection`]
/// kept of them.
///
/// [`Connection`]: super::Connection
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// The method: HTTP's others are refused with 501.
    pub method: Method,
    /// The path in its canonical form, decoded once for every reader.
    pub path: Path<'b>,
    /// The query, without its `?`.
    pub query: Query<'b>,
    /// All headers in the order of the request, repeated ones included.
    pub headers: Headers<'b>,
    /// The body, whole and without framing; at most `body_bytes_max` bytes.
    pub body: &'b [u8],
    /// The protocol version of the request.
    pub version: Version,
    /// Whether the client wants to keep the connection open.
    pub keep_alive: bool,
    /// Whether bytes of another request were received behind this one.
    pub pipelined: bool,
    /// The authority: of the target if the target has one, otherwise of `Host`. Empty if an
    /// HTTP/1.0 client sent neither. Its characters are checked, its case is as sent.
    pub host: &'b [u8],
}

impl Request<'_> {
    /// What a response to this request must know. The CORS policy is the caller's, and so is its
    /// grant.
    #[must_use]
    pub fn context(&self) -> ResponseContext {
        ResponseContext {
            version: self.version,
            head_only: self.method == Method::Head,
            keep_alive: self.keep_alive,
            cors: CorsGrant::NONE,
            quota: None,
        }
    }
}

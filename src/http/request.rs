//! What a client asked for, whatever framed it.

use super::context::{CorsGrant, ResponseContext, Version};
use super::headers::Headers;
use super::path::Path;
use super::query::Query;

/// Methods served here. Others are answered with 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`: as `GET`, without the body.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// `OPTIONS`.
    Options,
}

impl Method {
    /// The method by its name, which is case-sensitive (RFC 9110 9.1).
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

    /// Its name.
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

    /// Whether it asks for no change (RFC 9110 9.2.1).
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
    /// What is to be done.
    pub method: Method,
    /// To what: one canonical form, decoded once, for whoever looks.
    pub path: Path<'b>,
    /// What stands behind the `?`.
    pub query: Query<'b>,
    /// All headers, in order.
    pub headers: Headers<'b>,
    /// The body, whole and without framing; at most `body_bytes_max` bytes.
    pub body: &'b [u8],
    /// The version it was sent under.
    pub version: Version,
    /// Whether the client wants the connection to go on.
    pub keep_alive: bool,
    /// Whether bytes of another request have arrived already: it was pipelined.
    pub pipelined: bool,
    /// The authority asked: of the target if it names one, else of `Host`; empty if an HTTP/1.0
    /// client named none. Its characters are checked, its case is as sent.
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
            cors: CorsGrant::None,
        }
    }
}

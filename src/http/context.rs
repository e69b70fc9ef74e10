//! What a response must know of its request.

/// The version a request was sent under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: no chunks, and the connection closes unless asked otherwise.
    Http10,
    /// HTTP/1.1: chunks, and the connection stays open unless asked otherwise.
    Http11,
}

/// What a response says about cross-origin use.
/// [`CorsPolicies::grant`](super::CorsPolicies::grant) makes it, and only the same policies can
/// write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorsGrant {
    /// The number of the policy that decided.
    pub(super) policy: u16,
    pub(super) readers: CorsReaders,
}

/// Which pages of other origins may read a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CorsReaders {
    /// The page may not read the response, or asked from no other origin.
    None,
    /// The page of the origin at this place in the policy's list may read it.
    Origin(u16),
    /// Any page may read it.
    Any,
}

impl CorsGrant {
    /// No page of another origin may read the response. It says what the first policy says to all.
    pub const NONE: Self = Self {
        policy: 0,
        readers: CorsReaders::None,
    };
}

/// What a response must know of its request. Small and `Copy`, because it outlives the request's
/// bytes while an exchange waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseContext {
    /// The version of the request.
    pub version: Version,
    /// The request was `HEAD`: no body follows whatever the head says.
    pub head_only: bool,
    /// The connection may serve another request after this one. Set it to `false` to close, also
    /// when draining.
    pub keep_alive: bool,
    /// Which pages may read the response.
    pub cors: CorsGrant,
}

impl ResponseContext {
    /// For a request with a head that could not be read: HTTP/1.1, with a body, then the end.
    pub const UNREAD: Self = Self {
        version: Version::Http11,
        head_only: false,
        keep_alive: false,
        cors: CorsGrant::NONE,
    };
}

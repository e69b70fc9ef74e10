//! What a response must know of its request.

/// The version a request was sent under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: no chunks, and the connection closes unless asked otherwise.
    Http10,
    /// HTTP/1.1: chunks, and the connection stays open unless asked otherwise.
    Http11,
    /// HTTP/2: frames of one stream among others, on a connection that stays open.
    Http2,
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

/// What a client has left of the rate of a route, as a response reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests that the route allows a client in each `per_s`.
    pub requests: u32,
    /// In seconds.
    pub per_s: u32,
    /// Requests that the client may send now.
    pub left: u32,
    /// Seconds until the client has all of its requests again.
    pub full_after_s: u32,
}

impl Quota {
    /// Appends the value of `RateLimit-Policy` to `policy`, and that of `RateLimit` to `limit`
    /// (draft-ietf-httpapi-ratelimit-headers-09, 3 and 4).
    pub fn write(&self, policy: &mut Vec<u8>, limit: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        let mut put = |out: &mut Vec<u8>, key: &str, value: u32| {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(number.format(value).as_bytes());
        };
        put(policy, "\"client\";q=", self.requests);
        put(policy, ";w=", self.per_s);
        put(limit, "\"client\";r=", self.left);
        put(limit, ";t=", self.full_after_s);
    }
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
    /// What the client has left of the route's rate. `None`: the route has none.
    pub quota: Option<Quota>,
}

impl ResponseContext {
    /// For a request with a head that could not be read: HTTP/1.1, with a body, then the end.
    pub const UNREAD: Self = Self {
        version: Version::Http11,
        head_only: false,
        keep_alive: false,
        cors: CorsGrant::NONE,
        quota: None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    // draft-ietf-httpapi-ratelimit-headers-09: a policy's name, its quota and window; what is left
    // and when it is restored.
    #[test]
    fn a_quota_is_two_fields() {
        let quota = Quota {
            requests: 100,
            per_s: 60,
            left: 7,
            full_after_s: 56,
        };
        let (mut policy, mut limit) = (Vec::new(), Vec::new());
        quota.write(&mut policy, &mut limit);
        assert_eq!(policy, b"\"client\";q=100;w=60");
        assert_eq!(limit, b"\"client\";r=7;t=56");
    }
}

//! Fields of a response, among them fields with a constant name and value.

/// One field of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'r> {
    /// Name and value are constants of this crate.
    Fixed(&'static FixedField),
    /// The value is a number.
    Number(&'static str, u64),
    /// Any other name and value.
    Text(&'r str, &'r [u8]),
}

/// A field with a constant name and value. Its HTTP/1.1 line is stored too, so that a single copy
/// writes it.
#[derive(Debug, PartialEq, Eq)]
pub struct FixedField {
    name: &'static str,
    value: &'static str,
    line: &'static str,
}

impl FixedField {
    /// The name, in lower case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The value, as it is sent.
    #[must_use]
    pub const fn value(&self) -> &'static str {
        self.value
    }

    /// Name, colon, value and the line's end.
    pub(super) const fn line(&self) -> &'static [u8] {
        self.line.as_bytes()
    }

    pub(super) const fn is_content_type(&self) -> bool {
        self.name.len() == "content-type".len()
    }
}

macro_rules! fixed_fields {
    ($($(#[$doc:meta])* $vis:vis $ident:ident: $name:literal $value:literal;)*) => {
        $(
            $(#[$doc])*
            $vis static $ident: FixedField = FixedField {
                name: $name,
                value: $value,
                line: concat!($name, ": ", $value, "\r\n"),
            };
        )*

        #[cfg(test)]
        static ALL: &[&FixedField] = &[$(&$ident),*];
    };
}

fixed_fields! {
    /// A stored response must be validated before each use (RFC 9111 5.2.2.4).
    pub REVALIDATE: "cache-control" "no-cache";
    /// An event stream is neither stored nor compressed: a proxy that compresses holds events back
    /// until its buffer is full (RFC 9111 5.2.2.6).
    pub PASS_THROUGH: "cache-control" "no-store, no-transform";
    /// nginx must not buffer an event stream.
    pub NO_BUFFERING: "x-accel-buffering" "no";
    /// The body is a JSON value (RFC 8259).
    pub JSON: "content-type" "application/json";
    /// The body is problem details (RFC 9457).
    pub(super) PROBLEM_JSON: "content-type" "application/problem+json";
    /// The body is an event stream.
    pub EVENT_STREAM: "content-type" "text/event-stream";
    /// The reply was stored: it answers an earlier request with the same key.
    pub REPLAYED: "idempotent-replayed" "true";
    /// The client's preference for an asynchronous answer was followed (RFC 7240 3).
    pub RESPOND_ASYNC: "preference-applied" "respond-async";
    /// The response is for one client, and no cache keeps it (RFC 9111 5.2.2).
    pub PRIVATE: "cache-control" "private, no-store";
    /// The response differs by the client's credential.
    pub VARY_AUTHORIZATION: "vary" "authorization";
    /// The body is in gzip (RFC 9110 8.4.1.3).
    pub GZIP: "content-encoding" "gzip";
    /// The response differs by the codings that the client takes.
    pub VARY_ENCODING: "vary" "accept-encoding";
    /// The response differs by the page's origin.
    pub(super) VARY_ORIGIN: "vary" "origin";
    /// Pages of every origin may read the response.
    pub(super) ALLOW_ANY_ORIGIN: "access-control-allow-origin" "*";
    /// Pages may send cookies and read the response.
    pub(super) ALLOW_CREDENTIALS: "access-control-allow-credentials" "true";
}

#[cfg(test)]
mod tests {
    use super::super::names::{is_token_byte, is_value_byte};
    use super::*;

    #[test]
    fn fixed_fields_follow_the_grammar() {
        for field in ALL {
            assert!(field.name().bytes().all(is_token_byte));
            assert!(!field.name().bytes().any(|b| b.is_ascii_uppercase()));
            assert!(field.value().bytes().all(is_value_byte));
            let is_type = field.name() == "content-type";
            assert_eq!(field.is_content_type(), is_type, "{}", field.name());
        }
    }
}

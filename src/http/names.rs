//! Header names with a rule of their own: which never travel on, and which only the gateway sets.
//! Names are compared without regard to case; none of the lists contains a spelling with `_`, since
//! a request that has one is refused.

/// Headers about one connection, and those that frame a message (RFC 9110 7.6.1, RFC 9112 6). They
/// never go from a request into a record nor from a record into a response.
const HOP_BY_HOP: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Headers that carry a credential. They never reach a record, whatever the config allows.
const CREDENTIAL: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
];

/// Whether a header is about one connection or frames a message.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|h| name.eq_ignore_ascii_case(h))
}

/// Whether a header carries a credential.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    CREDENTIAL.iter().any(|h| name.eq_ignore_ascii_case(h))
}

/// Whether the gateway itself sets this response header, so that a reply record's header of the
/// name is dropped: message framing, the date, the CORS policy, whether the reply is a stored one,
/// and pseudo headers such as `:status`.
#[must_use]
pub fn is_gateway_owned(name: &str) -> bool {
    const CORS: &str = "access-control-";
    name.starts_with(':')
        || is_hop_by_hop(name)
        || name.eq_ignore_ascii_case("date")
        || name.eq_ignore_ascii_case("idempotent-replayed")
        || name
            .get(..CORS.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(CORS))
}

/// RFC 9110 5.6.2 `tchar`, by byte.
#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, for bytes"
)]
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        b += 1;
    }
    table
};

/// Whether a byte may occur in a token: a method, a header name.
#[expect(
    clippy::indexing_slicing,
    reason = "the table has an entry for every byte"
)]
pub(super) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether a byte may occur in a header value (RFC 9110 5.5): no control but the tab.
pub(super) const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_know_every_spelling() {
        for name in ["Connection", "TRANSFER-ENCODING", "content-Length", "te"] {
            assert!(is_hop_by_hop(name) && is_gateway_owned(name), "{name}");
        }
        for name in [
            ":status",
            "Date",
            "Idempotent-Replayed",
            "Access-Control-Allow-Origin",
            "access-control-x",
        ] {
            assert!(is_gateway_owned(name), "{name}");
        }
        for name in [
            "etag",
            "x-connection",
            "content-type",
            "access-contro\u{e9}-x",
        ] {
            assert!(!is_gateway_owned(name), "{name}");
        }
        assert!(is_credential("COOKIE") && !is_credential("etag"));
    }
}

//! Status codes are those of the `http` crate, which HTTP/2 needs too. This file adds what HTTP/1.1
//! needs: status lines, and which responses have content.

use ::http::StatusCode;

macro_rules! statuses {
    ($($code:literal $reason:literal)*) => {
        /// The complete status line of a registered status. An unregistered one has an empty
        /// reason, as RFC 9112 4 allows.
        fn known_line(status: StatusCode) -> Option<&'static [u8]> {
            match status.as_u16() {
                $($code => Some(concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes()),)*
                _ => None,
            }
        }
    };
}

// With the reason phrases of RFC 9110; those of the `http` crate are older.
statuses! {
    200 "OK"
    201 "Created"
    202 "Accepted"
    203 "Non-Authoritative Information"
    204 "No Content"
    205 "Reset Content"
    206 "Partial Content"
    207 "Multi-Status"
    208 "Already Reported"
    226 "IM Used"
    300 "Multiple Choices"
    301 "Moved Permanently"
    302 "Found"
    303 "See Other"
    304 "Not Modified"
    305 "Use Proxy"
    307 "Temporary Redirect"
    308 "Permanent Redirect"
    400 "Bad Request"
    401 "Unauthorized"
    402 "Payment Required"
    403 "Forbidden"
    404 "Not Found"
    405 "Method Not Allowed"
    406 "Not Acceptable"
    407 "Proxy Authentication Required"
    408 "Request Timeout"
    409 "Conflict"
    410 "Gone"
    411 "Length Required"
    412 "Precondition Failed"
    413 "Content Too Large"
    414 "URI Too Long"
    415 "Unsupported Media Type"
    416 "Range Not Satisfiable"
    417 "Expectation Failed"
    421 "Misdirected Request"
    422 "Unprocessable Content"
    423 "Locked"
    424 "Failed Dependency"
    425 "Too Early"
    426 "Upgrade Required"
    428 "Precondition Required"
    429 "Too Many Requests"
    431 "Request Header Fields Too Large"
    451 "Unavailable For Legal Reasons"
    500 "Internal Server Error"
    501 "Not Implemented"
    502 "Bad Gateway"
    503 "Service Unavailable"
    504 "Gateway Timeout"
    505 "HTTP Version Not Supported"
    506 "Variant Also Negotiates"
    507 "Insufficient Storage"
    508 "Loop Detected"
    511 "Network Authentication Required"
}

/// Whether a response with this status may have content (RFC 9110 15.3.5, 15.3.6, 15.4.5).
pub(super) const fn allows_content(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 204 | 205 | 304)
}

/// Appends `HTTP/1.1 200 OK` and the line's end.
pub(super) fn write_line(status: StatusCode, out: &mut Vec<u8>) {
    if let Some(line) = known_line(status) {
        out.extend_from_slice(line);
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" \r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9112 4: the space after the code is required even when the reason is empty.
    #[test]
    fn every_status_has_a_line() {
        for code in 200..600 {
            let mut line = Vec::new();
            let status = StatusCode::from_u16(code).expect("within bounds");
            write_line(status, &mut line);
            let line = String::from_utf8(line).expect("ASCII");
            let reason = line.strip_prefix(&format!("HTTP/1.1 {code} "));
            let reason = reason.and_then(|rest| rest.strip_suffix("\r\n"));
            let reason = reason.expect("the form of a status line");
            let known = status.canonical_reason().is_some();
            assert!(reason.is_empty() || known || code == 509, "{line}");
        }
    }

    #[test]
    fn reasons_are_those_of_rfc_9110() {
        for (status, expected) in [
            (StatusCode::OK, "HTTP/1.1 200 OK\r\n"),
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                "HTTP/1.1 413 Content Too Large\r\n",
            ),
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                "HTTP/1.1 422 Unprocessable Content\r\n",
            ),
        ] {
            let mut line = Vec::new();
            write_line(status, &mut line);
            assert_eq!(line, expected.as_bytes());
        }
    }
}

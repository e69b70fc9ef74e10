//! Responses as HTTP/2 carries them: fields for h2 to compress, and a body.

use ::http::header::{CONTENT_LENGTH, DATE};
use ::http::{HeaderName, HeaderValue, Response as Head, StatusCode};
use bytes::Bytes;

use super::super::context::ResponseContext;
use super::super::fields::Field;
use super::super::response::{Body, Response};
use super::super::status;

/// A response of a stream.
#[derive(Debug)]
pub struct Http2Response {
    /// Status and fields.
    pub head: Head<()>,
    /// The body, or its first part.
    pub body: Bytes,
    /// The body comes in pieces, behind `body`.
    pub has_pieces: bool,
}

impl Http2Response {
    /// Makes a response ready for its stream. `date` is a line of
    /// [`DateCache`](super::super::DateCache).
    #[must_use]
    pub fn new(response: &Response<'_>, context: ResponseContext, date: &[u8]) -> Self {
        let status = response.status();
        let mut head = Head::new(());
        *head.status_mut() = status;
        let fields = head.headers_mut();
        fields.reserve(response.fields().len() + 2);
        if let Some(date) = date_value(date) {
            fields.append(DATE, date);
        }
        for field in response.fields() {
            // Names and values were checked when they were added, so none is left out.
            let (name, value) = match field {
                Field::Fixed(fixed) => (
                    HeaderName::from_static(fixed.name()),
                    HeaderValue::from_static(fixed.value()),
                ),
                Field::Number(name, value) => {
                    (HeaderName::from_static(name), HeaderValue::from(*value))
                }
                Field::Text(name, value) => {
                    let name = HeaderName::from_bytes(name.as_bytes());
                    match (name, HeaderValue::from_bytes(value)) {
                        (Ok(name), Ok(value)) => (name, value),
                        _ => continue,
                    }
                }
            };
            fields.append(name, value);
        }
        let allowed = status::allows_content(status);
        let (body, has_pieces) = match response.content() {
            Body::Whole(bytes) if allowed => (&**bytes, false),
            Body::Pieces | Body::Stream if allowed => (&[][..], !context.head_only),
            Body::Whole(_) | Body::Pieces | Body::Stream => (&[][..], false),
        };
        // RFC 9110 8.6: never in a 204; in a 304 it would be that of the 200.
        let has_length = matches!(response.content(), Body::Whole(_))
            && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_length {
            fields.append(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let body = if context.head_only {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(body)
        };
        Self {
            head,
            body,
            has_pieces,
        }
    }

    /// About the bytes that the fields take.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        let fields = self.head.headers().iter();
        fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum()
    }
}

/// The value within a line `date: ...` and its end.
fn date_value(line: &[u8]) -> Option<HeaderValue> {
    let value = line.strip_prefix(b"date: ")?.strip_suffix(b"\r\n")?;
    HeaderValue::from_bytes(value).ok()
}

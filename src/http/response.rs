//! A response as its handler makes it: status, fields, body. Which protocol carries it is the
//! encoder's business ([`write_response`](super::write_response) is HTTP/1.1's).
//!
//! A [`Response`] borrows what it says, and its usual fields lie in place: one of a hot GET is made
//! and written without an allocation.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::model::Etag;

use super::fields::{Field, FixedField, JSON, PROBLEM_JSON};
use super::names::{is_credential, is_gateway_owned, is_token_byte, is_value_byte};
use super::problem::{Fault, Problem, Refusal};
use ::http::StatusCode;

/// Most bytes of names and values in one response that came from elsewhere. A reply with more is
/// refused, because many clients and proxies accept at most 32 KiB of head.
const FIELDS_BYTES_MAX: usize = 32 * 1024 - FRAMING_BYTES_MAX;

/// Room for the fields that an encoder adds: date, framing and connection.
const FRAMING_BYTES_MAX: usize = 256;

/// How many fields a response holds without an allocation. A GET has 3, or 8 with `Age` and CORS.
const FIELDS_IN_PLACE: usize = 8;

/// What a reply record may set in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyRules {
    /// `Set-Cookie` passes. If unset, it is dropped like the fields that the gateway owns.
    pub set_cookie: bool,
}

/// A response, whatever protocol carries it. `Date`, the length and the framing of the body are the
/// encoder's.
#[derive(Clone, Debug)]
pub struct Response<'r> {
    status: StatusCode,
    fields: SmallVec<[Field<'r>; FIELDS_IN_PLACE]>,
    /// Bytes of names and values from elsewhere.
    bytes: usize,
    typed: bool,
    body: Body<'r>,
}

/// What follows the fields of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'r> {
    /// All of it is here, so its length is known.
    Whole(Cow<'r, [u8]>),
    /// The body comes in pieces and has an end (a collection).
    Pieces,
    /// The body comes in pieces until the client or the gateway ends it (an event stream). An
    /// HTTP/1 connection carries nothing behind it.
    Stream,
}

impl<'r> Response<'r> {
    /// A response without fields and content.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            fields: SmallVec::new(),
            bytes: 0,
            typed: false,
            body: Body::Whole(Cow::Borrowed(&[])),
        }
    }

    /// Problem details as `application/problem+json`, with the problem's status (RFC 9457).
    #[must_use]
    pub fn problem(problem: &Problem<'_>) -> Self {
        let mut body = Vec::with_capacity(256);
        problem.write_json(&mut body);
        let mut response = Self::new(problem.kind.status);
        response.fixed(&PROBLEM_JSON);
        response.body = Body::Whole(Cow::Owned(body));
        response
    }

    /// Adds a field with a constant name and value.
    pub fn fixed(&mut self, field: &'static FixedField) -> &mut Self {
        self.typed |= field.is_content_type();
        self.fields.push(Field::Fixed(field));
        self
    }

    /// Adds a field with a number for its value (`Age`, `Retry-After` in seconds).
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.fields.push(Field::Number(name, value));
        self
    }

    /// Adds a field with a constant name and a value that was checked before: an etag, a value of
    /// the config.
    pub fn checked(&mut self, name: &'static str, value: &'r [u8]) -> &mut Self {
        debug_assert!(value.iter().copied().all(is_value_byte));
        self.fields.push(Field::Text(name, value));
        self
    }

    /// Adds the field `ETag`, with the tag's quotes.
    pub fn etag(&mut self, etag: &'r Etag) -> &mut Self {
        self.checked("etag", etag.as_bytes())
    }

    /// Adds `Content-Type: application/json`, unless the response has a type already.
    pub fn json_unless_typed(&mut self) -> &mut Self {
        if self.typed { self } else { self.fixed(&JSON) }
    }

    /// Adds a field that came from elsewhere: a record, a key, a client.
    ///
    /// # Errors
    /// The name is not a token, the value has a control byte, the response has a type already, or
    /// such fields are larger than 32 KiB.
    pub fn field(&mut self, name: &'r str, value: &'r [u8]) -> Result<&mut Self, Refusal> {
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(bad_reply("a header name of the reply is malformed"));
        }
        if !value.iter().copied().all(is_value_byte) {
            return Err(bad_reply("a header value of the reply has a control byte"));
        }
        self.bytes += name.len() + value.len();
        if self.bytes > FIELDS_BYTES_MAX {
            return Err(bad_reply("the headers of the reply are larger than 32 KiB"));
        }
        if name.eq_ignore_ascii_case("content-type") {
            if self.typed {
                return Err(bad_reply("the reply has two content types"));
            }
            self.typed = true;
        }
        self.fields.push(Field::Text(name, value.trim_ascii()));
        Ok(self)
    }

    /// Adds a field of a reply record. Returns false if it was dropped: framing, connection, date
    /// and CORS are the gateway's, and a credential passes only if the rules say so.
    ///
    /// # Errors
    /// As [`field`](Self::field). The client then gets 502 instead.
    pub fn reply_field(
        &mut self,
        name: &'r str,
        value: &'r [u8],
        rules: ReplyRules,
    ) -> Result<bool, Refusal> {
        let cookie = name.eq_ignore_ascii_case("set-cookie");
        let dropped = if cookie {
            !rules.set_cookie
        } else {
            is_gateway_owned(name) || is_credential(name)
        };
        if dropped {
            return Ok(false);
        }
        self.field(name, value)?;
        Ok(true)
    }

    /// Sets a content that is complete.
    pub fn body(&mut self, bytes: &'r [u8]) -> &mut Self {
        self.body = Body::Whole(Cow::Borrowed(bytes));
        self
    }

    /// Declares that the content comes in pieces.
    pub fn pieces(&mut self) -> &mut Self {
        self.body = Body::Pieces;
        self
    }

    /// Declares that the content is an endless stream.
    pub fn stream(&mut self) -> &mut Self {
        self.body = Body::Stream;
        self
    }

    /// The status code given to [`Self::new`].
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields in the order in which they were added.
    #[must_use]
    pub fn fields(&self) -> &[Field<'r>] {
        &self.fields
    }

    /// The content, or how it comes.
    #[must_use]
    pub const fn content(&self) -> &Body<'r> {
        &self.body
    }
}

const fn bad_reply(detail: &'static str) -> Refusal {
    Refusal::new(Fault::BadReply, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9110 5.5: a value has no control byte but the tab.
    #[test]
    fn a_control_byte_is_no_value() {
        for byte in 0..=u8::MAX {
            let value = [b'a', byte, b'b'];
            let mut response = Response::new(StatusCode::OK);
            let legal = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!(response.field("x", &value).is_ok(), legal, "{byte}");
        }
    }

    #[test]
    fn fields_from_elsewhere_are_bounded() {
        let value = vec![b'x'; FIELDS_BYTES_MAX / 2];
        let mut response = Response::new(StatusCode::OK);
        response.field("x", &value[1..]).expect("half of the room");
        response.field("y", &value[1..]).expect("the other half");
        assert!(response.field("z", b"").is_err());
        assert!(response.field("a\r\nb", b"").is_err());
    }

    /// A response is made and written on the stack.
    #[test]
    fn the_fields_of_a_get_lie_in_place() {
        let mut response = Response::new(StatusCode::OK);
        for _ in 0..FIELDS_IN_PLACE {
            response.number("age", 1);
        }
        assert!(!response.fields.spilled());
    }
}

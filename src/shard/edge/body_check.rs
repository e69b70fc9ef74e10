//! Checks of a request's body against the schema of its route, before a record is made of it. A
//! small body is checked in the turn it arrives in. A larger one, or one that needs too many steps,
//! is checked outside the shard, and its command waits.

use crate::http::Request;
use crate::route::{Failure, Refused};
use crate::schema::{BodySchema, Effort, Verdict};

/// A request's media type is JSON, so that its route's schema can be applied (RFC 9110 8.3, RFC
/// 6839 3.1). A request without `Content-Type` is refused too: pages of other origins may send one
/// without a preflight.
pub(super) fn check_type(request: &Request<'_>) -> Result<(), Refused> {
    let named = request.headers.one("content-type").ok().flatten();
    let named = named.and_then(|it| std::str::from_utf8(it).ok());
    let essence = named.and_then(|it| it.split(';').next()).map(str::trim);
    let is_json = essence.is_some_and(|it| {
        let it = it.to_ascii_lowercase();
        it == "application/json" || it.starts_with("application/") && it.ends_with("+json")
    });
    if is_json {
        return Ok(());
    }
    Err(Failure::UnsupportedMediaType.into())
}

/// What is known of a body at the end of its turn.
pub(super) enum Checked {
    /// It matches the schema.
    Valid,
    /// It must be checked outside the shard.
    Undecided,
}

/// Checks a body as far as a turn allows.
pub(super) fn check_in_turn(schema: &BodySchema, body: &[u8]) -> Result<Checked, Refused> {
    if body.len() > Effort::IN_TURN_BYTES_MAX {
        return Ok(Checked::Undecided);
    }
    match schema.check(body, Effort::IN_TURN) {
        Verdict::Unfinished => Ok(Checked::Undecided),
        Verdict::Valid => Ok(Checked::Valid),
        verdict => Err(Refused::of_verdict(verdict).unwrap_or_else(|| Failure::InvalidBody.into())),
    }
}

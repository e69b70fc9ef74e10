//! Responses to what other parts of the shard found: a service's reply, the newest record of a key.

use crate::command::Reply;
use std::time::Duration;

use crate::config::OneWayStatus;
use crate::http::{
    GZIP, GZIP_BYTES_MIN, IfNoneMatch, JSON, PRIVATE, REPLAYED, RESPOND_ASYNC, REVALIDATE,
    ReplyRules, Representation, Response, StatusCode, VARY_AUTHORIZATION, VARY_ENCODING,
    is_compressible,
};
use crate::metrics::{CommandOutcome, StatusClass};
use crate::model::Etag;
use crate::route::{Failure, Refused};
use crate::shard::message::Found;

use super::exchanges::OnceAppended;
use super::gzip_cache::GzipCache;
use super::responder::{Responded, Responder};
use crate::http::ResponseContext;

/// The class of a status, for the metrics.
pub(super) fn class(status: StatusCode) -> StatusClass {
    match status.as_u16() / 100 {
        2 => StatusClass::Success,
        3 => StatusClass::Redirection,
        4 => StatusClass::ClientError,
        5 => StatusClass::ServerError,
        _ => StatusClass::Informational,
    }
}

/// A response that a cache may keep if it validates it.
pub(super) fn validated(etag: &Etag, age: Option<u64>, status: StatusCode) -> Response<'_> {
    let mut response = Response::new(status);
    response.etag(etag).fixed(&REVALIDATE);
    if let Some(age) = age {
        response.number("age", age);
    }
    response
}

/// What is known of a query, besides the record that it asks for.
pub(super) struct QueryContext<'a> {
    /// The request's `If-None-Match`.
    pub(super) condition: Option<&'a IfNoneMatch>,
    /// The age of what is shown, if it may be older than usual.
    pub(super) age: Option<u64>,
    /// Compresses values. `None`: no value is compressed.
    pub(super) gzip: Option<&'a mut GzipCache>,
    /// Whether the client takes gzip.
    pub(super) takes_gzip: bool,
}

/// Writes the newest record of a key, or why it can't be shown.
pub(super) fn respond_found(
    responder: &mut Responder,
    context: ResponseContext,
    found: &Found,
    query: QueryContext<'_>,
) -> Responded {
    let (value, etag, content_type) = match found {
        Found::Entry {
            value,
            etag,
            content_type,
        } => (value, etag, content_type),
        Found::Failed(failure) => return responder.refuse(context, &(*failure).into()),
    };
    let known = query.condition.and_then(|it| it.representation(etag));
    let content_type = content_type.as_deref();
    let cache = query
        .gzip
        .filter(|_| value.len() >= GZIP_BYTES_MIN && content_type.is_none_or(is_compressible));
    let varies = cache.is_some();
    let gzip = cache.filter(|_| query.takes_gzip && known.is_none());
    let gzip = gzip.and_then(|cache| cache.get(value));
    let in_gzip;
    let etag = match (known, gzip) {
        (Some(Representation::Gzip), _) | (None, Some(_)) => {
            in_gzip = etag.in_gzip();
            &in_gzip
        }
        (Some(Representation::Plain), _) | (None, None) => etag,
    };
    let status = match known {
        Some(_) => StatusCode::NOT_MODIFIED,
        None => StatusCode::OK,
    };
    let mut response = validated(etag, query.age, status);
    if varies {
        response.fixed(&VARY_ENCODING);
    }
    if known.is_none() {
        match content_type {
            // Its characters were checked when the record was cached.
            Some(name) => response.checked("content-type", name.as_bytes()),
            None => response.fixed(&JSON),
        };
        match gzip {
            Some(gzip) => response.fixed(&GZIP).body(gzip),
            None => response.body(value),
        };
    }
    responder.respond(context, response)
}

/// Writes the reply of a service to a command.
pub(super) fn respond_reply(
    responder: &mut Responder,
    context: ResponseContext,
    reply: &Reply,
    replayed: bool,
) -> Responded {
    match reply_response(reply, |_| true) {
        Ok(mut response) => {
            if replayed {
                response.fixed(&REPLAYED);
            }
            responder.respond(context, response)
        }
        Err(refused) => responder.refuse(context, &refused),
    }
}

/// Writes that a command's record is appended, to a client that gets or waits for no reply.
pub(super) fn respond_accepted(
    responder: &mut Responder,
    context: ResponseContext,
    once_appended: &OnceAppended,
) -> Responded {
    let status = match once_appended {
        OnceAppended::OneWay(OneWayStatus::NoContent) => StatusCode::NO_CONTENT,
        OnceAppended::OneWay(OneWayStatus::Accepted)
        | OnceAppended::Waits
        | OnceAppended::Location(_) => StatusCode::ACCEPTED,
    };
    let mut response = Response::new(status);
    if let OnceAppended::Location(location) = once_appended {
        response
            .checked("location", location.as_bytes())
            .fixed(&RESPOND_ASYNC)
            .number("retry-after", RETRY_AFTER_S_MIN);
    }
    responder.respond(context, response)
}

/// Writes the reply at the location of its command. The location is a capability of one client, so
/// no cache may keep the response, whatever the service says.
pub(super) fn respond_located(
    responder: &mut Responder,
    context: ResponseContext,
    reply: &Reply,
) -> Responded {
    let passes = |name: &str| !matches!(name, "cache-control" | "expires" | "pragma");
    match reply_response(reply, passes) {
        Ok(mut response) => {
            response.fixed(&PRIVATE).fixed(&VARY_AUTHORIZATION);
            responder.respond(context, response)
        }
        Err(refused) => refuse_located(responder, context, &refused),
    }
}

/// Writes that the reply to a command is due, `age` after its location was given.
pub(super) fn respond_due(
    responder: &mut Responder,
    context: ResponseContext,
    age: Duration,
) -> Responded {
    let mut response = Response::new(StatusCode::ACCEPTED);
    // A command that has taken long may take as long again: ask ten times in that time.
    let seconds = (age.as_secs() / 10).clamp(RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX);
    response
        .number("retry-after", seconds)
        .fixed(&PRIVATE)
        .fixed(&VARY_AUTHORIZATION);
    responder.respond(context, response)
}

/// Writes why a location has no reply.
pub(super) fn refuse_located(
    responder: &mut Responder,
    context: ResponseContext,
    refused: &Refused,
) -> Responded {
    let problem = refused.problem(None);
    let mut response = Response::problem(&problem);
    if let Some(seconds) = refused.retry_after {
        response.number("retry-after", u64::from(seconds));
    }
    response.fixed(&PRIVATE).fixed(&VARY_AUTHORIZATION);
    responder.respond(context, response)
}

/// `Retry-After` of 202 in seconds.
const RETRY_AFTER_S_MIN: u64 = 1;
const RETRY_AFTER_S_MAX: u64 = 60;

/// The response that a reply makes, with the headers that pass.
fn reply_response(reply: &Reply, passes: impl Fn(&str) -> bool) -> Result<Response<'_>, Refused> {
    let status = StatusCode::from_u16(reply.status).expect("a reply's status was checked");
    let mut response = Response::new(status);
    let rules = ReplyRules { set_cookie: false };
    for (name, value) in reply.headers.iter().filter(|(name, _)| passes(name)) {
        response.reply_field(name, value, rules)?;
    }
    response.json_unless_typed().body(&reply.body);
    Ok(response)
}

/// The outcome, for the metrics, of a command that got no reply.
pub(super) fn outcome_of(refused: &Refused) -> CommandOutcome {
    let is = |failure: Failure| refused.kind == failure.kind();
    match () {
        () if is(Failure::IdempotencyKeyReused) => CommandOutcome::Mismatch,
        () if is(Failure::OutcomeUnknown) => CommandOutcome::Unknown,
        () if is(Failure::BrokerUnavailable) => CommandOutcome::Refused,
        () if is(Failure::Overloaded) || is(Failure::NotReady) => CommandOutcome::Shed,
        () if is(Failure::Draining) || is(Failure::TooManyRequests) => CommandOutcome::Shed,
        () if is(Failure::TopicUnavailable) => CommandOutcome::Refused,
        () if is(Failure::InvalidBody) || is(Failure::MalformedBody) => CommandOutcome::Invalid,
        () if is(Failure::CommandInProgress) => CommandOutcome::InProgress,
        () if is(Failure::CommandTooLarge) || is(Failure::RecordRefused) => CommandOutcome::Invalid,
        () => CommandOutcome::Answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Verdict;

    #[test]
    fn a_body_that_was_refused_outside_the_shard_counts_as_invalid() {
        for verdict in [
            Verdict::Invalid(Vec::new()),
            Verdict::NotJson(String::new()),
            Verdict::Unfinished,
        ] {
            let refused = Refused::of_verdict(verdict).expect("it is no valid body");
            assert_eq!(outcome_of(&refused), CommandOutcome::Invalid, "{refused:?}");
        }
    }
}

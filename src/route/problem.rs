//! The catalogue of problem types besides those of HTTP itself. Their paths never change, and each
//! is listed in `docs/http.md`.

use crate::http::{ProblemKind, StatusCode};

/// Why a request failed, in terms of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No route matches the path.
    NoSuchRoute,
    /// No record has the requested key.
    NotFound,
    /// The request lacks a value for a template's placeholder.
    MissingParameter,
    /// The value for a placeholder is repeated, too long, or not text.
    BadParameter,
    /// The route reads the body as JSON, but the body is not valid JSON.
    MalformedBody,
    /// The route has a schema for its bodies, and the body is not sent as JSON.
    UnsupportedMediaType,
    /// The body does not match the schema of the route.
    InvalidBody,
    /// The cursor of a collection is invalid.
    BadCursor,
    /// The cursor belongs to another incarnation of the topic or another hash secret.
    CursorGone,
    /// A page of an origin that the route does not list sent a command with cookies.
    ForeignOrigin,
    /// The route needs an `Idempotency-Key`.
    IdempotencyKeyRequired,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    /// The same command is in flight, and the route does not join it.
    CommandInProgress,
    /// The request's precondition, such as `If-Match`, is false.
    PreconditionFailed,
    /// The route requires a condition, and the request has none.
    PreconditionRequired,
    /// The record is larger than the broker accepts.
    CommandTooLarge,
    /// The broker rejects this record, but would accept others. Nothing was appended.
    RecordRefused,
    /// The client has used up the rate of the route.
    TooManyRequests,
    /// A limit was reached before anything was done.
    Overloaded,
    /// The process is draining before its end.
    Draining,
    /// The route's topic is not loaded yet.
    NotReady,
    /// The cache lacks records of the topic, perhaps the requested one.
    CacheDegraded,
    /// The location of a command is malformed, of another client, or older than the reply window.
    NoSuchCommand,
    /// The broker is unavailable or rejects the request. Nothing was appended.
    BrokerUnavailable,
    /// The route's topic is missing or misconfigured. Nothing was done.
    TopicUnavailable,
    /// The command has a stored reply, but it cannot be read from the log now.
    ReplyUnavailable,
    /// The command may have been executed, or may still be.
    OutcomeUnknown,
}

impl Failure {
    /// Every failure, for the test of the documentation.
    pub const ALL: [Self; 27] = [
        Self::NoSuchRoute,
        Self::NotFound,
        Self::MissingParameter,
        Self::BadParameter,
        Self::MalformedBody,
        Self::UnsupportedMediaType,
        Self::InvalidBody,
        Self::BadCursor,
        Self::CursorGone,
        Self::ForeignOrigin,
        Self::IdempotencyKeyRequired,
        Self::IdempotencyKeyReused,
        Self::CommandInProgress,
        Self::PreconditionFailed,
        Self::PreconditionRequired,
        Self::NoSuchCommand,
        Self::CommandTooLarge,
        Self::RecordRefused,
        Self::TooManyRequests,
        Self::Overloaded,
        Self::Draining,
        Self::NotReady,
        Self::CacheDegraded,
        Self::BrokerUnavailable,
        Self::TopicUnavailable,
        Self::ReplyUnavailable,
        Self::OutcomeUnknown,
    ];

    /// The problem type, title and status of the failure.
    #[must_use]
    pub const fn kind(self) -> ProblemKind {
        let (path, title, status) = match self {
            Self::NoSuchRoute => (
                "/problems/no-such-route",
                "Nothing is served at this path",
                StatusCode::NOT_FOUND,
            ),
            Self::NotFound => (
                "/problems/not-found",
                "There is no such entity",
                StatusCode::NOT_FOUND,
            ),
            Self::MissingParameter => (
                "/problems/missing-parameter",
                "The request lacks something its route needs",
                StatusCode::BAD_REQUEST,
            ),
            Self::BadParameter => (
                "/problems/bad-parameter",
                "A value of the request can't be used",
                StatusCode::BAD_REQUEST,
            ),
            Self::MalformedBody => (
                "/problems/malformed-body",
                "The request body is malformed",
                StatusCode::BAD_REQUEST,
            ),
            Self::UnsupportedMediaType => (
                "/problems/unsupported-media-type",
                "The route takes JSON only",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::InvalidBody => (
                "/problems/invalid-body",
                "The body does not match the schema of the route",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Self::BadCursor => (
                "/problems/bad-cursor",
                "The cursor can't be read",
                StatusCode::BAD_REQUEST,
            ),
            Self::CursorGone => (
                "/problems/cursor-gone",
                "The cursor is no longer valid",
                StatusCode::GONE,
            ),
            Self::ForeignOrigin => (
                "/problems/foreign-origin",
                "Pages of this origin may not send commands with cookies",
                StatusCode::FORBIDDEN,
            ),
            Self::IdempotencyKeyRequired => (
                "/problems/idempotency-key-required",
                "The request needs an Idempotency-Key",
                StatusCode::BAD_REQUEST,
            ),
            Self::IdempotencyKeyReused => (
                "/problems/idempotency-key-reused",
                "The Idempotency-Key was used for another request",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Self::CommandInProgress => (
                "/problems/command-in-progress",
                "The same command is being worked on",
                StatusCode::CONFLICT,
            ),
            Self::PreconditionFailed => (
                "/problems/precondition-failed",
                "The precondition does not hold",
                StatusCode::PRECONDITION_FAILED,
            ),
            Self::PreconditionRequired => (
                "/problems/precondition-required",
                "The request needs a precondition",
                StatusCode::PRECONDITION_REQUIRED,
            ),
            Self::NoSuchCommand => (
                "/problems/no-such-command",
                "There is no such command",
                StatusCode::NOT_FOUND,
            ),
            Self::CommandTooLarge => (
                "/problems/command-too-large",
                "The command is larger than the broker takes",
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            Self::RecordRefused => (
                "/problems/record-refused",
                "The broker refuses the command's record",
                StatusCode::BAD_REQUEST,
            ),
            Self::TooManyRequests => (
                "/problems/too-many-requests",
                "The client has used up its requests to this route",
                StatusCode::TOO_MANY_REQUESTS,
            ),
            Self::Overloaded => (
                "/problems/overloaded",
                "The gateway is at a limit",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::Draining => (
                "/problems/draining",
                "This gateway is shutting down",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::NotReady => (
                "/problems/not-ready",
                "The route is still loading",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::CacheDegraded => (
                "/problems/cache-degraded",
                "The cache lacks records of the topic",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::BrokerUnavailable => (
                "/problems/broker-unavailable",
                "The broker is unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::TopicUnavailable => (
                "/problems/topic-unavailable",
                "The route's topic is missing or not what the route needs",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::ReplyUnavailable => (
                "/problems/reply-unavailable",
                "The stored reply can't be read now",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::OutcomeUnknown => (
                "/problems/outcome-unknown",
                "The outcome of the command is unknown",
                StatusCode::GATEWAY_TIMEOUT,
            ),
        };
        ProblemKind {
            path,
            title,
            status,
        }
    }

    /// Advice for the client, above all whether a retry is safe.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NoSuchRoute => "",
            Self::NotFound => "no record has this key, or its newest record deletes it",
            Self::MissingParameter | Self::BadParameter | Self::MalformedBody => "",
            Self::UnsupportedMediaType => {
                "send the header Content-Type: application/json, or a type that ends in +json"
            }
            Self::InvalidBody => "nothing was done; correct what the member errors lists",
            Self::BadCursor => "start the collection again without a cursor",
            Self::CursorGone => {
                "the topic was re-created or the gateway's hash secret changed: start again \
                 without a cursor"
            }
            Self::ForeignOrigin => {
                "nothing was done; the gateway takes the origins that its config lists, and that \
                 of the Host header, which a proxy must pass on"
            }
            Self::IdempotencyKeyRequired => {
                "send the header Idempotency-Key with a value of your own, the same on each retry"
            }
            Self::IdempotencyKeyReused => {
                "a retry must be the same request in method, path, body, content type, If-Match \
                 and If-None-Match; another request needs another key; if an earlier attempt of \
                 this very request was answered with 504, its outcome is still unknown: try again \
                 with the same key"
            }
            Self::CommandInProgress => "it has no reply yet; try again with the same key",
            Self::PreconditionFailed => "",
            Self::PreconditionRequired => {
                "read the entity first and send its ETag in If-Match; to create it, send \
                 If-None-Match: *"
            }
            Self::NoSuchCommand => {
                "no command of yours has this location, or its reply is no longer stored"
            }
            Self::CommandTooLarge => "nothing was appended",
            Self::RecordRefused => "nothing was appended",
            Self::TooManyRequests => "nothing was done; try again after the time in Retry-After",
            Self::Overloaded => "nothing was done; try again after the time in Retry-After",
            Self::Draining => "nothing was done; try again, and another gateway will answer",
            Self::NotReady => "the route's topic has not been read yet; try again soon",
            Self::CacheDegraded => {
                "the entity, or a newer state of it, may be among the records that the cache \
                 lacks; the operator's log and /readyz say why"
            }
            Self::BrokerUnavailable => "nothing was sent; try again with the same Idempotency-Key",
            Self::TopicUnavailable => {
                "nothing was done; the operator's log and /readyz say what to correct"
            }
            Self::ReplyUnavailable => {
                "the command was answered before and is not executed again; try again for its reply"
            }
            Self::OutcomeUnknown => {
                "the command may have been executed or may still be; try again with the same \
                 Idempotency-Key to learn its outcome, never with another"
            }
        }
    }

    /// Seconds for `Retry-After`. `None` if a retry cannot help.
    #[must_use]
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Overloaded | Self::Draining | Self::CommandInProgress => Some(1),
            // The time is set for each request.
            Self::TooManyRequests => Some(1),
            Self::NotReady | Self::BrokerUnavailable | Self::ReplyUnavailable => Some(2),
            Self::OutcomeUnknown => Some(2),
            Self::TopicUnavailable => Some(5),
            Self::NoSuchRoute
            | Self::NotFound
            | Self::MissingParameter
            | Self::BadParameter
            | Self::MalformedBody
            | Self::UnsupportedMediaType
            | Self::InvalidBody
            | Self::BadCursor
            | Self::CursorGone
            | Self::ForeignOrigin
            | Self::IdempotencyKeyRequired
            | Self::IdempotencyKeyReused
            | Self::PreconditionFailed
            | Self::PreconditionRequired
            | Self::NoSuchCommand
            | Self::CommandTooLarge
            | Self::RecordRefused
            | Self::CacheDegraded => None,
        }
    }
}

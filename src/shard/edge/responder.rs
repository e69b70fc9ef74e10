//! Responses to requests: each gets its CORS fields and its date here. Those of HTTP/1.1 are
//! written into one buffer, so that a client's turn is one write. One of HTTP/2 is kept until its
//! stream takes it.

use crate::http::http2::Http2Response;
use crate::http::{
    Body, CorsGrant, CorsPolicies, DateCache, Follows, Framed, Response, ResponseContext,
    StatusCode, Version, write_response,
};
use crate::model::{PanicAt, UnixMillis, panic_if_planted};
use crate::route::{Failure, Refused};
use crate::shard::guard::guarded;

/// Writes the responses of one turn of one client.
#[derive(Debug)]
pub(super) struct Responder {
    cors: CorsPolicies,
    date: DateCache,
    /// The `Date` line of this turn.
    date_line: Vec<u8>,
    /// Scratch: the fields of a client's quota.
    policy: Vec<u8>,
    limit: Vec<u8>,
    /// Whether a response of this client could not be written, because that panicked.
    broken: bool,
    /// How often that has happened since it was last counted.
    panics: u64,
    /// The bytes to send. Reused, so that a response allocates nothing. For HTTP/2: pieces of a
    /// body.
    out: Vec<u8>,
    /// The response of HTTP/2 that was written last.
    http2: Option<Http2Response>,
}

/// A response that was written.
#[derive(Clone, Copy, Debug)]
#[must_use = "the connection must know whether it ends, and the metrics which status it was"]
pub(super) struct Responded {
    pub(super) status: StatusCode,
    pub(super) framed: Framed,
}

impl Responder {
    pub(super) fn new(cors: CorsPolicies) -> Self {
        Self {
            cors,
            date: DateCache::new(),
            date_line: Vec::new(),
            policy: Vec::new(),
            limit: Vec::new(),
            broken: false,
            panics: 0,
            out: Vec::new(),
            http2: None,
        }
    }

    /// Decides by another config which pages may read responses.
    pub(super) fn set_cors(&mut self, cors: CorsPolicies) {
        self.cors = cors;
    }

    /// Sets the wall time of this turn.
    pub(super) fn set_time(&mut self, wall: UnixMillis) {
        self.date_line.clear();
        self.date_line.extend_from_slice(self.date.line(wall));
    }

    /// Which pages may read a response that no route makes, to a request with this single `Origin`.
    pub(super) fn grant_unrouted(&self, origin: Option<&[u8]>) -> CorsGrant {
        self.cors.grant_unrouted(origin)
    }

    /// Writes a response, or its head if its body comes in pieces.
    pub(super) fn respond<'r>(
        &'r mut self,
        context: ResponseContext,
        mut response: Response<'r>,
    ) -> Responded {
        self.cors.add_to(context.cors, &mut response);
        if let Some(quota) = context.quota {
            self.policy.clear();
            self.limit.clear();
            quota.write(&mut self.policy, &mut self.limit);
            response
                .checked("ratelimit-policy", &self.policy)
                .checked("ratelimit", &self.limit);
        }
        let writer = Writer {
            date_line: &self.date_line,
            out: &mut self.out,
            http2: &mut self.http2,
            broken: &mut self.broken,
            panics: &mut self.panics,
        };
        writer.write(context, &response)
    }

    /// Writes the response to a CORS preflight. `methods` lists those of the path's routes.
    pub(super) fn respond_to_preflight<'r>(
        &'r mut self,
        context: ResponseContext,
        methods: &'r str,
        mut response: Response<'r>,
    ) -> Responded {
        let cors = &self.cors;
        cors.add_preflight(context.cors, methods, &mut response);
        let writer = Writer {
            date_line: &self.date_line,
            out: &mut self.out,
            http2: &mut self.http2,
            broken: &mut self.broken,
            panics: &mut self.panics,
        };
        writer.write(context, &response)
    }

    /// Writes a response that is no success.
    pub(super) fn refuse(&mut self, context: ResponseContext, refused: &Refused) -> Responded {
        let mut response = Response::problem(&refused.problem(None));
        if let Some(seconds) = refused.retry_after {
            response.number("retry-after", u64::from(seconds));
        }
        if refused.kind == Failure::UnsupportedMediaType.kind() {
            // RFC 9110 12.5.1: in a 415, `Accept` says what would be taken.
            response.checked("accept", b"application/json, application/*+json");
        }
        self.respond(context, response)
    }

    /// Appends a piece of a response's body.
    pub(super) fn piece(&mut self, framed: Framed, bytes: &[u8]) {
        framed.piece(&mut self.out, bytes);
    }

    /// Appends the end of a body that came in pieces.
    pub(super) fn end(&mut self, framed: Framed) {
        framed.end(&mut self.out);
    }

    /// Appends an interim response (1xx) exactly as given.
    pub(super) fn interim(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Bytes written and not yet taken.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether a response of this client could not be written. The bytes to send end before it, and
    /// its connection must be closed behind them.
    pub(super) fn take_broken(&mut self) -> bool {
        std::mem::take(&mut self.broken)
    }

    /// How many responses could not be written since the last call.
    pub(super) const fn take_panics(&mut self) -> u64 {
        std::mem::replace(&mut self.panics, 0)
    }

    /// Takes the bytes to send. Give the buffer back with [`Self::give_back`].
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Takes the response of HTTP/2 that was written last.
    pub(super) fn take_http2(&mut self) -> Option<Http2Response> {
        self.http2.take()
    }

    /// Keeps an emptied buffer for the next client.
    pub(super) fn give_back(&mut self, mut out: Vec<u8>) {
        debug_assert!(
            self.out.is_empty(),
            "each client starts with an empty buffer"
        );
        out.clear();
        self.out = out;
    }
}

/// Where responses are written.
struct Writer<'a> {
    date_line: &'a [u8],
    out: &'a mut Vec<u8>,
    http2: &'a mut Option<Http2Response>,
    broken: &'a mut bool,
    panics: &'a mut u64,
}

impl Writer<'_> {
    fn write(self, context: ResponseContext, response: &Response<'_>) -> Responded {
        let (status, begun) = (response.status(), self.out.len());
        debug_assert!(self.http2.is_none(), "each response is taken by its stream");
        let written = guarded(|| {
            if let Body::Whole(body) = response.content() {
                panic_if_planted(PanicAt::Encode, body);
            }
            match context.version {
                Version::Http10 | Version::Http11 => {
                    write_response(response, context, self.date_line, self.out)
                }
                Version::Http2 => {
                    let made = Http2Response::new(response, context, self.date_line);
                    let follows = if made.has_pieces {
                        Follows::Bytes
                    } else {
                        Follows::Nothing
                    };
                    *self.http2 = Some(made);
                    let close = false;
                    Framed { follows, close }
                }
            }
        });
        let framed = written.unwrap_or_else(|| {
            self.out.truncate(begun);
            match context.version {
                Version::Http10 | Version::Http11 => *self.broken = true,
                // The stream ends with a response that says nothing.
                Version::Http2 => {
                    let empty = Response::new(StatusCode::INTERNAL_SERVER_ERROR);
                    *self.http2 = Some(Http2Response::new(&empty, context, self.date_line));
                }
            }
            *self.panics += 1;
            Framed {
                follows: Follows::Nothing,
                close: context.version != Version::Http2,
            }
        });
        Responded { status, framed }
    }
}

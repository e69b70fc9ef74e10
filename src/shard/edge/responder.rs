//! Responses to the requests of HTTP/1.1 connections: each gets its CORS fields and its date here,
//! and is written into one buffer, so that a client's turn is one write.

use crate::http::{
    CorsGrant, CorsPolicies, DateCache, Framed, Response, ResponseContext, StatusCode,
    write_response,
};
use crate::model::UnixMillis;
use crate::route::{Failure, Refused};

/// Writes the responses of one turn of one client.
#[derive(Debug)]
pub(super) struct Responder {
    cors: CorsPolicies,
    date: DateCache,
    /// The `Date` line of this turn.
    date_line: Vec<u8>,
    /// The bytes to send. Reused, so that a response allocates nothing.
    out: Vec<u8>,
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
            out: Vec::new(),
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
        write(context, &response, &self.date_line, &mut self.out)
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
        write(context, &response, &self.date_line, &mut self.out)
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

    /// Takes the bytes to send. Give the buffer back with [`Self::give_back`].
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
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

fn write(
    context: ResponseContext,
    response: &Response<'_>,
    date_line: &[u8],
    out: &mut Vec<u8>,
) -> Responded {
    Responded {
        status: response.status(),
        framed: write_response(response, context, date_line, out),
    }
}

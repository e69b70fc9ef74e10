//! One open stream of an HTTP/2 connection: the request that arrives on it, then its response.

use bytes::Bytes;

use crate::http::http2::{HeadBytes, Http2Response, RequestBody, ResponseStream, StreamGone};
use crate::model::{ExchangeId, Instant};

use super::stream_connection::Stream;

/// Bytes that one stream sends before the next has its turn: the payload of one frame of the usual
/// size.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// One open stream.
#[derive(Debug)]
pub(super) struct Http2Stream {
    pub(super) response: ResponseStream,
    pub(super) state: StreamState,
    /// Since when the client lets nothing through although bytes wait for it.
    pub(super) blocked: Option<Instant>,
}

/// What a stream is doing.
#[derive(Debug)]
pub(super) enum StreamState {
    /// Its request is being handled.
    Opened,
    /// The body of its request is being received.
    Receiving(Box<PartialRequest>),
    /// Its exchange waits for another shard, until then.
    Waiting(ExchangeId, Instant),
    /// The rest of a whole response waits for the client.
    Sending(Bytes),
    /// The response comes in pieces.
    Pieces(Pieces),
    /// The response is an event stream.
    Events(Events),
}

/// A request with a body that is not complete.
#[derive(Debug)]
pub(super) struct PartialRequest {
    pub(super) head: HeadBytes,
    pub(super) body: Vec<u8>,
    pub(super) source: RequestBody,
    /// When the body must be complete.
    pub(super) deadline: Instant,
}

impl PartialRequest {
    /// Bytes that are held for it.
    pub(super) const fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// A response that comes in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) exchange: ExchangeId,
    /// When the next piece must have come.
    pub(super) deadline: Instant,
    /// The rest of the present piece.
    pub(super) rest: Bytes,
}

/// An event stream.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) stream: Stream,
    /// The feed waits to be told that the stream is writable.
    pub(super) is_full: bool,
    /// The last bytes that were sent end within an event.
    pub(super) is_cut: bool,
}

impl Events {
    pub(super) const fn new(stream: Stream) -> Self {
        Self {
            stream,
            is_full: false,
            is_cut: false,
        }
    }
}

impl Http2Stream {
    pub(super) const fn new(response: ResponseStream) -> Self {
        Self {
            response,
            state: StreamState::Opened,
            blocked: None,
        }
    }

    /// The exchange of a request that is open.
    pub(super) const fn request(&self) -> Option<ExchangeId> {
        match &self.state {
            StreamState::Waiting(exchange, _) => Some(*exchange),
            StreamState::Pieces(pieces) => Some(pieces.exchange),
            StreamState::Opened
            | StreamState::Receiving(_)
            | StreamState::Sending(_)
            | StreamState::Events(_) => None,
        }
    }

    /// Bytes of the response that wait for the client.
    pub(super) const fn rest(&self) -> usize {
        match &self.state {
            StreamState::Sending(rest) | StreamState::Pieces(Pieces { rest, .. }) => rest.len(),
            StreamState::Opened
            | StreamState::Receiving(_)
            | StreamState::Waiting(..)
            | StreamState::Events(_) => 0,
        }
    }

    /// Sends the head of a response, whose body then waits. Returns true if the stream is over.
    pub(super) fn respond(&mut self, response: Http2Response) -> Result<bool, StreamGone> {
        let Http2Response {
            head,
            body,
            has_pieces,
        } = response;
        let ends = body.is_empty() && !has_pieces;
        self.response.send_head(head, ends)?;
        self.state = StreamState::Sending(body);
        Ok(ends)
    }

    /// Sends a piece of what waits, at most `bytes_max`. Returns the number of bytes, and whether
    /// the stream is over.
    pub(super) fn send(
        &mut self,
        bytes_max: usize,
        now: Instant,
    ) -> Result<(usize, bool), StreamGone> {
        let (rest, may_end) = match &mut self.state {
            StreamState::Sending(rest) => (rest, true),
            StreamState::Pieces(Pieces { rest, .. }) => (rest, false),
            StreamState::Opened
            | StreamState::Receiving(_)
            | StreamState::Waiting(..)
            | StreamState::Events(_) => return Ok((0, false)),
        };
        let wanted = rest.len().min(bytes_max).min(PIECE_BYTES_MAX);
        let room = match wanted {
            0 => return Ok((0, false)),
            wanted => self.response.room(wanted),
        };
        if room == 0 {
            self.blocked.get_or_insert(now);
            return Ok((0, false));
        }
        let piece = rest.split_to(room);
        let ends = may_end && rest.is_empty();
        self.blocked = None;
        self.response.send(piece, ends)?;
        Ok((room, ends))
    }
}

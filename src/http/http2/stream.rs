//! One stream of a session: the body of its request, and its response.

use std::task::{Context, Poll, Waker};

use ::http::{Response, StatusCode};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

/// The stream is closed: the client has reset it, or its connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamGone;

/// Why the gateway resets a stream (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamReset {
    /// The response cannot be completed.
    Failed,
    /// Nobody needs the rest of the stream.
    Cancelled,
}

/// The result of asking for a part of a body.
#[derive(Debug)]
pub enum BodyPart {
    /// Bytes of the body.
    Bytes(Bytes),
    /// The body is complete.
    End,
    /// Nothing more has come.
    Pending,
    /// The client has reset the stream, or broke a rule of the protocol.
    Gone,
}

/// The body of a request that is being received. Once it is dropped, the client is told to stop.
pub struct RequestBody(RecvStream);

impl RequestBody {
    pub(super) const fn new(inner: RecvStream) -> Self {
        Self(inner)
    }

    /// The next part that has come. The client may at once send as many bytes more.
    pub fn poll(&mut self) -> BodyPart {
        match self.0.poll_data(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => BodyPart::Pending,
            Poll::Ready(None) => BodyPart::End,
            Poll::Ready(Some(Err(_))) => BodyPart::Gone,
            Poll::Ready(Some(Ok(bytes))) => {
                // h2 itself closes a connection that exceeds its windows.
                match self.0.flow_control().release_capacity(bytes.len()) {
                    Ok(()) => BodyPart::Bytes(bytes),
                    Err(_) => BodyPart::Gone,
                }
            }
        }
    }
}

/// The sending side of a stream. Once it is dropped without an end, the stream is reset.
///
/// The order is: [`send_head`](Self::send_head), then [`room`](Self::room) and
/// [`send`](Self::send) in turn, until `send` ends the stream.
pub struct ResponseStream {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
}

impl ResponseStream {
    pub(super) const fn new(respond: SendResponse<Bytes>) -> Self {
        Self {
            respond,
            body: None,
        }
    }

    /// Sends `100 Continue`.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn send_continue(&mut self) -> Result<(), StreamGone> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::CONTINUE;
        let sent = self.respond.send_informational(response);
        sent.map_err(|_| StreamGone)
    }

    /// Sends the head of the response. `ends`: no body follows.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn send_head(&mut self, head: Response<()>, ends: bool) -> Result<(), StreamGone> {
        let body = self.respond.send_response(head, ends);
        self.body = Some(body.map_err(|_| StreamGone)?);
        Ok(())
    }

    /// How many of `wanted` bytes the windows of the stream and of its connection let through now.
    /// They are kept for this stream until they are sent or [`give_back`](Self::give_back) is
    /// called.
    pub fn room(&mut self, wanted: usize) -> usize {
        self.body.as_mut().map_or(0, |body| {
            body.reserve_capacity(wanted);
            body.capacity().min(wanted)
        })
    }

    /// Gives the rest of the room back to the connection, so that other streams can use it.
    pub fn give_back(&mut self) {
        if let Some(body) = &mut self.body {
            body.reserve_capacity(0);
        }
    }

    /// Sends bytes of the body, as many as there is room for. `ends`: they are the last.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn send(&mut self, bytes: Bytes, ends: bool) -> Result<(), StreamGone> {
        let body = self.body.as_mut().ok_or(StreamGone)?;
        body.send_data(bytes, ends).map_err(|_| StreamGone)
    }

    /// Whether the stream is closed although its response is not complete.
    pub fn is_gone(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        match &mut self.body {
            Some(body) => body.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        }
    }

    /// Resets the stream at once. What waits to be sent on it is dropped.
    pub fn reset(&mut self, why: StreamReset) {
        self.respond.send_reset(match why {
            StreamReset::Failed => Reason::INTERNAL_ERROR,
            StreamReset::Cancelled => Reason::CANCEL,
        });
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RequestBody").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ResponseStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseStream").finish_non_exhaustive()
    }
}

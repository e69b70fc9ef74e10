//! Requests of one connection: the bytes to write, and the responses to wait for. Kafka responds in
//! order, so the oldest request in flight is the one that is answered next.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Request, StrBytes};

use super::KafkaError;
use super::wire;
use crate::model::Instant;

/// Bytes of the output buffer that are kept once all of it is written.
const OUT_BYTES_KEPT: usize = 64 << 10;

/// When a response is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseWindow {
    /// When a prompt broker responds. From here on the response is overdue.
    pub(super) due: Instant,
    /// When the connection is given up.
    pub(super) deadline: Instant,
}

/// A response, with the tag of its request.
#[derive(Debug)]
pub(super) struct Response<T> {
    /// The key of the API.
    pub(super) api: i16,
    /// The time since the request was made.
    pub(super) took: Duration,
    pub(super) tag: T,
    pub(super) version: i16,
    pub(super) body: Bytes,
}

/// A request that gets no response, because its connection has ended.
#[derive(Debug)]
pub(super) struct LostRequest<T> {
    /// The key of the API.
    pub(super) api: i16,
    pub(super) tag: T,
    /// Whether the socket took all of it. If not, the broker can't have acted on it.
    pub(super) sent: bool,
}

#[derive(Debug)]
struct InFlight<T> {
    api: i16,
    at: Instant,
    correlation: i32,
    version: i16,
    tag: T,
    window: ResponseWindow,
    /// Position in the stream of bytes after the request.
    end: u64,
}

/// The queue. `T` is the tag that each request carries to its response.
#[derive(Debug)]
pub(super) struct Requests<T> {
    client_id: StrBytes,
    out: Vec<u8>,
    out_at: usize,
    /// Bytes queued and written so far, over the connection's lifetime.
    queued: u64,
    written: u64,
    in_flight: VecDeque<InFlight<T>>,
    next_correlation: i32,
    /// Whether bytes were queued since [`Self::take_writable`].
    is_writable: bool,
}

impl<T> Requests<T> {
    pub(super) const fn new(client_id: StrBytes) -> Self {
        Self {
            client_id,
            out: Vec::new(),
            out_at: 0,
            queued: 0,
            written: 0,
            in_flight: VecDeque::new(),
            next_correlation: 0,
            is_writable: false,
        }
    }

    pub(super) fn send<R: Request>(
        &mut self,
        tag: T,
        version: i16,
        request: &R,
        window: ResponseWindow,
        now: Instant,
    ) {
        let correlation = self.next_correlation;
        self.next_correlation = correlation.wrapping_add(1);
        let before = self.out.len();
        wire::encode(
            &mut self.out,
            &self.client_id,
            correlation,
            version,
            request,
        );
        self.queued += (self.out.len() - before) as u64;
        self.is_writable = true;
        self.in_flight.push_back(InFlight {
            api: R::KEY,
            at: now,
            correlation,
            version,
            tag,
            window,
            end: self.queued,
        });
    }

    /// Takes a frame as the response to the oldest request.
    ///
    /// # Errors
    /// The frame is no response to it. The request stays in flight, so that its loss is reported.
    pub(super) fn on_frame(
        &mut self,
        mut frame: Bytes,
        now: Instant,
    ) -> Result<Response<T>, KafkaError> {
        let Some(correlation) = frame.first_chunk().map(|raw| i32::from_be_bytes(*raw)) else {
            return Err(KafkaError::Protocol("a response without a correlation id"));
        };
        match self.in_flight.pop_front() {
            Some(first) if first.correlation == correlation => Ok(Response {
                api: first.api,
                took: now.since(first.at),
                tag: first.tag,
                version: first.version,
                body: frame.split_off(4),
            }),
            other => {
                self.in_flight.extend(other);
                Err(KafkaError::Protocol("a response to something not asked"))
            }
        }
    }

    /// The broker mutes the connection (KIP-219): responses come later by as much.
    pub(super) fn throttle(&mut self, by: Duration, until: Instant) {
        for request in &mut self.in_flight {
            let window = &mut request.window;
            window.due = window.due.after(by).max(until);
            window.deadline = window.deadline.after(by);
        }
    }

    /// When the connection is given up unless a response comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = self.in_flight.iter().map(|it| it.window.deadline);
        deadlines.min()
    }

    /// When the next response is due. Kafka works on the requests in order, so no later response
    /// can be overdue before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.in_flight.front().map(|it| it.window.due)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether bytes were queued since the last call.
    pub(super) const fn take_writable(&mut self) -> bool {
        std::mem::replace(&mut self.is_writable, false)
    }

    /// The queued bytes that the socket has not taken yet.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    /// The socket took so many bytes of `outgoing`.
    pub(super) fn on_written(&mut self, bytes: usize) {
        self.out_at = (self.out_at + bytes).min(self.out.len());
        self.written += bytes as u64;
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            self.out.shrink_to(OUT_BYTES_KEPT);
        }
    }

    /// The connection has ended: all requests in flight.
    pub(super) fn into_lost(self) -> impl Iterator<Item = LostRequest<T>> {
        let written = self.written;
        self.in_flight.into_iter().map(move |request| LostRequest {
            api: request.api,
            sent: request.end <= written,
            tag: request.tag,
        })
    }
}

//! One connection to one broker for one purpose: frames, correlation ids, versions first, requests
//! in flight with their deadlines. Kafka answers in order, so the first in flight is the one that
//! is answered next.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Request, StrBytes};

use super::event::{Lane, LinkId, TopicHandle};
use super::view::BrokerId;
use super::wire::{self, Api, Versions};
use super::{Address, KafkaError};
use crate::model::{Instant, Partition};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// The n-th bootstrap address, whichever broker that is.
    Bootstrap(usize),
    /// A broker of the view.
    Node(BrokerId),
}

/// What a connection is for: nothing that may wait shares one with what must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Metadata, configs, offsets, producer ids: answered at once.
    Ask,
    /// Produce: answered when replicas have it.
    Produce,
    /// Fetch: answered when there is news.
    Fetch(Lane),
}

/// What a request in flight was for: whose answer it is, and whom its loss concerns.
#[derive(Debug)]
pub(super) enum Asked {
    Versions,
    Metadata,
    Configs,
    ProducerId,
    /// Reads by the generation they had.
    Offsets(Vec<(super::ReadKey, u32)>),
    /// Questions by their number, and partitions of them.
    Ends(u64, Vec<Partition>),
    Fetch,
    /// Batches by their number.
    Produce(Vec<(TopicHandle, Partition, u64)>),
}

#[derive(Debug)]
struct InFlight {
    api: i16,
    at: Instant,
    correlation: i32,
    version: i16,
    asked: Asked,
    deadline: Instant,
    /// Position in the stream of bytes after the request.
    end: u64,
}

/// A response that came.
#[derive(Debug)]
pub(super) struct Answer {
    /// The key of the API, and how long it took.
    pub(super) api: i16,
    pub(super) took: Duration,
    pub(super) asked: Asked,
    pub(super) version: i16,
    pub(super) body: Bytes,
}

/// A request that will not be answered.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) api: i16,
    pub(super) asked: Asked,
    /// Whether all of it was handed to the socket. If not, the broker can't have acted on it.
    pub(super) sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The driver was asked to connect, or will be.
    Opening,
    /// Versions are being asked for.
    Greeting,
    /// Requests may go.
    Ready,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: Peer,
    pub(super) purpose: Purpose,
    pub(super) address: Address,
    pub(super) state: State,
    pub(super) versions: Versions,
    /// No request goes before this: the broker throttles us (KIP-219).
    pub(super) quiet_until: Instant,
    /// The time of what is sent and comes next.
    pub(super) turn: Instant,
    /// Whether `next_writable` shall name it.
    pub(super) to_offer: bool,
    client_id: StrBytes,
    /// Of opening and greeting.
    deadline: Instant,
    out: Vec<u8>,
    out_at: usize,
    queued: u64,
    written: u64,
    in_flight: VecDeque<InFlight>,
    next_correlation: i32,
    frames: Frames,
}

impl Link {
    pub(super) fn new(
        id: LinkId,
        (peer, purpose): (Peer, Purpose),
        address: Address,
        client_id: StrBytes,
        frame_bytes_max: u32,
        deadline: Instant,
    ) -> Self {
        Self {
            id,
            peer,
            purpose,
            address,
            state: State::Opening,
            versions: Versions::NONE,
            quiet_until: Instant::ZERO,
            turn: Instant::ZERO,
            to_offer: false,
            client_id,
            deadline,
            out: Vec::new(),
            out_at: 0,
            queued: 0,
            written: 0,
            in_flight: VecDeque::new(),
            next_correlation: 0,
            frames: Frames::new(frame_bytes_max),
        }
    }

    /// The connection stands: ask for versions (KIP-35), newest first.
    pub(super) fn on_opened(&mut self, deadline: Instant) {
        if self.state == State::Opening {
            self.state = State::Greeting;
            self.deadline = deadline;
            self.send(Asked::Versions, 3, &wire::greeting(3), deadline);
        }
    }

    pub(super) fn send<R: Request>(
        &mut self,
        asked: Asked,
        version: i16,
        request: &R,
        deadline: Instant,
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
        self.to_offer = true;
        self.in_flight.push_back(InFlight {
            api: R::KEY,
            at: self.turn,
            correlation,
            version,
            asked,
            deadline,
            end: self.queued,
        });
    }

    /// Takes bytes of the broker; whole answers go to `answers`.
    pub(super) fn on_bytes(
        &mut self,
        mut bytes: &[u8],
        deadline: Instant,
        answers: &mut Vec<Answer>,
    ) -> Result<(), KafkaError> {
        while let Some(frame) = self.frames.next(&mut bytes)? {
            let answer = self.answer(frame)?;
            match answer.asked {
                Asked::Versions => self.greeted(answer.version, answer.body, deadline)?,
                _ => answers.push(answer),
            }
        }
        Ok(())
    }

    fn answer(&mut self, mut frame: Bytes) -> Result<Answer, KafkaError> {
        let Some(correlation) = frame.first_chunk().map(|raw| i32::from_be_bytes(*raw)) else {
            return Err(KafkaError::Protocol("a response without a correlation id"));
        };
        let first = self.in_flight.pop_front();
        match first {
            Some(asked) if asked.correlation == correlation => Ok(Answer {
                api: asked.api,
                took: self.turn.since(asked.at),
                asked: asked.asked,
                version: asked.version,
                body: frame.split_off(4),
            }),
            other => {
                // Whoever waits for it must still hear of its loss.
                self.in_flight.extend(other);
                Err(KafkaError::Protocol("a response to something not asked"))
            }
        }
    }

    /// Versions came. A broker that does not know our version of the question answers with error
    /// 35 in version 0 (KIP-511): ask again in that.
    fn greeted(&mut self, version: i16, body: Bytes, deadline: Instant) -> Result<(), KafkaError> {
        const UNSUPPORTED_VERSION: i16 = 35;
        let code = body.first_chunk().map(|raw| i16::from_be_bytes(*raw));
        if code == Some(UNSUPPORTED_VERSION) && version > 0 {
            self.send(Asked::Versions, 0, &wire::greeting(0), deadline);
            return Ok(());
        }
        let response = wire::decode::<ApiVersionsRequest>(body, version)?;
        if response.error_code != 0 {
            return Err(KafkaError::Broker(super::Code(response.error_code)));
        }
        self.versions = Versions::negotiate(&response.api_keys);
        self.versions.of(Api::Metadata)?;
        self.state = State::Ready;
        Ok(())
    }

    /// The broker asks for silence, and is silent itself: what is in flight gets more time.
    pub(super) fn throttle(&mut self, by: Duration, now: Instant) {
        self.quiet_until = self.quiet_until.max(now.after(by));
        for asked in &mut self.in_flight {
            asked.deadline = asked.deadline.after(by);
        }
    }

    /// When the link is to be given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening => Some(self.deadline),
            _ => self.in_flight.iter().map(|asked| asked.deadline).min(),
        }
    }

    /// Requests without an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn outgoing(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    pub(super) fn on_written(&mut self, bytes: usize) {
        self.out_at = (self.out_at + bytes).min(self.out.len());
        self.written += bytes as u64;
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            self.out.shrink_to(64 << 10);
        }
    }

    /// The link is over: what will not be answered.
    pub(super) fn unanswered(self) -> impl Iterator<Item = Unanswered> {
        let written = self.written;
        self.in_flight.into_iter().map(move |asked| Unanswered {
            api: asked.api,
            sent: asked.end <= written,
            asked: asked.asked,
        })
    }
}

/// Cuts a stream into frames: a length of 4 bytes and as many bytes.
#[derive(Debug)]
struct Frames {
    max: u32,
    head: [u8; 4],
    head_len: usize,
    body: Option<(BytesMut, usize)>,
}

impl Frames {
    const fn new(max: u32) -> Self {
        Self {
            max,
            head: [0; 4],
            head_len: 0,
            body: None,
        }
    }

    /// Takes from the front of `bytes` until a frame is whole or nothing is left. The length is
    /// checked before memory is taken for it.
    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Bytes>, KafkaError> {
        while self.body.is_none() {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            *bytes = rest;
            self.head[self.head_len] = byte;
            self.head_len += 1;
            if self.head_len == 4 {
                self.head_len = 0;
                let len = i32::from_be_bytes(self.head);
                let fits = u32::try_from(len).ok().filter(|&len| len <= self.max);
                let Some(len) = fits else {
                    let (bytes, max) = (i64::from(len), self.max);
                    return Err(KafkaError::Frame { bytes, max });
                };
                self.body = Some((BytesMut::with_capacity(len as usize), len as usize));
            }
        }
        let (body, len) = self.body.as_mut().expect("the loop above left one");
        let (taken, rest) = bytes.split_at((*len - body.len()).min(bytes.len()));
        body.extend_from_slice(taken);
        *bytes = rest;
        if body.len() < *len {
            return Ok(None);
        }
        Ok(self.body.take().map(|(body, _)| body.freeze()))
    }
}

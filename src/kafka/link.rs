//! One connection to one broker for one purpose: frames, correlation ids, versions first, requests
//! in flight with their deadlines. Kafka answers in order, so the first in flight is the one that
//! is answered next.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::error::SaslError;
use super::event::{Lane, LinkId, TopicHandle};
use super::frames::Frames;
use super::sasl::{Auth, Exchange};
use super::sasl_session::Session;
use super::scram::Next;
use super::view::BrokerId;
use super::wire::{self, Api, Versions};
use super::{Address, KafkaError};
use crate::model::{FastRandom, Instant, Partition};

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
    /// A step of SASL.
    Auth,
    /// Which cluster this is.
    Cluster,
    Metadata,
    Configs,
    ProducerId,
    /// Reads by the generation they had.
    Offsets(Vec<(super::ReadKey, u32)>),
    /// Questions by their number, and partitions of them.
    Ends(u64, Vec<Partition>),
    /// Epochs of partitions, by the request's number.
    Epochs(u64, Vec<super::epochs::EpochKey>),
    /// For how long the broker may wait for news.
    Fetch(Duration),
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
    /// SASL is under way: the first time, or again before the session ends.
    Authenticating,
    /// The broker is asked which cluster it belongs to.
    Identifying,
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
    /// When bytes came last.
    pub(super) heard: Instant,
    client_id: StrBytes,
    /// The deadline of opening the connection, and of waiting for a salted password.
    deadline: Instant,
    /// Where SASL stands; `None` with `Authenticating`: the mechanism is being agreed on.
    exchange: Option<Exchange>,
    /// The broker's message to answer once the password is salted. It also says how long the
    /// session lasts.
    to_salt: Option<SaslAuthenticateResponse>,
    session: Option<Session>,
    /// Whether SASL has gone well, ever.
    authenticated: bool,
    /// When it was last needed.
    last_used: Instant,
    /// Whether anything but versions and SASL was ever answered.
    answered: bool,
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
            heard: Instant::ZERO,
            client_id,
            deadline,
            exchange: None,
            to_salt: None,
            session: None,
            authenticated: false,
            last_used: Instant::ZERO,
            answered: false,
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
        with: &mut With<'_>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), KafkaError> {
        self.last_used = with.now;
        // An alert (RFC 8446 5.1) where the first answer should begin with its length.
        if self.state == State::Greeting && bytes.starts_with(&[0x15, 0x03]) {
            return Err(KafkaError::TlsWanted);
        }
        while let Some(frame) = self.next_frame(&mut bytes)? {
            let answer = self.answer(frame)?;
            match answer.asked {
                Asked::Versions => self.greeted(answer.version, answer.body, with)?,
                Asked::Auth => self.on_auth(answer.version, answer.body, with)?,
                Asked::Cluster => self.on_cluster(answer.version, answer.body, with)?,
                _ => {
                    self.answered = true;
                    answers.push(answer);
                }
            }
        }
        Ok(())
    }

    fn next_frame(&mut self, bytes: &mut &[u8]) -> Result<Option<Bytes>, KafkaError> {
        let frame = self.frames.next(bytes);
        frame.map_err(|error| match self.state {
            // No list of versions is that long: it was text, or another protocol's header.
            State::Greeting => KafkaError::NotKafka,
            _ => error,
        })
    }

    /// What the end of the connection means.
    pub(super) fn ended(&self) -> KafkaError {
        match self.state {
            State::Opening | State::Greeting => KafkaError::ClosedEarly,
            State::Ready | State::Identifying if self.is_unheard() => KafkaError::SaslWanted,
            _ => KafkaError::Closed,
        }
    }

    /// Who we are was not asked, and nothing else was answered.
    fn is_unheard(&self) -> bool {
        !self.authenticated && !self.answered && !self.in_flight.is_empty()
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
    fn greeted(
        &mut self,
        version: i16,
        body: Bytes,
        with: &mut With<'_>,
    ) -> Result<(), KafkaError> {
        const UNSUPPORTED_VERSION: i16 = 35;
        let code = body.first_chunk().map(|raw| i16::from_be_bytes(*raw));
        if code == Some(UNSUPPORTED_VERSION) && version > 0 {
            self.send(Asked::Versions, 0, &wire::greeting(0), with.deadline);
            return Ok(());
        }
        let response = wire::decode::<ApiVersionsRequest>(body, version)?;
        if response.error_code != 0 {
            return Err(KafkaError::Broker(super::Code(response.error_code)));
        }
        self.versions = Versions::negotiate(&response.api_keys);
        let metadata = self.versions.of(Api::Metadata);
        metadata.map_err(|_| KafkaError::NoMetadata)?;
        match with.auth.mechanism() {
            Some(mechanism) => self.authenticate(mechanism, with.deadline),
            None => {
                self.identify(with);
                Ok(())
            }
        }
    }

    /// Asks for the cluster's id before any other request, because another cluster may now listen
    /// at the same address. If no cluster is known yet, there is nothing to compare with.
    fn identify(&mut self, with: &With<'_>) {
        match self.versions.of(Api::Metadata) {
            Ok(version) if with.cluster.is_some() => {
                self.state = State::Identifying;
                let request = MetadataRequest::default()
                    .with_topics(Some(Vec::new()))
                    .with_allow_auto_topic_creation(false);
                self.send(Asked::Cluster, version, &request, with.deadline);
            }
            _ => self.state = State::Ready,
        }
    }

    fn on_cluster(&mut self, version: i16, body: Bytes, with: &With<'_>) -> Result<(), KafkaError> {
        let response = wire::decode::<MetadataRequest>(body, version)?;
        same_cluster(with.cluster, response.cluster_id.as_deref())?;
        self.state = State::Ready;
        Ok(())
    }

    /// Begins SASL: agrees on the mechanism.
    pub(super) fn authenticate(
        &mut self,
        mechanism: &'static str,
        deadline: Instant,
    ) -> Result<(), KafkaError> {
        let version = self.versions.of(Api::SaslHandshake)?;
        self.versions.of(Api::SaslAuthenticate)?;
        (self.state, self.exchange, self.to_salt) = (State::Authenticating, None, None);
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        self.send(Asked::Auth, version, &request, deadline);
        Ok(())
    }

    fn on_auth(
        &mut self,
        version: i16,
        body: Bytes,
        with: &mut With<'_>,
    ) -> Result<(), KafkaError> {
        let Some(exchange) = self.exchange.take() else {
            agreed(version, body, with.auth)?;
            let (exchange, message) = with.auth.begin();
            self.exchange = Some(exchange);
            return self.send_auth(message, with.deadline);
        };
        let response = wire::decode::<SaslAuthenticateRequest>(body, version)?;
        if response.error_code != 0 {
            let message = response.error_message.unwrap_or_default();
            let message = match (exchange.against(), message.is_empty()) {
                (Some(against), _) => format!("{against} {message}"),
                (None, true) => super::Code(response.error_code).to_string(),
                (None, false) => message.to_string(),
            };
            return Err(with.auth.refused(&message).into());
        }
        self.go_on_auth(exchange, response, with)
    }

    fn go_on_auth(
        &mut self,
        mut exchange: Exchange,
        response: SaslAuthenticateResponse,
        with: &mut With<'_>,
    ) -> Result<(), KafkaError> {
        match exchange.on_message(&response.auth_bytes, with.auth)? {
            Next::Send(message) => {
                self.exchange = Some(exchange);
                self.send_auth(message, with.deadline)
            }
            Next::Salt(request) => {
                with.auth.salt(request);
                (self.exchange, self.to_salt) = (Some(exchange), Some(response));
                self.deadline = with.deadline;
                Ok(())
            }
            Next::Over => {
                self.session = Session::new(response.session_lifetime_ms, with.now, with.jitter);
                // A session is only renewed on a connection that was identified before.
                match std::mem::replace(&mut self.authenticated, true) {
                    true => self.state = State::Ready,
                    false => self.identify(with),
                }
                Ok(())
            }
        }
    }

    /// Answers the broker's message that waited for a salted password.
    pub(super) fn on_salted(&mut self, with: &mut With<'_>) -> Result<(), KafkaError> {
        match self.exchange.take().zip(self.to_salt.take()) {
            Some((exchange, response)) => self.go_on_auth(exchange, response, with),
            None => Ok(()),
        }
    }

    /// Whether the connection waits for a salted password.
    pub(super) const fn is_salting(&self) -> bool {
        self.to_salt.is_some()
    }

    fn send_auth(&mut self, message: Vec<u8>, deadline: Instant) -> Result<(), KafkaError> {
        let version = self.versions.of(Api::SaslAuthenticate)?;
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        self.send(Asked::Auth, version, &request, deadline);
        Ok(())
    }

    /// Whether requests may go now: not while the session is about to end.
    pub(super) fn takes_requests(&self, now: Instant) -> bool {
        let ending = self.session.is_some_and(|session| session.renew_at <= now);
        self.state == State::Ready && self.quiet_until <= now && !ending
    }

    /// What the link needs, apart from answers.
    pub(super) fn due(&self, now: Instant, idle_timeout: Duration) -> Due {
        if self.state != State::Ready || !self.in_flight.is_empty() {
            return Due::Nothing;
        }
        match self.session {
            Some(session) if session.is_over(now) => Due::Retire,
            Some(session) if session.renew_at.max(self.quiet_until) <= now => Due::Renew,
            _ if self.last_used.after(idle_timeout) <= now => Due::Retire,
            _ => Due::Nothing,
        }
    }

    /// When `due` may next have something, if nothing happens before.
    pub(super) fn next_due(&self, idle_timeout: Duration) -> Option<Instant> {
        if self.state != State::Ready || !self.in_flight.is_empty() {
            return None;
        }
        let renew = self.session.map(|it| it.renew_at.max(self.quiet_until));
        let idle = self.last_used.after(idle_timeout);
        Some(renew.map_or(idle, |renew| renew.min(idle)))
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
            State::Authenticating if self.is_salting() => Some(self.deadline),
            _ => self.in_flight.iter().map(|asked| asked.deadline).min(),
        }
    }

    /// Since when the broker owes something here: the connection itself, or the answer that is
    /// next, counted from when a prompt broker gives it, and from the last bytes that came.
    pub(super) fn owes_since(&self, connect: Duration, request: Duration) -> Option<Instant> {
        let ago = |deadline: Instant, patience: Duration| {
            let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
            Instant::from_nanos(deadline.as_nanos().saturating_sub(patience))
        };
        if self.state == State::Opening {
            return Some(ago(self.deadline, connect));
        }
        let next = self.in_flight.front()?;
        let since = match next.asked {
            // Its deadline is another's patience, see `directory.rs`.
            Asked::Metadata => next.at.max(self.quiet_until),
            _ => ago(next.deadline, request),
        };
        Some(since.max(self.heard))
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

/// What a link works with while it takes bytes.
pub(super) struct With<'a> {
    pub(super) now: Instant,
    /// Of requests it makes by itself.
    pub(super) deadline: Instant,
    pub(super) auth: &'a mut Auth,
    /// The cluster that the connection must lead to, if one is known.
    pub(super) cluster: Option<&'a str>,
    pub(super) jitter: &'a mut FastRandom,
}

/// Rejects a broker of another cluster. Accepts a broker that reports no cluster id.
pub(super) fn same_cluster(ours: Option<&str>, theirs: Option<&str>) -> Result<(), KafkaError> {
    match ours.zip(theirs) {
        Some((ours, theirs)) if ours != theirs => Err(KafkaError::OtherCluster {
            ours: super::error::sanitize(ours),
            theirs: super::error::sanitize(theirs),
        }),
        _ => Ok(()),
    }
}

/// What a link needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// To say again who we are.
    Renew,
    /// To be closed, and no harm done: nobody needs it, or its session has ended.
    Retire,
}

/// Whether the broker takes our mechanism.
fn agreed(version: i16, body: Bytes, auth: &Auth) -> Result<(), KafkaError> {
    const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
    const ILLEGAL_SASL_STATE: i16 = 34;
    let response = wire::decode::<SaslHandshakeRequest>(body, version)?;
    let offered = || {
        let all: Vec<&str> = response.mechanisms.iter().map(|it| &**it).collect();
        super::error::sanitize(&all.join(", "))
    };
    match response.error_code {
        0 => Ok(()),
        UNSUPPORTED_SASL_MECHANISM => Err(KafkaError::Sasl(SaslError::Mechanism {
            wanted: auth.mechanism().unwrap_or_default(),
            offered: offered(),
        })),
        ILLEGAL_SASL_STATE => Err(KafkaError::Sasl(SaslError::NotAsked)),
        code => Err(KafkaError::Broker(super::Code(code))),
    }
}
